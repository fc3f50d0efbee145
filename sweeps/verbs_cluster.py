"""Verbs about clusters: what would be started where. Nothing is started here."""

from __future__ import annotations

from typing import Annotated

import typer

from sweeps.terminal import app, errors, load_sweep

cluster_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Clusters, as clusters.yaml describes them."
)
app.add_typer(cluster_app, name="cluster")


@cluster_app.command("show")
def show_cluster(
    name: Annotated[
        str, typer.Argument(help="of a cluster in clusters.yaml; `sweeps list clusters` lists them")
    ],
    sweep: Annotated[
        str | None, typer.Option("--sweep", metavar="FILE", help="the sweep file that would travel there")
    ] = None,
) -> None:
    """Print a cluster's finished text (manifest, batch scripts, launcher file); nothing is started."""
    from cluster.clusters_file import find_cluster
    from cluster.shipping import travelling
    from cluster.showing import advice, finished_text

    found = find_cluster(name)
    loaded = load_sweep(sweep, None) if sweep else None
    sent = travelling(loaded.name, loaded.text, loaded.document) if loaded else None
    typer.echo(finished_text(found, sent), nl=False)
    for line in advice(found, sent):
        errors.print(line, highlight=False, soft_wrap=True)
