"""Verbs that read the results of sweeps."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from sweeps.cli.app import OnOption, StoreOption, app, console, echo, errors, note, require_different, require_store, writing
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
        typer.Option(
            "--format", parser=_format, metavar="FORMAT", help="md, html or tex for people; json, csv or parquet for programs"
        ),
    ] = "md",
    level: Annotated[
        str | None,
        typer.Option(help="what a row of csv and parquet is about: configurations (default), seeds, or curves"),
    ] = None,
    width: Annotated[
        str, typer.Option(help="of tex: `column` or `page` of a paper in two columns; else the line of one in one column")
    ] = "",
    failed: Annotated[
        bool, typer.Option("--failed", help="only the seeds that are unsolved, diverged or ended in an error, with the reason")
    ] = False,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="file to write")] = None,
    timing: Annotated[bool, typer.Option(help="with wall times")] = True,
    store: StoreOption = "results",
) -> None:
    """Print the results of sweeps: of several, json is a list of reports, and csv one table with a column `sweep`."""
    from sweeps.results import FORMATS, report
    from sweeps.results.formats import FAILED_FORMATS, failed_seeds
    from sweeps.results.frames import require_level
    from sweeps.results.latex import WIDTHS, as_tex
    from sweeps.store import Store

    chosen = FORMATS[format]
    if level is not None:
        require_level(level)
        if chosen.levels is None:
            tables = " or ".join(name for name, one in FORMATS.items() if one.levels is not None)
            raise UserError(f"--level is for tables: --format {tables}, and not {format}")
    if width and (format != "tex" or width not in WIDTHS):
        raise UserError(f"--width is {' or '.join(WIDTHS)}, with --format tex, not {width!r} with {format}")
    if failed and (format not in FAILED_FORMATS or level not in (None, "seeds")):
        given = f"--level {level}" if format in FAILED_FORMATS else f"--format {format}"
        raise UserError(f"--failed lists seeds, with --format {', '.join(FAILED_FORMATS)} and --level seeds only, not {given}")
    if chosen.is_binary and output is None:
        raise UserError(f"{format} is no text: name the file to write, -o {names[0]}.{format}")
    require_different(names)
    require_store(store)
    with Store(store, read_only=True) as opened:
        found = [report(opened, name) for name in names]
    contents: list[str | bytes]
    if width:
        contents = [as_tex(found, timing, width)]
    elif failed:
        contents = [failed_seeds(found, format, timing)]
    elif level is not None and chosen.levels is not None:
        contents = [chosen.levels(level, found, timing)]
    elif len(found) > 1 and chosen.several is not None:
        contents = [chosen.several(found, timing)]
    else:
        contents = [chosen.render(one, timing) for one in found]
    if output is None:
        for text in contents:
            echo(str(text), nl=chosen.empty_line)
        return
    with writing(output) as file:
        file.write_bytes(
            b"".join(part if isinstance(part, bytes) else part.encode("utf-8", "backslashreplace") for part in contents)
        )
    console.print(f"wrote {output}", highlight=False)


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
    kind: Annotated[
        str | None, typer.Option(help="lines, points, parallel, importance or pareto; else lines or points, by x")
    ] = None,
    x: Annotated[
        str | None, typer.Option(help="step (the default), length, an axis of the sweep, or a setting such as train.lr, or lr")
    ] = None,
    y: Annotated[str, typer.Option(help="what to draw, with commas: a panel each; else what fits x")] = "",
    by: Annotated[str, typer.Option(help="axes that colours distinguish, with commas; else all but x")] = "",
    others: Annotated[
        str, typer.Option(help="against a setting: configurations of `any` other settings, or with those of the `best`")
    ] = "any",
    output: Annotated[Path, typer.Option("-o", "--output", help="file to write: .svg, .png or .pdf")] = Path("figure.svg"),
    title: Annotated[str, typer.Option(help="above the figure")] = "",
    size: Annotated[str, typer.Option(help="width x height in inches, such as 6x4")] = "",
    width: Annotated[str, typer.Option(help="`column` or `page` of a paper in two columns, or inches")] = "",
    font_size: Annotated[float | None, typer.Option(help="of the text, in points; else 9, for a paper 8")] = None,
    dpi: Annotated[int, typer.Option(help="of a .png")] = 150,
    store: StoreOption = "results",
) -> None:
    """Draw learning curves, errors by length, metrics against an axis or a setting, and what a search found."""
    from sweeps.results.drawing import read_style
    from sweeps.results.figures import draw, write
    from sweeps.store import Store

    require_different(names)
    style = read_style(size, width, title, dpi, font_size)
    require_store(store)
    with Store(store, read_only=True) as opened:
        drawn = draw(
            opened, names, x, [p for p in y.split(",") if p], [p for p in by.split(",") if p],
            on_missing=lambda line: errors.print(line, highlight=False, soft_wrap=True),
            kind=kind, others=others, style=style,
        )  # fmt: skip
    with writing(output) as file:
        write(drawn, file, dpi)
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
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE.safetensors", help="write the trained weights of its seeds into this file")
    ] = None,
    mlflow: Annotated[bool, typer.Option("--mlflow", help="log a trained model to its seed's run in MLflow")] = False,
    register: Annotated[str | None, typer.Option(metavar="MODEL", help="and register it in MLflow under this name")] = None,
    configuration: Annotated[int | None, typer.Option(help="whose models: this one instead of the best")] = None,
    seed: Annotated[int | None, typer.Option(help="this seed only; default: all, for MLflow the best")] = None,
    at: Annotated[str | None, typer.Option(help="weights at the best evaluation, best, or the end; default: both")] = None,
    store: StoreOption = "results",
) -> None:
    """Write the best configuration as a sweep file that runs again, or its trained models: --weights, --mlflow, --register."""
    from sweeps.results.export import best
    from sweeps.store import Store

    for option, value in {"--configuration": configuration, "--seed": seed, "--at": at}.items():
        if value is not None and not (weights or mlflow or register):
            raise UserError(f"{option} chooses what --weights FILE.safetensors writes, or --mlflow logs")
    if output is not None and _is_someones(output):
        raise UserError(f"{output} is a sweep file without results, and is not overwritten: name another file")
    require_store(store)
    if mlflow or register:
        _export_to_mlflow(store, name, cell, configuration, seed, at or "best", register)
        if output is None and weights is None:
            return
    if weights is not None:
        _export_weights(store, name, weights, cell, configuration, seed, at)
        if output is None:
            return
    with Store(store, read_only=True) as opened:
        text = best(opened, name, cell, on_note=note)
    if output is None:
        echo(text)
        return
    with writing(output) as file:
        file.write_text(text, encoding="utf-8", errors="backslashreplace")
    console.print(f"wrote {output}: `sweeps reproduce {output}` trains it again", highlight=False)


def _is_someones(file: Path) -> bool:
    """Return whether there is a file that `export` did not write: one without the section `exported`."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []
    except OSError:  # said where it is written
        return False
    return any(map(str.strip, lines)) and not any(re.match(r"[\"']?exported[\"']?\s*:", line) for line in lines)


def _export_to_mlflow(
    store: str, name: str, cell: str | None, configuration: int | None, seed: int | None, at: str, register: str | None
) -> None:
    from sweeps.models import log_to_mlflow

    found = log_to_mlflow(
        name, seed=seed, at=at, store=store, cell=cell, configuration=configuration, register=register
    )  # fmt: skip
    registered = "" if found.version is None else f", registered as version {found.version} of {register}"
    console.print(
        f"{'logged' if found.is_new else 'is logged already:'} {found.uri}{registered}. "
        f'In Python: mlflow.pytorch.load_model("{f"models:/{register}@best" if register else found.uri}")',
        highlight=False, soft_wrap=True,
    )  # fmt: skip


def _export_weights(
    store: str, name: str, file: Path, cell: str | None, configuration: int | None, seed: int | None, at: str | None
) -> None:
    from sweeps.models import ATS, trained_models, write_weights
    from sweeps.results.numbers import ranges
    from sweeps.store import Store

    if file.suffix != ".safetensors":
        raise UserError(f"--weights writes a safetensors file: name it {file.with_suffix('.safetensors')}")
    ats = tuple(one for one in ATS if at in (None, one))
    if not ats:
        raise UserError(f"--at is {' or '.join(ATS)}, but {at!r} is given")
    with Store(store, read_only=True) as opened:
        models = trained_models(opened, name, cell, configuration, None if seed is None else [seed], ats, on_note=note)
    with writing(file) as written:
        write_weights(written, models, seed_given=seed is not None, at_given=at is not None)
    first, seeds = models[0].about, dict.fromkeys(model.about["seed"] for model in models)
    console.print(
        f"wrote {file}: configuration {first['configuration']}, seed{'s' if len(seeds) > 1 else ''} {ranges(list(seeds))}. "
        f'In Python: sweeps.load_model("{file}")',
        highlight=False, soft_wrap=True,
    )  # fmt: skip


@app.command()
def predict(
    source: Annotated[str, typer.Argument(metavar="NAME|FILE.safetensors")],
    input: Annotated[str | None, typer.Option("--input", metavar="FILE", help=".csv or .npy; - is standard input")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="file to write, .csv or .npy")] = None,
    cell: Annotated[str | None, typer.Option(help="best of this cell only")] = None,
    configuration: Annotated[int | None, typer.Option(help="this one instead of the best")] = None,
    seed: Annotated[int | None, typer.Option(help="this seed only; default: all")] = None,
    at: Annotated[str, typer.Option(help="weights at the best evaluation, or at the end")] = "best",
    store: StoreOption = "results",
) -> None:
    """Predict with trained models: a column for each seed, and the exact result where the task defines it.

    Without --input: their errors on the task's own evaluation sets, beside those of the records.
    """
    import numpy as np

    from sweeps.models import load_models
    from sweeps.predictions import Inputs, Predictions, summary

    if output is not None and output.suffix not in (".csv", ".npy"):
        raise UserError(f"predictions are written as .csv or .npy: name {output} so")
    if input is None and output is not None:
        raise UserError("-o is for predictions: --input FILE names the rows")
    if not source.endswith(".safetensors"):
        require_store(store)
    models = load_models(source, seed, at, store, cell, configuration, on_note=note)
    if input is None:
        echo(summary(models))
        return
    inputs = Inputs(models[0].task)
    x = inputs.read(input)
    found = Predictions(models, x, inputs.as_text)
    if found.note is not None:
        note(found.note)
    if output is None:
        echo(found.csv(), nl=False)
        return
    with writing(output) as file:
        if output.suffix == ".csv":
            file.write_text(found.csv(), encoding="utf-8")
        else:
            np.save(file, found.array(), allow_pickle=False)
    console.print(f"wrote {output}", highlight=False)
