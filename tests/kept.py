"""The contents of a sweep's store and of MLflow, read without the code that writes reports."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import sqlalchemy as sa
from mlflow.entities import Run, ViewType
from mlflow.tracking import MlflowClient

from sweeps.store import Store
from sweeps.store.database import checkpoints, records
from sweeps.training.lane import LaneResult


def records_of(store: Path) -> list[LaneResult]:
    with Store(store) as opened, opened.database.read() as connection:
        ids = [
            (row.key, row.budget) for row in connection.execute(sa.select(records.c.key, records.c.budget))
        ]
        return list(opened.records(ids).values())


def steps_saved(store: Path) -> int:
    """Steps of all checkpoints together."""
    if not (store / "sweeps.db").exists():
        return 0
    with Store(store) as opened, opened.database.read() as connection:
        return int(connection.execute(sa.select(sa.func.sum(checkpoints.c.steps))).scalar() or 0)


def lanes_in(store: Path) -> int:
    return len(records_of(store)) if (store / "sweeps.db").exists() else 0


def runs_of(store: Path, name: str) -> list[Run]:
    client = MlflowClient(f"sqlite:///{store}/mlflow.db")
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], "", ViewType.ACTIVE_ONLY, max_results=1000))


def states(store: Path, name: str) -> Counter[tuple[str, str]]:
    """(level, status) of every run in MLflow."""
    return Counter((run.data.tags["level"], run.info.status) for run in runs_of(store, name))
