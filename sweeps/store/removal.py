"""What is taken out of a store: sweeps, with the lanes that no other sweep names, and what no sweep names any more.

A lane belongs to every sweep that names it, so a sweep's deletion keeps the records and checkpoints that others have in common
with it. Each function is one transaction: killed at any moment, all of it is done or nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from sweeps.store.database import checkpoints, configurations, holders, lanes, records, sweeps
from sweeps.store.store import Store, require_sweep


@dataclass(frozen=True)
class Removal:
    """What is removed, or would be. Bytes are those of the values, without what the database adds to them."""

    configurations: int = 0
    lanes: int = 0
    """Seeds of configurations. Two may be the same lane, with one record."""
    records: int = 0
    checkpoints: int = 0
    size_bytes: int = 0
    kept: int = 0
    """Records and checkpoints that stay, since other sweeps name their lanes."""

    def __bool__(self) -> bool:
        return any((self.configurations, self.lanes, self.records, self.checkpoints))


def what_goes(store: Store, names: Sequence[str]) -> Removal:
    """Return what the deletion of these sweeps, all together, removes. Raises StoreError for an unknown name."""
    with store.database.read() as connection:
        return _what_goes(connection, store.location, names)


def delete_sweeps(store: Store, names: Sequence[str]) -> Removal:
    """Delete sweeps, with their configurations and the lanes that only they name, and return what was removed.

    The caller holds their names (`Store.hold`). Raises StoreError for an unknown name, and then removes nothing.
    """
    with store.database.write() as connection:
        _lock_lanes(connection)
        removal = _what_goes(connection, store.location, names)
        own = _own_lanes(names)
        for table in (records, checkpoints):
            connection.execute(sa.delete(table).where(table.c.key.in_(own)))
        for table in (lanes, configurations):
            connection.execute(sa.delete(table).where(table.c.sweep.in_(names)))
        connection.execute(sa.delete(sweeps).where(sweeps.c.name.in_(names)))
        return removal


def what_nobody_names(store: Store) -> Removal:
    """Return what `delete_what_nobody_names` removes."""
    with store.database.read() as connection:
        return _size(connection, _orphans())


def delete_what_nobody_names(store: Store) -> Removal:
    """Delete records and checkpoints of lanes that no sweep names, and checkpoints of lanes that have a record as far.

    Sweeps may run meanwhile: what one trains or continues from it names before it starts.
    """
    with store.database.write() as connection:
        _lock_lanes(connection)
        chosen = _orphans()
        removal = _size(connection, chosen)
        for table, condition in chosen.items():
            connection.execute(sa.delete(table).where(condition))
        return removal


def held_names(store: Store) -> list[str]:
    """Return the names that live drivers hold."""
    with store.database.read() as connection:
        names = list(connection.execute(sa.select(holders.c.sweep).order_by("sweep")).scalars())
    return [name for name in names if (holder := store.holder(name)) is not None and holder.alive]


def _what_goes(connection: sa.Connection, location: str, names: Sequence[str]) -> Removal:
    for name in names:
        require_sweep(connection, location, name)
    own = _own_lanes(names)
    removal = _size(connection, {table: table.c.key.in_(own) for table in (records, checkpoints)})
    named = sa.select(lanes.c.key).where(lanes.c.sweep.in_(names))
    everything = sum(_count(connection, table, table.c.key.in_(named)) for table in (records, checkpoints))
    size = removal.size_bytes
    for table in (sweeps, configurations):
        of_names = (table.c.name if table is sweeps else table.c.sweep).in_(names)
        size += int(connection.execute(sa.select(_bytes(table)).where(of_names)).scalar() or 0)
    return Removal(
        configurations=_count(connection, configurations, configurations.c.sweep.in_(names)),
        lanes=_count(connection, lanes, lanes.c.sweep.in_(names)),
        records=removal.records,
        checkpoints=removal.checkpoints,
        size_bytes=size,
        kept=everything - removal.records - removal.checkpoints,
    )


def _own_lanes(names: Sequence[str]) -> sa.CompoundSelect[tuple[str]]:
    """Keys of the lanes that these sweeps name, and no other."""
    return sa.except_(
        sa.select(lanes.c.key).where(lanes.c.sweep.in_(names)), sa.select(lanes.c.key).where(lanes.c.sweep.not_in(names))
    )


def _orphans() -> dict[sa.Table, sa.ColumnElement[bool]]:
    def unnamed(table: sa.Table) -> sa.ColumnElement[bool]:
        return table.c.key.in_(sa.except_(sa.select(table.c.key), sa.select(lanes.c.key)))

    overtaken = (
        sa.select(records.c.key)
        .where(records.c.key == checkpoints.c.key, records.c.steps >= checkpoints.c.steps, records.c.outcome != "error")
        .exists()
    )
    return {records: unnamed(records), checkpoints: unnamed(checkpoints) | overtaken}


def _size(connection: sa.Connection, chosen: dict[sa.Table, sa.ColumnElement[bool]]) -> Removal:
    size = sum(
        int(connection.execute(sa.select(_bytes(table)).where(condition)).scalar() or 0) for table, condition in chosen.items()
    )
    return Removal(
        records=_count(connection, records, chosen[records]),
        checkpoints=_count(connection, checkpoints, chosen[checkpoints]),
        size_bytes=size,
    )


def _bytes(table: sa.Table) -> sa.ColumnElement[int]:
    """Bytes of all values of a table; numbers count as 8."""
    whole: sa.ColumnElement[int] = sa.literal(0)
    for column in table.c:
        is_text = isinstance(column.type, sa.Text | sa.LargeBinary)
        whole += sa.func.coalesce(sa.func.length(column), 0) if is_text else sa.literal(8)
    return sa.func.sum(whole)


def _count(connection: sa.Connection, table: sa.Table, condition: sa.ColumnElement[bool]) -> int:
    return int(connection.execute(sa.select(sa.func.count()).select_from(table).where(condition)).scalar_one())


def _lock_lanes(connection: sa.Connection) -> None:
    """Let no other transaction name a lane until this one ends: it could name one that is deleted here.

    SQLite has one writer at a time anyway.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("LOCK TABLE lanes, records, checkpoints IN SHARE ROW EXCLUSIVE MODE"))
