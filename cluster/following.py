"""Follow a job's log to its end, each line once: over a connection (`follow`) or in a file on a shared disk (`follow_file`)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from sweeps.errors import ClusterError, UserError

SILENCE_S = 30.0
"""Time without output after which a tail is restarted: a dead connection cannot be distinguished from a silent one."""
PATIENCE_S = 600.0
"""Time for which a cluster may be out of reach before following is given up."""
PAUSE_S = 1.0
"""Pause between two tails, and between two reads of a file."""
CHECK_S = 5.0
"""How often `follow_file` checks whether the job has ended."""


class Look(NamedTuple):
    """The state of a log."""

    text: str
    """Name of the text. Another name means another text, such as that of a job that was restarted."""
    ended: bool


class Log(Protocol):
    """A job's log that can be read again and again.

    A lost connection raises ClusterError, OSError, RuntimeError or ValueError; UserError ends the following.
    """

    def look(self) -> Look:
        """Return the name of the current text, and whether the job has ended."""

    def whole(self) -> str:
        """Return the text written so far."""

    def tail(self) -> Iterator[str]:
        """Yield pieces of the text from its beginning, as they are written; may end early."""


class _Connection:
    """Reports a cluster that is out of reach once, and gives up after `PATIENCE_S`."""

    def __init__(self, on_message: Callable[[str], None]) -> None:
        self._on_message = on_message
        self._lost_s: float | None = None

    def lost(self, message: str, failure: ClusterError, cause: Exception) -> None:
        """Record a failed attempt. Raises `failure` if the cluster has been away for too long."""
        now_s = time.monotonic()
        if self._lost_s is None:
            self._lost_s = now_s
            self._on_message(f"{message}, trying again")
        if now_s - self._lost_s > PATIENCE_S:
            raise failure from cause

    def restored(self) -> bool:
        """Record a successful attempt; return whether the one before had failed."""
        was_lost, self._lost_s = self._lost_s is not None, None
        return was_lost


def follow(log: Log, on_message: Callable[[str], None] = lambda _: None) -> Iterator[str]:
    """Yield the lines of a log until the job has ended and all of them were yielded.

    `on_message` receives notes about lost connections. Raises ClusterError if the cluster stays out of reach.
    """
    lines, text = _Lines(), ""
    connection = _Connection(on_message)
    while True:
        try:
            look = log.look()
            if connection.restored():
                on_message("connected again")
            if look.text != text:
                yield from lines.rest()
                lines, text = _Lines(), look.text
            lines.begin()
            if look.ended:
                yield from lines.add(log.whole())
                yield from lines.rest()
                return
            for chunk in log.tail():
                yield from lines.add(chunk)
        except UserError:
            raise  # waiting would not help
        except (ClusterError, OSError, RuntimeError, ValueError) as error:
            failure = ClusterError(
                f"the cluster was out of reach for {PATIENCE_S:g} s. The job may go on: follow it again later"
            )
            connection.lost(f"the connection was lost ({type(error).__name__})", failure, error)
        time.sleep(PAUSE_S)


class _Lines:
    """Whole lines of a text that arrives in pieces, from its beginning with every tail."""

    def __init__(self) -> None:
        self._given = 0  # characters of the text that were read, over all tails
        self._position = 0  # of this tail
        self._part = ""

    def begin(self) -> None:
        """Start at the beginning of the text again."""
        self._position = 0

    def add(self, chunk: str) -> Iterator[str]:
        """Take the next piece and yield the lines that it completes."""
        start = self._position
        self._position += len(chunk)
        if self._position <= self._given:
            return
        self._part += chunk[max(0, self._given - start) :]
        self._given = self._position
        *whole, self._part = self._part.split("\n")
        yield from whole

    def rest(self) -> Iterator[str]:
        """Yield a last line without an end."""
        if self._part:
            yield self._part
            self._part = ""


def follow_file(path: Path, is_active: Callable[[], bool], on_message: Callable[[str], None] = lambda _: None) -> Iterator[str]:
    """Yield the lines of a file that grows on a shared disk, until the job has ended and all of them were yielded.

    `is_active` returns whether the job has not ended, and raises ClusterError while that is unknown; the file is read in the
    meantime. Raises this error if it lasts.
    """
    reader = _FileReader(path)
    connection = _Connection(on_message)
    checked_s = -CHECK_S
    while True:
        now_s = time.monotonic()
        if now_s - checked_s >= CHECK_S:
            checked_s = now_s
            try:
                active = is_active()  # before reading, so that the last reading is complete
                connection.restored()
            except ClusterError as error:
                active = True
                connection.lost(str(error), error, error)
            if not active:
                yield from reader.new_lines(last=True)
                return
        yield from reader.new_lines()
        time.sleep(PAUSE_S)


def file_lines(path: Path) -> list[str]:
    """Return the lines of a file as it is now; none where there is no file yet."""
    return list(_FileReader(path).new_lines(last=True))


class _FileReader:
    """Opens the file again for each read: over NFS a file is certain to contain only what was written before it was opened."""

    def __init__(self, path: Path) -> None:
        self._path, self._position, self._part = path, 0, b""

    def new_lines(self, last: bool = False) -> Iterator[str]:
        """Yield the whole lines since the last call; the `last` call also yields one that has no end."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._position)
                found = file.read()
        except FileNotFoundError:  # the job has not begun
            found = b""
        self._position += len(found)
        *lines, self._part = (self._part + found).split(b"\n")
        if last and self._part:
            lines.append(self._part)
            self._part = b""
        yield from (line.decode(errors="replace") for line in lines)
