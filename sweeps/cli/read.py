"""Verbs that read the results of sweeps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sweeps.cli.app import OnOption, StoreOption, app, console, echo, errors, require_different, require_store, writing
from sweeps.errors import UserError


@app.command()
def status(name: str, store: StoreOption = "results", on: OnOption = None) -> None:
    """Show how far a sweep is, and its results so far; with --on, its state on that cluster."""
    if on is not None:
        from sweeps.cli.remote import remote_status

        remote_status(name, on)
        return
    from sweeps.cli.define import state_of
    from sweeps.results import as_markdown, report
    from sweeps.store import Store

    require_store(store)
    with Store(store, read_only=True) as opened:
        text = as_markdown(report(opened, name))
        holder = opened.holder(name)
        echo(
            f"{name}: {state_of(opened, name)}"
            + (f" (driver: process {holder.pid} on {holder.host}, since {holder.since})" if holder and holder.alive else "")
            + "\n"
        )
        echo(text)


def _format(name: str) -> str:
    from sweeps.results import FORMATS

    if name not in FORMATS:
        raise typer.BadParameter(f"{name!r} is not one of {', '.join(map(repr, FORMATS))}.")
    return name


@app.command("report")
def report_(
    names: Annotated[list[str], typer.Argument(metavar="NAME...")],
    format: Annotated[
        str,
        typer.Option("--format", parser=_format, metavar="FORMAT", help="md for people; json or csv for programs"),
    ] = "md",
    timing: Annotated[bool, typer.Option(help="with wall times")] = True,
    store: StoreOption = "results",
) -> None:
    """Print the results of sweeps: of several, json is a list of reports, and csv one table with a column `sweep`."""
    from sweeps.results import FORMATS, report
    from sweeps.store import Store

    require_different(names)
    require_store(store)
    with Store(store, read_only=True) as opened:
        found = [report(opened, name) for name in names]
    chosen = FORMATS[format]
    if len(found) > 1 and chosen.several is not None:
        echo(chosen.several(found, timing), nl=chosen.empty_line)
        return
    for one in found:
        echo(chosen.render(one, timing), nl=chosen.empty_line)


@app.command("thresholds")
def thresholds_(name: str, store: StoreOption = "results") -> None:
    """Print the thresholds of a reference sweep, one for each test split."""
    from sweeps.results import report
    from sweeps.results.thresholds import thresholds
    from sweeps.store import Store

    require_store(store)
    with Store(store, read_only=True) as opened:
        found = thresholds(report(opened, name))
    for split, value in found.items():
        echo(f"{split}: {value:.6g}")
    lengths = sorted((s for s in found if s.startswith("length_")), key=lambda s: int(s.removeprefix("length_")))
    echo(f"thresholds: [{', '.join(f'{found[s]:.6g}' for s in [*lengths, 'extrapolation'] if s in found)}]")


@app.command("figure")
def figure_(
    names: Annotated[list[str], typer.Argument(metavar="NAME...")],
    x: Annotated[str, typer.Option(help="step, length, an axis of the sweep, or a setting such as train.lr")] = "step",
    y: Annotated[str, typer.Option(help="what to draw, with commas: a panel each; else what fits x")] = "",
    by: Annotated[str, typer.Option(help="axes that colours distinguish, with commas; else all but x")] = "",
    output: Annotated[Path, typer.Option("-o", "--output", help="file to write: .svg, .png or .pdf")] = Path("figure.svg"),
    store: StoreOption = "results",
) -> None:
    """Draw learning curves, errors by length, or an axis of the sweep."""
    from sweeps.results.figures import draw, write
    from sweeps.store import Store

    require_different(names)
    require_store(store)
    with Store(store, read_only=True) as opened:
        drawn = draw(
            opened, names, x, [p for p in y.split(",") if p], [p for p in by.split(",") if p],
            on_missing=lambda line: errors.print(line, highlight=False, soft_wrap=True),
        )  # fmt: skip
    with writing(output) as file:
        write(drawn, file)
    console.print(f"wrote {output}", highlight=False)


@app.command()
def ensemble(
    name: str,
    cell: Annotated[str | None, typer.Option(help="best of this cell only")] = None,
    lengths: Annotated[str, typer.Option(help="with commas; else the task's own")] = "",
    store: StoreOption = "results",
) -> None:
    """Average the outputs of the trained seeds of the best configuration, and evaluate that as one model."""
    from sweeps.runner.ensembles import ensemble_table
    from sweeps.store import Store

    require_store(store)
    parts = [part.strip() for part in lengths.split(",") if part]
    for part in parts:
        if not part.isdecimal():
            raise UserError(f"lengths are whole numbers with commas between, such as 41,401, not {part!r}")
    with Store(store, read_only=True) as opened:
        echo(
            ensemble_table(
                opened, name, cell, [int(part) for part in parts],
                on_progress=lambda line: errors.print(line, highlight=False),
            )
        )  # fmt: skip


@app.command()
def export(
    name: str,
    cell: Annotated[str | None, typer.Option(help="best of this cell only")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="file to write")] = None,
    store: StoreOption = "results",
) -> None:
    """Write the best configuration as a sweep file that runs again."""
    from sweeps.results.export import best
    from sweeps.store import Store

    require_store(store)
    with Store(store, read_only=True) as opened:
        text = best(opened, name, cell, on_note=lambda line: errors.print(f"note: {line}", highlight=False, soft_wrap=True))
    if output is None:
        echo(text)
        return
    with writing(output) as file:
        file.write_text(text, encoding="utf-8")
    console.print(f"wrote {output}: `sweeps reproduce {output}` trains it again", highlight=False)
