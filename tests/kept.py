"""What a sweep left in its store (a folder or a URL) and in MLflow, read without the code that writes reports."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import sqlalchemy as sa
from mlflow.entities import Run, ViewType
from mlflow.tracking import MlflowClient

from sweeps.store import Store
from sweeps.store.database import checkpoints, exists, records
from sweeps.training.lane import LaneResult


def records_of(store: str | Path) -> list[LaneResult]:
    with Store(store) as opened, opened.database.read() as connection:
        ids = [(row.key, row.budget) for row in connection.execute(sa.select(records.c.key, records.c.budget))]
        return list(opened.records(ids).values())


def steps_saved(store: str | Path) -> int:
    """Return the steps of all checkpoints together."""
    if not exists(store):
        return 0
    with Store(store) as opened, opened.database.read() as connection:
        return int(connection.execute(sa.select(sa.func.sum(checkpoints.c.steps))).scalar() or 0)


def lanes_in(store: str | Path) -> int:
    return len(records_of(store)) if exists(store) else 0


def runs_of(store: str | Path, name: str, uri: str | None = None) -> list[Run]:
    """Return MLflow's runs of a sweep, from `uri` or the database in the store's folder."""
    client = MlflowClient(uri or f"sqlite:///{store}/mlflow.db")
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], "", ViewType.ACTIVE_ONLY, max_results=1000))


def states(store: str | Path, name: str, uri: str | None = None) -> Counter[tuple[str, str]]:
    """Return how many of MLflow's runs have each (level, status)."""
    return Counter((run.data.tags["level"], run.info.status) for run in runs_of(store, name, uri))
