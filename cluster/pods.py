"""Pods as Kubernetes takes them: Ray's head and workers, and the one that sends records home."""

from __future__ import annotations

from typing import Any

from cluster.descriptions import KubernetesCluster
from cluster.fields import NodeResources
from cluster.remote import DRIVER_STOPS_S
from cluster.sweep_file import driver_environment

SWEEP_FOLDER = "/etc/sweeps"
STORE_FOLDER = "/var/lib/sweeps"
STOP_S = 60
"""How long Kubernetes waits after SIGTERM before it kills a pod."""
USER_ID = 1000
"""Of the Dockerfile's user."""
SENDING_S = 1800
"""A pod that sends records and was forgotten ends after so long."""

Values = dict[str, Any]


def head_pod(cluster: KubernetesCluster, sweep_volume: Values | None) -> Values:
    """Ray's head, which runs the driver; the only one that reaches the store."""
    pod = _ray_pod(cluster, "ray-head", cluster.head, [*_variables(cluster), *_drivers(cluster)])
    main = pod["spec"]["containers"][0]
    if sweep_volume is not None:
        main["volumeMounts"].append({"name": "sweep", "mountPath": SWEEP_FOLDER, "readOnly": True})
        pod["spec"]["volumes"].append(sweep_volume)
    _mount_store(cluster, pod["spec"])
    return pod


def worker_pod(cluster: KubernetesCluster) -> Values:
    return _ray_pod(cluster, "ray-worker", cluster.resources, _variables(cluster))


def sending_pod(cluster: KubernetesCluster, pod: str, labels: dict[str, str], name: str) -> Values:
    """Prints a sweep's records and ends: the head's image, user, variables and store, without Ray."""
    amounts = {"cpu": "1", "memory": "2Gi"}
    main: Values = {
        "name": "sending",
        "image": cluster.image,
        "command": [_literal(word) for word in after_setup(cluster, sending_command(name))],
        "env": [*_variables(cluster), _store(cluster)],
        "resources": {"requests": amounts, "limits": dict(amounts)},
        "securityContext": _locked(),
        "volumeMounts": [],
    }
    spec: Values = {
        **_placement(cluster),
        "automountServiceAccountToken": False,
        "restartPolicy": "Never",
        "activeDeadlineSeconds": SENDING_S,
        "containers": [main],
        "volumes": [],
    }
    _mount_store(cluster, spec)
    metadata = {"name": pod, "namespace": cluster.namespace, "labels": labels}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def sending_command(name: str) -> list[str]:
    return ["python", "-m", "cluster.sending", name]


def after_setup(cluster: KubernetesCluster, command: list[str]) -> list[str]:
    """The command where the lines of `setup` hold, which may choose the Python. The command itself is no shell's."""
    if not cluster.setup:
        return command
    return ["/bin/bash", "-c", "\n".join([*_setup(cluster), 'exec "$@"']), "bash", *command]


def _ray_pod(
    cluster: KubernetesCluster, container: str, node: NodeResources, variables: list[Values]
) -> Values:
    amounts = _amounts(cluster, node)
    main: Values = {
        "name": container,
        "image": cluster.image,
        "env": variables,
        "resources": {"requests": amounts, "limits": dict(amounts)},
        "securityContext": _locked(),
        "volumeMounts": [{"name": "shared-memory", "mountPath": "/dev/shm"}],
    }
    if cluster.setup:
        # KubeRay puts its own `ray start` behind a container's command, with && between them.
        main["command"] = [_literal("\n".join(_setup(cluster)))]
    is_head = container == "ray-head"
    spec = {
        **_placement(cluster),
        "automountServiceAccountToken": is_head,
    }  # for the autoscaler beside the head
    if not is_head and cluster.node_selector:
        spec["nodeSelector"] = dict(cluster.node_selector)
    if not is_head and cluster.tolerations:
        spec["tolerations"] = [
            {key: value for key, value in vars(t).items() if value is not None} for t in cluster.tolerations
        ]
    volumes = [{"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}}]
    return {"spec": {**spec, "containers": [main], "volumes": volumes}}


def _setup(cluster: KubernetesCluster) -> list[str]:
    return ["set -e", *cluster.setup, "set +e"]


def _locked() -> Values:
    return {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def _placement(cluster: KubernetesCluster) -> Values:
    spec: Values = {
        "terminationGracePeriodSeconds": STOP_S,
        "securityContext": {
            "runAsNonRoot": True,
            "fsGroup": USER_ID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    if cluster.service_account:
        spec["serviceAccountName"] = cluster.service_account
    return spec


def _mount_store(cluster: KubernetesCluster, spec: Values) -> None:
    if cluster.storage_claim:
        spec["containers"][0]["volumeMounts"].append({"name": "store", "mountPath": STORE_FOLDER})
        claim = {"claimName": cluster.storage_claim}
        spec["volumes"].append({"name": "store", "persistentVolumeClaim": claim})


def _amounts(cluster: KubernetesCluster, node: NodeResources) -> dict[str, str]:
    amounts = {"cpu": str(node.cpus)}
    if node.memory_gb is not None:
        amounts["memory"] = f"{round(node.memory_gb * 1024)}Mi"
    if node.gpus:
        amounts[cluster.gpu_resource] = str(node.gpus)
    return amounts


def _variables(cluster: KubernetesCluster) -> list[Values]:
    variables: list[Values] = [
        {"name": key, "value": _literal(value)} for key, value in driver_environment(cluster).items()
    ]
    return variables + [_from_secret(name, where) for name, where in cluster.secrets.items()]


def _drivers(cluster: KubernetesCluster) -> list[Values]:
    """What only the head needs: the store, progress for `watch`, and time to end in order."""
    own = {"SWEEPS_PROGRESS": "lines", "RAY_JOB_STOP_WAIT_TIME_S": str(DRIVER_STOPS_S)}
    given = driver_environment(cluster)
    return [
        _store(cluster),
        *({"name": key, "value": value} for key, value in own.items() if key not in given),
    ]


def _store(cluster: KubernetesCluster) -> Values:
    if cluster.store_secret:
        return _from_secret("SWEEPS_STORE", cluster.store_secret)
    folder = STORE_FOLDER if cluster.storage_claim else cluster.store
    return {"name": "SWEEPS_STORE", "value": _literal(folder)}


def _from_secret(name: str, where: str) -> Values:
    secret, _, key = where.partition("/")
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}


def _literal(text: str) -> str:
    """Kubernetes puts variables in for $(NAME), in commands and in values: $$( is a plain $(."""
    return text.replace("$(", "$$(")
