"""Stores, checkpoints and exported files that somebody made by hand: refused with a sentence, and nothing is executed."""

from __future__ import annotations

import hashlib
import json
import math
import os
import pickle
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import call
from made_sweep import configuration, made_sweep
from safetensors.torch import save
from torch.utils import _pytree as pytree

from sweeps.config.settings import build
from sweeps.config.user_files import embedded_code
from sweeps.errors import UserError
from sweeps.machine import use_compile_cache
from sweeps.store import Store
from sweeps.training.state import LaneState, from_bytes, initial_state, to_bytes


class Payload:
    """What runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch owned",)


PICKLE = pickle.dumps(Payload())


@pytest.fixture(autouse=True)
def nothing_is_executed(folder: Path) -> Iterator[None]:
    yield
    assert not (folder / "owned").exists()


def test_the_payload_of_these_tests_works(folder: Path) -> None:
    pickle.loads(PICKLE)
    assert (folder / "owned").exists()
    (folder / "owned").unlink()


@contextmanager
def edited() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect("results/sweeps.db", isolation_level=None)) as connection:
        yield connection


def test_values_that_sweeps_never_writes_are_refused_in_every_column(folder: Path) -> None:
    with Store("sound") as store:
        made_sweep(store, curve={"step": [0, 14_000], "error.extrapolation": [1.0, 1e-9]})
    with closing(sqlite3.connect("sound/sweeps.db")) as connection:
        tables = ("sweeps_schema", "sweeps", "configurations", "lanes", "records")
        columns = [(table, row[1]) for table in tables for row in connection.execute(f"PRAGMA table_info({table})")]
    accepted = set()
    for table, column in columns:
        for value in (f"x'{PICKLE.hex()}'", "'" + 100_000 * "[" + "'"):
            shutil.copytree("sound", "results")
            with edited() as connection, suppress(sqlite3.IntegrityError):  # which SQLite itself refuses
                connection.execute(f"UPDATE OR IGNORE {table} SET {column} = {value}")
            answer = call("report", "small")  # which fails for a traceback
            if answer.status == 0:
                accepted.add((table, column))
            else:
                assert answer.status == 2 and len(answer.err) < 1000, (table, column)
            shutil.rmtree("results")
    # A key of whole numbers SQLite guards itself. Text may be any text, `state` is not read by a report, and a key that
    # names no record is a lane to come.
    assert accepted <= {
        ("sweeps_schema", "version"), ("configurations", "id"),
        ("sweeps", "definition"), ("sweeps", "state"), ("sweeps", "created"), ("sweeps", "updated"),
        ("sweeps", "numerics"),
        ("configurations", "cell"), ("configurations", "origin"), ("configurations", "sweep"),
        ("lanes", "sweep"), ("lanes", "cell"), ("lanes", "key"), ("lanes", "number"),
        ("records", "key"), ("records", "reason"), ("records", "state"), ("records", "budget"),
    }  # fmt: skip


@pytest.mark.parametrize(
    "made",
    [
        "CREATE TRIGGER t AFTER UPDATE ON sweeps BEGIN DELETE FROM records; END",
        "CREATE VIEW v AS SELECT * FROM records",
        "CREATE VIRTUAL TABLE v USING fts5(text)",
    ],
)
def test_a_database_with_sql_of_its_own_is_refused(made: str) -> None:
    with Store("results") as store:
        made_sweep(store)
    with edited() as connection:
        connection.execute(made)
    for verb in (["report", "small"], ["run", "small"]):
        answer = call(*verb)
        assert answer.status == 2 and "has what sweeps never makes: " in answer.err


def test_a_checkpoint_that_sweeps_did_not_write_is_refused() -> None:
    built = build(configuration("nau", 0).settings)
    initial = initial_state(built, 0, torch.device("cpu"))

    def checkpoint(state: LaneState, wall_time_s: float = 1.0, **columns: Any) -> bytes:
        alone = pytree.tree_map(lambda t: t.unsqueeze(0), state)
        return to_bytes(alone, {name: np.array([values]) for name, values in columns.items()}, np.full(1, wall_time_s))[0]

    sound = checkpoint(initial, step=[0], sparsity_error=[0.5])
    assert from_bytes(sound, initial)[1].step == [0]
    name = next(iter(initial["params"]))
    one = {**initial, "params": {**initial["params"], name: torch.zeros(1)}}  # would be repeated over the slot
    with pytest.raises(ValueError, match=rf"holds params.{name} as torch.float32 of \[1\], but this lane needs"):
        from_bytes(checkpoint(one, step=[], sparsity_error=[]), initial)
    uneven = checkpoint(initial, step=[0, 1], sparsity_error=[0.5])
    single = checkpoint(initial, step=[0], sparsity_error=0.5)
    without_step = checkpoint(initial, sparsity_error=[0.5])
    cyclic = save({"x": torch.zeros(1)}, {"curve": 100_000 * "[", "wall_time_s": "1"})
    without_time = checkpoint(initial, math.nan, step=[0], sparsity_error=[0.5])
    backwards = checkpoint(initial, step=[1000, 0], sparsity_error=[0.5, 0.5])
    damaged = (uneven, single, without_step, without_time, backwards, cyclic)
    for blob in (PICKLE, b"", sound[:100], sound[:-1], *damaged, save({"x": torch.zeros(1)})):
        with pytest.raises(ValueError, match="a checkpoint is damaged, or was not written by sweeps"):
            from_bytes(blob, initial)


EXPORTED = """\
name: mine
model: nau
task: {name: static, operation: sub}
train: {steps: 10}
seeds: 2
"""


@pytest.mark.parametrize(
    ("exported", "message"),
    [
        ("!!python/object/apply:os.system ['touch owned']", "a tag (tag:yaml.org,2002:python/object/apply:os.system)"),
        ("{lanes: [{seed: 0, solved: !!python/name:os.system }]}", "a tag (tag:yaml.org,2002:python/name:os.system)"),
        ("5", "exported: must be a mapping"),
        ("{lanes: 5}", "`exported.lanes` must be a list of results"),
        ("{lanes: []}", "`exported.lanes` must be a list of results"),
        ("{lanes: [{}]}", "`exported.lanes` must be a list of results"),
        ("{lanes: [{seed: 0, solved: true, error: 5}]}", "`exported.lanes` must be a list of results"),
        ("{lanes: [{seed: 0, solved: true}], provenance: 7}", "`exported.lanes` must be a list of results"),
        ("{sweep: ../../x}", "`exported.lanes` must be a list of results"),
    ],
)
@pytest.mark.parametrize("how", [[], ["--fresh-seeds"]])
def test_an_exported_file_that_sweeps_did_not_write_is_refused_before_it_trains(
    folder: Path, exported: str, message: str, how: list[str]
) -> None:
    (folder / "best.yaml").write_text(f"{EXPORTED}exported: {exported}\n")
    answer = call("reproduce", "best.yaml", *how)
    assert answer.status == 2 and message in answer.err


@pytest.mark.parametrize(
    "names",
    [['"a\\ud800.py"'], ["a", "a/b.py"], [f"{'a' * 300}.py"], ["/".join(["a" * 200] * 5)], ["../a.py"]],
)
def test_an_exported_file_with_paths_that_cannot_be_written_is_refused_without_a_traceback(
    names: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "best.yaml"
    sha = hashlib.sha256(b"x=1").hexdigest()
    sources = "".join(f"    {name}: {{sha256: {sha}, text: x=1}}\n" for name in names)
    file.write_text(f"exported:\n  sources:\n{sources}")
    with pytest.raises(UserError, match="must be a mapping of paths below its folder"), embedded_code(file, print, True):
        pass
    file.write_text('exported:\n  sources:\n    a.py: {sha256: x, text: "\\ud800"}\n')
    with pytest.raises(UserError, match="must be a mapping"), embedded_code(file, print, True):
        pass


def test_writing_mlflow_from_a_store_executes_no_file_that_the_store_names(folder: Path) -> None:
    (folder / "evil.py").write_text("import os\nos.system('touch owned')\n")
    with Store("results") as store:
        made_sweep(store)
    with edited() as connection:
        document = json.dumps({"name": "small", "model": "./evil.py", "task": "./evil.py", "train": {"steps": 10}})
        connection.execute("UPDATE sweeps SET document = ?", (document,))
    assert call("sync", "small").status == 0
    Path("results/mlflow.db").write_bytes(b"no database " * 1000)  # which is made again from every sweep of the store
    assert call("sync", "small").status == 0


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/b", "$(touch owned)", "`touch owned`", "a;touch owned", "a\\x1b"])
def test_a_name_that_is_a_path_or_a_command_is_refused(folder: Path, name: str) -> None:
    (folder / "best.yaml").write_text(EXPORTED.replace("mine", f'"{name}"'))
    for verb in ("check", "run"):
        answer = call(verb, "best.yaml")
        assert answer.status == 2 and "name" in answer.err
    assert [path.name for path in folder.iterdir()] == ["best.yaml"]


def test_a_file_beside_an_exported_one_is_executed_only_where_it_is_named(folder: Path) -> None:
    for name in ("nau.py", "static.py", "torch.py", "mine.py", "conftest.py", "sitecustomize.py", "tasks.py"):
        (folder / name).write_text("import os\nos.system('touch owned')\n")
    (folder / "best.yaml").write_text(EXPORTED)
    assert call("check", "best.yaml").status == 0


def test_a_compile_cache_that_others_can_write_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for mode, used, after in ((0o700, True, 0o700), (0o755, True, 0o755), (0o775, True, 0o700), (0o777, False, 0o777)):
        given = tmp_path / oct(mode)
        given.mkdir()
        given.chmod(mode)
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(given))
        why = use_compile_cache()
        assert (os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(given)) is used is (why is None)
        assert given.stat().st_mode & 0o777 == after
    chosen = Path(os.environ["TORCHINDUCTOR_CACHE_DIR"])
    assert chosen.stat().st_mode & 0o777 == 0o700
    assert why is not None and f"{given} on " in why and f"is not private to you: compiled code is kept in {chosen}" in why
    assert use_compile_cache() is None
