"""A Slurm of the test's own: munged, slurmctld and slurmd on this machine, with their own key, socket, ports and files,
and numbers of jobs that no other has: ports and folders of Ray are made from them.

Debian's packages are slurm-wlm and munge. Nothing of a Slurm that may be installed here already is used or changed.
"""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from cluster.local import free_ports

DAEMONS = ("munged", "slurmctld", "slurmd")
PROGRAMS = (*DAEMONS, "sbatch", "squeue", "scontrol", "scancel", "srun", "sinfo")
PLACES = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
APART = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
START_S = 120.0
NUM_CPUS = 4
CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={controller}
SlurmdPort={node}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SlurmdParameters=config_overrides
ReturnToService=2
MinJobAge=2
MessageTimeout=60
FirstJobId={first_job}
SchedulerParameters=sched_interval=5,bf_interval=5
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=16000 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


CLUSTER = """\
{name}:
  kind: slurm
  partition: main
  python: {python}
  folder: {shared}/jobs
  store: {shared}/store
  environment: {{SWEEPS_COMPILE: "0", OMP_NUM_THREADS: "1"}}
"""


def described(name: str, shared: Path, **fields: str) -> str:
    """This Slurm in a `clusters.yaml`, its nodes seeing the folder `shared`."""
    lines = [f"  {key}: {value}\n" for key, value in fields.items()]
    return CLUSTER.format(name=name, python=sys.executable, shared=shared) + "".join(lines)


class Missing(RuntimeError):
    """Slurm is not available here; the message contains the reason."""


@dataclass(frozen=True)
class OwnSlurm:
    """Where it lies, and how its programs are called."""

    folder: Path
    environment: Mapping[str, str]

    def call(self, *arguments: str) -> str:
        done = subprocess.run(arguments, env={**os.environ, **self.environment}, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        return done.stdout.strip()

    def clear_away_jobs(self) -> None:
        """Ends all jobs in order, and kills by its pid what is left of them after a while."""
        deadline = time.monotonic() + 120.0
        while self.call("squeue", "--noheader") and time.monotonic() < deadline:
            self.call("scancel", "--full", "--quiet", f"--user={os.getuid()}")
            time.sleep(1.0)
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                mine = process.environ().get("SLURM_CONF") == self.environment["SLURM_CONF"]
                if mine and "SLURM_JOB_ID" in process.environ():
                    process.kill()


@contextmanager
def own_slurm(jobs_apart: bool = False) -> Iterator[OwnSlurm]:
    """Slurm of one node with NUM_CPUS CPUs in one partition, `main`. Raises Missing.

    `jobs_apart`: jobs see and reach only processes of this Slurm's jobs, whatever they try to kill.
    """
    needed = (*PROGRAMS, "unshare") if jobs_apart else PROGRAMS
    absent = [name for name in needed if shutil.which(name, path=PLACES) is None]
    if absent:
        raise Missing(f"{', '.join(absent)} not installed: apt-get install slurm-wlm munge")
    folder = Path(tempfile.mkdtemp(prefix="sweeps-slurm-"))  # short: a socket's path has at most 107 letters
    folder.chmod(0o755)
    started: list[subprocess.Popen[bytes]] = []
    try:
        _write_files(folder)
        environment = {"SLURM_CONF": str(folder / "slurm.conf")}
        slurm = OwnSlurm(folder, environment)
        for command in _commands(folder):
            program = str(shutil.which(command[0], path=PLACES))
            before = APART if jobs_apart and command[0] == "slurmd" else []
            with (folder / f"{command[0]}.out").open("wb") as out:
                started.append(
                    subprocess.Popen(
                        [*before, program, *command[1:]], env={**os.environ, **environment}, stdin=subprocess.DEVNULL,
                        stdout=out, stderr=out,
                    )
                )  # fmt: skip
            if command[0] == "munged":
                _wait(lambda: (folder / "munge.socket").exists(), started, folder)
        _wait(lambda: _answers(slurm), started, folder)
        try:
            yield slurm
        finally:
            slurm.clear_away_jobs()
    finally:
        _end(started)
        shutil.rmtree(folder, ignore_errors=True)


def _write_files(folder: Path) -> None:
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o600)
    controller, node = free_ports(2)
    (folder / "slurm.conf").write_text(
        CONF.format(
            folder=folder, host=socket.gethostname().partition(".")[0], user=getpass.getuser(), cpus=NUM_CPUS,
            controller=controller, node=node, first_job=secrets.randbelow(60_000_000) + 1,
        )
    )  # fmt: skip


def _commands(folder: Path) -> list[list[str]]:
    munge = {
        "key-file": "munge.key", "socket": "munge.socket", "pid-file": "munged.pid", "log-file": "munged.log",
        "seed-file": "munged.seed",
    }  # fmt: skip
    return [
        ["munged", "--foreground", "--force", *(f"--{name}={folder / file}" for name, file in munge.items())],
        ["slurmctld", "-D", "-i"],
        ["slurmd", "-D"],
    ]


def _answers(slurm: OwnSlurm) -> bool:
    output = subprocess.run(
        ["sinfo", "--noheader", "--format=%T"], env={**os.environ, **slurm.environment}, capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    return output.stdout.strip() == "idle"


def _wait(ready: Callable[[], bool], started: list[subprocess.Popen[bytes]], folder: Path) -> None:
    deadline = time.monotonic() + START_S
    while not ready():
        ended = [process.args for process in started if process.poll() is not None]
        if ended or time.monotonic() > deadline:
            raise Missing(f"Slurm does not start here: {_last_words(folder)}")
        time.sleep(0.2)


def _last_words(folder: Path) -> str:
    found = []
    for name in DAEMONS:
        for file in (folder / f"{name}.log", folder / f"{name}.out"):
            lines = file.read_text(errors="replace").strip().splitlines() if file.exists() else []
            found += [f"{name}: {line}" for line in lines[-3:]]
    return " | ".join(found)


def _end(started: list[subprocess.Popen[bytes]]) -> None:
    """Each daemon by its own pid, what runs jobs first; and what jobs have left."""
    left: list[psutil.Process] = []
    for process in reversed(started):
        with suppress(psutil.Error):
            left += psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
    for child in left:
        with suppress(psutil.Error):
            child.kill()
