"""Files for Ray's cluster launcher (`ray up`): a head on demand, and workers on spare capacity that come and go.

Built as plain values and written as YAML. The token of Ray's authentication is copied from a file of this machine
and never stands in the text. Ports stay inside the cloud's network: the job API is reached by `ray dashboard` (a
tunnel), the dashboard listens on loopback of the head.
"""

from __future__ import annotations

import shlex
from typing import Any

from cluster.descriptions import AwsCluster, CloudCluster, GcpCluster
from cluster.fields import NodeResources
from cluster.sweep_file import driver_environment

HEAD, WORKER = "head", "worker"
TOKEN_PATH = "~/.ray/auth_token"
"""On every node: where Ray looks by itself."""
OBJECT_STORE_BYTES = 500 * 1024**2
HEAD_PORT, OBJECT_PORT = 6379, 8076

Values = dict[str, Any]


def launcher_file(cluster: CloudCluster) -> Values:
    """What `ray up` is given."""
    head, worker = _node_configs(cluster)
    variables = {
        **driver_environment(cluster), "RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0",
    }  # fmt: skip
    values: Values = {
        "cluster_name": cluster.name,
        "max_workers": cluster.workers.max,
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": cluster.idle_timeout / 60,
        "provider": _provider(cluster),
        "auth": {"ssh_user": cluster.ssh_user},
        "head_node_type": HEAD,
        "available_node_types": {
            # No training on the head: it must not vanish, and the driver must not wait for a core.
            HEAD: {"resources": {"CPU": 0}, "node_config": head, "min_workers": 0, "max_workers": 0},
            WORKER: {
                "resources": _amounts(cluster.resources), "node_config": worker,
                "min_workers": cluster.workers.min, "max_workers": cluster.workers.max,
            },
        },
        "file_mounts": {TOKEN_PATH: cluster.token_file},
        "setup_commands": [f"chmod 600 {TOKEN_PATH}", *cluster.setup],
        "head_start_ray_commands": ["ray stop", _start(variables, cluster, _HEAD_OPTIONS)],
        "worker_start_ray_commands": ["ray stop", _start(variables, cluster, _WORKER_OPTIONS)],
    }  # fmt: skip
    if cluster.image is not None:
        values["docker"] = {
            "image": cluster.image, "container_name": "sweeps", "pull_before_run": True,
            "run_options": ["--ulimit nofile=65536:65536", "--shm-size=1g"],
        }  # fmt: skip
    return values


_HEAD_OPTIONS = (
    f"--head --port={HEAD_PORT} --object-manager-port={OBJECT_PORT} --num-cpus=0 --num-gpus=0 "
    "--dashboard-host=127.0.0.1 --autoscaling-config=~/ray_bootstrap_config.yaml"
)
_WORKER_OPTIONS = f'--address="$RAY_HEAD_IP:{HEAD_PORT}" --object-manager-port={OBJECT_PORT}'


def _start(variables: dict[str, str], cluster: CloudCluster, options: str) -> str:
    """`ray start` with the variables before it: jobs and workers inherit them."""
    exports = " ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())
    return (
        f"ulimit -n 65536; export {exports}; ray start {options} --object-store-memory={OBJECT_STORE_BYTES}"
    )


def _amounts(node: NodeResources) -> dict[str, int]:
    amounts = {"CPU": node.cpus}
    if node.gpus:
        amounts["GPU"] = node.gpus
    if node.memory_gb is not None:
        amounts["memory"] = int(node.memory_gb * 1024**3)
    return amounts


def _provider(cluster: CloudCluster) -> Values:
    provider: Values = {"type": cluster.kind, "region": cluster.region}
    if cluster.zones:
        provider["availability_zone"] = ",".join(cluster.zones)
    if isinstance(cluster, GcpCluster):
        provider["project_id"] = cluster.project
    if isinstance(cluster, AwsCluster):
        provider["cache_stopped_nodes"] = False  # a stopped machine's disk costs money
    return provider


def _node_configs(cluster: CloudCluster) -> tuple[Values, Values]:
    """(head, worker) in the words of the cloud."""
    if isinstance(cluster, GcpCluster):
        return _gcp_node(cluster, is_head=True), _gcp_node(cluster, is_head=False)
    return _aws_node(cluster, is_head=True), _aws_node(cluster, is_head=False)


def _aws_node(cluster: CloudCluster, is_head: bool) -> Values:
    node: Values = {
        "InstanceType": cluster.head_instance_type if is_head else cluster.instance_type,
        "BlockDeviceMappings": [
            {"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": cluster.disk_gb, "VolumeType": "gp3", "Encrypted": True}}
        ],
        # The credentials of the machine's role are for the machine, not for whoever can make it fetch a page.
        "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 2},
    }  # fmt: skip
    if cluster.machine_image:
        node["ImageId"] = cluster.machine_image
    if cluster.spot and not is_head:
        node["InstanceMarketOptions"] = {"MarketType": "spot"}
    return node


def _gcp_node(cluster: GcpCluster, is_head: bool) -> Values:
    disk: Values = {"diskSizeGb": cluster.disk_gb}
    disk["sourceImage"] = cluster.machine_image or (
        "projects/deeplearning-platform-release/global/images/family/"
        + ("common-cu128-ubuntu-2204-nvidia-570" if cluster.resources.gpus and not is_head else "common-cpu")
    )
    node: Values = {
        "machineType": cluster.head_instance_type if is_head else cluster.instance_type,
        "disks": [{"boot": True, "autoDelete": True, "type": "PERSISTENT", "initializeParams": disk}],
    }
    scheduling: list[Values] = []
    if cluster.spot and not is_head:
        scheduling.append({"preemptible": True})
    if cluster.resources.gpus and not is_head:
        node["guestAccelerators"] = [
            {"acceleratorType": cluster.gpu_type, "acceleratorCount": cluster.resources.gpus}
        ]
        node["metadata"] = {"items": [{"key": "install-nvidia-driver", "value": "True"}]}
        scheduling.append({"onHostMaintenance": "TERMINATE"})  # a machine with a GPU cannot be moved
    if scheduling:
        node["scheduling"] = scheduling
    return node
