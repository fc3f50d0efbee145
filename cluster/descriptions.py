"""What a cluster is: typed, frozen descriptions, one class a kind. `clusters_file` reads them from `clusters.yaml`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Le

from cluster.fields import (
    DnsName,
    Duration,
    Environment,
    HttpUrl,
    Image,
    LabelKey,
    LabelValue,
    NodeResources,
    Path,
    Reference,
    SecretKey,
    ShellLines,
    SlurmOption,
    StoreLocation,
    TokenFile,
    VariableName,
    Word,
    WorkerCount,
    Workers,
    known_keys,
)
from sweeps.store.location import masked

Port = Annotated[int, Ge(1024), Le(65535)]


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What every kind has."""

    kind: ClassVar[str]
    name: str
    workers: WorkerCount = field(default_factory=Workers)
    """Worker nodes: a count, or {min: 0, max: 8}."""
    resources: NodeResources = field(default_factory=NodeResources)
    """What one worker node has: {cpus: 8, gpus: 1, memory_gb: 32}."""
    setup: ShellLines = ()
    """Lines of shell, run once on each node before Ray starts there."""
    environment: Environment = field(default_factory=dict)
    """Variables for driver and workers. No secrets."""
    mlflow: HttpUrl | None = None
    """Address of the MLflow server, as the head reaches it."""
    store: StoreLocation = field(default="results", repr=False)  # may hold a password
    """Where the driver keeps the records: a folder, or a postgresql:// URL."""
    time_limit: Duration | None = None
    """How long the head and the driver may live. What is done stays; submitting again continues."""
    price_per_hour: Annotated[float, Ge(0)] | None = None
    """USD an hour for one worker node, for `sweeps plan` and `budget.cost_usd`."""

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """(field, what is wrong with it) for values that are sound alone and not together."""
        yield from ()

    @property
    def where(self) -> str:
        """For people: what it is and how large, without credentials."""
        count = str(self.workers.max)
        if self.workers.min != self.workers.max:
            count = f"{self.workers.min} to {count}"
        node = f"{self.resources.cpus} CPUs" if self.resources.cpus > 1 else "1 CPU"
        if self.resources.gpus:
            node += f" and {self.resources.gpus} GPU{'s' if self.resources.gpus > 1 else ''}"
        return masked(f"{self.kind}: {count} worker node{'' if count == '1' else 's'} of {node}")


@dataclass(frozen=True, kw_only=True)
class LocalCluster(Cluster):
    """Ray nodes on this machine."""

    kind: ClassVar[str] = "local"


@dataclass(frozen=True, kw_only=True)
class RayCluster(Cluster):
    """A Ray cluster that runs already, reached over its job API."""

    kind: ClassVar[str] = "ray"
    address: HttpUrl
    """Of the dashboard: http://host:8265."""
    token_file: TokenFile | None = None
    """File that holds the cluster's token."""
    token_variable: VariableName | None = None
    """NAME of the environment variable that holds the token."""
    verify: bool | Path = True
    """Check the certificate of an https address; or the path of the authority's certificate."""

    def conflicts(self) -> Iterator[tuple[str, str]]:
        if self.token_file and self.token_variable:
            yield "token_variable", "stands beside token_file: give one of the two"


@dataclass(frozen=True, kw_only=True)
class SlurmCluster(Cluster):
    """Ray inside jobs of Slurm."""

    kind: ClassVar[str] = "slurm"
    mode: Literal["elastic", "symmetric"] = "elastic"
    """elastic: a head job, and worker jobs that join as they are scheduled. symmetric: one job, all nodes at once."""
    partition: Word | None = None
    account: Word | None = None
    qos: Word | None = None
    head_partition: Word | None = None
    """Of the head job, which needs no GPU; default: partition."""
    head: NodeResources = field(default_factory=lambda: NodeResources(cpus=2, memory_gb=4))
    """What the head job asks for (elastic)."""
    worker_time_limit: Duration | None = None
    """Of one worker job (elastic), which is requeued when it is reached; default: time_limit."""
    grace_s: Annotated[int, Ge(5), Le(3600)] = 60
    """SIGTERM comes this long before a job's limit."""
    wait_s: Annotated[int, Ge(30)] = 600
    """How long the head waits for a first worker (elastic) or for all nodes (symmetric)."""
    port: Port | None = None
    """Of Ray's head. Default: from the job's number, so that two sweeps on one node do not meet."""
    folder: Path = "sweeps-jobs"
    """Where each sweep's scripts, token and logs are: seen by the login node and all nodes."""
    python: Path = "python3"
    """The Python that has sweeps installed, on every node: /home/me/sweeps/.venv/bin/python."""
    extra: tuple[SlurmOption, ...] = ()
    """More #SBATCH options, for every job: --constraint=a100."""

    def conflicts(self) -> Iterator[tuple[str, str]]:
        ours = {option.partition("=")[0].partition(" ")[0]: option for option in self.extra}
        for option in SET_BY_US & ours.keys():
            yield "extra", f"{option} is set from the other fields: leave it out"
        if self.mode == "symmetric":
            if self.workers.min != self.workers.max:
                yield "workers", "must be one count in mode symmetric: Ray waits for exactly so many nodes"
            if self.worker_time_limit is not None:
                yield "worker_time_limit", "has no effect in mode symmetric: give time_limit"
        if self.port is not None and 10_002 <= self.port <= 19_999:
            yield "port", "is among those that Ray gives to its workers: take one outside of 10002 to 19999"
        limit = self.worker_time_limit or self.time_limit
        if limit is not None and self.grace_s * 2 > limit:
            yield "grace_s", f"must be at most half of a job's limit, {limit} s, not {self.grace_s}"


SET_BY_US = {
    "--array", "--chdir", "--cpus-per-task", "--dependency", "--exclusive", "--export", "--gres", "--gpus",
    "--gpus-per-node", "--job-name", "--mem", "--nodes", "--no-requeue", "--ntasks", "--ntasks-per-node", "--open-mode",
    "--output", "--parsable", "--requeue", "--signal", "--time", "--wrap",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Toleration:
    """Lets pods stand on nodes with a taint."""

    key: LabelKey | None = None
    operator: Literal["Equal", "Exists"] = "Equal"
    value: LabelValue | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None


@dataclass(frozen=True, kw_only=True)
class KubernetesCluster(Cluster):
    """Ray on Kubernetes, by the KubeRay operator."""

    kind: ClassVar[str] = "kubernetes"
    image: Image
    """Has sweeps installed: see the Dockerfile."""
    namespace: DnsName = "default"
    context: Reference | None = None
    """Of kubectl; default: the current one."""
    job: Literal["RayJob", "RayCluster"] = "RayJob"
    """RayJob: a cluster for each sweep, gone when it ends. RayCluster: one that stays."""
    gpu_resource: LabelKey = "nvidia.com/gpu"
    node_selector: dict[LabelKey, LabelValue] = field(default_factory=dict)
    tolerations: tuple[Annotated[Toleration, known_keys("key", "operator", "value", "effect")], ...] = ()
    service_account: DnsName | None = None
    storage_claim: DnsName | None = None
    """PersistentVolumeClaim that keeps the records."""
    store_secret: SecretKey | None = None
    """SECRET/KEY that holds the postgresql:// URL of the records."""
    secrets: dict[VariableName, SecretKey] = field(default_factory=dict)
    """Variable: SECRET/KEY, such as MLFLOW_TRACKING_PASSWORD: mlflow/password."""
    head: NodeResources = field(default_factory=lambda: NodeResources(cpus=2, memory_gb=4))
    backoff_limit: Annotated[int, Ge(0)] = 3
    """How often a failed RayJob is begun again, each time with a new cluster."""

    def conflicts(self) -> Iterator[tuple[str, str]]:
        for name in self.secrets.keys() & self.environment.keys():
            yield "secrets", f"{name} stands in environment too: give it once"
        if "SWEEPS_STORE" in self.secrets:
            yield "secrets", "SWEEPS_STORE is not set here: give `store_secret`"
        in_url = self.store.startswith("postgresql")
        kept = [bool(self.storage_claim), bool(self.store_secret), in_url]
        if not any(kept):
            yield (
                "storage_claim",
                (
                    "is missing, and so is store_secret: a pod's own disk is lost with it, and a retry is a new cluster. "
                    "Name a PersistentVolumeClaim, or the Secret that holds a postgresql:// URL"
                ),
            )
        if sum(kept) > 1:
            yield "store", "give one of storage_claim, store_secret and a postgresql:// URL in store"
        if in_url and masked(self.store) != self.store:
            yield (
                "store",
                "has a user name or password: put the URL into a Secret and name it in store_secret",
            )


@dataclass(frozen=True, kw_only=True)
class CloudCluster(Cluster):
    """Ray on machines of a cloud, by Ray's cluster launcher (`ray up`)."""

    region: Word
    zones: tuple[Word, ...] = ()
    """Tried in this order; default: the region's own."""
    instance_type: Word
    """Of a worker."""
    head_instance_type: Word
    spot: bool = True
    """Workers at the price of spare capacity, which may vanish; the head never is."""
    image: Image | None = None
    """Container image that has sweeps installed; without it `setup` installs it."""
    machine_image: Reference | None = None
    """AMI or source image of the machines; default: Ray's."""
    disk_gb: Annotated[int, Ge(20)] = 100
    idle_timeout: Duration = 600
    """A worker without work for so long is given back."""
    ssh_user: Word = "ubuntu"
    token_file: TokenFile = "~/.ray/auth_token"
    """File on this machine that holds the token; it is copied to every node."""


@dataclass(frozen=True, kw_only=True)
class AwsCluster(CloudCluster):
    """Machines of Amazon EC2."""

    kind: ClassVar[str] = "aws"


@dataclass(frozen=True, kw_only=True)
class GcpCluster(CloudCluster):
    """Machines of Google Compute Engine."""

    kind: ClassVar[str] = "gcp"
    project: Reference
    gpu_type: Word | None = None
    """Such as nvidia-l4; needed where resources.gpus is not 0."""

    def conflicts(self) -> Iterator[tuple[str, str]]:
        if self.resources.gpus and self.gpu_type is None:
            yield "gpu_type", "is missing: which GPU, such as nvidia-l4 or nvidia-tesla-t4?"
        if self.gpu_type is not None and not self.resources.gpus:
            yield "gpu_type", "has no effect while resources.gpus is 0"
        if not self.zones:
            yield "zones", "is missing: Google's machines need a zone, such as [us-west1-a]"


KINDS: dict[str, type[Cluster]] = {
    kind.kind: kind
    for kind in (LocalCluster, RayCluster, SlurmCluster, KubernetesCluster, AwsCluster, GcpCluster)
}
