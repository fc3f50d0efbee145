"""Sweeps on a Ray cluster that runs, over its job API: submit, state, log, stop, fetch."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cluster.attempts import Earlier, attempt_after
from cluster.descriptions import Cluster
from cluster.fitting import refuse_what_fits_nowhere
from cluster.following import followed
from cluster.job_server import JobServer
from cluster.names import travelling_name
from cluster.receiving import receive
from cluster.remote import DRIVER_STOPS_S, RemoteState, Submission, Submitted
from cluster.shipping import Parcel, limit_bytes, parcel
from sweeps.errors import ClusterError, UserError
from sweeps.runner.progress_log import last_block

if TYPE_CHECKING:
    from sweeps.store import Store

log = logging.getLogger(__name__)

ENTRYPOINT = "exec python -m cluster.job"  # a shell reads it: nothing of a user's may ever stand in it
DIGEST_LETTERS = 12
STATE_OF = {
    "PENDING": "waiting",
    "RUNNING": "running",
    "STOPPED": "stopped",
    "SUCCEEDED": "done",
    "FAILED": "failed",
}


class RayJobs:
    """See `Remote`."""

    def __init__(self, server: JobServer, described: Cluster) -> None:
        self.server, self.described = server, described
        self._client: Any = None

    def submit(self, submission: Submission) -> Submitted:
        name = travelling_name(submission.name)
        self.server.check()
        cluster = self.server.cluster
        refuse_what_fits_nowhere(submission, self.server.nodes(), f"node of {cluster!r}")
        with parcel(self._order("run", name), submission.text, submission.document) as made:
            self._warn_of_size(made)
            digest = made.digest[:DIGEST_LETTERS]
            attempt = attempt_after([_earlier(job) for job in self._jobs(name)], digest, submission, cluster)
            if isinstance(attempt, Submitted):
                return attempt
            job = f"{name}-{digest}" + (f"-{attempt}" if attempt > 1 else "")
            return self._start(job, made, {"sweep": name, "digest": digest, "attempt": str(attempt)}, attempt)

    def state(self, name: str) -> RemoteState:
        job = self._latest(name)
        told = self._call("get_job_logs", job.submission_id)
        return _state(job, last_block(told.splitlines()))

    def lines(self, name: str, follow: bool, tell: Callable[[str], None]) -> Iterator[str]:
        job = self._latest(name)
        if follow:
            return followed(self._talk(), job.submission_id, tell)
        return iter(self._call("get_job_logs", job.submission_id).splitlines())

    def stop(self, name: str) -> RemoteState:
        job = self._latest(name)
        if not job.status.is_terminal():
            self._call("stop_job", job.submission_id)
            self._wait(job.submission_id, DRIVER_STOPS_S + 20.0)
        return self.state(name)

    def fetch(self, name: str, store: Store) -> int:
        self._latest(name)
        with parcel(self._order("fetch", name)) as made:
            job = f"{name}-fetch-{time.time_ns():x}"
            self._start(job, made, {"fetch": name}, 1)
            try:
                info = self._wait(job, 600.0)
                told = self._call("get_job_logs", job)
            finally:
                self._forget(job)
        if info.status != "SUCCEEDED":
            words = [line for line in told.splitlines() if line.strip()]
            raise ClusterError(f"the cluster did not send {name!r}: {words[-1] if words else info.message}")
        return receive(told.splitlines(), name, store)

    def _order(self, kind: str, name: str) -> dict[str, Any]:
        environment = {"MLFLOW_TRACKING_URI": self.described.mlflow} if self.described.mlflow else {}
        options = [] if self.described.mlflow else ["--no-mlflow"]  # `fetch` writes MLflow's runs at home
        return {
            "kind": kind, "name": name, "store": self.described.store, "environment": environment, "options": options,
        }  # fmt: skip

    def _start(self, job: str, made: Parcel, metadata: dict[str, str], attempt: int) -> Submitted:
        try:
            self._talk().submit_job(
                entrypoint=ENTRYPOINT,
                submission_id=job,
                runtime_env={
                    "working_dir": str(made.folder),
                    "env_vars": {
                        **self.described.environment,
                        "RAY_JOB_STOP_WAIT_TIME_S": str(DRIVER_STOPS_S),
                    },
                },
                metadata=metadata,
            )
        except (RuntimeError, OSError, ValueError) as error:
            if "already" in str(error):  # another `submit` of the same content was quicker
                return Submitted(job, "waiting", False, attempt)
            raise ClusterError(
                f"cluster {self.server.cluster!r} did not take the job: {_short(error)}"
            ) from error
        return Submitted(job, "waiting", True, attempt)

    def _warn_of_size(self, made: Parcel) -> None:
        if made.num_bytes > limit_bytes() / 2:
            log.warning(
                "%.0f MiB travel with the sweep, more than half of what Ray takes", made.num_bytes / 1024**2
            )

    def _latest(self, name: str) -> Any:
        travelling_name(name)
        self.server.check()
        jobs = self._jobs(name)
        if not jobs:
            raise UserError(
                f"no sweep named {name!r} was submitted to {self.server.cluster!r} since it started"
                + (f". It has: {', '.join(self._names())}" if self._names() else "")
            )
        return jobs[-1]

    def _jobs(self, name: str) -> list[Any]:
        """Jobs of the sweep of that name, the oldest first."""
        return sorted((job for job in self._listed() if job.metadata.get("sweep") == name), key=_began)

    def _names(self) -> list[str]:
        return sorted({job.metadata["sweep"] for job in self._listed() if "sweep" in job.metadata})

    def _listed(self) -> list[Any]:
        return [job for job in self._call("list_jobs") if job.submission_id and job.metadata]

    def _wait(self, job: str, patience_s: float) -> Any:
        deadline = time.monotonic() + patience_s
        while not (info := self._call("get_job_info", job)).status.is_terminal():
            if time.monotonic() > deadline:
                raise ClusterError(f"job {job} did not end within {patience_s:g} s")
            time.sleep(0.5)
        return info

    def _forget(self, job: str) -> None:
        try:
            self._talk().delete_job(job)
        except (RuntimeError, OSError):
            log.debug("job %s stays listed", job)

    def _call(self, method: str, *arguments: Any) -> Any:
        try:
            return getattr(self._talk(), method)(*arguments)
        except (RuntimeError, OSError) as error:
            raise ClusterError(f"cluster {self.server.cluster!r} does not answer: {_short(error)}") from error

    def _talk(self) -> Any:
        if self._client is None:
            self._client = self.server.client()
        return self._client


def _earlier(job: Any) -> Earlier:
    return Earlier(job.submission_id, job.metadata.get("digest", ""), _attempt(job), STATE_OF[job.status])


def _attempt(job: Any) -> int:
    return int(job.metadata.get("attempt", "1"))


def _began(job: Any) -> tuple[int, int]:
    return job.start_time or 0, _attempt(job)


def _state(job: Any, progress: list[str]) -> RemoteState:
    since = datetime.fromtimestamp((job.start_time or 0) / 1000, UTC).isoformat(timespec="seconds")
    message = ""
    if job.status == "FAILED":
        words = [line for line in (job.message or "").splitlines() if line.strip()]
        message = words[-1] if words else ""
    return RemoteState(job.submission_id, STATE_OF[job.status], _attempt(job), since, message, progress)


def _short(error: Exception) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
