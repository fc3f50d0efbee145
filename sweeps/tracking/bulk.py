"""Many runs in one transaction, into MLflow's own tables of SQLite and PostgreSQL.

MLflow's client makes three calls for a run, each with several transactions. Here the rows of hundreds of runs are inserted
together; tests/test_bulk.py compares them, table by table, with what the client writes. A schema of another revision than
those in `TESTED`, or another database, is left to the client.

The id of a new run is a function of the experiment, the sweep and the run's place in it, and every statement may be repeated:
a transaction whose outcome is unknown, or a second process that writes the same sweep, changes nothing.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from sweeps.tracking.database import BUSY_TIMEOUT_S
from sweeps.tracking.runs import PARENT, Change, Changed, Run

TESTED = frozenset({"dc11669786a5"})
"""Revisions of MLflow's schema whose tables were compared."""
_VARIABLES = 3000
"""Most values of one statement in SQLite: a statement holds Python's lock only while its values are bound."""
_TYPES = {"key": "text", "value": "float8", "timestamp": "int8", "step": "int8", "is_nan": "bool", "start_time": "int8",
          "end_time": "int8", "deleted_time": "int8", "experiment_id": "int4"}  # fmt: skip
"""PostgreSQL's type of a column, where it is not text."""
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
_TEXT = ("key", "value", "run_uuid")
_METRIC = ("key", "value", "timestamp", "step", "is_nan", "run_uuid")
_RUN = ("run_uuid", "name", "source_type", "source_name", "entry_point_name", "user_id", "status", "start_time", "end_time",
        "deleted_time", "source_version", "lifecycle_stage", "artifact_uri", "experiment_id")  # fmt: skip
_NEWER = ", ".join(f"{name} = excluded.{name}" for name in ("value", "timestamp", "step", "is_nan"))
_LATEST = (
    f"ON CONFLICT (key, run_uuid) DO UPDATE SET {_NEWER} WHERE (excluded.step, excluded.timestamp, excluded.value) > "
    "(latest_metrics.step, latest_metrics.timestamp, latest_metrics.value)"
)


class Bulk:
    """Writes the runs of one experiment. `artifacts` is the experiment's artifact location."""

    def __init__(self, engine: sa.Engine, experiment: str, artifacts: str) -> None:
        self._engine, self._experiment, self._artifacts = engine, int(experiment), artifacts
        self._sqlite = engine.dialect.name == "sqlite"

    @staticmethod
    def supports(engine: sa.Engine) -> bool:
        """Whether the database is of a kind and a revision that was tested."""
        if engine.dialect.name == "postgresql" and engine.dialect.driver not in ("psycopg", "psycopg2"):
            return False
        if engine.dialect.name not in ("sqlite", "postgresql"):
            return False
        try:
            _validators()
        except ImportError:  # they are MLflow's own, and may change with a release
            return False
        with engine.connect() as connection:
            return connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar() in TESTED

    def runs(self, created: str) -> list[Run]:
        """Return every run of the sweep that was begun at `created`, deleted ones too, the oldest first."""
        mark = "?" if self._sqlite else "%s"
        ours = (
            "runs JOIN tags AS ours ON ours.run_uuid = runs.run_uuid AND ours.key = 'sweep' "
            f"WHERE runs.experiment_id = {mark} AND ours.value = {mark}"
        )
        found: dict[str, Run] = {}
        with self._engine.connect() as connection:
            rows = connection.exec_driver_sql(
                f"SELECT runs.run_uuid, runs.status, runs.lifecycle_stage FROM {ours} ORDER BY runs.start_time, runs.run_uuid",
                (self._experiment, created),
            )
            for id_, status, stage in rows:
                found[id_] = Run(id_, status, {}, stage == "deleted")
            tags = connection.exec_driver_sql(
                f"SELECT run_uuid, key, value FROM tags WHERE run_uuid IN (SELECT runs.run_uuid FROM {ours})",
                (self._experiment, created),
            )
            for id_, key, value in tags:
                if id_ in found:
                    found[id_].tags[key] = value
        return list(found.values())

    def write(self, created: str, created_ms: int, changes: Sequence[Change]) -> None:
        """Write the changes in one transaction: all of them, or none."""
        runs: list[tuple[Any, ...]] = []
        changed: list[tuple[Any, ...]] = []
        tags: list[tuple[str, str, str]] = []
        params: list[tuple[str, str, str]] = []
        metrics: dict[tuple[Any, ...], None] = {}  # a set in order: one value may be planned twice
        latest: dict[tuple[str, str], tuple[Any, ...]] = {}
        for change in changes:
            if change.new:
                change.run.id = self._new_id(created, change)
                runs.append(self._run_row(change))
                if change.parent is not None:
                    tags.append((PARENT, change.parent.id, change.run.id))
            elif change.status is not None or change.name:
                changed.append((change.status, change.ended_ms, change.name or None, change.run.id))
            if change.name:
                tags.append(("mlflow.runName", change.name, change.run.id))
            id_ = change.run.id
            tags += [(*_tag(key, value), id_) for key, value in change.tags.items()]
            params += [(*_param(key, value), id_) for key, value in change.params.items()]
            for point in change.points:
                row = (_metric_name(point.key), point.value, created_ms + point.age, point.step, False, id_)
                metrics[row] = None
                last = latest.get((row[0], id_))
                if last is None or (row[3], row[2], row[1]) > (last[3], last[2], last[1]):
                    latest[row[0], id_] = row
        with self._engine.connect() as connection:
            if self._sqlite:
                connection.exec_driver_sql("PRAGMA foreign_keys = ON")
                connection.exec_driver_sql(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_S * 1000:.0f}")
                connection.exec_driver_sql("BEGIN IMMEDIATE")  # a transaction that reads first could not wait for its turn
            self._require_active(connection, changes)
            made = self._insert_runs(connection, runs)
            mark = "?" if self._sqlite else "%s"
            columns = ", ".join(f"{name} = COALESCE({mark}, {name})" for name in ("status", "end_time", "name"))
            for row in changed:
                connection.exec_driver_sql(f"UPDATE runs SET {columns} WHERE run_uuid = {mark}", row)
            replaced = "ON CONFLICT (key, run_uuid) DO UPDATE SET value = excluded.value"
            for table, columns_of, rows, conflict in (
                ("tags", _TEXT, tags, replaced),
                ("params", _TEXT, params, "ON CONFLICT DO NOTHING"),
                ("metrics", _METRIC, list(metrics), "ON CONFLICT DO NOTHING"),
                ("latest_metrics", _METRIC, list(latest.values()), _LATEST),
            ):
                if made:  # a run that was not there before has no rows that could conflict
                    _copy(connection, table, columns_of, [row for row in rows if row[-1] in made])
                self._insert(connection, table, columns_of, [row for row in rows if row[-1] not in made], conflict)
            connection.commit()

    def _require_active(self, connection: sa.Connection, changes: Sequence[Change]) -> None:
        """Raise Changed where the experiment, a parent of a new run, or a run that changes was deleted meanwhile."""
        mark = "?" if self._sqlite else "%s"
        experiment = f"SELECT lifecycle_stage FROM experiments WHERE experiment_id = {mark}"
        if connection.exec_driver_sql(experiment, (self._experiment,)).scalar() != "active":
            raise Changed("the sweep's experiment was deleted meanwhile")
        new = {change.run for change in changes if change.new}
        used = {run for one in changes for run in (one.run, one.parent) if run is not None and run not in new}
        if not used:
            return
        active = f"SELECT count(*) FROM runs WHERE lifecycle_stage = 'active' AND run_uuid IN ({', '.join([mark] * len(used))})"
        if connection.exec_driver_sql(active, tuple(run.id for run in used)).scalar() != len(used):
            raise Changed("runs of the sweep were deleted meanwhile")

    def _new_id(self, created: str, change: Change) -> str:
        """Return 32 hexadecimal digits. They rise with the configuration, so that new rows are neighbours in every index."""
        level, cell, configuration, seed = change.key
        of_cell = [str(self._experiment), created, change.tags.get("layout", ""), cell]
        return f"{_digest(of_cell)[:8]}{int(configuration or 0):08x}{_digest([*of_cell, level, configuration, seed])[:16]}"

    def _run_row(self, change: Change) -> tuple[Any, ...]:
        from mlflow.utils.uri import append_to_uri_path

        artifacts = append_to_uri_path(self._artifacts, change.run.id, "artifacts")
        status = change.status or "RUNNING"
        return (
            change.run.id, change.name, "UNKNOWN", "", "", "unknown", status, change.started_ms, change.ended_ms, None, "",
            "active", artifacts, self._experiment,
        )  # fmt: skip

    def _insert_runs(self, connection: sa.Connection, runs: Sequence[tuple[Any, ...]]) -> set[str]:
        """Insert new runs, and return the ids of those whose rows may be copied: with psycopg, where none was there before."""
        again = "ON CONFLICT (run_uuid) DO UPDATE SET status = excluded.status, end_time = excluded.end_time"
        if self._engine.dialect.driver != "psycopg":
            self._insert(connection, "runs", _RUN, runs, again)
            return set()
        # PostgreSQL sets xmax where it has updated the row of another transaction.
        found = self._insert(connection, "runs", _RUN, runs, f"{again} RETURNING run_uuid, xmax = 0")
        return {id_ for id_, is_new in found if is_new}

    def _insert(
        self, connection: sa.Connection, table: str, columns: Sequence[str], rows: Sequence[tuple[Any, ...]], conflict: str
    ) -> Sequence[Any]:
        """Insert rows, and return what `conflict` makes PostgreSQL return."""
        if not rows:
            return ()
        names = ", ".join(columns)
        if not self._sqlite:  # a column is one value, so that a statement is one message
            text = ("tags", "params")
            types = ["text" if table in text else _TYPES.get(name, "text") for name in columns]
            arrays = ", ".join(f"%s::{type_}[]" for type_ in types)
            done = connection.exec_driver_sql(
                f"INSERT INTO {table} ({names}) SELECT * FROM unnest({arrays}) {conflict}",
                tuple(_array(column) for column in zip(*rows, strict=True)),
            )
            return done.all() if done.returns_rows else ()
        at_once = _VARIABLES // len(columns)
        one = f"({', '.join('?' * len(columns))})"
        for start in range(0, len(rows), at_once):
            part = rows[start : start + at_once]
            connection.exec_driver_sql(
                f"INSERT INTO {table} ({names}) VALUES {', '.join([one] * len(part))} {conflict}",
                tuple(value for row in part for value in row),
            )
        return ()


def _copy(connection: sa.Connection, table: str, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert rows that conflict with none, by PostgreSQL's COPY: a third of the server's time less than INSERT takes.

    Its errors are raised as those of a statement of SQLAlchemy.
    """
    if not rows:
        return
    statement = f"COPY {table} ({', '.join(columns)}) FROM STDIN"
    driver: Any = connection.connection.driver_connection
    errors: Any = connection.dialect.dbapi
    try:
        with driver.cursor() as cursor, cursor.copy(statement) as copy:
            copy.write(_lines(rows))
    except errors.Error as error:
        raise sa.exc.DBAPIError.instance(statement, None, error, errors.Error, dialect=connection.dialect) from error


def _lines(rows: Sequence[tuple[Any, ...]]) -> str:
    """Return the rows, without None, as text for COPY: a line for each, with tabs between the values."""
    text = "\n".join(["\t".join(map(str, row)) for row in rows])
    plain = text.count("\t") == len(rows) * (len(rows[0]) - 1) and text.count("\n") == len(rows) - 1
    if not plain or "\\" in text or "\r" in text:
        text = "\n".join(["\t".join([str(value).translate(_ESCAPES) for value in row]) for row in rows])
    return f"{text}\n"


def _digest(words: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(words).encode()).hexdigest()


def _array(values: Sequence[Any]) -> str:
    """Return PostgreSQL's text of an array, all at once: the driver would convert every value by itself."""
    if not isinstance(values[0], str):
        return "{" + ",".join("NULL" if value is None else repr(value) for value in values) + "}"
    text = '","'.join(values)
    if "\\" in text or text.count('"') != 2 * (len(values) - 1):
        text = '","'.join(value.replace("\\", "\\\\").replace('"', '\\"') for value in values)
    return '{"' + text + '"}'


@functools.cache
def _validators() -> tuple[Any, Any, Any]:
    from mlflow.utils.uri import append_to_uri_path  # noqa: F401  used below
    from mlflow.utils.validation import _validate_metric, _validate_param, _validate_tag

    return _validate_metric, _validate_param, _validate_tag


@functools.cache
def _metric_name(name: str) -> str:
    _validators()[0](name, 0.0, 0, 0)
    return name


@functools.lru_cache(10_000)
def _tag(key: str, value: str) -> tuple[str, str]:
    """Return a tag as MLflow's client would write it: it cuts long values off."""
    tag = _validators()[2](key, value)
    return tag.key, tag.value


@functools.lru_cache(10_000)
def _param(key: str, value: str) -> tuple[str, str]:
    param = _validators()[1](key, value)
    return param.key, param.value
