"""Slurm's own commands, called with lists of arguments and never by a shell; where they refuse, their words are passed on."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sweeps.errors import ClusterError, UserError

COMMANDS = ("sbatch", "scancel", "scontrol", "squeue", "srun")
PATIENCE_S = 120.0  # they try a busy controller again for about as long
_OUT_OF_REACH = re.compile(
    r"unable to contact|timed out|connect|communication|slurm_receive|zero bytes|controller|authentication",
    re.IGNORECASE,
)
_PREFIX = re.compile(r"^(?:\w+: (?:error|fatal): |allocation failure: |\w+: )")
_WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT", "SUSPENDED", "STOPPED")


@dataclass(frozen=True)
class QueuedJob:
    """A job that Slurm still has in its queue; of an array each element that runs, and one for those that wait."""

    number: str
    """Of an array the array's."""
    slurm_state: str
    reason: str

    @property
    def waits(self) -> bool:
        return self.slurm_state in _WAITING

    @property
    def why(self) -> str:
        """Slurm's reason, to be put after a sentence; at first it has none."""
        return f": {self.reason}" if self.reason not in ("", "None") else ""


class SlurmCommands:
    """What is asked of one cluster's Slurm. Methods raise UserError in Slurm's words, ClusterError where it is away."""

    def __init__(self, cluster: str) -> None:
        self.cluster = cluster

    def check(self) -> None:
        """Refuses where Slurm's commands are not."""
        missing = [name for name in COMMANDS if shutil.which(name) is None]
        if missing:
            raise UserError(
                f"cluster {self.cluster!r} is of kind slurm, and {', '.join(missing)} of Slurm cannot be found on this "
                "machine: call `sweeps` on a login node of the cluster, where there is one after `module load slurm`"
            )

    def would_take(self, script: str, folder: Path) -> None:
        """Refuses a script that Slurm would refuse, or that it would let wait for ever."""
        self.call(["sbatch", "--test-only", script], folder)

    def submit(self, call: Sequence[str], folder: Path, more: Mapping[str, str]) -> str:
        """The job's number. Nothing of a Ray, a store or an MLflow of the submitter's own goes along."""
        left_out = ("RAY_", "SWEEPS_STORE", "SWEEPS_PROGRESS", "MLFLOW_TRACKING_URI")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
        told = self.call(call, folder, kept | dict(more))
        number = told.strip().rpartition("\n")[2].partition(";")[0]  # NUMBER;CLUSTER where there are several
        if not number.isdecimal():
            raise ClusterError(
                f"sbatch of {self.cluster!r} answered {told.strip()!r}, which is no job number"
            )
        return number

    def queue(self, *numbers: str) -> list[QueuedJob]:
        """Those of these jobs that have not ended."""
        # Of one unknown number alone squeue says that it is invalid; of several, nothing.
        asked = ",".join([*numbers, *numbers[:1]])
        told = self.call(
            ["squeue", "--noheader", "--array", f"--jobs={asked}", "--format=%F|%T|%r", "--states=all"]
        )
        jobs = [QueuedJob(*line.strip().split("|", 2)) for line in told.splitlines() if line.count("|") >= 2]
        return [job for job in jobs if job.slurm_state not in STATE_AT_END]

    def how_it_ended(self, number: str) -> str | None:
        """As Slurm calls it, such as COMPLETED: from its memory of recent jobs, or its accounting if it keeps any."""
        asked = (
            ["scontrol", "show", "job", "--oneliner", number],
            ["sacct", "--allocations", "--noheader", "--parsable2", "--format=State", f"--jobs={number}"],
        )
        for arguments in asked:
            try:
                told = self.call(arguments).strip()
            except (UserError, ClusterError):
                continue
            found = re.search(r"JobState=([A-Z_]+)", told) or re.match(r"([A-Z_]+)", told)
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
        """What it printed."""
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
        words = in_its_words(done.stderr)
        if _OUT_OF_REACH.search(words):
            raise ClusterError(f"Slurm of {self.cluster!r} does not answer {arguments[0]}: {words}")
        raise UserError(f"Slurm of {self.cluster!r} refuses {arguments[0]}: {words}")


STATE_AT_END = {
    "COMPLETED": "done", "CANCELLED": "stopped", "TIMEOUT": "stopped", "DEADLINE": "stopped", "PREEMPTED": "stopped",
    "FAILED": "failed", "NODE_FAIL": "failed", "OUT_OF_MEMORY": "failed", "BOOT_FAIL": "failed", "REVOKED": "failed",
}  # fmt: skip
"""What Slurm calls the end of a job, and what we call it."""


def in_its_words(complaint: str) -> str:
    """What a command complained of, in one line, each sentence once."""
    lines = [_PREFIX.sub("", line.strip()) for line in complaint.splitlines() if line.strip()]
    return "; ".join(dict.fromkeys(lines))[:400] or "without a word"
