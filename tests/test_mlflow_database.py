"""MLflow's database is complete or as it was: after a kill, on a full disk, with another schema, with two drivers at once."""

from __future__ import annotations

import contextlib
import logging
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from commands import Start, call, output_line, proceed, train_in_process
from made_sweep import DOCUMENT, made_sweep
from tracked import configuration, ranked, records_of, small_sweep

from sweeps.config.sweep_file import parse
from sweeps.errors import TrackingError
from sweeps.runner.driver import Driver
from sweeps.store import Store
from sweeps.tracking import Tracker
from sweeps.tracking.client import prepare

CREATED = "2026-01-02T03:04:05+00:00"
MIDDLE = "0584bdc529eb"
"""A schema revision of MLflow 2."""

# Each child forks once MLflow is imported. It is killed when it executes its Nth statement, or calls a function.
KILLED = """
import os, signal, sys
from pathlib import Path
import sqlalchemy as sa
import mlflow.store.tracking.sqlalchemy_store
from sweeps.tracking import database
from sweeps.tracking.client import prepare

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def at_statement(number):
    left = [number]
    def count(*_):
        left[0] -= 1
        if left[0] == 0:
            die()
    sa.event.listen(sa.engine.Engine, "before_cursor_execute", count)

def at_call(name):
    setattr(database, name, die)

def at_rename(_):
    Path.replace = die

moments = [(at_statement, 1), (at_statement, 300), (at_call, "_publish"), (at_call, "_sync"), (at_rename, 0)]
file = Path(sys.argv[1]) / "mlflow.db"
for prepare_kill, what in moments:
    child = os.fork()
    if child == 0:
        prepare_kill(what)
        prepare(f"sqlite:///{file}")
        os._exit(7)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, (what, status)
    assert not file.exists(), what
"""


@pytest.fixture(scope="module")
def with_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with the runs of `small_sweep`, closed."""
    file = tmp_path_factory.mktemp("mlflow") / "source.db"
    sweep = small_sweep()
    one = configuration(sweep, state="complete")
    Tracker(f"sqlite:///{file}", sweep, created=CREATED).sync([ranked(one, records_of(one))], "done")
    disconnect(file)
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
    return file


def disconnect(file: Path) -> None:
    """Close the connections that MLflow keeps in this process, so that its file may be replaced."""
    from sweeps.tracking.database import close_connections

    close_connections(file)


@pytest.fixture
def two_sweeps(tmp_path: Path) -> Path:
    """A store with the sweeps `small` and `other`."""
    with Store(tmp_path / "results") as store:
        made_sweep(store)
        store.begin_sweep("other", "name: other\n", {**DOCUMENT, "name": "other"})
    return tmp_path / "results"


def rows(file: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(file)) as connection:
        return connection.execute(query).fetchall()


def run_names(file: Path, experiment: str = "small") -> list[str]:
    query = "SELECT runs.name FROM runs JOIN experiments USING (experiment_id) WHERE experiments.name = '{}' ORDER BY 1"
    return [name for (name,) in rows(file, query.format(experiment))]


def at_revision(file: Path, revision: str, statements: str = "") -> None:
    """Make the database that MLflow has at an older revision of its schema."""
    from alembic import command
    from mlflow.store.db import utils

    engine = utils.create_sqlalchemy_engine(f"sqlite:///{file}")
    utils.InitialBase.metadata.create_all(engine)
    config = utils._get_alembic_config(f"sqlite:///{file}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    engine.dispose()
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(statements)


ONE_RUN = """
    INSERT INTO experiments (experiment_id, name, lifecycle_stage) VALUES (7, 'theirs', 'active');
    INSERT INTO runs (run_uuid, name, experiment_id, status, lifecycle_stage, source_type)
    VALUES ('abc', 'mine', 7, 'FINISHED', 'active', 'LOCAL');
"""


@contextlib.contextmanager
def largest_file(num_bytes: int) -> Iterator[None]:
    """Refuse writes beyond this size to this process, as a disk that is full does. Needs no root."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_process_that_is_killed_while_it_creates_the_database_leaves_none(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    prepare(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert rows(tmp_path / "mlflow.db", "PRAGMA journal_mode") == [("wal",)]
    assert {path.name for path in tmp_path.iterdir()} == {"mlflow.db", "mlflow.db.lock"}


def test_a_disk_that_is_full_leaves_no_database_and_one_line(tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    with (
        largest_file(300_000),
        pytest.raises(TrackingError, match=f"MLflow at sqlite:///{file} could not be opened: .") as error,
    ):
        prepare(f"sqlite:///{file}")
    assert "\n" not in str(error.value)
    assert {path.name for path in tmp_path.iterdir()} <= {"mlflow.db.lock"}
    prepare(f"sqlite:///{file}")
    assert rows(file, "SELECT count(*) FROM runs") == [(0,)]


def test_a_disk_that_fills_while_runs_are_written_costs_no_run_and_doubles_none(
    two_sweeps: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = two_sweeps / "mlflow.db"
    prepare(f"sqlite:///{file}")
    with largest_file(100_000):  # of the write-ahead log
        answer = call("sync", "small", "--store", str(two_sweeps))
    assert answer.status == 1 and answer.err.count("\n") == 1 and "MLflow at sqlite:" in answer.err
    assert capfd.readouterr() == ("", ""), "nothing of MLflow's own"
    missing = 17 - len(run_names(file))
    assert missing > 0
    for rest in (f"{missing} written now", "complete"):
        assert call("sync", "small", "--store", str(two_sweeps)).out == f"small: 17 runs in sqlite:///{file}, {rest}\n"
    assert len(run_names(file)) == len(set(rows(file, "SELECT key, value, run_uuid FROM tags WHERE key = 'digest'"))) == 17


def empty_file(file: Path) -> None:
    file.write_bytes(b"")


def interrupted(file: Path) -> None:
    """What an earlier release left when it was killed: a table of the next revision is there already."""
    at_revision(file, MIDDLE, "CREATE TABLE logged_models (id INTEGER)")


def without_revision(file: Path) -> None:
    at_revision(file, MIDDLE, "DROP TABLE alembic_version")


def without_a_table(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("DROP TABLE metrics")


def without_its_revision(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript("DELETE FROM alembic_version")


def cut_off(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.truncate(file.stat().st_size // 2)


def overwritten(file: Path) -> None:
    file.write_text("not a database, but long enough to be taken for one" * 100)


@pytest.mark.parametrize(
    ("damage", "before", "kept"),
    [
        (empty_file, False, False), (interrupted, False, False), (without_revision, False, False),
        (without_a_table, True, True), (without_its_revision, True, True), (cut_off, True, True), (overwritten, True, True),
    ],
)  # fmt: skip
def test_a_broken_database_is_replaced_and_has_the_runs_of_all_sweeps_again(
    two_sweeps: Path, with_runs: Path, damage: Callable[[Path], None], before: bool, kept: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    file = two_sweeps / "mlflow.db"
    if before:
        shutil.copy(with_runs, file)
    damage(file)
    broken = file.read_bytes()
    with caplog.at_level(logging.WARNING):
        answer = call("sync", "other", "--store", str(two_sweeps))
    assert answer.status == 0, answer.err
    assert len(run_names(file, "small")) == 17 and run_names(file, "other") == ["other"]
    [warning] = [record.getMessage() for record in caplog.records]
    assert f"{file} is not a complete MLflow database" in warning and ("It is kept as mlflow.db.damaged" in warning) is kept
    assert (file.with_name("mlflow.db.damaged").read_bytes() if kept else broken) == broken
    left = {path.name for path in two_sweeps.iterdir() if path.name.startswith("mlflow.db.")}
    assert left == {"mlflow.db.lock", *(["mlflow.db.damaged"] if kept else [])}


@pytest.mark.parametrize("statement", ["TRIGGER t AFTER INSERT ON runs BEGIN DELETE FROM metrics; END", "VIEW v AS SELECT 1"])
def test_a_database_with_another_s_sql_in_it_is_refused(two_sweeps: Path, with_runs: Path, statement: str) -> None:
    file = two_sweeps / "mlflow.db"
    shutil.copy(with_runs, file)
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(f"CREATE {statement}")
    for verb in (["sync", "small"], ["ui"]):
        answer = call(*verb, "--store", str(two_sweeps))
        assert answer.status == 2 and f"{file} is refused: it has what MLflow does not make: " in answer.err
    assert len(rows(file, "SELECT 1 FROM sqlite_master WHERE name IN ('t', 'v')")) == 1, "it is as it was"


def test_a_folder_in_the_place_of_the_database_is_named(two_sweeps: Path) -> None:
    (two_sweeps / "mlflow.db").mkdir()
    answer = call("sync", "small", "--store", str(two_sweeps))
    assert answer.status == 2 and "mlflow.db is not a file: move it away" in answer.err


def test_a_broken_database_stays_until_the_new_one_is_written(two_sweeps: Path, with_runs: Path) -> None:
    file = two_sweeps / "mlflow.db"
    overwritten(file)
    broken = file.read_bytes()
    with largest_file(100_000):
        assert call("sync", "small", "--store", str(two_sweeps)).status == 1
    assert file.read_bytes() == broken and not file.with_name("mlflow.db.damaged").exists()


def test_an_older_schema_is_migrated_with_its_runs_and_kept_beside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file, kept = tmp_path / "mlflow.db", tmp_path / f"mlflow.db.backup-{MIDDLE}"
    at_revision(file, MIDDLE, ONE_RUN + "PRAGMA journal_mode=WAL;")
    with caplog.at_level(logging.WARNING):
        prepare(f"sqlite:///{file}")
    assert run_names(file, "theirs") == run_names(kept, "theirs") == ["mine"]
    assert rows(kept, "SELECT version_num FROM alembic_version") == [(MIDDLE,)]
    assert [record.getMessage().partition("; ")[2] for record in caplog.records] == [
        f"as it was before it is kept as {kept.name}"
    ]
    sweep = small_sweep()
    Tracker(f"sqlite:///{file}", sweep, created=CREATED).begin()
    assert run_names(file) == ["small"]


def test_an_older_schema_that_cannot_be_migrated_stays_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    at_revision(file, MIDDLE, ONE_RUN + "CREATE TABLE logged_models (id INTEGER);")
    before = file.read_bytes()
    with pytest.raises(TrackingError, match=rf"logged_models already exists.*mv {file} {file}.older; `sweeps sync NAME`"):
        prepare(f"sqlite:///{file}")
    assert file.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"mlflow.db", "mlflow.db.lock"}


def test_an_older_schema_is_not_migrated_while_another_program_has_it_open(tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    at_revision(file, MIDDLE, ONE_RUN + "PRAGMA journal_mode=WAL;")
    with closing(sqlite3.connect(file)) as other:
        other.execute("BEGIN")
        assert other.execute("SELECT name FROM runs").fetchall() == [("mine",)]
        with pytest.raises(TrackingError, match="another program has it open"):
            prepare(f"sqlite:///{file}")
    prepare(f"sqlite:///{file}")


def test_a_newer_schema_is_one_sentence_and_the_sweep_ends_as_without_mlflow(
    folder: Path, with_runs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sweep = parse("name: short\ntask: static\nmodel: nau\ntrain: {steps: 10, evaluate_every: 10}\n", "short.yaml")
    with Store("results") as store, store.hold("short"):
        store.begin_sweep("short", sweep.text, sweep.document)
        driver = Driver(sweep, "short", store, None, 1)
        driver.begin()
        train_in_process(driver)
    file = folder / "results" / "mlflow.db"
    shutil.copy(with_runs, file)
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
        connection.commit()
    before = file.read_bytes()
    for verb in (["sync", "short"], ["ui"]):
        answer = call(*verb)
        assert answer.status == 2 and answer.err.count("\n") == 1
        assert "pip install --upgrade mlflow" in answer.err and f"mv {file} {file}.newer" in answer.err
    with caplog.at_level(logging.WARNING):
        answer = call("run", "short")
    assert answer.status == 0, answer.err
    assert [record.getMessage()[:30] for record in caplog.records] == ["MLflow is not written any more"]
    assert file.read_bytes() == before


BEGINS = """
import sys, mlflow.store.tracking.sqlalchemy_store
from sweeps.config.sweep_file import parse
from sweeps.tracking import Tracker
uri, name, created = sys.argv[2:]
sweep = parse(f"name: {name}\\ntask: static\\nmodel: nau\\ntrain: {{steps: 10}}\\n", "o.yaml")
print("ready", flush=True)
sys.stdin.readline()
Tracker(uri, sweep, created=created).begin()
print("begun", flush=True)
"""


def begin_two_at_once(python: Start, uri: str) -> None:
    processes = [python(BEGINS, uri, name, f"2026-01-0{day}T03:04:05+00:00") for day, name in ((1, "one"), (2, "two"))]
    assert [output_line(process) for process in processes] == ["ready", "ready"]
    for process in processes:
        proceed(process)
    assert [output_line(process) for process in processes] == ["begun", "begun"]


@pytest.mark.slow
@pytest.mark.parametrize("where", ["folder"], indirect=True)
def test_two_sweeps_that_begin_at_once_share_one_new_database(python: Start, tmp_path: Path) -> None:
    begin_two_at_once(python, f"sqlite:///{tmp_path / 'new' / 'mlflow.db'}")
    assert [run_names(tmp_path / "new" / "mlflow.db", name) for name in ("one", "two")] == [["one"], ["two"]]


@pytest.mark.slow
@pytest.mark.parametrize("where", ["postgresql"], indirect=True)
def test_a_schema_in_a_server_is_created_once_and_never_migrated(python: Start, where: str) -> None:
    import psycopg

    uri = where.replace("postgresql://", "postgresql+psycopg://")
    begin_two_at_once(python, uri)
    with psycopg.connect(where, autocommit=True) as connection:
        assert connection.execute("SELECT name FROM runs ORDER BY 1").fetchall() == [("one",), ("two",)]
        connection.execute("UPDATE alembic_version SET version_num = %s", [MIDDLE])
        connection.execute("DROP TABLE job_locks")
        with pytest.raises(TrackingError, match="Make a backup, then: mlflow db upgrade") as error:
            prepare(uri)
        assert f"mlflow db upgrade '{uri}'" in str(error.value)
        secret = uri.replace("//postgres:@", "//postgres:p%40ss@")
        with pytest.raises(TrackingError, match="Make a backup") as error:
            prepare(secret)
        assert f"mlflow db upgrade '{uri.replace('//postgres:@', '//postgres:***@')}'" in str(error.value)
        assert connection.execute("SELECT to_regclass('job_locks')").fetchall() == [(None,)], "MLflow itself would migrate it"
        connection.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
        with pytest.raises(TrackingError, match="pip install --upgrade mlflow"):
            prepare(uri)
