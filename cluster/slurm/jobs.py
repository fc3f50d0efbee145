"""Sweeps as jobs of a Slurm cluster, kind `slurm`, by Slurm's own commands. Called on a login node."""

from __future__ import annotations

import json
import logging
import os
import secrets
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import filelock

from cluster.backend import (
    EXAMPLE,
    Backend,
    EarlierJob,
    JobStatus,
    State,
    Submission,
    Submitted,
    all_at_once,
    check_fits,
    check_sweep_name,
    digest_of,
    next_attempt,
)
from cluster.following import file_lines, follow_file
from cluster.records import receive
from cluster.slurm import scripts
from cluster.slurm.commands import STATE_AT_END, QueuedJob, SlurmCommands
from cluster.slurm.scripts import SlurmCluster
from sweeps.errors import ClusterError, UserError
from sweeps.runner.progress_log import MARK, last_block
from sweeps.store.location import ALLOW, network_disk_advice, network_disk_permitted, network_file_system

if TYPE_CHECKING:
    from sweeps.store import Store

log = logging.getLogger(__name__)

DIGEST_LETTERS = 12
ORDERLY_S = 120.0
"""How long a stop waits for the head: its driver ends in order within 25 s, then Ray has to end."""
FORCED_S = 90.0
"""How long it waits after the job was cancelled: Slurm kills 30 s after SIGTERM."""
FETCH_S = 600.0
JOBS = "jobs.json"
WORKER_JOBS = "worker-jobs"


class SlurmBackend(Backend[SlurmCluster]):
    """Slurm, whose commands are called on this machine. Ray runs inside its jobs."""

    kind = "slurm"
    schema = SlurmCluster

    @cached_property
    def resolved(self) -> SlurmCluster:
        """The cluster with absolute paths."""
        return scripts.resolved(self.cluster)

    @cached_property
    def slurm(self) -> SlurmCommands:
        """Slurm's commands."""
        return SlurmCommands(self.name)

    @property
    def store_here(self) -> str:
        return self.resolved.store

    def check(self, submission: Submission) -> None:
        self.slurm.check()
        fits = partial(check_fits, submission, [self.resolved.resources], f"worker job of {self.name!r}")
        all_at_once(fits, self._refuse_network_disk)

    def submit(self, submission: Submission) -> Submitted:
        folder = SweepFolder(self.resolved, submission.name)
        self.check_once(submission)
        made = scripts.scripts(self.resolved, submission)
        texts = {**made, scripts.FETCH: scripts.fetch_script(self.resolved, submission)}
        files = submission.contents | {name: text.encode() for name, text in texts.items()}
        digest = digest_of(files, self.resolved.store.encode())[:DIGEST_LETTERS]
        with folder.locked():
            attempts = {attempt.job: attempt for attempt in folder.attempts()}
            earlier = [EarlierJob(a.job, a.digest, a.attempt) for a in attempts.values()]
            number = next_attempt(earlier, digest, submission, self.name, lambda job: self._status(folder, attempts[job]).state)
            if isinstance(number, Submitted):
                return number
            folder.write(files, {"token": secrets.token_hex(32), **scripts.secrets(self.resolved)})
            for script in made:
                self.slurm.check_script(script, folder.path)
            more = {"SWEEPS_PLANNED_WORKERS": str(self._num_workers(submission))}
            job = self.slurm.submit(scripts.head_submission(self.resolved), folder.path, more)
            workers = ""
            try:
                if scripts.WORKER in made:
                    workers = self.slurm.submit(scripts.worker_submission(job), folder.path, {})
                now = datetime.now(UTC).isoformat(timespec="seconds")
                folder.add(Attempt(job, workers, scripts.log_name(self.resolved, job), digest, number, now))
                self.slurm.call(scripts.release(job))
            except BaseException:  # the job is held until it is released, so nothing has begun
                self.slurm.call(["scancel", "--quiet", job, *([workers] if workers else [])])
                raise
        return Submitted(job, "waiting", True, number)

    def status(self, name: str) -> JobStatus:
        return self._status(*self._latest(name))

    def logs(self, name: str, follow: bool, on_message: Callable[[str], None]) -> Iterator[str]:
        folder, latest = self._latest(name)
        path, reported = folder.path / latest.log, ""
        if not follow:
            return iter(file_lines(path))

        def is_active() -> bool:
            nonlocal reported
            queued = self._head(latest)
            why = f"job {latest.job} waits in the queue{queued.why}" if queued and queued.is_waiting else ""
            if why and why != reported:
                on_message(why)
            reported = why
            return queued is not None

        return follow_file(path, is_active, on_message)

    def stop(self, name: str) -> JobStatus:
        folder, latest = self._latest(name)
        head = self._head(latest)
        if head is not None:
            if head.is_waiting:
                self.slurm.call(["scancel", "--quiet", latest.job])
            else:
                self.slurm.call(["scancel", "--quiet", "--batch", "--signal=TERM", latest.job])
            if not self._wait([latest.job], ORDERLY_S):
                log.warning("job %s did not end in order within %g s: it is cancelled", latest.job, ORDERLY_S)
                self.slurm.call(["scancel", "--quiet", latest.job])
        if latest.workers:
            self.slurm.call(["scancel", "--quiet", latest.workers])
        if not self._wait(latest.jobs, FORCED_S):
            raise ClusterError(f"jobs {', '.join(latest.jobs)} were cancelled, and still have not ended: see squeue")
        if head is not None and folder.recorded_end(latest.job) is None:
            folder.record_end(latest.job, "stopped")
        return self._status(folder, latest)

    def fetch(self, name: str, store: Store) -> int:
        from sweeps.store import Store as Opened
        from sweeps.store import copy_sweep
        from sweeps.store.database import require_written

        folder, latest = self._latest(name)
        location = self.resolved.store
        if "://" not in location:
            head = self._head(latest)
            if head is not None and head.slurm_state == "RUNNING":
                return receive(self._sent(folder, latest).splitlines(), name, store)
            require_written(location)
        with Opened(location) as source:
            return copy_sweep(source, store, name)

    def show(self, submission: Submission | None) -> str:
        cluster, sweep = self.resolved, submission or EXAMPLE
        made = scripts.scripts(cluster, sweep)
        parts = [f"#### {name}\n{text}" for name, text in made.items()]
        calls = [f"head_job=$({shlex.join(scripts.head_submission(cluster))})"]
        if scripts.WORKER in made:
            workers = shlex.join(scripts.worker_submission("0")).replace("after:0", "after:$head_job")
            calls.append(f"{workers.replace('HEAD_JOB=0', 'HEAD_JOB=$head_job')} >worker-jobs")
        calls.append(shlex.join(scripts.release("0")).replace(" 0", " $head_job"))
        folder = f"{cluster.folder}/{sweep.name}"
        parts.append("\n".join([f"#### what is called, in the folder {folder}", *calls]) + "\n")
        return "\n".join(parts)

    def advice(self, submission: Submission | None) -> list[str]:
        needed = ["the sweep file", "token", *scripts.secrets(self.cluster)]
        return [
            *super().advice(submission),
            f"`sweeps submit FILE --on {self.name}` does all of it. By hand:",
            f"beside the scripts there have to be: {', '.join(needed)} (token and URL with chmod 600)",
        ]

    def _sent(self, folder: SweepFolder, latest: Attempt) -> str:
        """Return the records of a sweep that is running, by a step of its job: two machines must not open one SQLite file."""
        call = ["srun", f"--jobid={latest.job}", "--overlap", "--nodes=1", "--ntasks=1", "bash", scripts.FETCH]
        # srun sets this variable only for a job that it creates.
        environment = {**os.environ, "SLURM_SUBMIT_DIR": str(folder.path)}
        try:
            return self.slurm.call(call, folder.path, environment, FETCH_S)
        except UserError as refused:
            raise ClusterError(f"the head of {folder.name!r} did not send its records: {refused}") from refused

    def _num_workers(self, submission: Submission) -> int:
        """Return the number of workers when all nodes have joined."""
        node = self.resolved.resources
        fits = [node.cpus / submission.cpus] if submission.cpus else []
        fits += [node.gpus / submission.gpus] if submission.gpus else []
        return self.resolved.workers.max * max(1, int(min(fits, default=1) + 1e-6))

    def _refuse_network_disk(self) -> None:
        """Raise UserError for a store that the driver would refuse, after hours in a queue."""
        location = self.resolved.store
        kind = None if "://" in location else network_file_system(Path(location))
        if kind and not network_disk_permitted(self.resolved.environment):
            raise UserError(
                f"store {location} of cluster {self.name!r} {network_disk_advice(kind)}: in clusters.yaml "
                f"`environment: {{{ALLOW}: 1}}`, and the variable here to fetch"
            )

    def _latest(self, name: str) -> tuple[SweepFolder, Attempt]:
        folder = SweepFolder(self.resolved, name)
        self.slurm.check()
        attempts = folder.attempts()
        if not attempts:
            others = folder.names()
            raise UserError(
                f"no sweep named {name!r} was submitted to {self.name!r} (folder {folder.base})"
                + (f". It has: {', '.join(others)}" if others else "")
            )
        return folder, attempts[-1]

    def _head(self, attempt: Attempt) -> QueuedJob | None:
        return next((job for job in self.slurm.queue(attempt.job) if job.number == attempt.job), None)

    def _status(self, folder: SweepFolder, attempt: Attempt) -> JobStatus:
        lines = file_lines(folder.path / attempt.log)
        queued = self.slurm.queue(*attempt.jobs)
        head = next((job for job in queued if job.number == attempt.job), None)
        state: State
        if head is not None and head.is_waiting:
            state, message = "waiting", f"it waits in the queue{head.why}"
        elif head is not None:
            state, message = "running", _workers_message(queued, attempt)
        else:
            recorded = folder.recorded_end(attempt.job)
            ended = None if recorded else self.slurm.how_it_ended(attempt.job) or "no such job"
            state = recorded or STATE_AT_END.get(ended or "", "failed")
            message = f"Slurm reports {ended}. " if ended else ""
            if state == "failed":
                last = [line for line in lines if line.strip() and not line.startswith(MARK)]
                message += f"{last[-1] if last else 'It wrote no log.'} Logs: {folder.path}"
        return JobStatus(attempt.job, state, attempt.attempt, attempt.submitted, message, last_block(lines))

    def _wait(self, numbers: list[str], patience_s: float) -> bool:
        """Wait for the end of jobs; return whether all have ended in time."""
        deadline = time.monotonic() + patience_s
        while self.slurm.queue(*numbers):
            if time.monotonic() > deadline:
                return False
            time.sleep(1.0)
        return True


def _workers_message(queued: list[QueuedJob], attempt: Attempt) -> str:
    if not attempt.workers:
        return ""
    workers = [job for job in queued if job.number == attempt.workers]
    waiting = [job.why for job in workers if job.is_waiting]
    return f"worker jobs: {len(workers) - len(waiting)} running, {len(waiting)} waiting" + "".join(waiting[:1])


@dataclass(frozen=True)
class Attempt:
    """One submission of a sweep."""

    job: str
    """Number of the head job, or of the only one."""
    workers: str
    """Number of the array of worker jobs, or nothing."""
    log: str
    """File name."""
    digest: str
    """Digest of everything that was submitted."""
    attempt: int
    submitted: str
    """UTC, ISO 8601."""

    @property
    def jobs(self) -> list[str]:
        return [self.job, self.workers] if self.workers else [self.job]


class SweepFolder:
    """A sweep's folder on the disk that the cluster's nodes share: scripts, the sweep file, the user's own files,
    secrets, logs, and a list of the sweep's jobs. A sweep is found again by it alone.

    Methods raise UserError if the folder cannot be read or written; the constructor for a name that is not allowed.
    """

    def __init__(self, cluster: SlurmCluster, name: str) -> None:
        self.name, self.cluster = check_sweep_name(name), cluster.name
        self.base = Path(cluster.folder)
        self.path = self.base / self.name

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Allow one `sweeps submit` at a time. Makes the folder, with mode 700."""
        with self._readable():
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self.path.stat().st_uid != os.getuid():
                raise UserError(f"folder {self.path} belongs to another user: name another `folder` in clusters.yaml")
            self.path.chmod(0o700)  # also where it existed already
            lock = filelock.FileLock(self.path / ".lock", timeout=60.0)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def attempts(self) -> list[Attempt]:
        """Return the submissions, the oldest first; none where nothing of that name was submitted."""
        with self._readable():
            file = self.path / JOBS
            return [Attempt(**entry) for entry in json.loads(file.read_bytes())] if file.exists() else []

    def names(self) -> list[str]:
        """Return the names of all sweeps that were submitted with this cluster's folder."""
        return sorted(file.parent.name for file in self.base.glob(f"*/{JOBS}"))

    def write(self, files: Mapping[str, bytes], secrets: Mapping[str, str]) -> None:
        """Write the files, and the secrets with mode 600."""
        with self._readable():
            for name, content in files.items():
                (self.path / name).parent.mkdir(parents=True, exist_ok=True)
                (self.path / name).write_bytes(content)
            for name, text in secrets.items():
                (self.path / name).unlink(missing_ok=True)
                with open(os.open(self.path / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
                    file.write(text)

    def add(self, attempt: Attempt) -> None:
        """Record a submission, and the number of its worker jobs for the head's script."""
        attempts = [asdict(one) for one in (*self.attempts(), attempt)]
        with self._readable():
            (self.path / WORKER_JOBS).write_text(attempt.workers)
            new = self.path / f"{JOBS}.new"
            new.write_text(json.dumps(attempts, indent=1), encoding="utf-8")
            new.replace(self.path / JOBS)

    def recorded_end(self, job: str) -> State | None:
        """Return the state that a job's script wrote when it ended: done, stopped or failed."""
        try:
            text = (self.path / f"ended-{job}").read_text(encoding="utf-8").strip()
        except OSError:
            return None
        return next((state for state in STATE_AT_END.values() if state == text), "failed") if text else None

    def record_end(self, job: str, state: str) -> None:
        """Write the state of a job that ended before it began, and so wrote none."""
        with self._readable():
            (self.path / f"ended-{job}").write_text(f"{state}\n", encoding="utf-8")

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, TypeError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise UserError(
                f"folder {self.path} cannot be read and written: {why}. `folder` of {self.cluster!r} in clusters.yaml "
                "names another, on a disk that the login node and all nodes share"
            ) from error
