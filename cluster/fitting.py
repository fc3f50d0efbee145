"""Whether one worker of a sweep fits on a node at all: a job that never can must not wait in a queue for ever."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.fields import NodeResources
from cluster.remote import Submission
from sweeps.errors import UserError


def refuse_what_fits_nowhere(submission: Submission, nodes: Sequence[NodeResources], where: str) -> None:
    """Raises UserError where no node has what one worker needs. A node without `memory_gb` has enough of it."""
    if not nodes or any(_fits(submission, node) for node in nodes):
        return
    sizes = [node.memory_gb for node in nodes if node.memory_gb is not None]
    memory = f" and {max(sizes):.3g} GB" if sizes else ""
    raise UserError(
        f"one worker needs {submission.cpus:g} CPUs, {submission.gpus:g} GPUs"
        + (f" and {submission.memory_gb:g} GB" if submission.memory_gb else "")
        + f", and no {where} has that: the largest have {max(node.cpus for node in nodes):g} CPUs, "
        f"{max(node.gpus for node in nodes):g} GPUs{memory}. Make the sweep's `resources` smaller, or the nodes larger"
    )


def _fits(submission: Submission, node: NodeResources) -> bool:
    memory_gb = float("inf") if node.memory_gb is None else node.memory_gb
    return (
        submission.cpus <= node.cpus
        and submission.gpus <= node.gpus
        and (submission.memory_gb or 0) <= memory_gb
    )
