"""What every kind of cluster does with a sweep, and which class does it. A sweep's one handle is its name."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from cluster.clusters_file import find_cluster
from cluster.descriptions import (
    CloudCluster,
    Cluster,
    KubernetesCluster,
    LocalCluster,
    RayCluster,
    SlurmCluster,
)
from cluster.job_server import JobServer, check_token, read_token
from sweeps.errors import UserError

if TYPE_CHECKING:
    from sweeps.store import Store

STATES = ("waiting", "running", "stopped", "failed", "done")
DRIVER_STOPS_S = 40
"""How long Ray waits after SIGTERM before it kills a driver, which ends in order within 25 s."""


@dataclass(frozen=True)
class Submission:
    """A sweep that is to run on a cluster, as plain data."""

    name: str
    text: str
    """YAML with overrides applied."""
    document: dict[str, Any]
    cpus: float
    """What ONE worker needs."""
    gpus: float = 0.0
    memory_gb: float | None = None


@dataclass(frozen=True)
class Submitted:
    """What became of a submission."""

    job: str
    """What the cluster calls it."""
    state: str
    """One of STATES."""
    fresh: bool
    """False: the same content runs or is done already, and nothing was submitted."""
    attempt: int = 1


@dataclass(frozen=True)
class RemoteState:
    """How a sweep on a cluster is."""

    job: str
    state: str
    attempt: int
    since: str
    message: str = ""
    progress: Sequence[str] = ()
    """The last lines that it told about its progress."""


class Remote(Protocol):
    """A cluster as the verbs see it. Every method raises UserError and ClusterError."""

    def submit(self, submission: Submission) -> Submitted:
        """Starts a sweep, or finds that it runs or is done. Whatever cannot work is refused before anything starts."""

    def state(self, name: str) -> RemoteState:
        """The latest job of that sweep."""

    def lines(self, name: str, follow: bool, tell: Callable[[str], None]) -> Iterator[str]:
        """The log of the latest job; with `follow` to its end, whatever happens to the connection."""

    def stop(self, name: str) -> RemoteState:
        """Ends the latest job in order, and waits for that."""

    def fetch(self, name: str, store: Store) -> int:
        """Brings the sweep's records into a store here; how many lanes were new."""


def remote(name: str) -> Remote:
    """The cluster of that name in clusters.yaml. Raises UserError, UnknownCluster and SweepFileError."""
    from cluster.ray_jobs import RayJobs

    described = find_cluster(name)
    if isinstance(described, LocalCluster | RayCluster):
        return RayJobs(server_of(described), described)
    if isinstance(described, SlurmCluster):
        from cluster.slurm_jobs import SlurmJobs

        return SlurmJobs(described)
    if isinstance(described, KubernetesCluster):
        from cluster.kubernetes_jobs import KubernetesJobs

        return KubernetesJobs(described)
    assert isinstance(described, CloudCluster)
    raise UserError(
        f"cluster {name!r} is of kind {described.kind}, which is started first: `sweeps cluster show {name} > "
        f"{name}.yaml && ray up {name}.yaml`. Then keep `ray dashboard {name}.yaml` running, describe it as kind ray "
        f"with `address: http://localhost:8265` and `token_file: {described.token_file}`, and submit to that"
    )


def server_of(described: Cluster) -> JobServer:
    """Where a cluster of kind local or ray listens."""
    if isinstance(described, RayCluster):
        token, source = _token(described)
        verify = (
            described.verify
            if isinstance(described.verify, bool)
            else str(Path(described.verify).expanduser())
        )
        return JobServer(described.name, described.address, token, source, verify)
    from cluster.local_nodes import current

    running = current()
    if running is None:
        raise UserError("no local cluster is up: `sweeps cluster up --nodes 3` starts one")
    return JobServer(described.name, running.job_server, read_token(running.token_file), running.token_file)


def _token(described: RayCluster) -> tuple[str | None, str]:
    if described.token_file:
        return read_token(described.token_file), described.token_file
    if described.token_variable is None:
        return None, "token_file"
    token, source = (
        os.environ.get(described.token_variable, "").strip(),
        f"variable {described.token_variable}",
    )
    if not token:
        raise UserError(f"cluster {described.name!r}: {source} is to hold its token, and is not set")
    check_token(token, source)
    return token, source
