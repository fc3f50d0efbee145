"""Batch scripts for Slurm: an elastic head with workers that come and go, or all nodes at once.

A script is three parts: #SBATCH lines, values as quoted assignments, and a fixed text from `templates/`. Nothing that a
user wrote stands in the fixed text; what they wrote as shell (`setup`) is theirs to write.

Whoever submits (`slurm_jobs`) makes a folder for the sweep, seen by all nodes, writes there the scripts, the sweep file,
`token` and, where `secrets` names it, `store-url` (both readable by nobody else), and calls in that folder `submission`,
`worker_submission` and `release`; the number of the workers' job goes into the file `worker-jobs`. A script leaves
`ended-JOB`, which says done, stopped or failed.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from importlib.resources import files
from pathlib import Path, PurePosixPath

from cluster.descriptions import SlurmCluster
from cluster.fields import NodeResources, slurm_time
from cluster.job import store_of
from cluster.sweep_file import SweepFile, driver_environment
from sweeps.store.location import masked

HEAD, WORKER, SYMMETRIC, FETCH = "head.sh", "worker.sh", "symmetric.sh", "fetch.sh"
STORE_URL_FILE = "store-url"
OBJECT_STORE_BYTES = 500 * 1024**2
_HEAD_LOG, _SYMMETRIC_LOG = "head-%j.log", "symmetric-%j.log"


def placed(cluster: SlurmCluster) -> SlurmCluster:
    """With paths that do not depend on where one stands: relative ones lie below the home, the store as on a Ray cluster."""
    return replace(
        cluster,
        folder=str(Path.home() / Path(cluster.folder).expanduser()),
        store=store_of(cluster.store),
        python=str(Path(cluster.python).expanduser()),
    )


def scripts(cluster: SlurmCluster, sweep: SweepFile) -> dict[str, str]:
    """File name -> text, in the order in which they are submitted."""
    if cluster.mode == "symmetric":
        return {SYMMETRIC: _symmetric(cluster, sweep)}
    return {HEAD: _head(cluster, sweep), WORKER: _worker(cluster, sweep)}


def fetch_script(cluster: SlurmCluster, sweep: SweepFile) -> str:
    """What a step of a running head's job does for `sweeps fetch`."""
    return _script(cluster, sweep, [], cluster.head, ("fetch",))


def secrets(cluster: SlurmCluster) -> dict[str, str]:
    """Files that hold secrets, besides `token`: to be written with mode 600, never printed."""
    return {STORE_URL_FILE: cluster.store} if _secret_store(cluster) else {}


def submission(cluster: SlurmCluster) -> list[str]:
    """The call that submits the sweep's first (or only) job, held until `release`; it prints the job's number."""
    return ["sbatch", "--parsable", "--hold", SYMMETRIC if cluster.mode == "symmetric" else HEAD]


def release(job: str) -> list[str]:
    """The call that lets it begin, once all are submitted."""
    return ["scontrol", "release", job]


def log_name(cluster: SlurmCluster, job: str) -> str:
    """The log of the first (or only) job."""
    return (_SYMMETRIC_LOG if cluster.mode == "symmetric" else _HEAD_LOG).replace("%j", job)


def worker_submission(head_job: str) -> list[str]:
    """The call that submits all workers of an elastic sweep, once the head's job has begun."""
    if not head_job.isdecimal():
        raise ValueError(f"sbatch answered {head_job!r}, which is no job number")
    return [
        "sbatch", "--parsable", f"--dependency=after:{head_job}", "--kill-on-invalid-dep=yes",
        f"--export=ALL,SWEEPS_HEAD_JOB={head_job}", WORKER,
    ]  # fmt: skip


def _head(cluster: SlurmCluster, sweep: SweepFile) -> str:
    options = [
        *_options(cluster, f"sweeps-{sweep.name}", _HEAD_LOG, cluster.head, cluster.time_limit),
        "--nodes=1", "--ntasks=1",
        *_partition(cluster.head_partition or cluster.partition),
    ]  # fmt: skip
    return _script(cluster, sweep, options, cluster.head, ("common", "driver", "elastic", "head"))


def _worker(cluster: SlurmCluster, sweep: SweepFile) -> str:
    limit_s = cluster.worker_time_limit or cluster.time_limit
    options = [
        *_options(cluster, f"sweeps-{sweep.name}-worker", "worker-%A_%a.log", cluster.resources, limit_s),
        "--nodes=1", "--ntasks=1", f"--array=1-{cluster.workers.max}",
        *_partition(cluster.partition),
    ]  # fmt: skip
    return _script(cluster, sweep, options, cluster.resources, ("common", "elastic", "worker"), limit_s or 0)


def _symmetric(cluster: SlurmCluster, sweep: SweepFile) -> str:
    nodes = cluster.workers.max
    options = [
        *_options(cluster, f"sweeps-{sweep.name}", _SYMMETRIC_LOG, cluster.resources, cluster.time_limit),
        f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", "--exclusive",
        *_partition(cluster.partition),
    ]  # fmt: skip
    return _script(cluster, sweep, options, cluster.resources, ("common", "driver", "symmetric"))


def _options(
    cluster: SlurmCluster, job: str, log: str, node: NodeResources, limit_s: int | None
) -> list[str]:
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
    cluster: SlurmCluster,
    sweep: SweepFile,
    options: list[str],
    node: NodeResources,
    templates: tuple[str, ...],
    limit_s: int = 0,
) -> str:
    lines = ["#!/bin/bash", *(f"#SBATCH {option}" for option in options), ""]
    lines += [
        "set -euo pipefail",
        "umask 077",
        'cd -- "${SLURM_SUBMIT_DIR:?is set by Slurm: submit this with sbatch}"',
    ]
    folder = str(PurePosixPath(cluster.python).parent)
    if folder != ".":
        lines.append(f'export PATH={shlex.quote(folder)}:"$PATH"')
    lines.append("export SWEEPS_PROGRESS=lines")
    lines += [f"export {name}={shlex.quote(value)}" for name, value in driver_environment(cluster).items()]
    if _secret_store(cluster):
        lines += [f'SWEEPS_STORE="$(cat -- {STORE_URL_FILE})"', "export SWEEPS_STORE"]
    else:
        lines.append(f"export SWEEPS_STORE={shlex.quote(cluster.store)}")
    if cluster.setup:
        # Modules and conda read variables that nobody has set.
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
    return (files("cluster") / "templates" / f"slurm_{name}.sh").read_text(encoding="utf-8")
