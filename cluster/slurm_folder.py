"""A sweep's folder on the disk that a Slurm cluster's nodes share: scripts, the sweep file, the user's own files, secrets,
logs, and a list of the sweep's jobs. It is all that `sweeps status` and its like need to find a sweep again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import filelock

from cluster.descriptions import SlurmCluster
from cluster.names import travelling_name
from sweeps.errors import UserError

JOBS = "jobs.json"
WORKER_JOBS = "worker-jobs"


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
    """Of what was submitted."""
    attempt: int
    submitted: str
    """UTC, ISO 8601."""

    @property
    def jobs(self) -> list[str]:
        return [self.job, self.workers] if self.workers else [self.job]


class SweepFolder:
    """Methods raise UserError where the folder cannot be read or written, and ValueError for a name that no sweep has."""

    def __init__(self, cluster: SlurmCluster, name: str) -> None:
        self.name, self.cluster = travelling_name(name), cluster.name
        self.base = Path(cluster.folder)
        self.path = self.base / self.name

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One `sweeps submit` at a time. Makes the folder, which nobody else may read."""
        with self._told():
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self.path.stat().st_uid != os.getuid():
                raise UserError(
                    f"folder {self.path} belongs to somebody else: name another `folder` in clusters.yaml"
                )
            self.path.chmod(0o700)  # whoever made it
            lock = filelock.FileLock(self.path / ".lock", timeout=60.0)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def attempts(self) -> list[Attempt]:
        """The oldest first; empty where nothing of that name was submitted."""
        with self._told():
            file = self.path / JOBS
            return [Attempt(**entry) for entry in json.loads(file.read_bytes())] if file.exists() else []

    def names(self) -> list[str]:
        """Sweeps that were submitted from here, whatever became of them."""
        return sorted(file.parent.name for file in self.base.glob(f"*/{JOBS}"))

    def write(self, files: Mapping[str, bytes], secrets: Mapping[str, str]) -> None:
        with self._told():
            for name, content in files.items():
                (self.path / name).parent.mkdir(parents=True, exist_ok=True)
                (self.path / name).write_bytes(content)
            for name, text in secrets.items():
                (self.path / name).unlink(missing_ok=True)
                with open(
                    os.open(self.path / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w"
                ) as file:
                    file.write(text)

    def add(self, attempt: Attempt) -> None:
        """Notes a submission, and for the head's script which workers are its own."""
        told = [asdict(one) for one in (*self.attempts(), attempt)]
        with self._told():
            (self.path / WORKER_JOBS).write_text(attempt.workers)
            new = self.path / f"{JOBS}.new"
            new.write_text(json.dumps(told, indent=1), encoding="utf-8")
            new.replace(self.path / JOBS)

    def told_end(self, job: str) -> str | None:
        """What a job's script wrote when it ended: done, stopped or failed."""
        try:
            return (self.path / f"ended-{job}").read_text(encoding="utf-8").strip() or None
        except OSError:
            return None

    def tell_end(self, job: str, state: str) -> None:
        """For a job that never began, and so wrote nothing."""
        with self._told():
            (self.path / f"ended-{job}").write_text(f"{state}\n", encoding="utf-8")

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, TypeError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise UserError(
                f"folder {self.path} cannot be read and written: {why}. `folder` of {self.cluster!r} in clusters.yaml "
                "names another, on a disk that the login node and all nodes share"
            ) from error
