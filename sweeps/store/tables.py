"""The tables of a store. Portable between SQLite and PostgreSQL: text, whole numbers, doubles and bytes only.

Dicts are JSON text, in the order they were given, with floats in the shortest form that reads back exactly.
Change anything here and `SCHEMA_VERSION` goes up, with a step in `database.py` that brings older stores along.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

SCHEMA_VERSION = 1

metadata = MetaData()

schema_version = Table(
    "sweeps_schema", metadata, Column("version", Integer, primary_key=True, autoincrement=False)
)

sweeps = Table(
    "sweeps",
    metadata,
    Column("name", Text, primary_key=True),
    Column("definition", Text, nullable=False),
    Column("document", Text, nullable=False),  # JSON
    Column("state", Text, nullable=False),
    Column("created", Text, nullable=False),  # UTC, ISO 8601
    Column("updated", Text, nullable=False),
    Column("seconds", Double, nullable=False),
)

# Who drives a sweep now. A name may be held before its sweep has begun, so there is no foreign key.
holders = Table(
    "holders",
    metadata,
    Column("sweep", Text, primary_key=True),
    Column("token", Text, nullable=False),  # one for each time that a name is taken
    Column("host", Text, nullable=False),
    Column("machine", Text, nullable=False),  # where `pid` means something: see ownership.py
    Column("pid", BigInteger, nullable=False),
    Column("started_s", Double, nullable=False),  # of the process, seconds after the machine's boot
    Column("since", Text, nullable=False),  # UTC, ISO 8601
    Column("beat_s", Double, nullable=False),  # last heartbeat, seconds since 1970
)

configurations = Table(
    "configurations",
    metadata,
    Column("id", Integer, primary_key=True),  # in the order they were asked for
    Column("sweep", Text, ForeignKey("sweeps.name"), nullable=False),
    Column("cell", Text, nullable=False),
    Column("number", Integer, nullable=False),
    Column("labels", Text, nullable=False),  # JSON
    Column("parameters", Text, nullable=False),  # JSON
    Column("settings", Text, nullable=False),  # JSON
    Column("origin", Text),
    Column("state", Text, nullable=False),
    Column("value", Double),
    UniqueConstraint("sweep", "cell", "number"),
)

lanes = Table(
    "lanes",
    metadata,
    Column("sweep", Text, primary_key=True),
    Column("cell", Text, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("seed", BigInteger, primary_key=True),
    Column("key", Text, nullable=False),
    ForeignKeyConstraint(
        ["sweep", "cell", "number"], ["configurations.sweep", "configurations.cell", "configurations.number"]
    ),
)

# A record belongs to no sweep: sweeps that name the same lane share it.
records = Table(
    "records",
    metadata,
    Column("key", Text, primary_key=True),
    Column("budget", BigInteger, primary_key=True, autoincrement=False),
    Column("seed", BigInteger, nullable=False),
    Column("steps", BigInteger, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("converged_at", BigInteger),
    Column("sparsity_error", Double),
    Column("error", Text, nullable=False),  # JSON
    Column("best_step", BigInteger),
    Column("threshold", Double),
    Column("reason", Text),
    Column("wall_time_s", Double, nullable=False),
    Column("provenance", Text, nullable=False),  # JSON
    Column("curve", LargeBinary, nullable=False),  # curves.pack
    Column("state", LargeBinary),  # last: a row is read without it
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("key", Text, primary_key=True),
    Column("steps", BigInteger, nullable=False),
    Column("curve", LargeBinary, nullable=False),
    Column("blob", LargeBinary, nullable=False),
)
