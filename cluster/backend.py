"""The contract of a cluster backend, the types that pass through it, and the registry of backends.

A backend runs sweeps on one kind of cluster. It is one module or sub-package of `cluster` that defines a subclass of
`Backend` with a `kind`. `backends` finds it by listing the package, so a new backend needs no change in any other file:

    @dataclass(frozen=True, kw_only=True)
    class PbsCluster(Cluster):
        queue: Word | None = None               # a field of clusters.yaml, beside those that every kind has

    class PbsBackend(Backend[PbsCluster]):
        kind = "pbs"
        schema = PbsCluster
        def submit(self, submission): ...       # and status, logs, stop, fetch, show
"""

from __future__ import annotations

import hashlib
import importlib
import pkgutil
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

import cluster as package
from cluster.description import Cluster, NodeResources
from sweeps.config.faults import shown
from sweeps.config.sweep_file import SWEEP_NAME
from sweeps.config.yaml import dump
from sweeps.errors import ClusterError, UserError
from sweeps.store.location import masked

if TYPE_CHECKING:
    from sweeps.store import Store

State = Literal["waiting", "running", "stopped", "failed", "done"]
DRIVER_STOPS_S = 40
"""How long Ray waits after SIGTERM before it kills a driver, which ends in order within 25 s."""


def check_sweep_name(name: str) -> str:
    """Return the name. Raises UserError unless it is safe as a Ray submission id, a Slurm job name and in a shell."""
    if not SWEEP_NAME.fullmatch(name):
        raise UserError(
            f"{shown(name)} cannot be the name of a sweep on a cluster: 1 to 100 letters, digits, dots, dashes or "
            "underscores, a letter or digit first. `--name NEW` gives it another"
        )
    return name


@dataclass(frozen=True)
class Submission:
    """A sweep that is to run on a cluster, as plain data. Raises UserError for a name that cannot be used there."""

    name: str
    text: str = ""
    """The sweep file as YAML, overrides applied."""
    files: Mapping[str, Path] = field(default_factory=dict)
    """The user's own files that the sweep names (`./my_unit.py`), by their path in the sweep's folder."""
    cpus: float = 1.0
    """CPUs of ONE worker."""
    gpus: float = 0.0
    """GPUs of one worker."""
    memory_gb: float | None = None
    """Memory of one worker."""
    origin: Path | None = None
    """The user's sweep file here, for messages."""

    def __post_init__(self) -> None:
        check_sweep_name(self.name)

    @property
    def file_name(self) -> str:
        """Name of the sweep file: a file of this name is a sweep of this name, also where the text leaves `name` out."""
        return f"{self.name}.yaml"

    @cached_property
    def contents(self) -> dict[str, bytes]:
        """Path -> content of the sweep file, which comes first, and of the user's own files."""
        own = {path: file.read_bytes() for path, file in sorted(self.files.items())}
        return {self.file_name: self.text.encode(), **own}


EXAMPLE = Submission("my-sweep")
"""What `show` uses where no sweep file was given."""


@dataclass(frozen=True)
class Submitted:
    """Result of a submission."""

    job: str
    """The cluster's name for the job."""
    state: State
    fresh: bool
    """False: the same content is running or done already, and nothing was submitted."""
    attempt: int = 1


@dataclass(frozen=True)
class JobStatus:
    """Status of the latest job of a sweep on a cluster."""

    job: str
    state: State
    attempt: int
    since: str
    """When it was submitted or started: UTC, ISO 8601."""
    message: str = ""
    """Reason of a failure or of waiting, for people."""
    progress: Sequence[str] = ()
    """The last block of progress in its log."""


Described = TypeVar("Described", bound=Cluster)


class Backend(ABC, Generic[Described]):
    """One cluster of clusters.yaml, to which sweeps are submitted. A sweep's handle is its name.

    An instance is made for every cluster of the file whenever it is read, so the constructor must not connect to
    anything. Every method but `show`, `advice` and `where` may raise UserError (the request is wrong, nothing was
    started) and ClusterError (the cluster does not answer or fails).
    """

    kind: ClassVar[str]
    """The value of `kind` in clusters.yaml that selects this backend."""
    schema: ClassVar[type[Cluster]] = Cluster
    """Dataclass of the fields in clusters.yaml. Default: those that every kind has."""

    def __init__(self, cluster: Described) -> None:
        self.cluster = cluster
        self._checked: set[tuple[float, float, float | None]] = set()

    @property
    def name(self) -> str:
        """The cluster's name in clusters.yaml."""
        return self.cluster.name

    @property
    def where(self) -> str:
        """One line for `sweeps list clusters`: kind and size, without credentials."""
        return masked(f"{self.kind}: {self.cluster.size}")

    @property
    def store_here(self) -> str | None:
        """Where the cluster's store may be opened on this machine, to be read; None where it is out of reach.

        Default: a database at a URL.
        """
        return self.cluster.store if "://" in self.cluster.store else None

    def submitted_from(self, name: str) -> Path | None:
        """Return the sweep file from which a sweep in the cluster's store was submitted. Default: None, it is not known."""
        return None

    def check(self, submission: Submission) -> None:
        """Raise UserError, with all reasons, for a sweep that could never run there, because of its name and resources.

        Default: a worker that fits on no node as clusters.yaml describes it.
        """
        check_fits(submission, [self.cluster.resources], f"node of {self.name!r}")

    def check_once(self, submission: Submission) -> None:
        """Call `check`, unless it has passed for these resources. `submit` calls it first.

        `sweeps submit` calls it before that, to report what the cluster refuses together with other faults. The driver reads
        and checks the sweep file again, on the cluster: its versions, cores, compiler and data are other ones.
        """
        needs = (submission.cpus, submission.gpus, submission.memory_gb)
        if needs not in self._checked:
            self.check(submission)
            self._checked.add(needs)

    @abstractmethod
    def submit(self, submission: Submission) -> Submitted:
        """Start a sweep, or find that the same content is running or done. Called by `sweeps submit`.

        Raises UserError, before anything starts, for a request that cannot work: no connection, a wrong token, a worker that
        fits on no node, files that cannot be sent, or other content under a name that is running (see `next_attempt`).
        """

    @abstractmethod
    def status(self, name: str) -> JobStatus:
        """Return the status of the sweep's latest job. Called by `sweeps status` and at the end of `sweeps watch`.

        Raises UserError for a name that was never submitted here; the message lists those that were.
        """

    @abstractmethod
    def logs(self, name: str, follow: bool, on_message: Callable[[str], None]) -> Iterator[str]:
        """Yield the lines of the latest job's log. Called by `sweeps logs` and `sweeps watch`.

        With `follow` the lines are yielded as they are written, each once, until the job has ended, also if the connection is
        lost in between, about which `on_message` receives notes. Without it, the lines written so far.
        """

    @abstractmethod
    def stop(self, name: str) -> JobStatus:
        """End the latest job in order (the driver writes its checkpoints) and wait for that. Called by `sweeps stop`.

        Return the status afterwards; a job that has ended already is left as it is.
        """

    @abstractmethod
    def fetch(self, name: str, store: Store) -> int:
        """Copy the sweep's records into `store`, also while it runs. Called by `sweeps fetch`.

        Return how many lanes were new.
        """

    @abstractmethod
    def show(self, submission: Submission | None) -> str:
        """Return what would be started, as finished text for stdout: a manifest, scripts, a launcher file or a call.

        Called by `sweeps cluster show`; starts nothing and contains no secret. None: no sweep file was given, and
        the text is for `EXAMPLE` or for a cluster without a sweep.
        """

    def advice(self, submission: Submission | None) -> list[str]:
        """Return lines for stderr that explain the text of `show`. Default: a note where no sweep file was given."""
        if submission is not None:
            return []
        return [f"no --sweep FILE was given: this is the text for a sweep named {EXAMPLE.name}"]


# -------------------------------------------------------------------------------------------- registry


def backends() -> dict[str, type[Backend[Any]]]:
    """Return every backend class by its kind, in alphabetical order.

    They are found by importing the modules of this package, on the first call and not before.
    """
    found: dict[str, type[Backend[Any]]] = {}
    for entry in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        module = importlib.import_module(entry.name)
        for value in vars(module).values():
            if not (isinstance(value, type) and issubclass(value, Backend) and "kind" in vars(value)):
                continue
            if not f"{value.__module__}.".startswith(f"{entry.name}."):
                continue  # imported from another module
            if found.setdefault(value.kind, value) is not value:
                raise TypeError(f"two backends are of kind {value.kind!r}: {found[value.kind]} and {value}")
    return dict(sorted(found.items()))


# ------------------------------------------------------------------------- shared by several backends


class Faults(UserError):
    """Several faults at once; `faults` has one sentence or more for each."""

    def __init__(self, faults: Sequence[str]) -> None:
        listed = [textwrap.indent(fault, "    ").replace("    ", "  - ", 1) for fault in faults]
        super().__init__("\n".join([f"{len(faults)} faults:", *listed]))
        self.faults = tuple(faults)


def all_at_once(*checks: Callable[[], object]) -> None:
    """Make every check. Raises one UserError with the messages of all that raised one."""
    found: list[UserError] = []
    for check in checks:
        try:
            check()
        except UserError as error:
            found.append(error)
        except ClusterError:  # it does not answer: what was found before is of more use
            if not found:
                raise
    if len(found) == 1:
        raise found[0]
    if found:
        every = [error.faults if isinstance(error, Faults) else (str(error),) for error in found]
        raise Faults([fault for faults in every for fault in faults]) from found[0]


def check_fits(submission: Submission, nodes: Sequence[NodeResources], where: str) -> None:
    """Raise UserError if one worker fits on no node: such a job would wait in a queue for ever.

    A node without `memory_gb` counts as large enough; an empty list of nodes is not checked.
    """

    def fits(node: NodeResources) -> bool:
        memory_gb = float("inf") if node.memory_gb is None else node.memory_gb
        enough = submission.cpus <= node.cpus and submission.gpus <= node.gpus
        return enough and (submission.memory_gb or 0) <= memory_gb

    if not nodes or any(fits(node) for node in nodes):
        return
    sizes = [node.memory_gb for node in nodes if node.memory_gb is not None]
    memory = f" and {max(sizes):.3g} GB" if sizes else ""
    raise UserError(
        f"one worker needs {submission.cpus:g} CPUs, {submission.gpus:g} GPUs"
        + (f" and {submission.memory_gb:g} GB" if submission.memory_gb else "")
        + f", and no {where} has that: the largest have {max(node.cpus for node in nodes):g} CPUs, "
        f"{max(node.gpus for node in nodes):g} GPUs{memory}. Make the sweep's `resources` smaller, or the nodes larger"
    )


@dataclass(frozen=True)
class EarlierJob:
    """A job of an earlier submission of the same sweep name."""

    job: str
    digest: str
    """Digest of everything that the job was made of."""
    attempt: int


def next_attempt(
    earlier: Sequence[EarlierJob],
    digest: str,
    submission: Submission,
    cluster: str,
    state_of: Callable[[str], State],
) -> int | Submitted:
    """Return the number of the next attempt at this content, or the job that runs it or has done it already.

    `earlier` begins with the oldest; `state_of` returns the state of one of its jobs and is called for two at most.
    Raises UserError if the name's latest job is running with other content.
    """
    active = ("waiting", "running")
    latest = earlier[-1] if earlier else None
    if latest and latest.digest != digest and state_of(latest.job) in active:
        raise UserError(
            f"sweep {submission.name!r} runs on {cluster!r} already, with other settings, other files or another "
            f"description of the cluster (job {latest.job}). `sweeps stop {submission.name} --on {cluster}` stops it, "
            "--name NEW gives this one another name"
        )
    same = [job for job in earlier if job.digest == digest]
    if same:
        state = state_of(same[-1].job)
        if state in (*active, "done"):
            return Submitted(same[-1].job, state, False, same[-1].attempt)
    return 1 + max((job.attempt for job in same), default=0)


def digest_of(files: Mapping[str, bytes], more: bytes = b"") -> str:
    """Return the sha256 of files with their paths, and of `more`, everything else that a job is made of."""
    total = hashlib.sha256(more)
    for name in sorted(files):
        for part in (name.encode(), files[name]):
            total.update(len(part).to_bytes(8, "big") + part)
    return total.hexdigest()


def as_yaml(documents: Sequence[dict[str, Any]]) -> str:
    """Return documents as one stream of YAML."""
    return "---\n".join(dump(document) for document in documents)
