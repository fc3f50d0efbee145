"""Finished lanes, and the checkpoints from which unfinished ones go on. Both are found by lane key."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from sweeps.records import Checkpoint, Record
from sweeps.store.curves import finite, pack, unpack
from sweeps.store.database import Database
from sweeps.store.tables import checkpoints, records

_CHUNK = 500  # keys in one query; databases limit the variables of a statement
_WITHOUT_STATE = [column for column in records.c if column.name != "state"]


BY_LENGTH = "by_length/"
"""Begins the names of columns by length, which lie with those by step."""


class RecordRows:
    """Part of `Store`."""

    database: Database

    def add_records(self, new: Sequence[Record]) -> None:
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
            insert_records(self.database, connection, [_row(record) for record in new])
            if finished:
                connection.execute(overtaken, finished)

    def records(self, ids: Iterable[tuple[str, int]]) -> dict[tuple[str, int], Record]:
        """Those of the (key, budget) pairs that are finished, in the order given, without their states."""
        wanted = list(dict.fromkeys(ids))
        found: dict[tuple[str, int], Record] = {}
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

    def save_checkpoints(self, new: Sequence[tuple[str, int, bytes, str]]) -> None:
        """Keep (lane key, steps, blob, curve as JSON text): one for each key, the furthest. Durable on return."""
        if not new:
            return
        rows = [
            {"key": key, "steps": int(steps), "blob": bytes(blob), "curve": pack(json.loads(curve_json))}
            for key, steps, blob, curve_json in new
        ]
        with self.database.write() as connection:
            insert_checkpoints(self.database, connection, rows)

    def checkpoints(self, keys: Iterable[str], at_most_steps: int) -> dict[str, Checkpoint]:
        """For each lane that has one, the furthest state to go on from with no more than `at_most_steps` done.

        It is a checkpoint, or the final state of a record of another budget. A lane that ended in an error has only
        its checkpoint.
        """
        of_record = sa.select(
            records.c.key, records.c.steps, records.c.state.label("blob"), records.c.curve
        ).where(records.c.state.is_not(None), records.c.outcome != "error")
        of_checkpoint = sa.select(
            checkpoints.c.key, checkpoints.c.steps, checkpoints.c.blob, checkpoints.c.curve
        )
        wanted = list(dict.fromkeys(keys))
        furthest: dict[str, Checkpoint] = {}
        with self.database.read() as connection:
            for chunk in chunks(wanted):
                for query, table in ((of_record, records), (of_checkpoint, checkpoints)):
                    query = query.where(table.c.key.in_(chunk), table.c.steps <= at_most_steps)
                    for row in connection.execute(query):
                        if row.key not in furthest or row.steps > furthest[row.key].steps:
                            curve_json = json.dumps(unpack(row.curve))
                            furthest[row.key] = Checkpoint(row.steps, bytes(row.blob), curve_json)
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


def _row(record: Record) -> dict[str, Any]:
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


def _record(row: sa.Row[Any]) -> Record:
    values = row._asdict()
    values["error"] = json.loads(values["error"])
    values["provenance"] = json.loads(values["provenance"])
    columns = unpack(values["curve"])
    values["curve"] = {name: c for name, c in columns.items() if not name.startswith(BY_LENGTH)}
    values["by_length"] = {
        name.removeprefix(BY_LENGTH): c for name, c in columns.items() if name.startswith(BY_LENGTH)
    }
    return Record(solved=values["outcome"] == "solved", **values)
