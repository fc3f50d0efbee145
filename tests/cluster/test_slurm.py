"""Slurm without Slurm: the batch scripts, calls of its commands, and a sweep's folder.

The scripts are valid shell, expand nothing of a user's, and are run here with stand-ins for Slurm's and Ray's programs.
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
from types import SimpleNamespace

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kinds import ONE_LINE, SLURM, SWEEP, SWEEP_NAMES, described

from cluster.backend import Submission
from cluster.description import duration_s
from cluster.slurm import SlurmBackend
from cluster.slurm.commands import SlurmCommands, message_of
from cluster.slurm.jobs import Attempt, SweepFolder
from cluster.slurm.scripts import (
    FETCH,
    HEAD,
    SYMMETRIC,
    WORKER,
    SlurmCluster,
    fetch_script,
    head_submission,
    resolved,
    scripts,
    secrets,
    slurm_time,
    worker_submission,
)
from sweeps.errors import ClusterError, UserError

HPC, FLAT = (described(SLURM, name, SlurmBackend).cluster for name in ("hpc", "flat"))
PLAIN = replace(HPC, setup=(), environment={}, python="python3", store="results", workers=FLAT.workers)
ALL = {**scripts(HPC, SWEEP), **scripts(FLAT, SWEEP), FETCH: fetch_script(HPC, SWEEP)}


def options(script: str) -> list[str]:
    return re.findall(r"^#SBATCH (.+)$", script, re.MULTILINE)


@pytest.mark.cluster
@pytest.mark.parametrize("name", ALL)
def test_a_script_is_sound_shell(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(ALL[name])
    subprocess.run(["bash", "-n", path], check=True, timeout=20)
    shellcheck = Path(sys.executable).parent / "shellcheck"
    # SC2016: a user's $(...) in single quotes, on purpose. SC2329: functions that only a trap calls.
    output = subprocess.run([shellcheck, "--exclude=SC2016,SC2329", path], capture_output=True, text=True, timeout=60)
    assert output.returncode == 0, output.stdout


@pytest.mark.cluster
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
    assert head_submission(HPC) == ["sbatch", "--parsable", "--hold", HEAD]
    assert head_submission(FLAT) == ["sbatch", "--parsable", "--hold", SYMMETRIC]
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
    for file, text in scripts(HPC, Submission(name)).items():
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
        pytest.skip("no GNU timeout (coreutils), which the scripts call; every Linux that Slurm runs on has it")
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
        process = subprocess.Popen(["bash", script], cwd=folder, env=variables, stdout=out, stderr=out, text=True)
    jobs.append(process)
    return process


def wait_for(folder: Path, call: str) -> str:
    """Return what was called, as soon as it contains `call`."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        called = (folder / "calls").read_text() if (folder / "calls").exists() else ""
        if call in called:
            return called
        time.sleep(0.05)
    raise AssertionError(f"{call} was never called:\n{called}")


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
    assert called.index("cluster.slurm.wait_for_workers") < called.index("sweeps run nau-addition.yaml")
    assert re.search(r"RAY_ADDRESS=127\.0\.0\.1:2\d{4} token=t0ken", called)
    assert "scancel --quiet 18" in called and "ray-stopped" in called
    assert not list(folder.glob("*.address"))
    assert ended(folder) == "done"


def test_sigterm_before_the_limit_reaches_the_driver_first(folder: Path, jobs: list[subprocess.Popen[str]]) -> None:
    head = start(folder, jobs, HEAD)
    wait_for(folder, "sweeps run")
    head.send_signal(signal.SIGTERM)
    assert head.wait(30) == 1
    called = (folder / "calls").read_text()
    assert called.index("driver-stopped") < called.index("ray-stopped")
    assert ended(folder) == "stopped"


@pytest.mark.cluster
def test_a_head_whose_ray_does_not_start_fails_after_three_attempts(folder: Path, jobs: list[subprocess.Popen[str]]) -> None:
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


def test_a_worker_near_its_limit_stops_ray_and_is_requeued(folder: Path, jobs: list[subprocess.Popen[str]]) -> None:
    called = worker_near(folder, jobs, left_s=60)
    assert called.index("ray-stopped") < called.index("scontrol requeue 9")


def test_a_worker_that_somebody_cancels_is_not_requeued(folder: Path, jobs: list[subprocess.Popen[str]]) -> None:
    called = worker_near(folder, jobs, left_s=3600)
    assert "ray-stopped" in called and "scontrol" not in called


def test_a_worker_follows_a_head_that_moved_and_ends_with_it(folder: Path, jobs: list[subprocess.Popen[str]]) -> None:
    address = folder / "head-7.address"
    address.write_text("10.0.0.1:20014\n")
    worker = start(folder, jobs, WORKER, SWEEPS_HEAD_JOB="7")
    wait_for(folder, "--address=10.0.0.1:20014")
    address.write_text("10.0.0.2:20014\n")
    wait_for(folder, "--address=10.0.0.2:20014")
    address.unlink()
    (folder / "head-is-gone").touch()
    assert worker.wait(30) == 0


def test_all_nodes_at_once_run_the_driver_and_pass_sigterm_on_to_it(folder: Path, jobs: list[subprocess.Popen[str]]) -> None:
    job = start(folder, jobs, SYMMETRIC)
    called = wait_for(folder, "sweeps run nau-addition.yaml")
    assert re.search(r"ray symmetric-run --address 127\.0\.0\.1:2\d{4} --min-nodes 4 ", called)
    job.send_signal(signal.SIGTERM)
    assert job.wait(30) == 1
    assert "driver-stopped" in (folder / "calls").read_text()
    assert ended(folder) == "stopped"


def test_all_nodes_at_once_fail_where_ray_did_not_start_although_ray_exits_with_0(
    folder: Path, jobs: list[subprocess.Popen[str]]
) -> None:
    (folder / "bin" / "ray").write_text("#!/bin/bash\nexit 0\n")
    assert start(folder, jobs, SYMMETRIC).wait(30) == 1
    assert "the driver never began" in (folder / f"{SYMMETRIC}.out").read_text()


# ------------------------------------------------------------------------ the commands and the sweep's folder


SMALL = Submission("small", "name: small\n")


@pytest.fixture
def hpc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SlurmCluster:
    """A cluster whose commands are `programs`, of which there are none yet."""
    (tmp_path / "programs").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "programs"))
    return SlurmCluster(name="hpc", folder=str(tmp_path / "jobs"), store=str(tmp_path / "store"))


def program(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "programs" / name).write_text(f"#!/bin/bash\n{text}\n")
    (tmp_path / "programs" / name).chmod(0o755)


def test_a_folder_that_cannot_be_written_is_reported_before_slurm_is_called(hpc: SlurmCluster, tmp_path: Path) -> None:
    (tmp_path / "jobs").write_text("a file")
    for name in ("sbatch", "scancel", "scontrol", "squeue", "srun"):
        program(tmp_path, name, "exit 9")
    with pytest.raises(UserError, match=r"cannot be read and written: .*`folder` of 'hpc' in clusters\.yaml"):
        SlurmBackend(hpc).submit(SMALL)


def test_slurm_s_messages_are_passed_on_and_its_absence_is_no_refusal(hpc: SlurmCluster, tmp_path: Path) -> None:
    output = "sbatch: error: invalid partition specified: x\nallocation failure: Invalid partition name specified\n"
    assert message_of(output) == "invalid partition specified: x; Invalid partition name specified"
    program(tmp_path, "sbatch", "echo 'sbatch: error: invalid partition specified: x' >&2; exit 1")
    program(tmp_path, "squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    commands = SlurmCommands("hpc")
    with pytest.raises(UserError, match="Slurm of 'hpc' refuses sbatch: invalid partition specified: x"):
        commands.check_script("head.sh", tmp_path)
    with pytest.raises(ClusterError, match="does not answer squeue"):
        commands.queue("7")


def test_nothing_of_the_submitter_s_own_ray_or_store_goes_along(
    hpc: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {"RAY_ADDRESS", "RAY_AUTH_TOKEN", "SWEEPS_STORE", "MLFLOW_TRACKING_URI"}
    for name in own:
        monkeypatch.setenv(name, "mine")
    program(tmp_path, "sbatch", 'echo "${!RAY_*} ${!SWEEPS_*} ${!MLFLOW_*}" >given; echo "17;cluster2"')
    assert SlurmCommands("hpc").submit(["sbatch", "head.sh"], tmp_path, {"SWEEPS_PLANNED_WORKERS": "4"}) == "17"
    given = set((tmp_path / "given").read_text().split())
    assert "SWEEPS_PLANNED_WORKERS" in given
    assert not given & own
    program(tmp_path, "sbatch", "echo welcome")
    with pytest.raises(ClusterError, match="printed 'welcome', which is no job number"):
        SlurmCommands("hpc").submit(["sbatch", "head.sh"], tmp_path, {})


def test_paths_do_not_depend_on_where_one_stands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    found = resolved(SlurmCluster(name="hpc", python="~/venv/bin/python"))
    assert found.folder == str(tmp_path / "sweeps-jobs")
    assert found.store == str(tmp_path / ".local/share/sweeps/results")
    assert found.python == str(tmp_path / "venv/bin/python")
    assert resolved(found) == found


def test_a_sweep_s_folder_is_private_and_keeps_its_jobs_in_order(hpc: SlurmCluster) -> None:
    folder = SweepFolder(hpc, "small")
    first = Attempt("7", "8", "head-7.log", "abc", 1, "2026-01-01T00:00:00+00:00")
    with folder.locked():
        folder.write({"my/unit.py": b"x = 1\n"}, {"token": "secret"})
        folder.write({}, {"token": "another"})
        folder.add(first)
        folder.add(replace(first, job="9", workers="", attempt=2))
    assert [attempt.jobs for attempt in folder.attempts()] == [["7", "8"], ["9"]]
    assert folder.names() == ["small"]
    assert (folder.path / "token").read_text() == "another"
    assert (folder.path / "token").stat().st_mode & 0o777 == 0o600
    assert folder.path.stat().st_mode & 0o777 == 0o700
    (folder.path / "jobs.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read and written"):
        folder.attempts()


def test_a_store_on_a_network_disk_is_refused_before_the_queue_unless_the_cluster_permits_it(
    hpc: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("sbatch", "scancel", "scontrol", "squeue", "srun"):
        program(tmp_path, name, "echo 'sbatch: error: no partition' >&2; exit 9")
    shared = [SimpleNamespace(mountpoint=str(tmp_path), fstype="lustre")]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: shared)
    with pytest.raises(UserError, match=r"network file system \(lustre\).*environment: {SWEEPS_NETWORK_DISK: 1}"):
        SlurmBackend(hpc).submit(SMALL)
    with pytest.raises(UserError, match="no partition"):
        SlurmBackend(replace(hpc, environment={"SWEEPS_NETWORK_DISK": "1"})).submit(SMALL)


def folder_in(base: Path) -> SweepFolder:
    return SweepFolder(SlurmCluster(name="hpc", folder=str(base)), "small")


def test_a_folder_that_others_may_write_is_closed_to_them(tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    (tmp_path / "small").chmod(0o777)
    with folder_in(tmp_path).locked():
        assert (tmp_path / "small").stat().st_mode & 0o777 == 0o700


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "small").mkdir()
    monkeypatch.setattr(os, "getuid", lambda: (tmp_path / "small").stat().st_uid + 1)
    with pytest.raises(UserError, match="belongs to another user"), folder_in(tmp_path).locked():
        pass


@settings(deadline=None)  # a busy machine is slow
@given(st.integers(1, 366 * 86_400))
def test_slurm_s_form_of_a_time_reads_back_as_the_same_seconds(seconds: int) -> None:
    assert duration_s(slurm_time(seconds)) == seconds
