"""The verb that compares results."""

from __future__ import annotations

import shlex
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from sweeps.cli.app import StoreOption, app, echo, errors, require_store, writing
from sweeps.errors import UserError

FORMATS = ("md", "json", "csv")
MANY_PAIRS = 30
"""Of more pairs of one sweep's cells there is a note."""


def _format(name: str) -> str:
    if name not in FORMATS:
        raise typer.BadParameter(f"{name!r} is not one of {', '.join(map(repr, FORMATS))}.")
    return name


@app.command()
def compare(
    first: Annotated[str, typer.Argument(metavar="A", help="NAME, NAME:CELL, NAME:CELL#NUMBER or an exported file")],
    second: Annotated[
        str | None, typer.Argument(metavar="[B]", help="likewise; default: the cells of A with each other")
    ] = None,
    format: Annotated[str, typer.Option("--format", parser=_format, metavar="FORMAT", help="md, json or csv")] = "md",
    confidence: Annotated[float, typer.Option(help="of the intervals, and 1 minus the level of the tests")] = 0.95,
    other_store: Annotated[str | None, typer.Option(help="the store of B, where it is another one")] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="a figure besides: .svg, .png or .pdf; curves and their difference")
    ] = None,
    store: StoreOption = "results",
) -> None:
    """Compare success rates, steps to convergence and errors of two sweeps, cells, configurations or exported files.

    By default the best configuration of a cell is compared, and of two sweeps the cells that have the same labels.
    """
    from sweeps.results import comparison
    from sweeps.store import Store

    if not 0 < confidence < 1:
        raise UserError(f"--confidence is {confidence:g}; it is a fraction between 0 and 1, such as 0.95")
    with ExitStack() as stack:
        opened: dict[str, Store] = {}

        def sides(text: str, location: str) -> list[comparison.Side]:
            if comparison.is_file(text):
                return comparison.select(text, None)
            if location not in opened:
                require_store(location)
                opened[location] = stack.enter_context(Store(location, read_only=True))
            return comparison.select(text, opened[location])

        one = sides(first, store)
        other = None if second is None else sides(second, other_store or store)
        pairs = len(one) * (len(one) - 1) // 2
        if other is None and pairs > MANY_PAIRS:
            errors.print(
                f"note: {len(one)} cells make {pairs} pairs, and p-values are adjusted for all of them. Two of them alone: "
                f"sweeps compare {shlex.quote(one[0].name)} {shlex.quote(one[1].name)}",
                markup=False, highlight=False, soft_wrap=True,
            )  # fmt: skip
        found = comparison.compare(one, other, confidence)
    if output is not None:
        from sweeps.results.comparison_figure import draw
        from sweeps.results.drawing import write

        with writing(output) as file:
            write(draw(found), file)
        errors.print(f"wrote {output}", highlight=False)
    text = {"md": found.as_markdown, "json": found.as_json, "csv": found.as_csv}[format]()
    echo(text, nl=False)
