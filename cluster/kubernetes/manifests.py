"""Fields of a Kubernetes cluster in clusters.yaml, and the manifests that are made of them for the KubeRay operator.

A RayJob for one sweep, or a RayCluster that stays. Manifests are built as plain values and written as YAML, so that no text
of a user can become another key. The head runs the driver and no training (num-cpus 0). A retry of a RayJob is a new
cluster, so records are kept outside of it: in PostgreSQL or on a storage claim. The token of Ray's authentication is made by
the operator (authOptions).
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Annotated, Any, Literal

from annotated_types import Ge

from cluster.backend import DRIVER_STOPS_S, Submission
from cluster.description import Cluster, Image, NodeResources, Reference, VariableName, known_keys, matching
from sweeps.errors import UserError
from sweeps.store.location import masked

Values = dict[str, Any]
DnsName = Annotated[str, matching(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?", "lower-case letters, digits, dots and dashes")]
LabelKey = Annotated[
    str,
    matching(r"(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?",
             "a label such as nvidia.com/gpu"),
]  # fmt: skip
LabelValue = Annotated[
    str,
    matching(r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?",
             "at most 63 letters, digits and . _ -, or empty"),
]  # fmt: skip
SecretKey = Annotated[
    str,
    matching(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?/[A-Za-z0-9._-]+",
             "SECRET/KEY: the name of a Kubernetes Secret and a key in it"),
]  # fmt: skip
SWEEP_FOLDER = "/etc/sweeps"
STORE_FOLDER = "/var/lib/sweeps"
STOP_S = 60
"""How long Kubernetes waits after SIGTERM before it kills a pod."""
USER_ID = 1000
"""Id of the Dockerfile's user."""
SENDING_S = 1800
"""Time after which a pod that sends records ends, if it was not deleted."""
MAX_JOB_NAME = 47
"""KubeRay refuses longer names of a RayJob: it appends suffixes, and Kubernetes allows 63 letters in total."""
OBJECT_STORE_BYTES = 500 * 1024**2
"""Reports and checkpoints are small: most of Ray's default, 30 % of a pod's memory, would never be used."""
DRIVER = ("env", f"--chdir={SWEEP_FOLDER}", "python", "-m", "sweeps.cli", "run")
IDLE_S = 300
KEPT_AFTER_END_S = 600
"""Long enough to read the logs of the last pods."""
MAX_CONFIG_MAP_BYTES = 900_000
"""Kubernetes allows 1 MiB for the whole object."""
NAME, DIGEST, ATTEMPT = "sweeps/name", "sweeps/digest", "sweeps/attempt"
"""Annotations: the sweep's name, the digest of what the job is made of, and the number of the attempt."""
_DIGEST_LETTERS = 8
_SUFFIX_LETTERS = len("-") + _DIGEST_LETTERS + len("-999")


@dataclass(frozen=True, kw_only=True)
class Toleration:
    """A toleration of worker pods, which lets them run on nodes with a taint."""

    key: LabelKey | None = None
    operator: Literal["Equal", "Exists"] = "Equal"
    value: LabelValue | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None


@dataclass(frozen=True, kw_only=True)
class KubernetesCluster(Cluster):
    """Fields of a Kubernetes cluster, on which the KubeRay operator runs Ray."""

    image: Image
    """Container image with sweeps installed: see the Dockerfile."""
    namespace: DnsName = "default"
    context: Reference | None = None
    """Context of kubectl; default: the current one."""
    job: Literal["RayJob", "RayCluster"] = "RayJob"
    """RayJob: a cluster for each sweep, removed when it ends. RayCluster: one that stays."""
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
    """How often a failed RayJob is started again, each time with a new cluster."""

    def conflicts(self) -> Iterator[tuple[str, str]]:
        for name in self.secrets.keys() & self.environment.keys():
            yield "secrets", f"{name} is in environment too: give it once"
        if "SWEEPS_STORE" in self.secrets:
            yield "secrets", "SWEEPS_STORE is not set here: give `store_secret`"
        in_url = self.store.startswith("postgresql")
        kept = [bool(self.storage_claim), bool(self.store_secret), in_url]
        if not any(kept):
            missing = (
                "is missing, and so is store_secret: a pod's own disk is lost with it, and a retry is a new cluster. "
                "Name a PersistentVolumeClaim, or the Secret that holds a postgresql:// URL"
            )
            yield "storage_claim", missing
        if sum(kept) > 1:
            yield "store", "give one of storage_claim, store_secret and a postgresql:// URL in store"
        if in_url and masked(self.store) != self.store:
            yield "store", "has a user name or password: put the URL into a Secret and name it in store_secret"


def kubernetes_name(sweep: str, longest: int = MAX_JOB_NAME) -> str:
    """Return the sweep's name as Kubernetes allows it: lower case, digits and dashes, a letter first.

    A name that is changed gets a digest of the original, so that `A.b` and `a-b` are two jobs.
    """
    if len(sweep) <= longest and re.fullmatch(r"[a-z](?:[a-z0-9-]*[a-z0-9])?", sweep):
        return sweep
    digest = hashlib.sha256(sweep.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST_LETTERS]
    plain = re.sub(r"[^a-z0-9]+", "-", sweep.lower()).strip("-")
    if not plain[:1].isalpha():
        plain = f"sweep-{plain}"
    return f"{plain[: longest - _DIGEST_LETTERS - 1].strip('-')}-{digest}"


# ------------------------------------------------------------------------------- RayJob and RayCluster


def manifests(cluster: KubernetesCluster, sweep: Submission | None, attempt: int = 1) -> list[Values]:
    """Return the manifests for `kubectl create`: for a sweep its ConfigMap and its RayJob, else a RayCluster.

    Raises UserError for files that are too large.
    """
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
    """Return a cluster that stays, to which sweeps can be submitted as kind ray."""
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": _metadata(cluster, cluster.name, cluster.name),
        "spec": _cluster_spec(cluster, None),
    }


def job_name(cluster: KubernetesCluster, sweep: Submission, attempt: int) -> str:
    """Return the name of a RayJob, which ends in the digest: the same content twice is one job."""
    plain = kubernetes_name(sweep.name, MAX_JOB_NAME - _SUFFIX_LETTERS)
    return f"{plain}-{digest(cluster, sweep)}" + (f"-{attempt}" if attempt > 1 else "")


def digest(cluster: KubernetesCluster, sweep: Submission) -> str:
    """Return the digest of the files and of everything that the cluster is requested to make."""
    made = [_contents(sweep), _job_spec(cluster, sweep, "")]
    return hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:_DIGEST_LETTERS]


def labels(sweep: str) -> dict[str, str]:
    """Return the labels of every object of a sweep, by which it is found."""
    return {"app.kubernetes.io/name": "sweeps", "app.kubernetes.io/instance": sweep}


def _metadata(cluster: KubernetesCluster, name: str, instance: str) -> Values:
    return {"name": name, "namespace": cluster.namespace, "labels": labels(instance)}


def _key(number: int, path: str) -> str:
    """Return the key of a file in the ConfigMap: it contains no folder, and no sweep's name begins with _."""
    return path if number == 0 else f"_{number}-{re.sub(r'[^A-Za-z0-9._-]', '-', path)[-200:]}"


def _contents(sweep: Submission) -> Values:
    """Return the data of the ConfigMap. Raises UserError if the files are too large."""
    size = sum(len(content) for content in sweep.contents.values())
    if size > MAX_CONFIG_MAP_BYTES:
        raise UserError(
            f"the sweep file and what it names have {size:,} bytes, and Kubernetes carries at most "
            f"{MAX_CONFIG_MAP_BYTES:,}: build your packages into the image"
        )
    made: Values = {"data": {}}
    for number, (path, content) in enumerate(sweep.contents.items()):
        try:
            made["data"][_key(number, path)] = content.decode("utf-8")
        except UnicodeDecodeError:
            encoded = base64.b64encode(content).decode()
            made.setdefault("binaryData", {})[_key(number, path)] = encoded
    return made


def _job_spec(cluster: KubernetesCluster, sweep: Submission, name: str) -> Values:
    """Return the spec of one sweep's RayJob, with its own cluster."""
    options = [] if cluster.mlflow else ["--no-mlflow"]  # `fetch` writes MLflow's runs at home
    spec: Values = {
        # Two shells read it, the submitter's and Ray's: plain words only. With -m the user's own packages are importable.
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
        items = [{"key": _key(number, path), "path": path} for number, path in enumerate(sweep.contents)]
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
        # Other pods can reach the dashboard, but not without the token.
        "rayStartParams": {**_start_parameters(NodeResources()), "num-cpus": "0", "dashboard-host": "0.0.0.0"},
        "template": head_pod(cluster, sweep_volume),
    }
    spec["workerGroupSpecs"] = [
        {
            "groupName": "workers",
            "replicas": max(low, 1),  # the driver needs a worker when it starts
            "minReplicas": low,
            "maxReplicas": high,
            "rayStartParams": _start_parameters(cluster.resources),
            "template": worker_pod(cluster),
        }
    ]
    return spec


def _start_parameters(node: NodeResources) -> dict[str, str]:
    """Return the amounts explicitly: KubeRay counts only GPUs whose resource ends in `gpu`."""
    return {
        "num-cpus": str(node.cpus),
        "num-gpus": str(node.gpus),
        "object-store-memory": str(OBJECT_STORE_BYTES),
    }


# ------------------------------------------------------------------------------------------------ pods


def head_pod(cluster: KubernetesCluster, sweep_volume: Values | None) -> Values:
    """Return the pod of Ray's head, which runs the driver; the only one that reaches the store."""
    pod = _ray_pod(cluster, "ray-head", cluster.head, [*_variables(cluster), *_driver_variables(cluster)])
    main = pod["spec"]["containers"][0]
    if sweep_volume is not None:
        main["volumeMounts"].append({"name": "sweep", "mountPath": SWEEP_FOLDER, "readOnly": True})
        pod["spec"]["volumes"].append(sweep_volume)
    _mount_store(cluster, pod["spec"])
    return pod


def worker_pod(cluster: KubernetesCluster) -> Values:
    """Return the pod of a Ray worker."""
    return _ray_pod(cluster, "ray-worker", cluster.resources, _variables(cluster))


def sending_pod(cluster: KubernetesCluster, pod: str, labels: dict[str, str], name: str) -> Values:
    """Return a pod that prints a sweep's records and ends: image, user, variables and store of the head, without Ray."""
    amounts = {"cpu": "1", "memory": "2Gi"}
    main: Values = {
        "name": "sending",
        "image": cluster.image,
        "command": [_literal(word) for word in after_setup(cluster, sending_command(name))],
        "env": [*_variables(cluster), _store(cluster)],
        "resources": {"requests": amounts, "limits": dict(amounts)},
        "securityContext": _restricted(),
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
    """Return the command that prints a sweep's records."""
    return ["python", "-m", "cluster.records", name]


def after_setup(cluster: KubernetesCluster, command: list[str]) -> list[str]:
    """Return the command after the lines of `setup`, which may choose the Python. No shell reads the command itself."""
    if not cluster.setup:
        return command
    return ["/bin/bash", "-c", "\n".join([*_setup(cluster), 'exec "$@"']), "bash", *command]


def _ray_pod(cluster: KubernetesCluster, container: str, node: NodeResources, variables: list[Values]) -> Values:
    amounts = _amounts(cluster, node)
    main: Values = {
        "name": container,
        "image": cluster.image,
        "env": variables,
        "resources": {"requests": amounts, "limits": dict(amounts)},
        "securityContext": _restricted(),
        "volumeMounts": [{"name": "shared-memory", "mountPath": "/dev/shm"}],
    }
    if cluster.setup:
        # KubeRay appends its own `ray start` to a container's command, with && between them.
        main["command"] = [_literal("\n".join(_setup(cluster)))]
    is_head = container == "ray-head"
    spec = {**_placement(cluster), "automountServiceAccountToken": is_head}  # for the autoscaler in the head's pod
    if not is_head and cluster.node_selector:
        spec["nodeSelector"] = dict(cluster.node_selector)
    if not is_head and cluster.tolerations:
        spec["tolerations"] = [{key: value for key, value in vars(t).items() if value is not None} for t in cluster.tolerations]
    volumes = [{"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}}]
    return {"spec": {**spec, "containers": [main], "volumes": volumes}}


def _setup(cluster: KubernetesCluster) -> list[str]:
    return ["set -e", *cluster.setup, "set +e"]


def _restricted() -> Values:
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
    variables: list[Values] = [{"name": key, "value": _literal(value)} for key, value in cluster.driver_environment.items()]
    return variables + [_from_secret(name, where) for name, where in cluster.secrets.items()]


def _driver_variables(cluster: KubernetesCluster) -> list[Values]:
    """Return the variables of the head alone: the store, progress for `watch`, and the time to end in order."""
    own = {"SWEEPS_PROGRESS": "lines", "RAY_JOB_STOP_WAIT_TIME_S": str(DRIVER_STOPS_S)}
    given = cluster.driver_environment
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
    """Escape $(NAME), which Kubernetes replaces in commands and in values: $$( is a plain $(."""
    return text.replace("$(", "$$(")
