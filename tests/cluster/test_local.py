"""What `sweeps cluster down` may end; with real nodes: test_ray_cluster.py."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from cluster.local import MARK, RunningCluster, processes


@contextmanager
def sleeping(**environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a session of its own."""
    process = subprocess.Popen(["sleep", "60"], start_new_session=True, env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def state(keeper: int, started_s: float) -> RunningCluster:
    return RunningCluster("m-1", keeper, started_s, "", "", "", "", [])


def test_processes_of_the_keeper_s_session_and_marked_ones_are_the_cluster_s() -> None:
    with sleeping() as keeper, sleeping(**{MARK: "m-1"}) as marked, sleeping(**{MARK: "m-2"}) as stranger:
        found = {p.pid for p in processes(state(keeper.pid, psutil.Process(keeper.pid).create_time()))}
        assert {keeper.pid, marked.pid} <= found
        assert stranger.pid not in found


def test_descendants_of_a_marked_process_are_the_cluster_s_though_they_have_no_mark() -> None:
    """A job's driver, and what it starts, may replace their environment."""
    nested = "env -i sh -c 'sleep 60 & wait' & wait"
    environment = {MARK: "m-1", "PATH": os.environ["PATH"]}
    with sleeping() as keeper, subprocess.Popen(["sh", "-c", nested], start_new_session=True, env=environment) as marked:
        try:
            deadline, descendants = time.monotonic() + 30.0, set[int]()
            while len(descendants) < 2 and time.monotonic() < deadline:
                descendants = {p.pid for p in psutil.Process(marked.pid).children(recursive=True)}
            found = {p.pid for p in processes(state(keeper.pid, psutil.Process(keeper.pid).create_time()))}
            assert len(descendants) == 2 and {marked.pid, *descendants} <= found
        finally:
            os.killpg(marked.pid, signal.SIGKILL)


@pytest.mark.parametrize("age_s", [3600.0, 3 * 86_400.0])
def test_another_process_that_was_given_the_keeper_s_number_is_left_alone(age_s: float, tmp_path: Path) -> None:
    """After a boot, or long after the keeper has died: its number is another session's."""
    with sleeping() as other:
        assert processes(state(other.pid, time.time() - age_s)) == []
