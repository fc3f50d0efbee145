"""Whole sweeps with Ray, Optuna and MLflow, in a folder and on PostgreSQL: undisturbed, interrupted, killed, continued.

The same verbs without Ray are tested in test_cli.py, test_errors.py and test_runner.py.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import urllib.request
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import chdir, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from commands import Commands, Started, call, reports
from kept import lanes_in, records_of, runs_of, states, steps_saved
from sample_sweeps import UNIT

# A unit of the user's own, which workers find from the working directory. Linear trains longer, to be interrupted.
SMALL = """\
name: small
question: Which unit has the smaller error?
task: {name: static, operation: sub, input_size: 10}
train: {steps: 40, batch: 16, evaluate_every: 20}
compare:
  unit: [{label: mine, model: ./my_unit.py}, {label: linear, model: linear, train: {steps: 160}}]
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

pytestmark = pytest.mark.usefixtures("uncompiled")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = tmp_path_factory.mktemp("sweeps")
    (made / "small.yaml").write_text(SMALL)
    (made / "my_unit.py").write_text(UNIT)
    return made


# --------------------------------------------------------------------------------- which code a worker trains


@pytest.mark.cluster
def test_the_working_directory_does_not_decide_which_code_trains(commands: Commands, folder: Path) -> None:
    """Beside another checkout whose learning rate is halved, and a file `arith_models.py` of the user's own."""
    (folder / "tiny.yaml").write_text(SMALL.partition("compare")[0].replace("small", "tiny") + "model: linear\nseeds: 2\n")
    other = folder / "another checkout"
    other.mkdir()
    for package in ("sweeps", "tasks"):
        shutil.copytree(Path(__file__).parent.parent / package, other / package)
    (other / "arith_models.py").write_text("raise SystemExit('nothing to do with sweeps')\n")
    altered = other / "sweeps/training/optimizers.py"
    altered.write_text(altered.read_text().replace("double(lr) / correction1", "double(lr) / 2 / correction1"))
    found = []
    for place in (folder, other):
        for name in ("numpy", "pandas", "pydantic", "socketserver"):  # Ray imports them when a worker starts
            (place / f"{name}.py").write_text("raise SystemExit('nothing to do with sweeps')\n")
        command = commands.start(place, "run", str(folder / "tiny.yaml"), "--store", "tiny", "--no-mlflow")
        assert command.ended() == 0, command.output
        found.append(call("report", "tiny", "--format", "json", "--no-timing", "--store", str(place / "tiny")).out)
        for name in ("numpy", "pandas", "pydantic", "socketserver"):
            (place / f"{name}.py").unlink()
    assert found[0] == found[1] and json.loads(found[0])["totals"]["seed_steps"] == 80


# --------------------------------------------------------------------------------- an undisturbed sweep in a folder


@pytest.fixture(scope="module")
def calm(commands: Commands, folder: Path) -> str:
    """The store of a sweep on two workers that nothing disturbs."""
    command = commands.start(folder, "run", "small.yaml", "--store", "calm", "--workers", "2")
    assert command.ended() == 0, command.output
    assert ": sweeps export small -o best.yaml --store calm" in command.output
    assert command.clear_away(20.0) == []
    return str(folder / "calm")


def test_a_sweep_runs_and_its_report_is_one_object_without_nan(calm: str) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} in the report")

    text = call("report", "small", "--format", "json", "--store", calm).out
    found: dict[str, Any] = json.loads(text, parse_constant=refuse)
    assert list(found) == ["sweep", "definition", "configurations", "totals", "failures", "provenance"]
    assert found["totals"]["state"] == "done" and found["totals"]["lanes"] == LANES
    assert [entry["rank"] for entry in found["configurations"]] == [1, 2, 3] * 2
    for entry in found["configurations"]:
        budget = 40 if entry["cell"] == {"unit": "mine"} else 160
        assert entry["state"] == "complete" and entry["seeds"] == 4
        assert [(lane["seed"], lane["steps"]) for lane in entry["lanes"]] == [(s, budget) for s in range(4)]
        assert set(entry["lanes"][0]["error"]) == {"interpolation", "extrapolation"}
    tried = [entry["parameters"]["train.lr"] for entry in found["configurations"]]
    assert len(set(tried)) == 5, "every cell has its own search, and the file's own values are number 0 of both"


def test_mlflow_has_the_sweep_its_configurations_and_their_seeds(calm: str) -> None:
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
    written = {
        (int(run.data.params["seed"]), int(run.data.metrics["steps"]), run.data.metrics["error.extrapolation"])
        for run in runs
        if run.data.tags["level"] == "seed"
    }
    assert written == by_lane


def test_mlflow_s_pages_are_served_until_ctrl_c(calm: str, folder: Path, commands: Commands) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = commands.start(folder, "ui", "--store", calm, "--port", str(port))
    command.until(lambda: f"http://127.0.0.1:{port}" in command.output, "address")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as page:
        assert page.status == 200 and b"MLflow" in page.read()
    command.interrupt()
    assert command.ended() == 0
    with socket.socket() as closed:
        assert closed.connect_ex(("127.0.0.1", port)) != 0


# --------------------------------------------------------------------------------- a disturbed sweep on PostgreSQL


@pytest.fixture(scope="module")
def disturbed(request: pytest.FixtureRequest, folder: Path) -> str:
    """The location of a store on PostgreSQL, or in a folder where there is no server for this system."""
    try:
        server = request.getfixturevalue("postgresql")
    except pytest.skip.Exception:
        return str(folder / "disturbed")
    import psycopg

    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return str(server.replace("/postgres?", f"/{name}?"))


@pytest.fixture(scope="module")
def tracking(request: pytest.FixtureRequest, disturbed: str) -> Iterator[str | None]:
    """MLflow's URI for the disturbed sweep: a database of the same server, without a driver's name, as users write it."""
    if "://" not in disturbed:
        yield None
        return
    from mlflow.tracking import MlflowClient

    uri = str(request.getfixturevalue("postgresql"))
    MlflowClient(uri.replace("postgresql://", "postgresql+psycopg://")).search_experiments()  # makes the tables
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        yield uri.replace("postgresql://", "postgresql+psycopg://")


class Disturbed:
    """Starts `sweeps run` on the disturbed store, with one worker."""

    def __init__(self, commands: Commands, folder: Path, store: str, tracking: str | None) -> None:
        self.commands, self.folder, self.store, self.tracking = commands, folder, store, tracking

    def run(self) -> Started:
        return self.commands.start(self.folder, "run", "small.yaml", "--store", self.store, "--workers", "1")

    def mlflow_states(self) -> Counter[tuple[str, str]]:
        return states(self.store, "small", self.tracking)


@pytest.fixture(scope="module")
def sweep(commands: Commands, folder: Path, calm: str, disturbed: str, tracking: str | None) -> Disturbed:
    return Disturbed(commands, folder, disturbed, tracking)


@pytest.fixture(scope="module")
def interrupted(sweep: Disturbed) -> Started:
    """Ctrl-C after the first lanes."""
    command = sweep.run()
    command.until(lambda: lanes_in(sweep.store) > 0, "lane ended")
    command.interrupt()
    command.ended()
    return command


def test_ctrl_c_keeps_what_is_done_and_prints_how_to_continue(interrupted: Started, sweep: Disturbed) -> None:
    assert interrupted.process.returncode == 1
    assert "the sweep stopped: SIGINT was received. What is done stays; the same command continues." in interrupted.output
    assert 0 < lanes_in(sweep.store) < LANES
    assert call("list", "--store", sweep.store).out.split() == ["small", "stopped"]
    assert "RUNNING" not in {status for _, status in sweep.mlflow_states()}
    assert interrupted.clear_away(20.0) == []


class Killed:
    """`kill -9` of a driver, after a second one has tried to drive the same sweep."""

    def __init__(self, command: Started, sweep: Disturbed) -> None:
        workers = command.workers()
        for worker in workers:
            worker.suspend()  # otherwise every lane might end before the kill
        with chdir(sweep.folder):
            self.second = call("run", "small.yaml", "--store", sweep.store)
        self.lanes = lanes_in(sweep.store)
        self.command = command
        os.kill(command.process.pid, signal.SIGKILL)
        command.process.wait(10)
        for worker in workers:
            with suppress(psutil.Error):
                worker.resume()
        self.left_behind = command.clear_away(10.0)


@pytest.fixture(scope="module")
def killed(sweep: Disturbed, interrupted: Started) -> Killed:
    command = sweep.run()
    command.until(lambda: steps_saved(sweep.store) > 0 and bool(command.workers()), "checkpoint")
    return Killed(command, sweep)


def test_a_second_driver_is_refused_with_the_holder(killed: Killed) -> None:
    assert killed.second.status == 2
    assert f"is being driven by process {killed.command.process.pid} on {socket.gethostname()}" in killed.second.err
    assert "lanes are in the store already" in killed.command.output


def test_a_killed_driver_leaves_no_process_and_its_sweep_is_listed_as_interrupted(killed: Killed, sweep: Disturbed) -> None:
    # Ray's idle agents check for their parent from time to time, and end by themselves.
    assert [command for command in killed.left_behind if "Agent" not in command] == []
    answer = call("list", "--store", sweep.store)
    assert answer.out.startswith("small  interrupted: `sweeps run small`")
    assert killed.lanes <= lanes_in(sweep.store) < LANES


@pytest.fixture(scope="module")
def survived(sweep: Disturbed, killed: Killed) -> Started:
    """The third run: it continues from the checkpoints, loses its worker, and ends."""
    command = sweep.run()
    before = steps_saved(sweep.store)
    command.until(lambda: steps_saved(sweep.store) not in (0, before), "new checkpoint")
    for worker in command.workers():
        worker.kill()
    command.ended()
    return command


def test_a_sweep_that_was_interrupted_killed_and_lost_a_worker_has_the_report_of_an_undisturbed_one(
    survived: Started, sweep: Disturbed, calm: str
) -> None:
    assert survived.process.returncode == 0, survived.output
    assert "lanes are in the store already" in survived.output
    assert survived.clear_away(20.0) == []
    assert reports("small", sweep.store) == reports("small", calm)


def test_lanes_that_were_interrupted_continued_from_their_checkpoints(survived: Started, sweep: Disturbed, calm: str) -> None:
    undisturbed = {(r.key, r.budget): r for r in records_of(calm)}
    for record in records_of(sweep.store):
        assert record.curve == undisturbed[record.key, record.budget].curve
    assert steps_saved(sweep.store) == 0, "no checkpoint is kept of a lane that has ended"


def test_no_run_is_left_running_in_mlflow_and_none_is_there_twice(survived: Started, sweep: Disturbed, calm: str) -> None:
    assert sweep.mlflow_states() == states(calm, "small")


def test_a_sweep_that_is_done_is_not_trained_again(survived: Started, sweep: Disturbed) -> None:
    before = records_of(sweep.store)
    with chdir(sweep.folder):
        answer = call("run", "small", "--store", sweep.store)
    assert answer.status == 0
    assert "small continues as it was begun in" in answer.out
    assert f"{LANES} lanes are in the store already" in answer.out
    assert records_of(sweep.store) == before
