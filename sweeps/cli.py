"""The `sweeps` command. Thin: every verb hands over to the module that does it.

Exit status: 0 done, 1 the sweep failed or was stopped, 2 the request was wrong and nothing was started.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from sweeps.spec import Sweep

# markup off: a label such as `NMU [no clamp]` is text
console = Console(width=None if sys.stdout.isatty() else 160, markup=False)
errors = Console(stderr=True, width=None if sys.stderr.isatty() else 160, markup=False)
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Hyperparameter sweeps over many seeds, for models that learn arithmetic and algorithms.",
)

StoreOption = Annotated[
    str,
    typer.Option(
        "--store", envvar="SWEEPS_STORE", help="folder (or postgresql:// URL) that keeps the records"
    ),
]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="settings that replace the file's")
]


class Format(StrEnum):
    md = "md"
    json = "json"
    csv = "csv"


class Listed(StrEnum):
    sweeps = "sweeps"
    definitions = "definitions"
    models = "models"
    tasks = "tasks"


@app.command()
def init(file: Annotated[Path, typer.Argument()] = Path("sweep.yaml")) -> None:
    """Write a commented sweep file to start from."""
    from sweeps.shelf import SHELF

    if file.exists():
        raise ValueError(f"{file} exists and is not overwritten: name another file")
    text = (SHELF / "quickstart.yaml").read_text(encoding="utf-8")
    file.write_text(
        text.replace("name: quickstart", f"name: {file.stem}").replace("run quickstart  ", f"run {file}")
    )
    console.print(
        f"wrote {file}: edit it, then `sweeps check {file}` and `sweeps run {file}`", highlight=False
    )


class New(StrEnum):
    model = "model"
    task = "task"


@app.command()
def new(
    what: New,
    name: Annotated[str, typer.Argument(help="its name, and that of its file")],
    folder: Annotated[Path, typer.Argument(help="where to write it")] = Path(),
) -> None:
    """Write a model or a task of your own to start from."""
    from sweeps.starting import write

    path = write(what.value, name, folder)
    given = path if path.is_absolute() else f"./{path}"
    console.print(f"wrote {given}. Edit it, then:", highlight=False)
    swept = f"model={given}" if what is New.model else f"task={given} model=nmu"
    for line in (f"sweeps check {what.value} {given}", f"sweeps show {what.value} {given}",
                 f"sweeps run nau-addition {swept} seeds=20 --name {path.stem}"):  # fmt: skip
        console.print(f"  {line}", highlight=False)


@app.command()
def check(
    what: Annotated[str, typer.Argument(metavar="FILE|model|task", help="FILE, or `model`, or `task`")],
    rest: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...|NAME", help="settings that replace the file's; or which model or task"
        ),
    ] = None,
    compiled: Annotated[
        bool, typer.Option("--compiled", help="compile a model or task too (slower)")
    ] = False,
) -> None:
    """Check a sweep file, or a model or a task against every rule: all faults at once."""
    if what in ("model", "task"):
        _check_definition(what, rest or [], compiled)
        return
    if compiled:
        raise ValueError("--compiled is for models and tasks: `sweeps check model NAME --compiled`")
    file, sweep = what, _load(what, rest)
    lanes = sum(sweep.configurations(cell) for cell in sweep.cells) * len(sweep.seeds)
    console.print(f"{file} is sound: {len(sweep.cells)} cells, {lanes} lanes", highlight=False)


@app.command()
def show(
    what: Annotated[str, typer.Argument(help="FILE, or `model`, or `task`")],
    name: Annotated[str | None, typer.Argument(help="name of the model or task")] = None,
) -> None:
    """Print a sweep file with defaults filled in, or what a model or task is."""
    from sweeps import describing

    if what in ("model", "task"):
        if name is None:
            raise ValueError(f"`sweeps show {what} NAME`: which? `sweeps list {what}s` lists them")
        text = describing.about_model(name) if what == "model" else describing.about_task(name)
    else:
        text = describing.about_file(_load(what, [name] if name else None))
    typer.echo(text)


@app.command()
def run(
    file: str,
    overrides: Overrides = None,
    name: Annotated[str | None, typer.Option(help="run it under another name")] = None,
    store: StoreOption = "results",
    workers: Annotated[int | None, typer.Option(min=1, help="at most so many worker processes")] = None,
) -> None:
    """Run a sweep, or continue one that was cut off. FILE may also be the name of a sweep in the store."""
    from sweeps.report import as_markdown, report
    from sweeps.running import run_sweep
    from sweeps.store import Store

    changed = [*(overrides or []), *([f"name={name}"] if name else [])]
    sweep = _begun(file, changed, store) or _load(file, changed)
    with Store(store) as opened:
        outcome = run_sweep(sweep, opened, store, console, workers)
        found = report(opened, sweep.name)
        typer.echo("\n" + as_markdown(found))
    if outcome.state == "done":
        if any(entry["rank"] == 1 for entry in found["configurations"]):
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


@app.command("list")
def list_(
    what: Annotated[Listed, typer.Argument()] = Listed.sweeps,
    store: StoreOption = "results",
    names: Annotated[bool, typer.Option("--names", help="names only")] = False,
) -> None:
    """List the store's sweeps, or the definitions, models or tasks that exist."""
    from sweeps import describing
    from sweeps.store import Store

    if what is Listed.sweeps:
        _existing(store)
        with Store(store) as opened:
            rows = describing.sweep_listing(opened)
    elif what is Listed.definitions:
        rows = describing.definition_listing()
    else:
        rows = describing.listing("model" if what is Listed.models else "task")
    width = max((len(row[0]) for row in rows), default=0)
    for row in rows:
        typer.echo(row[0] if names else f"{row[0]:{width}}  {row[1]}")


@app.command()
def status(name: str, store: StoreOption = "results") -> None:
    """How far a sweep is, and what came out so far."""
    from sweeps.describing import state_of
    from sweeps.report import as_markdown, report
    from sweeps.store import Store

    _existing(store)
    with Store(store) as opened:
        text = as_markdown(report(opened, name))
        holder = opened.holder(name)
        typer.echo(
            f"{name}: {state_of(opened, name)}"
            + (
                f" (driver: process {holder.pid} on {holder.host}, since {holder.since})"
                if holder and holder.alive
                else ""
            )
            + "\n"
        )
        typer.echo(text)


@app.command("report")
def report_(
    names: Annotated[list[str], typer.Argument(metavar="NAME...")],
    format: Annotated[Format, typer.Option("--format", help="md, json or csv")] = Format.md,
    timing: Annotated[bool, typer.Option(help="with wall times")] = True,
    store: StoreOption = "results",
) -> None:
    """Print the results of sweeps."""
    from sweeps.report import as_csv, as_json, as_markdown, report
    from sweeps.store import Store

    _existing(store)
    with Store(store) as opened:
        found = [report(opened, name) for name in names]
    if format is not Format.md and len(found) > 1:
        raise ValueError(
            f"--format {format} is of one sweep, but {len(found)} are named: ask for one after another"
        )
    for one in found:
        if format is Format.csv:
            typer.echo(as_csv(one), nl=False)
        else:
            typer.echo((as_json if format is Format.json else as_markdown)(one, timing=timing))


@app.command("thresholds")
def thresholds_(name: str, store: StoreOption = "results") -> None:
    """Print the thresholds that a reference sweep gives, one for each test split."""
    from sweeps.report import report
    from sweeps.store import Store
    from sweeps.thresholds import thresholds

    _existing(store)
    with Store(store) as opened:
        found = thresholds(report(opened, name))
    for split, value in found.items():
        typer.echo(f"{split}: {value:.6g}")
    lengths = sorted(
        (s for s in found if s.startswith("length_")), key=lambda s: int(s.removeprefix("length_"))
    )
    typer.echo(
        f"thresholds: [{', '.join(f'{found[s]:.6g}' for s in [*lengths, 'extrapolation'] if s in found)}]"
    )


@app.command()
def export(
    name: str,
    cell: Annotated[str | None, typer.Option(help="best of this cell only")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="file to write")] = None,
    store: StoreOption = "results",
) -> None:
    """Write the best configuration as a sweep file that runs again."""
    from sweeps.export import best
    from sweeps.store import Store

    _existing(store)
    with Store(store) as opened:
        text = best(opened, name, cell)
    if output is None:
        typer.echo(text)
        return
    output.write_text(text, encoding="utf-8")
    console.print(f"wrote {output}: `sweeps reproduce {output}` trains it again", highlight=False)


@app.command()
def reproduce(
    file: Path,
    fresh_seeds: Annotated[bool, typer.Option("--fresh-seeds", help="other seeds; compare rates")] = False,
    workers: Annotated[int | None, typer.Option(min=1)] = None,
) -> None:
    """Train an exported configuration again: PASS or FAIL."""
    from sweeps.reproducing import reproduce as again

    if not again(file, console, fresh_seeds, workers):
        raise typer.Exit(1)


@app.command()
def sync(name: str, store: StoreOption = "results") -> None:
    """Write a sweep's MLflow runs anew from the records."""
    from sweeps.running import sync as write
    from sweeps.spec import from_document
    from sweeps.store import Store

    _existing(store)
    with Store(store) as opened:
        row = opened.sweep(name)
        if row is None:
            raise ValueError(f"no sweep named {name!r} in {store}: `sweeps list` lists them")
        write(from_document(row.document, name), opened, store)


@app.command()
def ui(
    store: StoreOption = "results",
    host: str = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 5000,
) -> None:
    """Open MLflow's pages on what has been swept. Loopback only unless told otherwise."""
    from sweeps.tracking import default_uri, serve, stop

    _existing(store)
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
) -> None:
    """Measure the engine against a plain PyTorch loop."""
    from sweeps.bench import bench as measure
    from sweeps.bench_units import HEADER, bench_units, static_units

    if units is not None:
        typer.echo(HEADER)
        for row in bench_units(static_units() if units == "all" else units.split(","), lanes):
            typer.echo(row.line())
        return
    typer.echo(measure(lanes, tell=lambda line: errors.print(line, highlight=False)).line())


def _check_definition(kind: str, names: list[str], compiled: bool) -> None:
    from sweeps.checking import check_model, check_task

    if len(names) != 1:
        raise ValueError(
            f"`sweeps check {kind} NAME`: which one? `sweeps list {kind}s` lists them, ./my.py is yours"
        )
    report = (check_model if kind == "model" else check_task)(names[0], compiled)
    typer.echo(report.text())
    if not report.sound:
        raise typer.Exit(2)


def _load(file: str, overrides: list[str] | None) -> Sweep:
    from sweeps.shelf import find_file
    from sweeps.spec import load

    return _warned(load(find_file(file), overrides or []))


def _begun(name: str, overrides: list[str], store: str) -> Sweep | None:
    """The sweep of that name in the store, unless there is a file of that name, or a definition that is to be changed."""
    from sweeps.shelf import definitions
    from sweeps.spec import parse
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
    console.print(f"{name} goes on as it was begun in {store}", highlight=False)
    changed = overrides if "name" in row.document else [f"name={name}", *overrides]
    sweep = parse(row.definition, name, changed)
    return _warned(replace(sweep, text=row.definition) if sweep.document == row.document else sweep)


def _warned(sweep: Sweep) -> Sweep:
    for warning in sweep.warnings:
        errors.print(f"warning: {warning}", highlight=False, soft_wrap=True)
    return sweep


def _existing(store: str) -> None:
    """Reading verbs make no store."""
    if "://" not in store and not Path(store).is_dir():
        raise ValueError(
            f"there is no store {store!r} here: `sweeps run` makes one; --store or SWEEPS_STORE names another"
        )


def _store_flag(store: str) -> str:
    return "" if store == "results" or os.environ.get("SWEEPS_STORE") == store else f" --store {store}"


def main() -> None:
    """Runs the command; a user's mistake is told without a traceback."""
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    from sweeps.faults import SpecError

    try:
        app(prog_name="sweeps")
    except (SpecError, ValueError, OSError) as error:
        errors.print(str(error), highlight=False, soft_wrap=True)
        sys.exit(2)
    except RuntimeError as error:
        if type(error).__name__ not in ("ClusterError", "TrackingError"):
            raise
        errors.print(str(error), highlight=False, soft_wrap=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
