"""Verbs about what there is to sweep: files, models and tasks. Nothing is trained."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sweeps.terminal import StoreOption, app, console, existing, load_sweep

if TYPE_CHECKING:
    pass


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
    file, sweep = what, load_sweep(what, rest)
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
        text = describing.about_file(load_sweep(what, [name] if name else None))
    typer.echo(text)


class Listed(StrEnum):
    sweeps = "sweeps"
    definitions = "definitions"
    models = "models"
    tasks = "tasks"
    clusters = "clusters"


@app.command("list")
def list_(
    what: Annotated[Listed, typer.Argument()] = Listed.sweeps,
    store: StoreOption = "results",
    names: Annotated[bool, typer.Option("--names", help="names only")] = False,
) -> None:
    """List the store's sweeps, or the definitions, models, tasks or clusters that exist."""
    from sweeps import describing
    from sweeps.store import Store

    if what is Listed.sweeps:
        existing(store)
        with Store(store) as opened:
            rows = describing.sweep_listing(opened)
    elif what is Listed.definitions:
        rows = describing.definition_listing()
    elif what is Listed.clusters:
        rows = describing.cluster_listing()
    else:
        rows = describing.listing("model" if what is Listed.models else "task")
    width = max((len(row[0]) for row in rows), default=0)
    for row in rows:
        typer.echo(row[0] if names else f"{row[0]:{width}}  {row[1]}")


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
