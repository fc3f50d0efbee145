"""Machines of a cloud by Ray's cluster launcher (`ray up`), kinds `aws` and `gcp`: only `show` works, on the launcher's file.

The head is a machine on demand; workers are on spare capacity and come and go. The file is built as plain values and written
as YAML. The token of Ray's authentication is copied from a file of this machine and is never in the text. Ports are not open
outside of the cloud's network: the dashboard listens on loopback of the head, and `ray dashboard` is a tunnel to it.
"""

from __future__ import annotations

import shlex
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

from annotated_types import Ge

from cluster.backend import Backend, JobStatus, Submission, Submitted, as_yaml
from cluster.description import Cluster, Duration, Image, NodeResources, Reference, TokenFile, Word
from sweeps.errors import UserError

if TYPE_CHECKING:
    from sweeps.store import Store

HEAD, WORKER = "head", "worker"
TOKEN_PATH = "~/.ray/auth_token"
"""Path of the token on every node: Ray's default."""
OBJECT_STORE_BYTES = 500 * 1024**2
HEAD_PORT, OBJECT_PORT = 6379, 8076
HEAD_OPTIONS = (
    f"--head --port={HEAD_PORT} --object-manager-port={OBJECT_PORT} --num-cpus=0 --num-gpus=0 "
    "--dashboard-host=127.0.0.1 --autoscaling-config=~/ray_bootstrap_config.yaml"
)
WORKER_OPTIONS = f'--address="$RAY_HEAD_IP:{HEAD_PORT}" --object-manager-port={OBJECT_PORT}'

Values = dict[str, Any]
Fields = TypeVar("Fields", bound="CloudCluster")


@dataclass(frozen=True, kw_only=True)
class CloudCluster(Cluster):
    """Fields that AWS and GCP share."""

    region: Word
    zones: tuple[Word, ...] = ()
    """Availability zones, tried in this order; default: those of the region."""
    instance_type: Word
    """Type of a worker's machine."""
    head_instance_type: Word
    spot: bool = True
    """Whether workers are on spare capacity, which is cheaper and may be taken away; the head never is."""
    image: Image | None = None
    """Container image that has sweeps installed; without it `setup` installs it."""
    machine_image: Reference | None = None
    """AMI or source image of the machines; default: Ray's."""
    disk_gb: Annotated[int, Ge(20)] = 100
    idle_timeout: Duration = 600
    """Time after which a worker without work is removed."""
    ssh_user: Word = "ubuntu"
    token_file: TokenFile = "~/.ray/auth_token"
    """File on this machine that holds the token; it is copied to every node."""


@dataclass(frozen=True, kw_only=True)
class GcpCluster(CloudCluster):
    """Fields of machines of Google Compute Engine."""

    project: Reference
    gpu_type: Word | None = None
    """Type of the GPUs, such as nvidia-l4; required where resources.gpus is not 0."""

    def conflicts(self) -> Iterator[tuple[str, str]]:
        if self.resources.gpus and self.gpu_type is None:
            yield "gpu_type", "is missing: which GPU, such as nvidia-l4 or nvidia-tesla-t4?"
        if self.gpu_type is not None and not self.resources.gpus:
            yield "gpu_type", "has no effect while resources.gpus is 0"
        if not self.zones:
            yield "zones", "is missing: Google's machines need a zone, such as [us-west1-a]"


class CloudBackend(Backend[Fields]):
    """A cluster that `ray up` starts. Sweeps are submitted to it as kind ray, so every verb but `show` is refused."""

    @abstractmethod
    def provider(self) -> Values:
        """Return the launcher's `provider`, without what every cloud has (type, region, availability_zone)."""

    @abstractmethod
    def node_config(self, is_head: bool) -> Values:
        """Return the `node_config` of a machine, in the terms of the cloud's API."""

    def launcher_file(self) -> Values:
        """Return the contents of the file that `ray up` reads."""
        cluster = self.cluster
        provider: Values = {"type": self.kind, "region": cluster.region}
        if cluster.zones:
            provider["availability_zone"] = ",".join(cluster.zones)
        values: Values = {
            "cluster_name": cluster.name,
            "max_workers": cluster.workers.max,
            "upscaling_speed": 1.0,
            "idle_timeout_minutes": cluster.idle_timeout / 60,
            "provider": {**provider, **self.provider()},
            "auth": {"ssh_user": cluster.ssh_user},
            "head_node_type": HEAD,
            "available_node_types": {
                # No training on the head: it must not vanish, and the driver must not wait for a core.
                HEAD: {
                    "resources": {"CPU": 0}, "node_config": self.node_config(is_head=True),
                    "min_workers": 0, "max_workers": 0,
                },
                WORKER: {
                    "resources": _amounts(cluster.resources), "node_config": self.node_config(is_head=False),
                    "min_workers": cluster.workers.min, "max_workers": cluster.workers.max,
                },
            },
            "file_mounts": {TOKEN_PATH: cluster.token_file},
            "setup_commands": [f"chmod 600 {TOKEN_PATH}", *cluster.setup],
            "head_start_ray_commands": ["ray stop", _ray_start(cluster, HEAD_OPTIONS)],
            "worker_start_ray_commands": ["ray stop", _ray_start(cluster, WORKER_OPTIONS)],
        }  # fmt: skip
        if cluster.image is not None:
            values["docker"] = {
                "image": cluster.image, "container_name": "sweeps", "pull_before_run": True,
                "run_options": ["--ulimit nofile=65536:65536", "--shm-size=1g"],
            }  # fmt: skip
        return values

    def show(self, submission: Submission | None) -> str:
        return as_yaml([self.launcher_file()])

    def advice(self, submission: Submission | None) -> list[str]:
        return [
            f"start it with: sweeps cluster show {self.name} > {self.name}.yaml && ray up {self.name}.yaml",
            f"the token has to be in {self.cluster.token_file}: `ray get-auth-token --generate` writes one",
        ]

    def submit(self, submission: Submission) -> Submitted:
        self._refuse()

    def status(self, name: str) -> JobStatus:
        self._refuse()

    def logs(self, name: str, follow: bool, on_message: Callable[[str], None]) -> Iterator[str]:
        self._refuse()

    def stop(self, name: str) -> JobStatus:
        self._refuse()

    def fetch(self, name: str, store: Store) -> int:
        self._refuse()

    def _refuse(self) -> NoReturn:
        name = self.name
        raise UserError(
            f"cluster {name!r} is of kind {self.kind}, which is started first: `sweeps cluster show {name} > "
            f"{name}.yaml && ray up {name}.yaml`. Then keep `ray dashboard {name}.yaml` running, describe it as kind ray "
            f"with `address: http://localhost:8265` and `token_file: {self.cluster.token_file}`, and submit to that"
        )


class AwsBackend(CloudBackend[CloudCluster]):
    """Machines of Amazon EC2."""

    kind = "aws"
    schema = CloudCluster

    def provider(self) -> Values:
        return {"cache_stopped_nodes": False}  # a stopped machine's disk costs money

    def node_config(self, is_head: bool) -> Values:
        cluster = self.cluster
        disk = {"VolumeSize": cluster.disk_gb, "VolumeType": "gp3", "Encrypted": True}
        node: Values = {
            "InstanceType": cluster.head_instance_type if is_head else cluster.instance_type,
            "BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": disk}],
            # Version 2 of the metadata service, so that a forged request cannot read the credentials of the machine's role.
            "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 2},
        }
        if cluster.machine_image:
            node["ImageId"] = cluster.machine_image
        if cluster.spot and not is_head:
            node["InstanceMarketOptions"] = {"MarketType": "spot"}
        return node


class GcpBackend(CloudBackend[GcpCluster]):
    """Machines of Google Compute Engine."""

    kind = "gcp"
    schema = GcpCluster

    def provider(self) -> Values:
        return {"project_id": self.cluster.project}

    def node_config(self, is_head: bool) -> Values:
        cluster = self.cluster
        has_gpus = bool(cluster.resources.gpus) and not is_head
        image = "common-cu128-ubuntu-2204-nvidia-570" if has_gpus else "common-cpu"
        source = f"projects/deeplearning-platform-release/global/images/family/{image}"
        disk = {"diskSizeGb": cluster.disk_gb, "sourceImage": cluster.machine_image or source}
        node: Values = {
            "machineType": cluster.head_instance_type if is_head else cluster.instance_type,
            "disks": [{"boot": True, "autoDelete": True, "type": "PERSISTENT", "initializeParams": disk}],
        }
        scheduling: list[Values] = []
        if cluster.spot and not is_head:
            scheduling.append({"preemptible": True})
        if has_gpus:
            node["guestAccelerators"] = [{"acceleratorType": cluster.gpu_type, "acceleratorCount": cluster.resources.gpus}]
            node["metadata"] = {"items": [{"key": "install-nvidia-driver", "value": "True"}]}
            scheduling.append({"onHostMaintenance": "TERMINATE"})  # a machine with a GPU cannot be moved
        if scheduling:
            node["scheduling"] = scheduling
        return node


def _ray_start(cluster: CloudCluster, options: str) -> str:
    """Return the `ray start` command after the variables, which jobs and workers inherit."""
    own = {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}
    exports = " ".join(f"{k}={shlex.quote(v)}" for k, v in {**cluster.driver_environment, **own}.items())
    return f"ulimit -n 65536; export {exports}; ray start {options} --object-store-memory={OBJECT_STORE_BYTES}"


def _amounts(node: NodeResources) -> dict[str, int]:
    amounts = {"CPU": node.cpus}
    if node.gpus:
        amounts["GPU"] = node.gpus
    if node.memory_gb is not None:
        amounts["memory"] = int(node.memory_gb * 1024**3)
    return amounts
