"""Reading a store that may not be written: another user's, on a read-only mount, on a full disk, or made by hand."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from commands import Answer, call, output_line, proceed
from made_sweep import made_sweep

from sweeps.errors import StoreError
from sweeps.store import Store
from sweeps.store.reading import ChangedWhileRead, Reader
from sweeps.training.lane import LaneResult

NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user, or mount")
VERBS = (
    ["list"],
    ["report", "small"],
    ["report", "small", "--format", "json"],
    ["status", "small"],
    ["export", "small"],
    ["thresholds", "small"],
    ["ensemble", "small"],
    ["figure", "small", "--x", "model", "-o", "{}/figure.svg"],
)


@pytest.fixture
def others() -> Iterator[Path]:
    """A folder that every user can enter, and only its owner can write."""
    with tempfile.TemporaryDirectory() as folder:  # unlike tmp_path, whose parents are private
        Path(folder).chmod(0o755)
        yield Path(folder)


@contextmanager
def acting_as(user: int) -> Iterator[None]:
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(0)


def contents(folder: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """What a folder holds: owner, mode, time of the last change and bytes of every file."""
    found = {}
    for path in folder.iterdir():
        stat = path.stat()
        found[path.name] = stat.st_uid, stat.st_mode, stat.st_mtime_ns, path.read_bytes()
    return found


def in_use(folder: Path) -> Any:
    """A store with a sweep whose last transactions are in the log only, and that is still open."""
    store = Store(folder)
    made_sweep(store)
    return store


def answers(store: Path) -> list[Answer]:
    with tempfile.TemporaryDirectory() as scratch:
        return [
            call(*(word.format(scratch) for word in verb), "--store", str(store))._replace(
                **({"out": "drawn"} if verb[0] == "figure" else {})
            )
            for verb in VERBS
        ]


@needs_root
@pytest.mark.parametrize("left", ["at rest", "open", "killed", "copied without its index"])
def test_reading_verbs_print_the_same_for_another_user_and_change_nothing(others: Path, left: str) -> None:
    folder = others / "results"
    store = in_use(folder)
    expected = answers(folder)
    assert [answer.status for answer in expected] == [0, 0, 0, 0, 0, 2, 2, 0]
    if left == "at rest":
        store.close()
        assert not (folder / "sweeps.db-wal").exists()
    elif left != "open":
        shutil.copytree(folder, others / "copy")
        store.close()
        folder = others / "copy"
        assert (folder / "sweeps.db-wal").stat().st_size > 0
        if left == "copied without its index":
            (folder / "sweeps.db-shm").unlink()
    before = contents(folder)
    with acting_as(NOBODY):
        found = answers(folder)
    assert [answer.out.replace(str(folder), "X") for answer in found] == [
        answer.out.replace(str(others / "results"), "X") for answer in expected
    ]
    assert [answer.status for answer in found] == [answer.status for answer in expected]
    assert contents(folder) == before
    if left == "open":
        store.set_state("small", "stopped")  # its owner still can
        store.close()


@pytest.mark.parametrize("left", ["at rest", "open"])
def test_reading_leaves_nothing_in_a_folder_that_it_could_write(tmp_path: Path, left: str) -> None:
    store = in_use(tmp_path / "results")
    if left == "at rest":
        store.close()
        (tmp_path / "results" / "sweeps.db.lock").unlink()
    before = sorted(path.name for path in (tmp_path / "results").iterdir())
    answers(tmp_path / "results")
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == before
    store.close()


@needs_root
def test_a_store_that_may_not_be_entered_or_read_is_named_with_the_reason(others: Path) -> None:
    in_use(others / "results").close()
    (others / "results").chmod(0o700)
    with acting_as(NOBODY):
        answer = call("report", "small", "--store", str(others / "results"))
    assert answer.status == 2
    assert "it may not be opened ([Errno 13] Permission denied" in answer.err and "Its owner can permit it" in answer.err
    (others / "results").chmod(0o755)
    (others / "results" / "sweeps.db").chmod(0o600)
    with acting_as(NOBODY):
        answer = call("report", "small", "--store", str(others / "results"))
    assert answer.status == 2 and "it may not be opened ([Errno 13] Permission denied" in answer.err


IMPORTS = """
import os, sys
import sweeps.cli, tasks  # before the path, in which tests has another folder of that name
sys.path.append(os.environ["TESTS"])
"""
MOUNTED = """
from commands import call
for verb in (["list"], ["report", "small"], ["export", "small"]):
    answer = call(*verb, "--store", sys.argv[1])
    assert answer.status == 0, answer
print("read")
"""


def mounted(options: str, folder: Path, before: str = "true", code: str = MOUNTED) -> str:
    """Run code with the store in a folder that is mounted with these options; return what was printed."""
    if shutil.which("unshare") is None:
        pytest.skip("unshare, which gives a process its own mounts, is not installed")
    script = f'set -e; mount {options} "$1"; {before}; exec "$2" -c "$3" "$1/results"'
    done = subprocess.run(
        ["unshare", "--mount", "bash", "-c", script, "-", str(folder), sys.executable, IMPORTS + code],
        capture_output=True, text=True, env={**os.environ, "TESTS": str(Path(__file__).parent)},
    )  # fmt: skip
    if "mount" in done.stderr and "Traceback" not in done.stderr:
        pytest.skip(f"no mounts can be made here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_root
@pytest.mark.parametrize("left", ["at rest", "killed"])
def test_a_store_on_a_read_only_mount_is_read(tmp_path: Path, left: str) -> None:
    (tmp_path / "disk").mkdir()
    store = in_use(tmp_path / "results")
    if left == "at rest":
        store.close()
    shutil.copytree(tmp_path / "results", tmp_path / "disk" / "results")
    store.close()
    disk = tmp_path / "disk"
    assert mounted(f'--bind "{disk}"', disk, f'mount -o remount,ro,bind "{disk}"; ! touch "{disk}/x" 2>/dev/null') == "read\n"


SYNCED = """
from commands import call
answer = call("sync", "small", "--store", sys.argv[1])
assert answer.status == 2 and "Traceback" not in answer.err, answer
print(answer.err)
for how in (["--mlflow"], ["--register", "linear"]):
    answer = call("export", "small", *how, "--store", sys.argv[1])
    assert answer.status == 2 and "Traceback" not in answer.err, answer
"""


@needs_root
@pytest.mark.parametrize("has_mlflow", [True, False])
def test_sync_of_a_store_on_a_read_only_mount_names_the_place_that_can_be_changed(tmp_path: Path, has_mlflow: bool) -> None:
    disk = tmp_path / "disk"
    in_use(disk / "results").close()
    if has_mlflow:
        assert call("sync", "small", "--store", str(disk / "results")).status == 0
    said = mounted(f'--bind "{disk}"', disk, f'mount -o remount,ro,bind "{disk}"', SYNCED)
    assert f"{disk}/results/mlflow.db cannot be written" in said and "MLFLOW_TRACKING_URI names another place" in said


@needs_root
@pytest.mark.parametrize("left", ["at rest", "killed", "copied without its index"])
def test_a_store_on_a_full_disk_is_read(tmp_path: Path, left: str) -> None:
    (tmp_path / "disk").mkdir()
    store = in_use(tmp_path / "results")
    if left == "at rest":
        store.close()
    shutil.copytree(tmp_path / "results", tmp_path / "from")
    store.close()
    if left == "copied without its index":
        (tmp_path / "from" / "sweeps.db-shm").unlink()
    fill = f'cp -r "{tmp_path}/from" "{tmp_path}/disk/results"; ! cat /dev/zero > "{tmp_path}/disk/fill" 2>/dev/null'
    assert mounted("-t tmpfs -o size=4m tmpfs", tmp_path / "disk", fill) == "read\n"


FULL = """
from commands import call
answer = call("list", "--store", sys.argv[1])
assert answer.status == 0, answer
answer = call("run", sys.argv[1] + "/../../small.yaml", "--store", sys.argv[1])
assert answer.status == 1 and "Traceback" not in answer.err, answer
assert "the disk is full. Free some space" in answer.err, answer
from sweeps.cli.tracking import _writable
from sweeps.tracking import default_uri
with _writable(default_uri(sys.argv[1])) as uri:
    assert sys.argv[1] not in uri, "a private copy is served"
print("said")
"""


@needs_root
def test_a_disk_without_room_for_sqlite_s_index_is_said_to_be_full(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "small.yaml").write_text(SWEEP.replace("name: small", "name: another"))
    in_use(tmp_path / "results").close()
    assert call("sync", "small", "--store", str(tmp_path / "results")).status == 0
    fill = f'cp -r "{tmp_path}/results" "{tmp_path}/disk/"; ! cat /dev/zero > "{tmp_path}/disk/fill" 2>/dev/null'
    assert mounted("-t tmpfs -o size=4m tmpfs", tmp_path / "disk", fill, FULL).endswith("said\n")


def record(key: str, state: bytes | None = None) -> LaneResult:
    return LaneResult(key=key, seed=0, budget=1000, steps=1000, outcome="unsolved", solved=False, state=state)


SWEEP = """\
name: small
task: {name: static, operation: sub, input_size: 10}
model: linear
train: {steps: 60, batch: 4, evaluate_every: 2}
seeds: 40
"""
TRAINED = """
import subprocess
from commands import call, train_in_process
from sweeps.runner import run
run._train = lambda driver, console, workers: train_in_process(driver)
disk = sys.argv[1].removesuffix("/results")
command = ["run", disk + "/../small.yaml", "--no-mlflow", "--store", sys.argv[1]]
answer = call(*command)  # which fails for a traceback
assert answer.status == 1, answer
assert "the disk is full. Free some space" in answer.err, answer
assert "What is recorded is kept; the same command continues it" in answer.err, answer
for verb in (["list"], ["report", "small"], ["status", "small"]):
    answer = call(*verb, "--store", sys.argv[1])
    assert answer.status == 0, answer
full = call("figure", "small", "--x", "model", "--store", sys.argv[1], "-o", disk + "/figure.svg")
assert full.status in (1, 2), full
subprocess.run(["mount", "-o", "remount,size=20m", disk], check=True)
answer = call(*command)
assert answer.status == 0 and "40 lanes" in answer.out, answer
print("continued")
"""


@needs_root
def test_a_sweep_that_fills_its_disk_ends_with_1_and_continues_when_there_is_room(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "small.yaml").write_text(SWEEP)
    assert mounted("-t tmpfs -o size=300k tmpfs", tmp_path / "disk", code=TRAINED) == "continued\n"


WRITER = """
import sys
sys.path.append(sys.argv[2])
from sweeps.store import Store
from test_reading import record
with Store(sys.argv[1]) as store:
    store.begin_sweep("busy", "", {})
    print("open", flush=True)
    sys.stdin.readline()
    for number in range(600):  # over 1,000 pages: the log begins anew several times
        store.add_records([record(f"k{number}", state=bytes(20_000))])
    print("written", flush=True)
    sys.stdin.readline()
"""


@needs_root
def test_another_user_reads_a_store_while_it_is_written(others: Path) -> None:
    folder = others / "results"
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), str(Path(__file__).parent)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert output_line(writer) == "open"
        proceed(writer)
        ids, seen = [(f"k{number}", 1000) for number in range(600)], [0]
        with acting_as(NOBODY):
            while seen[-1] < 600:
                with Store(folder, read_only=True) as store:
                    found = store.records(ids)
                assert list(found) == ids[: len(found)], "a reader sees whole transactions, in order"
                seen.append(len(found))
                assert writer.poll() is None
        assert seen == sorted(seen)
        proceed(writer)
        assert writer.wait(60) == 0
    finally:
        writer.kill()
        writer.communicate()
    assert sorted(path.name for path in folder.iterdir() if "lock" not in path.name) == ["sweeps.db"]


def test_a_file_that_is_changed_while_it_is_read_without_locks_is_not_believed(tmp_path: Path) -> None:
    in_use(tmp_path).close()
    reader = Reader(tmp_path / "sweeps.db", 1.0)
    connection = reader.connect()
    reader.require_unchanged(connection)
    with Store(tmp_path) as store:
        store.add_records([record("new")])
        reader.require_unchanged(connection)  # the change is in the log
    with pytest.raises(ChangedWhileRead):
        reader.require_unchanged(connection)
    connection.close()
    with (
        Store(tmp_path, read_only=True) as store,
        pytest.raises(StoreError, match="run the same command again"),
        store.database.read(),
        Store(tmp_path) as elsewhere,
    ):
        elsewhere.set_state("small", "stopped")


def test_a_store_without_a_write_ahead_log_is_read(tmp_path: Path) -> None:
    in_use(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / "sweeps.db")) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
    assert [answer.status for answer in answers(tmp_path)] == [0, 0, 0, 0, 0, 2, 2, 0]
    assert not list(tmp_path.glob("sweeps.db-*"))


def test_a_store_that_is_opened_for_reading_refuses_to_be_changed(tmp_path: Path) -> None:
    in_use(tmp_path).close()
    with Store(tmp_path, read_only=True) as store, pytest.raises(StoreError, match="opened for reading only"):
        store.set_state("small", "stopped")
    with pytest.raises(StoreError, match="there is no store"):
        Store(tmp_path / "missing", read_only=True)
    assert not (tmp_path / "missing").exists()


def test_a_role_that_may_only_select_reports_from_postgresql(new_database: str) -> None:
    import psycopg

    with Store(new_database) as store:
        made_sweep(store)
    role = f"reader_{time.monotonic_ns()}"
    with psycopg.connect(new_database, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN")
        database = new_database.replace("//postgres:", f"//{role}:", 1)
        assert role in database
        denied = call("report", "small", "--store", database)
        assert denied.status == 2 and "GRANT SELECT" in denied.err
        connection.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
    for verb in VERBS[:4]:
        assert call(*verb, "--store", database) == call(*verb, "--store", new_database)
    with Store(database, read_only=True) as store, pytest.raises(StoreError, match="opened for reading only"):
        store.set_state("small", "stopped")
    with pytest.raises(StoreError, match="the role lacks a right"):
        Store(database)
