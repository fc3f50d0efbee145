"""What all verbs of the command share: the consoles, the options, and how sweep files and stores are opened."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from sweeps.cli.output import PlainConsole, echo
from sweeps.errors import SweepsError, UserError, disk_full

if TYPE_CHECKING:
    from sweeps.config.sweep_file import Sweep

__all__ = ["app", "console", "echo", "errors", "load_sweep", "require_different", "require_store", "with_warnings", "writing"]

_NOT_ONE_OF = re.compile(r"(?:Value error, )?('([^']*)' is not one of ((?:'[^']*'(?:, )?)+)\.)")


class _Group(TyperGroup):
    """Words what is wrong with a number, and adds the nearest name where a word is none of those that an option takes."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            if found := _NOT_ONE_OF.fullmatch(error.message):
                from sweeps.config.registry import did_you_mean

                text, word, names = found.groups()
                error.message = text + did_you_mean(word, re.findall(r"'([^']*)'", names))
            elif text := _fault_of_number(error.__cause__):
                error.message = text
            raise


def _fault_of_number(cause: BaseException | None) -> str | None:
    """Return what is wrong with the number of an option, with its value; None where that is not the fault."""
    from pydantic import ValidationError

    if not isinstance(cause, ValidationError):
        return None
    fault = cause.errors()[0]
    limits = fault.get("ctx", {})
    allowed = {
        "int_parsing": "a whole number", "int_parsing_size": "a smaller number", "float_parsing": "a number",
        "greater_than_equal": f"at least {limits.get('ge')}", "less_than_equal": f"at most {limits.get('le')}",
    }.get(fault["type"])  # fmt: skip
    return None if allowed is None else f"must be {allowed}, not {fault['input']!r}"


console, errors = PlainConsole(), PlainConsole(stderr=True)
app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Hyperparameter sweeps over many seeds, for models that learn arithmetic and algorithms.",
)

StoreOption = Annotated[
    str,
    typer.Option("--store", envvar="SWEEPS_STORE", help="folder (or postgresql:// URL) that keeps the records"),
]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="settings that replace the file's")]
OnOption = Annotated[str | None, typer.Option("--on", metavar="CLUSTER", help="a cluster's name in clusters.yaml")]


def load_sweep(file: str, overrides: list[str] | None) -> Sweep:
    """Load a sweep file, or a shipped definition of that name, and print its warnings. Raises SweepFileError."""
    from sweeps.config.sweep_file import find_file, load

    return with_warnings(load(find_file(file), overrides or []))


def with_warnings(sweep: Sweep) -> Sweep:
    """Print a sweep's warnings and return the sweep."""
    for warning in sweep.warnings:
        errors.print(f"warning: {warning}", highlight=False, soft_wrap=True)
    return sweep


def note(line: str) -> None:
    """Print a note on standard error."""
    errors.print(f"note: {line}", highlight=False, soft_wrap=True)


def require_store(store: str) -> None:
    """Raise UserError where there is no store, for verbs that read and must not create one."""
    from sweeps.store.database import exists

    if not exists(store):
        found = (
            f"{store!r} is a file, and a store is a folder" if Path(store).is_file() else f"there is no store {store!r} here"
        )
        raise UserError(f"{found}: `sweeps run` makes one; --store or SWEEPS_STORE names another")


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Yield the file to write in place of `path`, which the user named: it gets that name only when it is complete.

    Raises UserError where the operating system refuses it.
    """
    whole = path.resolve()  # what a symbolic link leads to
    written = whole.with_name(f".{whole.stem[:100]}-{os.getpid()}{whole.suffix}")
    if (path.exists() and not path.is_file()) or (path.is_file() and not os.access(whole.parent, os.W_OK)):
        written = path  # a device such as /dev/stdout, or a file in a folder in which no other can be made
    try:
        yield written
        if written != path:
            if whole.exists():
                shutil.copymode(whole, written)
            written.replace(whole)
    except OSError as error:
        if full := disk_full(error):
            raise SweepsError(f"{path} cannot be written: {full}. Free some space, or give a file on another disk") from error
        raise UserError(
            f"{path} cannot be written: {error.strerror or error}. Give a file in a folder that exists and is writable"
        ) from error
    finally:
        if written != path:
            with suppress(OSError):
                written.unlink()


def require_different(names: list[str]) -> None:
    """Raise UserError where a sweep is named twice: its seeds would be counted twice."""
    for name in dict.fromkeys(names):
        if names.count(name) > 1:
            raise UserError(f"{name} is named {names.count(name)} times: name every sweep once")


def warn(message: str) -> None:
    """Print a warning, on standard error."""
    errors.print(f"warning: {message}", highlight=False, soft_wrap=True)
