"""Copies one sweep from a store into another: its definition, configurations, records and checkpoints.

May be repeated while the sweep goes on: what is there stays, and only what is new is added.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from sweeps.errors import StoreError
from sweeps.store import Store
from sweeps.store.database import checkpoints, configurations, lanes, records, sweeps
from sweeps.store.rows import chunks, insert_checkpoints, insert_records, require_sweep


def copy_sweep(source: Store, target: Store, name: str) -> int:
    """How many records were new to the target. One transaction: all of it or nothing.

    Raises StoreError if the source has no such sweep, or the target another one of that name.
    """
    with source.database.read() as here, target.database.write() as there:
        require_sweep(here, source.location, name)
        row = dict(here.execute(sa.select(sweeps).where(sweeps.c.name == name)).mappings().one())
        present = there.execute(sa.select(sweeps).where(sweeps.c.name == name)).mappings().one_or_none()
        if present is None:
            there.execute(sa.insert(sweeps).values(row))
        else:
            row["seconds"] = max(row["seconds"], present["seconds"])
            there.execute(sa.update(sweeps).where(sweeps.c.name == name).values(row))
        _copy_configurations(here, there, target, name)
        return _copy_records(here, there, target, name)


def _copy_configurations(here: sa.Connection, there: sa.Connection, target: Store, name: str) -> None:
    chosen = sa.select(configurations).where(configurations.c.sweep == name)
    present = {(r["cell"], r["number"]): r for r in there.execute(chosen).mappings()}
    for found in here.execute(chosen.order_by(configurations.c.id)).mappings():
        row = {key: value for key, value in found.items() if key != "id"}
        old = present.get((row["cell"], row["number"]))
        if old is None:
            there.execute(sa.insert(configurations).values(row))
            continue
        if _asked(old) != _asked(row):
            raise StoreError(
                f"store {target.location} has another sweep named {name!r}: configuration {row['number']} of cell "
                f"{row['cell']!r} differs. Give another --store"
            )
        there.execute(sa.update(configurations).where(configurations.c.id == old["id"]).values(row))
    known = {
        (r.cell, r.number, r.seed): r.key
        for r in there.execute(sa.select(lanes).where(lanes.c.sweep == name))
    }
    for lane in here.execute(sa.select(lanes).where(lanes.c.sweep == name)).mappings():
        key = known.get((lane["cell"], lane["number"], lane["seed"]))
        if key is None:
            there.execute(sa.insert(lanes).values(dict(lane)))
        elif key != lane["key"]:
            raise StoreError(
                f"store {target.location} has another sweep named {name!r}: seed {lane['seed']} of cell "
                f"{lane['cell']!r} is another lane, as after a new version of a model. Give another --store"
            )


def _copy_records(here: sa.Connection, there: sa.Connection, target: Store, name: str) -> int:
    keys = list(here.execute(sa.select(lanes.c.key).where(lanes.c.sweep == name).distinct()).scalars())
    fresh = 0
    for chunk in chunks(keys):
        ids = sa.select(records.c.key, records.c.budget).where(records.c.key.in_(chunk))
        present = {tuple(row) for row in there.execute(ids)}
        rows = [dict(r) for r in here.execute(sa.select(records).where(records.c.key.in_(chunk))).mappings()]
        fresh += sum((row["key"], row["budget"]) not in present for row in rows)
        if rows:
            insert_records(target.database, there, rows)
        kept = sa.select(checkpoints).where(checkpoints.c.key.in_(chunk))
        unfinished = [dict(r) for r in here.execute(kept).mappings()]
        if unfinished:
            insert_checkpoints(target.database, there, unfinished)
    return fresh


def _asked(row: Mapping[Any, Any]) -> tuple[Any, ...]:
    """What was tried, whatever its budget has become."""
    settings = json.loads(row["settings"])
    settings["train"] = {k: v for k, v in settings["train"].items() if k != "steps"}
    return json.loads(row["parameters"]), settings
