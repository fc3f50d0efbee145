"""Batch scripts for Slurm: sound shell, nothing of a user's is expanded, and the scripts do what they promise.

The scripts run here for real, with stand-ins for Slurm's and Ray's programs.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from kinds import ONE_LINE, SLURM, SWEEP, SWEEP_NAMES, described

from cluster.descriptions import SlurmCluster
from cluster.slurm import (
    FETCH,
    HEAD,
    SYMMETRIC,
    WORKER,
    fetch_script,
    scripts,
    secrets,
    submission,
    worker_submission,
)
from cluster.sweep_file import SweepFile

HPC, FLAT = described(SLURM, "hpc", SlurmCluster), described(SLURM, "flat", SlurmCluster)
PLAIN = replace(HPC, setup=(), environment={}, python="python3", store="results", workers=FLAT.workers)
ALL = {**scripts(HPC, SWEEP), **scripts(FLAT, SWEEP), FETCH: fetch_script(HPC, SWEEP)}


def options(script: str) -> list[str]:
    return re.findall(r"^#SBATCH (.+)$", script, re.MULTILINE)


@pytest.mark.parametrize("name", ALL)
def test_a_script_is_sound_shell(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(ALL[name])
    subprocess.run(["bash", "-n", path], check=True, timeout=20)
    shellcheck = Path(sys.executable).parent / "shellcheck"
    # SC2016: a user's $(...) in single quotes, on purpose. SC2329: functions that only a trap calls.
    told = subprocess.run(
        [shellcheck, "--exclude=SC2016,SC2329", path], capture_output=True, text=True, timeout=60
    )
    assert told.returncode == 0, told.stdout


def test_shellcheck_sees_a_variable_that_is_not_quoted(tmp_path: Path) -> None:
    shellcheck = Path(sys.executable).parent / "shellcheck"
    path = tmp_path / "broken.sh"
    path.write_text(ALL[HEAD].replace('rm -f -- "$address_file"', "rm -f -- $address_file"))
    assert subprocess.run([shellcheck, path], capture_output=True, timeout=60).returncode != 0


def test_the_head_needs_no_gpu_and_workers_are_signalled_and_requeued() -> None:
    head, worker = options(ALL[HEAD]), options(ALL[WORKER])
    assert not any(option.startswith("--gres") for option in head)
    assert {"--gres=gpu:1", "--cpus-per-task=8", "--mem=32768M", "--array=1-2"} <= set(worker)
    assert {"--signal=B:TERM@60", "--requeue", "--time=0-02:00:00"} <= set(worker)
    assert "--time=0-12:00:00" in head
    assert {"--partition=gpu", "--account=physics", "--constraint=a100|h100"} <= set(head) & set(worker)
    assert "--job-name=sweeps-nau-addition-worker" in worker


def test_symmetric_run_gets_the_exact_number_of_nodes_a_longer_wait_and_nodes_of_its_own() -> None:
    assert list(scripts(FLAT, SWEEP)) == [SYMMETRIC]
    text = ALL[SYMMETRIC]
    assert {"--nodes=4", "--ntasks=4", "--ntasks-per-node=1", "--exclusive"} <= set(options(text))
    assert '--min-nodes "$SLURM_JOB_NUM_NODES"' in text
    assert 'RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT="$wait_s"' in text
    assert re.search(r"^wait_s=600$", text, re.MULTILINE)


def test_a_password_stands_in_no_script_and_goes_into_a_file_of_its_own() -> None:
    assert all("hunter2" not in text for text in ALL.values())
    assert secrets(HPC) == {"store-url": "postgresql://me:hunter2@db.example/sweeps"}
    assert 'SWEEPS_STORE="$(cat -- store-url)"' in ALL[HEAD]
    assert secrets(FLAT) == {}


def test_workers_are_submitted_after_their_head_and_only_with_a_number() -> None:
    assert submission(HPC) == ["sbatch", "--parsable", "--hold", HEAD]
    assert submission(FLAT) == ["sbatch", "--parsable", "--hold", SYMMETRIC]
    assert "--dependency=after:17" in worker_submission("17")
    with pytest.raises(ValueError, match="no job number"):
        worker_submission("17; reboot")


@settings(max_examples=25, deadline=None)
@given(value=ONE_LINE, python=ONE_LINE, store=ONE_LINE)
def test_a_user_s_text_is_one_word_to_the_shell(value: str, python: str, store: str) -> None:
    store = store.replace("://", "")
    cluster = replace(PLAIN, environment={"GIVEN": value}, python=f"/opt/{python}/python", store=store)
    lines = scripts(cluster, SWEEP)[HEAD].split("\n")
    exports = [line for line in lines[: lines.index("wait_s=600")] if line.startswith("export ")]
    script = "\n".join([*exports, 'printf "%s\\0" "$PATH" "$GIVEN" "$SWEEPS_STORE"'])
    done = subprocess.run(["bash", "-c", script], capture_output=True, timeout=20, env={"PATH": "/usr/bin"})
    folder = str(Path(f"/opt/{python}/python").parent)
    assert done.stdout.decode().split("\0")[:3] == [f"{folder}:/usr/bin", value, store]


@settings(deadline=None)  # a busy machine is slow
@given(SWEEP_NAMES)
def test_a_sweep_s_name_leaves_the_lines_of_a_script_as_they_are(name: str) -> None:
    for file, text in scripts(HPC, SweepFile(name, "")).items():
        assert text.count("\n") == ALL[file].count("\n")


# ------------------------------------------------------------------------- the scripts at work

FAKES = {
    "hostname": "echo 127.0.0.1",
    "squeue": 'echo "$SLURM_JOB_ID RUNNING"; [ -e head-is-gone ] || echo "7 RUNNING"',
    "scontrol": 'echo "scontrol $*" >>calls',
    "scancel": 'echo "scancel $*" >>calls',
    "srun": 'while [ "$1" != ray ]; do shift; done; exec "$@"',
    "python3": 'echo "python3 $*" >>calls',
    "sweeps": 'echo "sweeps $* RAY_ADDRESS=$RAY_ADDRESS token=$RAY_AUTH_TOKEN" >>calls\n'
    'trap "echo driver-stopped >>calls; exit 1" TERM\n'
    '[ -e finish-at-once ] || for _ in $(seq 300); do sleep 0.1 & wait $!; done',
    "ray": 'echo "ray $*" >>calls\n'
    '[ "$1" = health-check ] && exit 0\n'
    '[ -e ray-is-broken ] && exit 1\n'
    'if [ "$1" = symmetric-run ]; then while [ "$1" != -- ]; do shift; done; shift; exec "$@"; fi\n'
    'trap "echo ray-stopped >>calls; exit 1" TERM\n'
    'echo "Ray runtime started."\n'
    'for _ in $(seq 300); do sleep 0.1 & wait $!; done',
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sweep's folder on a cluster, and the programs that a job finds there."""
    if shutil.which("timeout") is None:
        pytest.skip(
            "no GNU timeout (coreutils), which the scripts call; every Linux that Slurm runs on has it"
        )
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in FAKES.items():
        (programs / name).write_text(f"#!/bin/bash\n{text}\n")
        (programs / name).chmod(0o755)
    for name, text in {**scripts(PLAIN, SWEEP), **scripts(FLAT, SWEEP)}.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "token").write_text("t0ken")
    return tmp_path


@pytest.fixture
def jobs(folder: Path) -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


def start(folder: Path, jobs: list[subprocess.Popen[str]], script: str, **more: str) -> subprocess.Popen[str]:
    variables = {
        "PATH": f"{folder / 'bin'}:/usr/bin:/bin", "SLURM_SUBMIT_DIR": str(folder), "SWEEPS_POLL_S": "0.1",
        "SLURM_JOB_ID": str(900_000 + os.getpid() % 90_000 + len(jobs)), "SLURM_JOB_NUM_NODES": "4", **more,
    }  # fmt: skip
    with open(folder / f"{script}.out", "w") as out:
        process = subprocess.Popen(
            ["bash", script], cwd=folder, env=variables, stdout=out, stderr=out, text=True
        )
    jobs.append(process)
    return process


def wait_for(folder: Path, words: str) -> str:
    """What was called, as soon as `words` is among it."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        called = (folder / "calls").read_text() if (folder / "calls").exists() else ""
        if words in called:
            return called
        time.sleep(0.05)
    raise AssertionError(f"{words} was never called:\n{called}")


def ended(folder: Path) -> str:
    """What `sweeps status` finds once Slurm has forgotten the job."""
    (file,) = folder.glob("ended-*")
    return file.read_text().strip()


def test_the_head_starts_ray_and_the_driver_and_takes_its_workers_with_it(
    folder: Path, jobs: list[subprocess.Popen[str]]
) -> None:
    (folder / "finish-at-once").touch()
    (folder / "worker-jobs").write_text("18\n")
    assert start(folder, jobs, HEAD).wait(30) == 0
    called = (folder / "calls").read_text()
    assert re.search(r"ray start --head --block .*--num-cpus=0", called)
    assert called.index("cluster.wait_for_workers") < called.index("sweeps run nau-addition.yaml")
    assert re.search(r"RAY_ADDRESS=127\.0\.0\.1:2\d{4} token=t0ken", called)
    assert "scancel --quiet 18" in called and "ray-stopped" in called
    assert not list(folder.glob("*.address"))
    assert ended(folder) == "done"


def test_sigterm_before_the_limit_reaches_the_driver_first(
    folder: Path, jobs: list[subprocess.Popen[str]]
) -> None:
    head = start(folder, jobs, HEAD)
    wait_for(folder, "sweeps run")
    head.send_signal(signal.SIGTERM)
    assert head.wait(30) == 1
    called = (folder / "calls").read_text()
    assert called.index("driver-stopped") < called.index("ray-stopped")
    assert ended(folder) == "stopped"


def test_a_head_whose_ray_does_not_start_says_so_after_three_attempts(
    folder: Path, jobs: list[subprocess.Popen[str]]
) -> None:
    (folder / "ray-is-broken").touch()
    assert start(folder, jobs, HEAD).wait(60) == 1
    assert "Ray's head did not start" in (folder / f"{HEAD}.out").read_text()
    assert (folder / "calls").read_text().count("ray start --head") == 3
    assert ended(folder) == "failed"


def worker_near(folder: Path, jobs: list[subprocess.Popen[str]], left_s: int) -> str:
    """What was called by a worker that got SIGTERM with so much time left."""
    (folder / "head-7.address").write_text("10.0.0.1:20014\n")
    ends = str(int(time.time()) + left_s)
    worker = start(folder, jobs, WORKER, SWEEPS_HEAD_JOB="7", SLURM_JOB_END_TIME=ends)
    wait_for(folder, "ray start --block --address=10.0.0.1:20014")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0
    return (folder / "calls").read_text()


def test_a_worker_near_its_limit_stops_ray_and_is_requeued(
    folder: Path, jobs: list[subprocess.Popen[str]]
) -> None:
    called = worker_near(folder, jobs, left_s=60)
    assert called.index("ray-stopped") < called.index("scontrol requeue 9")


def test_a_worker_that_somebody_cancels_is_not_requeued(
    folder: Path, jobs: list[subprocess.Popen[str]]
) -> None:
    called = worker_near(folder, jobs, left_s=3600)
    assert "ray-stopped" in called and "scontrol" not in called


def test_a_worker_follows_a_head_that_moved_and_ends_with_it(
    folder: Path, jobs: list[subprocess.Popen[str]]
) -> None:
    address = folder / "head-7.address"
    address.write_text("10.0.0.1:20014\n")
    worker = start(folder, jobs, WORKER, SWEEPS_HEAD_JOB="7")
    wait_for(folder, "--address=10.0.0.1:20014")
    address.write_text("10.0.0.2:20014\n")
    wait_for(folder, "--address=10.0.0.2:20014")
    address.unlink()
    (folder / "head-is-gone").touch()
    assert worker.wait(30) == 0


def test_all_nodes_at_once_run_the_driver_and_pass_sigterm_on_to_it(
    folder: Path, jobs: list[subprocess.Popen[str]]
) -> None:
    job = start(folder, jobs, SYMMETRIC)
    called = wait_for(folder, "sweeps run nau-addition.yaml")
    assert re.search(r"ray symmetric-run --address 127\.0\.0\.1:2\d{4} --min-nodes 4 ", called)
    job.send_signal(signal.SIGTERM)
    assert job.wait(30) == 1
    assert "driver-stopped" in (folder / "calls").read_text()
    assert ended(folder) == "stopped"


def test_all_nodes_at_once_fail_where_ray_did_not_start_although_ray_says_0(
    folder: Path, jobs: list[subprocess.Popen[str]]
) -> None:
    (folder / "bin" / "ray").write_text("#!/bin/bash\nexit 0\n")
    assert start(folder, jobs, SYMMETRIC).wait(30) == 1
    assert "the driver never began" in (folder / f"{SYMMETRIC}.out").read_text()
