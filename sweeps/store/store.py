"""The store of sweeps: what is written about a sweep, its configurations, its finished lanes and their checkpoints."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import sqlalchemy as sa

from sweeps.errors import StoreError, UnknownSweep
from sweeps.store.curves import finite, pack, storable, unpack
from sweeps.store.database import (
    Database,
    checked,
    checkpoints,
    configurations,
    decoding,
    lanes,
    records,
    sweeps,
    utc_now,
)
from sweeps.store.ownership import Holder, Ownership
from sweeps.store.records import CONFIGURATION_STATES, SWEEP_STATES, Configuration, Stopped, SweepRow
from sweeps.training.lane import Checkpoint, LaneResult

log = logging.getLogger(__name__)

_JSON_COLUMNS = ("labels", "parameters", "settings")
"""Columns of a configuration that are stored as JSON."""
_NO_CURVE = pack({})
"""The column `curve` of a checkpoint, which is not used: the state contains the curve."""
_BY_LENGTH = "by_length/"
"""Prefix of the columns by length, which are stored in one blob with those by step."""
_MAX_KEYS = 500
"""Keys in one query: databases limit the variables of a statement."""


class Store:
    """An opened store: a folder, which is created if it is missing, or a `postgresql://` URL.

    With `read_only` nothing is created or changed: it may be another user's, or on a read-only mount. It may be used from
    several threads. Every method writes in one transaction, which is durable when the method returns.

    Raises StoreError, here and in every method, when the database cannot be opened, read or written.
    """

    def __init__(self, location: str | Path, read_only: bool = False) -> None:
        self.database = Database(location, read_only)
        self._ownership = Ownership(self.database)

    @property
    def location(self) -> str:
        """The folder or URL, without a password."""
        return self.database.where

    def close(self) -> None:
        """Close the connections to the database."""
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # --------------------------------------------------------------------------------------- one driver a sweep

    def hold(self, name: str, count_time: bool = True) -> AbstractContextManager[None]:
        """Hold the sweep `name`, as its only driver, for as long as the block lasts. See `Ownership.hold`."""
        return self._ownership.hold(name, count_time)

    def heartbeat(self, name: str) -> None:
        """Write that this driver is alive. See `Ownership.heartbeat`."""
        self._ownership.heartbeat(name)

    def holder(self, name: str) -> Holder | None:
        """Return the driver that holds the sweep's name, dead or alive, or None."""
        return self._ownership.holder(name)

    # --------------------------------------------------------------------------------------- sweeps

    def begin_sweep(self, name: str, definition: str, document: Mapping[str, Any], numerics: str | None = None) -> SweepRow:
        """Write a new sweep, in state `running`. Raises StoreError if the name is taken: nothing is overwritten."""
        now = utc_now()
        text = {"name": name, "definition": definition, "document": json.dumps(document), "state": "running"}
        row: dict[str, Any] = text | {"created": now, "updated": now, "numerics": numerics}
        with self.database.write() as connection:
            if not self.database.insert_new(connection, sweeps, row | {"seconds": 0.0}):
                raise StoreError(
                    f"store {self.location} has a sweep named {name!r} already. "
                    "Continue it by running its file again, or choose another name with --name."
                )
            return self._sweep_row(connection.execute(sa.select(sweeps).where(sweeps.c.name == name)).one())

    def sweep(self, name: str) -> SweepRow | None:
        """Return the sweep of that name, or None."""
        with self.database.read() as connection:
            found = sa.select(*self.database.columns(sweeps)).where(sweeps.c.name == name)
            row = connection.execute(found).one_or_none()
        return None if row is None else self._sweep_row(row)

    def known_sweep(self, name: str) -> SweepRow:
        """Return the sweep of that name. Raises UnknownSweep, with the nearest name, where there is none."""
        row = self.sweep(name)
        if row is None:
            raise UnknownSweep(self.location, name, sorted(other.name for other in self.sweeps()))
        return row

    def sweeps(self) -> list[SweepRow]:
        """Return all sweeps, the oldest first."""
        with self.database.read() as connection:
            rows = connection.execute(sa.select(*self.database.columns(sweeps)).order_by("created", "name"))
            return [self._sweep_row(row) for row in rows]

    def _sweep_row(self, row: sa.Row[Any]) -> SweepRow:
        with decoding(self.location, f"sweep {str(row.name)[:100]!r}"):
            values = checked(row, sweeps)
            datetime.fromisoformat(values["created"])
            return SweepRow(**values | {"document": _mapping(values["document"])})

    def rename_sweep(self, name: str, new_name: str) -> None:
        """Give a sweep another name, with everything that belongs to it, and `name` in its document.

        Raises StoreError where the new name is taken, or there is no such sweep.
        """
        with self.database.write() as connection:
            require_sweep(connection, self.location, name)
            row = dict(connection.execute(sa.select(sweeps).where(sweeps.c.name == name)).mappings().one())
            document = json.dumps({**json.loads(row["document"]), "name": new_name})
            if not self.database.insert_new(connection, sweeps, row | {"name": new_name, "document": document}):
                raise StoreError(f"store {self.location} has a sweep named {new_name!r} already.")
            # Rows refer to rows by the sweep's name: they are copied from the outermost inwards, and deleted outwards.
            for table in (configurations, lanes):
                columns = [column for column in table.c if column.name != "id"]
                copied = sa.select(*(sa.literal(new_name) if c.name == "sweep" else c for c in columns))
                ordered = copied.where(table.c.sweep == name).order_by(*table.primary_key)
                connection.execute(sa.insert(table).from_select([c.name for c in columns], ordered))
            for table in (lanes, configurations):
                connection.execute(sa.delete(table).where(table.c.sweep == name))
            connection.execute(sa.delete(sweeps).where(sweeps.c.name == name))

    def set_state(self, name: str, state: str) -> None:
        """Set a sweep to running, done, stopped or failed. Raises StoreError for an unknown name or state."""
        if state not in SWEEP_STATES:
            raise StoreError(f"a sweep's state is {state!r}; it must be one of {', '.join(SWEEP_STATES)}")
        self._update_sweep(name, state=state)

    def update_definition(self, name: str, definition: str, document: Mapping[str, Any]) -> None:
        """Replace a sweep's definition by its edited text. Raises StoreError for an unknown name."""
        self._update_sweep(name, definition=definition, document=json.dumps(document))

    def _update_sweep(self, name: str, **values: str) -> None:
        with self.database.write() as connection:
            require_sweep(connection, self.location, name)
            connection.execute(sa.update(sweeps).where(sweeps.c.name == name).values(updated=utc_now(), **values))

    # --------------------------------------------------------------------------------------- configurations

    def add_configuration(self, name: str, configuration: Configuration) -> Configuration:
        """Write a configuration of the sweep, before its first lane starts, and return the one that the store has.

        A configuration that the sweep has already, by cell and number, is never overwritten: the stored one is
        returned, even if it differs. Raises StoreError for an unknown sweep.
        """
        values = dataclasses.asdict(configuration)
        keys = values.pop("keys")
        values |= {column: json.dumps(values[column]) for column in _JSON_COLUMNS} | {"sweep": name}
        values["value"] = finite(configuration.value)
        values["stopped"] = _as_json(configuration.stopped)
        with self.database.write() as connection:
            require_sweep(connection, self.location, name)
            if self.database.insert_new(connection, configurations, values):
                _insert_lanes(connection, name, configuration.cell, configuration.number, keys)
            return _configurations(connection, self.database, name, configuration.cell, configuration.number)[0]

    def configurations(self, name: str) -> list[Configuration]:
        """Return a sweep's configurations: cells in the order in which they were first added, then by number."""
        with self.database.read() as connection:
            require_sweep(connection, self.location, name)
            found = _configurations(connection, self.database, name)
        position = {cell: index for index, cell in enumerate(dict.fromkeys(entry.cell for entry in found))}
        return sorted(found, key=lambda entry: (position[entry.cell], entry.number))

    def finish_configuration(
        self, name: str, cell: str, number: int, state: str, value: float | None, stopped: Stopped | None = None
    ) -> None:
        """Set state (complete, pruned or failed) and the objective's value, None if it is not finite. May be repeated.

        `stopped` is for a pruned one.
        """
        if state not in CONFIGURATION_STATES:
            raise StoreError(f"a configuration's state is {state!r}; it must be one of {', '.join(CONFIGURATION_STATES)}")
        with self.database.write() as connection:
            self._require_configuration(connection, name, cell, number)
            _update_configuration(connection, name, cell, number, state=state, value=finite(value), stopped=_as_json(stopped))

    def set_passed(self, name: str, cell: str, passed: Mapping[int, int]) -> None:
        """Write how many stages configurations of a cell, by number, have passed."""
        if not passed:
            return
        with self.database.write() as connection:
            require_sweep(connection, self.location, name)
            for number, stages in passed.items():
                _update_configuration(connection, name, cell, number, passed=stages)

    def add_seeds(self, name: str, cell: str, number: int, keys: Mapping[int, str], reopen: bool = True) -> Configuration:
        """Add seeds to a configuration; with any that are new it is `running` again, without a value, where `reopen` is true.

        Seeds that it has are kept. Raises StoreError if one of them has another lane key than the stored one, as
        after a new version of the model or task, and then changes nothing.
        """
        with self.database.write() as connection:
            present = self._require_configuration(connection, name, cell, number).keys
            _require_same_lanes(name, cell, number, present, keys)
            new = {seed: key for seed, key in keys.items() if seed not in present}
            if new:
                _insert_lanes(connection, name, cell, number, new)
            if new and reopen:
                _update_configuration(connection, name, cell, number, state="running", value=None)
            return _configurations(connection, self.database, name, cell, number)[0]

    def require_same_lanes(self, name: str, configuration: Configuration, keys: Mapping[int, str]) -> None:
        """Raise StoreError as `add_seeds` does, for a configuration that the store has; nothing is changed."""
        _require_same_lanes(name, configuration.cell, configuration.number, configuration.keys, keys)

    def update_settings(self, name: str, cell: str, number: int, settings: Mapping[str, Any]) -> Configuration:
        """Replace a configuration's settings, as for a longer budget; it is `running` again, without a value."""
        with self.database.write() as connection:
            self._require_configuration(connection, name, cell, number)
            _update_configuration(connection, name, cell, number, settings=json.dumps(settings), state="running", value=None)
            return _configurations(connection, self.database, name, cell, number)[0]

    def _require_configuration(self, connection: sa.Connection, name: str, cell: str, number: int) -> Configuration:
        require_sweep(connection, self.location, name)
        found = _configurations(connection, self.database, name, cell, number)
        if not found:
            raise StoreError(f"sweep {name!r} has no configuration {number} in cell {cell!r}")
        return found[0]

    # --------------------------------------------------------------------------------------- records

    def add_records(self, new: Sequence[LaneResult]) -> None:
        """Write finished lanes, and delete the checkpoints that they overtake.

        Writing a record again changes nothing: the stored row stays, unless its outcome is `error`.
        """
        if not new:
            return
        overtaken = sa.delete(checkpoints).where(
            checkpoints.c.key == sa.bindparam("lane"), checkpoints.c.steps <= sa.bindparam("done")
        )
        finished = [{"lane": r.key, "done": r.steps} for r in new if r.outcome != "error"]
        with self.database.write() as connection:
            _insert_records(self.database, connection, [_record_row(record) for record in new])
            if finished:
                connection.execute(overtaken, finished)

    def records(self, ids: Iterable[tuple[str, int]]) -> dict[tuple[str, int], LaneResult]:
        """Return the finished lanes among these (key, budget) pairs, in the order given, without their states."""
        requested = list(dict.fromkeys(ids))
        without_state = [column for column in records.c if column.name != "state"]
        found: dict[tuple[str, int], LaneResult] = {}
        with self.database.read() as connection:
            for budget in dict.fromkeys(budget for _, budget in requested):
                for keys in _chunks([key for key, of_budget in requested if of_budget == budget]):
                    rows = sa.select(*without_state).where(records.c.budget == budget, records.c.key.in_(keys))
                    for row in connection.execute(rows):
                        with decoding(self.location, f"record {str(row.key)[:16]}"):
                            found[row.key, row.budget] = _record(row)
        return {id: found[id] for id in requested if id in found}

    def state(self, key: str, budget: int) -> bytes | None:
        """Return the final state of a finished lane; None if there is no such record or it has no state."""
        query = sa.select(records.c.state).where(records.c.key == key, records.c.budget == budget)
        with self.database.read() as connection:
            found = connection.execute(query).scalar_one_or_none()
        with decoding(self.location, f"the state of record {key[:16]}"):
            return None if found is None else memoryview(found).tobytes()

    # --------------------------------------------------------------------------------------- checkpoints

    def save_checkpoints(self, new: Mapping[str, Checkpoint]) -> None:
        """Write checkpoints by lane key. Of each key the one with most steps is kept."""
        if not new:
            return
        rows = [
            {"key": key, "steps": checkpoint.steps, "blob": checkpoint.state, "curve": _NO_CURVE}
            for key, checkpoint in new.items()
        ]
        with self.database.write() as connection:
            _insert_checkpoints(self.database, connection, rows)

    def checkpoints(self, keys: Iterable[str], at_most_steps: int) -> dict[str, Checkpoint]:
        """Return, for each lane that has one, the furthest state to continue from with at most `at_most_steps` done.

        It is a checkpoint, or the final state of a record of another budget. A lane that ended in an error has only
        its checkpoint.
        """
        of_record = sa.select(records.c.key, records.c.steps, records.c.state.label("blob")).where(
            records.c.state.is_not(None), records.c.outcome != "error"
        )
        of_checkpoint = sa.select(checkpoints.c.key, checkpoints.c.steps, checkpoints.c.blob)
        requested = list(dict.fromkeys(keys))
        furthest: dict[str, Checkpoint] = {}
        with self.database.read() as connection:
            for chunk in _chunks(requested):
                for query, table in ((of_record, records), (of_checkpoint, checkpoints)):
                    query = query.where(table.c.key.in_(chunk), table.c.steps <= at_most_steps)
                    for row in connection.execute(query):
                        if row.key not in furthest or row.steps > furthest[row.key].steps:
                            with decoding(self.location, f"the checkpoint of lane {row.key[:16]}"):
                                furthest[row.key] = Checkpoint(row.steps, memoryview(row.blob).tobytes())
        return {key: furthest[key] for key in requested if key in furthest}

    def steps_made(self, keys: Iterable[str], at_most_steps: int) -> dict[str, int]:
        """Return, for each lane that `checkpoints` has a state of, the steps of that state. The states are not read."""
        furthest: dict[str, int] = {}
        with self.database.read() as connection:
            for chunk in _chunks(list(dict.fromkeys(keys))):
                usable = (records.c.state.is_not(None), records.c.outcome != "error")
                for table, conditions in ((records, usable), (checkpoints, ())):
                    query = sa.select(table.c.key, table.c.steps).where(
                        table.c.key.in_(chunk), table.c.steps <= at_most_steps, *conditions
                    )
                    for key, steps in connection.execute(query):
                        furthest[key] = max(steps, furthest.get(key, 0))
        return furthest


def copy_sweep(source: Store, target: Store, name: str) -> int:
    """Copy a sweep with its configurations, records and checkpoints; return how many records were new to the target.

    It may be repeated while the sweep continues: only what is new is added. Where the target's copy was continued, so that it
    is newer or has lanes that the source lacks, only records and checkpoints are added, with a warning in the log. One
    transaction, all of it or nothing.

    Raises StoreError if the source has no such sweep, or the target has another one of that name: it was created at another
    time, or differs.
    """
    with source.database.read() as here, target.database.write() as there:
        require_sweep(here, source.location, name)
        columns = source.database.columns(sweeps)
        row = dict(here.execute(sa.select(*columns).where(sweeps.c.name == name)).mappings().one())
        present = there.execute(sa.select(sweeps).where(sweeps.c.name == name)).mappings().one_or_none()
        if present is None:
            there.execute(sa.insert(sweeps).values(row))
        elif present["created"] != row["created"]:
            raise StoreError(
                f"store {target.location} has another sweep named {name!r}: it was created at {present['created']}, and the "
                f"one to copy at {row['created']}. Give another --store, or rename one of the two with `sweeps rename`"
            )
        elif present["updated"] > row["updated"] or _lanes_of(there, name) - _lanes_of(here, name):
            log.warning(
                "sweep %r was continued in %s: its definition and configurations stay as they are there, and only records and "
                "checkpoints are added", name, target.location,
            )  # fmt: skip
            return _copy_lanes(here, there, target.database, name)
        else:
            row["seconds"] = max(row["seconds"], present["seconds"])
            there.execute(sa.update(sweeps).where(sweeps.c.name == name).values(row))
        _copy_configurations(here, source.database.columns(configurations), there, target.location, name)
        return _copy_lanes(here, there, target.database, name)


def _lanes_of(connection: sa.Connection, name: str) -> set[tuple[Any, ...]]:
    chosen = sa.select(lanes.c.cell, lanes.c.number, lanes.c.seed).where(lanes.c.sweep == name)
    return {tuple(row) for row in connection.execute(chosen)}


def _copy_configurations(
    here: sa.Connection, columns: Sequence[sa.Column[Any]], there: sa.Connection, target: str, name: str
) -> None:
    another = f"store {target} has another sweep named {name!r}:"
    chosen = sa.select(configurations).where(configurations.c.sweep == name)
    present = {(row["cell"], row["number"]): row for row in there.execute(chosen).mappings()}
    own = sa.select(*columns).where(configurations.c.sweep == name).order_by(configurations.c.id)
    for found in here.execute(own).mappings():
        row = {key: value for key, value in found.items() if key != "id"}
        old = present.get((row["cell"], row["number"]))
        if old is None:
            there.execute(sa.insert(configurations).values(row))
        elif _without_budget(old) != _without_budget(row):
            raise StoreError(f"{another} configuration {row['number']} of cell {row['cell']!r} differs. Give another --store")
        else:
            there.execute(sa.update(configurations).where(configurations.c.id == old["id"]).values(row))
    keys = {(row.cell, row.number, row.seed): row.key for row in there.execute(sa.select(lanes).where(lanes.c.sweep == name))}
    for lane in here.execute(sa.select(lanes).where(lanes.c.sweep == name)).mappings():
        key = keys.get((lane["cell"], lane["number"], lane["seed"]))
        if key is None:
            there.execute(sa.insert(lanes).values(dict(lane)))
        elif key != lane["key"]:
            raise StoreError(
                f"{another} seed {lane['seed']} of cell {lane['cell']!r} is another lane, as after a new version of "
                "a model. Give another --store"
            )


def _without_budget(row: Mapping[Any, Any]) -> tuple[Any, ...]:
    """Return parameters and settings of a configuration's row without train.steps, which may be extended."""
    settings = json.loads(row["settings"])
    settings["train"] = {key: value for key, value in settings["train"].items() if key != "steps"}
    return json.loads(row["parameters"]), settings


def _copy_lanes(here: sa.Connection, there: sa.Connection, target: Database, name: str) -> int:
    keys = list(here.execute(sa.select(lanes.c.key).where(lanes.c.sweep == name).distinct()).scalars())
    num_new = 0
    for chunk in _chunks(keys):
        ids = sa.select(records.c.key, records.c.budget).where(records.c.key.in_(chunk))
        present = {tuple(row) for row in there.execute(ids)}
        rows = [dict(r) for r in here.execute(sa.select(records).where(records.c.key.in_(chunk))).mappings()]
        num_new += sum((row["key"], row["budget"]) not in present for row in rows)
        if rows:
            _insert_records(target, there, rows)
        saved = sa.select(checkpoints).where(checkpoints.c.key.in_(chunk))
        unfinished = [dict(row) for row in here.execute(saved).mappings()]
        if unfinished:
            _insert_checkpoints(target, there, unfinished)
    return num_new


def require_sweep(connection: sa.Connection, location: str, name: str) -> None:
    """Raise UnknownSweep if there is no sweep of that name."""
    if connection.execute(sa.select(sweeps.c.name).where(sweeps.c.name == name)).one_or_none() is None:
        known = connection.execute(sa.select(sweeps.c.name).order_by("name")).scalars()
        raise UnknownSweep(location, name, [str(other) for other in known])


def _require_same_lanes(name: str, cell: str, number: int, present: Mapping[int, str], keys: Mapping[int, str]) -> None:
    changed = sorted(seed for seed in keys if present.get(seed, keys[seed]) != keys[seed])
    if changed:
        raise StoreError(
            f"sweep {name!r}, cell {cell!r}, configuration {number}: seeds {changed[:5]} are other lanes than "
            "when the sweep began: a file of yours has changed, or the model, the task or the engine has a new "
            "version. Continue with what the sweep began with, or start anew with --name."
        )


def _mapping(text: str) -> dict[str, Any]:
    """Return the mapping that a JSON text holds. Raises ValueError and TypeError."""
    found = json.loads(text)
    if not isinstance(found, dict):
        raise TypeError(f"{text[:40]!r} is not a mapping")
    return found


def _of(table: sa.Table, name: str, cell: str | None, number: int | None) -> sa.ColumnElement[bool]:
    """Return the condition for rows of a sweep, or of one of its configurations."""
    of_sweep = table.c.sweep == name
    return of_sweep if cell is None else of_sweep & (table.c.cell == cell) & (table.c.number == number)


def _configurations(
    connection: sa.Connection, database: Database, name: str, cell: str | None = None, number: int | None = None
) -> list[Configuration]:
    """Return the sweep's configurations, or the one of that cell and number, in the order they were added."""
    location = database.where
    keys: dict[tuple[str, int], dict[int, str]] = defaultdict(dict)
    of_lanes = sa.select(lanes).where(_of(lanes, name, cell, number)).order_by(lanes.c.seed)
    for lane in connection.execute(of_lanes):
        with decoding(location, f"a lane of sweep {name!r}"):
            checked(lane, lanes)
        keys[lane.cell, lane.number][lane.seed] = lane.key
    columns = database.columns(configurations)
    chosen = sa.select(*columns).where(_of(configurations, name, cell, number)).order_by(configurations.c.id)
    found = []
    for row in connection.execute(chosen):
        with decoding(location, f"a configuration of sweep {name!r}"):
            values = checked(row, configurations)
            values |= {column: _mapping(values[column]) for column in _JSON_COLUMNS}
            if values.get("stopped") is not None:
                values["stopped"] = Stopped(**_mapping(values["stopped"]))
            values["passed"] = values.get("passed") or 0
            del values["id"], values["sweep"]
            if not all(isinstance(label, str) for label in values["labels"].values()):
                raise TypeError(f"labels are {values['labels']}")
            found.append(Configuration(keys=keys.get((values["cell"], values["number"]), {}), **values))
    return found


def _as_json(stopped: Stopped | None) -> str | None:
    return None if stopped is None else json.dumps(dataclasses.asdict(stopped))


def _update_configuration(connection: sa.Connection, name: str, cell: str, number: int, **values: Any) -> None:
    row = _of(configurations, name, cell, number)
    connection.execute(sa.update(configurations).where(row).values(**values))


def _insert_lanes(connection: sa.Connection, name: str, cell: str, number: int, keys: Mapping[int, str]) -> None:
    rows = [{"sweep": name, "cell": cell, "number": number, "seed": seed, "key": key} for seed, key in keys.items()]
    if rows:
        connection.execute(sa.insert(lanes), rows)


def _insert_records(database: Database, connection: sa.Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Insert rows of `records`; a stored one stays, unless its outcome is `error`."""
    insert = database.insert(records)
    values = {column.name: insert.excluded[column.name] for column in records.c if not column.primary_key}
    insert = insert.on_conflict_do_update(index_elements=["key", "budget"], set_=values, where=records.c.outcome == "error")
    connection.execute(insert, rows)


def _insert_checkpoints(database: Database, connection: sa.Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Insert rows of `checkpoints`; of each key the one with most steps stays."""
    insert = database.insert(checkpoints)
    values = {name: insert.excluded[name] for name in ("steps", "blob", "curve")}
    insert = insert.on_conflict_do_update(
        index_elements=["key"], set_=values, where=insert.excluded.steps >= checkpoints.c.steps
    )
    connection.execute(insert, rows)


def _chunks(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(keys), _MAX_KEYS):
        yield keys[start : start + _MAX_KEYS]


def _record_row(record: LaneResult) -> dict[str, Any]:
    """Return a record as a row. NumPy's numbers become Python's, since SQLite would store their bytes."""
    row: dict[str, Any] = {"key": record.key, "outcome": record.outcome}
    for column in records.c:
        if isinstance(column.type, sa.BigInteger | sa.Double):
            value = getattr(record, column.name)
            convert = int if isinstance(column.type, sa.BigInteger) else float
            row[column.name] = None if value is None else finite(convert(value))
    row["error"] = json.dumps(finite(record.error))
    row["provenance"] = json.dumps(record.provenance)
    row["reason"] = None if record.reason is None else storable(record.reason)
    lengths = {f"{_BY_LENGTH}{name}": column for name, column in record.by_length.items()}
    row["curve"] = pack({**record.curve, **lengths})
    row["state"] = record.state
    return row


def _record(row: sa.Row[Any]) -> LaneResult:
    values = checked(row, records)
    values["error"] = _mapping(values["error"])
    if not all(value is None or isinstance(value, float | int) for value in values["error"].values()):
        raise TypeError(f"error is {values['error']}")
    values["provenance"] = _mapping(values["provenance"])
    columns = unpack(values["curve"])
    values["curve"] = {name: c for name, c in columns.items() if not name.startswith(_BY_LENGTH)}
    values["by_length"] = {name.removeprefix(_BY_LENGTH): c for name, c in columns.items() if name.startswith(_BY_LENGTH)}
    return LaneResult(solved=values["outcome"] == "solved", **values)
