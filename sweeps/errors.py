"""The exceptions that this system raises on purpose, as one tree.

    SweepsError
    ├── UserError            the request is wrong, and nothing was started
    │   ├── SweepFileError   faults of a sweep file or of clusters.yaml       (sweeps.config.faults)
    │   ├── UnknownName      no model, network or task of that name          (sweeps.config.registry)
    │   └── BrokenDefinition its file cannot be used                         (sweeps.config.registry)
    ├── StoreError           the store cannot be opened, read or written
    │   └── HeldByAnother    another live driver runs the sweep              (sweeps.store)
    ├── ClusterError         Ray or a cluster cannot run the sweep, or does not answer
    ├── TrackingError        MLflow did not accept something
    └── SweepFailed          the sweep stopped on an error after it had been started

The command prints the message of a SweepsError without a traceback and exits with its `exit_status`: 2 where the user can
mend the request and nothing was started, otherwise 1. Any other exception is a bug: it keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class SweepsError(Exception):
    """Base class. The message says what was given, what is allowed and what to do next."""

    exit_status = 1


class UserError(SweepsError, ValueError):
    """The request is wrong, the user can mend it, and nothing was started."""

    exit_status = 2


class StoreError(SweepsError):
    """A store cannot be opened, read or written, or refuses a request. Inside `after_start` it becomes SweepFailed."""

    exit_status = 2


class ClusterError(SweepsError):
    """Ray or a cluster cannot run the sweep, or does not answer."""


class TrackingError(SweepsError):
    """MLflow did not accept a write. The records are in the store; `sweeps sync NAME` writes all of it again."""


class SweepFailed(SweepsError):
    """The sweep stopped on an error after it had been started. What was recorded is kept."""


@contextmanager
def after_start() -> Iterator[None]:
    """Raise SweepFailed in place of an error whose exit status would mean that nothing was started."""
    try:
        yield
    except (UserError, StoreError) as error:
        raise SweepFailed(f"{error}\nThe sweep stopped. What is recorded is kept; the same command continues it.") from error
