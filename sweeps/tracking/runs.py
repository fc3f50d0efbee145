"""Runs of MLflow as they were read, and what is to be written of one. Plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sweeps.errors import TrackingError
from sweeps.tracking.rows import Point

PARENT = "mlflow.parentRunId"
Key = tuple[str, str, str, str]
"""Level, cell, configuration, seed; the empty text where a level has none."""


class Unavailable(TrackingError):
    """MLflow does not answer, is busy, or its disk is full: what failed may be tried again later."""


class Changed(Unavailable):
    """Somebody else changed what is written: it is to be read again, then it may be tried again.

    With `lost` what was written before may be gone, as where the database's file was deleted.
    """

    def __init__(self, message: str, lost: bool = False) -> None:
        super().__init__(message)
        self.lost = lost


@dataclass(eq=False)
class Run:
    """A run in MLflow, as it is once what is planned is written."""

    id: str
    """Empty until it is created."""
    status: str
    tags: dict[str, str]
    deleted: bool = False

    @property
    def ended(self) -> bool:
        return self.status not in ("RUNNING", "SCHEDULED")

    @property
    def key(self) -> Key:
        return key_of(self.tags)


@dataclass(eq=False)
class Change:
    """What is to be written of one run; whole where it is `new`."""

    run: Run
    new: bool = False
    parent: Run | None = None
    name: str = ""
    """Of a new run, or another one of one that is there."""
    started_ms: int = 0
    tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)
    status: str | None = None
    ended_ms: int | None = None

    @property
    def key(self) -> Key:
        return self.run.key


def key_of(tags: Mapping[str, str]) -> Key:
    """Return a run's place in its sweep."""
    return tags.get("level", ""), tags.get("cell", ""), tags.get("configuration", ""), tags.get("seed", "")
