"""Manifests for the KubeRay operator: a RayJob for one sweep, or a RayCluster that stays.

Built as plain values and written as YAML, so that no text of a user can become another key. The head runs the
driver and no training (num-cpus 0). A retry of a RayJob is a new cluster, so records live outside of it: in
PostgreSQL or on a storage claim. The token of Ray's authentication is the operator's own (authOptions).

A RayJob's name has the digest of all that it is made of: the same content twice is one job.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shlex
from importlib.metadata import version
from typing import Any

from cluster.descriptions import KubernetesCluster
from cluster.fields import NodeResources
from cluster.names import MAX_JOB_NAME, kubernetes_name
from cluster.pods import SWEEP_FOLDER, head_pod, worker_pod
from cluster.sweep_file import SweepFile

OBJECT_STORE_BYTES = 500 * 1024**2
"""Reports and checkpoints are small: Ray's default, 30 % of a pod's memory, would be idle."""
DRIVER = ("env", f"--chdir={SWEEP_FOLDER}", "python", "-m", "sweeps.cli", "run")
IDLE_S = 300
KEPT_AFTER_END_S = 600
"""Long enough to read the logs of the last pods."""
MAX_CONFIG_MAP_BYTES = 900_000
"""Kubernetes allows 1 MiB for the whole object."""
NAME, DIGEST, ATTEMPT = "sweeps/name", "sweeps/digest", "sweeps/attempt"
"""Annotations: the sweep's name as it is, what the job is made of, and how often that was submitted."""
_DIGEST_LETTERS = 8
_ROOM = len("-") + _DIGEST_LETTERS + len("-999")

Values = dict[str, Any]


def manifests(cluster: KubernetesCluster, sweep: SweepFile | None, attempt: int = 1) -> list[Values]:
    """What `kubectl create` is given: for a sweep its ConfigMap and its RayJob, else a RayCluster."""
    if sweep is None or cluster.job == "RayCluster":
        return [ray_cluster(cluster)]
    name = job_name(cluster, sweep, attempt)
    kinds: dict[str, Values] = {
        "ConfigMap": {"apiVersion": "v1", **_contents(sweep)},
        "RayJob": {"apiVersion": "ray.io/v1", "spec": _job_spec(cluster, sweep, name)},
    }
    made = []
    for kind, values in kinds.items():
        metadata = _metadata(cluster, name, kubernetes_name(sweep.name))
        metadata["annotations"] = {
            NAME: sweep.name, DIGEST: digest(cluster, sweep), ATTEMPT: str(attempt),
        }  # fmt: skip
        made.append({"apiVersion": values.pop("apiVersion"), "kind": kind, "metadata": metadata, **values})
    return made


def ray_cluster(cluster: KubernetesCluster) -> Values:
    """A cluster that stays, for sweeps to be submitted to."""
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": _metadata(cluster, cluster.name, cluster.name),
        "spec": _cluster_spec(cluster, None),
    }


def job_name(cluster: KubernetesCluster, sweep: SweepFile, attempt: int) -> str:
    plain = kubernetes_name(sweep.name, MAX_JOB_NAME - _ROOM)
    return f"{plain}-{digest(cluster, sweep)}" + (f"-{attempt}" if attempt > 1 else "")


def digest(cluster: KubernetesCluster, sweep: SweepFile) -> str:
    """Of the files and of all that the cluster is asked for."""
    made = [_contents(sweep), _job_spec(cluster, sweep, "")]
    return hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:_DIGEST_LETTERS]


def labels(sweep: str) -> dict[str, str]:
    """What every object of a sweep carries, and what it is found by."""
    return {"app.kubernetes.io/name": "sweeps", "app.kubernetes.io/instance": sweep}


def _metadata(cluster: KubernetesCluster, name: str, instance: str) -> Values:
    return {"name": name, "namespace": cluster.namespace, "labels": labels(instance)}


def _files(sweep: SweepFile) -> dict[str, bytes]:
    """Path -> content of what the driver finds in its folder."""
    return {sweep.file_name: sweep.text.encode(), **sweep.files}


def _key(number: int, path: str) -> str:
    """A ConfigMap's keys have no folders in them; and no sweep's name begins with _."""
    return path if number == 0 else f"_{number}-{re.sub(r'[^A-Za-z0-9._-]', '-', path)[-200:]}"


def _contents(sweep: SweepFile) -> Values:
    """Of the ConfigMap: the sweep file and the user's own. Raises ValueError where they are too large."""
    files = _files(sweep)
    size = sum(len(content) for content in files.values())
    if size > MAX_CONFIG_MAP_BYTES:
        raise ValueError(
            f"the sweep file and what it names have {size:,} bytes, and Kubernetes carries at most "
            f"{MAX_CONFIG_MAP_BYTES:,}: build your packages into the image"
        )
    made: Values = {"data": {}}
    for number, (path, content) in enumerate(files.items()):
        try:
            made["data"][_key(number, path)] = content.decode("utf-8")
        except UnicodeDecodeError:
            encoded = base64.b64encode(content).decode()
            made.setdefault("binaryData", {})[_key(number, path)] = encoded
    return made


def _job_spec(cluster: KubernetesCluster, sweep: SweepFile, name: str) -> Values:
    """One sweep: a cluster that comes with it and goes with it."""
    options = [] if cluster.mlflow else ["--no-mlflow"]  # `fetch` writes MLflow's runs at home
    spec: Values = {
        # The submitter's shell and Ray's read it: plain words only. With -m the user's own packages are found there.
        "entrypoint": shlex.join([*DRIVER, sweep.file_name, *options]),
        "submissionMode": "K8sJobMode",
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": KEPT_AFTER_END_S,
        "backoffLimit": cluster.backoff_limit,
    }
    if cluster.time_limit is not None:
        spec["activeDeadlineSeconds"] = cluster.time_limit
    volume: Values = {"name": "sweep", "configMap": {"name": name}}
    if sweep.files:
        items = [{"key": _key(number, path), "path": path} for number, path in enumerate(_files(sweep))]
        volume["configMap"]["items"] = items
    spec["rayClusterSpec"] = _cluster_spec(cluster, volume)
    return spec


def _cluster_spec(cluster: KubernetesCluster, sweep_volume: Values | None) -> Values:
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
        "template": head_pod(cluster, sweep_volume),
    }
    spec["workerGroupSpecs"] = [
        {
            "groupName": "workers",
            "replicas": max(low, 1),  # the driver looks for room when it starts
            "minReplicas": low,
            "maxReplicas": high,
            "rayStartParams": _start_parameters(cluster.resources),
            "template": worker_pod(cluster),
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
