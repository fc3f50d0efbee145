"""The exceptions that this system raises on purpose, as one tree.

    SweepsError
    ├── UserError            the request is wrong, and nothing was started
    │   ├── SweepFileError   faults of a sweep file or of clusters.yaml       (sweeps.config.faults)
    │   ├── UnknownName      no model, network or task of that name          (sweeps.config.registry)
    │   └── BrokenDefinition its file cannot be used                         (sweeps.config.registry)
    ├── StoreError           the store cannot be opened, read or written
    │   ├── HeldByAnother    another live driver runs the sweep              (sweeps.store)
    │   └── UnknownSweep     no sweep of that name; a UserError and a KeyError too
    ├── ClusterError         Ray or a cluster cannot run the sweep, or does not answer
    ├── TrackingError        MLflow did not accept something
    │   └── TrackingRefused  it cannot be written there, and nothing was
    ├── SweepFailed          the sweep stopped on an error after it had been started
    └── SweepIncomplete      sweeps.run: the sweep ended before it was done, as by Ctrl-C

The command prints the message of a SweepsError without a traceback and exits with its `exit_status`: 2 where the user can
mend the request and nothing was started, otherwise 1. Any other exception is a bug: it keeps its traceback.
"""

from __future__ import annotations

import difflib
import errno
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any


class SweepsError(Exception):
    """Base class. The message says what was given, what is allowed and what to do next."""

    exit_status = 1


class UserError(SweepsError, ValueError):
    """The request is wrong, the user can mend it, and nothing was started."""

    exit_status = 2


class StoreError(SweepsError):
    """A store cannot be opened, read or written, or refuses a request. Inside `after_start` it becomes SweepFailed."""

    exit_status = 2


class UnknownSweep(StoreError, UserError, KeyError):
    """The store has no sweep of that name. The message has the nearest one, and lists those that there are."""

    __str__ = Exception.__str__  # KeyError's adds quotes

    def __init__(self, location: str, name: str, known: Sequence[str]) -> None:
        names = [other[:100] for other in known]
        near = difflib.get_close_matches(name, names, n=1)
        guess = f" Did you mean {near[0]!r}?" if near else ""
        listed = f" It has: {', '.join(names[:20])}." if names else " It has none yet."
        file = " There is a file of that name, but the name of a sweep is expected." if os.path.isfile(name) else ""
        super().__init__(f"store {location} has no sweep named {name!r}.{file}{guess}{listed}")
        self._made_of = location, name, tuple(known)

    def __reduce__(self) -> tuple[Any, ...]:
        return UnknownSweep, self._made_of


class ClusterError(SweepsError):
    """Ray or a cluster cannot run the sweep, or does not answer."""


class TrackingError(SweepsError):
    """MLflow did not accept a write. The records are in the store; `sweeps sync NAME` writes all of it again."""


class TrackingRefused(TrackingError):
    """What was to be written to MLflow cannot be written there, and nothing was: the message says what can be changed."""

    exit_status = 2


class SweepFailed(SweepsError):
    """The sweep stopped on an error after it had been started. What was recorded is kept."""


class SweepIncomplete(SweepsError):
    """A sweep that was run from Python ended before it was done. What was recorded is kept."""

    def __init__(self, message: str, state: str, reason: str | None, sweep: Any) -> None:
        super().__init__(message)
        self.state, self.reason = state, reason
        """stopped or failed, and why."""
        self.sweep = sweep
        """Its results so far, a `sweeps.SweepResults`."""


@contextmanager
def after_start() -> Iterator[None]:
    """Raise SweepFailed in place of an error whose exit status would mean that nothing was started."""
    try:
        yield
    except (UserError, StoreError) as error:
        raise SweepFailed(f"{error}\nThe sweep stopped. What is recorded is kept; the same command continues it.") from error


_SQLITE_FULL = ("SQLITE_FULL", "SQLITE_IOERR_SHMSIZE")
"""The second where there is no room for the index of the write-ahead log."""
_DISK_FULL = ("No space left on device", "database or disk is full", "Disk quota exceeded")


def disk_full(error: BaseException) -> str | None:
    """Return the system's message, with the file if it is known, if an error or its cause is a full disk, or else None.

    Ray and MLflow pass errors on as text.
    """
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:
        seen.append(cause)
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            return f"{cause.strerror}: {cause.filename}" if cause.filename else str(cause.strerror)
        if isinstance(cause, sqlite3.Error) and _sqlite_name(cause) in _SQLITE_FULL:
            return "database or disk is full"
        cause = cause.__cause__ or cause.__context__
    texts = [line.strip() for one in seen for line in str(one).splitlines()]
    return next((line[:300] for line in reversed(texts) if any(part in line for part in _DISK_FULL)), None)


def _sqlite_name(error: sqlite3.Error) -> str | None:
    """Return SQLite's name of an error; None for one that Python's module raised itself, or that was unpickled."""
    try:
        return error.sqlite_errorname
    except AttributeError:
        return None
