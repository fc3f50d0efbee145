"""Fields of a Slurm cluster in clusters.yaml, and the batch scripts that are made from them.

Two modes: an elastic head with workers that come and go, or all nodes at once. A script has three parts: #SBATCH lines,
values as quoted assignments, and a fixed text from `templates/`. The fixed text contains nothing from a user; lines of shell
from a user (`setup`) are copied unchanged.

`cluster.slurm.jobs` makes a folder for the sweep that all nodes can read, writes the scripts, the sweep file, `token` and,
where `secrets` contains it, `store-url` into it (both with mode 600), and calls there `head_submission`,
`worker_submission` and `release`; the number of the workers' job goes into the file `worker-jobs`. A script writes
`ended-JOB`, which contains done, stopped or failed.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from annotated_types import Ge, Le

from cluster.backend import Submission
from cluster.description import Cluster, Duration, NodeResources, Word, matching
from cluster.description import Path as PathText
from cluster.job import absolute_store
from sweeps.store.location import masked

Port = Annotated[int, Ge(1024), Le(65535)]
Option = Annotated[
    str,
    matching(r"--[a-z][a-z0-9-]*(?:[= ][^\x00-\x1f\x7f]+)?", "an option of sbatch such as --constraint=a100"),
]
OWN_OPTIONS = {
    "--array", "--chdir", "--cpus-per-task", "--dependency", "--exclusive", "--export", "--gres", "--gpus",
    "--gpus-per-node", "--job-name", "--mem", "--nodes", "--no-requeue", "--ntasks", "--ntasks-per-node", "--open-mode",
    "--output", "--parsable", "--requeue", "--signal", "--time", "--wrap",
}  # fmt: skip
"""Options of sbatch that the fields of clusters.yaml set."""
HEAD, WORKER, SYMMETRIC, FETCH = "head.sh", "worker.sh", "symmetric.sh", "fetch.sh"
STORE_URL_FILE = "store-url"
OBJECT_STORE_BYTES = 500 * 1024**2
_HEAD_LOG, _SYMMETRIC_LOG = "head-%j.log", "symmetric-%j.log"


@dataclass(frozen=True, kw_only=True)
class SlurmCluster(Cluster):
    """Fields of a Slurm cluster, inside whose jobs Ray runs."""

    mode: Literal["elastic", "symmetric"] = "elastic"
    """elastic: a head job, and worker jobs that join as they are scheduled. symmetric: one job, all nodes at once."""
    partition: Word | None = None
    account: Word | None = None
    qos: Word | None = None
    head_partition: Word | None = None
    """Partition of the head job, which needs no GPU; default: partition."""
    head: NodeResources = field(default_factory=lambda: NodeResources(cpus=2, memory_gb=4))
    """Resources that the head job requests (elastic)."""
    worker_time_limit: Duration | None = None
    """Limit of one worker job (elastic), which is requeued when it is reached; default: time_limit."""
    grace_s: Annotated[int, Ge(5), Le(3600)] = 60
    """Slurm sends SIGTERM so many seconds before a job's limit."""
    wait_s: Annotated[int, Ge(30)] = 600
    """How long the head waits for a first worker (elastic) or for all nodes (symmetric)."""
    port: Port | None = None
    """Port of Ray's head. Default: from the job's number, so that two sweeps on one node have different ones."""
    folder: PathText = "sweeps-jobs"
    """Folder of each sweep's scripts, token and logs, which the login node and all nodes can read."""
    python: PathText = "python3"
    """The Python that has sweeps installed, on every node: /home/me/sweeps/.venv/bin/python."""
    extra: tuple[Option, ...] = ()
    """More #SBATCH options, for every job: --constraint=a100."""

    def conflicts(self) -> Iterator[tuple[str, str]]:
        given = {option.partition("=")[0].partition(" ")[0]: option for option in self.extra}
        for option in OWN_OPTIONS & given.keys():
            yield "extra", f"{option} is set from the other fields: leave it out"
        if self.mode == "symmetric":
            if self.workers.min != self.workers.max:
                yield "workers", "must be one count in mode symmetric: Ray waits for exactly so many nodes"
            if self.worker_time_limit is not None:
                yield "worker_time_limit", "has no effect in mode symmetric: give time_limit"
        if self.port is not None and 10_002 <= self.port <= 19_999:
            yield "port", "is among those that Ray gives to its workers: take one outside of 10002 to 19999"
        limit = self.worker_time_limit or self.time_limit
        if limit is not None and self.grace_s * 2 > limit:
            yield "grace_s", f"must be at most half of a job's limit, {limit} s, not {self.grace_s}"


def resolved(cluster: SlurmCluster) -> SlurmCluster:
    """Return the cluster with absolute paths: relative ones are below the home, the store as on a Ray cluster."""
    return replace(
        cluster,
        folder=str(Path.home() / Path(cluster.folder).expanduser()),
        store=absolute_store(cluster.store),
        python=str(Path(cluster.python).expanduser()),
    )


def scripts(cluster: SlurmCluster, sweep: Submission) -> dict[str, str]:
    """Return file name -> text of the batch scripts, in the order in which they are submitted."""
    if cluster.mode == "symmetric":
        return {SYMMETRIC: _symmetric(cluster, sweep)}
    return {HEAD: _head(cluster, sweep), WORKER: _worker(cluster, sweep)}


def fetch_script(cluster: SlurmCluster, sweep: Submission) -> str:
    """Return the script that `sweeps fetch` runs as a step of a running head's job."""
    return _script(cluster, sweep, [], cluster.head, ("fetch",))


def secrets(cluster: SlurmCluster) -> dict[str, str]:
    """Return name -> text of files that hold secrets, besides `token`: written with mode 600, never printed."""
    return {STORE_URL_FILE: cluster.store} if _secret_store(cluster) else {}


def head_submission(cluster: SlurmCluster) -> list[str]:
    """Return the call that submits the sweep's first (or only) job, held until `release`; it prints the job's number."""
    return ["sbatch", "--parsable", "--hold", SYMMETRIC if cluster.mode == "symmetric" else HEAD]


def release(job: str) -> list[str]:
    """Return the call that lets the job begin, once all are submitted."""
    return ["scontrol", "release", job]


def log_name(cluster: SlurmCluster, job: str) -> str:
    """Return the file name of the log of the first (or only) job."""
    return (_SYMMETRIC_LOG if cluster.mode == "symmetric" else _HEAD_LOG).replace("%j", job)


def worker_submission(head_job: str) -> list[str]:
    """Return the call that submits all workers of an elastic sweep, which begin after the head's job."""
    if not head_job.isdecimal():
        raise ValueError(f"sbatch printed {head_job!r}, which is no job number")
    return [
        "sbatch", "--parsable", f"--dependency=after:{head_job}", "--kill-on-invalid-dep=yes",
        f"--export=ALL,SWEEPS_HEAD_JOB={head_job}", WORKER,
    ]  # fmt: skip


def _head(cluster: SlurmCluster, sweep: Submission) -> str:
    options = [
        *_options(cluster, f"sweeps-{sweep.name}", _HEAD_LOG, cluster.head, cluster.time_limit),
        "--nodes=1", "--ntasks=1",
        *_partition(cluster.head_partition or cluster.partition),
    ]  # fmt: skip
    return _script(cluster, sweep, options, cluster.head, ("common", "driver", "elastic", "head"))


def _worker(cluster: SlurmCluster, sweep: Submission) -> str:
    limit_s = cluster.worker_time_limit or cluster.time_limit
    options = [
        *_options(cluster, f"sweeps-{sweep.name}-worker", "worker-%A_%a.log", cluster.resources, limit_s),
        "--nodes=1", "--ntasks=1", f"--array=1-{cluster.workers.max}",
        *_partition(cluster.partition),
    ]  # fmt: skip
    return _script(cluster, sweep, options, cluster.resources, ("common", "elastic", "worker"), limit_s or 0)


def _symmetric(cluster: SlurmCluster, sweep: Submission) -> str:
    nodes = cluster.workers.max
    options = [
        *_options(cluster, f"sweeps-{sweep.name}", _SYMMETRIC_LOG, cluster.resources, cluster.time_limit),
        f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", "--exclusive",
        *_partition(cluster.partition),
    ]  # fmt: skip
    return _script(cluster, sweep, options, cluster.resources, ("common", "driver", "symmetric"))


def _options(cluster: SlurmCluster, job: str, log: str, node: NodeResources, limit_s: int | None) -> list[str]:
    options = [f"--job-name={job}", f"--output={log}", "--open-mode=append", "--requeue"]
    options += [f"--signal=B:TERM@{cluster.grace_s}", f"--cpus-per-task={node.cpus}"]
    if node.memory_gb is not None:
        options.append(f"--mem={round(node.memory_gb * 1024)}M")
    if node.gpus:
        options.append(f"--gres=gpu:{node.gpus}")
    if limit_s is not None:
        options.append(f"--time={slurm_time(limit_s)}")
    if cluster.account:
        options.append(f"--account={cluster.account}")
    if cluster.qos:
        options.append(f"--qos={cluster.qos}")
    return [*options, *cluster.extra]


def _partition(name: str | None) -> list[str]:
    return [f"--partition={name}"] if name else []


def _script(
    cluster: SlurmCluster, sweep: Submission, options: list[str], node: NodeResources, templates: tuple[str, ...],
    limit_s: int = 0,
) -> str:  # fmt: skip
    lines = ["#!/bin/bash", *(f"#SBATCH {option}" for option in options), ""]
    lines += ["set -euo pipefail", "umask 077", 'cd -- "${SLURM_SUBMIT_DIR:?is set by Slurm: submit this with sbatch}"']
    folder = str(PurePosixPath(cluster.python).parent)
    if folder != ".":
        lines.append(f'export PATH={shlex.quote(folder)}:"$PATH"')
    lines.append("export SWEEPS_PROGRESS=lines")
    lines += [f"export {name}={shlex.quote(value)}" for name, value in cluster.driver_environment.items()]
    if _secret_store(cluster):
        lines += [f'SWEEPS_STORE="$(cat -- {STORE_URL_FILE})"', "export SWEEPS_STORE"]
    else:
        lines.append(f"export SWEEPS_STORE={shlex.quote(cluster.store)}")
    if cluster.setup:
        # Modules and conda read unset variables.
        lines += ["", "set +u", *cluster.setup, "set -u"]
    values = {
        "sweep_file": sweep.file_name, "sweep_name": sweep.name, "mlflow": "--mlflow" if cluster.mlflow else "--no-mlflow",
        "fixed_port": str(cluster.port or ""), "wait_s": str(cluster.wait_s),
        "grace_s": str(cluster.grace_s), "limit_s": str(limit_s), "cpus": str(node.cpus), "gpus": str(node.gpus),
        "memory_bytes": str(int((node.memory_gb or 0) * 1024**3)), "object_store_bytes": str(OBJECT_STORE_BYTES),
    }  # fmt: skip
    used = "".join(_template(name) for name in templates)
    lines += ["", *(f"{n}={shlex.quote(v)}" for n, v in values.items() if re.search(rf"\b{n}\b(?!=)", used))]
    return "\n".join(lines) + "\n" + used


def _secret_store(cluster: SlurmCluster) -> bool:
    return masked(cluster.store) != cluster.store


def _template(name: str) -> str:
    return (files("cluster.slurm") / "templates" / f"{name}.sh").read_text(encoding="utf-8")


def slurm_time(seconds: int) -> str:
    """Return `D-HH:MM:SS`, which Slurm reads in one way only."""
    days, rest = divmod(seconds, 86_400)
    return f"{days}-{rest // 3_600:02}:{rest % 3_600 // 60:02}:{rest % 60:02}"
