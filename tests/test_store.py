"""The store: round trips, durability, concurrent processes, and refusals with their messages."""

from __future__ import annotations

import math
import os
import signal
import sqlite3
import struct
import tempfile
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import sqlalchemy as sa
from commands import Start, proceed
from hypothesis import given, settings
from hypothesis import strategies as st
from made_sweep import BUDGET, made_sweep

from sweeps.errors import StoreError
from sweeps.store import Store
from sweeps.store.curves import pack, unpack
from sweeps.store.database import _engine
from sweeps.store.location import masked
from sweeps.store.records import Configuration
from sweeps.tracking.client import without_password
from sweeps.training.lane import Checkpoint, LaneResult


def record(key: str = "k", budget: int = 1000, **chosen: Any) -> LaneResult:
    values: dict[str, Any] = {"seed": 0, "steps": budget, "outcome": "unsolved"} | chosen
    return LaneResult(key=key, budget=budget, solved=values["outcome"] == "solved", **values)


def configuration(cell: str = "model=nau", number: int = 0, **chosen: Any) -> Configuration:
    values: dict[str, Any] = {"parameters": {}, "settings": {"train": {"lr": 1e-3}}, "keys": {0: "k0", 1: "k1"}}
    return Configuration(cell=cell, labels={"model": "nau"}, number=number, **values | chosen)


# Round trips

finite = st.floats(allow_nan=False, allow_infinity=False)
column = st.one_of(
    st.lists(finite | st.none()),
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False) | st.none()),
    st.lists(st.integers()),
    st.lists(st.integers() | finite | st.none() | st.text()),
)


@given(st.dictionaries(st.text(), column))
def test_a_curve_comes_back_as_it_was_to_the_last_bit_and_type(curve: dict[str, list[Any]]) -> None:
    assert repr(unpack(pack(curve))) == repr(curve)


def test_values_of_a_curve_that_are_not_finite_are_read_as_none() -> None:
    assert unpack(pack({"error": [1.5, math.nan, math.inf, -math.inf]})) == {"error": [1.5, None, None, None]}


def test_a_curve_of_5000_points_takes_less_than_60_kilobytes() -> None:
    errors = [math.exp(-i / 250) * (1 + 0.1 * math.sin(i * i)) for i in range(5000)]
    errors = list(struct.unpack("5000f", struct.pack("5000f", *errors)))  # computed in float32, as in training
    curve: dict[str, list[Any]] = {"step": list(range(0, 5_000_000, 1000)), "a": errors, "b": errors[::-1], "c": errors}
    assert len(pack(curve)) < 60_000
    assert unpack(pack(curve)) == curve


records_of_any_kind = st.builds(
    record,
    key=st.text("0123456789abcdef", min_size=1),
    budget=st.integers(0, 2**60),
    seed=st.integers(0, 2**60),
    steps=st.integers(0, 2**60),
    outcome=st.sampled_from(["solved", "unsolved", "diverged", "error"]),
    converged_at=st.none() | st.integers(0, 2**60),
    sparsity_error=st.none() | finite.map(abs),
    error=st.dictionaries(st.text(), st.none() | finite),
    threshold=st.none() | finite.map(abs),
    reason=st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    curve=st.dictionaries(st.text(), column),
    wall_time_s=finite.map(abs),
    provenance=st.dictionaries(st.text(), st.text()),
    state=st.none() | st.binary(),
)


@settings(max_examples=30, deadline=None)
@given(st.lists(records_of_any_kind, max_size=5, unique_by=lambda r: r.id))
def test_records_are_read_as_they_were_written(new: list[LaneResult]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        with Store(folder) as first:
            first.add_records(new)
        with Store(folder) as again:
            found = again.records(r.id for r in new)
            assert repr(list(found.values())) == repr([replace(r, state=None) for r in new])
            assert [again.state(*r.id) for r in new] == [r.state for r in new]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=30, deadline=None)
@given(
    parameters=st.dictionaries(st.text(), json_values),
    keys=st.dictionaries(st.integers(0, 2**60), st.text("0123456789abcdef", min_size=1)),
    value=st.none() | finite,
)
def test_configurations_are_read_as_they_were_written(parameters: dict[str, Any], keys: dict[int, str], value: Any) -> None:
    added = configuration(parameters=parameters, settings=parameters, keys=keys, origin="model")
    with tempfile.TemporaryDirectory() as folder, Store(folder) as store:
        store.begin_sweep("s", "name: s", parameters)
        assert store.add_configuration("s", added) == added
        store.finish_configuration("s", added.cell, added.number, "complete", value)
        assert store.configurations("s") == [replace(added, state="complete", value=value)]
        sweep = store.sweep("s")
        assert sweep is not None and repr(sweep.document) == repr(parameters)


def test_nan_figures_of_a_record_are_kept_as_none(store: Store) -> None:
    nan = math.nan
    store.add_records([record(sparsity_error=nan, threshold=math.inf, error={"interpolation": nan, "x": 0.1})])
    found = store.records([("k", 1000)])["k", 1000]
    assert (found.sparsity_error, found.threshold, found.error) == (None, None, {"interpolation": None, "x": 0.1})


def test_numbers_of_numpy_are_kept_as_numbers(store: Store) -> None:
    import numpy as np

    store.add_records([record(steps=np.int64(7), sparsity_error=np.float32(0.5))])
    found = store.records([("k", 1000)])["k", 1000]
    assert (found.steps, found.sparsity_error) == (7, 0.5)


def test_a_reason_that_no_database_can_store_is_kept_escaped(store: Store) -> None:
    store.add_records([record(outcome="error", reason="file\0name \udcff")])
    assert store.records([("k", 1000)])["k", 1000].reason == "file\\0name \\udcff"


# Nothing is overwritten


def test_a_record_that_is_there_wins_over_a_later_one(store: Store) -> None:
    store.add_records([record(steps=10, wall_time_s=1.0)])
    store.add_records([record(steps=20, wall_time_s=2.0), record("other")])
    assert store.records([("k", 1000)])["k", 1000].wall_time_s == 1.0
    assert len(store.records([("k", 1000), ("other", 1000)])) == 2


def test_an_error_is_replaced_by_a_later_record(store: Store) -> None:
    store.add_records([record(outcome="error", reason="worker lost")])
    store.add_records([record(outcome="solved", converged_at=500, state=b"weights")])
    store.add_records([record(outcome="error", reason="late news")])
    found = store.records([("k", 1000)])["k", 1000]
    assert (found.outcome, found.reason, found.converged_at) == ("solved", None, 500)
    assert store.state("k", 1000) == b"weights"


def test_one_lane_has_a_record_for_every_budget(store: Store) -> None:
    store.add_records([record(budget=1000), record(budget=2000)])
    assert list(store.records([("k", 2000), ("k", 3000), ("k", 1000)])) == [("k", 2000), ("k", 1000)]


def test_a_sweep_of_a_taken_name_cannot_begin(store: Store) -> None:
    store.begin_sweep("mine", "name: mine", {"name": "mine"})
    with pytest.raises(StoreError, match="has a sweep named 'mine' already.*--name"):
        store.begin_sweep("mine", "other text", {})
    sweep = store.sweep("mine")
    assert sweep is not None and sweep.definition == "name: mine"


def test_a_stored_configuration_is_never_overwritten(store: Store) -> None:
    store.begin_sweep("s", "", {})
    first = store.add_configuration("s", configuration(parameters={"train.lr": 0.1}))
    assert store.add_configuration("s", configuration(parameters={"train.lr": 0.2}, keys={5: "k5"})) == first
    assert store.configurations("s") == [first]


def test_configurations_are_ordered_by_first_appearance_of_their_cell_then_number(store: Store) -> None:
    store.begin_sweep("s", "", {})
    for cell, number in [("z", 1), ("a", 0), ("z", 0), ("a", 2), ("a", 1)]:
        store.add_configuration("s", configuration(cell, number))
    assert [(c.cell, c.number) for c in store.configurations("s")] == [("z", 0), ("z", 1), ("a", 0), ("a", 1), ("a", 2)]


def test_more_seeds_make_a_finished_configuration_run_again(store: Store) -> None:
    store.begin_sweep("s", "", {})
    store.add_configuration("s", configuration())
    store.finish_configuration("s", "model=nau", 0, "complete", 3.5)
    assert store.add_seeds("s", "model=nau", 0, {0: "k0"}).state == "complete"
    extended = store.add_seeds("s", "model=nau", 0, {1: "k1", 2: "k2"})
    assert (extended.state, extended.value) == ("running", None)
    assert extended.keys == {0: "k0", 1: "k1", 2: "k2"}


def test_a_seed_that_became_another_lane_is_refused(store: Store) -> None:
    store.begin_sweep("s", "", {})
    added = store.add_configuration("s", configuration())
    with pytest.raises(StoreError, match=r"seeds \[1\] are other lanes"):
        store.add_seeds("s", "model=nau", 0, {1: "changed", 2: "k2"})
    assert store.configurations("s") == [added]


def test_a_sweep_has_state_and_an_edited_definition(store: Store) -> None:
    began = store.begin_sweep("s", "a", {"seeds": 1})
    store.set_state("s", "done")
    store.update_definition("s", "b", {"seeds": 2})
    sweep = store.sweep("s")
    assert sweep is not None
    assert (sweep.state, sweep.definition, sweep.document) == ("done", "b", {"seeds": 2})
    assert sweep.created == began.created < sweep.updated
    assert store.sweeps() == [sweep] and store.sweep("other") is None


# Checkpoints


def test_the_furthest_state_within_the_budget_is_where_a_lane_goes_on(store: Store) -> None:
    store.add_records([record(budget=1000, state=b"at 1000", curve={"step": [0]}), record("bare", budget=1000)])
    store.save_checkpoints({"k": Checkpoint(1500, b"at 1500"), "new": Checkpoint(300, b"at 300")})
    found = store.checkpoints(["new", "k", "bare", "unknown"], at_most_steps=2000)
    assert {key: (c.steps, c.state) for key, c in found.items()} == {"new": (300, b"at 300"), "k": (1500, b"at 1500")}
    earlier = store.checkpoints(["k", "new"], at_most_steps=1200)
    assert earlier == {"k": Checkpoint(1000, b"at 1000"), "new": Checkpoint(300, b"at 300")}
    assert store.checkpoints(["k", "new"], at_most_steps=200) == {}


def test_a_late_checkpoint_does_not_replace_a_further_one(store: Store) -> None:
    store.save_checkpoints({"k": Checkpoint(500, b"500")})
    store.save_checkpoints({"k": Checkpoint(400, b"400")})
    assert store.checkpoints(["k"], 1000)["k"].state == b"500"


def test_a_record_drops_the_checkpoints_that_it_overtakes_and_no_others(store: Store) -> None:
    store.save_checkpoints({"k": Checkpoint(500, b"500"), "longer": Checkpoint(1500, b"1500"), "e": Checkpoint(500, b"500")})
    store.add_records([record("k"), record("longer"), record("e", outcome="error", state=b"broken")])
    found = store.checkpoints(["k", "longer", "e"], 2000)
    assert {key: c.state for key, c in found.items()} == {"longer": b"1500", "e": b"500"}


# Durable, concurrent, quick


def test_a_batch_survives_a_kill_right_after_it_was_added(where: str, python: Start) -> None:
    code = """
import os, signal, sys
from sweeps.training.lane import Checkpoint, LaneResult
from sweeps.store import Store
store = Store(sys.argv[1])
store.add_records([LaneResult(key=f"k{i}", seed=i, budget=9, steps=9, outcome="unsolved", solved=False, state=b"s")
                   for i in range(100)])
os.kill(os.getpid(), signal.SIGKILL)
"""
    process = python(code)
    assert process.wait(60) == -signal.SIGKILL
    with Store(where) as store:
        assert len(store.records((f"k{i}", 9) for i in range(100))) == 100


def test_a_batch_is_written_whole_or_not_at_all(store: Store) -> None:
    with pytest.raises(StoreError, match="too large|out of range"):
        store.add_records([record("fine"), record("impossible", seed=2**70)])
    assert store.records([("fine", 1000)]) == {}
    store.add_records([record("fine")])


def test_processes_that_open_a_new_store_at_once_all_get_it(where: str, python: Start) -> None:
    code = """
import sys, time
from sweeps.training.lane import Checkpoint, LaneResult
from sweeps.store import Store
sys.stdin.readline()
store = Store(sys.argv[1])
store.add_records([LaneResult(key=sys.argv[2], seed=0, budget=1, steps=1, outcome="unsolved", solved=False)])
"""
    processes = [python(code, i) for i in range(4)]
    time.sleep(0.5)
    for process in processes:
        proceed(process)
    assert [process.wait(60) for process in processes] == [0, 0, 0, 0]
    with Store(where) as store:
        assert len(store.records((str(i), 1) for i in range(4))) == 4


def test_threads_of_a_driver_may_share_a_store(store: Store) -> None:
    def work(thread: int) -> int:
        for i in range(10):
            store.add_records([record(f"{thread}-{i}")])
            assert store.records([(f"{thread}-{i}", 1000)])
        return len(store.records((f"{thread}-{i}", 1000) for i in range(10)))

    with ThreadPoolExecutor(6) as threads:
        assert list(threads.map(work, range(6))) == [10] * 6


def test_ten_thousand_records_are_read_back_with_few_queries(store: Store) -> None:
    errors = [0.1 * 0.7**i for i in range(20)]
    curve = {"step": list(range(0, 20_000, 1000)), "error.interpolation": errors, "error.extrapolation": errors}
    new = [record(f"{i:064x}", 20_000, curve=curve, provenance={"device": "cpu"}, state=bytes(2000)) for i in range(10_000)]
    for start in range(0, len(new), 1000):
        store.add_records(new[start : start + 1000])
    queries = []
    sa.event.listen(store.database.engine, "before_cursor_execute", lambda *about: queries.append(about[2]))
    found = store.records(r.id for r in new)
    assert len(queries) <= 21
    assert len(found) == 10_000 and found[new[-1].id].curve == curve


# Refusals


def test_a_full_disk_is_reported_and_earlier_records_are_kept(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.add_records([record("before")])
    with store.database.read() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
    with pytest.raises(StoreError, match="the disk is full"):
        store.add_records([record("after", state=os.urandom(1_000_000))])
    assert list(store.records([("before", 1000), ("after", 1000)])) == [("before", 1000)]
    store.close()


def test_an_unknown_sweep_is_refused_with_the_nearest_name(store: Store) -> None:
    store.begin_sweep("quickstart", "", {})
    with pytest.raises(StoreError, match="no sweep named 'quikstart'. Did you mean 'quickstart'"):
        store.set_state("quikstart", "done")
    with pytest.raises(StoreError, match="has no configuration 0 in cell 'all'"):
        store.finish_configuration("quickstart", "all", 0, "complete", 1.0)
    with pytest.raises(StoreError, match="must be one of running, done"):
        store.set_state("quickstart", "fine")


# Locations that cannot be opened


def refusal(location: Any) -> str:
    with pytest.raises(StoreError) as caught:
        Store(location)
    return str(caught.value)


def test_a_file_is_not_a_store(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("")
    assert "notes is a file; a store is a folder" in refusal(tmp_path / "notes")
    Store(tmp_path).close()
    assert refusal(tmp_path / "sweeps.db").endswith(f"Did you mean {tmp_path}?")


def test_a_store_that_cannot_be_created_is_named_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    message = refusal(tmp_path / "file" / "inside")
    assert f"{tmp_path}/file/inside cannot be created" in message and "--store" in message
    assert "empty" in refusal("")


def test_a_database_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    (tmp_path / "sweeps.db").mkdir()
    assert f"store {tmp_path}: its sweeps.db cannot be opened" in refusal(tmp_path)


NOBODY = 65534


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A folder of an ordinary user, whom a file's mode restricts, and that user as this process's own."""
    root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as folder:  # every user can enter its parent, unlike tmp_path's
        if root:
            os.chown(folder, NOBODY, -1)
            os.seteuid(NOBODY)
        try:
            yield Path(folder)
        finally:
            if root:
                os.seteuid(0)


@pytest.mark.parametrize("closed", [".", "sweeps.db"])
def test_a_store_that_cannot_be_written_is_refused_when_it_is_opened(unprivileged: Path, closed: str) -> None:
    Store(unprivileged).close()
    path = unprivileged / closed
    mode = path.stat().st_mode
    path.chmod(mode & ~0o222)
    try:
        message = refusal(unprivileged)
    finally:
        path.chmod(mode)
    assert message.startswith(f"store {unprivileged}: ") and "writable, or give another --store" in message


def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "sweeps.db").write_text("dear diary, " * 100)
    assert "is not a database" in refusal(tmp_path)
    assert (tmp_path / "sweeps.db").read_text().startswith("dear diary")


def test_a_database_of_something_else_is_refused(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "sweeps.db", isolation_level=None)) as other:
        other.execute("CREATE TABLE records (artist TEXT)")
    assert "database of something else: it has tables named records" in refusal(tmp_path)


def test_a_store_of_schema_1_is_brought_up_to_date_and_keeps_what_it_has(where: str) -> None:
    with Store(where) as before:
        before.begin_sweep("old", "name: old", {"name": "old"})
        with before.database.write() as connection:
            connection.execute(sa.text("ALTER TABLE sweeps DROP COLUMN numerics"))
            for column in ("stopped", "passed"):
                connection.execute(sa.text(f"ALTER TABLE configurations DROP COLUMN {column}"))
            connection.execute(sa.text("UPDATE sweeps_schema SET version = 1"))
    for _ in range(2):
        with Store(where) as after:
            after.begin_sweep(f"new {uuid.uuid4()}", "", {}, "2 cpu-x86-64-v3 plain")
            assert [row.numerics for row in after.sweeps()][:2] == [None, "2 cpu-x86-64-v3 plain"]


def test_a_sweep_is_renamed_with_all_that_it_has_and_never_over_another(store: Store) -> None:
    made_sweep(store)
    before, described = store.configurations("small"), store.sweep("small")
    store.rename_sweep("small", "kept")
    assert store.sweep("small") is None and store.configurations("kept") == before
    assert described is not None
    document = {**described.document, "name": "kept"}  # by which later commands know it
    assert store.sweep("kept") == replace(described, name="kept", document=document)
    assert len(store.records((key, BUDGET) for entry in before for key in entry.keys.values())) > 0
    store.begin_sweep("small", "", {})
    with pytest.raises(StoreError, match="has a sweep named 'kept' already"):
        store.rename_sweep("small", "kept")
    assert store.configurations("kept") == before and store.configurations("small") == []


def test_a_store_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    Store(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / "sweeps.db", isolation_level=None)) as newer:
        newer.execute("UPDATE sweeps_schema SET version = 99")
    assert "schema version 99; this installation of sweeps reads up to 3" in refusal(tmp_path)


def test_other_kinds_of_database_are_refused_without_showing_a_password() -> None:
    assert "not mysql" in (message := refusal("mysql://me:secret@host/db")) and "secret" not in message
    assert "Write postgresql://USER@HOST:PORT/DATABASE" in refusal("postgresql://host:port:port/x")


def mounted(monkeypatch: pytest.MonkeyPatch, folder: Path, kind: str) -> None:
    """As if a file system of this kind were mounted there."""
    mounts = [*psutil.disk_partitions(all=True), SimpleNamespace(mountpoint=str(folder), fstype=kind)]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: mounts)


@pytest.mark.parametrize("kind", ["nfs4", "lustre", "fuse.sshfs"])
def test_sqlite_on_a_network_disk_is_refused_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    (tmp_path / "home").mkdir()
    mounted(monkeypatch, tmp_path / "home", kind)
    message = refusal(tmp_path / "home" / "new" / "results")
    assert f"home/new/results lies on a network file system ({kind})" in message
    assert "a local disk with --store, or postgresql://" in message
    assert not list((tmp_path / "home").iterdir()), "nothing is made there"
    Store(tmp_path / "scratch").close()


def test_a_network_disk_that_the_user_permits_has_no_write_ahead_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Store(tmp_path).close()
    mounted(monkeypatch, tmp_path, "nfs4")
    monkeypatch.setenv("SWEEPS_NETWORK_DISK", "1")
    Store(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / "sweeps.db")) as opened:
        assert opened.execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_a_disk_of_this_machine_below_a_network_disk_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scratch").mkdir()
    mounted(monkeypatch, tmp_path, "nfs4")
    mounted(monkeypatch, tmp_path / "scratch", "ext4")
    Store(tmp_path / "scratch" / "results").close()


# URLs without credentials


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at http://u:p@ss/w@host/x and https://h/y", "at http://***@host/x and https://h/y"),
        ("postgresql://h/db?password=x&sslmode=require", "postgresql://h/db?password=***&sslmode=require"),
        ("postgresql://h/db?sslmode=require&SSLPASSWORD=x", "postgresql://h/db?sslmode=require&SSLPASSWORD=***"),
        ("'https://h/?passfile=/a/b'.", "'https://h/?passfile=***'."),
        ("password=x in no URL", "password=x in no URL"),
    ],
)
def test_credentials_are_masked_anywhere_in_a_text(text: str, shown: str) -> None:
    assert masked(text) == shown


def test_a_store_and_an_mlflow_address_are_shown_without_a_password() -> None:
    url = "postgresql://me:geheim@there/db?password=geheim"
    assert "geheim" not in _engine(url)[0]
    assert "geheim" not in without_password(url)


def test_a_line_break_after_a_store_s_url_is_not_part_of_its_name() -> None:
    where, engine, _ = _engine("postgresql://me@there/db\n")
    assert (where, engine.url.database) == ("postgresql+psycopg://me@there/db", "db")
