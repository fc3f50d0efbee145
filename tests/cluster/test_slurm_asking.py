"""What is asked of Slurm and of a sweep's folder, where no Slurm is needed: refusals, its words, a log that grows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from cluster import slurm_log
from cluster.descriptions import SlurmCluster
from cluster.remote import Submission
from cluster.slurm import placed
from cluster.slurm_commands import SlurmCommands, in_its_words
from cluster.slurm_folder import Attempt, SweepFolder
from cluster.slurm_jobs import SlurmJobs
from cluster.slurm_log import followed, whole_lines
from sweeps.errors import ClusterError, UserError

SWEEP = Submission("small", "name: small\n", {}, cpus=1)


@pytest.fixture
def hpc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SlurmCluster:
    """A cluster whose commands are `programs`, of which there are none yet."""
    (tmp_path / "programs").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "programs"))
    return SlurmCluster(name="hpc", folder=str(tmp_path / "jobs"), store=str(tmp_path / "store"))


def program(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "programs" / name).write_text(f"#!/bin/bash\n{text}\n")
    (tmp_path / "programs" / name).chmod(0o755)


def test_without_slurm_s_commands_every_verb_says_where_to_go(hpc: SlurmCluster, tmp_path: Path) -> None:
    jobs = SlurmJobs(hpc)
    for verb in (lambda: jobs.submit(SWEEP), lambda: jobs.state("small"), lambda: jobs.stop("small")):
        with pytest.raises(
            UserError, match="sbatch.* cannot be found on this machine: call `sweeps` on a login"
        ):
            verb()
    assert not (tmp_path / "jobs").exists()


@pytest.mark.parametrize("name", ["a b", "$(touch owned)", "../up", "-rf", "", "a;b", "a\nb"])
def test_a_name_that_no_sweep_has_reaches_no_folder_and_no_command(name: str, hpc: SlurmCluster) -> None:
    jobs = SlurmJobs(hpc)
    for verb in (jobs.state, jobs.stop, lambda name: jobs.submit(replace(SWEEP, name=name))):
        with pytest.raises(ValueError, match="cannot be the name of a sweep"):
            verb(name)


def test_a_folder_that_cannot_be_written_is_told_before_slurm_is_asked(
    hpc: SlurmCluster, tmp_path: Path
) -> None:
    (tmp_path / "jobs").write_text("a file")
    for name in ("sbatch", "scancel", "scontrol", "squeue", "srun"):
        program(tmp_path, name, "exit 9")
    with pytest.raises(UserError, match=r"cannot be read and written: .*`folder` of 'hpc' in clusters\.yaml"):
        SlurmJobs(hpc).submit(SWEEP)


def test_slurm_s_words_are_passed_on_and_its_absence_is_no_refusal(hpc: SlurmCluster, tmp_path: Path) -> None:
    told = "sbatch: error: invalid partition specified: x\nallocation failure: Invalid partition name specified\n"
    assert in_its_words(told) == "invalid partition specified: x; Invalid partition name specified"
    program(tmp_path, "sbatch", "echo 'sbatch: error: invalid partition specified: x' >&2; exit 1")
    program(
        tmp_path, "squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1"
    )
    commands = SlurmCommands("hpc")
    with pytest.raises(UserError, match="Slurm of 'hpc' refuses sbatch: invalid partition specified: x"):
        commands.would_take("head.sh", tmp_path)
    with pytest.raises(ClusterError, match="does not answer squeue"):
        commands.queue("7")


def test_nothing_of_the_submitter_s_own_ray_or_store_goes_along(
    hpc: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {"RAY_ADDRESS", "RAY_AUTH_TOKEN", "SWEEPS_STORE", "MLFLOW_TRACKING_URI"}
    for name in own:
        monkeypatch.setenv(name, "mine")
    program(tmp_path, "sbatch", 'echo "${!RAY_*} ${!SWEEPS_*} ${!MLFLOW_*}" >given; echo "17;cluster2"')
    assert (
        SlurmCommands("hpc").submit(["sbatch", "head.sh"], tmp_path, {"SWEEPS_PLANNED_WORKERS": "4"}) == "17"
    )
    given = set((tmp_path / "given").read_text().split())
    assert "SWEEPS_PLANNED_WORKERS" in given
    assert not given & own
    program(tmp_path, "sbatch", "echo welcome")
    with pytest.raises(ClusterError, match="answered 'welcome', which is no job number"):
        SlurmCommands("hpc").submit(["sbatch", "head.sh"], tmp_path, {})


def test_paths_do_not_depend_on_where_one_stands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    found = placed(SlurmCluster(name="hpc", python="~/venv/bin/python"))
    assert found.folder == str(tmp_path / "sweeps-jobs")
    assert found.store == str(tmp_path / ".local/share/sweeps/results")
    assert found.python == str(tmp_path / "venv/bin/python")
    assert placed(found) == found


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


def test_a_log_is_given_in_whole_lines_while_it_grows_and_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm_log, "READ_S", 0.0)
    monkeypatch.setattr(slurm_log, "ASK_S", 0.0)
    log, told = tmp_path / "head.log", []
    growth = [b"", b"one\ntw", b"o \xff", "\nthré".encode()]

    def goes_on() -> bool:
        with log.open("ab") as file:
            file.write(growth.pop(0))
        if len(growth) == 2:
            raise ClusterError("Slurm is away")
        return bool(growth)

    assert list(followed(log, goes_on, told.append)) == ["one", "two \ufffd", "thré"]
    assert told == ["Slurm is away, trying again"]
    assert whole_lines(log) == ["one", "two \ufffd", "thré"]
    assert whole_lines(tmp_path / "none.log") == []


def test_a_store_on_a_network_disk_is_refused_before_the_queue_unless_the_cluster_permits_it(
    hpc: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("sbatch", "scancel", "scontrol", "squeue", "srun"):
        program(tmp_path, name, "echo 'sbatch: error: no partition' >&2; exit 9")
    shared = [SimpleNamespace(mountpoint=str(tmp_path), fstype="lustre")]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: shared)
    with pytest.raises(
        UserError, match=r"network file system \(lustre\).*environment: {SWEEPS_NETWORK_DISK: 1}"
    ):
        SlurmJobs(hpc).submit(SWEEP)
    with pytest.raises(UserError, match="no partition"):
        SlurmJobs(replace(hpc, environment={"SWEEPS_NETWORK_DISK": "1"})).submit(SWEEP)
