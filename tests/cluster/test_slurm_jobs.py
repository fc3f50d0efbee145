"""Sweeps as jobs of a real Slurm that the test starts, with our scripts and stand-ins for Ray and the driver."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from own_slurm import OwnSlurm

from cluster.backend import JobStatus, Submission
from cluster.description import NodeResources, Workers
from cluster.slurm import SlurmBackend
from cluster.slurm.scripts import SlurmCluster
from sweeps.errors import UserError

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

PATIENCE_S = 240.0
STAND_INS = {
    "ray": '[ "$1" = health-check ] && exit 0\n'
    'if [ "$1" = symmetric-run ]; then while [ "$1" != -- ]; do shift; done; shift; "$@"; exit; fi\n'
    'echo "Ray runtime started."; echo "ray $*" >>calls\n'
    'trap "exit 1" TERM\n'
    'while true; do sleep 1 & wait $!; done',
    "python3": f'[ "$2" = cluster.slurm.wait_for_workers ] && exit 0\nexec {sys.executable} "$@"',
    "sweeps": 'echo "driver $* attempt ${SLURM_RESTART_COUNT:-0} planned $SWEEPS_PLANNED_WORKERS"\n'
    'echo "progress| 0:00:01  lanes 1/9"; echo "progress|   best"\n'
    'trap "echo SIGTERM was received; exit 1" TERM\n'
    'while [ ! -e finish ]; do [ ! -e fail ] || { echo "the driver failed"; exit 1; }; sleep 1 & wait $!; done',
}  # fmt: skip
SWEEP = Submission("small", "name: small\n", {}, cpus=1)


@pytest.fixture
def jobs(slurm: OwnSlurm, tmp_path: Path) -> Iterator[SlurmBackend]:
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, text in STAND_INS.items():
        (programs / name).write_text(f"#!/bin/bash\n{text}\n")
        (programs / name).chmod(0o755)
    yield SlurmBackend(
        SlurmCluster(
            name="hpc", partition="main", workers=Workers(min=2, max=2), head=NodeResources(cpus=1),
            python=str(programs / "python3"), folder=str(tmp_path / "jobs"), store=str(tmp_path / "store"),
            environment={"SWEEPS_POLL_S": "0.5"},
        )
    )  # fmt: skip
    slurm.clear_away_jobs()


def until(happened: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < deadline, f"no {what}"
        time.sleep(0.5)


def folder(jobs: SlurmBackend) -> Path:
    return Path(jobs.resolved.folder) / "small"


def begun(jobs: SlurmBackend) -> JobStatus:
    """Once the driver runs, and both workers have joined."""
    assert jobs.submit(SWEEP).fresh
    until(lambda: joined(jobs) == 2 and jobs.status("small").progress, "driver with two workers")
    return jobs.status("small")


def joined(jobs: SlurmBackend) -> int:
    calls = folder(jobs) / "calls"
    return calls.read_text().count("ray start --block --address") if calls.exists() else 0


def queued(slurm: OwnSlurm) -> list[str]:
    return slurm.call("squeue", "--noheader", "--array", "--format=%T").split()


def test_a_sweep_runs_with_its_workers_and_is_done_once(jobs: SlurmBackend, slurm: OwnSlurm) -> None:
    state = begun(jobs)
    assert (state.state, state.attempt) == ("running", 1)
    assert state.message == "worker jobs: 2 running, 0 waiting"
    assert list(state.progress) == ["0:00:01  lanes 1/9", "  best"]
    assert len(queued(slurm)) == 3
    again = jobs.submit(SWEEP)
    assert (again.job, again.state, again.fresh) == (state.job, "running", False)
    with pytest.raises(UserError, match="runs on 'hpc' already, with other settings.*--name NEW"):
        jobs.submit(replace(SWEEP, text="name: small\nseeds: 2\n"))
    assert len(queued(slurm)) == 3
    (folder(jobs) / "finish").touch()
    lines = list(jobs.logs("small", True, print))
    assert "driver run small.yaml --no-mlflow attempt 0 planned 2" in lines
    assert jobs.status("small").state == "done"
    assert jobs.submit(SWEEP).state == "done"
    until(lambda: not queued(slurm), "end of the workers")
    assert (folder(jobs) / f"ended-{state.job}").read_text() == "done\n"  # for when Slurm has forgotten the job
    assert jobs.slurm.queue("66999999") == []  # as of one that it has forgotten
    assert jobs.slurm.how_it_ended("66999999") is None
    assert (folder(jobs) / "token").stat().st_mode & 0o777 == 0o600
    assert folder(jobs).stat().st_mode & 0o777 == 0o700
    assert not list(Path("/tmp").glob(f"ray-{os.getuid()}-{state.job}"))


def test_a_stop_ends_the_driver_in_order_then_the_workers_and_a_submit_goes_on(jobs: SlurmBackend, slurm: OwnSlurm) -> None:
    begun(jobs)
    stopped = jobs.stop("small")
    assert (stopped.state, queued(slurm)) == ("stopped", [])
    assert "SIGTERM was received" in list(jobs.logs("small", False, print))
    assert jobs.stop("small").state == "stopped"
    more = jobs.submit(SWEEP)
    assert (more.fresh, more.attempt) == (True, 2)
    (folder(jobs) / "fail").touch()
    assert "the driver failed" in list(jobs.logs("small", True, print))
    failed = jobs.status("small")
    assert failed.state == "failed"
    assert failed.message == f"the driver failed Logs: {folder(jobs)}"
    assert jobs.submit(SWEEP).attempt == 3


def test_a_waiting_job_has_a_reason_and_can_be_stopped(jobs: SlurmBackend, slurm: OwnSlurm) -> None:
    slurm.call("scontrol", "update", "PartitionName=main", "State=DOWN")
    try:
        assert jobs.submit(SWEEP).state == "waiting"
        until(lambda: "PartitionDown" in jobs.status("small").message, "reason")
        messages: list[str] = []
        following = threading.Thread(target=lambda: list(jobs.logs("small", True, messages.append)))
        following.start()
        until(lambda: messages, "message about the queue")
        assert jobs.stop("small").state == "stopped"
        following.join(60)
        assert "waits in the queue: PartitionDown" in messages[0]
    finally:
        slurm.call("scontrol", "update", "PartitionName=main", "State=UP")


def test_a_requeued_worker_joins_again_and_a_requeued_head_keeps_its_workers(jobs: SlurmBackend, slurm: OwnSlurm) -> None:
    state = begun(jobs)
    workers = (folder(jobs) / "worker-jobs").read_text()
    slurm.call("scontrol", "requeue", f"{workers}_1")
    until(lambda: joined(jobs) == 3, "worker that joins again")
    slurm.call("scontrol", "requeue", state.job)
    until(lambda: joined(jobs) == 5, "workers that follow the head")
    assert "driver run small.yaml --no-mlflow attempt 1 planned 2" in list(jobs.logs("small", False, print))
    assert jobs.status("small").state == "running"


def test_a_worker_leaves_before_its_limit_and_comes_back_of_itself(jobs: SlurmBackend, slurm: OwnSlurm) -> None:
    brief = SlurmBackend(replace(jobs.resolved, workers=Workers(min=1, max=1), worker_time_limit=60, grace_s=20))
    assert brief.submit(SWEEP).fresh
    until(lambda: joined(jobs) == 2, "worker that joins again")
    (log,) = folder(jobs).glob("worker-*_1.log")
    assert "this job's limit is near: it is requeued" in log.read_text()
    assert brief.status("small").state == "running"


def test_workers_end_where_their_head_is_gone_and_forgotten(jobs: SlurmBackend, slurm: OwnSlurm) -> None:
    state = begun(jobs)
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get("SLURM_JOB_ID") == state.job:
                process.kill()  # without a trace
    until(lambda: jobs.status("small").state == "failed", "end of the head")
    (folder(jobs) / f"head-{state.job}.address").unlink()  # as if its node's disk were gone too
    until(lambda: not queued(slurm), "end of the workers")
    assert "Slurm reports" in jobs.status("small").message
    assert jobs.submit(SWEEP).attempt == 2


def test_all_nodes_at_once_is_one_job_that_stops_in_order_and_goes_on(jobs: SlurmBackend, slurm: OwnSlurm) -> None:
    flat = SlurmBackend(replace(jobs.resolved, mode="symmetric", workers=Workers(min=1, max=1)))
    assert flat.submit(SWEEP).fresh
    until(lambda: flat.status("small").progress, "driver")
    assert queued(slurm) == ["RUNNING"]
    assert flat.stop("small").state == "stopped"
    assert "SIGTERM was received" in list(flat.logs("small", False, print))
    (folder(flat) / "finish").touch()
    assert flat.submit(SWEEP).attempt == 2
    assert "driver run small.yaml --no-mlflow attempt 0 planned 1" in list(flat.logs("small", True, print))
    assert flat.status("small").state == "done"


def test_a_refusal_of_slurm_is_passed_on_and_nothing_is_started(jobs: SlurmBackend, slurm: OwnSlurm) -> None:
    given = jobs.resolved
    for wrong, message in (
        (replace(given, partition="nowhere"), "invalid partition specified: nowhere"),
        (replace(given, resources=NodeResources(cpus=99)), "Requested node configuration is not available"),
        (replace(given, head=NodeResources(memory_gb=999)), "Requested node configuration is not available"),
        (replace(given, resources=NodeResources(gpus=1)), "Invalid generic resource"),
        (replace(given, extra=("--bogus",)), "unrecognized option"),
    ):
        with pytest.raises(UserError, match=message):
            SlurmBackend(wrong).submit(SWEEP)
    with pytest.raises(UserError, match="one worker needs 2 CPUs, 0 GPUs, and no worker job of .hpc. has that"):
        jobs.submit(replace(SWEEP, cpus=2))
    with pytest.raises(UserError, match="no sweep named 'small' was submitted"):
        jobs.status("small")
    assert queued(slurm) == []


def test_a_sweep_that_runs_is_fetched_by_a_step_of_its_job(
    jobs: SlurmBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from made_sweep import made_sweep

    from sweeps.store import Store

    with Store(tmp_path / "store") as there:
        made_sweep(there)
    begun(jobs)
    called: list[list[str]] = []
    run = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda call, **more: (called.append(call), run(call, **more))[1])
    with Store(tmp_path / "home") as home:
        assert jobs.fetch("small", home) == 12
        assert any(call[0] == "srun" for call in called)
        jobs.stop("small")
        assert jobs.fetch("small", home) == 0
