"""What the operator's words about a RayJob mean here, and what keeps a job's pods from starting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cluster.attempts import Earlier
from cluster.kuberay import ATTEMPT, DIGEST, NAME
from cluster.remote import RemoteState

STOPPED = "sweeps/stopped"
"""Annotation: `sweeps stop` was asked for. A suspended job without it waits in a queue such as Kueue's."""
STARTING = ("ContainerCreating", "PodInitializing")

Values = dict[str, Any]


def name_of(found: Values) -> str:
    return str(found["metadata"]["name"])


def sweep_of(job: Values) -> str:
    return _annotations(job).get(NAME, "")


def attempt_of(job: Values) -> int:
    told = _annotations(job).get(ATTEMPT, "1")
    return int(told) if told.isdecimal() else 1


def status_of(job: Values, key: str) -> str:
    return str((job.get("status") or {}).get(key) or "")


def created(found: Values) -> tuple[str, int, str]:
    """To sort by, the oldest first."""
    return str(found["metadata"].get("creationTimestamp", "")), attempt_of(found), name_of(found)


def state_of(job: Values) -> str:
    """One of STATES."""
    deployment, ray = status_of(job, "jobDeploymentStatus"), status_of(job, "jobStatus")
    stopped = STOPPED in _annotations(job)
    if deployment == "Complete" and ray == "SUCCEEDED":
        return "done"
    if deployment in ("Complete", "Failed"):
        return "stopped" if stopped or ray == "STOPPED" else "failed"
    if deployment == "Suspended":
        return "stopped" if stopped else "waiting"
    if deployment == "Suspending" or (deployment == "Running" and ray not in ("", "PENDING")):
        return "running"
    return "waiting"


def ended(job: Values) -> bool:
    return state_of(job) not in ("waiting", "running")


def earlier(job: Values) -> Earlier:
    digest = _annotations(job).get(DIGEST, "")
    return Earlier(name_of(job), digest, attempt_of(job), state_of(job))


def driver_may_live(job: Values) -> bool:
    """Also after the end: the operator leaves a driver alone whose time is up, until its cluster goes."""
    return bool(status_of(job, "rayClusterName")) and status_of(job, "jobStatus") in ("PENDING", "RUNNING")


def remote_state(job: Values, message: str, progress: Sequence[str]) -> RemoteState:
    since = status_of(job, "startTime") or str(job["metadata"].get("creationTimestamp", ""))
    return RemoteState(name_of(job), state_of(job), attempt_of(job), since, message, progress)


def message_of(job: Values) -> str:
    """What the operator says about a failure, or about a job that it has not taken up."""
    state = state_of(job)
    if state == "failed":
        lines = [line.strip() for line in status_of(job, "message").splitlines() if line.strip()]
        return ": ".join(part for part in (status_of(job, "reason"), *lines[-1:]) if part)
    if state == "waiting":
        if status_of(job, "jobDeploymentStatus") == "Suspended":
            return "it is suspended: a queue such as Kueue, or somebody with spec.suspend, holds it back"
        if not job.get("status"):
            return "the operator has not taken it up yet. If that lasts: does KubeRay's operator watch this namespace?"
        failures = (job["status"] or {}).get("failed") or 0
        if failures:
            return f"the operator begins it anew, after {failures} failures"
    return ""


def trouble(pods: Sequence[Values]) -> str:
    """Why the first pod that does not start does not, or nothing."""
    for pod in pods:
        status = pod.get("status") or {}
        for condition in status.get("conditions") or ():
            if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
                return f"pod {name_of(pod)}: {condition.get('message') or condition.get('reason')}"
        for container in status.get("containerStatuses") or ():
            waiting = (container.get("state") or {}).get("waiting") or {}
            if waiting and waiting.get("reason") not in STARTING:
                why = [str(part) for part in (waiting.get("reason"), waiting.get("message")) if part]
                return f"pod {name_of(pod)}: {': '.join(why)}"
    return ""


def _annotations(found: Values) -> dict[str, str]:
    return found["metadata"].get("annotations") or {}
