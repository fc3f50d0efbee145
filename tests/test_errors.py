"""Exit status and message of every class of error: what the user can mend, what fails after the start, and bugs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from commands import call, plain, train_in_process
from made_sweep import made_sweep

import sweeps.cli
from sweeps.errors import StoreError
from sweeps.runner import run
from sweeps.runner.driver import Driver, PackReport
from sweeps.runner.worker import PackRun
from sweeps.store import Store
from sweeps.store.database import holders

FILE = """\
name: small
task: {name: static, operation: sub, input_size: 10}
model: linear
train: {steps: 20, batch: 4, evaluate_every: 10}
seeds: 2
"""
CONTINUES = "The sweep stopped. What is recorded is kept; the same command continues it."


@pytest.fixture(autouse=True)
def _folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(FILE)


Training = Callable[[Driver], None]


@pytest.fixture
def train_with(monkeypatch: pytest.MonkeyPatch) -> Callable[[Training], None]:
    """Replace training on Ray by a function of the driver."""

    def replace(train: Training) -> None:
        monkeypatch.setattr(run, "_train", lambda driver, console, workers: train(driver))

    return replace


def state() -> str:
    with Store("results") as store:
        row = store.sweep("small")
        assert row is not None
        return row.state


def test_a_sweep_that_is_done_exits_with_0(train_with: Any) -> None:
    train_with(train_in_process)
    answer = call("run", "small.yaml", "--no-mlflow")
    assert (answer.status, answer.err) == (0, "")
    assert state() == "done"


def test_a_stop_before_a_seed_has_ended_prints_no_empty_tables(train_with: Any) -> None:
    def interrupted(driver: Driver) -> None:
        raise KeyboardInterrupt

    train_with(interrupted)
    answer = call("run", "small.yaml", "--no-mlflow")
    assert answer.status == 1 and "no seed has ended, so there is nothing to report" in answer.out and "|" not in answer.out


def test_a_store_that_fails_during_training_exits_with_1(train_with: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(store: Store, new: object) -> None:
        raise StoreError("the disk is full")

    monkeypatch.setattr(Store, "add_records", refuse)
    train_with(train_in_process)
    answer = call("run", "small.yaml", "--no-mlflow")
    assert (answer.status, answer.err) == (1, f"the disk is full\n{CONTINUES}\n")
    assert state() == "failed"
    monkeypatch.undo()
    with Store("results") as store:
        assert store.holder("small") is None


def test_a_store_that_fails_at_the_end_exits_with_1(train_with: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def train_then_lose_the_store(driver: Driver) -> None:
        train_in_process(driver)
        monkeypatch.setattr(Store, "set_state", refuse)

    def refuse(*arguments: object) -> None:
        raise StoreError("the server does not answer")

    train_with(train_then_lose_the_store)
    answer = call("run", "small.yaml", "--no-mlflow")
    assert (answer.status, answer.err) == (1, f"the server does not answer\n{CONTINUES}\n")


def test_a_driver_that_is_replaced_by_another_exits_with_1_and_leaves_the_sweep_as_it_is(train_with: Any) -> None:
    def replaced(driver: Driver) -> None:
        with driver.store.database.write() as connection:
            connection.execute(sa.update(holders).values(token="of another driver", host="elsewhere"))
        train_in_process(driver)

    train_with(replaced)
    answer = call("run", "small.yaml", "--no-mlflow")
    assert answer.status == 1
    assert "on elsewhere" in answer.err and answer.err.endswith(CONTINUES + "\n")
    assert state() == "running"
    with Store("results") as store:
        assert store.holder("small") is not None


def test_a_connection_that_ray_refuses_is_not_tried_again_and_exits_with_1(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    tries = []

    def refuse(**options: object) -> None:
        tries.append(options)
        raise ConnectionError("wrong token")

    monkeypatch.setattr(ray, "init", refuse)
    monkeypatch.setattr("sweeps.runner.ray_tune.check_answers", lambda address, connect: None)
    monkeypatch.setenv("RAY_ADDRESS", "there:6379")
    answer = call("run", "small.yaml", "--no-mlflow")
    assert answer.status == 1
    assert answer.err.startswith("Ray does not start at RAY_ADDRESS there:6379: wrong token. `unset RAY_ADDRESS`")
    assert state() == "failed" and len(tries) == 1


def test_a_sweep_of_errors_only_exits_with_1(train_with: Any) -> None:
    def lose_every_worker(driver: Driver) -> None:
        while driver.next_pack("pack") is not None:
            driver.pack_ended("pack", "killed")

    train_with(lose_every_worker)
    answer = call("run", "small.yaml", "--no-mlflow")
    assert answer.status == 1
    assert "the sweep failed: every seed ended in an error, such as its worker was lost 3 times" in answer.err


def test_workers_that_raise_before_any_report_stop_the_sweep_with_their_error(train_with: Any) -> None:
    given = []

    def raise_at_the_start(driver: Driver) -> None:
        while (request := driver.next_pack("pack")) is not None:
            given.append(request)
            driver.pack_ended("pack", "ImportError: libfoo.so.1 (raised in foo.py)", raised=True)

    train_with(raise_at_the_start)
    answer = call("run", "small.yaml", "--no-mlflow")
    assert answer.status == 1 and len(given) == 3
    assert answer.err == (
        "workers cannot begin to train; 3 were tried, and the last one ended with ImportError: libfoo.so.1 (raised in foo.py)\n"
    )
    assert state() == "failed"
    with Store("results") as store:
        assert store.records([(lane.key, lane.budget) for lane in given[0].lanes]) == {}


def test_a_worker_that_raises_after_others_have_reported_does_not_stop_the_sweep(train_with: Any) -> None:
    def raise_later(driver: Driver) -> None:
        request = driver.next_pack("first")
        assert request is not None
        driver.receive("first", PackRun(plain(request)).work(0.0))
        for _ in range(4):
            driver.pack_ended("unknown", "OSError: no space", raised=True)
        driver.pack_ended("first")
        train_in_process(driver)

    train_with(raise_later)
    assert call("run", "small.yaml", "--no-mlflow").status == 0


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("SWEEPS_WAIT_S", "soon", "SWEEPS_WAIT_S must be a number, 0 or more, but is 'soon'"),
        ("SWEEPS_PLANNED_WORKERS", "-1", "SWEEPS_PLANNED_WORKERS must be a number, 0 or more, but is '-1'"),
        ("RAY_ADDRESS", "head", "RAY_ADDRESS is 'head'. It must be HOST:PORT"),
        ("RAY_ADDRESS", "head:99999", "RAY_ADDRESS is 'head:99999'. It must be HOST:PORT"),
        ("RAY_ADDRESS", "me@head:6379", "RAY_ADDRESS is 'me@head:6379'. It must be HOST:PORT"),
        ("RAY_ADDRESS", "ray://head:10001", "Ray Client, with which Ray Tune does not run here"),
        ("RAY_ADDRESS", "http://head:8265", "not an address of Ray"),
    ],
)
def test_a_wrong_variable_exits_with_2_before_anything_begins(
    variable: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    answer = call("run", "small.yaml", "--no-mlflow")
    assert answer.status == 2 and words in answer.err
    with Store("results") as store:
        assert store.sweep("small") is None


def test_what_a_worker_says_about_its_machine_is_printed_once(train_with: Any) -> None:
    def train(driver: Driver) -> None:
        driver.receive("pack", PackReport(note="/home/me on lab is read-only"))
        driver.receive("pack", PackReport(note="/home/me on lab2 is read-only"))
        train_in_process(driver)

    train_with(train)
    answer = call("run", "small.yaml", "--no-mlflow")
    assert answer.status == 0 and answer.out.count("is read-only") == 1
    assert "note: /home/me on lab is read-only\n" in answer.out


def test_ctrl_c_stops_a_sweep_with_status_1(train_with: Any) -> None:
    def interrupt(driver: Driver) -> None:
        raise KeyboardInterrupt

    train_with(interrupt)
    answer = call("run", "small.yaml", "--no-mlflow")
    assert answer.status == 1
    assert "the sweep stopped: interrupted. What is done stays; the same command continues." in answer.err
    assert state() == "stopped"


def test_ctrl_c_ends_a_reading_verb_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    with Store("results"):
        pass
    monkeypatch.setattr("sweeps.results.report", interrupt)
    answer = call("report", "small")
    assert answer.status in (1, 130)
    assert "Traceback" not in answer.err


def test_an_error_of_numpy_during_training_is_a_bug_with_traceback_and_address(train_with: Any) -> None:
    def broadcast(driver: Driver) -> None:
        np.zeros(2) + np.zeros(3)

    train_with(broadcast)
    answer = call("run", "small.yaml", "--no-mlflow", bug=True)
    assert answer.status == 1
    assert "Traceback" in answer.err and "ValueError: operands could not be broadcast" in answer.err
    last = answer.err.strip().splitlines()[-1]
    assert last.startswith("This is a bug of sweeps. Please report the traceback above")
    assert "to the maintainers of this installation. What is recorded is kept" in last
    assert state() == "failed"


def test_an_error_before_the_start_that_is_not_ours_is_a_bug_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise ValueError("not of the user's making")

    monkeypatch.setattr("sweeps.config.sweep_file.load", fail)
    answer = call("check", "small.yaml", bug=True)
    assert answer.status == 1 and "ValueError: not of the user's making" in answer.err


@pytest.mark.parametrize(
    ("urls", "address"),
    [
        (["Homepage, https://a", "Issues, https://a/issues"], "https://a/issues"),
        (["Homepage, https://a"], "https://a"),
        ([], "the maintainers of this installation"),
    ],
)
def test_bugs_are_reported_to_the_address_of_the_package(
    monkeypatch: pytest.MonkeyPatch, urls: list[str], address: str
) -> None:
    class Metadata:
        def get_all(self, name: str) -> list[str]:
            assert name == "Project-URL"
            return urls

    monkeypatch.setattr("importlib.metadata.metadata", lambda package: Metadata())
    assert sweeps.cli._report_address() == address


@pytest.mark.parametrize(
    "arguments",
    [
        ["export", "small", "-o", "missing/best.yaml"],
        ["figure", "small", "--x", "model", "-o", "missing/figure.svg"],
        ["init", "missing/mine.yaml"],
    ],
)
def test_a_file_that_cannot_be_written_exits_with_2(arguments: list[str]) -> None:
    with Store("results") as store:
        made_sweep(store)
    answer = call(*arguments)
    assert answer.status == 2
    assert answer.err == (
        f"{arguments[-1]} cannot be written: No such file or directory. Give a file in a folder that exists and is writable\n"
    )
