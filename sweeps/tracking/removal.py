"""A sweep's runs in MLflow renamed and deleted, and what is deleted there removed for good."""

from __future__ import annotations

import logging
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from sqlalchemy import and_

from sweeps.errors import TrackingError
from sweeps.store.database import compact_file, files_bytes
from sweeps.tracking.client import Client, sqlite_file, typed_errors, without_password

OURS = ("sweep", "layout", "level")
"""Tags that every run has which this system wrote."""
log = logging.getLogger(__name__)
CHUNK = 500
"""Runs that are removed in one transaction."""
FOLDER = "mlartifacts"
"""Beside an SQLite database, with its artifacts: `Client.experiment`."""


@dataclass(frozen=True)
class Purged:
    """What `purge` removed for good, or would."""

    runs: int
    experiments: int
    before_bytes: int
    """Size of an SQLite database before, and after; 0 of others."""
    after_bytes: int
    left: int = 0
    """Runs and models whose artifacts are in another place than this database's own folder, and stay there."""
    left_at: str = ""
    """Where those of one of them are."""


def is_there(uri: str) -> bool:
    """Return whether there may be an MLflow to open: false for an SQLite file that does not exist."""
    file = sqlite_file(uri)
    return file is None or file.is_file()


def is_shared(uri: str, store: str | Path) -> bool:
    """Return whether other stores may have their runs in this MLflow: it is no file in the store's own folder.

    The default file is that of its store, also of one in PostgreSQL.
    """
    file = sqlite_file(uri)
    folder = Path("results" if "://" in str(store) else store)
    return file is None or file.resolve().parent != folder.resolve()


def rename_experiment(uri: str, created: str, old: str, new: str) -> None:
    """Give the experiment of a sweep that was renamed in the store its new name, unless it has a name of the user's.

    It keeps its name where an experiment of the new one exists. `created` is SweepRow.created. Raises TrackingError.
    """
    with _opened(uri, f"rename the experiment {old!r}") as client:
        for id in _experiments_of(client, created):
            found = client._mlflow.get_experiment(id)
            named = found.name in (old, f"{old} {created}") and found.lifecycle_stage == "active"
            if named and client._mlflow.get_experiment_by_name(new) is None:
                client._mlflow.rename_experiment(id, new)


def count_runs(uri: str, created: Iterable[str]) -> int:
    """Return how many runs, without deleted ones, the sweeps of these times of creation have. Raises TrackingError."""
    with _opened(uri, "count runs") as client:
        store = _database_of(client)
        if store is None:
            found = (client._search(_experiments_of(client, one), _of_sweep(one)) for one in created)
            return sum(run.info.lifecycle_stage == "active" for runs in found for run in runs)
        from mlflow.store.tracking.dbmodels.models import SqlRun, SqlTag

        with store.ManagedSessionMaker() as session:
            tagged = session.query(SqlTag.run_uuid).filter(SqlTag.key == "sweep", SqlTag.value.in_(list(created)))
            active = session.query(SqlRun).filter(SqlRun.lifecycle_stage == "active", SqlRun.run_uuid.in_(tagged))
            return int(active.count())


def delete_runs(uri: str, created: Mapping[str, str]) -> None:
    """Mark the runs of sweeps as deleted, with their experiments where nothing else is in them.

    `created` has names of sweeps by SweepRow.created. An experiment that is deleted is renamed, so that another sweep may have
    its name. MLflow can restore all of it until `purge`. It may be repeated. Raises TrackingError.
    """
    for of_sweep, name in created.items():
        with _opened(uri, f"delete the runs of {name!r}") as client:
            for id in _experiments_of(client, of_sweep):
                experiment = client._mlflow.get_experiment(id)
                if experiment.lifecycle_stage == "deleted":
                    continue
                others = ("tags.sweep IS NULL", f"tags.sweep != '{of_sweep}'")
                if not any(client._search([id], condition, most=1) for condition in others):
                    now = datetime.now(UTC).isoformat(timespec="seconds")
                    client._mlflow.rename_experiment(id, f"{experiment.name} deleted {now}")
                    client._mlflow.delete_experiment(id)  # with all its runs, in one call
                    continue
                for run in client._search([id], _of_sweep(of_sweep)):
                    if run.info.lifecycle_stage == "active":
                        client._mlflow.delete_run(run.info.run_id)


def purge(
    uri: str,
    dry_run: bool = False,
    compact: Callable[[], bool] = lambda: True,
    on_progress: Callable[[int], None] | None = None,
) -> Purged:
    """Remove for good what is deleted in MLflow: runs of sweeps with their artifacts, and their experiments.

    As `mlflow gc`, but runs that this system did not write stay, and experiments that have any; and artifacts in a place that
    only the database names, as S3 or the folder that the store was copied from, stay too. The space is given back to the disk
    where `compact`, called after the deletion, returns true. `on_progress` receives the number of runs so far. Raises
    TrackingError, also for a server, since only a program that can open its database removes anything for good.
    """
    with _opened(uri, "remove deleted runs") as client:
        store = _database_of(client)
        if store is None:
            raise TrackingError(
                f"MLflow at {without_password(uri)} is a server, where only `mlflow gc` on its own machine removes deleted runs"
            )
        file = sqlite_file(uri)
        before = files_bytes(file) if file else 0
        runs, experiments = _deleted(store)
        left: list[_Owner] = []
        if not dry_run:
            for start in range(0, len(runs), CHUNK):
                chunk = runs[start : start + CHUNK]
                for model in _models_of(store, [run.id for run in chunk]):
                    if not _delete_artifacts(file, model):
                        left.append(model)
                    store._hard_delete_logged_model(model.id)
                left += [run for run in chunk if not _delete_artifacts(file, run)]
                _hard_delete(store, [run.id for run in chunk])
                if on_progress is not None:
                    on_progress(start + len(chunk))
            for experiment in experiments:
                store._hard_delete_experiment(experiment)
        if file and not dry_run and compact():
            try:
                if not compact_file(file):
                    log.warning("%s keeps its size: rewriting it takes too long for those that write to it meanwhile", file)
            except sqlite3.Error as error:
                raise TrackingError(f"{file} cannot be made smaller now: {error}. Nothing is lost; try again later") from error
        left_at = without_password(left[0].artifact_uri) if left else ""
        return Purged(len(runs), len(experiments), before, files_bytes(file) if file else 0, len(left), left_at)


@dataclass(frozen=True)
class _Owner:
    """A run, or a model that one logged."""

    id: str
    artifact_uri: str


def _database_of(client: Client) -> Any:
    """Return MLflow's store of a database that this process can open; None for a server."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store = client._mlflow._tracking_client.store
    return store if isinstance(store, SqlAlchemyStore) else None


def _deleted(store: Any) -> tuple[list[_Owner], list[str]]:
    """Return the deleted runs of sweeps, and the deleted experiments that have these runs and no other.

    A run stays whose model is in the registry: the registered model is in the run's artifacts.
    """
    from mlflow.store.model_registry.dbmodels.models import SqlModelVersion
    from mlflow.store.tracking.dbmodels.models import SqlExperiment, SqlRun, SqlTag

    with store.ManagedSessionMaker() as session:
        registered = session.query(SqlModelVersion.run_id).filter(SqlModelVersion.run_id.is_not(None))
        ours = [SqlRun.run_uuid.not_in(registered)]
        ours += [SqlRun.run_uuid.in_(session.query(SqlTag.run_uuid).filter(SqlTag.key == key)) for key in OURS]
        found = session.query(SqlRun.run_uuid, SqlRun.artifact_uri, SqlRun.experiment_id)
        rows = found.filter(SqlRun.lifecycle_stage == "deleted", *ours).all()
        having = {row.experiment_id for row in rows}
        others = session.query(SqlRun.experiment_id).filter(~and_(SqlRun.lifecycle_stage == "deleted", *ours)).distinct()
        kept = {row.experiment_id for row in others}
        gone = session.query(SqlExperiment.experiment_id).filter(SqlExperiment.lifecycle_stage == "deleted")
        experiments = [str(row.experiment_id) for row in gone if row.experiment_id in having - kept]
        return [_Owner(row.run_uuid, row.artifact_uri or "") for row in rows], experiments


def _models_of(store: Any, runs: list[str]) -> list[_Owner]:
    """Return the models that these runs logged."""
    from mlflow.store.tracking.dbmodels.models import SqlLoggedModel

    with store.ManagedSessionMaker() as session:
        found = session.query(SqlLoggedModel.model_id, SqlLoggedModel.artifact_location)
        return [_Owner(id, location or "") for id, location in found.filter(SqlLoggedModel.source_run_id.in_(runs))]


def _hard_delete(store: Any, ids: list[str]) -> None:
    """Delete the rows of runs, all in one transaction, as MLflow's own method does for one run."""
    from mlflow.store.tracking import sqlalchemy_store
    from mlflow.store.tracking.dbmodels.models import SqlRun

    with store.ManagedSessionMaker(read_only=False) as session:
        for model in (*sqlalchemy_store._RUN_DELETE_CASCADE_MODELS, SqlRun):
            session.query(model).filter(model.run_uuid.in_(ids)).delete(synchronize_session=False)


@contextmanager
def _opened(uri: str, what: str) -> Iterator[Client]:
    """A client of MLflow; its errors become TrackingErrors, with `what` could not be done."""
    client = Client(uri)
    with typed_errors(uri, what):
        yield client


def _of_sweep(created: str) -> str:
    return f"tags.sweep = '{created}'"


def _experiments_of(client: Client, created: str) -> list[str]:
    """Return the ids of the experiments that have the sweep's runs."""
    everything = [str(one.experiment_id) for one in client._experiments()]
    runs = client._search(everything, f"{_of_sweep(created)} and tags.level = 'sweep'")
    return list(dict.fromkeys(str(run.info.experiment_id) for run in runs))


def _delete_artifacts(file: Path | None, owner: _Owner) -> bool:
    """Delete the artifacts of a run or model. Return whether none of them is left elsewhere, where nothing is deleted.

    A database made by somebody else may name any place: only a folder of MLflow's own form is deleted, of an SQLite database
    only beside its file, whatever folder it was copied from.
    """
    address = urlsplit(owner.artifact_uri)
    path = Path(unquote(address.path))
    own = path.name == "artifacts" and path.parent.name == owner.id and re.fullmatch("(m-)?[0-9a-f]{32}", owner.id)
    local = address.scheme in ("", "file") and address.netloc in ("", "localhost") and path.is_absolute()
    if not local:
        return not owner.artifact_uri
    folder = path.parent
    if file is not None:
        below = folder.parts[max((index for index, part in enumerate(folder.parts) if part == FOLDER), default=0) + 1 :]
        home = file.absolute().parent / FOLDER
        if FOLDER not in folder.parts or ".." in below:
            return not path.exists()
        folder = home.joinpath(*below)
        if home.resolve() not in folder.resolve().parents:
            return False
    if not own:
        return not path.exists()
    shutil.rmtree(folder, ignore_errors=True)
    return True
