"""Whole sweeps with Ray, Optuna and MLflow: undisturbed, cut off in every way, extended, exported and reproduced."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from commands import Commands, Started, call
from kept import lanes_in, records_of, runs_of, states, steps_saved
from sample_sweeps import UNIT

from sweeps.config.yaml import dump, read

pytestmark = pytest.mark.slow

# Linear trains longer, so that there is a middle to be cut off in.
SMALL = """\
name: small
question: Which unit comes nearer?
task: {name: static, operation: sub, input_size: 10}
train: {steps: 200, batch: 16, evaluate_every: 100}
compare:
  unit: [{label: NAU, model: nau}, {label: linear, model: linear, train: {steps: 800}}]
seeds: 4
resources: {slots: 8, checkpoint_s: 0.1}
search:
  sampler: {name: tpe, seed: 0, n_startup_trials: 1}
  configurations: 3
  parallel: 2
  space:
    train.lr: {log_uniform: [1e-4, 1e-1]}
    train.gradient_noise: {log_uniform: [1e-5, 0.1], or: 0}
"""
LANES = 2 * 3 * 4
OWN = """\
name: own
task: {name: static, operation: sub, input_size: 10}
train: {steps: 200, batch: 16, evaluate_every: 100}
compare: {model: [./my_unit.py, {name: ./my_broken_unit.py, label: broken}]}
seeds: 3
search:
  sampler: {name: tpe, seed: 0, n_startup_trials: 1}
  configurations: 3
  objective: {error.extrapolation.median: minimize}
  space: {train.lr: {log_uniform: [1e28, 1e30]}}
"""
BROKEN = UNIT.replace("return x\n", 'raise ArithmeticError("it has never worked")\n', 1)


@pytest.fixture(scope="module", autouse=True)
def _uncompiled() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWEEPS_COMPILE", "0")
        for name in ("SWEEPS_STORE", "MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = tmp_path_factory.mktemp("sweeps")
    files = {"small.yaml": SMALL, "own.yaml": OWN, "my_unit.py": UNIT, "my_broken_unit.py": BROKEN}
    for name, text in files.items():
        (made / name).write_text(text)
    return made


# --------------------------------------------------------------------------------- what a sweep came to


def reports(store: Path, name: str = "small") -> list[str]:
    """What must be the same byte for byte, however a sweep was run."""
    answers = [
        call("report", name, "--no-timing", *form, "--store", str(store))
        for form in ([], ["--format", "json"], ["--format", "csv"])
    ]
    assert all(answer.status == 0 for answer in answers)
    return [answer.out for answer in answers]


def json_report(store: Path, name: str) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} in the report")

    text = call("report", name, "--format", "json", "--store", str(store)).out
    found: dict[str, Any] = json.loads(text, parse_constant=refuse)
    return found


# --------------------------------------------------------------------------------- an undisturbed sweep


@pytest.fixture(scope="module")
def own_started(commands: Commands, folder: Path) -> Started:
    return commands.start(folder, "run", "own.yaml", "--store", "own", "--workers", "1")


@pytest.fixture(scope="module")
def calm(commands: Commands, folder: Path, own_started: Started) -> Path:
    """The store of a sweep that nothing happened to, on two workers."""
    command = commands.start(folder, "run", "small.yaml", "--store", "calm", "--workers", "2")
    assert command.ended() == 0, command.output
    assert "best configuration: sweeps export small -o best.yaml --store calm" in command.output
    assert command.clear_away(20.0) == []
    return folder / "calm"


def test_a_sweep_runs_and_its_report_is_one_object_without_nan(calm: Path) -> None:
    found = json_report(calm, "small")
    assert list(found) == ["sweep", "definition", "configurations", "totals"]
    assert found["totals"]["state"] == "done" and found["totals"]["lanes"] == LANES
    assert [entry["rank"] for entry in found["configurations"]] == [1, 2, 3] * 2
    for entry in found["configurations"]:
        budget = 200 if entry["cell"] == {"unit": "NAU"} else 800
        assert entry["state"] == "complete" and entry["seeds"] == 4
        assert [(lane["seed"], lane["steps"]) for lane in entry["lanes"]] == [(s, budget) for s in range(4)]
        assert set(entry["converged_at"]) == {"mean", "low", "high", "median"}
        assert set(entry["lanes"][0]["error"]) == {"interpolation", "extrapolation"}
    tried = [entry["parameters"]["train.lr"] for entry in found["configurations"]]
    assert len(set(tried)) == 5, (
        "every cell has its own search, and the file's own values are number 0 of both"
    )


def test_mlflow_has_the_sweep_its_configurations_and_their_seeds(calm: Path) -> None:
    runs = runs_of(calm, "small")
    assert states(calm, "small") == {
        ("sweep", "FINISHED"): 1, ("configuration", "FINISHED"): 6, ("seed", "FINISHED"): LANES,
    }  # fmt: skip
    level = {run.info.run_id: run.data.tags["level"] for run in runs}
    parents = Counter(
        (run.data.tags["level"], level[run.data.tags["mlflow.parentRunId"]])
        for run in runs
        if "mlflow.parentRunId" in run.data.tags
    )
    assert parents == {("configuration", "sweep"): 6, ("seed", "configuration"): LANES}
    by_lane = {(r.seed, r.budget, r.error["extrapolation"]) for r in records_of(calm)}
    told = {
        (
            int(run.data.params["seed"]),
            int(run.data.metrics["steps"]),
            run.data.metrics["error.extrapolation"],
        )
        for run in runs
        if run.data.tags["level"] == "seed"
    }
    assert told == by_lane


# --------------------------------------------------------------------------------- a sweep with an eventful life


@pytest.fixture(scope="module")
def growing(commands: Commands, folder: Path, calm: Path) -> Started:
    """A copy of the calm store to which seeds are added, beside the others, since most of a small sweep is waiting."""
    shutil.copytree(calm, folder / "grown")
    return commands.start(folder, "run", "small.yaml", "seeds=6", "--store", "grown", "--workers", "1")


@pytest.fixture(scope="module")
def interrupted(commands: Commands, folder: Path, calm: Path, growing: Started) -> Started:
    """Ctrl-C after the first lanes. One worker."""
    command = commands.start(folder, "run", "small.yaml", "--store", "eventful", "--workers", "1")
    command.until(lambda: lanes_in(folder / "eventful") > 0, "lane ended")
    command.interrupt()
    command.ended()
    return command


def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(interrupted: Started, folder: Path) -> None:
    assert interrupted.process.returncode == 1
    assert (
        "the sweep stopped: SIGINT was received. What is done stays; the same command continues."
        in interrupted.output
    )
    assert 0 < lanes_in(folder / "eventful") < LANES
    assert call("list", "--store", str(folder / "eventful")).out.split() == ["small", "stopped"]
    assert "RUNNING" not in {status for _, status in states(folder / "eventful", "small")}
    assert interrupted.clear_away(20.0) == []


class Killed:
    """`kill -9` of a driver, with a second one that tried to drive the same sweep before that."""

    def __init__(self, command: Started, store: Path) -> None:
        workers = command.workers()
        for worker in workers:
            worker.suspend()  # or it might be done with everything before it is killed
        self.second = call("run", str(store.parent / "small.yaml"), "--store", str(store))
        self.lanes, self.steps_saved = lanes_in(store), steps_saved(store)
        self.command = command
        os.kill(command.process.pid, signal.SIGKILL)
        command.process.wait(10)
        for worker in workers:
            with suppress(psutil.Error):
                worker.resume()
        self.left_behind = command.clear_away(10.0)


@pytest.fixture(scope="module")
def killed(commands: Commands, folder: Path, interrupted: Started) -> Killed:
    store = folder / "eventful"
    command = commands.start(folder, "run", "small.yaml", "--store", "eventful", "--workers", "1")
    command.until(lambda: steps_saved(store) > 0 and bool(command.workers()), "checkpoint")
    return Killed(command, store)


def test_a_second_driver_is_refused_and_told_who_drives(killed: Killed) -> None:
    assert killed.second.status == 2
    assert (
        f"is being driven by process {killed.command.process.pid} on {socket.gethostname()}"
        in killed.second.err
    )
    assert "lanes are in the store already" in killed.command.output


def test_a_killed_driver_leaves_no_process_and_its_sweep_is_told_as_interrupted(
    killed: Killed, folder: Path
) -> None:
    # Ray's idle agents look for their parent now and then, and leave by themselves.
    assert [command for command in killed.left_behind if "Agent" not in command] == []
    answer = call("list", "--store", str(folder / "eventful"))
    assert answer.out.startswith("small  interrupted: `sweeps run small`")
    assert killed.lanes <= lanes_in(folder / "eventful") < LANES


@pytest.fixture(scope="module")
def survived(commands: Commands, folder: Path, killed: Killed) -> Started:
    """The third run goes on from the checkpoints, loses its worker, and ends."""
    command = commands.start(folder, "run", "small.yaml", "--store", "eventful", "--workers", "1")
    before = steps_saved(folder / "eventful")
    command.until(lambda: steps_saved(folder / "eventful") not in (0, before), "new checkpoint")
    for worker in command.workers():
        worker.kill()
    command.ended()
    return command


def test_a_sweep_that_was_cut_off_killed_and_lost_a_worker_reports_what_an_undisturbed_one_does(
    survived: Started, folder: Path, calm: Path
) -> None:
    assert survived.process.returncode == 0, survived.output
    assert "lanes are in the store already" in survived.output
    assert survived.clear_away(20.0) == []
    assert reports(folder / "eventful") == reports(calm)


def test_lanes_that_were_cut_off_went_on_from_their_checkpoints(
    survived: Started, folder: Path, calm: Path
) -> None:
    undisturbed = {(r.key, r.budget): r for r in records_of(calm)}
    for record in records_of(folder / "eventful"):
        assert record.curve == undisturbed[record.key, record.budget].curve
    assert steps_saved(folder / "eventful") == 0, "no checkpoint is kept of a lane that has ended"


def test_nothing_is_left_running_in_mlflow_and_no_run_is_there_twice(
    survived: Started, folder: Path, calm: Path
) -> None:
    assert states(folder / "eventful", "small") == states(calm, "small")


def test_a_sweep_that_is_done_is_not_trained_again(survived: Started, folder: Path, calm: Path) -> None:
    before = records_of(folder / "eventful")
    answer = call("run", "small", "--store", str(folder / "eventful"))
    assert answer.status == 0
    assert "small goes on as it was begun in" in answer.out
    assert f"{LANES} lanes are in the store already" in answer.out
    assert records_of(folder / "eventful") == before


# --------------------------------------------------------------------------------- more of it


def test_more_seeds_run_what_is_missing_and_leave_the_rest(
    growing: Started, calm: Path, folder: Path
) -> None:
    assert growing.ended() == 0
    assert "seeds: 4 -> 6" in growing.output
    assert "24 lanes are in the store already" in growing.output and "12 lanes to train" in growing.output
    before, after = records_of(calm), records_of(folder / "grown")
    assert len(after) == 36
    assert [record for record in after if record.seed < 4] == before, "their wall times too"
    assert "RUNNING" not in {status for _, status in states(folder / "grown", "small")}


def test_the_best_configuration_is_reproduced_and_a_wrong_figure_is_found(
    calm: Path, folder: Path, commands: Commands
) -> None:
    best = folder / "best.yaml"
    assert call("export", "small", "--cell", "NAU", "-o", str(best), "--store", str(calm)).status == 0
    values = read(best.read_text()).values
    values["exported"]["lanes"][2]["error"]["extrapolation"] *= 1 + 1e-12
    (folder / "wrong.yaml").write_text(dump(values))
    failed = commands.start(folder, "reproduce", "wrong.yaml", "--workers", "1")
    passed = call("reproduce", str(best), "--workers", "1")
    assert passed.status == 0, passed.out + passed.err
    assert "PASS: every figure of every seed is the same (4 seeds)" in passed.out
    assert failed.ended() == 1
    assert "FAIL: the figures differ (4 seeds)" in failed.output
    assert failed.output.count("seed 2: error.extrapolation was") == failed.output.count("seed ") == 1


# --------------------------------------------------------------------------------- one's own unit, and disasters


@pytest.fixture(scope="module")
def own(own_started: Started, folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Label -> configurations by number."""
    assert own_started.ended() == 0, own_started.output
    found: dict[str, list[dict[str, Any]]] = {}
    entries = json_report(folder / "own", "own")["configurations"]
    for entry in sorted(entries, key=lambda entry: entry["number"]):
        found.setdefault(entry["cell"]["model"], []).append(entry)
    return found


def test_a_unit_in_one_s_own_file_is_trained(own: dict[str, list[dict[str, Any]]]) -> None:
    first = own["./my_unit.py"][0]
    assert first["state"] == "complete" and first["rank"] == 1
    assert [lane["steps"] for lane in first["lanes"]] == [200] * 3
    assert all(lane["error"]["extrapolation"] is not None for lane in first["lanes"])


def test_configurations_that_diverge_are_told_and_the_search_goes_on(
    own: dict[str, list[dict[str, Any]]],
) -> None:
    for entry in own["./my_unit.py"][1:]:
        assert entry["state"] == "complete" and entry["diverged"] == 3 and entry["solved"] == 0
        assert all(
            lane["outcome"] == "diverged" and "is not finite" in lane["reason"] for lane in entry["lanes"]
        )


def test_a_unit_that_raises_gives_errors_with_its_words_and_the_sweep_ends(
    own: dict[str, list[dict[str, Any]]], folder: Path
) -> None:
    assert [entry["state"] for entry in own["broken"]] == ["failed"] * 3
    lanes = [lane for entry in own["broken"] for lane in entry["lanes"]]
    assert {lane["reason"] for lane in lanes} == {"ArithmeticError: it has never worked"}
    assert {status for _, status in states(folder / "own", "own")} == {"FINISHED", "FAILED"}


def test_mlflow_s_pages_are_served_here_until_ctrl_c(calm: Path, folder: Path, commands: Commands) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = commands.start(folder, "ui", "--store", "calm", "--port", str(port))
    command.until(lambda: f"http://127.0.0.1:{port}" in command.output, "address")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as page:
        assert page.status == 200 and b"MLflow" in page.read()
    command.interrupt()
    assert command.ended() == 0
    with socket.socket() as closed:
        assert closed.connect_ex(("127.0.0.1", port)) != 0
