"""Runs that are inserted many at a time are those that MLflow's client writes: every table, row by row, column by column."""

from __future__ import annotations

import dataclasses
import re
import shutil
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from tracked import configuration, ranked, record, records_of, small_sweep

from sweeps.config.sweep_file import Sweep
from sweeps.errors import TrackingError
from sweeps.store.records import Stopped
from sweeps.tracking import Tracker
from sweeps.tracking.bulk import Bulk, _array, _lines, _validators
from sweeps.tracking.client import _engine, prepare

CREATED = "2026-01-02T03:04:05+00:00"
CLOCKS = {"start_time", "end_time", "creation_time", "last_update_time"}
"""Columns that are read from the clock. The timestamps of metrics are not."""
WORDS = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=20)


def write(uri: str, sweep: Sweep) -> None:
    """Write what a sweep's life has: lanes one by one, a stop, another driver, more seeds and steps, errors, ranks."""
    tracker = Tracker(uri, sweep, created=CREATED)
    tracker.begin()
    one, other = configuration(sweep, 0, 1), configuration(sweep, 1, 0)
    tracker.start(one)
    tracker.lanes(one, [record(one, 0)])
    tracker.lanes(one, [record(one, 1, "error", reason='it\'s "quoted" \\ in {braces}, NULL')])
    tracker.finish("stopped")
    tracker = Tracker(uri, sweep, created=CREATED)
    tracker.begin()
    tracker.start(one)
    tracker.lanes(one, [record(one, 1)])  # in place of its error
    tracker.complete(ranked(dataclasses.replace(one, state="complete"), records_of(one)[:2]))
    tracker.complete(ranked(dataclasses.replace(one, state="complete"), records_of(one), rank=1))
    longer = dataclasses.replace(one, settings={**one.settings, "train": {**one.settings["train"], "steps": 9000}})
    tracker.lanes(longer, [record(one, 1, budget=9000, steps=9000)])
    steps = list(range(700))
    columns = {f"error.split{i}": [1.0 / (1 + step) for step in steps] for i in range(8)}
    settings = {**other.settings, "task": {**other.settings["task"], **{f"x{i}": f'\\ "{i}" {{}} é' for i in range(120)}}}
    stopped = dataclasses.replace(
        other, settings=settings, state="pruned", stopped=Stopped(1, 3000, "par2 is worse than that of #0")
    )
    many = record(stopped, 0, curve={"step": steps, "error.extrapolation": [1.0] * 700, **columns})
    tracker.complete(ranked(stopped, [many]))
    tracker.rank({(one.cell, 1): 2, (other.cell, 0): 1})
    tracker.finish("done", "| table |", {(one.cell, 1): 1, (other.cell, 0): 2})
    everything = [ranked(dataclasses.replace(longer, state="complete"), records_of(one), rank=1)]
    Tracker(uri, sweep, created=CREATED).sync(everything, "done", "| table |")


Tables = dict[str, Counter[tuple[Any, ...]]]


def tables(uri: str, folder: Path) -> Tables:
    """Every row of every table, where a run's id is its place in the sweep, and clocks only say whether they are set."""
    engine = sa.create_engine(uri)
    with engine.connect() as connection:
        schema = sa.MetaData()
        schema.reflect(connection)
        tags: dict[str, dict[str, str]] = {}
        for id_, key, value in connection.execute(sa.text("SELECT run_uuid, key, value FROM tags")):
            tags.setdefault(id_, {})[key] = value
        places = {
            id_: "/".join(of.get(key, "") for key in ("level", "cell", "configuration", "seed")) for id_, of in tags.items()
        }

        def plain(name: str, value: Any) -> Any:
            if name in CLOCKS:
                return value is not None
            if not isinstance(value, str):
                return value
            return re.sub(r"[0-9a-f]{32}", lambda found: places.get(found[0], found[0]), value.replace(str(folder), "FOLDER"))

        found = {
            table.name: Counter(
                tuple(plain(column.name, value) for column, value in zip(table.columns, row, strict=True))
                for row in connection.execute(sa.select(*table.columns))
            )
            for table in schema.sorted_tables
        }
    engine.dispose()
    return found


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new mlflow.db, made once: that takes a second."""
    file = tmp_path_factory.mktemp("empty") / "mlflow.db"
    prepare(f"sqlite:///{file}")
    return file


@pytest.fixture
def uri(empty: Path, tmp_path: Path) -> str:
    return f"sqlite:///{shutil.copy(empty, tmp_path)}"


@pytest.fixture(scope="module")
def by_client(empty: Path, tmp_path_factory: pytest.TempPathFactory) -> Tables:
    folder = tmp_path_factory.mktemp("client")
    shutil.copy(empty, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sweeps.tracking.bulk.TESTED", frozenset())
        write(f"sqlite:///{folder}/mlflow.db", small_sweep())
    found = tables(f"sqlite:///{folder}/mlflow.db", folder)
    assert found["metrics"].total() > 300 and found["params"].total() > 200 and found["runs"].total() == 7
    return found


def test_sqlite_has_the_rows_of_mlflow_s_client(uri: str, tmp_path: Path, by_client: Tables) -> None:
    write(uri, small_sweep())
    ours = tables(uri, tmp_path)
    for name, rows in by_client.items():
        assert ours[name] == rows, name


@pytest.mark.slow
def test_postgresql_has_the_rows_of_mlflow_s_client(
    new_database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, by_client: Tables
) -> None:
    """Its client writes the same rows into PostgreSQL as into SQLite, except where artifacts are."""
    monkeypatch.chdir(tmp_path)
    uri = new_database.replace("postgresql://", "postgresql+psycopg://")
    write(uri, small_sweep())
    ours = tables(uri, tmp_path)
    for name in ("tags", "params", "metrics", "latest_metrics", "experiment_tags"):
        assert ours[name] == by_client[name], name
    [artifacts] = {str(row[2]) for row in ours["experiments"] if row[1] == "small"}
    runs = Counter({tuple("FOLDER" if "/artifacts" in str(v) else v for v in row): n for row, n in ours["runs"].items()})
    assert runs == Counter(
        {tuple("FOLDER" if "/artifacts" in str(v) else v for v in row): n for row, n in by_client["runs"].items()}
    )
    assert all(any(f"{artifacts}/" in str(value) for value in row) for row in ours["runs"])


def test_a_transaction_that_fails_writes_nothing_and_is_repeated_as_a_whole(uri: str, tmp_path: Path) -> None:
    sweep = small_sweep()
    tracker = Tracker(uri, sweep, created=CREATED)
    tracker.begin()
    one = configuration(sweep, state="complete")

    def count() -> int:
        with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection:
            return int(connection.execute("SELECT count(*) FROM runs").fetchone()[0])

    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection:
        connection.execute("CREATE TRIGGER full BEFORE INSERT ON latest_metrics BEGIN SELECT RAISE (ABORT, 'full'); END")
    with pytest.raises(TrackingError, match="could not write 4 runs: .*full"):
        tracker.complete(ranked(one, records_of(one)))
    assert count() == 1
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection:
        connection.execute("DROP TRIGGER full")
    tracker.complete(ranked(one, records_of(one)))
    assert count() == 5


def test_two_processes_that_write_the_same_sweep_write_it_once(uri: str, tmp_path: Path) -> None:
    sweep = small_sweep()
    one = configuration(sweep, state="complete")
    first, second = (Tracker(uri, sweep, created=CREATED) for _ in range(2))
    first.begin(), second.begin()
    for tracker in (first, second):  # the second one has listed the runs before the first one wrote them
        tracker.complete(ranked(one, records_of(one)))
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection:
        assert connection.execute("SELECT count(*) FROM runs").fetchone() == (5,)


@pytest.mark.slow
def test_two_processes_write_the_same_sweep_into_postgresql_once_and_each_run_whole(new_database: str, tmp_path: Path) -> None:
    uri, sweep = new_database.replace("postgresql://", "postgresql+psycopg://"), small_sweep()
    one, other = (configuration(sweep, cell, state="complete") for cell in (0, 1))
    first, second = (Tracker(uri, sweep, created=CREATED) for _ in range(2))
    first.begin(), second.begin()
    first.complete(ranked(one, records_of(one)))
    before = tables(uri, tmp_path)
    with second.together():  # half of its runs are there by now
        second.complete(ranked(one, records_of(one)))
        second.complete(ranked(other, records_of(other)))
    after = tables(uri, tmp_path)
    for name in ("runs", "tags", "params", "metrics", "latest_metrics"):
        assert before[name] <= after[name], name
    assert after["runs"].total() == 9
    assert after["metrics"].total() == 2 * before["metrics"].total()


def test_another_database_and_another_revision_are_left_to_the_client(uri: str) -> None:
    engine = sa.create_engine(uri)
    assert Bulk.supports(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'another'")
    assert not Bulk.supports(engine)
    assert not Bulk.supports(sa.create_mock_engine("mysql://", lambda *_: None))  # type: ignore[arg-type]
    engine.dispose()


def test_where_mlflow_s_own_functions_have_other_names_its_client_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from mlflow.utils import validation

    with monkeypatch.context() as patch:
        patch.delattr(SqlAlchemyStore, "_get_or_create_engine")
        assert _engine("sqlite://") is None
    _validators.cache_clear()
    monkeypatch.delattr(validation, "_validate_tag")
    assert not Bulk.supports(sa.create_engine("sqlite://"))


@given(st.lists(st.tuples(WORDS, st.floats(allow_nan=False), st.booleans()), min_size=1))
def test_postgresql_reads_the_lines_of_a_copy_as_the_rows_were(rows: list[tuple[str, float, bool]]) -> None:
    escapes = {"\\": "\\", "t": "\t", "n": "\n", "r": "\r"}
    lines = _lines(rows).split("\n")
    assert lines.pop() == ""
    found = [[re.sub(r"\\(.)", lambda pair: escapes[pair[1]], value) for value in line.split("\t")] for line in lines]
    assert [(word, float(number), kind == "True") for word, number, kind in found] == rows


@given(st.lists(WORDS, min_size=1))
def test_postgresql_reads_the_text_of_an_array_as_it_was(values: list[str]) -> None:
    text, found, position = _array(values), [], 1
    while position < len(text) - 1:  # PostgreSQL's rule: within quotes a backslash takes the next character as it is
        assert text[position] == '"'
        position, word = position + 1, ""
        while text[position] != '"':
            position += text[position] == "\\"
            word, position = word + text[position], position + 1
        found.append(word)
        position += 2 if text[position + 1] == "," else 1
    assert found == values
