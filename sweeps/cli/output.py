"""Standard output and error: text for any terminal or file, whatever its encoding, and where it cannot be written."""

from __future__ import annotations

import codecs
import io
import logging
import os
import re
import sys
import unicodedata
from contextlib import suppress
from typing import Any

from rich.console import Console
from rich.text import Text

from sweeps.errors import disk_full

WIDTH = 160
"""Columns of what is not a terminal."""
_STAND_INS = {
    "±": "+-", "–": "-", "—": "-", "−": "-", "…": "...", "×": "x", "·": "*", "≤": "<=", "≥": ">=", "≠": "!=", "≈": "~",
    "→": "->", "←": "<-", "√": "sqrt", "∞": "inf", "‘": "'", "’": "'", "“": '"', "”": '"', "∈": "in", "σ": "sigma", "ß": "ss",
    "µ": "u", "μ": "mu", "π": "pi", "ε": "epsilon", "η": "eta", "λ": "lambda", "α": "alpha", "β": "beta", "Σ": "sum",
}  # fmt: skip
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def printable(text: str) -> str:
    """Return the text without colours, such as Ray's, and with control characters written as `\\x1b`.

    Names in another's store or file could hold any.
    """
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", _COLOUR.sub("", text))


def echo(text: str = "", nl: bool = True) -> None:
    """Write text to standard output."""
    if sys.stdout is not None:
        sys.stdout.write(printable(text) + ("\n" if nl else ""))
        sys.stdout.flush()


class PlainConsole(Console):
    """A console for text that may be anybody's: a label such as `NMU [no clamp]` is no markup."""

    def __init__(self, stderr: bool = False) -> None:
        stream = sys.stderr if stderr else sys.stdout
        terminal = stream is not None and stream.isatty()  # it is None where the shell has closed it
        super().__init__(stderr=stderr, width=None if terminal else WIDTH, markup=False)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)


class PlainFormatter(logging.Formatter):
    """Formats log records that may hold anybody's text."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


class _Descriptor(io.FileIO):
    """Standard output or error, on which a sweep that runs for days does not depend: see `outlive`."""

    lossy = False
    lost: OSError | None = None
    """Why something was not written."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.lost = error
            if not self.lossy:
                raise
            return len(data)


def prepare() -> None:
    """Let standard output and error take any text. Call it before anything is written."""
    codecs.register_error("sweeps", _stand_in)
    for name, number in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        # A descriptor that the shell has closed would be that of the next file that is opened, such as a database.
        with suppress(OSError):
            os.fstat(number)
            continue
        opened = os.open(os.devnull, os.O_RDWR)
        if name == "stderr":  # Ray does not start without one
            sys.stderr = io.TextIOWrapper(io.FileIO(opened, "w", closefd=False))
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.flush()
            descriptor = _Descriptor(stream.fileno(), "w", closefd=False)
            descriptor.lossy = name == "stderr"
            wrapper = io.TextIOWrapper(
                io.BufferedWriter(descriptor), stream.encoding, "sweeps",
                line_buffering=stream.line_buffering, write_through=stream.write_through,
            )  # fmt: skip
            setattr(sys, name, wrapper)


def outlive() -> None:
    """Drop from now on what cannot be written, for a sweep whose log is on a full disk or is read by nobody any more."""
    descriptor = _descriptor()
    if descriptor is not None:
        descriptor.lossy = True


def lost(error: BaseException) -> bool:
    """Return whether an error is that of standard output, which `finish` returns."""
    descriptor = _descriptor()
    return descriptor is not None and descriptor.lost is error


def finish() -> str | None:
    """Write what is left. Return why output was lost, unless the one that read it has closed it; otherwise None."""
    descriptor = _descriptor()
    with suppress(OSError, ValueError):
        if sys.stdout is not None:
            sys.stdout.flush()
    if descriptor is None or descriptor.lost is None:
        return None
    descriptor.lossy = True  # Python flushes once more when it ends
    if isinstance(descriptor.lost, BrokenPipeError):
        return None
    if disk_full(descriptor.lost):
        return "the output could not be written to the end: the disk is full. Free some space, and run again"
    return f"the output could not be written to the end: {descriptor.lost.strerror}"


def _descriptor() -> _Descriptor | None:
    found = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return found if isinstance(found, _Descriptor) else None


def _stand_in(error: UnicodeError) -> tuple[str, int]:
    """Return ASCII text for characters that an encoding lacks, as the codecs module requires it."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_ascii, error.object[error.start : error.end])), error.end


def _ascii(letter: str) -> str:
    if letter in _STAND_INS:
        return _STAND_INS[letter]
    code = ord(letter)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file's name that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    plain = unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode()
    return plain or "?"
