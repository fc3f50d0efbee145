"""One sweep, one job: the same content twice is submitted once, and other content under a name that runs is refused."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cluster.remote import Submission, Submitted
from sweeps.errors import UserError


@dataclass(frozen=True)
class Earlier:
    """A job that a sweep of the same name was submitted as before."""

    job: str
    digest: str
    """Of all that it was made of."""
    attempt: int
    state: str
    """One of STATES."""

    @property
    def active(self) -> bool:
        return self.state in ("waiting", "running")


def attempt_after(
    earlier: Sequence[Earlier], digest: str, submission: Submission, cluster: str
) -> int | Submitted:
    """Which attempt at this content comes next; or the job that runs it, or has done it, already.

    `earlier` begins with the oldest. Raises UserError where the name's latest job runs with other content.
    """
    latest = earlier[-1] if earlier else None
    if latest and latest.active and latest.digest != digest:
        raise UserError(
            f"sweep {submission.name!r} runs on {cluster!r} already, with other settings, other files or another "
            f"description of the cluster (job {latest.job}). `sweeps stop {submission.name} --on {cluster}` stops it, "
            "--name NEW gives this one another name"
        )
    same = [job for job in earlier if job.digest == digest]
    if same and (same[-1].active or same[-1].state == "done"):
        return Submitted(same[-1].job, same[-1].state, False, same[-1].attempt)
    return 1 + max((job.attempt for job in same), default=0)


def digest_of(files: Mapping[str, bytes], more: bytes = b"") -> str:
    """sha256 of files by their paths, and of whatever else a job is made of."""
    total = hashlib.sha256(more)
    for name in sorted(files):
        for part in (name.encode(), files[name]):
            total.update(len(part).to_bytes(8, "big") + part)
    return total.hexdigest()
