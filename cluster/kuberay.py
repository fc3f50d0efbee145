"""Manifests for the KubeRay operator: a RayJob for one sweep, or a RayCluster that stays.

Built as plain values and written as YAML, so that no text of a user can become another key. The head runs the
driver and no training (num-cpus 0). A retry of a RayJob is a new cluster, so records live outside of it: in
PostgreSQL or on a storage claim. The token of Ray's authentication is the operator's own (authOptions).
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from cluster.descriptions import KubernetesCluster
from cluster.fields import NodeResources
from cluster.names import kubernetes_name
from cluster.sweep_file import SweepFile, driver_environment, run_command

SWEEP_FOLDER = "/etc/sweeps"
STORE_FOLDER = "/var/lib/sweeps"
OBJECT_STORE_BYTES = 500 * 1024**2
"""Reports and checkpoints are small: Ray's default, 30 % of a pod's memory, would be idle."""
IDLE_S = 300
KEPT_AFTER_END_S = 600
"""Long enough to read the logs of the last pods."""
STOP_S = 60
USER_ID = 1000
"""Of the Dockerfile's user."""
MAX_CONFIG_MAP_BYTES = 900_000
"""Kubernetes allows 1 MiB for the whole object."""

Values = dict[str, Any]


def manifests(cluster: KubernetesCluster, sweep: SweepFile | None) -> list[Values]:
    """What `kubectl apply` is given: for a sweep its ConfigMap and its RayJob, else a RayCluster."""
    if sweep is None or cluster.job == "RayCluster":
        return [ray_cluster(cluster)]
    return [config_map(cluster, sweep), ray_job(cluster, sweep)]


def config_map(cluster: KubernetesCluster, sweep: SweepFile) -> Values:
    """The sweep file itself. Raises ValueError where it is too large."""
    size = len(sweep.text.encode())
    if size > MAX_CONFIG_MAP_BYTES:
        raise ValueError(
            f"the sweep file has {size:,} bytes, and Kubernetes carries at most {MAX_CONFIG_MAP_BYTES:,}: build it into "
            "the image"
        )
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(cluster, kubernetes_name(sweep.name), sweep),
        "data": {sweep.file_name: sweep.text},
    }


def ray_job(cluster: KubernetesCluster, sweep: SweepFile) -> Values:
    """One sweep: a cluster that comes with it and goes with it."""
    name = kubernetes_name(sweep.name)
    spec: Values = {
        "entrypoint": run_command(f"{SWEEP_FOLDER}/{sweep.file_name}"),
        "submissionMode": "K8sJobMode",
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": KEPT_AFTER_END_S,
        "backoffLimit": cluster.backoff_limit,
    }
    if cluster.time_limit is not None:
        spec["activeDeadlineSeconds"] = cluster.time_limit
    spec["rayClusterSpec"] = _cluster_spec(cluster, sweep)
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": _metadata(cluster, name, sweep),
        "spec": spec,
    }


def ray_cluster(cluster: KubernetesCluster) -> Values:
    """A cluster that stays, for sweeps to be submitted to."""
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": _metadata(cluster, cluster.name, None),
        "spec": _cluster_spec(cluster, None),
    }


def _metadata(cluster: KubernetesCluster, name: str, sweep: SweepFile | None) -> Values:
    metadata: Values = {
        "name": name,
        "namespace": cluster.namespace,
        "labels": {"app.kubernetes.io/name": "sweeps", "app.kubernetes.io/instance": name},
    }
    if sweep is not None:
        metadata["annotations"] = {"sweeps/name": sweep.name}
    return metadata


def _cluster_spec(cluster: KubernetesCluster, sweep: SweepFile | None) -> Values:
    low, high = cluster.workers.min, cluster.workers.max
    spec: Values = {"rayVersion": version("ray"), "authOptions": {"mode": "token"}}
    if low != high:
        spec["enableInTreeAutoscaling"] = True
        spec["autoscalerOptions"] = {"idleTimeoutSeconds": IDLE_S, "upscalingMode": "Default"}
    spec["headGroupSpec"] = {
        # Other pods reach the dashboard, and none without the token.
        "rayStartParams": {
            **_start_parameters(NodeResources()),
            "num-cpus": "0",
            "dashboard-host": "0.0.0.0",
        },
        "template": _pod(cluster, "ray-head", cluster.head, sweep),
    }
    spec["workerGroupSpecs"] = [
        {
            "groupName": "workers",
            "replicas": max(low, 1),  # the driver looks for room when it starts
            "minReplicas": low,
            "maxReplicas": high,
            "rayStartParams": _start_parameters(cluster.resources),
            "template": _pod(cluster, "ray-worker", cluster.resources, None),
        }
    ]
    return spec


def _start_parameters(node: NodeResources) -> dict[str, str]:
    """KubeRay counts only GPUs whose resource ends in `gpu`, so they are told."""
    return {
        "num-cpus": str(node.cpus),
        "num-gpus": str(node.gpus),
        "object-store-memory": str(OBJECT_STORE_BYTES),
    }


def _pod(cluster: KubernetesCluster, container: str, node: NodeResources, sweep: SweepFile | None) -> Values:
    is_head = container == "ray-head"
    amounts = _amounts(cluster, node)
    main: Values = {
        "name": container,
        "image": cluster.image,
        "env": _variables(cluster, is_head),
        "resources": {"requests": amounts, "limits": dict(amounts)},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "shared-memory", "mountPath": "/dev/shm"}],
    }
    if cluster.setup:
        # KubeRay puts its own `ray start` behind a container's command, with && between them.
        main["command"] = [_literal("\n".join(["set -e", *cluster.setup, "set +e"]))]
    volumes: list[Values] = [{"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}}]
    if sweep is not None:
        main["volumeMounts"].append({"name": "sweep", "mountPath": SWEEP_FOLDER, "readOnly": True})
        volumes.append({"name": "sweep", "configMap": {"name": kubernetes_name(sweep.name)}})
    if is_head and cluster.storage_claim:
        main["volumeMounts"].append({"name": "store", "mountPath": STORE_FOLDER})
        volumes.append({"name": "store", "persistentVolumeClaim": {"claimName": cluster.storage_claim}})
    return {"spec": {**_placement(cluster, is_head), "containers": [main], "volumes": volumes}}


def _placement(cluster: KubernetesCluster, is_head: bool) -> Values:
    spec: Values = {
        "terminationGracePeriodSeconds": STOP_S,
        "automountServiceAccountToken": is_head,  # the autoscaler beside the head needs it
        "securityContext": {
            "runAsNonRoot": True,
            "fsGroup": USER_ID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    if cluster.service_account:
        spec["serviceAccountName"] = cluster.service_account
    if not is_head and cluster.node_selector:
        spec["nodeSelector"] = dict(cluster.node_selector)
    if not is_head and cluster.tolerations:
        spec["tolerations"] = [
            {key: value for key, value in vars(t).items() if value is not None} for t in cluster.tolerations
        ]
    return spec


def _amounts(cluster: KubernetesCluster, node: NodeResources) -> dict[str, str]:
    amounts = {"cpu": str(node.cpus)}
    if node.memory_gb is not None:
        amounts["memory"] = f"{round(node.memory_gb * 1024)}Mi"
    if node.gpus:
        amounts[cluster.gpu_resource] = str(node.gpus)
    return amounts


def _variables(cluster: KubernetesCluster, is_head: bool) -> list[Values]:
    variables: list[Values] = [
        {"name": key, "value": value} for key, value in driver_environment(cluster).items()
    ]
    variables += [_from_secret(name, where) for name, where in cluster.secrets.items()]
    if is_head and cluster.store_secret:
        variables.append(_from_secret("SWEEPS_STORE", cluster.store_secret))
    elif is_head:
        folder = STORE_FOLDER if cluster.storage_claim else cluster.store
        variables.append({"name": "SWEEPS_STORE", "value": _literal(folder)})
    return variables


def _from_secret(name: str, where: str) -> Values:
    secret, _, key = where.partition("/")
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}


def _literal(text: str) -> str:
    """Kubernetes puts variables in for $(NAME), in commands and in values: $$( is a plain $(."""
    return text.replace("$(", "$$(")
