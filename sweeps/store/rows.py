"""The sweeps of a store: name, definition, state and the time spent."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from sweeps.errors import StoreError
from sweeps.store.curves import finite, pack, unpack
from sweeps.store.database import Database, checkpoints, configurations, lanes, records, sweeps
from sweeps.store.records import CONFIGURATION_STATES, SWEEP_STATES, Configuration, SweepRow
from sweeps.training.lane import Checkpoint, LaneResult


class SweepRows:
    """Part of `Store`."""

    database: Database

    def begin_sweep(self, name: str, definition: str, document: Mapping[str, Any]) -> SweepRow:
        """Write a new sweep, in state `running`. Raises StoreError if the name is taken: nothing is overwritten."""
        now = utc_now()
        row = {"name": name, "definition": definition, "document": json.dumps(document), "state": "running"}
        row |= {"created": now, "updated": now}
        with self.database.write() as connection:
            if not self.database.insert_new(connection, sweeps, row | {"seconds": 0.0}):
                raise StoreError(
                    f"store {self.database.where} has a sweep named {name!r} already. "
                    "Continue it by running its file again, or choose another name with --name."
                )
            return _sweep(_sweep_row(connection, self.database.where, name))

    def sweep(self, name: str) -> SweepRow | None:
        """The sweep of that name, or None."""
        with self.database.read() as connection:
            row = connection.execute(sa.select(sweeps).where(sweeps.c.name == name)).one_or_none()
        return None if row is None else _sweep(row)

    def sweeps(self) -> list[SweepRow]:
        """All sweeps, the oldest first."""
        with self.database.read() as connection:
            return [_sweep(row) for row in connection.execute(sa.select(sweeps).order_by("created", "name"))]

    def set_state(self, name: str, state: str) -> None:
        """Set to running, done, stopped or failed. Raises StoreError for an unknown name or state."""
        if state not in SWEEP_STATES:
            raise StoreError(f"a sweep's state is {state!r}; it must be one of {', '.join(SWEEP_STATES)}")
        self._update(name, state=state)

    def update_definition(self, name: str, definition: str, document: Mapping[str, Any]) -> None:
        """Keep the edited text of a sweep that goes on. Raises StoreError for an unknown name."""
        self._update(name, definition=definition, document=json.dumps(document))

    def _update(self, name: str, **values: str) -> None:
        with self.database.write() as connection:
            require_sweep(connection, self.database.where, name)
            connection.execute(
                sa.update(sweeps).where(sweeps.c.name == name).values(updated=utc_now(), **values)
            )


def utc_now() -> str:
    """Now, as ISO 8601 text in UTC, such as 2026-01-31T12:00:00.000000+00:00. Sorts by time."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def require_sweep(connection: sa.Connection, where: str, name: str) -> None:
    """Raises StoreError, with the nearest names, if the store has no sweep of that name."""
    _sweep_row(connection, where, name)


def _sweep_row(connection: sa.Connection, where: str, name: str) -> sa.Row[Any]:
    row = connection.execute(sa.select(sweeps).where(sweeps.c.name == name)).one_or_none()
    if row is None:
        known = list(connection.execute(sa.select(sweeps.c.name).order_by("name")).scalars())
        near = difflib.get_close_matches(name, known, n=1)
        guess = f" Did you mean {near[0]!r}?" if near else ""
        listed = f" It has: {', '.join(known[:20])}." if known else " It has none yet."
        raise StoreError(f"store {where} has no sweep named {name!r}.{guess}{listed}")
    return row


def _sweep(row: sa.Row[Any]) -> SweepRow:
    values = row._asdict()
    return SweepRow(**values | {"document": json.loads(values["document"])})


_AS_JSON = ("labels", "parameters", "settings")


class ConfigurationRows:
    """Part of `Store`."""

    database: Database

    def ask(self, name: str, configuration: Configuration) -> Configuration:
        """Write what will be tried, before its first lane starts, and return what the store has.

        A configuration that the sweep has already, by cell and number, is never overwritten: the stored one is
        returned, whatever was given. Raises StoreError for an unknown sweep.
        """
        values = dataclasses.asdict(configuration)
        keys = values.pop("keys")
        values |= {column: json.dumps(values[column]) for column in _AS_JSON} | {"sweep": name}
        values["value"] = finite(configuration.value)
        with self.database.write() as connection:
            require_sweep(connection, self.database.where, name)
            if self.database.insert_new(connection, configurations, values):
                _add_lanes(connection, name, configuration.cell, configuration.number, keys)
            return _read(connection, name, configuration.cell, configuration.number)[0]

    def configurations(self, name: str) -> list[Configuration]:
        """All of a sweep: cells in the order in which they were first asked for, then by number."""
        with self.database.read() as connection:
            require_sweep(connection, self.database.where, name)
            found = _read(connection, name)
        cells = {cell: place for place, cell in enumerate(dict.fromkeys(entry.cell for entry in found))}
        return sorted(found, key=lambda entry: (cells[entry.cell], entry.number))

    def finish(self, name: str, cell: str, number: int, state: str, value: float | None) -> None:
        """Set state (complete, failed) and the objective's value; not finite counts as None. May be repeated."""
        if state not in CONFIGURATION_STATES:
            raise StoreError(
                f"a configuration's state is {state!r}; it must be one of {', '.join(CONFIGURATION_STATES)}"
            )
        with self.database.write() as connection:
            self._require(connection, name, cell, number)
            row = _where(configurations, name, cell, number)
            connection.execute(sa.update(configurations).where(row).values(state=state, value=finite(value)))

    def extend_seeds(self, name: str, cell: str, number: int, keys: Mapping[int, str]) -> Configuration:
        """Give a configuration more seeds; with any that are new it is `running` again, without a value.

        Seeds that it has are left alone. Raises StoreError if one of them is another lane than was asked for, as
        after a new version of the model or task, and then changes nothing.
        """
        with self.database.write() as connection:
            present = self._require(connection, name, cell, number).keys
            changed = sorted(seed for seed in keys if present.get(seed, keys[seed]) != keys[seed])
            if changed:
                raise StoreError(
                    f"sweep {name!r}, cell {cell!r}, configuration {number}: seeds {changed[:5]} are other lanes than "
                    "when the sweep began; the model, the task or the engine has a new version. "
                    "Go on with the release that began it, or start anew with --name."
                )
            new = {seed: key for seed, key in keys.items() if seed not in present}
            if new:
                _add_lanes(connection, name, cell, number, new)
                row = _where(configurations, name, cell, number)
                connection.execute(sa.update(configurations).where(row).values(state="running", value=None))
            return _read(connection, name, cell, number)[0]

    def change_settings(
        self, name: str, cell: str, number: int, settings: Mapping[str, Any]
    ) -> Configuration:
        """Give a configuration other settings, as a longer budget; it is `running` again, without a value."""
        with self.database.write() as connection:
            self._require(connection, name, cell, number)
            row = _where(configurations, name, cell, number)
            values = {"settings": json.dumps(settings), "state": "running", "value": None}
            connection.execute(sa.update(configurations).where(row).values(**values))
            return _read(connection, name, cell, number)[0]

    def _require(self, connection: sa.Connection, name: str, cell: str, number: int) -> Configuration:
        require_sweep(connection, self.database.where, name)
        found = _read(connection, name, cell, number)
        if not found:
            raise StoreError(
                f"sweep {name!r} has no configuration {number} in cell {cell!r}: it was never asked for"
            )
        return found[0]


def _where(table: sa.Table, name: str, cell: str | None, number: int | None) -> sa.ColumnElement[bool]:
    row = table.c.sweep == name
    return row if cell is None else row & (table.c.cell == cell) & (table.c.number == number)


def _add_lanes(connection: sa.Connection, name: str, cell: str, number: int, keys: Mapping[int, str]) -> None:
    rows = [
        {"sweep": name, "cell": cell, "number": number, "seed": seed, "key": key}
        for seed, key in keys.items()
    ]
    if rows:
        connection.execute(sa.insert(lanes), rows)


def _read(
    connection: sa.Connection, name: str, cell: str | None = None, number: int | None = None
) -> list[Configuration]:
    """The sweep's configurations, or the one of that cell and number, in the order they were asked for."""
    keys: dict[tuple[str, int], dict[int, str]] = defaultdict(dict)
    for lane in connection.execute(
        sa.select(lanes).where(_where(lanes, name, cell, number)).order_by(lanes.c.seed)
    ):
        keys[lane.cell, lane.number][lane.seed] = lane.key
    chosen = (
        sa.select(configurations)
        .where(_where(configurations, name, cell, number))
        .order_by(configurations.c.id)
    )
    return [_configuration(row._asdict(), keys) for row in connection.execute(chosen)]


def _configuration(row: dict[str, Any], keys: Mapping[tuple[str, int], dict[int, str]]) -> Configuration:
    row |= {column: json.loads(row[column]) for column in _AS_JSON}
    del row["id"], row["sweep"]
    return Configuration(keys=keys.get((row["cell"], row["number"]), {}), **row)


_CHUNK = 500  # keys in one query; databases limit the variables of a statement
_WITHOUT_STATE = [column for column in records.c if column.name != "state"]


NO_CURVE = pack({})
"""The column `curve` of a checkpoint: unused, since the state holds the curve."""
BY_LENGTH = "by_length/"
"""Begins the names of columns by length, which lie with those by step."""


class RecordRows:
    """Part of `Store`."""

    database: Database

    def add_records(self, new: Sequence[LaneResult]) -> None:
        """Write finished lanes in one transaction, durable on return, and drop the checkpoints they overtake.

        Writing a record again changes nothing: the row that is there wins, unless its outcome is `error`.
        """
        if not new:
            return
        overtaken = sa.delete(checkpoints).where(
            checkpoints.c.key == sa.bindparam("lane"), checkpoints.c.steps <= sa.bindparam("done")
        )
        finished = [{"lane": r.key, "done": r.steps} for r in new if r.outcome != "error"]
        with self.database.write() as connection:
            insert_records(self.database, connection, [_record_row(record) for record in new])
            if finished:
                connection.execute(overtaken, finished)

    def records(self, ids: Iterable[tuple[str, int]]) -> dict[tuple[str, int], LaneResult]:
        """Those of the (key, budget) pairs that are finished, in the order given, without their states."""
        wanted = list(dict.fromkeys(ids))
        found: dict[tuple[str, int], LaneResult] = {}
        with self.database.read() as connection:
            for budget in dict.fromkeys(budget for _, budget in wanted):
                for keys in chunks([key for key, of_budget in wanted if of_budget == budget]):
                    rows = sa.select(*_WITHOUT_STATE).where(
                        records.c.budget == budget, records.c.key.in_(keys)
                    )
                    found |= {(row.key, row.budget): _record(row) for row in connection.execute(rows)}
        return {id: found[id] for id in wanted if id in found}

    def state(self, key: str, budget: int) -> bytes | None:
        """The final state of a finished lane, or None if there is no such record or it kept no state."""
        query = sa.select(records.c.state).where(records.c.key == key, records.c.budget == budget)
        with self.database.read() as connection:
            found = connection.execute(query).scalar_one_or_none()
        return None if found is None else bytes(found)

    def save_checkpoints(self, new: Mapping[str, Checkpoint]) -> None:
        """Keep the checkpoints by lane key: one for each key, the furthest. Durable on return."""
        if not new:
            return
        rows = [
            {"key": key, "steps": checkpoint.steps, "blob": checkpoint.state, "curve": NO_CURVE}
            for key, checkpoint in new.items()
        ]
        with self.database.write() as connection:
            insert_checkpoints(self.database, connection, rows)

    def checkpoints(self, keys: Iterable[str], at_most_steps: int) -> dict[str, Checkpoint]:
        """For each lane that has one, the furthest state to go on from with no more than `at_most_steps` done.

        It is a checkpoint, or the final state of a record of another budget. A lane that ended in an error has only
        its checkpoint.
        """
        of_record = sa.select(records.c.key, records.c.steps, records.c.state.label("blob")).where(
            records.c.state.is_not(None), records.c.outcome != "error"
        )
        of_checkpoint = sa.select(checkpoints.c.key, checkpoints.c.steps, checkpoints.c.blob)
        wanted = list(dict.fromkeys(keys))
        furthest: dict[str, Checkpoint] = {}
        with self.database.read() as connection:
            for chunk in chunks(wanted):
                for query, table in ((of_record, records), (of_checkpoint, checkpoints)):
                    query = query.where(table.c.key.in_(chunk), table.c.steps <= at_most_steps)
                    for row in connection.execute(query):
                        if row.key not in furthest or row.steps > furthest[row.key].steps:
                            furthest[row.key] = Checkpoint(row.steps, bytes(row.blob))
        return {key: furthest[key] for key in wanted if key in furthest}


def insert_records(database: Database, connection: sa.Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Rows of `records`; the one that is there wins, unless its outcome is `error`."""
    insert = database.insert(records)
    values = {column.name: insert.excluded[column.name] for column in records.c if not column.primary_key}
    insert = insert.on_conflict_do_update(
        index_elements=["key", "budget"], set_=values, where=records.c.outcome == "error"
    )
    connection.execute(insert, rows)


def insert_checkpoints(database: Database, connection: sa.Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Rows of `checkpoints`; the furthest of a key stays."""
    insert = database.insert(checkpoints)
    values = {name: insert.excluded[name] for name in ("steps", "blob", "curve")}
    insert = insert.on_conflict_do_update(
        index_elements=["key"], set_=values, where=insert.excluded.steps >= checkpoints.c.steps
    )
    connection.execute(insert, rows)


def chunks(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(keys), _CHUNK):
        yield keys[start : start + _CHUNK]


def _record_row(record: LaneResult) -> dict[str, Any]:
    """A record as the database takes it. NumPy's numbers become Python's, or SQLite would keep their bytes."""
    row: dict[str, Any] = {"key": record.key, "outcome": record.outcome}
    for name in ("budget", "seed", "steps", "converged_at", "best_step"):
        value = getattr(record, name)
        row[name] = None if value is None else int(value)
    for name in ("sparsity_error", "threshold", "wall_time_s"):
        value = getattr(record, name)
        row[name] = None if value is None else finite(float(value))
    row["error"] = json.dumps(finite(record.error))
    row["provenance"] = json.dumps(record.provenance)
    row["reason"] = None if record.reason is None else _storable(record.reason)
    lengths = {f"{BY_LENGTH}{name}": column for name, column in record.by_length.items()}
    row["curve"] = pack({**record.curve, **lengths})
    row["state"] = record.state
    return row


def _storable(text: str) -> str:
    """An exception's words may hold what a database's text cannot: a NUL, or half of a character."""
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode("utf-8")


def _record(row: sa.Row[Any]) -> LaneResult:
    values = row._asdict()
    values["error"] = json.loads(values["error"])
    values["provenance"] = json.loads(values["provenance"])
    columns = unpack(values["curve"])
    values["curve"] = {name: c for name, c in columns.items() if not name.startswith(BY_LENGTH)}
    values["by_length"] = {
        name.removeprefix(BY_LENGTH): c for name, c in columns.items() if name.startswith(BY_LENGTH)
    }
    return LaneResult(solved=values["outcome"] == "solved", **values)
