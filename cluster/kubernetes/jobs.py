"""Sweeps on Kubernetes, kind `kubernetes`, as RayJobs of KubeRay's operator, all through kubectl.

`stop` ends the driver with `ray job stop` in the head's pod, because nothing else ends it in order: the operator removes the
cluster of a suspended RayJob without a signal to the driver, signals the driver of a deleted one without waiting for it, and
the log is lost either way. Ray sends SIGTERM, waits for the driver to write its checkpoints, and the operator records the
job's end; retries are switched off before. If there is no driver yet, or no head that answers, the job is suspended, which
keeps the RayJob as a record.
"""

from __future__ import annotations

import json
import logging
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from cluster import following
from cluster.backend import (
    DRIVER_STOPS_S,
    Backend,
    EarlierJob,
    JobStatus,
    State,
    Submission,
    Submitted,
    as_yaml,
    check_fits,
    check_sweep_name,
    next_attempt,
)
from cluster.following import Look
from cluster.kubernetes.kubectl import AlreadyExists, Kubectl, NotFound, ServerUnreachable
from cluster.kubernetes.manifests import (
    ATTEMPT,
    DIGEST,
    NAME,
    KubernetesCluster,
    Values,
    after_setup,
    digest,
    job_name,
    kubernetes_name,
    labels,
    manifests,
    sending_command,
    sending_pod,
)
from cluster.records import MARK, receive
from sweeps.errors import ClusterError, UserError
from sweeps.runner.progress_log import RAY_LINE, last_block

if TYPE_CHECKING:
    from sweeps.store import Store

log = logging.getLogger(__name__)
Result = TypeVar("Result")

DASHBOARD = "http://127.0.0.1:8265"
ENDS_WITHIN_S = DRIVER_STOPS_S + 80.0
"""From `ray job stop` until the operator, which checks every few seconds, reports the job's end."""
SUSPENDED_WITHIN_S = 180.0
STARTS_WITHIN_S = 300.0
"""Time for the start of a pod that sends records."""
COMMAND_SILENCE_S = 300.0
"""Time without output after which a command in a pod is given up."""
PAUSE_S = 2.0
STOPPED = "sweeps/stopped"
"""Annotation: `sweeps stop` was called. A suspended job without it waits in a queue such as Kueue's."""
STARTING = ("ContainerCreating", "PodInitializing")


class KubernetesBackend(Backend[KubernetesCluster]):
    """Kubernetes with KubeRay's operator, reached through kubectl."""

    kind = "kubernetes"
    schema = KubernetesCluster

    @cached_property
    def kubectl(self) -> Kubectl:
        """kubectl for the cluster's context and namespace."""
        return Kubectl(self.name, self.cluster.context, self.cluster.namespace)

    def check(self, submission: Submission) -> None:
        if self.cluster.job == "RayCluster":
            raise UserError(
                f"cluster {self.name!r} has `job: RayCluster`, a cluster that stays: describe it as kind ray too, with the "
                "address of its dashboard (`kubectl port-forward service/...-head-svc 8265`), and submit to that"
            )
        check_fits(submission, [self.cluster.resources], f"worker node of {self.name!r}")

    def submit(self, submission: Submission) -> Submitted:
        self.check_once(submission)
        content = digest(self.cluster, submission)
        jobs = self._jobs(submission.name)
        earlier = [EarlierJob(name_of(j), _annotations(j).get(DIGEST, ""), attempt_of(j)) for j in jobs]
        states = {name_of(job): state_of(job) for job in jobs}
        attempt = next_attempt(earlier, content, submission, self.name, states.__getitem__)
        if isinstance(attempt, Submitted):
            return attempt
        if jobs and driver_may_live(jobs[-1]):
            self._stop_driver(jobs[-1])  # a driver beyond its deadline still owns the sweep in the store
        fresh = self._create(manifests(self.cluster, submission, attempt))
        return Submitted(job_name(self.cluster, submission, attempt), "waiting", fresh, attempt)

    def status(self, name: str) -> JobStatus:
        job = self._latest(name)
        message = message_of(job)
        if state_of(job) == "waiting" and status_of(job, "rayClusterName"):
            message = self._start_problem(job) or message
        since = status_of(job, "startTime") or str(job["metadata"].get("creationTimestamp", ""))
        progress = last_block(self._log(job).whole().splitlines())
        return JobStatus(name_of(job), state_of(job), attempt_of(job), since, message, progress)

    def logs(self, name: str, follow: bool, on_message: Callable[[str], None]) -> Iterator[str]:
        job = self._latest(name)
        if follow:
            return following.follow(DriverLog(self.kubectl, lambda: self._current(job)), on_message)
        return iter(self._log(job).whole().splitlines())

    def stop(self, name: str) -> JobStatus:
        job = self._latest(name)
        if not has_ended(job):
            self._patch(job, {"metadata": {"annotations": {STOPPED: "true"}}, "spec": {"backoffLimit": 0}})
            if not (self._stop_driver(job) and self._wait(job, ENDS_WITHIN_S)):
                self._patch(job, {"spec": {"suspend": True}})
                if not self._wait(job, SUSPENDED_WITHIN_S):
                    raise ClusterError(
                        f"job {name_of(job)} did not end within {SUSPENDED_WITHIN_S:g} s: is KubeRay's operator running? "
                        f"`kubectl delete rayjob {name_of(job)}` removes the job; what is done is kept"
                    )
        return self.status(name)

    def fetch(self, name: str, store: Store) -> int:
        check_sweep_name(name)
        jobs = self._jobs(name)
        head = self._head(jobs[-1]) if jobs else None
        # The head has the store open already: a claim may be for one node, and SQLite's locks are valid on one only.
        where = (self.kubectl, self.cluster, name)
        sent = sent_by_pod(*where) if head is None else sent_by_head(*where, head)
        return receive(sent, name, store)

    def show(self, submission: Submission | None) -> str:
        return as_yaml(manifests(self.cluster, submission))

    def advice(self, submission: Submission | None) -> list[str]:
        lines = []
        if submission is None:
            lines.append("no --sweep FILE was given: this is a RayCluster")
        elif self.cluster.job == "RayCluster":
            lines.append("job is RayCluster, which contains no sweep: sweeps are submitted to it once it runs")
        context = f" --context {shlex.quote(self.cluster.context)}" if self.cluster.context else ""
        return [*lines, f"start it with: sweeps cluster show {self.name} ... | kubectl{context} create -f -"]

    def _create(self, made: list[Values]) -> bool:
        """Create the ConfigMap and the RayJob; return whether the job is new.

        Another `submit` of the same content may have been quicker.
        """
        files, job = made
        try:
            self.kubectl.call("create", "--filename=-", stdin=as_yaml([files]))
        except AlreadyExists:  # with the same content, whose digest is in the name
            log.debug("%s exists already", name_of(files))
        try:
            self.kubectl.call("create", "--filename=-", stdin=as_yaml([job]))
        except AlreadyExists:
            return False
        except (UserError, ClusterError):
            delete(self.kubectl, "configmap", name_of(files))
            raise
        return True

    def _jobs(self, name: str) -> list[Values]:
        """Return the RayJobs of the sweep of that name, the oldest first."""
        found = self.kubectl.objects("rayjobs.ray.io", _selector(labels(kubernetes_name(name))))
        return sorted((job for job in found if sweep_of(job) == name), key=created)

    def _latest(self, name: str) -> Values:
        check_sweep_name(name)
        jobs = self._jobs(name)
        if jobs:
            return jobs[-1]
        every = self.kubectl.objects("rayjobs.ray.io", "app.kubernetes.io/name=sweeps")
        others = sorted({sweep_of(job) for job in every} - {""})
        raise UserError(
            f"no sweep named {name!r} was submitted to {self.name!r}, or its RayJob was deleted"
            + (f". It has: {', '.join(others)}" if others else "")
        )

    def _current(self, job: Values) -> Values:
        """Return the same job as it is now."""
        for found in self._jobs(sweep_of(job)):
            if name_of(found) == name_of(job):
                return found
        raise UserError(f"job {name_of(job)} was deleted from {self.name!r}")

    def _log(self, job: Values) -> DriverLog:
        """Return the log of this job."""
        found = DriverLog(self.kubectl, lambda: job)
        found.look()
        return found

    def _start_problem(self, job: Values) -> str:
        return start_problem(self.kubectl.objects("pods", f"ray.io/cluster={status_of(job, 'rayClusterName')}"))

    def _patch(self, job: Values, changes: Values) -> None:
        self.kubectl.call("patch", "rayjobs.ray.io", name_of(job), "--type=merge", f"--patch={json.dumps(changes)}")

    def _head(self, job: Values) -> str | None:
        """Return the running pod of the job's head, if there is one."""
        cluster = status_of(job, "rayClusterName")
        if not cluster:
            return None
        pods = self.kubectl.objects("pods", f"ray.io/cluster={cluster},ray.io/node-type=head")
        live = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
        return next((name_of(p) for p in live if (p.get("status") or {}).get("phase") == "Running"), None)

    def _stop_driver(self, job: Values) -> bool:
        """Send SIGTERM to the driver and wait for its end; return whether there was one and it could be reached."""
        head = self._head(job) if driver_may_live(job) else None
        if head is None:
            return False
        try:
            command = ["ray", "job", "stop", f"--address={DASHBOARD}", status_of(job, "jobId")]
            for _ in in_head(self.kubectl, self.cluster, head, command):
                pass
        except (ServerUnreachable, ClusterError) as error:
            log.warning("the driver could not be stopped in order: %s", error)
            return False
        return True

    def _wait(self, job: Values, patience_s: float) -> bool:
        until_s = time.monotonic() + patience_s
        while True:
            try:
                if has_ended(self._current(job)):
                    return True
            except ServerUnreachable as error:
                log.debug("%s", error)
            if time.monotonic() > until_s:
                return False
            time.sleep(PAUSE_S)


def _selector(wanted: dict[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in wanted.items())


# ----------------------------------------------------------------------------- the status of a RayJob


def name_of(found: Values) -> str:
    """Return the name of an object."""
    return str(found["metadata"]["name"])


def sweep_of(job: Values) -> str:
    """Return the name of the sweep that a RayJob runs, or nothing."""
    return _annotations(job).get(NAME, "")


def attempt_of(job: Values) -> int:
    """Return the number of the attempt."""
    number = _annotations(job).get(ATTEMPT, "1")
    return int(number) if number.isdecimal() else 1


def status_of(job: Values, key: str) -> str:
    """Return an entry of the status that the operator has written, or nothing."""
    return str((job.get("status") or {}).get(key) or "")


def created(found: Values) -> tuple[str, int, str]:
    """Return a key to sort by, the oldest first."""
    return str(found["metadata"].get("creationTimestamp", "")), attempt_of(found), name_of(found)


def state_of(job: Values) -> State:
    """Return the state of a RayJob."""
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


def has_ended(job: Values) -> bool:
    """Return whether a RayJob has ended."""
    return state_of(job) not in ("waiting", "running")


def driver_may_live(job: Values) -> bool:
    """Return whether a driver may be running, also after the job's end: after the deadline the operator leaves it running until
    its cluster is removed.
    """
    return bool(status_of(job, "rayClusterName")) and status_of(job, "jobStatus") in ("PENDING", "RUNNING")


def message_of(job: Values) -> str:
    """Return the operator's message about a failure, or the reason why a job is waiting."""
    state = state_of(job)
    if state == "failed":
        lines = [line.strip() for line in status_of(job, "message").splitlines() if line.strip()]
        return ": ".join(part for part in (status_of(job, "reason"), *lines[-1:]) if part)
    if state == "waiting":
        if status_of(job, "jobDeploymentStatus") == "Suspended":
            return "it is suspended: a queue such as Kueue, or a user with spec.suspend, holds it back"
        if not job.get("status"):
            return "the operator has not accepted it yet. If that lasts: does KubeRay's operator watch this namespace?"
        failures = (job["status"] or {}).get("failed") or 0
        if failures:
            return f"the operator starts it again, after {failures} failures"
    return ""


def start_problem(pods: Sequence[Values]) -> str:
    """Return why a pod does not start, for the first that does not, or nothing."""
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


# ------------------------------------------------------------------------------------------------ logs


class PodLog:
    """The log of one pod; see `cluster.following.Log`."""

    def __init__(self, kubectl: Kubectl, pod: str) -> None:
        self._kubectl, self._pod = kubectl, pod
        self.phase, self.start_problem = "", ""  # as of the last `look`

    def look(self) -> Look:
        pod = _reconnecting(lambda: self._kubectl.objects("pods", f"sweeps/pod={self._pod}"))
        self.phase = str((pod[0].get("status") or {}).get("phase", "")) if pod else "Gone"
        self.start_problem = start_problem(pod)
        return Look(self._pod, self.phase in ("Succeeded", "Failed", "Gone"))

    def whole(self) -> str:
        return _reconnecting(lambda: whole_log(self._kubectl, self._pod))

    def tail(self) -> Iterator[str]:
        yield from pod_tail(self._kubectl, self._pod)


class DriverLog:
    """The driver's log, which the submitter's pods print, each from the beginning; see `cluster.following.Log`.

    A job that the operator starts again gets another id of Ray's, and so is another text.
    """

    def __init__(self, kubectl: Kubectl, job: Callable[[], Values]) -> None:
        self._kubectl, self._job = kubectl, job
        self._name = ""

    def look(self) -> Look:
        job = _reconnecting(self._job)
        self._name = name_of(job)
        return Look(status_of(job, "jobId") or self._name, has_ended(job))

    def whole(self) -> str:
        pod = self._newest()
        text = _reconnecting(lambda: whole_log(self._kubectl, pod)) if pod else ""
        return "".join(drivers_part([text])) or text  # without a driver, the submitter's messages

    def tail(self) -> Iterator[str]:
        pod = self._newest()
        if pod:
            yield from drivers_part(pod_tail(self._kubectl, pod))

    def _newest(self) -> str | None:
        pods = _reconnecting(lambda: self._kubectl.objects("pods", f"job-name={self._name}"))
        return name_of(sorted(pods, key=created)[-1]) if pods else None


def drivers_part(chunks: Iterator[str] | list[str]) -> Iterator[str]:
    """Yield the text after the submitter's own lines, which differ from pod to pod."""
    held, found = "", False
    for chunk in chunks:
        if found:
            yield chunk
            continue
        held += chunk
        start = 0
        for line in held.splitlines(keepends=True):
            if line.endswith("\n") and RAY_LINE.match(line):
                found = True
                yield held[start:]
                break
            start += len(line)


def whole_log(kubectl: Kubectl, pod: str) -> str:
    """Return the log of a pod; empty if it has none."""
    try:
        return kubectl.call("logs", pod)
    except NotFound:
        return ""


def pod_tail(kubectl: Kubectl, pod: str) -> Iterator[str]:
    """Yield pieces of the log of a pod. Raises ConnectionError while the server cannot be reached."""
    try:
        yield from kubectl.stream("logs", pod, "--follow", silence_s=following.SILENCE_S)
    except NotFound:
        return
    except ServerUnreachable as error:
        raise ConnectionError(str(error)) from error


def _reconnecting(request: Callable[[], Result]) -> Result:
    """Return the result of a request. Raises ConnectionError, after which `follow` retries, if the server is unreachable."""
    try:
        return request()
    except ServerUnreachable as error:
        raise ConnectionError(str(error)) from error


# --------------------------------------------------------------------------------------------- records


def in_head(kubectl: Kubectl, on: KubernetesCluster, head: str, command: list[str]) -> Iterator[str]:
    """Yield what a command in the head's container prints."""
    words = after_setup(on, command)
    return kubectl.stream("exec", head, "--container=ray-head", "--", *words, silence_s=COMMAND_SILENCE_S)


def sent_by_head(kubectl: Kubectl, on: KubernetesCluster, name: str, head: str) -> list[str]:
    """Return the lines of records that the head's pod prints."""
    text = ""
    try:
        for chunk in in_head(kubectl, on, head, sending_command(name)):
            text += chunk
    except ClusterError as error:
        raise ClusterError(f"the cluster did not send {name!r}: {_last_line(text) or error}") from error
    return text.splitlines()


def sent_by_pod(kubectl: Kubectl, on: KubernetesCluster, name: str) -> list[str]:
    """Return the lines of records that a short pod prints. Its manifest contains no secret, but names the store's Secret."""
    pod = f"{kubernetes_name(name, 40)}-fetch-{time.time_ns():x}"
    own = {**labels(kubernetes_name(name)), "sweeps/pod": pod}
    kubectl.call("create", "--filename=-", stdin=as_yaml([sending_pod(on, pod, own, name)]))
    log_of_pod = PodLog(kubectl, pod)
    until_s = time.monotonic() + STARTS_WITHIN_S
    try:
        while not log_of_pod.look().ended and log_of_pod.phase in ("", "Pending"):
            if time.monotonic() > until_s:
                raise ClusterError(f"the pod that sends {name!r} did not start. {log_of_pod.start_problem}")
            time.sleep(PAUSE_S)
        lines = list(following.follow(log_of_pod))
    finally:
        delete(kubectl, "pod", pod)
    if log_of_pod.phase != "Succeeded":
        reason = _last_line("\n".join(lines)) or log_of_pod.start_problem or f"its pod ended as {log_of_pod.phase}"
        raise ClusterError(f"the cluster did not send {name!r}: {reason}")
    return lines


def delete(kubectl: Kubectl, kind: str, name: str) -> None:
    """Delete an object; a failure is only logged."""
    try:
        kubectl.call("delete", kind, name, "--ignore-not-found", "--wait=false")
    except (UserError, ClusterError) as error:
        log.warning("%s %s was not deleted: %s", kind, name, error)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith(MARK)]
    return lines[-1] if lines else ""
