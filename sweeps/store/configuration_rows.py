"""What was asked for in a sweep: its configurations, and which lane each of their seeds is."""

from __future__ import annotations

import dataclasses
import json
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from sweeps.records import CONFIGURATION_STATES, Configuration
from sweeps.store.curves import finite
from sweeps.store.database import Database
from sweeps.store.errors import StoreError
from sweeps.store.sweep_rows import require_sweep
from sweeps.store.tables import configurations, lanes

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
