"""MLflow's client: connected quietly, writing in batches, its failures one typed error."""

from __future__ import annotations

import logging
import os
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sweeps.errors import TrackingError
from sweeps.store.location import network_file_system, parameters_masked
from sweeps.tracking.rows import Point

if TYPE_CHECKING:  # importing mlflow takes seconds, so it is left to the first connection
    from mlflow.tracking import MlflowClient

ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    # By default MLflow retries for minutes if a server is down; a sweep does not wait, because `sync` can write later.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    # Otherwise a line and a GET request for every run that ends.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""Set unless the user has set them."""
SQLITE = "sqlite:///"


def default_uri(store: str | Path) -> str:
    """Return MLFLOW_TRACKING_URI, or an SQLite file in the store; in the default store's folder if that is a database."""
    given = os.environ.get("MLFLOW_TRACKING_URI")
    if given:
        # Without a driver's name SQLAlchemy uses psycopg2, but psycopg 3 is what is installed.
        return re.sub("^postgres(ql)?://", "postgresql+psycopg://", given)
    folder = Path("results" if "://" in str(store) else store)
    return f"{SQLITE}{folder.absolute() / 'mlflow.db'}"


def sqlite_file(uri: str) -> Path | None:
    """Return the file of an SQLite URI; None for any other."""
    return Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None


def without_password(uri: str) -> str:
    """Return the URI without what is between // and @, as it may be shown."""
    scheme, slashes, rest = uri.partition("://")
    host, slash, path = rest.partition("/")
    return parameters_masked(f"{scheme}{slashes}{host.rpartition('@')[2]}{slash}{path}")


@dataclass
class Run:
    """A run in MLflow."""

    id: str
    status: str
    tags: dict[str, str]

    @property
    def ended(self) -> bool:
        return self.status not in ("RUNNING", "SCHEDULED")


class Client:
    """The calls that the tracker needs. Every method raises TrackingError and nothing else."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        with self._typed_errors("be opened"):
            self._mlflow = _connect(uri)

    @contextmanager
    def _typed_errors(self, what: str) -> Iterator[None]:
        """Raise any exception of MLflow as a TrackingError."""
        try:
            yield
        except TrackingError:
            raise
        # MLflow raises exceptions of SQLAlchemy, requests, the file system and its own; none may end a sweep.
        except Exception as error:
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise TrackingError(f"MLflow at {without_password(self.uri)} could not {what}: {first}") from error

    def experiment(self, name: str) -> str:
        """Return the id of the experiment of that name; it is created, or restored if it was deleted."""
        with self._typed_errors(f"open the experiment {name!r}"):
            found = self._mlflow.get_experiment_by_name(name)
            if found is None:
                # For SQLite MLflow would write artifacts below the working directory.
                file = sqlite_file(self.uri)
                location = (file.absolute().parent / "mlartifacts").as_uri() if file else None
                return str(self._mlflow.create_experiment(name, artifact_location=location))
            if found.lifecycle_stage == "deleted":
                self._mlflow.restore_experiment(found.experiment_id)
            return str(found.experiment_id)

    def runs(self, experiment: str, tag: str, value: str) -> list[Run]:
        """Return every run of the experiment with that tag, the oldest first."""
        found: list[Run] = []
        token: str | None = None
        with self._typed_errors("list the sweep's runs"):
            while True:
                page = self._mlflow.search_runs(
                    [experiment],
                    f"tags.{tag} = '{value}'",
                    order_by=["attributes.start_time ASC"],
                    page_token=token,
                )
                found += [Run(run.info.run_id, run.info.status, dict(run.data.tags)) for run in page]
                token = page.token
                if not token:
                    return found

    def create(self, experiment: str, name: str, tags: Mapping[str, str], started_ms: int) -> Run:
        """Create a run with its tags, in one call."""
        with self._typed_errors(f"create the run {name!r}"):
            run = self._mlflow.create_run(experiment, start_time=started_ms, tags=dict(tags), run_name=name)
            return Run(run.info.run_id, run.info.status, dict(tags))

    def log(
        self, run: Run, created_ms: int, points: Sequence[Point], params: Mapping[str, str], tags: Mapping[str, str]
    ) -> None:
        """Log metrics, parameters and tags in one call; MLflow's client splits it at the limits of its server."""
        from mlflow.entities import Metric, Param, RunTag

        if not (points or params or tags):
            return
        with self._typed_errors("write a run's metrics"):
            self._mlflow.log_batch(
                run.id,
                metrics=[Metric(p.key, p.value, created_ms + p.age, p.step) for p in points],
                params=[Param(key, value) for key, value in params.items()],
                tags=[RunTag(key, value) for key, value in tags.items()],
            )
            run.tags |= tags

    def set_status(self, run: Run, status: str, ended_ms: int) -> None:
        """Set a run to RUNNING, FINISHED, FAILED or KILLED."""
        with self._typed_errors(f"set a run to {status}"):
            if status == "RUNNING":
                self._mlflow.update_run(run.id, status=status)
            else:  # half the requests of update_run
                self._mlflow.set_terminated(run.id, status=status, end_time=ended_ms)
            run.status = status

    def describe(self, experiment: str, text: str) -> None:
        """Set the experiment's description."""
        with self._typed_errors("write the description"):
            self._mlflow.set_experiment_tag(experiment, "mlflow.note.content", text)

    def delete(self, run: Run) -> None:
        """Delete a run; MLflow can restore it."""
        with self._typed_errors("delete a run"):
            self._mlflow.delete_run(run.id)


def _connect(uri: str) -> MlflowClient:
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    file = sqlite_file(uri)
    if file is not None and not file.exists():
        file.absolute().parent.mkdir(parents=True, exist_ok=True)
        if not network_file_system(file.parent):
            # Readers, such as the web pages, then do not wait for the writer, and a commit costs one sync instead of
            # three. The mode is kept in the file; the store's database uses the same.
            connection = sqlite3.connect(file)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.close()
    from mlflow.tracking import MlflowClient

    # Hide "Creating initial MLflow database tables", and a line for each of its migrations.
    for noisy in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # Hide a line for every attempt; the last failure is raised.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    client = MlflowClient(tracking_uri=uri)
    client.search_experiments(max_results=1)  # opens the database, or calls the server: errors are raised here
    return client
