"""Sweeps on a Slurm cluster, by Slurm's own commands: submit, state, log, stop, fetch. Called on a login node."""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cluster import slurm
from cluster.attempts import Earlier, attempt_after, digest_of
from cluster.descriptions import SlurmCluster
from cluster.fitting import refuse_what_fits_nowhere
from cluster.receiving import receive
from cluster.remote import RemoteState, Submission, Submitted
from cluster.slurm_commands import STATE_AT_END, QueuedJob, SlurmCommands
from cluster.slurm_folder import Attempt, SweepFolder
from cluster.slurm_log import followed, whole_lines
from cluster.sweep_file import SweepFile
from sweeps.config.user_files import own_files
from sweeps.errors import ClusterError, UserError
from sweeps.runner.progress_log import MARK, last_block
from sweeps.store.location import ALLOW, network_disk_advice, network_disk_permitted, network_file_system

if TYPE_CHECKING:
    from sweeps.store import Store

log = logging.getLogger(__name__)

DIGEST_LETTERS = 12
ORDERLY_S = 120.0
"""How long a stop waits for the head: its driver ends in order within 25 s, and then Ray has to."""
FORCED_S = 90.0
"""How long it waits once the job was cancelled: Slurm kills 30 s after SIGTERM."""
FETCH_S = 600.0


class SlurmJobs:
    """See `Remote`."""

    def __init__(self, described: SlurmCluster) -> None:
        self.described = slurm.placed(described)
        self.slurm = SlurmCommands(described.name)

    def submit(self, submission: Submission) -> Submitted:
        folder = SweepFolder(self.described, submission.name)
        self.slurm.check()
        where = f"worker job of {self.described.name!r}"
        refuse_what_fits_nowhere(submission, [self.described.resources], where)
        self._refuse_a_network_disk()
        files = self._files(submission)
        digest = digest_of(files, self.described.store.encode())[:DIGEST_LETTERS]
        with folder.locked():
            attempt = attempt_after(self._earlier(folder), digest, submission, self.described.name)
            if isinstance(attempt, Submitted):
                return attempt
            return self._start(folder, files, digest, attempt, self._num_workers(submission))

    def state(self, name: str) -> RemoteState:
        return self._state(*self._latest(name))

    def lines(self, name: str, follow: bool, tell: Callable[[str], None]) -> Iterator[str]:
        folder, latest = self._latest(name)
        path, told = folder.path / latest.log, [""]
        if not follow:
            return iter(whole_lines(path))

        def goes_on() -> bool:
            queued = self._head(latest)
            why = f"job {latest.job} waits in the queue{queued.why}" if queued and queued.waits else ""
            if why and why != told[0]:
                tell(why)
            told[0] = why
            return queued is not None

        return followed(path, goes_on, tell)

    def stop(self, name: str) -> RemoteState:
        folder, latest = self._latest(name)
        head = self._head(latest)
        if head is not None:
            if head.waits:
                self.slurm.call(["scancel", "--quiet", latest.job])
            else:
                self.slurm.call(["scancel", "--quiet", "--batch", "--signal=TERM", latest.job])
            if not self._gone([latest.job], ORDERLY_S):
                log.warning("job %s did not end in order within %g s: it is cancelled", latest.job, ORDERLY_S)
                self.slurm.call(["scancel", "--quiet", latest.job])
        if latest.workers:
            self.slurm.call(["scancel", "--quiet", latest.workers])
        if not self._gone(latest.jobs, FORCED_S):
            raise ClusterError(
                f"jobs {', '.join(latest.jobs)} were cancelled, and still have not ended: see squeue"
            )
        if head is not None and folder.told_end(latest.job) is None:
            folder.tell_end(latest.job, "stopped")
        return self._state(folder, latest)

    def fetch(self, name: str, store: Store) -> int:
        from sweeps.store import Store as Opened
        from sweeps.store import copy_sweep
        from sweeps.store.database import require_written

        folder, latest = self._latest(name)
        location = self.described.store
        if "://" not in location:
            head = self._head(latest)
            if head is not None and head.slurm_state == "RUNNING":
                return receive(self._sent(folder, latest).splitlines(), name, store)
            require_written(location)
        with Opened(location) as source:
            return copy_sweep(source, store, name)

    def _sent(self, folder: SweepFolder, latest: Attempt) -> str:
        """The records of a sweep that runs, by a step of its job: two machines must not open one SQLite file."""
        call = ["srun", f"--jobid={latest.job}", "--overlap", "--nodes=1", "--ntasks=1", "bash", slurm.FETCH]
        place = {
            **os.environ,
            "SLURM_SUBMIT_DIR": str(folder.path),
        }  # srun sets it only where it makes the job
        try:
            return self.slurm.call(call, folder.path, place, FETCH_S)
        except UserError as refused:
            raise ClusterError(
                f"the head of {folder.name!r} did not send its records: {refused}"
            ) from refused

    def _start(
        self, folder: SweepFolder, files: dict[str, bytes], digest: str, number: int, num_workers: int
    ) -> Submitted:
        cluster = self.described
        folder.write(files, {"token": secrets.token_hex(32), **slurm.secrets(cluster)})
        scripts = [name for name in files if name in (slurm.HEAD, slurm.WORKER, slurm.SYMMETRIC)]
        for script in scripts:
            self.slurm.would_take(script, folder.path)
        more = {"SWEEPS_PLANNED_WORKERS": str(num_workers)}
        job = self.slurm.submit(slurm.submission(cluster), folder.path, more)
        workers = ""
        try:
            if slurm.WORKER in scripts:
                workers = self.slurm.submit(slurm.worker_submission(job), folder.path, {})
            log_name = slurm.log_name(cluster, job)
            folder.add(Attempt(job, workers, log_name, digest, number, _now()))
            self.slurm.call(slurm.release(job))
        except BaseException:  # held until here, so nothing of it has begun
            self.slurm.call(["scancel", "--quiet", job, *([workers] if workers else [])])
            raise
        return Submitted(job, "waiting", True, number)

    def _files(self, submission: Submission) -> dict[str, bytes]:
        """What goes into the folder, secrets apart. The project itself is installed on the nodes."""
        sweep = SweepFile(submission.name, submission.text)
        own = {name: path.read_bytes() for name, path in own_files(submission.document, Path.cwd()).items()}
        made = {sweep.file_name: sweep.text, **slurm.scripts(self.described, sweep)}
        made[slurm.FETCH] = slurm.fetch_script(self.described, sweep)
        return own | {name: text.encode() for name, text in made.items()}

    def _num_workers(self, submission: Submission) -> int:
        """How many workers there will be once all nodes are there."""
        node = self.described.resources
        fits = [node.cpus / submission.cpus] if submission.cpus else []
        fits += [node.gpus / submission.gpus] if submission.gpus else []
        return self.described.workers.max * max(1, int(min(fits, default=1) + 1e-6))

    def _refuse_a_network_disk(self) -> None:
        """Before hours in a queue: the driver would refuse it."""
        location = self.described.store
        kind = None if "://" in location else network_file_system(Path(location))
        if kind and not network_disk_permitted(self.described.environment):
            raise UserError(
                f"store {location} of cluster {self.described.name!r} {network_disk_advice(kind)}: in clusters.yaml "
                f"`environment: {{{ALLOW}: 1}}`, and the variable here to fetch"
            )

    def _earlier(self, folder: SweepFolder) -> list[Earlier]:
        return [
            Earlier(found.job, found.digest, found.attempt, self._state(folder, found).state)
            for found in folder.attempts()
        ]

    def _latest(self, name: str) -> tuple[SweepFolder, Attempt]:
        folder = SweepFolder(self.described, name)
        self.slurm.check()
        attempts = folder.attempts()
        if not attempts:
            known = folder.names()
            raise UserError(
                f"no sweep named {name!r} was submitted to {self.described.name!r} (folder {folder.base})"
                + (f". It has: {', '.join(known)}" if known else "")
            )
        return folder, attempts[-1]

    def _head(self, attempt: Attempt) -> QueuedJob | None:
        return next((job for job in self.slurm.queue(attempt.job) if job.number == attempt.job), None)

    def _state(self, folder: SweepFolder, attempt: Attempt) -> RemoteState:
        lines = whole_lines(folder.path / attempt.log)
        queued = self.slurm.queue(*attempt.jobs)
        head = next((job for job in queued if job.number == attempt.job), None)
        if head is not None:
            state = "waiting" if head.waits else "running"
            message = f"it waits in the queue{head.why}" if head.waits else _workers(queued, attempt)
        else:
            told = folder.told_end(attempt.job)
            ended = None if told else self.slurm.how_it_ended(attempt.job) or "nothing more of it"
            state = told or STATE_AT_END.get(ended or "", "failed")
            message = f"Slurm says {ended}. " if ended else ""
            if state == "failed":
                words = [line for line in lines if line.strip() and not line.startswith(MARK)]
                message += f"{words[-1] if words else 'It wrote no log.'} Logs: {folder.path}"
        return RemoteState(attempt.job, state, attempt.attempt, attempt.submitted, message, last_block(lines))

    def _gone(self, numbers: list[str], patience_s: float) -> bool:
        deadline = time.monotonic() + patience_s
        while self.slurm.queue(*numbers):
            if time.monotonic() > deadline:
                return False
            time.sleep(1.0)
        return True


def _workers(queued: list[QueuedJob], attempt: Attempt) -> str:
    if not attempt.workers:
        return ""
    mine = [job for job in queued if job.number == attempt.workers]
    waiting = [job.why for job in mine if job.waits]
    return f"worker jobs: {len(mine) - len(waiting)} running, {len(waiting)} waiting" + "".join(waiting[:1])


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
