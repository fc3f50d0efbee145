"""A sweep in MLflow: what its runs hold, that writing twice is writing once, and addresses."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tracked import FILE, configuration, ranked, record, records_of, small_sweep

from sweeps.config.space import Objective
from sweeps.config.sweep_file import Sweep, parse
from sweeps.errors import TrackingError, UserError
from sweeps.results.figures import against_step
from sweeps.results.metrics import solved_fraction
from sweeps.results.report import ranked as in_order
from sweeps.results.summary import RankedConfiguration
from sweeps.store.records import Stopped
from sweeps.tracking import Tracker, client, default_uri, rows, serve, server, stop
from sweeps.tracking.client import without_password
from sweeps.tracking.runs import Changed
from sweeps.training.lane import LaneResult

CREATED = "2026-01-02T03:04:05+00:00"


@pytest.fixture(scope="module")
def sweep() -> Sweep:
    return small_sweep()


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh mlflow.db, made once: that takes seconds."""
    folder = tmp_path_factory.mktemp("mlflow")
    other = parse("name: other\ntask: static\nmodel: nau\ntrain: {steps: 10}\n", "o.yaml")
    Tracker(uri_of(folder), other, created="2026-01-01T03:04:05+00:00").begin()
    return folder / "mlflow.db"


@pytest.fixture
def uri(empty: Path, tmp_path: Path) -> str:
    return copied(empty, tmp_path)


def copied(database: Path, folder: Path) -> str:
    """URI of a copy. Not of the file's bytes: the latest writes may still be in its write-ahead log."""
    with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(folder / "mlflow.db")) as copy:
        source.backup(copy)
    return uri_of(folder)


def uri_of(folder: Path) -> str:
    return f"sqlite:///{folder / 'mlflow.db'}"


def write_all(tracker: Tracker, sweep: Sweep) -> None:
    tracker.begin()
    for cell in (0, 1):
        for number in (0, 1):
            one = configuration(sweep, cell, number, state="complete")
            tracker.start(one)
            tracker.lanes(one, records_of(one)[:2])
            tracker.complete(ranked(one, records_of(one)))
    ranks = {(sweep.cells[cell].key, number): number + 1 for cell in (0, 1) for number in (0, 1)}
    tracker.finish("done", "| model | solved |\n|---|---|\n| nau | 1 |", ranks)


def runs(uri: str, name: str = "small") -> list[Any]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], max_results=5000))


def content(uri: str) -> dict[str, Any]:
    """All that MLflow holds of the sweep, clocks and run ids apart."""
    found = runs(uri)
    names = {run.info.run_id: run.info.run_name for run in found}
    return {
        " ".join([run.data.tags.get("cell", ""), run.info.run_name]): (
            run.info.status,
            run.data.params,
            run.data.metrics,
            {k: names.get(v, v) for k, v in run.data.tags.items()},
        )
        for run in found
    }


def the_run(uri: str, name: str, cell: str = "model=nau") -> Any:
    [found] = [run for run in runs(uri) if run.info.run_name == name and run.data.tags.get("cell", cell) == cell]
    return found


def test_a_sweep_becomes_nested_runs_with_readable_names(uri: str, sweep: Sweep) -> None:
    write_all(Tracker(uri, sweep, created=CREATED), sweep)
    found = {run.info.run_id: run for run in runs(uri)}
    assert len(found) == 1 + 4 + 12 and all(run.info.status == "FINISHED" for run in found.values())
    seed = the_run(uri, "c001 nau s002 diverged")
    parent = found[seed.data.tags["mlflow.parentRunId"]]
    assert parent.info.run_name == "c001 nau lr=3.2e-3 noise=off"
    assert found[parent.data.tags["mlflow.parentRunId"]].info.run_name == "small"


def test_tags_parameters_and_metrics_are_those_of_the_design(uri: str, sweep: Sweep) -> None:
    write_all(Tracker(uri, sweep, created=CREATED), sweep)
    seed, lost = the_run(uri, "c001 nau s000 solved"), the_run(uri, "c001 nau s002 diverged")
    [parent] = [run for run in runs(uri) if run.info.run_id == seed.data.tags["mlflow.parentRunId"]]
    wanted = {"level": "seed", "cell": "model=nau", "model": "nau", "task": "static", "configuration": "1", "rank": "2",
              "outcome": "solved", "digest": "key-0-1-0"}  # fmt: skip
    assert wanted.items() <= seed.data.tags.items()
    assert lost.data.tags["outcome"] == "diverged" and parent.data.tags["outcome"] == "unsolved"
    of_sweep = {"level": "sweep", "model": "linear, nau", "task": "static"}
    assert of_sweep.items() <= the_run(uri, "small").data.tags.items()
    assert seed.data.params == {**parent.data.params, "seed": "0"}
    assert seed.data.params["train.lr"] == "0.0032" and seed.data.params["task.operation"] == "add"
    values = {"solved": 1.0, "converged_at": 2000.0, "sparsity_error": 0.01, "error.interpolation": 5e-6,
               "error.extrapolation": 1e-5, "steps": 3000.0, "curve.error.extrapolation": 1e-5}  # fmt: skip
    assert values.items() <= seed.data.metrics.items()
    assert "converged_at" not in lost.data.metrics and lost.data.metrics["solved"] == 0.0
    one_third = {"success_rate": 1 / 3, "par2": (2000 + 6000 + 6000) / 3, "converged_at.mean": 2000.0,
                 "converged_at.median": 2000.0, "diverged": 1.0, "seed_steps": 9000.0, "solved_fraction": 1 / 3,
                 "objective": (2000 + 6000 + 6000) / 3, "error.extrapolation.median": 0.7,
                 "error.interpolation.median": 0.35}  # fmt: skip
    assert one_third == pytest.approx({key: parent.data.metrics[key] for key in one_third})
    assert {"lr": "3.2e-3", "noise": "off"}.items() <= parent.data.tags.items()
    assert parent.data.metrics["success_rate.low"] < 1 / 3 < parent.data.metrics["success_rate.high"]


def test_the_description_holds_question_table_and_command(uri: str, sweep: Sweep) -> None:
    from mlflow.tracking import MlflowClient

    write_all(Tracker(uri, sweep, created=CREATED, command="sweeps run small.yaml"), sweep)
    note = the_run(uri, "small").data.tags["mlflow.note.content"]
    assert note == "Which unit adds?\n\n| model | solved |\n|---|---|\n| nau | 1 |\n\n    sweeps run small.yaml\n"
    experiment = MlflowClient(uri).get_experiment_by_name("small")
    assert experiment is not None and experiment.tags["mlflow.note.content"] == note


def test_writing_twice_is_writing_once(uri: str, sweep: Sweep) -> None:
    from mlflow.tracking import MlflowClient

    write_all(Tracker(uri, sweep, created=CREATED), sweep)
    before = content(uri)
    write_all(Tracker(uri, sweep, created=CREATED), sweep)
    assert content(uri) == before
    history = MlflowClient(uri).get_metric_history(
        the_run(uri, "c001 nau s000 solved").info.run_id, "curve.error.extrapolation"
    )
    assert [(m.step, m.value) for m in history] == [(0, 1.0), (1000, 0.5), (2000, 1e-4), (3000, 1e-5)]


def test_sync_from_the_store_gives_what_the_driver_wrote(uri: str, sweep: Sweep, empty: Path, tmp_path: Path) -> None:
    write_all(Tracker(uri, sweep, created=CREATED), sweep)
    (tmp_path / "again").mkdir()
    again = copied(empty, tmp_path / "again")
    everything = []
    for cell in (0, 1):
        for number in (0, 1):
            one = configuration(sweep, cell, number, state="complete")
            everything.append(ranked(one, records_of(one), rank=number + 1))
    Tracker(again, sweep, created=CREATED).sync(everything, "done", "| model | solved |\n|---|---|\n| nau | 1 |")
    assert content(again) == content(uri)


def test_a_stopped_sweep_leaves_nothing_running_and_continues_in_the_same_runs(uri: str, sweep: Sweep) -> None:
    one = configuration(sweep)
    tracker = Tracker(uri, sweep, created=CREATED)
    tracker.begin()
    tracker.start(one)
    tracker.lanes(one, [record(one, 0)])
    tracker.finish("stopped")
    assert sorted(run.info.status for run in runs(uri)) == ["FINISHED", "KILLED", "KILLED"]

    tracker = Tracker(uri, sweep, created=CREATED)
    tracker.begin()
    tracker.start(one)
    assert sorted(run.info.status for run in runs(uri)) == ["FINISHED", "RUNNING", "RUNNING"]
    tracker.complete(ranked(dataclasses.replace(one, state="complete"), records_of(one)))
    tracker.finish("done")
    assert [run.info.status for run in runs(uri)] == ["FINISHED"] * 5


def test_a_configuration_that_lost_its_rank_has_none(uri: str, sweep: Sweep) -> None:
    """As after an extension that was stopped: more seeds of it are wanted."""
    write_all(Tracker(uri, sweep, created=CREATED), sweep)
    key = sweep.cells[0].key
    tracker = Tracker(uri, sweep, created=CREATED)
    tracker.finish("stopped")
    assert sorted(run.data.tags["rank"] for run in runs(uri) if run.data.tags.get("cell") == key) == ["1"] * 4 + ["2"] * 4
    tracker.finish("stopped", "", {(key, 1): 1})
    ranks = {run.data.tags["configuration"]: run.data.tags["rank"] for run in runs(uri) if run.data.tags.get("cell") == key}
    assert ranks == {"0": "", "1": "1"}


def test_a_sync_that_was_interrupted_does_not_count_as_complete(uri: str, sweep: Sweep) -> None:
    one = configuration(sweep, state="complete")

    def interrupted() -> Iterator[RankedConfiguration]:
        yield ranked(one, records_of(one))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Tracker(uri, sweep, created=CREATED).sync(interrupted(), "done")
    assert client.experiment_of(uri, "small", CREATED) is None
    Tracker(uri, sweep, created=CREATED).sync([ranked(one, records_of(one))], "done")
    assert client.experiment_of(uri, "small", CREATED) is not None


def test_texts_that_a_database_cannot_hold_are_written_with_escapes(uri: str, sweep: Sweep) -> None:
    one = configuration(sweep)
    settings = {**one.settings, "task": {**one.settings["task"], "note": "half \udcff"}}
    tracker = Tracker(uri, sweep, created=CREATED)
    tracker.lanes(dataclasses.replace(one, settings=settings), [record(one, 0, "error", reason="nul \0, half \udcff")])
    found = the_run(uri, "c001 nau s000 error")
    assert "nul \\0, half \\udcff" in found.data.tags["why"] and found.data.params["task.note"] == "half \\udcff"


@pytest.mark.parametrize("bulk", [True, False])
def test_a_database_that_is_deleted_while_it_is_written_is_made_anew(
    uri: str, sweep: Sweep, bulk: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not bulk:
        monkeypatch.setattr("sweeps.tracking.bulk.TESTED", frozenset())
    tracker, one = Tracker(uri, sweep, created=CREATED), configuration(sweep)
    tracker.lanes(one, [record(one, 0)])
    file = Path(uri.removeprefix("sqlite:///"))
    for ending in ("", "-wal", "-shm"):
        Path(f"{file}{ending}").unlink(missing_ok=True)
    for _ in range(2):  # nothing is written to the old file, and the new one is empty
        with pytest.raises(Changed) as raised:
            tracker.lanes(one, [record(one, 1)])
        assert raised.value.lost
    tracker.lanes(one, [record(one, 1)])
    assert [run.data.tags["seed"] for run in runs(uri) if run.data.tags["level"] == "seed"] == ["1"]


@pytest.mark.parametrize("what", ["configuration", "experiment"])
def test_what_the_user_deletes_while_the_sweep_is_written_is_read_again(uri: str, sweep: Sweep, what: str) -> None:
    from mlflow.tracking import MlflowClient

    tracker, one = Tracker(uri, sweep, created=CREATED), configuration(sweep)
    tracker.lanes(one, [record(one, 0)])
    client, parent = MlflowClient(uri), next(run for run in runs(uri) if run.data.tags["level"] == "configuration")
    if what == "configuration":
        client.delete_run(parent.info.run_id)
    else:
        client.delete_experiment(parent.info.experiment_id)
    with pytest.raises(Changed) as raised:
        tracker.lanes(one, [record(one, 1)])
    assert not raised.value.lost
    tracker.lanes(one, [record(one, 1)])
    seeds = sorted(run.data.tags["seed"] for run in runs(uri) if run.data.tags["level"] == "seed")
    assert seeds == (["0"] if what == "configuration" else ["0", "1"])


def test_a_configuration_that_was_stopped_early_is_a_killed_run_that_says_where(uri: str, sweep: Sweep) -> None:
    one = configuration(sweep, seeds=(0, 1, 2, 3), state="pruned", stopped=Stopped(2, 3000, "par2 is worse than that of #0"))
    Tracker(uri, sweep, created=CREATED).complete(ranked(one, [record(one, 0), record(one, 1)]))
    found = {run.info.run_name: run for run in runs(uri)}
    parent = next(run for run in found.values() if run.data.tags["level"] == "configuration")
    assert (parent.info.status, parent.data.tags["outcome"]) == ("KILLED", "pruned")
    assert parent.data.tags["stopped"] == "after 2 seeds of 3000 steps: par2 is worse than that of #0"
    seeds = {name: run.info.status for name, run in found.items() if run.data.tags["level"] == "seed"}
    assert seeds == {"c001 nau s000 solved": "FINISHED", "c001 nau s001 solved": "FINISHED"}


def test_confirmation_is_further_seeds_and_metrics_of_the_same_configuration(uri: str, sweep: Sweep) -> None:
    one = configuration(sweep, state="complete")
    fresh = tuple(dataclasses.replace(record(one, 0), key=f"fresh-{seed}", seed=seed) for seed in (1000, 1001))
    confirmed = dataclasses.replace(ranked(one, records_of(one)), confirmation=fresh, seeds_to_confirm=2)
    Tracker(uri, sweep, created=CREATED).complete(confirmed)
    found = {run.info.run_name: run for run in runs(uri)}
    assert (
        found["c001 nau s1000 solved"].data.tags["phase"] == "confirmation"
        and "phase" not in found["c001 nau s000 solved"].data.tags
    )
    parent = next(run for run in found.values() if run.data.tags["level"] == "configuration")
    assert parent.data.metrics["success_rate"] == pytest.approx(1 / 3)
    assert parent.data.metrics["confirmation.success_rate"] == 1.0


def test_a_failed_lane_is_a_failed_run_and_its_later_record_takes_its_place(uri: str, sweep: Sweep) -> None:
    one = configuration(sweep, seeds=(0,))
    tracker = Tracker(uri, sweep, created=CREATED)
    broken = record(one, 0, "error", steps=10, error={}, curve={}, sparsity_error=None, reason="out of memory")
    tracker.complete(ranked(dataclasses.replace(one, state="failed"), [broken]))
    assert the_run(uri, "c001 nau s000 error").info.status == "FAILED"
    tracker = Tracker(uri, sweep, created=CREATED)
    tracker.complete(ranked(dataclasses.replace(one, state="complete"), [record(one, 0)]))
    run = the_run(uri, "c001 nau s000 solved")
    assert (run.info.status, run.data.tags["outcome"], run.data.metrics["solved"]) == ("FINISHED", "solved", 1.0)


def test_more_seeds_replace_a_configurations_metrics(uri: str, sweep: Sweep) -> None:
    """The rate falls from 1 to 1/3: MLflow shows the greater of two values with one place, so the place must move."""
    one = configuration(sweep)
    tracker = Tracker(uri, sweep, created=CREATED)
    for count in (1, 3):
        tracker.complete(ranked(one, records_of(one)[:count]))
    [parent] = [run for run in runs(uri) if run.data.tags["level"] == "configuration"]
    assert parent.data.metrics["success_rate"] == pytest.approx(1 / 3)


def test_more_steps_continue_the_same_runs(uri: str, sweep: Sweep) -> None:
    one = configuration(sweep, seeds=(0,))
    longer = dataclasses.replace(one, settings={**one.settings, "train": {**one.settings["train"], "steps": 9000}})
    tracker = Tracker(uri, sweep, created=CREATED)
    lost, won = record(one, 0, "unsolved"), record(one, 0, budget=9000, steps=9000)
    tracker.complete(ranked(one, [lost]))
    tracker.complete(ranked(longer, [won]))
    run = the_run(uri, "c001 nau s000 solved")
    assert (run.data.tags["budget"], run.data.metrics["solved"], run.data.metrics["steps"]) == ("9000", 1.0, 9000.0)


def test_a_sweep_begun_again_has_runs_of_its_own(uri: str, sweep: Sweep) -> None:
    write_all(Tracker(uri, sweep, created=CREATED), sweep)
    write_all(Tracker(uri, sweep, created="2026-01-03T03:04:05+00:00"), sweep)
    assert len(runs(uri)) == 2 * 17


def test_a_request_that_failed_between_two_others_is_completed(uri: str, sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.tracking import MlflowClient

    monkeypatch.setattr("sweeps.tracking.bulk.TESTED", frozenset())  # so that the client writes
    one = configuration(sweep)
    tracker = Tracker(uri, sweep, created=CREATED)
    tracker.start(one)
    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "log_batch", lambda *_, **__: 1 / 0)
        with pytest.raises(TrackingError, match="could not write 1 runs: division by zero"):
            tracker.lanes(one, [record(one, 0)])
    assert the_run(uri, "c001 nau s000 solved").info.status == "RUNNING"
    tracker.lanes(one, [record(one, 0)])
    assert the_run(uri, "c001 nau s000 solved").data.metrics["solved"] == 1.0 and len(runs(uri)) == 3


@pytest.mark.parametrize(("method", "call"), [("update_run", 1), ("log_batch", 1), ("set_terminated", 1), ("log_batch", 2)])
def test_another_result_of_a_seed_that_was_half_written_is_completed(
    uri: str, sweep: Sweep, monkeypatch: pytest.MonkeyPatch, method: str, call: int
) -> None:
    from mlflow.tracking import MlflowClient

    monkeypatch.setattr("sweeps.tracking.bulk.TESTED", frozenset())
    one = configuration(sweep)
    tracker = Tracker(uri, sweep, created=CREATED)
    tracker.lanes(one, [record(one, 0, "error", reason="full")])
    real, calls = getattr(MlflowClient, method), []

    def killed(*args: Any, **kwargs: Any) -> None:
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        real(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, method, killed)
        with pytest.raises(KeyboardInterrupt):
            tracker.lanes(one, [record(one, 0)])
    Tracker(uri, sweep, created=CREATED).lanes(one, [record(one, 0)])
    found = the_run(uri, "c001 nau s000 solved")
    assert (found.info.status, found.data.tags["verdict"], found.data.metrics["solved"]) == ("FINISHED", "solved", 1.0)


def test_long_curves_and_many_parameters_keep_to_mlflows_limits(uri: str, sweep: Sweep) -> None:
    one = configuration(sweep)
    settings = {**one.settings, "task": {**one.settings["task"], **{f"extra{i}": i for i in range(150)}}}
    one = dataclasses.replace(one, settings=settings)
    steps = list(range(5000))
    columns = {f"error.split{i}": [1.0] * 5000 for i in range(8)}
    long = record(one, 0, converged_at=1234, curve={"step": steps, "error.extrapolation": [1.0] * 5000, **columns})
    Tracker(uri, sweep, created=CREATED).lanes(one, [long])
    run = the_run(uri, "c001 nau s000 solved, lost at the end")
    assert len(run.data.params) > 150 and run.info.status == "FINISHED"


def test_a_store_that_is_no_mlflow_is_one_typed_error(tmp_path: Path, sweep: Sweep) -> None:
    (tmp_path / "mlflow.db").write_text("not a database, but long enough to be taken for one" * 100)
    with pytest.raises(TrackingError, match="could not be opened"):
        Tracker(uri_of(tmp_path), sweep, created=CREATED).begin()


def test_a_server_that_is_down_is_one_typed_error(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with pytest.raises(TrackingError, match="could not be opened"):
        Tracker(f"http://127.0.0.1:{port}", sweep, created=CREATED).begin()


@pytest.mark.slow
def test_a_new_store_is_made_without_noise_and_mlflow_is_imported_only_then(tmp_path: Path) -> None:
    program = (
        "import sys, sweeps.tracking as t\n"
        "from sweeps.config.sweep_file import parse\n"
        "assert 'mlflow' not in sys.modules\n"
        f"sweep = parse({FILE!r}, 'small.yaml')\n"
        f"t.Tracker({uri_of(tmp_path / 'new')!r}, sweep, created={CREATED!r}).begin()\n"
    )
    env = {**os.environ, "PYTHONPATH": os.getcwd()}
    done = subprocess.run([sys.executable, "-c", program], env=env, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
    assert {path.name for path in tmp_path.iterdir()} == {"new"}  # and no mlruns in the working folder


@pytest.mark.slow
def test_the_pages_are_served_and_stopped(uri: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = serve(uri, port=port)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as page:
            assert page.status == 200
        parent = psutil.Process(process.pid)
        words = [word for one in (parent, *parent.children(recursive=True)) for word in one.cmdline()]
        assert not any(uri in word for word in words), "everybody sees command lines, and a URI may hold a password"
        with pytest.raises(UserError, match=f"Try --port {port + 1}"):
            serve(uri, port=port)
    finally:
        stop(process)
    assert process.poll() is not None


def test_what_the_pages_ask_first_is_requested_before_they_are_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(500 if len(asked) == 1 else 404)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as here:
        threading.Thread(target=here.serve_forever, daemon=True).start()
        monkeypatch.setattr(server, "started", lambda *_: None)
        monkeypatch.setattr(server, "check_port", lambda *_: None)
        monkeypatch.setattr(server, "prepare", lambda *_: None)
        serve("sqlite://", port=here.server_port)
        here.shutdown()
    assert asked == ["/ajax-api/3.0/mlflow/server-info", "/graphql"]


def test_a_server_is_not_served_again() -> None:
    with pytest.raises(UserError, match="https://host is an MLflow server already"):
        serve("https://me:secret@host")


# ------------------------------------------------------------------------------------------- without MLflow


def test_names_are_short_and_distinguish_two_paths(sweep: Sweep) -> None:
    assert rows.short_name("train.gradient_noise", ["train.lr"]) == "noise"  # type: ignore[arg-type]
    assert rows.short_name("a.weight_noise", ["train.gradient_noise"]) == "weight_noise"  # type: ignore[arg-type]
    assert rows.short_name("task.noise", ["model.noise"]) == "task.noise"  # type: ignore[arg-type]
    assert [rows.short_value(v) for v in (3.2e-3, 1e-3, 0.0, 0.25, 90.0, 99.6, 200.0, 12345.0, 4, "adam")] == [
        "3.2e-3", "1e-3", "0", "0.25", "90", "1e2", "2e2", "1.2e4", "4", "adam",
    ]  # fmt: skip
    name = rows.configuration_name(configuration(sweep, number=0), sweep.cells[0].space)
    assert set(name.split()) == {"c000", "nau", "lr=1e-3", "noise=off"}


def test_the_fraction_that_has_converged_is_the_same_in_mlflow_and_in_a_figure(sweep: Sweep) -> None:
    """Seeds: below from 2000 on; below at 1000 only; stopped at 1000 when solved; diverged after 1000 while below."""
    one = configuration(sweep, seeds=(0, 1, 2, 3))

    def seed(number: int, outcome: str, converged_at: int, errors: list[float]) -> LaneResult:
        columns = {"step": [1000 * i for i in range(len(errors))], "error.extrapolation": errors}
        return record(one, number, outcome, converged_at=converged_at, curve=columns)

    seeds = [
        seed(0, "solved", 2000, [1.0, 1.0, 1e-4, 1e-5]),
        seed(1, "unsolved", 1000, [1.0, 1e-4, 1.0, 1.0]),
        seed(2, "solved", 1000, [1.0, 1e-5]),
        seed(3, "diverged", 1000, [1.0, 1e-4]),
    ]

    def points(results: list[LaneResult]) -> list[tuple[int, float]]:
        found = rows.configuration_points(ranked(one, results), Objective())
        return [(point.step, point.value) for point in found if point.key == "solved_fraction"]

    assert points(seeds) == [(0, 0.0), (1000, 0.75), (2000, 1.0), (3000, 1.0)]
    drawn = against_step("nau", seeds, "solved_fraction").middle
    assert [(step, rate) for step, rate in points(seeds) if step in drawn.x] == list(zip(drawn.x, drawn.y, strict=True))
    assert [(step, rate.estimate) for step, rate in solved_fraction(seeds)] == list(zip(drawn.x, drawn.y, strict=True))
    without = [dataclasses.replace(s, threshold=None, converged_at=None) for s in seeds]
    assert points(without) == [] and against_step("nau", without, "solved_fraction").middle.x == []


@given(count=st.integers(1, 3000), keep=st.integers(0, 2999))
def test_a_thinned_curve_keeps_its_ends_and_its_crossing(count: int, keep: int) -> None:
    places = rows.thinned(count, [keep % count])
    assert len(places) <= 200 and places == sorted(set(places))
    assert {0, count - 1, keep % count} <= set(places)
    assert count > 200 or len(places) == count


def test_the_default_store_of_runs_is_in_the_folder_of_the_records(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert default_uri(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://somewhere")
    assert default_uri(tmp_path) == "http://somewhere"


@pytest.mark.parametrize("scheme", ["postgres", "postgresql"])
def test_an_uri_of_postgresql_names_the_driver_that_is_installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, scheme: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{scheme}://me:secret@there/mlflow")
    assert default_uri(tmp_path) == "postgresql+psycopg://me:secret@there/mlflow"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql+psycopg2://me@there/mlflow")
    assert default_uri(tmp_path) == "postgresql+psycopg2://me@there/mlflow"


def test_passwords_are_not_shown() -> None:
    assert without_password("https://me:secret@host:5000/x@y") == "https://host:5000/x@y"
    assert without_password("sqlite:////a/mlflow.db") == "sqlite:////a/mlflow.db"


def everything(uri: str) -> dict[str, list[str]]:
    """The names of all runs by the name of their experiment, deleted ones too."""
    from mlflow.entities import ViewType
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    return {
        one.name: sorted(run.info.run_name for run in client.search_runs([one.experiment_id], "", ViewType.ALL, 5000))
        for one in client.search_experiments(ViewType.ALL)
        if one.name not in ("Default", "other")
    }


def sync_all(uri: str, sweep: Sweep, created: str = CREATED) -> None:
    found = []
    for cell in (0, 1):
        for number in (0, 1):
            one = configuration(sweep, cell, number, state="complete")
            found.append(ranked(one, records_of(one), rank=number + 1))
    Tracker(uri, sweep, created=created).sync(found, "done")


def experiment_of(uri: str, name: str = "small") -> str:
    from mlflow.tracking import MlflowClient

    found = MlflowClient(uri).get_experiment_by_name(name)
    assert found is not None
    return str(found.experiment_id)


@pytest.mark.parametrize("tagged", [True, False])
def test_an_experiment_that_was_renamed_keeps_its_runs_and_its_name(
    uri: str, sweep: Sweep, tagged: bool, caplog: pytest.LogCaptureFixture
) -> None:
    from mlflow.tracking import MlflowClient

    sync_all(uri, sweep)
    before = everything(uri)["small"]
    if not tagged:  # as earlier releases wrote it
        MlflowClient(uri).delete_tag(the_run(uri, "small").info.run_id, "name")
    MlflowClient(uri).rename_experiment(experiment_of(uri), "addition, final")
    sync_all(uri, sweep)
    Tracker(uri, sweep, created=CREATED).begin()
    assert everything(uri) == {"addition, final": before}
    assert "the runs of 'small' are in MLflow's experiment 'addition, final'" in caplog.text


def test_an_experiment_that_was_deleted_is_restored_by_sync_without_a_second_copy(
    uri: str, sweep: Sweep, caplog: pytest.LogCaptureFixture
) -> None:
    from mlflow.tracking import MlflowClient

    sync_all(uri, sweep)
    before = content(uri)
    MlflowClient(uri).rename_experiment(experiment_of(uri), "final")
    MlflowClient(uri).delete_experiment(experiment_of(uri, "final"))
    sync_all(uri, sweep)
    assert {name: len(found) for name, found in everything(uri).items()} == {"final": 17}
    MlflowClient(uri).rename_experiment(experiment_of(uri, "final"), "small")
    assert content(uri) == before
    assert "the experiment 'final' was deleted in MLflow: it is restored, with its runs" in caplog.text


def test_runs_that_were_deleted_stay_so_while_the_sweep_runs_and_are_restored_by_sync(uri: str, sweep: Sweep) -> None:
    from mlflow.tracking import MlflowClient

    sync_all(uri, sweep)
    before = content(uri)
    seed, parent = (
        the_run(uri, "c001 nau s000 solved"),
        the_run(uri, "c000 linear s001 on its way", "model=linear").data.tags["mlflow.parentRunId"],
    )
    for deleted in (seed.info.run_id, parent):
        MlflowClient(uri).delete_run(deleted)
    write_all(Tracker(uri, sweep, created=CREATED), sweep)
    assert len(runs(uri)) == 15
    sync_all(uri, sweep)
    assert content(uri).keys() == before.keys() and len(everything(uri)["small"]) == 17
    assert the_run(uri, "c001 nau s000 solved").data.metrics == seed.data.metrics
    MlflowClient(uri).delete_run(the_run(uri, "small").info.run_id)
    write_all(Tracker(uri, sweep, created=CREATED), sweep)
    assert len(runs(uri)) == len(everything(uri)["small"]) == 17


def test_an_experiment_of_somebody_else_with_the_sweeps_name_is_left_alone(
    uri: str, sweep: Sweep, caplog: pytest.LogCaptureFixture
) -> None:
    from mlflow.tracking import MlflowClient

    theirs = MlflowClient(uri).create_experiment("small", tags={"mlflow.note.content": "mine!"})
    MlflowClient(uri).create_run(theirs, run_name="baseline")
    for _ in range(2):
        sync_all(uri, sweep)
    found = everything(uri)
    assert found["small"] == ["baseline"] and len(found[f"small {CREATED}"]) == 17 and len(found) == 2
    assert MlflowClient(uri).get_experiment(theirs).tags["mlflow.note.content"] == "mine!"
    assert f"named 'small': the runs are in 'small {CREATED}'" in caplog.text


def test_an_empty_experiment_of_the_sweeps_name_is_used(uri: str, sweep: Sweep) -> None:
    """A sweep that was killed left it, or somebody prepared it."""
    from mlflow.tracking import MlflowClient

    MlflowClient(uri).create_experiment("small")
    sync_all(uri, sweep)
    assert {name: len(found) for name, found in everything(uri).items()} == {"small": 17}


def test_a_sweep_begun_again_does_not_restore_the_deleted_experiment_of_the_old_one(uri: str, sweep: Sweep) -> None:
    from mlflow.tracking import MlflowClient

    sync_all(uri, sweep)
    MlflowClient(uri).delete_experiment(experiment_of(uri))
    again = "2026-01-03T03:04:05+00:00"
    for _ in range(2):
        sync_all(uri, sweep, again)
    found = everything(uri)
    assert len(found["small"]) == len(found[f"small {again}"]) == 17
    assert MlflowClient(uri).get_experiment_by_name("small").lifecycle_stage == "deleted"  # type: ignore[union-attr]


def test_a_sweep_renamed_in_the_store_keeps_its_runs_beside_those_of_the_new_one(uri: str, sweep: Sweep) -> None:
    write_all(Tracker(uri, sweep, created=CREATED), sweep)
    before = {run.info.run_id for run in runs(uri)}
    write_all(Tracker(uri, sweep, created="2026-01-03T03:04:05+00:00"), sweep)
    found = [ranked(one, records_of(one)) for one in (configuration(sweep, 0, 0, state="complete"),)]
    Tracker(uri, sweep, created=CREATED, name="small-numerics-1").sync(found, "done")
    after = {run.info.run_id: run for run in runs(uri)}
    assert before < set(after) and len(after) == 2 * len(before)
    renamed = {id for id, run in after.items() if run.info.run_name == run.data.tags.get("name") == "small-numerics-1"}
    assert len(renamed) == 1 and renamed < before


def test_runs_that_an_earlier_release_wrote_are_replaced(uri: str, sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweeps.tracking.tracker.LAYOUT", "1")
    write_all(Tracker(uri, sweep, created=CREATED), sweep)
    before = runs(uri)
    monkeypatch.undo()
    write_all(Tracker(uri, sweep, created=CREATED), sweep)
    after = runs(uri)
    assert len(after) == len(before) and {run.data.tags["layout"] for run in after} == {"3"}
    assert not {run.info.run_id for run in before} & {run.info.run_id for run in after}


def test_files_are_artifacts_of_the_sweeps_run_and_are_replaced(uri: str, sweep: Sweep, tmp_path: Path) -> None:
    from mlflow.artifacts import load_text
    from mlflow.tracking import MlflowClient

    tracker = Tracker(uri, sweep, created=CREATED)
    for text in ("old", "new"):
        tracker.attach([("report.md", text.encode()), ("report.html", b"<p>")])
    run = the_run(uri, "small").info
    assert {one.path for one in MlflowClient(uri).list_artifacts(run.run_id, "report")} == {
        "report/report.html",
        "report/report.md",
    }
    assert load_text(f"{run.artifact_uri}/report/report.md") == "new"


def test_an_artifact_that_cannot_be_stored_is_one_warning(uri: str, sweep: Sweep, caplog: pytest.LogCaptureFixture) -> None:
    Tracker(uri, sweep, created=CREATED).attach(1 / 0 for _ in range(1))  # type: ignore[arg-type]
    assert [record.getMessage() for record in caplog.records] == [f"MLflow at {uri} could not store a report: division by zero"]


def test_the_experiment_has_saved_views_and_the_kind_of_training_once(uri: str, sweep: Sweep) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    Tracker(uri, sweep, created=CREATED).begin()
    tags = client.get_experiment(experiment_of(uri)).tags
    view = json.loads(tags["mlflow.sharedViewState.sweeps-leaderboard"])
    state = json.loads(view["state"])
    assert (view["name"], state["searchFilter"], state["orderByAsc"]) == ("Leaderboard", "tags.level = 'configuration'", True)
    assert {"tags.`lr`", "tags.`noise`", "metrics.`converged_at.median`"} <= set(state["selectedColumns"][:5])
    assert tags["mlflow.experimentKind"] == "custom_model_development"
    client.delete_experiment_tag(experiment_of(uri), "mlflow.sharedViewState.sweeps-leaderboard")
    sync_all(uri, sweep)
    assert "mlflow.sharedViewState.sweeps-leaderboard" not in client.get_experiment(experiment_of(uri)).tags, "the user's wish"


@pytest.mark.parametrize("further", [(), (Objective("error.extrapolation.median"),)])
def test_the_leaderboard_sorts_as_the_report_does_where_nothing_is_solved(
    uri: str, sweep: Sweep, further: tuple[Objective, ...]
) -> None:
    """Their par2 is the same, and so is the error of some. A confirmed one is first, what was stopped early is last."""
    from mlflow.tracking import MlflowClient

    assert sweep.search is not None
    sweep = dataclasses.replace(sweep, search=dataclasses.replace(sweep.search, further_objectives=further))
    found = []
    for number, error in enumerate([0.7, 1e-3, 0.7, 30.0, 1e-3, 0.5, 2e-6]):
        one = configuration(sweep, 0, number, state="pruned" if number == 6 else "complete")
        errors = {"interpolation": error, "extrapolation": error}
        results = [record(one, seed, "unsolved", error=errors) for seed in range(3)]
        fresh = [dataclasses.replace(results[0], key=f"fresh-{seed}", seed=seed) for seed in (1000, 1001)]
        confirmation = {"confirmation": tuple(fresh), "seeds_to_confirm": 2} if number == 5 else {}
        found.append(dataclasses.replace(ranked(one, results), **confirmation))  # type: ignore[arg-type]
    tracker = Tracker(uri, sweep, created=CREATED)
    tracker.begin()
    for of in reversed(found):
        tracker.complete(of)
    report = list(in_order(found, sweep.ranked_by))
    tracker.rank({(of.configuration.cell, of.configuration.number): of.rank for of in report if of.rank is not None})
    client = MlflowClient(uri)
    tag = client.get_experiment(experiment_of(uri)).tags["mlflow.sharedViewState.sweeps-leaderboard"]
    state = json.loads(json.loads(tag)["state"])
    assert state["orderByAsc"]
    shown = client.search_runs([experiment_of(uri)], state["searchFilter"], order_by=[f"{state['orderByKey']} ASC"])
    numbers = [int(run.data.tags["configuration"]) for run in shown]
    assert numbers == [of.configuration.number for of in report]
    assert numbers == ([1, 4, 5, 0, 2, 3, 6] if further else [5, 1, 4, 0, 2, 3, 6])


@given(st.lists(st.floats(allow_nan=False)))
def test_texts_that_databases_sort_are_in_the_order_of_their_numbers(numbers: list[float]) -> None:
    texts = [rows._sortable(number) for number in sorted(numbers)]
    assert texts == sorted(texts) and len(set(texts)) == len(set(numbers))


def test_configurations_and_seeds_of_two_cells_have_names_of_their_own(sweep: Sweep) -> None:
    def of(**labels: str) -> Any:
        return dataclasses.replace(configuration(sweep), labels=labels)

    ones = [of(model="nau", hidden="2", layers="4"), of(model="nau", hidden="4", layers="2"), of(range="U[1,2]")]
    names = [rows.seed_name(one, 3, "diverged") for one in ones]
    assert names == ["c001 nau hidden=2 layers=4 s003 diverged", "c001 nau hidden=4 layers=2 s003 diverged",
                     "c001 nau U[1,2] s003 diverged"]  # fmt: skip
    long = of(range="x" * 500)
    assert len(rows.seed_name(long, 3, "diverged")) == 200 and rows.seed_name(long, 3, "diverged").endswith(" s003 diverged")


def test_nothing_is_stored_where_the_store_was_before_it_was_copied(uri: str, sweep: Sweep, tmp_path: Path) -> None:
    Tracker(uri, sweep, created=CREATED).begin()
    (tmp_path / "2").mkdir()
    other = tmp_path.with_name(f"{tmp_path.name}2")  # its name begins with that of the first folder
    other.mkdir()
    for folder in (tmp_path / "2", other):
        Tracker(copied(tmp_path / "mlflow.db", folder), sweep, created=CREATED).attach([("report.md", b"text")])
    assert not (tmp_path / "mlartifacts").exists()
