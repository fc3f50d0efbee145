"""A worker that no node can hold is refused before anything waits."""

from __future__ import annotations

import pytest

from cluster.fields import NodeResources
from cluster.fitting import refuse_what_fits_nowhere
from cluster.remote import Submission
from sweeps.errors import UserError

NODES = [NodeResources(cpus=8, memory_gb=16.0), NodeResources(cpus=2, gpus=4, memory_gb=64.0)]


def wants(cpus: float, gpus: float = 0.0, memory_gb: float | None = None) -> Submission:
    return Submission("small", "", {}, cpus, gpus, memory_gb)


@pytest.mark.parametrize("fits", [wants(8), wants(2, 4, 64.0), wants(0.5, 0.25), wants(1, memory_gb=64.0)])
def test_what_one_node_has_is_taken(fits: Submission) -> None:
    refuse_what_fits_nowhere(fits, NODES, "node of 'lab'")


@pytest.mark.parametrize("short", [wants(9), wants(8, 1), wants(1, 5), wants(1, 0, 65.0), wants(8, 0, 17.0)])
def test_what_only_several_nodes_together_have_is_refused(short: Submission) -> None:
    with pytest.raises(
        UserError, match=r"no node of 'lab' has that: the largest have 8 CPUs, 4 GPUs and 64 GB"
    ):
        refuse_what_fits_nowhere(short, NODES, "node of 'lab'")


def test_a_node_whose_memory_nobody_wrote_down_has_enough_and_no_node_at_all_says_nothing() -> None:
    refuse_what_fits_nowhere(wants(1, memory_gb=999.0), [NodeResources(cpus=1)], "node")
    refuse_what_fits_nowhere(wants(999), [], "node")
