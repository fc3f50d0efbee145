"""Verbs for sweeps on a cluster: one handle, the sweep's name, wherever it runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer
from rich.live import Live

from sweeps.terminal import Overrides, StoreOption, app, console, errors, load_sweep

On = Annotated[str, typer.Option("--on", metavar="CLUSTER", help="a cluster's name in clusters.yaml")]


@app.command()
def submit(
    file: str,
    on: On,
    overrides: Overrides = None,
    name: Annotated[str | None, typer.Option(help="run it under another name")] = None,
) -> None:
    """Run a sweep on a cluster. Submitting the same again is the same job; a stopped or failed one goes on."""
    from cluster.remote import Submission, remote

    sweep = load_sweep(file, [*(overrides or []), *([f"name={name}"] if name is not None else [])])
    needs = sweep.resources
    done = remote(on).submit(
        Submission(sweep.name, sweep.text, sweep.document, needs.cpus, needs.gpus, needs.memory_gb)
    )
    again = f", attempt {done.attempt}" if done.attempt > 1 else ""
    if done.fresh:
        told = f"{sweep.name} is submitted to {on} as job {done.job}{again}"
    elif done.state == "done":
        told = f"{sweep.name} is done on {on} (job {done.job}): nothing to submit"
    else:
        told = f"{sweep.name} is {done.state} on {on} already (job {done.job}{again}): nothing to submit"
    verb = "fetch" if done.state == "done" else "watch"
    console.print(f"{told}. Next: sweeps {verb} {sweep.name} --on {on}", highlight=False, soft_wrap=True)


@app.command()
def watch(name: str, on: On) -> None:
    """Follow a sweep on a cluster to its end, as if it ran here. Exit status 0: done, 1: stopped or failed."""
    from cluster.remote import remote

    cluster = remote(on)
    lines = cluster.lines(name, True, _tell)
    if console.is_terminal:
        _on_screen(lines)
    else:
        _in_lines(lines)
    _end(name, on)


@app.command()
def logs(
    name: str,
    on: On,
    follow: Annotated[bool, typer.Option(help="to its end, or what there is now")] = True,
) -> None:
    """Print what a sweep on a cluster says, to its end."""
    from cluster.remote import remote

    _in_lines(remote(on).lines(name, follow, _tell))


@app.command()
def stop(name: str, on: On) -> None:
    """Stop a sweep on a cluster in order: checkpoints are kept, and `sweeps submit` goes on from them."""
    from cluster.remote import remote

    found = remote(on).stop(name)
    console.print(f"{name} on {on}: {found.state} (job {found.job}). What is done stays", highlight=False)


@app.command()
def fetch(name: str, on: On, store: StoreOption = "results") -> None:
    """Bring a sweep's records from a cluster into the store here, also while it runs; then report and ui work."""
    from cluster.remote import remote
    from sweeps.running import sync
    from sweeps.spec import SpecError, from_document
    from sweeps.store import Store

    cluster = remote(on)
    with Store(store) as opened, opened.hold(name, counted=False):
        fresh = cluster.fetch(name, opened)
        row = opened.sweep(name)
        assert row is not None
        try:
            sync(from_document(row.document, name), opened, store)
        except SpecError as error:  # such as a unit of the user's own that is not here
            errors.print(f"note: MLflow is not written: {error}", highlight=False, soft_wrap=True)
    console.print(
        f"{name}: {fresh} new records in {opened.location}. `sweeps report {name}` shows it", highlight=False
    )


def remote_status(name: str, on: str) -> None:
    """`sweeps status NAME --on CLUSTER`."""
    from cluster.remote import remote

    found = remote(on).state(name)
    again = f", attempt {found.attempt}" if found.attempt > 1 else ""
    console.print(
        f"{name} on {on}: {found.state} (job {found.job}{again}, since {found.since})", highlight=False
    )
    for line in found.progress:
        console.print(line, highlight=False, soft_wrap=True)
    if found.message:
        console.print(found.message, highlight=False, soft_wrap=True)


def _in_lines(lines: Iterator[str]) -> None:
    from sweeps.progress_lines import plain

    for line in plain(lines):
        typer.echo(line)


def _on_screen(lines: Iterator[str]) -> None:
    """The last block of progress on a quiet screen, everything else above it."""
    from sweeps.progress_lines import MARK, is_first

    block: list[str] = []
    with Live(console=console, auto_refresh=False, transient=True) as live:
        for line in lines:
            if not line.startswith(MARK):
                console.print(line, highlight=False, soft_wrap=True)
                continue
            block = [line] if is_first(line) else [*block, line]
            live.update("\n".join(part.removeprefix(MARK) for part in block), refresh=True)


def _end(name: str, on: str) -> None:
    from cluster.remote import remote

    found = remote(on).state(name)
    if found.state == "done":
        console.print(f"{name} is done on {on}. Next: sweeps fetch {name} --on {on}", highlight=False)
        return
    errors.print(
        f"{name} on {on}: {found.state}. What is done stays; `sweeps submit` again continues.",
        highlight=False,
    )
    raise typer.Exit(1)


def _tell(words: str) -> None:
    errors.print(f"note: {words}", highlight=False)
