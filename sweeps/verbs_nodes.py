"""`sweeps cluster up`, `down` and `status`: Ray nodes on this machine, for trying and for tests."""

from __future__ import annotations

from typing import Annotated

import typer

from sweeps.terminal import console
from sweeps.verbs_cluster import cluster_app


@cluster_app.command()
def up(
    nodes: Annotated[
        int | None, typer.Option(min=1, max=64, help="how many nodes, the head among them")
    ] = None,
    cpus_per_node: Annotated[
        int | None, typer.Option(min=1, max=1024, help="CPUs that each node says it has")
    ] = None,
) -> None:
    """Start a local cluster, which `--on local` then means. Without options as clusters.yaml describes `local`."""
    from cluster.clusters_file import find_cluster
    from cluster.local_nodes import up as start

    described = find_cluster("local")
    found = start(nodes or described.workers.max, cpus_per_node or described.resources.cpus)
    console.print(
        f"{len(found.nodes)} nodes of {found.nodes[0]['cpus']} CPUs are up; job server {found.job_server}, "
        f"token in {found.token_file}. `sweeps submit FILE --on local`; `sweeps cluster down` ends them",
        highlight=False, soft_wrap=True,
    )  # fmt: skip


@cluster_app.command()
def down() -> None:
    """End the local cluster and all that runs on it; records stay."""
    from cluster.local_nodes import down as end

    console.print(f"{end()} nodes are down", highlight=False)


@cluster_app.command()
def status() -> None:
    """Whether the local cluster is up, and which of its nodes live. Exit status 1: it is not, or not whole."""
    from cluster.local_nodes import alive, current

    state = current()
    if state is None:
        console.print("no local cluster is up: `sweeps cluster up --nodes 3` starts one", highlight=False)
        raise typer.Exit(1)
    console.print(
        f"job server {state.job_server}, Ray at {state.ray_address}, token in {state.token_file}",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    live = [alive(node, state) for node in state.nodes]
    for node, lives in zip(state.nodes, live, strict=True):
        how = "alive" if lives else "dead"
        console.print(f"  node of {node['cpus']} CPUs, process {node['raylet']}: {how}", highlight=False)
    if not all(live):
        raise typer.Exit(1)
