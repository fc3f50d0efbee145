"""The database of a store: its tables, connections to SQLite or PostgreSQL, and errors with what to do about them."""

from __future__ import annotations

import sqlite3
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import filelock
import sqlalchemy as sa
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
from sqlalchemy.dialects import postgresql, sqlite

from sweeps.errors import StoreError, disk_full
from sweeps.machine import expanded
from sweeps.store.location import (
    network_disk_advice,
    network_disk_permitted,
    network_file_system,
    parameters_masked,
)
from sweeps.store.reading import Reader


class HeldByAnother(StoreError):
    """Another live driver holds the sweep's name. `host`, `pid` and `since` (UTC, ISO 8601) identify it."""

    def __init__(self, message: str, *, host: str, pid: int, since: str) -> None:
        super().__init__(message)
        self.host, self.pid, self.since = host, pid, since


SCHEMA_VERSION = 3

ADDED = (("sweeps", "numerics", 2), ("configurations", "stopped", 3), ("configurations", "passed", 3))
"""(table, column, version of the schema that has it first) of columns that may be null, and are added to an older store."""

metadata = MetaData()

schema_version = Table("sweeps_schema", metadata, Column("version", Integer, primary_key=True, autoincrement=False))

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
    Column("numerics", Text),  # of its lanes; null in a sweep that began with schema 1, which did not record them
)

# The drivers of sweeps. A name may be held before its sweep is created, so there is no foreign key.
holders = Table(
    "holders",
    metadata,
    Column("sweep", Text, primary_key=True),
    Column("token", Text, nullable=False),  # a new one each time that a name is acquired
    Column("host", Text, nullable=False),
    Column("machine", Text, nullable=False),  # what `pid` is unique in: see ownership.py
    Column("pid", BigInteger, nullable=False),
    Column("started_s", Double, nullable=False),  # of the process, seconds after the machine's boot
    Column("since", Text, nullable=False),  # UTC, ISO 8601
    Column("beat_s", Double, nullable=False),  # last heartbeat, seconds since 1970
)

configurations = Table(
    "configurations",
    metadata,
    Column("id", Integer, primary_key=True),  # in the order they were added
    Column("sweep", Text, ForeignKey("sweeps.name"), nullable=False),
    Column("cell", Text, nullable=False),
    Column("number", Integer, nullable=False),
    Column("labels", Text, nullable=False),  # JSON
    Column("parameters", Text, nullable=False),  # JSON
    Column("settings", Text, nullable=False),  # JSON
    Column("origin", Text),
    Column("state", Text, nullable=False),
    Column("value", Double),
    Column("stopped", Text),  # JSON: where early stopping stopped it, and why
    Column("passed", Integer),  # number of stages of training after which it was not stopped
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
    ForeignKeyConstraint(["sweep", "cell", "number"], ["configurations.sweep", "configurations.cell", "configurations.number"]),
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
    Column("state", LargeBinary),  # last: most queries leave it out
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("key", Text, primary_key=True),
    Column("steps", BigInteger, nullable=False),
    Column("curve", LargeBinary, nullable=False),
    Column("blob", LargeBinary, nullable=False),
)


FILE_NAME = "sweeps.db"
BUSY_TIMEOUT_S = 60.0  # another process's commit takes milliseconds; a slow disk may take seconds
COMPACT_S = BUSY_TIMEOUT_S / 4
"""Most seconds in which a copy of a file is made without the space of deleted rows. To put it in place takes about as long."""
_SCHEMA_LOCK = 0x53574545  # any number that all our processes agree on, for PostgreSQL's advisory lock


def utc_now() -> str:
    """Return the time as ISO 8601 text in UTC, such as 2026-01-31T12:00:00.000000+00:00. Sorts by time."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def exists(location: str | Path) -> bool:
    """Return whether a folder contains a store, which opening it would create. True for every URL.

    Raises StoreError for a folder that may not be entered.
    """
    try:
        return "://" in str(location) or (expanded(location) / FILE_NAME).is_file()
    except OSError as fault:
        raise StoreError(f"store {location}: {_advice(fault)}") from fault


def require_written(location: str) -> None:
    """Raise StoreError for a folder without a store."""
    if not exists(location):
        raise StoreError(f"the cluster's store {location} has nothing in it yet")


def files_bytes(file: Path) -> int:
    """Return the size of an SQLite database: its file and its write-ahead log."""
    return sum(path.stat().st_size for path in (file, Path(f"{file}-wal")) if path.is_file())


def compact_file(file: Path) -> bool:
    """Rewrite an SQLite database without the space of deleted rows. Raises sqlite3.Error; nothing is lost then.

    Return whether it was rewritten. After `COMPACT_S` it is given up, with the file as it was: who begins to write meanwhile
    waits, and must not wait for longer than `BUSY_TIMEOUT_S`.
    """
    with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=rw", uri=True, timeout=BUSY_TIMEOUT_S)) as connection:
        connection.execute("BEGIN IMMEDIATE")  # waits for other writers, which does not count
        connection.rollback()
        until_s = time.monotonic() + COMPACT_S
        connection.set_progress_handler(lambda: time.monotonic() >= until_s, 50)  # instructions: ten rows or so
        try:
            connection.execute("VACUUM")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
                return False
            raise
        connection.set_progress_handler(None, 0)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return True


_TYPES: dict[type[Any], tuple[type, ...]] = {
    Text: (str,), Integer: (int,), BigInteger: (int,), Double: (float, int), LargeBinary: (bytes,),
}  # fmt: skip


@contextmanager
def decoding(where: str, what: str) -> Iterator[None]:
    """Raise StoreError for what is not as sweeps writes it: a store made by hand, or damaged, may hold anything."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError, zlib.error) as fault:
        raise StoreError(
            f"store {where}: {what} is damaged, or was not written by sweeps: {type(fault).__name__}: {str(fault)[:200]}. "
            "Restore it from a copy, or give another --store."
        ) from fault


def checked(row: sa.Row[Any], table: sa.Table) -> dict[str, Any]:
    """Return a row of a table. Raises TypeError for a value of another type than its column: SQLite keeps what it is given."""
    values: dict[str, Any] = row._asdict()
    for name, value in values.items():
        column = table.c[name]
        if value is None and column.nullable:
            continue
        if not isinstance(value, _TYPES[type(column.type)]):
            raise TypeError(f"{name} is {str(value)[:40]!r}")
    return values


class Database:
    """An opened database. It may be used from several threads of one process, but not across a fork.

    With `read_only` nothing is created or changed, in a folder not even a file of SQLite's, and `write` is refused.
    """

    def __init__(self, location: str | Path, read_only: bool = False) -> None:
        self.read_only = read_only
        self.schema = SCHEMA_VERSION
        """Version of the schema, older only where the store is read and may not be changed."""
        self.where, self.engine, self._reader = _engine(location, read_only)
        self._writer = self.engine.execution_options(sweeps_write=True)
        try:
            if read_only:
                with self.read() as connection:
                    self.schema = self._check(connection)
            else:
                self._prepare()
        except BaseException:
            self.close()
            raise

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A consistent view of the store, for as long as the block lasts. Raises StoreError."""
        with self._store_errors(), self.engine.begin() as connection:
            try:
                yield connection
            finally:
                if self._reader is not None:
                    self._reader.require_unchanged(connection.connection.driver_connection)

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction: durable when the block is left, rolled back by an exception. Raises StoreError."""
        if self.read_only:
            raise StoreError(f"store {self.where} was opened for reading only, and cannot be changed")
        with self._store_errors(), self._writer.begin() as connection:
            yield connection

    def columns(self, table: sa.Table) -> list[sa.Column[Any]]:
        """Return the columns of a table, as far as the schema has them."""
        missing = {column for name, column, version in ADDED if name == table.name and version > self.schema}
        return [column for column in table.c if column.name not in missing]

    def insert(self, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
        """Return the dialect's own insert, which has `on_conflict_do_nothing` and `on_conflict_do_update`."""
        return sqlite.insert(table) if self.engine.dialect.name == "sqlite" else postgresql.insert(table)

    def insert_new(self, connection: sa.Connection, table: sa.Table, values: Mapping[str, Any]) -> bool:
        """Insert a row unless one has the same unique key already. Return whether it was inserted."""
        insert = self.insert(table).values(values).on_conflict_do_nothing()
        # Not `rowcount`, which some drivers set to -1.
        return connection.execute(insert.returning(sa.literal(1))).first() is not None

    @property
    def is_sqlite(self) -> bool:
        """Whether it is a folder's file, and no server's."""
        return self.engine.dialect.name == "sqlite"

    def size_bytes(self) -> int:
        """Return the size of the database on the disk: of SQLite's files, or of PostgreSQL's tables and indexes."""
        if self.engine.dialect.name == "sqlite":
            return files_bytes(Path(str(self.engine.url.database)))
        total = sa.select(sa.func.sum(sa.func.pg_total_relation_size(sa.bindparam("table"))))
        with self.read() as connection:
            return sum(int(connection.execute(total, {"table": name}).scalar() or 0) for name in metadata.tables)

    def compact(self) -> bool:
        """Give the space of deleted rows in SQLite's file back to the disk. PostgreSQL's server does so by itself.

        It takes as much free space as the database needs, and waits for other writers. Return whether it was done: what takes
        too long is given up, see `compact_file`. Raises StoreError; nothing is lost then.
        """
        if self.engine.dialect.name != "sqlite":
            return True
        with self._store_errors():
            return compact_file(Path(str(self.engine.url.database)))

    def close(self) -> None:
        self.engine.dispose()
        if self._reader is not None:
            self._reader.close()

    def _prepare(self) -> None:
        """Create the tables if there are none. Raises StoreError for what is not a store of this version."""
        with self.write() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_SCHEMA_LOCK)))
            present = set(sa.inspect(connection).get_table_names())
            if schema_version.name not in present:
                self._refuse_foreign(present)
                metadata.create_all(connection)
                connection.execute(sa.insert(schema_version).values(version=SCHEMA_VERSION))
            found = self._check(connection)
            for table, column, version in ADDED:
                if found < version:
                    kind = metadata.tables[table].c[column].type.compile(connection.dialect)
                    connection.execute(sa.text(f"ALTER TABLE {table} ADD COLUMN {column} {kind}"))
            # Also where it changes nothing: a store that cannot be written fails now, not after an hour's training.
            connection.execute(sa.update(schema_version).values(version=SCHEMA_VERSION))

    def _check(self, connection: sa.Connection) -> int:
        """Return the version of the schema. Raises StoreError for what is not a store of this version."""
        if schema_version.name not in sa.inspect(connection).get_table_names():
            raise StoreError(f"store {self.where} has nothing in it yet: `sweeps run` fills it")
        found = connection.execute(sa.select(sa.func.max(schema_version.c.version))).scalar()
        if not isinstance(found, int) or found > SCHEMA_VERSION:
            raise StoreError(
                f"store {self.where} has schema version {found}; this installation of sweeps reads up to "
                f"{SCHEMA_VERSION}. Install the newer release that wrote it, or give another --store."
            )
        if connection.dialect.name == "sqlite":
            # A trigger or a view would run another's SQL. sweeps makes tables only.
            made = sa.text("SELECT type, name FROM sqlite_master WHERE type NOT IN ('table', 'index') OR sql LIKE '%VIRTUAL%'")
            foreign = [f"{kind} {name!r}" for kind, name in connection.execute(made)]
            if foreign:
                raise StoreError(
                    f"store {self.where} is refused: its {FILE_NAME} has what sweeps never makes: {', '.join(foreign[:5])}. "
                    "Give another --store, or remove them if you trust the file."
                )
        return found

    def _refuse_foreign(self, present: set[str]) -> None:
        clash = sorted(present & set(metadata.tables))
        if clash:
            raise StoreError(
                f"{self.where} is a database of something else: it has tables named {', '.join(clash)} "
                "that sweeps did not make. Give another --store, or an empty database."
            )

    @contextmanager
    def _store_errors(self) -> Iterator[None]:
        """Raise StoreError, with advice, in place of the errors of SQLAlchemy and the operating system."""
        try:
            yield
        except sa.exc.SQLAlchemyError as fault:
            cause = (fault.orig if isinstance(fault, sa.exc.StatementError) else None) or fault
            raise StoreError(f"store {self.where}: {_advice(cause)}") from fault
        except (sqlite3.Error, OSError, OverflowError, UnicodeError) as fault:
            raise StoreError(f"store {self.where}: {_advice(fault)}") from fault


def _engine(location: str | Path, read_only: bool = False) -> tuple[str, sa.Engine, Reader | None]:
    """Return the location as it may be printed, an engine that is not connected yet, and what reads a folder's file."""
    text = str(location)
    if isinstance(location, str) and "://" in text:
        where, engine = _postgresql(text.strip())  # a line break at the end comes from a file with the URL
        return where, engine.execution_options(postgresql_readonly=True) if read_only else engine, None
    if not text.strip():
        raise StoreError("the store's location is empty. Give a folder, such as results/, or a postgresql:// URL.")
    folder = expanded(location)
    if set("?#%") & set(str(folder.absolute())):
        raise StoreError(f"store {folder}: a folder whose path has ?, # or % in it cannot be part of MLflow's database URL.")
    network = network_file_system(folder)
    if read_only:
        if not exists(folder):
            raise StoreError(f"there is no store {folder}: `sweeps run` makes one; --store or SWEEPS_STORE names another")
        reader = Reader(folder / FILE_NAME, BUSY_TIMEOUT_S, apart=network is not None)
        engine = sa.create_engine(_url(folder), creator=reader.connect, poolclass=sa.NullPool)
        sa.event.listen(engine, "connect", _restrict)
        sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
        return str(folder), engine, reader
    if any("\ud800" <= letter <= "\udfff" for letter in str(folder.absolute())):
        raise StoreError(f"store {folder.absolute()}: a folder whose path is not UTF-8 is refused by Ray. Rename it.")
    if network and not network_disk_permitted():
        raise StoreError(f"store {folder} {network_disk_advice(network)}.")
    _make_folder(folder)
    # The write-ahead log needs memory that processes of one machine share; a rollback journal needs only file locks.
    return str(folder), _sqlite(folder, "delete" if network else "wal"), None


def _url(folder: Path) -> sa.URL:
    return sa.URL.create("sqlite", database=str(folder / FILE_NAME))


def _restrict(connection: sqlite3.Connection, _: object) -> None:
    """Trust nothing that the file says: it may come from somebody else."""
    connection.execute("PRAGMA trusted_schema=OFF")
    connection.execute("PRAGMA cell_size_check=ON")


def _sqlite(folder: Path, journal: str) -> sa.Engine:
    engine = sa.create_engine(_url(folder), connect_args={"timeout": BUSY_TIMEOUT_S})
    # SQLite raises "locked" at once, without waiting for the timeout, when two processes switch a new file to WAL together.
    lock = filelock.FileLock(folder / f"{FILE_NAME}.lock", timeout=BUSY_TIMEOUT_S)

    def on_connect(connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None  # otherwise the database driver begins transactions, and too late
        _restrict(connection, None)
        connection.execute("PRAGMA foreign_keys=ON")
        if connection.execute("PRAGMA journal_mode").fetchone() != (journal,):
            with lock:
                connection.execute(f"PRAGMA journal_mode={journal}")
        connection.execute("PRAGMA synchronous=FULL")

    def on_begin(connection: sa.Connection) -> None:
        # A transaction that reads first and writes later cannot wait for another writer: it is locked from the start.
        write = connection.get_execution_options().get("sweeps_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    sa.event.listen(engine, "connect", on_connect)
    sa.event.listen(engine, "begin", on_begin)
    return engine


def _make_folder(folder: Path) -> None:
    if folder.is_file():
        nearest = folder.parent if folder.name == FILE_NAME else folder.with_name(folder.name + "-store")
        raise StoreError(f"store {folder} is a file; a store is a folder. Did you mean {nearest}?")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise StoreError(
            f"store {folder} cannot be created: {fault.strerror}. Give a folder that you may write with --store."
        ) from fault


def _postgresql(text: str) -> tuple[str, sa.Engine]:
    try:
        url = sa.make_url(text)
    except (sa.exc.ArgumentError, ValueError) as fault:
        raise StoreError("the store's URL cannot be read. Write postgresql://USER@HOST:PORT/DATABASE.") from fault
    if url.drivername in ("postgres", "postgresql"):
        url = url.set(drivername="postgresql+psycopg")
    where = parameters_masked(url.render_as_string(hide_password=True))
    if url.get_backend_name() != "postgresql":
        raise StoreError(f"store {where}: a store is a folder or a postgresql:// URL, not {url.get_backend_name()}.")
    try:
        return where, sa.create_engine(url, pool_pre_ping=True)
    except (ImportError, sa.exc.ArgumentError, sa.exc.NoSuchModuleError) as fault:
        raise StoreError(f"store {where} needs PostgreSQL's driver: pip install 'psycopg[binary]'.") from fault


def _advice(cause: BaseException) -> str:
    """Return the database's own message, and what to do about it."""
    message = str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
    if disk_full(cause):
        return f"the disk is full. Free some space and run again; the records so far are kept. ({message})"
    if isinstance(cause, PermissionError):
        return f"it may not be opened ({message}). Its owner can permit it; or give another --store."
    for part, what_to_do in (
        (
            "not a database",
            f"its {FILE_NAME} is not a database, or is damaged. Move it away, or give another --store.",
        ),
        ("malformed", f"its {FILE_NAME} is damaged. Restore it from a copy, or give another --store."),
        (
            "locked",
            f"another process has kept it locked for {BUSY_TIMEOUT_S:.0f} s. Stop that process and run again.",
        ),
        (
            "readonly",
            "it cannot be written. Make the folder and its files writable, or give another --store.",
        ),
        ("unable to open", f"its {FILE_NAME} cannot be opened. Make it writable, or give another --store."),
        ("changed it", "run the same command again."),
        ("permission denied for", "the role lacks a right: reading needs GRANT SELECT ON ALL TABLES, running all rights."),
    ):
        if part in message:
            return f"{what_to_do} ({message})"
    return f"the database refused: {message}. Check that it is reachable and writable, or give another --store."
