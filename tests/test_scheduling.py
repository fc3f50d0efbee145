"""Signals during training, starting Ray, and errors of the driver on Ray Tune. See also test_end_to_end.py."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import ray
from rich.console import Console

from sweeps.config.sweep_file import Resources, from_document
from sweeps.errors import ClusterError, StoreError
from sweeps.runner import ray_tune
from sweeps.runner import run as run_module
from sweeps.runner.driver import Driver
from sweeps.store import Store

SMALL: dict[str, Any] = {
    "name": "s", "task": {"name": "static", "input_size": 10}, "model": "nau", "seeds": 2,
    "train": {"steps": 20, "batch": 8, "evaluate_every": 10},
}  # fmt: skip


def test_ctrl_c_stops_the_driver_and_a_second_one_ends_at_once() -> None:
    driver: Any = SimpleNamespace(stop_reason=None)
    with ray_tune.stop_on_signals(driver, lambda: None):
        signal.raise_signal(signal.SIGINT)
        assert driver.stop_reason == "SIGINT was received"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_ctrl_c_stops_in_order_after_the_budget_of_hours_is_used_up() -> None:
    driver: Any = SimpleNamespace(stop_reason="the budget of 2 hours is used up")
    with ray_tune.stop_on_signals(driver, lambda: None):
        signal.raise_signal(signal.SIGINT)
    assert driver.stop_reason == "SIGINT was received"


def test_a_closed_terminal_stops_the_driver_in_order_though_it_sends_two_signals() -> None:
    driver: Any = SimpleNamespace(stop_reason=None)
    with run_module.signals_interrupt():
        with ray_tune.stop_on_signals(driver, lambda: None):
            signal.raise_signal(signal.SIGHUP)
            assert driver.stop_reason == "SIGHUP was received"
            signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL


def test_a_closed_terminal_interrupts_once_before_training() -> None:
    with run_module.signals_interrupt():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL


def test_under_nohup_a_closed_terminal_stops_nothing() -> None:
    driver: Any = SimpleNamespace(stop_reason=None)
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with run_module.signals_interrupt(), ray_tune.stop_on_signals(driver, lambda: None):
            signal.raise_signal(signal.SIGHUP)
        assert driver.stop_reason is None
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, previous)


def test_the_process_ends_where_ray_does_not_shut_down_after_sigterm(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, left = [], threading.Event()
    monkeypatch.setattr(ray_tune, "RAY_SHUTDOWN_S", 0.05)
    monkeypatch.setattr(ray_tune.os, "_exit", lambda status: (calls.append(status), left.set()))
    driver: Any = SimpleNamespace(stop_reason=None)
    with ray_tune.stop_on_signals(driver, lambda: calls.append("abandoned")):
        signal.raise_signal(signal.SIGTERM)
        assert left.wait(10)
    assert calls == ["abandoned", 1]


def test_a_sweep_whose_ray_does_not_shut_down_is_stopped_in_the_store_and_the_reason_is_printed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    left, printed = threading.Event(), StringIO()
    monkeypatch.setattr(ray_tune, "RAY_SHUTDOWN_S", 0.05)
    monkeypatch.setattr(ray_tune.os, "_exit", lambda status: left.set())

    @contextmanager
    def hanging(*arguments: Any) -> Iterator[None]:
        signal.raise_signal(signal.SIGTERM)
        assert left.wait(30)
        raise ClusterError("only a test is still running here")
        yield

    monkeypatch.setattr(ray_tune, "ray_cluster", hanging)
    sweep = from_document(SMALL)
    with Store(tmp_path) as store, store.hold("s"):
        store.begin_sweep("s", sweep.text, sweep.document)
        driver = Driver(sweep, "s", store, None, 1)
        with pytest.raises(ClusterError, match="only a test"):
            run_module._train(driver, Console(file=printed, width=200), 1)
        row = store.sweep("s")
    assert row is not None and row.state == "stopped"
    assert printed.getvalue() == "starting Ray\nthe sweep stopped: SIGTERM was received, and Ray did not end\n"


def test_the_process_goes_on_where_ray_shuts_down_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(ray_tune, "RAY_SHUTDOWN_S", 0.05)
    driver: Any = SimpleNamespace(stop_reason=None)
    with ray_tune.stop_on_signals(driver, lambda: calls.append("abandoned")):
        signal.raise_signal(signal.SIGTERM)
    threading.Event().wait(0.2)
    assert calls == []


def test_a_job_without_a_working_directory_lacks_the_user_s_files() -> None:
    assert ray_tune._job_has_working_dir('{"runtime_env": {"working_dir": "gcs://a.zip"}}')
    for job in (None, "{}", '{"runtime_env": null}', '{"runtime_env": {"env_vars": {}}}'):
        assert not ray_tune._job_has_working_dir(job)


@pytest.mark.parametrize("failures", [1, ray_tune.START_ATTEMPTS])
def test_ray_is_started_again_where_it_was_not_up_in_time_but_not_forever(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, failures: int
) -> None:
    tries = []

    def busy(**options: Any) -> None:
        tries.append(options)
        if len(tries) <= failures:
            raise Exception("The current node timed out during startup. This could happen because")

    monkeypatch.setattr(ray, "init", busy)
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 2.0}}])
    refused = pytest.raises(ClusterError, match="timed out")
    with nullcontext() if failures == 1 else refused, ray_tune.ray_cluster(Resources(), 2) as capacity:
        assert capacity.current() == 2
    assert len(tries) == min(failures + 1, ray_tune.START_ATTEMPTS)
    assert all(options == tries[0] for options in tries)
    assert f"it is started again (2 of {ray_tune.START_ATTEMPTS})" in caplog.text


def test_a_worker_that_outlives_ray_is_ended_and_a_process_of_somebody_else_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the clock was set back an hour: Ray's workers look whether their raylet lives an hour later."""
    nodes: list[subprocess.Popen[str]] = []

    def start(**options: object) -> None:
        nodes.append(subprocess.Popen(["sh", "-c", "sleep 1000 & echo $!; wait"], stdout=subprocess.PIPE, text=True))

    def shutdown() -> None:
        nodes[1].kill()
        nodes[1].wait()

    monkeypatch.setattr(ray, "init", start)
    monkeypatch.setattr(ray, "shutdown", shutdown)
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 2.0}}])
    monkeypatch.setattr(ray_tune, "WORKER_SHUTDOWN_S", 0.1)
    start()  # somebody else's
    with ray_tune.ray_cluster(Resources(), 2):
        others, worker = (psutil.Process(int(str(node.stdout and node.stdout.readline()))) for node in nodes)
    try:
        worker.wait(10)
        assert others.is_running()
    finally:
        for process in (others, worker):
            with suppress(psutil.Error):
                process.kill()
        for node in nodes:
            node.communicate()


def test_capacity_counts_workers_of_live_nodes_up_to_the_maximum(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes: list[dict[str, Any]] = [
        {"Alive": True, "Resources": {"CPU": 5.0, "memory": 8 * 1024**3}},
        {"Alive": False, "Resources": {"CPU": 100.0, "memory": 8 * 1024**3}},
        {"Alive": True, "Resources": {"CPU": 4.0, "memory": 2 * 1024**3}},
    ]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    assert ray_tune.WorkerCapacity(Resources(cpus=2), None).current() == 4
    assert ray_tune.WorkerCapacity(Resources(cpus=2), 3).current() == 3
    assert ray_tune.WorkerCapacity(Resources(cpus=2, memory_gb=4), None).current() == 2
    assert ray_tune.WorkerCapacity(Resources(cpus=2, gpus=1), None).current() == 0


def test_a_sweep_whose_own_ray_lost_its_node_ends_instead_of_waiting_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": False, "Resources": {}}])
    capacity = ray_tune.WorkerCapacity(Resources(), None, own_node=True)
    driver: Any = SimpleNamespace(stop_reason=None)
    session = ray_tune._Session(driver, capacity, lambda: None)
    with pytest.raises(ClusterError, match=r"raylet.* has died.*the same command continues"):
        session.check_capacity()
    driver.stop_reason = "SIGTERM was received"  # it went to Ray's processes too
    session.check_capacity()
    assert ray_tune.WorkerCapacity(Resources(), None).current() == 0, "a cluster's nodes may come back"


def test_an_error_of_the_driver_ends_training_and_is_raised_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Ray Tune itself would raise a TuneError that contains only the text."""
    monkeypatch.setenv("SWEEPS_COMPILE", "0")
    sweep = from_document(SMALL)
    full = StoreError("the disk is full")

    def refuse(new: object) -> None:
        raise full

    with Store(tmp_path) as store, store.hold("s"):
        store.begin_sweep("s", sweep.text, sweep.document)
        driver = Driver(sweep, "s", store, None, 1)
        driver.begin()
        monkeypatch.setattr(store, "add_records", refuse)
        with ray_tune.ray_cluster(sweep.resources, 1) as capacity, pytest.raises(StoreError) as raised:
            ray_tune.run(driver, sweep.resources, capacity, lambda: None)
    assert raised.value is full


COLLECTING = """
import gc, threading, time, ray
from sweeps.runner import ray_tune

class Cycle:
    def __init__(self, ref):
        self.me, self.ref = self, ref

ray.init(num_cpus=1, include_dashboard=False, logging_level="ERROR")
held, ended = [Cycle(ray.put(number)) for number in range(3000)], threading.Event()

def allocate():
    while not ended.is_set():
        if held:
            held.pop()
        lists = [[] for _ in range(3000)]
        time.sleep(0.0005)

gc.set_threshold(500, 1, 1)
thread = threading.Thread(target=allocate)
thread.start()
ray_tune._shut_down([])
ended.set()
thread.join()
print("alive", gc.isenabled())
"""


@pytest.mark.slow
def test_garbage_that_another_thread_collects_while_ray_ends_does_not_end_the_process(tmp_path: Path) -> None:
    """Ray ends a process that releases one of its objects while its core worker ends; the thread is as MLflow's writer is."""
    done = subprocess.run([sys.executable, "-c", COLLECTING], cwd=tmp_path, capture_output=True, text=True, timeout=280)
    assert (done.returncode, done.stdout) == (0, "alive True\n"), done.stderr
