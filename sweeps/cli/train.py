"""Verbs that train: run, reproduce, bench."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from sweeps.cli.app import (
    Overrides,
    StoreOption,
    app,
    console,
    echo,
    errors,
    load_sweep,
    require_store,
    warn,
    with_warnings,
    writing,
)
from sweeps.cli.output import outlive
from sweeps.errors import StoreError, SweepsError, UserError, after_start
from sweeps.results.numbers import counted
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
    mlflow: Annotated[bool, typer.Option(help="write MLflow's runs; `sweeps sync` can write them later")] = True,
    numerics: Annotated[
        str | None, typer.Option(help="of a new sweep: compiled or plain, and a kind of device, as in cpu-x86-64-v3,plain")
    ] = None,
    on_end: Annotated[
        str | None,
        typer.Option(metavar="COMMAND_OR_URL", help="called with JSON when the sweep ends (also: SWEEPS_ON_END)"),
    ] = None,
) -> None:
    """Run a sweep, or continue one that was cut off. FILE may also be the name of a sweep in the store."""
    from sweeps.results import as_markdown, report
    from sweeps.results.export import exported_of
    from sweeps.runner import on_end as hook
    from sweeps.runner.run import run_sweep
    from sweeps.store import HeldByAnother, Store

    outlive()
    called = hook.parse(on_end, warn)
    changed = [*(overrides or []), *([f"name={name}"] if name is not None else [])]
    sweep = _stored_sweep(file, changed, store) or _load(file, changed, store)
    with Store(store) as opened:

        def ended(state: str, reason: str | None) -> None:
            if called is not None:
                called.call(hook.event(opened, sweep.name, state, reason, _store_flag(store)), warn)

        try:
            outcome = run_sweep(sweep, opened, store, console, workers, tracked=mlflow, numerics=numerics)
        except Exception as error:
            # A UserError or StoreError here is a request that was refused before the start; see `after_start`.
            if not isinstance(error, UserError | StoreError) and not isinstance(error.__cause__ or error, HeldByAnother):
                ended("failed", _text(error))
            raise
        try:
            with after_start():
                found = report(opened, sweep.name)
            if outcome.state == "done" or any(one.results for one in found.configurations):
                echo("\n" + as_markdown(found))
            else:
                echo("\nno seed has ended, so there is nothing to report")
        except BaseException as error:  # Ctrl-C too: the sweep has ended
            ended(outcome.state, "; ".join(filter(None, (outcome.reason, f"the report failed: {_text(error)}"))))
            raise
        ended(outcome.state, outcome.reason)
    if outcome.state == "done":
        if any(one.rank == 1 for one in found.configurations):
            console.print(
                f"{exported_of(found).rstrip(',')}: sweeps export {sweep.name} -o best.yaml{_store_flag(store)}",
                highlight=False,
            )
        return
    errors.print(
        f"the sweep {outcome.state}: {outcome.reason}. What is done stays; {outcome.how_to_continue}.",
        highlight=False,
        soft_wrap=True,
    )
    raise typer.Exit(1)


@app.command("reproduce")
def reproduce_(
    file: Path,
    fresh_seeds: Annotated[bool, typer.Option("--fresh-seeds", help="other seeds; compare rates")] = False,
    workers: Annotated[int | None, typer.Option(min=1)] = None,
    trust_code: Annotated[
        bool, typer.Option("--trust-code", help="execute the code of own units that FILE has in itself")
    ] = False,
) -> None:
    """Train an exported configuration again: PASS or FAIL."""
    from sweeps.runner.reproduce import reproduce

    outlive()
    if not reproduce(file, console, fresh_seeds, workers, trust_code):
        raise typer.Exit(1)


@app.command("bench")
def bench_(
    lanes: Annotated[str, typer.Option(help="numbers of lanes, with commas")] = "1,10,100,1000,10000",
    device: Annotated[str, typer.Option(help="cpu (one core), or cuda")] = "cpu",
    threads: Annotated[int | None, typer.Option(min=2, help="a pack on so many threads against one on one thread")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="all rounds as JSON")] = False,
    units: Annotated[str | None, typer.Option(help="`all`, or names with commas: a table of these")] = None,
    model: Annotated[str | None, typer.Option(help="dngpu: its step against one of conv1d calls")] = None,
    mlflow: Annotated[bool, typer.Option("--mlflow", help="lanes a second into MLflow: SQLite, PostgreSQL, a server")] = False,
    driver: Annotated[bool, typer.Option("--driver", help="packs a second of the driver, with simulated workers")] = False,
    coverage: Annotated[
        bool, typer.Option("--coverage", help="how often confidence intervals contain the truth, by simulation")
    ] = False,
    search: Annotated[bool, typer.Option("--search", help="search and early stopping, on recorded sweeps")] = False,
    recording: Annotated[
        list[Path] | None, typer.Option(help="of --search: a recorded sweep; default: all shipped ones")
    ] = None,
    repeats: Annotated[int, typer.Option(min=2, help="of --search: searches in other orders")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="of --search and --coverage: of their random numbers")] = 0,
    stop: Annotated[str, typer.Option(help="of --search: when a lane ends, as train.stop: never, or solved")] = "never",
    record: Annotated[str | None, typer.Option(metavar="SWEEP", help="write a sweep of the store as a recording")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="the recording, or the figure of --search")] = None,
    store: StoreOption = "results",
) -> None:
    """Measure the engine against a plain PyTorch loop, JAX where it is installed, and the machine's limit.

    Other options measure other parts, as the driver, or search and early stopping.
    """
    from sweeps.bench.engine import bench, bench_threads

    def on_progress(line: str) -> None:
        errors.print(line, highlight=False)

    others = {
        "--threads": threads, "--units": units, "--model": model, "--driver": driver or None, "--search": search or None,
        "--record": record, "--coverage": coverage or None, "--mlflow": mlflow or None,
    }  # fmt: skip
    given = [option for option, value in others.items() if value is not None]
    if len(given) > 1 or (given and device != "cpu"):
        given += ["--device"] if device != "cpu" else []
        raise UserError(f"{' and '.join(given)} are different measurements: give one of them, on a processor")
    if record is not None:
        _record(store, record, output)
        return
    if coverage:
        from sweeps.bench.coverage import bench_coverage

        simulated = bench_coverage(seed=seed, on_progress=on_progress)
        echo(json.dumps(simulated.as_json()) if as_json else simulated.table())
        return
    if search:
        _bench_search(recording or [], repeats, seed, stop, output, as_json, on_progress)
        return
    if model is not None:
        from sweeps.bench.dngpu import bench_dngpu

        if model != "dngpu":
            raise UserError(f"--model is dngpu, but {model!r} is given; --units measures the others")
        echo(bench_dngpu(on_progress=on_progress).line())
        return
    if driver:
        from sweeps.bench.driver import bench_driver

        for tracked in (False, True):
            result = bench_driver(tracked=tracked, on_progress=on_progress)
            echo(f"{'with' if tracked else 'without'} MLflow: {result.line()}")
        return
    if mlflow:
        from sweeps.bench.tracking import bench_tracking

        for found in bench_tracking():
            echo(found if isinstance(found, str) else found.line())
        return
    if units is not None:
        from sweeps.bench.units import HEADER, bench_units, static_units

        echo(HEADER)
        for row in bench_units(static_units() if units == "all" else units.split(",")):
            echo(row.line())
        return
    if threads is not None:
        ratios = sorted(bench_threads(threads))
        median = ratios[len(ratios) // 2]
        spread = f"median of {len(ratios)} rounds, {ratios[0]:.2f} to {ratios[-1]:.2f}"
        echo(f"{threads} threads: {median:.2f} times as fast as one ({spread})")
        return
    measured = bench(_counts(lanes), on_progress=on_progress, device=device)
    echo(json.dumps(measured.as_json()) if as_json else measured.table())


def _record(store: str, name: str, output: Path | None) -> None:
    """Write the recording of a sweep."""
    from sweeps.bench.recording import recorded
    from sweeps.store import Store

    if output is None:
        raise UserError("--record needs a file to write: -o FILE.npz")
    require_store(store)
    with Store(store, read_only=True) as opened:
        found = recorded(opened, name)
    with writing(output) as file:
        found.save(file)
    size = output.stat().st_size / 1e6
    echo(f"{output}: {counted(len(found.parameters), 'configuration')} of {counted(len(found.seeds), 'seed')}, {size:.1f} MB")


def _bench_search(
    files: list[Path],
    repeats: int,
    seed: int,
    stop: str,
    figure: Path | None,
    as_json: bool,
    on_progress: Callable[[str], None],
) -> None:
    """Print the strategies on each recording, and draw them."""
    from sweeps.bench.recording import FOLDER, Recording, Stop
    from sweeps.bench.search import bench_search, draw
    from sweeps.results.figures import write

    if stop not in get_args(Stop):
        raise UserError(f"--stop is {' or '.join(get_args(Stop))}, but {stop!r} is given")
    recordings = [Recording.load(file) for file in files or sorted(FOLDER.glob("*.npz"))]
    benches = [bench_search(one, repeats, seed, cast(Stop, stop), on_progress=on_progress) for one in recordings]
    echo(json.dumps([one.as_json() for one in benches]) if as_json else "\n\n".join(one.table() for one in benches))
    if figure is not None:
        with writing(figure) as file:
            write(draw(benches), file)


def _counts(text: str) -> list[int]:
    """Numbers of lanes, at least 1 each. Raises UserError."""
    words = text.split(",")
    if not all(word.strip().isdecimal() and int(word) > 0 for word in words):
        raise UserError(f"--lanes takes whole numbers of at least 1 with commas, such as 1,100,1000, but got {text!r}")
    return [int(word) for word in words]


def _stored_sweep(name: str, overrides: list[str], store: str) -> Sweep | None:
    """Return the sweep of that name in the store, and print that it continues; see `stored_sweep`."""
    from sweeps.runner.run import stored_sweep

    sweep = stored_sweep(name, overrides, store)
    if sweep is None:
        return None
    if sweep.name == name:
        console.print(f"{name} continues as it was begun in {masked(store)}", highlight=False)
    else:
        console.print(
            f"{sweep.name} is another sweep, of the file of {name} in {masked(store)}, whose lanes it has in common. To change "
            f"the name of {name} there is `sweeps rename {name} NEW`", highlight=False, soft_wrap=True,
        )  # fmt: skip
    return with_warnings(sweep)


def _load(file: str, overrides: list[str], store: str) -> Sweep:
    """Load a sweep file or a definition. Raises NoSuchFile, also with the nearest sweep of the store."""
    from sweeps.config.registry import nearest
    from sweeps.config.sweep_file import NoSuchFile
    from sweeps.store import Store
    from sweeps.store.database import exists

    try:
        return load_sweep(file, overrides)
    except NoSuchFile as error:
        if not exists(store):
            raise
        with Store(store, read_only=True) as opened:
            near = nearest(file, [row.name for row in opened.sweeps()])
        raise NoSuchFile(f"{error} The store has a sweep {near!r}: `sweeps run {near}`." if near else str(error)) from None


def _text(error: BaseException) -> str:
    """Return an error in words, for `--on-end`."""
    return str(error) if isinstance(error, SweepsError) else masked(f"{type(error).__name__}: {error}".removesuffix(": "))


def _store_flag(store: str) -> str:
    """Return the option that a further command needs to find the store, if any."""
    default = store == "results" or os.environ.get("SWEEPS_STORE") == store
    return "" if default else f" --store {shlex.quote(masked(store))}"
