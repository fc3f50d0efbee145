"""Sweeps renamed, copied and deleted, and what no sweep needs any more removed: in the store and in MLflow."""

from __future__ import annotations

import os
import pty
import re
import sqlite3
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commands import call
from made_sweep import DOCUMENT, configuration, lane, made_sweep

from sweeps.errors import StoreError
from sweeps.results import as_markdown, report
from sweeps.runner.run import sync
from sweeps.store import Store, removal
from sweeps.store import database as store_database
from sweeps.store.removal import (
    Removal,
    delete_sweeps,
    delete_what_nobody_names,
    held_names,
    what_goes,
    what_nobody_names,
)
from sweeps.training.lane import Checkpoint


def other_sweep(store: Store, name: str = "other") -> None:
    """A sweep that has one configuration of `small` in common with it, three lanes, and none of its own."""
    store.begin_sweep(name, f"name: {name}\n", {**DOCUMENT, "name": name})
    store.add_configuration(name, configuration("nau", 0))


# The store


def test_a_deleted_sweep_takes_its_lanes_with_it_but_none_that_another_sweep_names(store: Store) -> None:
    made_sweep(store)
    other_sweep(store)
    shared = configuration("nau", 0)
    own = configuration("linear", 0)
    store.save_checkpoints({own.keys[2]: Checkpoint(500, b"state"), shared.keys[0]: Checkpoint(20_000, b"further")})
    # 4 configurations of 3 lanes, all with a record; `other` names the 3 of nau #0, one of which has a checkpoint.
    expected = Removal(configurations=4, lanes=12, records=9, checkpoints=1, size_bytes=0, kept=4)
    found = what_goes(store, ["small"])
    assert replace(found, size_bytes=0) == expected
    assert delete_sweeps(store, ["small"]) == found
    assert [row.name for row in store.sweeps()] == ["other"]
    assert len(store.records([(key, 15_000) for key in shared.keys.values()])) == 3
    assert not store.records([(key, 15_000) for key in own.keys.values()])
    assert set(store.checkpoints([shared.keys[0], own.keys[2]], 20_000)) == {shared.keys[0]}
    # Nobody else names them now.
    assert replace(what_goes(store, ["other"]), size_bytes=0) == Removal(1, 3, 3, 1, 0, 0)
    delete_sweeps(store, ["other"])
    assert not what_nobody_names(store)


def test_two_sweeps_deleted_together_take_the_lanes_that_they_share(store: Store) -> None:
    made_sweep(store)
    other_sweep(store)
    assert delete_sweeps(store, ["small", "other"]).records == 12
    assert store.sweeps() == []
    assert what_nobody_names(store).size_bytes == 0


def test_a_deletion_of_an_unknown_sweep_removes_nothing(store: Store) -> None:
    made_sweep(store)
    with pytest.raises(StoreError, match="has no sweep named 'smal'. Did you mean 'small'"):
        delete_sweeps(store, ["small", "smal"])
    assert len(report(store, "small").configurations) == 4


def test_gc_removes_what_no_sweep_names_and_checkpoints_that_a_record_has_overtaken(store: Store) -> None:
    made_sweep(store)
    kept = as_markdown(report(store, "small"))
    nau = configuration("nau", 0)
    lost = replace(next(iter(store.records([(nau.keys[0], 15_000)]).values())), key="of nobody", state=b"x" * 1000)
    store.add_records([lost])
    store.save_checkpoints({"of nobody": Checkpoint(1, b"x"), nau.keys[0]: Checkpoint(15_000, b"done"),
                            nau.keys[1]: Checkpoint(15_001, b"further")})  # fmt: skip
    found = what_nobody_names(store)
    assert (found.records, found.checkpoints) == (1, 2)
    assert found.size_bytes > 1000
    assert delete_what_nobody_names(store) == found
    assert not delete_what_nobody_names(store)
    assert store.checkpoints([nau.keys[1]], 20_000)[nau.keys[1]].steps == 15_001
    assert as_markdown(report(store, "small")) == kept


def test_a_lane_without_a_record_keeps_its_checkpoint(store: Store) -> None:
    store.begin_sweep("small", "name: small\n", DOCUMENT)
    nau = configuration("nau", 0)
    store.add_configuration("small", nau)
    store.save_checkpoints({nau.keys[0]: Checkpoint(10, b"x")})
    assert not what_nobody_names(store)


def test_a_checkpoint_stays_that_a_lane_with_a_shorter_budget_than_the_record_continues(store: Store) -> None:
    made_sweep(store)
    nau = configuration("nau", 0)
    store.save_checkpoints({key: Checkpoint(500, b"x") for key in nau.keys.values()})
    assert what_nobody_names(store).checkpoints == 3  # the records are as far
    store.begin_sweep("short", "name: short\n", DOCUMENT)
    store.add_configuration("short", replace(nau, settings={**nau.settings, "train": {**nau.settings["train"], "steps": 700}}))
    assert not delete_what_nobody_names(store)
    store.add_records([replace(lane(nau, 0, None, 0.5, steps=700), budget=700)])
    store.save_checkpoints({nau.keys[0]: Checkpoint(500, b"x")})
    assert delete_what_nobody_names(store).checkpoints == 1
    assert set(store.checkpoints(nau.keys.values(), 700)) == {nau.keys[1], nau.keys[2]}


def test_gc_deletes_in_transactions_between_which_a_driver_writes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removal, "CHUNK", 2)
    made_sweep(store)
    key = configuration("nau", 0).keys[0]
    lost = store.records([(key, 15_000)])[key, 15_000]
    store.add_records([replace(lost, key=f"lost {number}") for number in range(5)])
    store.save_checkpoints({"lost 4": Checkpoint(1, b"x")})
    locked: list[Any] = []
    monkeypatch.setattr(removal, "_lock_lanes", locked.append)
    found = what_nobody_names(store)
    assert (found.records, found.checkpoints) == (5, 1)
    assert delete_what_nobody_names(store) == found
    assert len(locked) == 3


def test_a_file_whose_rewriting_would_keep_a_driver_waiting_for_too_long_keeps_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(tmp_path) as store:
        made_sweep(store)
        store.save_checkpoints({"of nobody": Checkpoint(1, os.urandom(2_000_000))})
        delete_what_nobody_names(store)
        before = store.database.size_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(store_database, "COMPACT_S", 0.0)
            assert "GB, so it keeps its size" in (removal.compact(store) or "")
        assert store.database.size_bytes() >= before and len(report(store, "small").configurations) == 4
        with store.hold("another"):  # the lock is free
            assert "another runs" in (removal.compact(store) or "")
        assert removal.compact(store) is None
        assert store.database.size_bytes() < before - 2_000_000


def test_sqlite_gives_the_space_of_what_was_deleted_back(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        made_sweep(store)
        store.save_checkpoints({"of nobody": Checkpoint(1, os.urandom(2_000_000))})
        before = store.database.size_bytes()
        delete_what_nobody_names(store)
        store.database.compact()
        assert store.database.size_bytes() < before - 2_000_000
        assert len(report(store, "small").configurations) == 4


def test_a_name_that_a_live_driver_holds_is_listed_as_held(store: Store) -> None:
    with store.hold("small"):
        assert held_names(store) == ["small"]
    assert held_names(store) == []


# The command


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sweep `small` in store and MLflow."""
    folder = tmp_path_factory.mktemp("written")
    with pytest.MonkeyPatch.context() as patch, Store(folder) as store:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        made_sweep(store)
        sync("small", store, folder)
    return folder


@pytest.fixture
def results(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A copy of it."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "results"
    folder.mkdir()
    for name in ("sweeps.db", "mlflow.db"):
        with closing(sqlite3.connect(written / name)) as source, closing(sqlite3.connect(folder / name)) as copy:
            source.backup(copy)
    return str(folder)


def rows(store: str, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(Path(store) / "mlflow.db")) as connection:
        return connection.execute(query).fetchall()


EXPERIMENTS = "SELECT name, lifecycle_stage FROM experiments WHERE experiment_id <> 0"


def test_rename_changes_the_name_in_the_store_and_in_mlflow_and_the_new_name_continues(results: str) -> None:
    before = call("report", "small", "--no-timing", "--store", results).out
    answer = call("rename", "small", "large", "--store", results)
    assert answer.status == 0, answer.err
    assert "small is called large now" in answer.out
    assert call("list", "--names", "--store", results).out == "large\n"
    assert call("report", "large", "--no-timing", "--store", results).out == before.replace("small", "large")
    assert rows(results, EXPERIMENTS) == [("large", "active")]
    runs = "SELECT name FROM runs JOIN tags ON tags.run_uuid = runs.run_uuid WHERE key = 'level' AND value = 'sweep'"
    assert rows(results, runs) == [("large",)]
    (note,) = rows(results, "SELECT value FROM experiment_tags WHERE key = 'mlflow.note.content'")[0]
    assert "sweeps run large" in note
    assert "small" not in note


def test_rename_refuses_names_that_a_sweep_file_could_not_have_and_those_that_are_taken(results: str) -> None:
    with Store(results) as store:
        other_sweep(store)
    for new, message in {
        "a b": "must be 1 to 100 letters, digits, dots, dashes or underscores",
        "../x": "a letter or digit first, not '../x'",
        "other": "has a sweep named 'other' already",
        "small": "small has that name already",
    }.items():
        answer = call("rename", "small", new, "--store", results)
        assert answer.status == 2
        assert message in answer.err
    assert "Did you mean 'small'?" in call("rename", "smal", "large", "--store", results).err
    assert call("list", "--names", "--store", results).out == "small\nother\n"


def test_rename_works_without_mlflow_and_with_one_that_is_damaged(results: str) -> None:
    (Path(results) / "mlflow.db").write_bytes(b"no database, but as long as one would be at the least " * 100)
    answer = call("rename", "small", "large", "--store", results)
    assert answer.status == 0
    assert "warning: MLflow still has the old name" in answer.err
    (Path(results) / "mlflow.db").unlink()
    answer = call("rename", "large", "larger", "--store", results)
    assert (answer.status, answer.err) == (0, "")
    assert not (Path(results) / "mlflow.db").exists()


def test_delete_shows_what_goes_and_dry_run_changes_nothing(results: str) -> None:
    with Store(results) as store:
        other_sweep(store)
    answer = call("delete", "small", "--dry-run", "--store", results)
    assert answer.status == 0, answer.err
    assert "4 configurations, 12 lanes, 9 records, 0 checkpoints: " in answer.out
    assert "kept: 3 records and checkpoints that other sweeps use as well" in answer.out
    assert "17 runs in MLflow" in answer.out  # the sweep, 4 configurations, 12 seeds
    assert call("list", "--names", "--store", results).out == "small\nother\n"
    assert rows(results, EXPERIMENTS) == [("small", "active")]


def test_delete_without_yes_is_refused_where_nobody_can_confirm_it(results: str) -> None:
    answer = call("delete", "small", "--store", results)
    assert answer.status == 2
    assert "add --yes" in answer.err
    assert call("list", "--names", "--store", results).out == "small\n"


@pytest.mark.parametrize(("typed", "status", "left"), [("n\n", 1, "small\n"), ("y\n", 0, "")])
def test_delete_asks_on_a_terminal(results: str, typed: str, status: int, left: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    os.write(ours, typed.encode())
    with open(theirs) as terminal, monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", terminal)
        answer = call("delete", "small", "--store", results)
    os.close(ours)
    assert "delete small? [y/N]" in answer.err
    assert answer.status == status
    assert call("list", "--names", "--store", results).out == left


def its_artifacts(store: str, uri: str) -> Path:
    """Where artifacts of a store folder that was copied are: MLflow's database names the folder that it was copied from."""
    return Path(store) / "mlartifacts" / uri.partition("/mlartifacts/")[2]


def test_delete_and_gc_leave_nothing_of_a_sweep_in_store_and_mlflow(results: str) -> None:
    answer = call("delete", "small", "--yes", "--store", results)
    assert answer.status == 0, answer.err
    assert call("list", "--store", results).out == ""
    assert rows(results, "SELECT DISTINCT lifecycle_stage FROM runs") == [("deleted",)]
    ((name, stage),) = rows(results, EXPERIMENTS)
    assert re.fullmatch(r"small deleted \S+", name)
    assert stage == "deleted"
    artifacts = [its_artifacts(results, uri) for (uri,) in rows(results, "SELECT artifact_uri FROM runs")]
    for folder in artifacts[:2]:
        folder.mkdir(parents=True)
    with closing(sqlite3.connect(Path(results) / "mlflow.db")) as connection:
        connection.execute("CREATE TABLE padding AS SELECT zeroblob(100000) FROM runs")
        connection.execute("DROP TABLE padding")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = (Path(results) / "mlflow.db").stat().st_size
    shown = call("gc", "--dry-run", "--store", results)
    assert "17 deleted runs and 1 deleted experiment of sweeps" in shown.out
    assert call("gc", "--store", results).status == 2  # nobody can confirm it
    answer = call("gc", "--yes", "--store", results)
    assert (answer.status, answer.err) == (0, "")
    assert rows(results, EXPERIMENTS) == []
    for table in ("runs", "metrics", "latest_metrics", "params", "tags"):
        assert rows(results, f"SELECT count(*) FROM {table}") == [(0,)]
    assert (Path(results) / "mlflow.db").stat().st_size < before - 1_500_000
    assert not any(path.parent.exists() for path in artifacts)


@pytest.mark.slow
def test_a_deleted_sweep_can_be_begun_again_under_its_name_in_mlflow_too(results: str) -> None:
    call("delete", "small", "--yes", "--store", results)
    with Store(results) as store:
        made_sweep(store)
        sync("small", store, results)
    assert ("small", "active") in rows(results, EXPERIMENTS)


@pytest.mark.slow
def test_gc_keeps_runs_of_others_and_experiments_that_have_any(results: str) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{results}/mlflow.db")
    experiment = client.get_experiment_by_name("small").experiment_id
    theirs = client.create_run(experiment).info.run_id
    call("delete", "small", "--yes", "--store", results)
    assert rows(results, EXPERIMENTS) == [("small", "active")]
    client.delete_run(theirs)
    assert call("gc", "--yes", "--store", results).status == 0
    assert rows(results, "SELECT run_uuid FROM runs") == [(theirs,)]
    assert rows(results, EXPERIMENTS) == [("small", "active")]


@pytest.mark.slow
def test_gc_keeps_a_run_whose_model_is_in_the_registry(results: str) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{results}/mlflow.db")
    (run, *_) = client.search_runs([client.get_experiment_by_name("small").experiment_id])
    client.create_registered_model("mine")
    client.create_model_version("mine", f"{run.info.artifact_uri}/model", run.info.run_id)
    call("delete", "small", "--yes", "--store", results)
    assert "16 deleted runs and 0 deleted experiments" in call("gc", "--yes", "--store", results).out
    assert rows(results, "SELECT run_uuid FROM runs") == [(run.info.run_id,)]


def test_gc_removes_the_files_of_what_a_deleted_run_logged_and_no_other(results: str, written: Path) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{results}/mlflow.db")
    experiment = client.get_experiment_by_name("small").experiment_id
    (run, *_) = client.search_runs([experiment])
    model = client.create_logged_model(experiment, "trained", run.info.run_id)
    uris = (run.info.artifact_uri, model.artifact_location)
    own = [its_artifacts(results, uri) for uri in uris]
    original = [its_artifacts(str(written), uri) for uri in uris]  # `results` is a copy of that folder
    hostile = Path(results).parent / "hostile"
    for folder in (*own, *original, hostile):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "file").write_text("x")
    with closing(sqlite3.connect(Path(results) / "mlflow.db")) as connection:  # of somebody else, who wants a folder deleted
        connection.execute("UPDATE runs SET artifact_uri = ? WHERE run_uuid <> ?", (f"file://{hostile}", run.info.run_id))
        connection.commit()
    call("delete", "small", "--yes", "--store", results)
    answer = call("gc", "--yes", "--store", results)
    assert answer.status == 0
    assert "artifacts of 16 runs and models stay: " in answer.err
    assert str(hostile) in answer.err
    assert not any(folder.parent.exists() for folder in own)
    assert all((folder / "file").exists() for folder in (*original, hostile))
    assert rows(results, "SELECT count(*) FROM logged_models") == [(0,)]


def test_gc_deletes_nothing_in_remote_storage_that_a_database_names(results: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.store.artifact import artifact_repository_registry

    opened: list[str] = []
    monkeypatch.setattr(artifact_repository_registry, "get_artifact_repository", opened.append)
    call("delete", "small", "--yes", "--store", results)
    with closing(sqlite3.connect(Path(results) / "mlflow.db")) as connection:
        connection.execute("UPDATE runs SET artifact_uri = 's3://bucket/all/' || run_uuid || '/artifacts'")
        connection.commit()
    answer = call("gc", "--yes", "--store", results)
    assert answer.status == 0
    assert "artifacts of 17 runs and models stay: " in answer.err
    assert "s3://bucket/all/" in answer.err
    assert opened == []
    assert rows(results, "SELECT count(*) FROM runs") == [(0,)]


def test_a_sweep_that_runs_is_neither_deleted_nor_renamed(results: str) -> None:
    with Store(results) as store, store.hold("small"):
        for arguments in (["delete", "small", "--yes"], ["rename", "small", "large"]):
            answer = call(*arguments, "--store", results)
            assert answer.status == 2
            assert "is being driven by process" in answer.err
    assert call("list", "--names", "--store", results).out == "small\n"
    assert rows(results, EXPERIMENTS) == [("small", "active")]


def test_gc_while_a_sweep_runs_leaves_the_size_of_the_files_for_later(results: str) -> None:
    with Store(results) as store, store.hold("small"):
        store.save_checkpoints({"of nobody": Checkpoint(1, b"x")})
        answer = call("gc", "--yes", "--store", results)
        assert answer.status == 0
        assert "small runs, so the files keep their size for now" in answer.err
        assert not what_nobody_names(store)


def test_copy_hands_one_sweep_to_another_store_and_again_adds_what_is_new(results: str, tmp_path: Path) -> None:
    target = str(tmp_path / "theirs")
    answer = call("copy", "small", "--to", target, "--store", results)
    assert answer.status == 0, answer.err
    assert "small: 12 new records" in answer.out
    assert (
        call("report", "small", "--no-timing", "--store", target).out
        == call("report", "small", "--no-timing", "--store", results).out
    )
    assert "small: 0 new records" in call("copy", "small", "--to", target, "--store", results).out
    assert "is the store that small is in" in call("copy", "small", "--to", results, "--store", results).err
    assert call("copy", "smal", "--to", str(tmp_path / "none"), "--store", results).status == 2
    assert not (tmp_path / "none").exists()


def test_a_copy_takes_nothing_from_a_target_that_was_continued_or_has_another_sweep_of_that_name(
    results: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    target = str(tmp_path / "theirs")
    again = ("copy", "small", "--to", target, "--store", results)
    call(*again)
    with Store(target) as store:
        nau = store.configurations("small")[0]
        store.add_seeds("small", nau.cell, nau.number, {99: "new"})
        store.update_definition("small", "name: small # more seeds\n", {**DOCUMENT, "seeds": 4})
    with Store(results) as store:
        store.set_state("small", "stopped")
        store.add_records([lane(replace(nau, keys={0: "further"}), 0, 5000, 1e-9)])
        store.add_seeds("small", nau.cell, nau.number, {3: "further"}, reopen=False)
    assert "small: 1 new record in" in call(*again).out
    assert "'small' was continued in" in caplog.text
    with Store(target) as store:
        found, row = store.configurations("small")[0], store.sweep("small")
        assert (found.state, found.keys[99], row is not None and row.document["seeds"]) == ("running", "new", 4)
    with Store(tmp_path / "other") as store:
        made_sweep(store)
    answer = call("copy", "small", "--to", str(tmp_path / "other"), "--store", results)
    assert answer.status == 2
    assert "has another sweep named 'small': it was created at" in answer.err


def test_the_list_says_which_sweep_has_the_same_file_as_another(results: str) -> None:
    with Store(results) as store:
        other_sweep(store)
        store.set_state("other", "done")
    assert call("list", "--store", results).out == "small  done\nother  done (the same sweep as small)\n"


def test_a_store_of_a_newer_release_is_refused_by_every_verb_that_would_change_it(results: str) -> None:
    with closing(sqlite3.connect(Path(results) / "sweeps.db")) as connection:
        connection.execute("UPDATE sweeps_schema SET version = 99")
        connection.commit()
    for arguments in (["rename", "small", "large"], ["delete", "small", "--yes"], ["gc", "--yes"],
                      ["copy", "small", "--to", f"{results}-2"]):  # fmt: skip
        answer = call(*arguments, "--store", results)
        assert answer.status == 2
        assert "schema version 99; this installation of sweeps reads up to" in answer.err
    assert rows(results, EXPERIMENTS) == [("small", "active")]


def test_a_driver_cannot_begin_a_name_while_it_is_deleted(results: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def meanwhile(*_: object) -> None:
        with Store(results) as there, there.hold("small"):
            pytest.fail("held twice")

    monkeypatch.setattr(removal, "delete_sweeps", meanwhile)
    answer = call("delete", "small", "--yes", "--store", results)
    assert answer.status == 2
    assert "is being driven by process" in answer.err


def test_a_deletion_that_is_killed_before_the_store_is_changed_loses_nothing(
    results: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    before = call("report", "small", "--no-timing", "--store", results).out
    with monkeypatch.context() as patch:
        patch.setattr(removal, "delete_sweeps", killed)
        assert call("delete", "small", "--yes", "--store", results).status != 0
    assert rows(results, "SELECT DISTINCT lifecycle_stage FROM runs") == [("deleted",)]
    assert call("report", "small", "--no-timing", "--store", results).out == before
    assert call("sync", "small", "--store", results).out == f"small: 17 runs in sqlite:///{results}/mlflow.db, complete\n"
    assert rows(results, "SELECT lifecycle_stage, count(*) FROM runs GROUP BY 1") == [("active", 17)]
    assert rows(results, EXPERIMENTS) == [("small", "active")]


def test_a_deletion_is_refused_where_mlflow_cannot_be_opened_unless_without_it(results: str) -> None:
    (Path(results) / "mlflow.db").write_bytes(b"no database, but as long as one would be at the least " * 100)
    answer = call("delete", "small", "--yes", "--store", results)
    assert answer.status == 2
    assert "--no-mlflow deletes without them" in answer.err
    assert call("list", "--names", "--store", results).out == "small\n"
    assert call("delete", "small", "--yes", "--no-mlflow", "--store", results).status == 0
    assert call("list", "--names", "--store", results).out == ""


def test_runs_that_other_stores_share_are_deleted_only_on_request(
    results: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        assert call("copy", "small", "--to", str(tmp_path / name), "--store", results).status == 0
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{results}/mlflow.db")
    answer = call("delete", "small", "--yes", "--store", str(tmp_path / "a"))
    assert answer.status == 0
    assert "17 runs in MLflow stay: other stores that have a copy of this sweep share them. --mlflow" in answer.err
    assert rows(results, "SELECT DISTINCT lifecycle_stage FROM runs") == [("active",)]
    assert call("delete", "small", "--yes", "--mlflow", "--store", str(tmp_path / "b")).status == 0
    assert rows(results, "SELECT DISTINCT lifecycle_stage FROM runs") == [("deleted",)]


@pytest.mark.slow
def test_mlflow_is_written_again_where_its_database_was_deleted(results: str) -> None:
    from sweeps.cli.tracking import _fill_if_absent

    file = Path(results) / "mlflow.db"
    before = file.stat().st_ino
    _fill_if_absent(f"sqlite:///{file}", results)
    assert file.stat().st_ino == before
    file.unlink()
    _fill_if_absent(f"sqlite:///{file}", results)
    assert rows(results, "SELECT lifecycle_stage, count(*) FROM runs GROUP BY 1") == [("active", 17)]
    assert rows(results, EXPERIMENTS) == [("small", "active")]


def test_a_sweep_whose_records_are_damaged_keeps_no_other_from_mlflow(results: str, caplog: pytest.LogCaptureFixture) -> None:
    from sweeps.cli.tracking import _fill_if_absent

    with Store(results) as store:
        store.begin_sweep("bad", "x", {**DOCUMENT, "name": "bad"})
        store.add_configuration("bad", configuration("nau", 0))
    with closing(sqlite3.connect(Path(results) / "sweeps.db")) as database:
        database.execute("UPDATE configurations SET settings = '{' WHERE sweep = 'bad'")
        database.commit()
    (Path(results) / "mlflow.db").unlink()
    _fill_if_absent(f"sqlite:///{results}/mlflow.db", results)
    assert "the sweep 'bad' is not written to MLflow" in caplog.text
    assert rows(results, "SELECT lifecycle_stage, count(*) FROM runs GROUP BY 1") == [("active", 17)]


def test_a_sweep_that_mlflow_does_not_have_is_renamed_in_the_store_alone(results: str) -> None:
    with Store(results) as store:
        store.begin_sweep("other", "x", {**DOCUMENT, "name": "other"})
    assert call("rename", "other", "another", "--store", results).status == 0
    assert rows(results, EXPERIMENTS) == [("small", "active")]


@pytest.mark.slow  # making MLflow's tables takes seconds
def test_a_sweep_in_postgresql_is_deleted_from_store_and_mlflow(
    new_database: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psycopg

    monkeypatch.setenv("MLFLOW_TRACKING_URI", new_database)
    with Store(new_database) as store:
        made_sweep(store)
        sync("small", store, new_database)
        other_sweep(store)
    assert call("rename", "small", "large", "--store", new_database).status == 0
    shown = call("delete", "large", "--dry-run", "--mlflow", "--store", new_database)
    assert "4 configurations, 12 lanes, 9 records" in shown.out
    assert "17 runs in MLflow" in shown.out
    answer = call("delete", "large", "--yes", "--mlflow", "--store", new_database)
    assert (answer.status, answer.err) == (0, "")
    assert call("list", "--names", "--store", new_database).out == "other\n"
    answer = call("gc", "--yes", "--store", new_database)
    assert (answer.status, answer.err) == (0, "")
    with psycopg.connect(new_database) as connection:
        for table in ("runs", "metrics", "tags", "params", "latest_metrics"):
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)  # type: ignore[arg-type]
        assert connection.execute("SELECT count(*) FROM records").fetchone() == (3,)
