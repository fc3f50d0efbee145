"""The sweeps of a store: name, definition, state and the time spent."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from sweeps.records import SWEEP_STATES, SweepRow
from sweeps.store.database import Database
from sweeps.store.errors import StoreError
from sweeps.store.tables import sweeps


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
            return _sweep(_row(connection, self.database.where, name))

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
    _row(connection, where, name)


def _row(connection: sa.Connection, where: str, name: str) -> sa.Row[Any]:
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
