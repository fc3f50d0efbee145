"""Sweeps on Kubernetes, as RayJobs of KubeRay's operator: submit, state, log, stop, fetch, all through kubectl.

`stop` ends the driver with `ray job stop` in the head's pod, because nothing else does it in order: a suspended RayJob
loses its cluster and the operator tells the driver nothing, a deleted one's driver is told and not waited for, and its log
goes either way. Ray sends SIGTERM, waits for the driver to write its checkpoints, and the operator sees the job's end. A
retry is switched off before. Where there is no driver yet, or no head to ask, the job is suspended, which leaves the RayJob
as a record.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from cluster import following
from cluster.attempts import attempt_after
from cluster.descriptions import KubernetesCluster
from cluster.fitting import refuse_what_fits_nowhere
from cluster.kubectl import AlreadyThere, Kubectl, ServerAway
from cluster.kuberay import digest, job_name, labels, manifests
from cluster.kubernetes_logs import DriverLog
from cluster.kubernetes_records import forget, in_head, sent_by_head, sent_by_pod
from cluster.kubernetes_state import (
    STOPPED,
    created,
    driver_may_live,
    earlier,
    ended,
    message_of,
    name_of,
    remote_state,
    state_of,
    status_of,
    sweep_of,
    trouble,
)
from cluster.names import kubernetes_name, travelling_name
from cluster.receiving import receive
from cluster.remote import DRIVER_STOPS_S, RemoteState, Submission, Submitted
from cluster.shipping import travelling
from cluster.showing import as_yaml
from sweeps.errors import ClusterError, UserError
from sweeps.runner.progress_log import last_block

if TYPE_CHECKING:
    from sweeps.store import Store

log = logging.getLogger(__name__)

DASHBOARD = "http://127.0.0.1:8265"
ENDS_WITHIN_S = DRIVER_STOPS_S + 80.0
"""From `ray job stop` to the operator's word that the job has ended, which it looks for every few seconds."""
SUSPENDED_WITHIN_S = 180.0
PAUSE_S = 2.0

Values = dict[str, Any]


class KubernetesJobs:
    """See `Remote`."""

    def __init__(self, described: KubernetesCluster) -> None:
        self.described = described
        self.kubectl = Kubectl(described.name, described.context, described.namespace)

    def submit(self, submission: Submission) -> Submitted:
        sweep = travelling(submission.name, submission.text, submission.document)
        self._refuse_a_cluster_that_stays()
        where = f"worker node of {self.described.name!r}"
        refuse_what_fits_nowhere(submission, [self.described.resources], where)
        content = digest(self.described, sweep)
        jobs = self._jobs(sweep.name)
        attempt = attempt_after([earlier(job) for job in jobs], content, submission, self.described.name)
        if isinstance(attempt, Submitted):
            return attempt
        if jobs and driver_may_live(jobs[-1]):
            self._stop_driver(jobs[-1])  # its time was up, and it still holds the sweep
        fresh = self._create(manifests(self.described, sweep, attempt))
        return Submitted(job_name(self.described, sweep, attempt), "waiting", fresh, attempt)

    def state(self, name: str) -> RemoteState:
        job = self._latest(name)
        message = message_of(job)
        if state_of(job) == "waiting" and status_of(job, "rayClusterName"):
            message = self._trouble(job) or message
        return remote_state(job, message, last_block(self._log(job).whole().splitlines()))

    def lines(self, name: str, follow: bool, tell: Callable[[str], None]) -> Iterator[str]:
        job = self._latest(name)
        if follow:
            return following.follow(DriverLog(self.kubectl, lambda: self._again(job)), tell)
        return iter(self._log(job).whole().splitlines())

    def stop(self, name: str) -> RemoteState:
        job = self._latest(name)
        if not ended(job):
            marked = {"metadata": {"annotations": {STOPPED: "true"}}, "spec": {"backoffLimit": 0}}
            self._patch(job, marked)
            if not (self._stop_driver(job) and self._ends(job, ENDS_WITHIN_S)):
                self._patch(job, {"spec": {"suspend": True}})
                if not self._ends(job, SUSPENDED_WITHIN_S):
                    raise ClusterError(
                        f"job {name_of(job)} did not end within {SUSPENDED_WITHIN_S:g} s: is KubeRay's operator at work? "
                        f"`kubectl delete rayjob {name_of(job)}` takes the job away; what is done stays"
                    )
        return self.state(name)

    def fetch(self, name: str, store: Store) -> int:
        travelling_name(name)
        jobs = self._jobs(name)
        head = self._head(jobs[-1]) if jobs else None
        # The head has the store open already: a claim may be for one node, and SQLite's locks hold on one.
        place = (self.kubectl, self.described, name)
        sent = sent_by_pod(*place) if head is None else sent_by_head(*place, head)
        return receive(sent, name, store)

    def _refuse_a_cluster_that_stays(self) -> None:
        on = self.described
        if on.job == "RayCluster":
            raise UserError(
                f"cluster {on.name!r} has `job: RayCluster`, a cluster that stays: describe it as kind ray too, with the "
                "address of its dashboard (`kubectl port-forward service/...-head-svc 8265`), and submit to that"
            )

    def _create(self, made: list[Values]) -> bool:
        """Whether the job is new: another `submit` of the same content may have been quicker."""
        files, job = made
        try:
            self.kubectl.ask("create", "--filename=-", given=as_yaml([files]))
        except AlreadyThere:  # its name has its content's digest
            log.debug("%s is there already", name_of(files))
        try:
            self.kubectl.ask("create", "--filename=-", given=as_yaml([job]))
        except AlreadyThere:
            return False
        except (UserError, ClusterError):
            forget(self.kubectl, "configmap", name_of(files))
            raise
        return True

    def _jobs(self, name: str) -> list[Values]:
        """RayJobs of the sweep of that name, the oldest first."""
        found = self.kubectl.objects("rayjobs.ray.io", _selector(labels(kubernetes_name(name))))
        return sorted((job for job in found if sweep_of(job) == name), key=created)

    def _latest(self, name: str) -> Values:
        travelling_name(name)
        jobs = self._jobs(name)
        if jobs:
            return jobs[-1]
        every = self.kubectl.objects("rayjobs.ray.io", "app.kubernetes.io/name=sweeps")
        others = sorted({sweep_of(job) for job in every} - {""})
        raise UserError(
            f"no sweep named {name!r} was submitted to {self.described.name!r}, or its RayJob was deleted"
            + (f". It has: {', '.join(others)}" if others else "")
        )

    def _again(self, job: Values) -> Values:
        """The same job as it is now."""
        for found in self._jobs(sweep_of(job)):
            if name_of(found) == name_of(job):
                return found
        raise UserError(f"job {name_of(job)} was deleted from {self.described.name!r}")

    def _log(self, job: Values) -> DriverLog:
        """Of the job as it is in hand."""
        found = DriverLog(self.kubectl, lambda: job)
        found.look()
        return found

    def _trouble(self, job: Values) -> str:
        return trouble(self.kubectl.objects("pods", f"ray.io/cluster={status_of(job, 'rayClusterName')}"))

    def _patch(self, job: Values, changes: Values) -> None:
        self.kubectl.ask(
            "patch", "rayjobs.ray.io", name_of(job), "--type=merge", f"--patch={json.dumps(changes)}"
        )

    def _head(self, job: Values) -> str | None:
        """The pod of the job's head, where it runs."""
        cluster = status_of(job, "rayClusterName")
        if not cluster:
            return None
        pods = self.kubectl.objects("pods", f"ray.io/cluster={cluster},ray.io/node-type=head")
        live = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
        return next((name_of(p) for p in live if (p.get("status") or {}).get("phase") == "Running"), None)

    def _stop_driver(self, job: Values) -> bool:
        """SIGTERM to the driver, and waits for its end; whether there was one to be told."""
        head = self._head(job) if driver_may_live(job) else None
        if head is None:
            return False
        try:
            command = ["ray", "job", "stop", f"--address={DASHBOARD}", status_of(job, "jobId")]
            for _ in in_head(self.kubectl, self.described, head, command):
                pass
        except (ServerAway, ClusterError) as error:
            log.warning("the driver could not be told to stop: %s", error)
            return False
        return True

    def _ends(self, job: Values, patience_s: float) -> bool:
        until_s = time.monotonic() + patience_s
        while True:
            try:
                if ended(self._again(job)):
                    return True
            except ServerAway as error:
                log.debug("%s", error)
            if time.monotonic() > until_s:
                return False
            time.sleep(PAUSE_S)


def _selector(wanted: dict[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in wanted.items())
