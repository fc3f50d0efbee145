"""MLflow's database. An SQLite file is made, migrated or replaced as a whole; any other database is only checked.

MLflow creates and migrates its tables in dozens of steps, and SQLite commits each of them. A process that is killed or a disk
that is full in between leaves a file that no MLflow can open. Here the steps are done on another file, which is then renamed.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import filelock
import sqlalchemy as sa

from sweeps.errors import TrackingError, TrackingRefused, disk_full
from sweeps.store.location import network_file_system, parameters_masked
from sweeps.store.reading import Reader

Refill = Callable[[str], object]
"""Writes the runs of every sweep of the store to MLflow at the given URI."""

SQLITE = "sqlite:///"
BUSY_TIMEOUT_S = 20.0
_BROKEN = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_REFUSAL = re.compile(r"^CREATE TRIGGER [^;]*\bBEGIN\s+SELECT\s+RAISE\s*\(\s*ABORT\s*,\s*'[^']*'\s*\)\s*;\s*END$")
"""A trigger that does no more than to refuse a change. MLflow makes such, and nothing else that runs SQL."""
_CREATION_LOCK = 0x4D4C464C  # any number that all our processes agree on, for PostgreSQL's advisory lock


@dataclass(frozen=True)
class _Found:
    """What a file contains."""

    state: Literal["absent", "current", "older", "newer", "damaged"]
    why: str = ""
    """Why it is damaged."""
    used: bool = False
    """Whether it may hold runs. One that does is never deleted."""
    revision: str | None = None
    """Of its schema."""


def prepare_file(file: Path, refill: Refill | None, warn: Callable[[str], object], fill: bool = False) -> None:
    """Make the SQLite file one that the installed MLflow can open.

    An older schema is migrated; the file as it was is kept beside. A file that is no MLflow database, or an incomplete one,
    is kept beside if it may hold runs, and a new one takes its place, to which `refill` has written. With `fill` it has written
    to one that takes no other's place too. All under a lock, and with one rename at the end: whatever ends this process, the
    file is either as it was or complete. `warn` receives what was done. Raises TrackingError for a newer schema, and for one
    with runs that is damaged if there is no `refill`; sqlite3.Error or OSError where the disk does not accept it.
    """
    if _inspect(file).state == "current":
        return  # without the lock, which needs a folder that can be written
    file.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(f"{file}.lock"):
        found = _inspect(file)
        if found.state == "current":
            return
        if found.state == "newer":
            aside = _beside(file, "newer")
            raise TrackingRefused(
                f"{file} has a schema (revision {found.revision}) that the installed MLflow {_version()} does not have: a "
                f"newer MLflow wrote it. Install that one (pip install --upgrade mlflow), or start a new database: "
                f"{_move(file, aside)}; `sweeps sync NAME` then writes a sweep to it from the records"
            )
        new = file.with_name(f"{file.name}.new")
        try:
            _delete(new)
            if found.state == "older":
                _migrate(file, new, found, warn)
            else:
                _replace(file, new, found, refill, warn, fill)
        finally:
            _delete(new)


def check_server(uri: str) -> None:
    """Check the schema in a database server, which others may use too: it is never migrated here.

    An empty PostgreSQL database receives MLflow's tables, under a lock. Raises TrackingError with the command that migrates.
    """
    utils = _utils()
    engine = utils.create_sqlalchemy_engine(uri)
    try:
        with engine.begin() as connection:
            postgresql = connection.dialect.name == "postgresql"
            if postgresql:
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_CREATION_LOCK)))
            tables = sa.inspect(connection).get_table_names()
            if not tables and postgresql:
                utils._initialize_tables(engine)
            if "alembic_version" not in tables:
                return
            revision = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
    finally:
        engine.dispose()
    if revision is None or revision == _head():
        return
    shown = parameters_masked(re.sub(r"(://[^:/@]*):\S+@", r"\1:***@", uri))
    if not _known(revision):
        raise TrackingRefused(
            f"{shown} has a schema (revision {revision}) that the installed MLflow {_version()} does not have: a newer MLflow "
            f"wrote it. Install that one: pip install --upgrade mlflow"
        )
    raise TrackingRefused(
        f"{shown} has an older schema (revision {revision}) than the installed MLflow {_version()} ({_head()}). Others may use "
        f"this database, so it is not migrated by itself. Make a backup, then: mlflow db upgrade {shlex.quote(shown)}"
    )


# ------------------------------------------------------------------------------------------------- what a file contains


def _inspect(file: Path) -> _Found:
    """Return what the file contains. Raises sqlite3.Error where it cannot be read for another reason than its content."""
    if not file.exists():
        return _Found("absent")
    if not file.is_file():
        raise TrackingRefused(f"{file} is not a file: move it away, or name another place with MLFLOW_TRACKING_URI")
    if file.stat().st_size == 0:
        return _Found("damaged", "it is empty")
    try:
        with closing(Reader(file, BUSY_TIMEOUT_S)) as reader, closing(reader.connect()) as connection:
            return _contents(file, connection)
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _BROKEN:
            return _Found("damaged", str(error), used=True)
        raise


def _contents(file: Path, connection: sqlite3.Connection) -> _Found:
    made = list(connection.execute("SELECT type, name, sql FROM sqlite_master"))
    foreign = [
        f"{kind} {name!r}"
        for kind, name, sql in made
        if (kind not in ("table", "index") or "VIRTUAL" in (sql or "")) and not _REFUSAL.search(sql)
    ]
    if foreign:  # it would run another's SQL
        raise TrackingRefused(
            f"the MLflow database {file} is refused: it has what MLflow does not make: {', '.join(foreign[:5])}. Remove "
            f"them if you trust the file, or start a new database: {_move(file, _beside(file, 'refused'))}; "
            "`sweeps sync NAME` then writes a sweep to it from the records"
        )
    tables = {name for kind, name, _ in made if kind == "table"}
    faults = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if faults != "ok":
        return _Found("damaged", str(faults).splitlines()[0], used=True)
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone() if "alembic_version" in tables else None
    revision = row[0] if row else None
    used = _holds_any(connection, tables)
    if revision is None and "alembic_version" in tables and used:
        return _Found("damaged", "it has no revision of its schema", used)
    if revision is not None and not _known(revision):
        return _Found("newer", revision=revision)
    if revision == _head():
        missing = sorted(_tables() - tables)
        if not missing:
            return _Found("current", revision=revision)
        return _Found("damaged", f"it has no table {missing[0]}", used, revision)
    # Without anything in it: the remains of a creation that was interrupted, or as good as a new one.
    return _Found("older" if used else "damaged", "its creation was interrupted", used, revision)


def _holds_any(connection: sqlite3.Connection, tables: set[str]) -> bool:
    """Return whether anybody has written to it. MLflow itself writes experiment 0, and its list of workspaces."""
    kept = {"runs": "1", "experiments": "experiment_id <> 0", "registered_models": "1"}
    return any(
        connection.execute(f"SELECT 1 FROM {table} WHERE {condition} LIMIT 1").fetchone()
        for table, condition in kept.items()
        if table in tables
    )


def _utils() -> Any:
    """Return MLflow's module of what it does to databases. `mlflow db upgrade` calls the same functions."""
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401  the tables' classes are complete only then
    from mlflow.store.db import utils

    return utils


def _tables() -> set[str]:
    return set(_utils().Base.metadata.tables)


def _head() -> str:
    """Return the revision of the installed MLflow's schema."""
    return str(_utils()._get_latest_schema_revision())


def _known(revision: str) -> bool:
    """Return whether the installed MLflow has that revision, of now or earlier."""
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    try:
        return ScriptDirectory.from_config(_utils()._get_alembic_config("")).get_revision(revision) is not None
    except CommandError:
        return False


def _version() -> str:
    import mlflow

    return str(mlflow.__version__)


# ------------------------------------------------------------------------------------------------- another in its place


def _replace(file: Path, new: Path, found: _Found, refill: Refill | None, warn: Callable[[str], object], fill: bool) -> None:
    """Put a new database in the place of one that is absent or damaged."""
    kept = _beside(file, "damaged") if found.used else None
    if kept and refill is None:
        raise TrackingError(
            f"{file} could not be opened: it is not a complete MLflow database ({found.why}). To start a new one: "
            f"{_move(file, kept)}; `sweeps sync NAME` then writes a sweep to it from the records"
        )
    if found.state == "damaged":
        keeps = f"It is kept as {kept.name}, and a new one" if kept else "A new one"
        warn(f"{file} is not a complete MLflow database ({found.why}). {keeps} is written from the records")
    _create(new)
    if refill is not None and (fill or found.state == "damaged"):
        refill(f"{SQLITE}{new}")
        close_connections(new)
    _publish(new, file, kept)


def _migrate(file: Path, new: Path, found: _Found, warn: Callable[[str], object]) -> None:
    """Put a migrated copy in the place of a database of an older schema, and keep it as it was."""
    utils = _utils()
    kept = _beside(file, f"backup-{found.revision or 'unversioned'}")
    with closing(_open(file)) as source:
        try:
            source.execute("PRAGMA journal_mode=DELETE")  # takes the write-ahead log into the file
            source.execute("BEGIN IMMEDIATE")  # nobody writes to it from here to the rename
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise
            raise TrackingError(
                f"{file} has an older schema (revision {found.revision}) than the installed MLflow {_version()}, and cannot be "
                "migrated while another program has it open, such as `sweeps ui`. End that program, then repeat this command"
            ) from error
        # Through another connection: SQLite copies no database to which the connection itself may be writing.
        with closing(_open(file)) as reader, closing(sqlite3.connect(new)) as copy:
            reader.backup(copy)
        try:
            engine = utils.create_sqlalchemy_engine(f"{SQLITE}{new}")
            try:
                utils._upgrade_db(engine)
            finally:
                engine.dispose()
            if (result := _inspect(new)).state != "current":
                raise TrackingError(result.why or f"its revision is {result.revision}")
        except Exception as error:
            if disk_full(error):
                raise
            raise TrackingError(
                f"{file} has an older schema (revision {found.revision}) than the installed MLflow {_version()}, and could not "
                f"be migrated: {_first_line(error)}. It is as it was. To start a new database: "
                f"{_move(file, _beside(file, 'older'))}; `sweeps sync NAME` then writes a sweep to it from the records"
            ) from error
        _publish(new, file, kept)
    warn(f"{file} was migrated to the schema of MLflow {_version()}; as it was before it is kept as {kept.name}")


def _create(new: Path) -> None:
    """Create MLflow's tables: in memory, since on a disk every one of its many steps waits for the disk."""
    utils = _utils()
    engine = utils.create_sqlalchemy_engine("sqlite:///:memory:")
    try:
        utils._initialize_tables(engine)
        pooled = engine.raw_connection()
        memory: Any = pooled.driver_connection
        with closing(sqlite3.connect(new)) as connection:
            memory.backup(connection)
        pooled.close()
    finally:
        engine.dispose()


def _publish(new: Path, file: Path, kept: Path | None) -> None:
    """Rename the new database to the file, durably. What the file was is then called `kept`."""
    with closing(sqlite3.connect(new)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")  # everything in one file
        if not network_file_system(file.parent):
            # Readers, such as the web pages, then do not wait for the writer, and a commit costs one sync instead of
            # three. The mode is kept in the file; the store's database uses the same.
            connection.execute("PRAGMA journal_mode=WAL")
    _sync(new)
    for ending in ("-wal", "-shm", "-journal"):
        # SQLite would take what belonged to the old file for changes to the new one.
        with contextlib.suppress(FileNotFoundError):
            if kept is None:
                Path(f"{file}{ending}").unlink()
            else:
                Path(f"{file}{ending}").rename(f"{kept}{ending}")
    if kept is not None:
        try:
            os.link(file, kept)  # the name `mlflow.db` is never without a file
        except OSError:
            shutil.copy2(file, kept)
    new.replace(file)
    _sync(file.parent)
    close_connections(file)


def close_connections(file: Path) -> None:
    """Close the connections that MLflow keeps in this process: they may be to a file that now has no name, or another one."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    with contextlib.suppress(AttributeError, KeyError):  # of a release that keeps none there
        engine = SqlAlchemyStore._engine_map[f"{SQLITE}{file}"]
        engine.dispose()


def _move(file: Path, aside: Path) -> str:
    """Return the command that renames a file."""
    return shlex.join(["mv", str(file), str(aside)])


def _beside(file: Path, what: str) -> Path:
    """Return a free name in the same folder, such as mlflow.db.damaged or mlflow.db.damaged-2."""
    return next(path for path in _names(file, what) if not path.exists())


def _names(file: Path, what: str) -> Iterator[Path]:
    yield file.with_name(f"{file.name}.{what}")
    number = 2
    while True:
        yield file.with_name(f"{file.name}.{what}-{number}")
        number += 1


def _open(file: Path) -> sqlite3.Connection:
    """Open an existing file, which `sqlite3.connect` would otherwise create."""
    return sqlite3.connect(f"{file.absolute().as_uri()}?mode=rw", uri=True, timeout=BUSY_TIMEOUT_S)


def _delete(file: Path) -> None:
    for ending in ("", "-wal", "-shm", "-journal"):
        Path(f"{file}{ending}").unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
