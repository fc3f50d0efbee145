"""Names that travel: what a cluster may be called, and what a sweep is called where it runs.

A sweep's own name (`sweeps.config.sweep_file.SWEEP_NAME`) is safe as a Ray submission id, a Slurm job name and in a shell.
Kubernetes and the clouds allow less, so a name is mapped to one that they take, always the same for the same sweep
and never the same for two.
"""

from __future__ import annotations

import hashlib
import re

from sweeps.config.faults import shown
from sweeps.config.sweep_file import SWEEP_NAME

CLUSTER_NAME = re.compile(r"[a-z](?:[a-z0-9-]{0,38}[a-z0-9])?")
"""What a cluster may be called: a name that Kubernetes and the clouds take as it is."""
MAX_JOB_NAME = 47
"""KubeRay refuses longer names of a RayJob: it appends suffixes of its own, and Kubernetes allows 63 in all."""
_DIGEST_LETTERS = 8


def cluster_name_fault(name: str) -> str | None:
    """What is wrong with a cluster's name, or None."""
    if CLUSTER_NAME.fullmatch(name):
        return None
    near = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-0123456789")[:40].strip("-")
    return (
        f"{shown(name)} cannot be a cluster's name: 1 to 40 lower-case letters, digits and dashes, a letter first"
        + (f". Perhaps {near!r}?" if near else "")
    )


def travelling_name(sweep: str) -> str:
    """A sweep's name as Ray, Slurm and a shell are given it: the name itself. Raises ValueError for any other."""
    if not SWEEP_NAME.fullmatch(sweep):
        raise ValueError(
            f"{shown(sweep)} cannot be the name of a sweep on a cluster: 1 to 100 letters, digits, dots, dashes or "
            "underscores, a letter or digit first. `--name NEW` gives it another"
        )
    return sweep


def kubernetes_name(sweep: str, longest: int = MAX_JOB_NAME) -> str:
    """The sweep's name as Kubernetes and the clouds allow it: lower case, digits and dashes, a letter first.

    A name that has to change gets a digest of the original, so that `A.b` and `a-b` are two jobs.
    """
    if len(sweep) <= longest and re.fullmatch(r"[a-z](?:[a-z0-9-]*[a-z0-9])?", sweep):
        return sweep
    digest = hashlib.sha256(sweep.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST_LETTERS]
    plain = re.sub(r"[^a-z0-9]+", "-", sweep.lower()).strip("-")
    if not plain[:1].isalpha():
        plain = f"sweep-{plain}"
    return f"{plain[: longest - _DIGEST_LETTERS - 1].strip('-')}-{digest}"
