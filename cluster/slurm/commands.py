"""Calls of Slurm's commands, with lists of arguments and never through a shell. Their messages are passed on."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.backend import State
from sweeps.errors import ClusterError, UserError

COMMANDS = ("sbatch", "scancel", "scontrol", "squeue", "srun")
PATIENCE_S = 120.0  # the commands themselves retry a busy controller for about as long
_OUT_OF_REACH = re.compile(
    r"unable to contact|timed out|connect|communication|slurm_receive|zero bytes|controller|authentication",
    re.IGNORECASE,
)
_PREFIX = re.compile(r"^(?:\w+: (?:error|fatal): |allocation failure: |\w+: )")
_WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT", "SUSPENDED", "STOPPED")


@dataclass(frozen=True)
class QueuedJob:
    """A job in Slurm's queue; of an array each element that runs, and one for all that wait."""

    number: str
    """Number of the job; for an element of an array the array's."""
    slurm_state: str
    reason: str

    @property
    def is_waiting(self) -> bool:
        return self.slurm_state in _WAITING

    @property
    def why(self) -> str:
        """`: REASON`, to be appended to a sentence; empty while Slurm has no reason yet."""
        return f": {self.reason}" if self.reason not in ("", "None") else ""


class SlurmCommands:
    """Calls of one cluster's Slurm. Methods raise UserError with Slurm's message, ClusterError where it does not answer."""

    def __init__(self, cluster: str) -> None:
        self.cluster = cluster

    def check(self) -> None:
        """Raise UserError if Slurm's commands are not installed here."""
        missing = [name for name in COMMANDS if shutil.which(name) is None]
        if missing:
            raise UserError(
                f"cluster {self.cluster!r} is of kind slurm, and {', '.join(missing)} of Slurm cannot be found on this "
                "machine: call `sweeps` on a login node of the cluster, where there is one after `module load slurm`"
            )

    def check_script(self, script: str, folder: Path) -> None:
        """Raise UserError for a script that Slurm would refuse, or would keep waiting for ever."""
        self.call(["sbatch", "--test-only", script], folder)

    def submit(self, call: Sequence[str], folder: Path, more: Mapping[str, str]) -> str:
        """Submit a job and return its number. Variables of the submitter's Ray, store and MLflow are left out."""
        left_out = ("RAY_", "SWEEPS_STORE", "SWEEPS_PROGRESS", "MLFLOW_TRACKING_URI")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
        printed = self.call(call, folder, kept | dict(more))
        number = printed.strip().rpartition("\n")[2].partition(";")[0]  # NUMBER;CLUSTER where there are several
        if not number.isdecimal():
            raise ClusterError(f"sbatch of {self.cluster!r} printed {printed.strip()!r}, which is no job number")
        return number

    def queue(self, *numbers: str) -> list[QueuedJob]:
        """Return those of these jobs that have not ended."""
        # For a single unknown number squeue fails as for an invalid one; for several it does not.
        requested = ",".join([*numbers, *numbers[:1]])
        printed = self.call(["squeue", "--noheader", "--array", f"--jobs={requested}", "--format=%F|%T|%r", "--states=all"])
        jobs = [QueuedJob(*line.strip().split("|", 2)) for line in printed.splitlines() if line.count("|") >= 2]
        return [job for job in jobs if job.slurm_state not in STATE_AT_END]

    def how_it_ended(self, number: str) -> str | None:
        """Return Slurm's state at the end, such as COMPLETED: from its recent jobs, or from accounting if it keeps any."""
        calls = (
            ["scontrol", "show", "job", "--oneliner", number],
            ["sacct", "--allocations", "--noheader", "--parsable2", "--format=State", f"--jobs={number}"],
        )
        for arguments in calls:
            try:
                printed = self.call(arguments).strip()
            except (UserError, ClusterError):
                continue
            found = re.search(r"JobState=([A-Z_]+)", printed) or re.match(r"([A-Z_]+)", printed)
            if found:
                return found[1]
        return None

    def call(
        self,
        arguments: Sequence[str],
        folder: Path | None = None,
        environment: Mapping[str, str] | None = None,
        patience_s: float = PATIENCE_S,
    ) -> str:
        """Run a command and return what it printed."""
        try:
            done = subprocess.run(
                arguments, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                errors="replace", timeout=patience_s,
            )  # fmt: skip
        except FileNotFoundError as error:
            raise UserError(f"{arguments[0]} of Slurm cannot be found on this machine") from error
        except subprocess.TimeoutExpired as error:
            raise ClusterError(
                f"Slurm of {self.cluster!r} gave no answer to {arguments[0]} within {patience_s:g} s: try again"
            ) from error
        if done.returncode == 0:
            return done.stdout
        complaint = message_of(done.stderr)
        if _OUT_OF_REACH.search(complaint):
            raise ClusterError(f"Slurm of {self.cluster!r} does not answer {arguments[0]}: {complaint}")
        raise UserError(f"Slurm of {self.cluster!r} refuses {arguments[0]}: {complaint}")


STATE_AT_END: dict[str, State] = {
    "COMPLETED": "done", "CANCELLED": "stopped", "TIMEOUT": "stopped", "DEADLINE": "stopped", "PREEMPTED": "stopped",
    "FAILED": "failed", "NODE_FAIL": "failed", "OUT_OF_MEMORY": "failed", "BOOT_FAIL": "failed", "REVOKED": "failed",
}  # fmt: skip
"""Slurm's state of a job that has ended -> the state here."""


def message_of(stderr: str) -> str:
    """Return the messages of a command in one line, each sentence once."""
    lines = [_PREFIX.sub("", line.strip()) for line in stderr.splitlines() if line.strip()]
    return "; ".join(dict.fromkeys(lines))[:400] or "without a message"
