"""What `sweeps cluster show` prints: the finished text of a cluster, clean enough for a pipe. Nothing is started."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from cluster import kuberay, launcher, slurm
from cluster.descriptions import CloudCluster, Cluster, KubernetesCluster, RayCluster, SlurmCluster
from cluster.sweep_file import SweepFile, driver_environment, run_command
from sweeps.config.yaml import dump
from sweeps.store.location import masked

EXAMPLE = SweepFile("my-sweep", "")
"""Shown where no sweep file was given."""


def finished_text(cluster: Cluster, sweep: SweepFile | None) -> str:
    """Manifests, batch scripts, a launcher file, or the calls that would be made."""
    if isinstance(cluster, KubernetesCluster):
        return as_yaml(kuberay.manifests(cluster, sweep))
    if isinstance(cluster, CloudCluster):
        return as_yaml([launcher.launcher_file(cluster)])
    if isinstance(cluster, SlurmCluster):
        return _slurm_text(cluster, sweep or EXAMPLE)
    return _call_text(cluster, sweep or EXAMPLE)


def advice(cluster: Cluster, sweep: SweepFile | None) -> list[str]:
    """What to do with the text: for people, apart from it."""
    lines = []
    if sweep is None and not isinstance(cluster, CloudCluster):
        what = (
            "a RayCluster"
            if isinstance(cluster, KubernetesCluster)
            else f"the text for a sweep named {EXAMPLE.name}"
        )
        lines.append(f"no --sweep FILE was given: this is {what}")
    elif isinstance(cluster, KubernetesCluster) and cluster.job == "RayCluster":
        lines.append(
            "job is RayCluster, which no sweep file stands in: sweeps are submitted to it when it is up"
        )
    if isinstance(cluster, KubernetesCluster):
        context = f" --context {shlex.quote(cluster.context)}" if cluster.context else ""
        lines.append(f"start it with: sweeps cluster show {cluster.name} ... | kubectl{context} create -f -")
    elif isinstance(cluster, CloudCluster):
        lines.append(
            f"start it with: sweeps cluster show {cluster.name} > {cluster.name}.yaml && ray up {cluster.name}.yaml"
        )
        lines.append(
            f"the token has to be in {cluster.token_file}: `ray get-auth-token --generate` writes one"
        )
    elif isinstance(cluster, SlurmCluster):
        needed = ["the sweep file", "token", *slurm.secrets(cluster)]
        lines.append(f"`sweeps submit FILE --on {cluster.name}` does all of it. By hand:")
        lines.append(
            f"beside the scripts there have to be: {', '.join(needed)} (token and URL with chmod 600)"
        )
    return lines


def as_yaml(documents: Sequence[dict[str, Any]]) -> str:
    return "---\n".join(dump(document) for document in documents)


def _slurm_text(cluster: SlurmCluster, sweep: SweepFile) -> str:
    cluster = slurm.placed(cluster)
    made = slurm.scripts(cluster, sweep)
    parts = [f"#### {name}\n{text}" for name, text in made.items()]
    calls = [f"head_job=$({shlex.join(slurm.submission(cluster))})"]
    if slurm.WORKER in made:
        workers = shlex.join(slurm.worker_submission("0")).replace("after:0", "after:$head_job")
        calls.append(f"{workers.replace('HEAD_JOB=0', 'HEAD_JOB=$head_job')} >worker-jobs")
    calls.append(shlex.join(slurm.release("0")).replace(" 0", " $head_job"))
    folder = f"{cluster.folder}/{sweep.name}"
    parts.append("\n".join([f"#### what is called, in the folder {folder}", *calls]) + "\n")
    return "\n".join(parts)


def _call_text(cluster: Cluster, sweep: SweepFile) -> str:
    variables = driver_environment(cluster) | {"SWEEPS_STORE": masked(cluster.store)}
    command = [
        *(f"{name}={shlex.quote(value)}" for name, value in variables.items()),
        run_command(sweep.file_name),
    ]
    if isinstance(cluster, RayCluster):
        token = (
            f"the token of {cluster.token_file}" if cluster.token_file else "no token (token_file names one)"
        )
        if cluster.token_variable:
            token = f"the token in ${cluster.token_variable}"
        lines = [f"# submitted to {masked(cluster.address)}, with {token}; runs on the head:"]
    else:
        workers = cluster.workers.max
        lines = [f"# on this machine, with Ray's nodes on it ({workers}):"]
    return "\n".join([*lines, *cluster.setup, " ".join(command)]) + "\n"
