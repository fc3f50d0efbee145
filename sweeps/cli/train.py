"""Verbs that train, measure, and serve."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sweeps.cli.app import Overrides, StoreOption, app, console, errors, existing, load_sweep, warned
from sweeps.errors import UserError
from sweeps.store.location import masked

if TYPE_CHECKING:
    from sweeps.config.sweep_file import Sweep


@app.command()
def run(
    file: str,
    overrides: Overrides = None,
    name: Annotated[str | None, typer.Option(help="run it under another name")] = None,
    store: StoreOption = "results",
    workers: Annotated[int | None, typer.Option(min=1, help="at most so many worker processes")] = None,
    mlflow: Annotated[
        bool, typer.Option(help="write MLflow's runs; `sweeps sync` can write them later")
    ] = True,
) -> None:
    """Run a sweep, or continue one that was cut off. FILE may also be the name of a sweep in the store."""
    from sweeps.results import as_markdown, report
    from sweeps.runner.run import run_sweep
    from sweeps.store import Store

    changed = [*(overrides or []), *([f"name={name}"] if name is not None else [])]
    sweep = _begun(file, changed, store) or load_sweep(file, changed)
    with Store(store) as opened:
        outcome = run_sweep(sweep, opened, store, console, workers, tracked=mlflow)
        found = report(opened, sweep.name)
        typer.echo("\n" + as_markdown(found))
    if outcome.state == "done":
        if any(one.rank == 1 for one in found.configurations):
            console.print(
                f"best configuration: sweeps export {sweep.name} -o best.yaml{_store_flag(store)}",
                highlight=False,
            )
        return
    errors.print(
        f"the sweep {outcome.state}: {outcome.why}. What is done stays; the same command continues.",
        highlight=False,
    )
    raise typer.Exit(1)


@app.command()
def reproduce(
    file: Path,
    fresh_seeds: Annotated[bool, typer.Option("--fresh-seeds", help="other seeds; compare rates")] = False,
    workers: Annotated[int | None, typer.Option(min=1)] = None,
) -> None:
    """Train an exported configuration again: PASS or FAIL."""
    from sweeps.runner.reproduce import reproduce as again

    if not again(file, console, fresh_seeds, workers):
        raise typer.Exit(1)


@app.command()
def sync(name: str, store: StoreOption = "results") -> None:
    """Write a sweep's MLflow runs anew from the records."""
    from sweeps.config.sweep_file import from_document
    from sweeps.runner.run import sync as write
    from sweeps.store import Store

    existing(store)
    with Store(store) as opened:
        row = opened.sweep(name)
        if row is None:
            raise UserError(f"no sweep named {name!r} in {opened.location}: `sweeps list` lists them")
        write(from_document(row.document, name), opened, store)


@app.command()
def ui(
    store: StoreOption = "results",
    host: str = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 5000,
) -> None:
    """Open MLflow's pages on what has been swept. Loopback only unless told otherwise."""
    from sweeps.tracking import default_uri, serve, stop

    existing(store)
    # The server is a session of its own: none is left behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    process = serve(default_uri(store), host, port)
    # Without the words after `?` MLflow opens its pages for language models.
    page = f"http://{host}:{port}/#/experiments?workflowType=machine_learning"
    console.print(f"MLflow: {page}   (Ctrl-C ends it)", highlight=False)
    try:
        while process.poll() is None:
            time.sleep(0.5)
    except KeyboardInterrupt:
        pass
    finally:
        stop(process)


@app.command()
def bench(
    lanes: Annotated[int, typer.Option(min=3)] = 100,
    units: Annotated[str | None, typer.Option(help="`all`, or names with commas: a table of these")] = None,
    model: Annotated[str | None, typer.Option(help="dngpu: its step against one of conv1d calls")] = None,
    driver: Annotated[
        bool, typer.Option("--driver", help="packs a second of the driver, with workers that only pretend")
    ] = False,
) -> None:
    """Measure the engine against a plain PyTorch loop."""
    from sweeps.bench.engine import bench as measure

    def tell(line: str) -> None:
        errors.print(line, highlight=False)

    if model is not None:
        from sweeps.bench.dngpu import bench_dngpu

        if model != "dngpu":
            raise UserError(f"--model is dngpu, but {model!r} is given; --units measures the others")
        typer.echo(bench_dngpu(tell=tell).line())
        return
    if driver:
        from sweeps.bench.driver import bench_driver

        for tracked in (False, True):
            result = bench_driver(tracked=tracked, tell=tell)
            typer.echo(f"{'with' if tracked else 'without'} MLflow: {result.line()}")
        return
    if units is not None:
        from sweeps.bench.units import HEADER, bench_units, static_units

        typer.echo(HEADER)
        for row in bench_units(static_units() if units == "all" else units.split(","), lanes):
            typer.echo(row.line())
        return
    typer.echo(measure(lanes, tell=tell).line())


def _begun(name: str, overrides: list[str], store: str) -> Sweep | None:
    """The sweep of that name in the store, unless there is a file of that name, or a definition that is to be changed."""
    from sweeps.config.sweep_file import definitions, parse
    from sweeps.store import Store
    from sweeps.store.database import FILE_NAME

    if Path(name).is_file() or (overrides and name in definitions()):
        return None
    if "://" not in store and not (Path(store) / FILE_NAME).is_file():
        return None
    with Store(store) as opened:
        row = opened.sweep(name)
    if row is None:
        return None
    console.print(f"{name} goes on as it was begun in {masked(store)}", highlight=False)
    changed = overrides if "name" in row.document else [f"name={name}", *overrides]
    sweep = parse(row.definition, name, changed)
    return warned(replace(sweep, text=row.definition) if sweep.document == row.document else sweep)


def _store_flag(store: str) -> str:
    return (
        "" if store == "results" or os.environ.get("SWEEPS_STORE") == store else f" --store {masked(store)}"
    )
