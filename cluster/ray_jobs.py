"""Sweeps on a Ray cluster that is running, over its job API: kind `ray`, and the base class of kind `local`.

A sweep is sent with a working folder (`parcel`): order.json, the sweep file, the user's own files that it names, and this
project's code. So the cluster needs the libraries only, and runs the code that was checked here. Data are not sent.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import platform
import shlex
import shutil
import socket
import tempfile
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import requests

from cluster.backend import (
    DRIVER_STOPS_S,
    EXAMPLE,
    Backend,
    Described,
    EarlierJob,
    JobStatus,
    State,
    Submission,
    Submitted,
    check_fits,
    check_sweep_name,
    digest_of,
    next_attempt,
)
from cluster.description import Cluster, HttpUrl, NodeResources, TokenFile, VariableName
from cluster.description import Path as PathText
from cluster.following import SILENCE_S, Look, follow
from cluster.job import ORDER
from cluster.records import receive
from sweeps.config.user_files import PACKAGES, files_below
from sweeps.errors import ClusterError, UserError
from sweeps.machine import expanded
from sweeps.runner.progress_log import last_block
from sweeps.store.location import masked

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

    from sweeps.store import Store

log = logging.getLogger(__name__)

ENTRYPOINT = "exec python -m cluster.job"  # a shell reads it: it must never contain anything of a user's
DIGEST_LETTERS = 12
STATE_OF: dict[str, State] = {
    "PENDING": "waiting",
    "RUNNING": "running",
    "STOPPED": "stopped",
    "SUCCEEDED": "done",
    "FAILED": "failed",
}
RAY_LIMIT = "RAY_max_grpc_message_size"
"""The environment variable with which Ray itself is configured to accept larger working folders."""
NOT_SENT_SUFFIXES = (".npz",)
"""Of files of this project that no sweep needs: recordings of `sweeps bench`."""


@dataclass(frozen=True, kw_only=True)
class RayCluster(Cluster):
    """Fields of a Ray cluster that is running, reached over its job API."""

    address: HttpUrl
    """Address of the dashboard: http://host:8265."""
    token_file: TokenFile | None = None
    """File that holds the cluster's token."""
    token_variable: VariableName | None = None
    """NAME of the environment variable that holds the token."""
    verify: bool | PathText = True
    """Check the certificate of an https address; or the path of the authority's certificate."""

    def conflicts(self) -> Iterator[tuple[str, str]]:
        if self.token_file and self.token_variable:
            yield "token_variable", "is given beside token_file: give one of the two"


class RayJobsBackend(Backend[Described]):
    """A cluster whose Ray runs already and takes jobs. A subclass provides its job server."""

    @cached_property
    @abstractmethod
    def server(self) -> JobServer:
        """The job server. Raises UserError where none is running or the token cannot be read."""

    @property
    @abstractmethod
    def call_heading(self) -> str:
        """First line of `show`, a comment: where and with which token the call is made."""

    @property
    def store_of_driver(self) -> str:
        """The store that a driver there uses. Default: as it is described, since the folders there are not known here."""
        return self.cluster.store

    @cached_property
    def client(self) -> JobSubmissionClient:
        """Ray's client for the job server."""
        return self.server.client()

    def check(self, submission: Submission) -> None:
        self.server.check()
        check_fits(submission, self.server.nodes(), f"node of {self.name!r}")

    def submit(self, submission: Submission) -> Submitted:
        name = submission.name
        self.check_once(submission)
        with parcel(self._order("run", name), submission) as made:
            if made.num_bytes > limit_bytes() / 2:
                size = made.num_bytes / 1024**2
                log.warning("%.0f MiB are sent with the sweep, more than half of Ray's limit", size)
            digest = made.digest[:DIGEST_LETTERS]
            jobs = self._jobs(name)
            earlier = [EarlierJob(_id(job), job.metadata.get("digest", ""), _attempt(job)) for job in jobs]
            states = {_id(job): STATE_OF[job.status] for job in jobs}
            attempt = next_attempt(earlier, digest, submission, self.name, states.__getitem__)
            if isinstance(attempt, Submitted):
                return attempt
            job = f"{name}-{digest}" + (f"-{attempt}" if attempt > 1 else "")
            return self._start(job, made, {"sweep": name, "digest": digest, "attempt": str(attempt)}, attempt)

    def status(self, name: str) -> JobStatus:
        job = self._latest(name)
        text = self._request(self.client.get_job_logs, _id(job))
        since = datetime.fromtimestamp((job.start_time or 0) / 1000, UTC).isoformat(timespec="seconds")
        # A driver needs no CPU of Ray's, so it waits for its environment alone.
        message = "the cluster prepares its environment" if job.status == "PENDING" else ""
        message = _last_line(job.message or "") if job.status == "FAILED" else message
        progress = last_block(text.splitlines())
        return JobStatus(_id(job), STATE_OF[job.status], _attempt(job), since, message, progress)

    def logs(self, name: str, follow: bool, on_message: Callable[[str], None]) -> Iterator[str]:
        job = self._latest(name)
        if follow:
            return follow_job(self.client, _id(job), on_message)
        return iter(self._request(self.client.get_job_logs, _id(job)).splitlines())

    def stop(self, name: str) -> JobStatus:
        job = self._latest(name)
        if not job.status.is_terminal():
            self._request(self.client.stop_job, _id(job))
            self._wait(_id(job), DRIVER_STOPS_S + 20.0)
        return self.status(name)

    def fetch(self, name: str, store: Store) -> int:
        self._latest(name)
        with parcel(self._order("fetch", name)) as made:
            job = f"{name}-fetch-{time.time_ns():x}"
            self._start(job, made, {"fetch": name}, 1)
            try:
                info = self._wait(job, 600.0)
                text = self._request(self.client.get_job_logs, job)
            finally:
                try:
                    self.client.delete_job(job)
                except (RuntimeError, OSError):
                    log.debug("job %s stays listed", job)
        if info.status != "SUCCEEDED":
            raise ClusterError(f"the cluster did not send {name!r}: {_last_line(text) or info.message}")
        return receive(text.splitlines(), name, store)

    def show(self, submission: Submission | None) -> str:
        file = (submission or EXAMPLE).file_name
        variables = self.cluster.driver_environment | {"SWEEPS_STORE": masked(self.store_of_driver)}
        words = [f"{name}={shlex.quote(value)}" for name, value in variables.items()]
        command = " ".join([*words, shlex.join(["sweeps", "run", file])])
        return "\n".join([self.call_heading, *self.cluster.setup, command]) + "\n"

    def _order(self, kind: str, name: str) -> dict[str, Any]:
        mlflow = self.cluster.mlflow
        return {
            "kind": kind, "name": name, "store": self.cluster.store,
            "environment": {"MLFLOW_TRACKING_URI": mlflow} if mlflow else {},
            "options": [] if mlflow else ["--no-mlflow"],  # `fetch` writes MLflow's runs at home
        }  # fmt: skip

    def _start(self, job: str, made: Parcel, metadata: dict[str, str], attempt: int) -> Submitted:
        variables = {**self.cluster.environment_with_price, "RAY_JOB_STOP_WAIT_TIME_S": str(DRIVER_STOPS_S)}
        try:
            self.client.submit_job(
                entrypoint=ENTRYPOINT,
                submission_id=job,
                runtime_env={"working_dir": str(made.folder), "env_vars": variables},
                metadata=metadata,
            )
        except (RuntimeError, OSError, ValueError) as error:
            if "already" in str(error):  # another `submit` of the same content was quicker
                return Submitted(job, "waiting", False, attempt)
            raise ClusterError(f"cluster {self.name!r} did not take the job: {_short(error)}") from error
        return Submitted(job, "waiting", True, attempt)

    def _latest(self, name: str) -> JobDetails:
        check_sweep_name(name)
        self.server.check()
        jobs = self._jobs(name)
        if not jobs:
            others = sorted({job.metadata["sweep"] for job in self._all_jobs() if "sweep" in job.metadata})
            raise UserError(
                f"no sweep named {name!r} was submitted to {self.name!r} since it started"
                + (f". It has: {', '.join(others)}" if others else "")
            )
        return jobs[-1]

    def _jobs(self, name: str) -> list[JobDetails]:
        """Return the jobs of the sweep of that name, the oldest first."""
        jobs = [job for job in self._all_jobs() if job.metadata.get("sweep") == name]
        return sorted(jobs, key=lambda job: (job.start_time or 0, _attempt(job)))

    def _all_jobs(self) -> list[JobDetails]:
        return [job for job in self._request(self.client.list_jobs) if job.submission_id and job.metadata]

    def _wait(self, job: str, patience_s: float) -> JobDetails:
        deadline = time.monotonic() + patience_s
        while not (info := self._request(self.client.get_job_info, job)).status.is_terminal():
            if time.monotonic() > deadline:
                raise ClusterError(f"job {job} did not end within {patience_s:g} s")
            time.sleep(0.5)
        return info

    def _request(self, method: Callable[..., Any], *arguments: str) -> Any:
        """Call a method of the client. Raises ClusterError where it fails."""
        try:
            return method(*arguments)
        except (RuntimeError, OSError) as error:
            raise ClusterError(f"cluster {self.name!r} does not answer: {_short(error)}") from error


class RayBackend(RayJobsBackend[RayCluster]):
    """A Ray cluster at an address."""

    kind = "ray"
    schema = RayCluster

    @cached_property
    def server(self) -> JobServer:
        cluster = self.cluster
        token, source = self._token()
        verify = cluster.verify if isinstance(cluster.verify, bool) else str(expanded(cluster.verify))
        return JobServer(cluster.name, cluster.address, token, source, verify)

    @property
    def call_heading(self) -> str:
        cluster = self.cluster
        token = f"the token of {cluster.token_file}" if cluster.token_file else "no token (token_file names one)"
        if cluster.token_variable:
            token = f"the token in ${cluster.token_variable}"
        return f"# submitted to {masked(cluster.address)}, with {token}; runs on the head:"

    def _token(self) -> tuple[str | None, str]:
        """Return the token and its source."""
        if self.cluster.token_file:
            return read_token(self.cluster.token_file), self.cluster.token_file
        variable = self.cluster.token_variable
        if variable is None:
            return None, "token_file"
        token, source = os.environ.get(variable, "").strip(), f"variable {variable}"
        if not token:
            raise UserError(f"cluster {self.name!r}: {source} must hold its token, and is not set")
        check_token(token, source)
        return token, source


def _id(job: JobDetails) -> str:
    return str(job.submission_id)


def _attempt(job: JobDetails) -> int:
    return int(job.metadata.get("attempt", "1"))


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _short(error: Exception) -> str:
    return _last_line(str(error).strip())[:300] or type(error).__name__


# ---------------------------------------------------------------------------------------- the job server

CONNECT_S = 10.0
ANSWER_S = 60.0


@dataclass(frozen=True)
class JobServer:
    """Address of a cluster's job server and the token for it.

    Ray's client waits without end for an address that does not answer, and reports faults as tracebacks, so the address, the
    token and the versions are checked here first, with plain requests.
    """

    cluster: str
    """Its name in clusters.yaml."""
    address: str
    token: str | None = field(default=None, repr=False)
    token_from: str = "token_file"
    """Source of the token, for messages."""
    verify: bool | str = True
    """Check the certificate; or the path of the authority's."""
    advice: str = (
        "is Ray up there, and the port open or tunnelled (ssh -L 8265:localhost:8265 HEAD)? The address is set in clusters.yaml"
    )
    """Advice if nothing answers."""

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def check(self) -> None:
        """Raise UserError unless it answers, accepts the token, and runs the same Ray and Python as this machine."""
        self._connect()
        theirs, ours = str(self.get("/api/version").get("ray_version")), version("ray")
        if theirs != ours:
            raise UserError(
                f"cluster {self.cluster!r} runs Ray {theirs}, but here is Ray {ours}: "
                f"pip install 'ray[default,tune]=={theirs}' here, or start the cluster with {ours}"
            )
        theirs = str(self.get("/api/v0/cluster_metadata").get("data", {}).get("pythonVersion"))
        ours = platform.python_version()
        if theirs.split(".")[:2] != ours.split(".")[:2]:
            raise UserError(
                f"cluster {self.cluster!r} runs Python {theirs}, but here is Python {ours}: "
                f"make the environment here with Python {'.'.join(theirs.split('.')[:2])}, or start the cluster with {ours}"
            )

    def nodes(self) -> list[NodeResources]:
        """Return the total resources of each living node."""
        found = self.get("/api/v0/nodes?detail=1&limit=10000").get("data", {}).get("result", {})
        totals = [n.get("resources_total", {}) for n in found.get("result", []) if n.get("state") == "ALIVE"]
        return [
            NodeResources(
                cpus=int(total.get("CPU", 0)),
                gpus=int(total.get("GPU", 0)),
                memory_gb=total.get("memory", 0) / 1024**3,
            )
            for total in totals
        ]

    def get(self, path: str) -> dict[str, Any]:
        """Return its answer. Raises UserError for a wrong token or address, ClusterError if there is none."""
        try:
            answer = requests.get(
                f"{self.address}{path}", headers=self.headers, verify=self.verify, timeout=(CONNECT_S, ANSWER_S)
            )
            self._check_token_accepted(answer.status_code)
            answer.raise_for_status()
            found = answer.json()
        except requests.exceptions.SSLError as error:
            raise UserError(
                f"cluster {self.cluster!r} at {self.address}: its certificate is not trusted. "
                "`verify: PATH` in clusters.yaml names the authority's"
            ) from error
        except requests.exceptions.JSONDecodeError as error:
            raise UserError(self._not_ray()) from error
        except requests.exceptions.HTTPError as error:
            raise UserError(f"{self._not_ray()} ({error})") from error
        except (requests.exceptions.RequestException, OSError) as error:
            raise ClusterError(f"cluster {self.cluster!r} at {self.address} does not answer any more") from error
        if not isinstance(found, dict):
            raise UserError(self._not_ray())
        return found

    def _check_token_accepted(self, status: int) -> None:
        if status == 401 or (status == 403 and not self.token):
            raise UserError(
                f"cluster {self.cluster!r} at {self.address} requires a token, and none is given: name the file that holds "
                "it in clusters.yaml (token_file), or a variable (token_variable)"
            )
        if status == 403:
            raise UserError(
                f"cluster {self.cluster!r} at {self.address} refuses the token of {self.token_from}: "
                "`ray get-auth-token` on its head prints the right one"
            )

    def client(self) -> JobSubmissionClient:
        """Return Ray's client, with a limit of time for each request. Call `check` first."""
        from ray.job_submission import JobSubmissionClient

        for name in ("ray", "ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk"):
            logging.getLogger(name).setLevel(logging.WARNING)
        found = JobSubmissionClient(self.address, headers=self.headers, verify=self.verify)
        found._do_request = partial(found._do_request, timeout=(CONNECT_S, ANSWER_S))
        return found

    def _connect(self) -> None:
        parts = urlsplit(self.address)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        try:
            socket.create_connection((parts.hostname or "", port), timeout=CONNECT_S).close()
        except OSError as error:
            raise UserError(
                f"cluster {self.cluster!r} cannot be reached at {self.address}: {error.strerror or error}. {self.advice}"
            ) from error

    def _not_ray(self) -> str:
        return (
            f"cluster {self.cluster!r}: the server at {self.address} is not Ray's dashboard. "
            "The address in clusters.yaml must be the dashboard's, such as http://HEAD:8265"
        )


def read_token(path: str) -> str:
    """Return the token in a file. Raises UserError."""
    file = expanded(path)
    try:
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"token file {file} cannot be read: {reason}") from error
    check_token(token, f"token file {file}")
    return token


def check_token(token: str, source: str) -> None:
    """Raise UserError for a text that no header of a request can carry."""
    if not token or not token.isascii() or any(c.isspace() for c in token):
        raise UserError(f"{source} must hold the token alone, in one word of ASCII letters")


# ------------------------------------------------------------------------------------------------ the log


def follow_job(client: JobSubmissionClient, job_id: str, on_message: Callable[[str], None] = lambda _: None) -> Iterator[str]:
    """Yield the lines of the log of one of Ray's jobs; see `follow`."""
    return follow(_RayLog(client, job_id), on_message)


class _RayLog:
    """The log of one job; see `cluster.following.Log`."""

    def __init__(self, client: JobSubmissionClient, job_id: str) -> None:
        self._client, self._job_id = client, job_id

    def look(self) -> Look:
        return Look(self._job_id, self._client.get_job_status(self._job_id).is_terminal())

    def whole(self) -> str:
        return str(self._client.get_job_logs(self._job_id))

    def tail(self) -> Iterator[str]:
        import aiohttp

        chunks = self._client.tail_job_logs(self._job_id)

        async def following() -> str:
            return await asyncio.wait_for(anext(chunks), SILENCE_S)

        with asyncio.Runner() as runner:  # it ends what waits, also at Ctrl-C
            while True:
                try:
                    chunk = runner.run(following())
                except (StopAsyncIteration, TimeoutError):
                    return
                except aiohttp.ClientError as error:
                    raise ConnectionError(str(error)) from error
                yield chunk


# --------------------------------------------------------------------------------------- the working folder


class Parcel(NamedTuple):
    """A working folder that is ready to be sent."""

    folder: Path
    digest: str
    """sha256 of everything in it."""
    num_bytes: int


def limit_bytes() -> int:
    """Return Ray's limit for a working folder."""
    return int(os.environ.get(RAY_LIMIT, 512 * 1024**2))


@contextmanager
def parcel(order: Mapping[str, Any], submission: Submission | None = None) -> Iterator[Parcel]:
    """Make a working folder, which is removed at the end. Raises UserError if it exceeds Ray's limit."""
    root = Path(__file__).resolve().parent.parent
    code = (path for name in PACKAGES for path in files_below(root / name) if path.suffix not in NOT_SENT_SUFFIXES)
    files = {path.relative_to(root).as_posix(): path for path in code}
    if submission is not None:
        files = {**submission.files, **files}
    num_bytes = sum(path.stat().st_size for path in files.values())
    if num_bytes > limit_bytes():
        raise UserError(_too_large(files, num_bytes))
    with tempfile.TemporaryDirectory(prefix="sweeps-parcel-") as made:
        folder = Path(made)
        for name, path in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / name)
        # The store's URL may have a password, and Ray unpacks files with their modes.
        (folder / ORDER).write_text(json.dumps(order, sort_keys=True), encoding="utf-8")
        (folder / ORDER).chmod(0o600)
        if submission is not None:
            (folder / submission.file_name).write_text(submission.text, encoding="utf-8")
        made_of = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
        digest = digest_of({name: path.read_bytes() for name, path in made_of.items()})
        yield Parcel(folder, digest, num_bytes)


def _too_large(files: Mapping[str, Path], num_bytes: int) -> str:
    largest = sorted(files, key=lambda name: -files[name].stat().st_size)[:3]
    listed = ", ".join(f"{name} ({files[name].stat().st_size / 1024**2:.1f} MiB)" for name in largest)
    return (
        f"the sweep's files have {num_bytes / 1024**2:.1f} MiB, and Ray takes {limit_bytes() / 1024**2:.1f} MiB at most. "
        f"Largest: {listed}. Keep data out of the packages that the sweep names"
    )
