"""Batch scripts for Slurm: an elastic head with workers that come and go, or all nodes at once.

A script is three parts: #SBATCH lines, values as quoted assignments, and a fixed text from `templates/`. Nothing that a
user wrote stands in the fixed text; what they wrote as shell (`setup`) is theirs to write.

Whoever submits makes a folder for the sweep, seen by all nodes, writes there the scripts, the sweep file, `token`
and, where `secrets` names it, `store-url` (both readable by nobody else), and calls sbatch in that folder with
`submission` and `worker_submission`, appending the workers' job number to the file `worker-jobs`.
"""

from __future__ import annotations

import re
import shlex
from importlib.resources import files
from pathlib import PurePosixPath

from cluster.descriptions import SlurmCluster
from cluster.fields import NodeResources, masked, slurm_time
from cluster.sweep_file import SweepFile, driver_environment

HEAD, WORKER, SYMMETRIC = "head.sh", "worker.sh", "symmetric.sh"
STORE_URL_FILE = "store-url"
OBJECT_STORE_BYTES = 500 * 1024**2


def scripts(cluster: SlurmCluster, sweep: SweepFile) -> dict[str, str]:
    """File name -> text, in the order in which they are submitted."""
    if cluster.mode == "symmetric":
        return {SYMMETRIC: _symmetric(cluster, sweep)}
    return {HEAD: _head(cluster, sweep), WORKER: _worker(cluster, sweep)}


def secrets(cluster: SlurmCluster) -> dict[str, str]:
    """Files that hold secrets, besides `token`: to be written with mode 600, never printed."""
    return {STORE_URL_FILE: cluster.store} if _secret_store(cluster) else {}


def submission(cluster: SlurmCluster) -> list[str]:
    """The call that submits the sweep's first (or only) job; it prints the job's number."""
    return ["sbatch", "--parsable", SYMMETRIC if cluster.mode == "symmetric" else HEAD]


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
        *_options(cluster, f"sweeps-{sweep.name}", "head-%j.log", cluster.head, cluster.time_limit),
        "--nodes=1", "--ntasks=1",
        *_partition(cluster.head_partition or cluster.partition),
    ]  # fmt: skip
    return _script(cluster, sweep, options, cluster.head, ("common", "elastic", "head"))


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
        *_options(cluster, f"sweeps-{sweep.name}", "symmetric-%j.log", cluster.resources, cluster.time_limit),
        f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", "--exclusive",
        *_partition(cluster.partition),
    ]  # fmt: skip
    return _script(cluster, sweep, options, cluster.resources, ("common", "symmetric"))


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
    lines += [f"export {name}={shlex.quote(value)}" for name, value in driver_environment(cluster).items()]
    if _secret_store(cluster):
        lines += [f'SWEEPS_STORE="$(cat -- {STORE_URL_FILE})"', "export SWEEPS_STORE"]
    else:
        lines.append(f"export SWEEPS_STORE={shlex.quote(cluster.store)}")
    if cluster.setup:
        # Modules and conda read variables that nobody has set.
        lines += ["", "set +u", *cluster.setup, "set -u"]
    values = {
        "sweep_file": sweep.file_name, "fixed_port": str(cluster.port or ""), "wait_s": str(cluster.wait_s),
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
