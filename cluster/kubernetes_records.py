"""How a sweep's records come home from Kubernetes, and commands in its pods: on standard output, never through files."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

from cluster.descriptions import KubernetesCluster
from cluster.following import follow
from cluster.kubectl import Kubectl
from cluster.kuberay import labels
from cluster.kubernetes_logs import PodLog
from cluster.names import kubernetes_name
from cluster.pods import after_setup, sending_command, sending_pod
from cluster.sending import MARK
from cluster.showing import as_yaml
from sweeps.errors import ClusterError, UserError

log = logging.getLogger(__name__)

STARTS_WITHIN_S = 300.0
"""A pod that sends records."""
SILENCE_S = 300.0
"""After so long without a word a command in a pod is given up."""
PAUSE_S = 2.0


def in_head(kubectl: Kubectl, on: KubernetesCluster, head: str, command: list[str]) -> Iterator[str]:
    """What a command in the head's container prints."""
    words = after_setup(on, command)
    return kubectl.streamed("exec", head, "--container=ray-head", "--", *words, silence_s=SILENCE_S)


def sent_by_head(kubectl: Kubectl, on: KubernetesCluster, name: str, head: str) -> list[str]:
    told = ""
    try:
        for chunk in in_head(kubectl, on, head, sending_command(name)):
            told += chunk
    except ClusterError as error:
        raise ClusterError(f"the cluster did not send {name!r}: {_last_words(told) or error}") from error
    return told.splitlines()


def sent_by_pod(kubectl: Kubectl, on: KubernetesCluster, name: str) -> list[str]:
    """A pod that ends when it has sent. Nothing secret is in its words: Kubernetes puts the store's URL there."""
    pod = f"{kubernetes_name(name, 40)}-fetch-{time.time_ns():x}"
    own = {**labels(kubernetes_name(name)), "sweeps/pod": pod}
    kubectl.ask("create", "--filename=-", given=as_yaml([sending_pod(on, pod, own, name)]))
    found = PodLog(kubectl, pod)
    until_s = time.monotonic() + STARTS_WITHIN_S
    try:
        while not found.look().ended and found.phase in ("", "Pending"):
            if time.monotonic() > until_s:
                raise ClusterError(f"the pod that sends {name!r} did not start. {found.trouble}")
            time.sleep(PAUSE_S)
        lines = list(follow(found))
    finally:
        forget(kubectl, "pod", pod)
    if found.phase != "Succeeded":
        words = _last_words("\n".join(lines)) or found.trouble or f"its pod ended as {found.phase}"
        raise ClusterError(f"the cluster did not send {name!r}: {words}")
    return lines


def forget(kubectl: Kubectl, kind: str, name: str) -> None:
    try:
        kubectl.ask("delete", kind, name, "--ignore-not-found", "--wait=false")
    except (UserError, ClusterError) as error:
        log.warning("%s %s stays: %s", kind, name, error)


def _last_words(told: str) -> str:
    words = [line.strip() for line in told.splitlines() if line.strip() and not line.startswith(MARK)]
    return words[-1] if words else ""
