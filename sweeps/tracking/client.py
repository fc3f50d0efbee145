"""MLflow's client: connected quietly, writing in batches, its failures one typed error."""

from __future__ import annotations

import logging
import os
import re
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from sweeps.errors import TrackingError, TrackingRefused, disk_full
from sweeps.store.location import parameters_masked
from sweeps.tracking.bulk import Bulk
from sweeps.tracking.database import SQLITE, Refill, check_server, close_connections, prepare_file
from sweeps.tracking.runs import PARENT, Change, Changed, Run, Unavailable, key_of
from sweeps.tracking.views import WRITTEN

if TYPE_CHECKING:  # importing mlflow takes seconds, so it is left to the first connection
    import sqlalchemy as sa
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
REQUESTS_AT_ONCE = 8
"""Requests in flight to a server."""
CREATION_PAUSES_S = (0.5, 2.0)
"""Before a run is searched for, and created again."""
LOGGED = "logged"
"""Tag of a configuration whose parameters are written."""
_SERVER = re.compile(r"(postgresql|mysql|mssql)(\+\w+)?://")


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
    path = uri.removeprefix(SQLITE)
    return Path(path) if path != uri and path not in ("", ":memory:") and "?" not in path else None


def below(file: Path, uri: str) -> bool:
    """Return whether a location of artifacts is in the folder of an SQLite database, as it is not where the store was copied.

    Links and `..` are followed.
    """
    address = urlsplit(uri)
    if address.scheme not in ("", "file") or address.netloc not in ("", "localhost") or not address.path.startswith("/"):
        return False
    return file.absolute().parent.resolve() in Path(unquote(address.path)).resolve().parents


def without_password(uri: str) -> str:
    """Return the URI without what is between // and @, as it may be shown."""
    scheme, slashes, rest = uri.partition("://")
    host, slash, path = rest.partition("/")
    return parameters_masked(f"{scheme}{slashes}{host.rpartition('@')[2]}{slash}{path}")


log = logging.getLogger(__name__)


class Rejected(TrackingError):
    """MLflow raised something else."""


@contextmanager
def typed_errors(uri: str, what: str) -> Iterator[None]:
    """Raise any exception of MLflow as a TrackingError."""
    try:
        yield
    except TrackingError:
        raise
    # MLflow raises exceptions of SQLAlchemy, requests, the file system and its own; none may end a sweep.
    except Exception as error:
        lines = [line for line in str(error).strip().splitlines() if not line.startswith("(raised as a result of")]
        why = disk_full(error) or (lines or [type(error).__name__])[0]
        kind = Unavailable if _may_pass(error) else Rejected
        raise kind(f"MLflow at {without_password(uri)} could not {what}: {why}") from error


def _may_pass(error: BaseException) -> bool:
    """Whether an error comes of a server, database or disk that is away, busy or full."""
    import requests
    import sqlalchemy as sa

    passing = (
        requests.ConnectionError, requests.Timeout, requests.exceptions.RetryError, ConnectionError,
        sa.exc.OperationalError, sa.exc.InterfaceError,
    )  # fmt: skip
    codes = ("TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED")
    texts = ("Max retries exceeded", "failed with error code 50")  # of a proxy
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:
        seen.append(cause)
        if isinstance(cause, passing) or vars(cause).get("error_code") in codes or any(text in str(cause) for text in texts):
            return True
        cause = cause.__cause__ or cause.__context__
    return disk_full(error) is not None


class Client:
    """The calls that the tracker needs. Every method raises TrackingError and nothing else."""

    def __init__(self, uri: str, refill: Refill | None = None) -> None:
        self.uri = uri
        file = sqlite_file(uri)
        needed = [path for path in (file, file.parent) if path.exists()] if file else []
        if not all(os.access(path, os.W_OK) for path in needed):
            raise TrackingRefused(
                f"{file} cannot be written by this user. MLFLOW_TRACKING_URI names another place, such as "
                f"{SQLITE}{Path.home() / 'mlflow.db'}"
            )
        self._bulks: dict[str, Bulk | None] = {}
        prepare(uri, refill)
        self._file, self.identity = file, _identity(file)
        with typed_errors(uri, "be opened"):
            if file is not None:
                close_connections(file)  # of before: they may be to a file that was deleted
            self._mlflow = _connect(uri)

    def experiment(self, name: str, created: str) -> str:
        """Return the id of the experiment that has the sweep's run, whatever its name is now; it is restored if deleted.

        If none has, it is the one of the sweep's name, which is created. Where that name belongs to an experiment that was
        deleted, or to somebody else's (it has runs, but none of a sweep), `created` is added to the name. A sweep that was
        renamed in the store has its runs where they were.
        """
        ours = "tags.level = 'sweep'"
        with typed_errors(self.uri, f"open the experiment {name!r}"):
            everything = {str(one.experiment_id): one for one in self._experiments()}
            holding = [
                everything[run.info.experiment_id]
                for run in self._search(list(everything), f"tags.sweep = '{created}' and {ours}")
            ]
            if holding:
                found = min(holding, key=lambda one: (one.lifecycle_stage == "deleted", one.name != name))
                if found.lifecycle_stage == "deleted":
                    self._mlflow.restore_experiment(found.experiment_id)
                    log.warning("the experiment %r was deleted in MLflow: it is restored, with its runs", found.name)
                # `sweeps delete` renames an experiment before it deletes it.
                called = re.sub(r" deleted \S+T\S+$", "", found.name)
                if called in (found.name, *(one.name for one in everything.values())):
                    called = found.name
                else:
                    self._mlflow.rename_experiment(found.experiment_id, called)
                if called != name:
                    log.warning("the runs of %r are in MLflow's experiment %r", name, called)
                return str(found.experiment_id)
            named = next((one for one in everything.values() if one.name == name), None)
            if named is None:
                return self._create_experiment(name)
            id = str(named.experiment_id)
            deleted = named.lifecycle_stage == "deleted"
            if not deleted and (self._search([id], ours, 1) or not self._search([id], "", 1)):
                return id
            whose = "a deleted experiment" if deleted else "an experiment that is not of `sweeps`"
            other = f"{name} {created}"
            log.warning("MLflow has %s named %r: the runs are in %r", whose, name, other)
            return self._create_experiment(other)

    def _experiments(self) -> list[Any]:
        """Return every experiment, those that were deleted too."""
        from mlflow.entities import ViewType

        found: list[Any] = []
        token: str | None = None
        while True:
            page = self._mlflow.search_experiments(view_type=ViewType.ALL, page_token=token)
            found += page
            token = page.token
            if not token:
                return found

    def _create_experiment(self, name: str) -> str:
        # For SQLite MLflow would write artifacts below the working directory.
        file = sqlite_file(self.uri)
        location = (file.absolute().parent / "mlartifacts").as_uri() if file else None
        try:
            return str(self._mlflow.create_experiment(name, artifact_location=location))
        except Exception:
            found = self._mlflow.get_experiment_by_name(name)
            if found is None or found.lifecycle_stage == "deleted":
                raise
            return str(found.experiment_id)  # somebody else created it at the same moment

    def runs(self, experiment: str, created: str) -> list[Run]:
        """Return every run of the sweep in the experiment, deleted ones too, the oldest first."""
        with typed_errors(self.uri, "list the sweep's runs"):
            if (bulk := self._bulk(experiment)) is not None:
                return bulk.runs(created)
            return [
                Run(run.info.run_id, run.info.status, dict(run.data.tags), run.info.lifecycle_stage == "deleted")
                for run in self._search([experiment], f"tags.sweep = '{created}'")
            ]

    def _bulk(self, experiment: str) -> Bulk | None:
        """Return what writes many runs in one transaction, if the database is one that it was tested with."""
        if experiment not in self._bulks:
            found = None
            if self.uri.startswith((SQLITE, "postgresql")):
                engine = _engine(self.uri)
                if engine is not None and Bulk.supports(engine):
                    found = Bulk(engine, experiment, self._mlflow.get_experiment(experiment).artifact_location)
            self._bulks[experiment] = found
        return self._bulks[experiment]

    def _search(self, experiments: list[str], condition: str, most: int | None = None) -> list[Any]:
        """Return the runs that match, deleted ones too, the oldest first."""
        from mlflow.entities import ViewType

        if not experiments:
            return []
        found: list[Any] = []
        token: str | None = None
        while True:
            page = self._mlflow.search_runs(
                experiments, condition, ViewType.ALL, most or 1000, ["attributes.start_time ASC"], token
            )
            found += page
            token = page.token
            if not token or most is not None:
                return found

    def write(self, experiment: str, created: str, created_ms: int, changes: Sequence[Change]) -> None:
        """Write what is planned: in one transaction where that is possible, otherwise run by run, several at a time.

        A run's parent is written before it. Where it raises, some of it may be written; all of it may be written again.
        """
        with typed_errors(self.uri, f"write {len(changes)} runs"):
            self._require_same_file()
            if (bulk := self._bulk(experiment)) is not None:
                bulk.write(created, created_ms, changes)
            else:
                for level in ("sweep", "configuration", "seed"):
                    self._write_at_once(experiment, created_ms, [one for one in changes if one.key[0] == level])
            self._require_same_file()

    def _require_same_file(self) -> None:
        """Raise Changed where the SQLite file was deleted or replaced: an open connection would write to the old one."""
        if _identity(self._file) != self.identity:
            raise Changed(f"{self._file} was deleted or replaced meanwhile", lost=True)

    def _write_at_once(self, experiment: str, created_ms: int, changes: Sequence[Change]) -> None:
        """Write the runs of one level, several at a time."""
        if not self.uri.startswith(("http://", "https://")) or len(changes) < 2:
            for change in changes:
                self._write_run(experiment, created_ms, change)
            return
        left, taking, errors = iter(changes), threading.Lock(), list[BaseException]()

        def work() -> None:
            while not errors:
                with taking:
                    change = next(left, None)
                if change is None:
                    return
                try:
                    self._write_run(experiment, created_ms, change)
                except BaseException as error:
                    errors.append(error)

        # Daemons, unlike those of an executor: a server that does not respond keeps no process from ending.
        threads = [threading.Thread(target=work, daemon=True) for _ in range(min(REQUESTS_AT_ONCE, len(changes)))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]

    def _write_run(self, experiment: str, created_ms: int, change: Change) -> None:
        """Write a run in at most three requests: it is created, it receives its data, and its status is set.

        What marks a run as complete comes after its data: the tag `logged`, and the status of one that has ended. Where one
        that had ended has another result its tags, such as `verdict`, are last: what is interrupted is written again.
        """
        run, tags = change.run, dict(change.tags)
        post = self._post if self.uri.startswith(("http://", "https://")) else self._call
        if change.new:
            logged = {name: tags.pop(name) for name in (LOGGED,) if name in tags}
            if change.parent is not None:
                tags[PARENT] = change.parent.id
            create = self._create if post == self._post else self._call
            run.id = create(
                "create", experiment_id=experiment, start_time=change.started_ms, run_name=change.name, tags=_pairs(tags)
            )
            tags = logged
        elif change.name:
            self._mlflow.update_run(run.id, name=change.name)
        last: dict[str, str] = {}
        if not change.new and change.status is not None:
            last, tags = tags, {}
        if change.points or change.params or tags:
            metrics = [{"key": p.key, "value": p.value, "timestamp": created_ms + p.age, "step": p.step} for p in change.points]
            fits = max(len(change.params), len(tags)) <= 100 and len(metrics) + len(change.params) + len(tags) <= 1000
            log = post if fits else self._call  # MLflow's client splits it at the limits of its server
            log("log-batch", run_id=run.id, metrics=metrics, params=_pairs(change.params), tags=_pairs(tags))
        if change.status is not None and (change.status != "RUNNING" or not change.new):
            ended = {} if change.ended_ms is None else {"end_time": change.ended_ms}
            post("update", run_id=run.id, status=change.status, **ended)
        if last:
            post("log-batch", run_id=run.id, metrics=[], params=[], tags=_pairs(last))

    def _create(self, endpoint: str, **body: Any) -> str:
        """Create a run on a server. Where no answer comes it is searched for, and only requested again if it is not there.

        A retry of the client would create it twice where the answer was lost, and not the request.
        """
        for pause_s in (*CREATION_PAUSES_S, None):
            try:
                return self._post(endpoint, max_retries=0, **body)
            except Exception as error:
                if pause_s is None or not _may_pass(error):
                    raise
                log.debug("a run is searched for, since no answer came: %s", error)
            time.sleep(pause_s)
            tags = {pair["key"]: pair["value"] for pair in body["tags"]}
            # What distinguishes a run in a condition needs no quoting of unknown text; the rest is compared here.
            named = [f"tags.{name} = '{tags[name]}'" for name in ("sweep", "level", "configuration", "seed") if name in tags]
            for run in self._search([body["experiment_id"]], " and ".join(named)):
                same = key_of(run.data.tags) == key_of(tags) and run.data.tags.get("layout") == tags.get("layout")
                if same and run.info.lifecycle_stage == "active":
                    return str(run.info.run_id)
        raise AssertionError("the last attempt returns or raises")

    def _post(self, endpoint: str, max_retries: int | None = None, **body: Any) -> str:
        """Send a request to a server, and return the id of the run that it created.

        It is one of MLflow's client, with its authentication, retries and connections, without the client's two conversions
        by way of protobuf, which take longer than the rest.
        """
        from mlflow.utils.rest_utils import http_request, verify_rest_response

        path = f"/api/2.0/mlflow/runs/{endpoint}"
        credentials = self._mlflow._tracking_client.store.get_host_creds()
        answer = verify_rest_response(http_request(credentials, path, "POST", max_retries, json=body), path)
        return str(answer.json()["run"]["info"]["run_id"]) if endpoint == "create" else ""

    def _call(self, endpoint: str, **body: Any) -> str:
        """Do the same with a method of MLflow's client."""
        from mlflow.entities import Metric, Param, RunTag

        if endpoint == "create":
            tags = {tag["key"]: tag["value"] for tag in body.pop("tags")}
            return str(self._mlflow.create_run(**body, tags=tags).info.run_id)
        if endpoint == "log-batch":
            self._mlflow.log_batch(
                body["run_id"],
                metrics=[Metric(**one) for one in body["metrics"]],
                params=[Param(**one) for one in body["params"]],
                tags=[RunTag(**one) for one in body["tags"]],
            )
        elif "end_time" in body:
            self._mlflow.set_terminated(**body)
        else:
            self._mlflow.update_run(**body)
        return ""

    def rename(self, run: Run, name: str) -> None:
        """Change a run's name."""
        with typed_errors(self.uri, "rename a run"):
            self._mlflow.update_run(run.id, name=name)

    def describe(self, experiment: str, text: str) -> None:
        """Set the experiment's description."""
        with typed_errors(self.uri, "write the description"):
            self._mlflow.set_experiment_tag(experiment, "mlflow.note.content", text)

    def tag_experiment(self, experiment: str, tags: Mapping[str, str], unless: str) -> None:
        """Set tags of the experiment, unless it has that one already, with the same value."""
        with typed_errors(self.uri, "write the experiment's tags"):
            if self._mlflow.get_experiment(experiment).tags.get(unless) != tags[unless]:
                for key, value in tags.items():
                    self._mlflow.set_experiment_tag(experiment, key, value)

    def find(self, name: str, created: str) -> tuple[str, dict[str, str]] | None:
        """Return id and tags of the experiment that has the sweep's runs, or None."""
        with typed_errors(self.uri, f"find the experiment of {name!r}"):
            everything = {str(one.experiment_id): one for one in self._experiments() if one.lifecycle_stage != "deleted"}
            for run in self._search(list(everything), f"tags.sweep = '{created}' and tags.level = 'sweep'", 1):
                return run.info.experiment_id, dict(everything[run.info.experiment_id].tags)
        return None

    def attach(self, run: Run, files: Iterable[tuple[str, bytes]]) -> None:
        """Write files, by name, to the folder `report` of the run's artifacts."""
        file = sqlite_file(self.uri)
        location = self._mlflow.get_run(run.id).info.artifact_uri if file is not None else ""
        if file is not None and not below(file, location):
            log.info(
                "the store was moved or copied: MLflow's artifacts of this sweep are in %s, where nothing is written", location
            )
            return
        with typed_errors(self.uri, "store a report"), tempfile.TemporaryDirectory(prefix="sweeps-report-") as folder:
            for name, content in files:
                (Path(folder) / name).write_bytes(content)
            self._mlflow.log_artifacts(run.id, folder, "report")

    def delete(self, run: Run) -> None:
        """Delete a run; MLflow can restore it."""
        with typed_errors(self.uri, "delete a run"):
            self._mlflow.delete_run(run.id)

    def restore(self, run: Run) -> None:
        """Restore a run that was deleted."""
        with typed_errors(self.uri, "restore a run"):
            self._mlflow.restore_run(run.id)
            run.deleted = False


def _identity(file: Path | None) -> tuple[int, int] | None:
    """Return what distinguishes a file from another one of its name; None where there is none."""
    try:
        found = file.stat() if file is not None else None
    except FileNotFoundError:
        return None
    return None if found is None else (found.st_dev, found.st_ino)


def _engine(uri: str) -> sa.Engine | None:
    """Return the engine of MLflow's client; None where the installed MLflow keeps it elsewhere."""
    try:
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        engine: sa.Engine = SqlAlchemyStore._get_or_create_engine(uri)
    except (AttributeError, ImportError):
        return None
    return engine


def _pairs(values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in values.items()]


def has_runs(uri: str, name: str, created: str) -> bool:
    """Return whether MLflow has an experiment with the sweep's runs that is not deleted."""
    return Client(uri).find(name, created) is not None


def experiment_of(uri: str, name: str, created: str) -> str | None:
    """Return the id of the experiment with the sweep's runs, or None where there is none that has its saved views."""
    found = Client(uri).find(name, created)
    return found[0] if found is not None and WRITTEN in found[1] else None


def prepare(uri: str, refill: Refill | None = None, fill: bool = False) -> None:
    """Create, migrate or replace the database of an SQLite URI, and check that of a database server. Raises TrackingError.

    `refill` writes all runs of the store to a URI, where a damaged SQLite database is replaced, and with `fill` also where
    there is none.
    """
    with typed_errors(uri, "be opened"):
        _set_up()
        file = sqlite_file(uri)
        if file is not None:
            prepare_file(file, refill, log.warning, fill)
        elif _SERVER.match(uri):
            check_server(uri)


def _set_up() -> None:
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # Hide a line for each of MLflow's migrations, and the traceback of an error of the database, which is raised as well.
    for name, level in (("alembic", logging.WARNING), ("mlflow.store.db.utils", logging.CRITICAL)):
        logging.getLogger(name).setLevel(level)
    # Hide a line for every attempt; the last failure is raised.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)


def _connect(uri: str) -> MlflowClient:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    client.search_experiments(max_results=1)  # opens the database, or calls the server: errors are raised here
    return client
