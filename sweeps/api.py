"""The Python API: what the command does, for notebooks and scripts. docs/python.md shows it.

    sweep = sweeps.run({"task": "static", "model": "nau", "train": {"steps": 2000}, "seeds": 3}, name="first")
    sweep.frame("seeds")
    sweeps.open("results")["first"].best().load_model()(x)

Nothing that is heavy (torch, pandas, Ray, MLflow, matplotlib) is imported before it is used. Results are read from the store
at every call, so that those of a running sweep are the present ones.
"""

from __future__ import annotations

import dataclasses
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps.errors import SweepIncomplete, UserError
from sweeps.results.numbers import counted

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from sweeps.config.sweep_file import Sweep
    from sweeps.models import At, TrainedModel
    from sweeps.results.comparison import Comparison
    from sweeps.results.report import Report
    from sweeps.results.summary import RankedConfiguration
    from sweeps.store import Store


def run(
    sweep: str | Path | Mapping[str, Any],
    *,
    name: str | None = None,
    store: str | Path | None = None,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    workers: int | None = None,
    mlflow: bool = True,
    numerics: str | None = None,
    progress: bool = True,
) -> SweepResults:
    """Run a sweep, or continue one that was cut off or extended, and return its results.

    Parameters
    ----------
    sweep
        A sweep file, the name of a shipped definition or of a sweep in the store, the text of a sweep file (several lines, or
        one that begins with a brace), or its values as a dict.
    name
        Run it under another name.
    store
        Folder, which is created, or postgresql:// URL. None: SWEEPS_STORE, or `results` here.
    overrides
        Settings that replace those of the file: `{"train.steps": 2000}` or `["train.steps=2000"]`.
    workers
        At most so many worker processes. None: one for each core, or what RAY_ADDRESS's cluster has.
    mlflow
        Whether MLflow's runs are written.
    numerics
        Of a new sweep, as `--numerics` of the command.
    progress
        Whether progress and notes are shown: a live display in a notebook or a terminal, lines elsewhere.

    Ctrl-C (or interrupting the kernel) stops the sweep in order: what is done is kept, and the same call continues. In a
    thread that is not the main one no signal is handled. Raises SweepIncomplete, which has the results so far, where the
    sweep ended before it was done; UserError and StoreError where nothing was started; SweepFailed, ClusterError.
    """
    from rich.console import Console

    from sweeps.machine import call_loopback_directly, default_store, ensure_folders
    from sweeps.runner.run import run_sweep
    from sweeps.store import Store

    # A console without markup: a label such as `NMU [no clamp]` is text.
    in_notebook = None if progress else False  # None: rich finds out
    console = Console(quiet=not progress, force_jupyter=in_notebook, markup=False, highlight=False, emoji=False)
    # In a notebook without ipywidgets Ray, and a package that it imports, recommend them at every start.
    logging.getLogger("ray.widgets.util").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", "IProgress not found")
    store = default_store() if store is None else store
    given = _overrides(overrides, name)
    read = _read(sweep, given, store)
    for warning in read.warnings:
        warnings.warn(warning, stacklevel=2)
    call_loopback_directly()
    if said := ensure_folders():
        console.print(f"note: {said}")
    with Store(store) as opened:
        outcome = run_sweep(read, opened, str(store), console, workers, tracked=mlflow, numerics=numerics)
    results = SweepResults(read.name, store)
    if outcome.state != "done":
        to_continue = outcome.how_to_continue.replace("command", "call")
        message = f"the sweep {outcome.state}: {outcome.reason}. What is done stays; {to_continue}."
        raise SweepIncomplete(message, outcome.state, outcome.reason, results)
    return results


def open(store: str | Path | None = None) -> Sweeps:
    """Return the sweeps of a store, by name; None: SWEEPS_STORE, or `results` here. Raises UserError where there is none."""
    from sweeps.machine import default_store
    from sweeps.store.database import exists

    store = default_store() if store is None else store
    if not exists(store):
        raise UserError(f"there is no store {str(store)!r} here: sweeps.run makes one; name another with sweeps.open(FOLDER)")
    return Sweeps(store)


def compare(
    first: str | SweepResults | ConfigurationResults,
    second: str | SweepResults | ConfigurationResults | None = None,
    *,
    store: str | Path | None = None,
    confidence: float = 0.95,
) -> Comparison:
    """Compare sweeps, cells, configurations or exported files, as `sweeps compare` does; `second` None: the cells of one sweep.

    A text is `NAME`, `NAME:CELL`, `NAME:CELL#NUMBER`, or a file that `sweeps export` wrote; `store` is for those. Print
    `as_markdown()` of the result. Raises UserError where there is nothing to compare, StoreError for an unknown sweep.
    """
    from sweeps.machine import default_store
    from sweeps.results.comparison import Side, is_file, select, select_stored
    from sweeps.results.comparison import compare as compare_sides
    from sweeps.store import Store

    def sides(side: str | SweepResults | ConfigurationResults) -> list[Side]:
        if isinstance(side, str) and is_file(side):
            return select(side, None)
        text, where = (side, store or default_store()) if isinstance(side, str) else (side._selection, side.store)
        with Store(where, read_only=True) as opened:
            return select_stored(text, opened)

    return compare_sides(sides(first), None if second is None else sides(second), confidence)


class Sweeps(Mapping[str, "SweepResults"]):
    """The sweeps of a store, by name, the oldest first."""

    def __init__(self, store: str | Path) -> None:
        self.store = store

    def __getitem__(self, name: str) -> SweepResults:
        """Raises UnknownSweep, which is a KeyError, with the nearest name."""
        with _reading(self.store) as opened:
            opened.known_sweep(str(name))
        return SweepResults(name, self.store)

    def __iter__(self) -> Iterator[str]:
        with _reading(self.store) as opened:
            return iter([row.name for row in opened.sweeps()])

    def __len__(self) -> int:
        return len(list(iter(self)))

    def frame(self, level: str = "configurations", *names: str) -> pd.DataFrame:
        """Return one table of several sweeps, of all where none is named: see `SweepResults.frame`."""
        from sweeps.results.frames import frame

        with _reading(self.store) as opened:
            return frame(level, [_report(opened, name) for name in names or list(self)])

    def __repr__(self) -> str:
        with _reading(self.store) as opened:
            rows = opened.sweeps()
        lines = [f"  {row.name}: {row.state}, begun {row.created[:16].replace('T', ' ')} UTC" for row in rows]
        return "\n".join([f"{len(rows)} sweep{'s' if len(rows) != 1 else ''} in {self.store}", *lines])


class SweepResults:
    """A sweep in a store. What it shows is read at every call. Methods raise StoreError where the store cannot be read."""

    def __init__(self, name: str, store: str | Path) -> None:
        self.name, self.store = name, store

    @property
    def state(self) -> str:
        """running, done, stopped or failed."""
        return self._found().row.state

    @property
    def document(self) -> dict[str, Any]:
        """The sweep file as plain values."""
        return self._found().row.document

    def frame(self, level: str = "configurations", timing: bool = True) -> pd.DataFrame:
        """Return the results as a pandas data frame.

        `level` is what a row is about: `configurations`, best first in each cell, with metrics and the ends of their intervals;
        `seeds`, with outcome, verdict, converged_at and errors; or `curves`, a row for each evaluation. The columns are
        described in `sweeps.results.frames`. Without `timing` there are no wall times. Raises UserError for another level.
        """
        from sweeps.results.frames import frame

        return frame(level, [self._found()], timing)

    def best(self, cell: str | None = None) -> ConfigurationResults:
        """Return the best complete configuration of a cell, by its key or labels, or of all cells.

        Raises UserError for an unknown cell, and where none is complete.
        """
        return self.configuration(None, cell)

    def configuration(self, number: int | None, cell: str | None = None) -> ConfigurationResults:
        """Return a configuration by its number; None is the best one. Raises UserError as `best` does."""
        from sweeps.results.export import configuration_of

        found = self._found()
        return ConfigurationResults(self, found, configuration_of(found, cell, number), is_best=number is None)

    def load_model(
        self, seed: int | None = None, at: At = "best", cell: str | None = None, configuration: int | None = None
    ) -> TrainedModel:
        """Return a trained seed as a plain torch module: see `sweeps.load_model`."""
        from sweeps.models import load_from_store

        return load_from_store(self.name, seed, at, self.store, cell, configuration)

    def log_model(
        self, seed: int | None = None, at: At = "best", cell: str | None = None, configuration: int | None = None,
        register: str | None = None,
    ) -> str:  # fmt: skip
        """Log a trained seed to its run in MLflow, and return the URI for mlflow.pytorch.load_model.

        With `register` it becomes the version `best` of that registered model. Raises as `load_model`, and TrackingError.
        """
        from sweeps.models import log_to_mlflow

        return log_to_mlflow(
            self.name, seed=seed, at=at, store=self.store, cell=cell, configuration=configuration, register=register
        ).uri  # fmt: skip

    def report(self, format: str = "md", timing: bool = True) -> str | bytes:
        """Return the report in one of the formats of `sweeps report`. Raises UserError for another."""
        from sweeps.config.faults import unknown
        from sweeps.results import FORMATS

        if format not in FORMATS:
            raise UserError(unknown("format", format, list(FORMATS)))
        return FORMATS[format].render(self._found(), timing)

    def figure(self, x: str | None = None, y: str | Sequence[str] = (), by: str | Sequence[str] = (), **options: Any) -> Figure:
        """Return a matplotlib figure, as `sweeps figure` draws it: learning curves, or metrics against an axis or a setting.

        `options` are those of `sweeps.results.figures.draw`, such as kind="parallel". Raises UserError for what the sweep does
        not have.
        """
        from sweeps.results.figures import draw_reports, save

        def names(given: str | Sequence[str]) -> list[str]:
            return [part for part in given.split(",") if part] if isinstance(given, str) else list(given)

        drawn = draw_reports([self._found()], x, names(y), names(by), warnings.warn, **options)

        def as_svg() -> str:
            buffer = io.BytesIO()
            save(drawn, buffer, ".svg")
            return buffer.getvalue().decode()

        # A notebook shows a figure that pyplot did not make only where it has this method.
        setattr(drawn, "_repr_svg_", as_svg)  # noqa: B010 (matplotlib's class does not declare it)
        return drawn

    def export(self, cell: str | None = None) -> str:
        """Return the best configuration as the text of a sweep file that runs again. Raises UserError as `best` does."""
        from sweeps.results.export import best

        with _reading(self.store) as opened:
            return best(opened, self.name, cell)

    def compare(self, other: str | SweepResults | ConfigurationResults, confidence: float = 0.95) -> Comparison:
        """Compare with another sweep: see `sweeps.compare`."""
        return compare(self, other, store=self.store, confidence=confidence)

    @property
    def _selection(self) -> str:
        return self.name

    def _found(self) -> Report:
        with _reading(self.store) as opened:
            return _report(opened, self.name)

    def __repr__(self) -> str:
        totals = self._found().totals(timing=False)
        counts = f"{counted(totals['configurations'], 'configuration')}, {totals['lanes']} of {totals['lanes_asked']} seeds"
        return f"sweep {self.name!r} in {self.store}: {totals['state']}, {counts}, {totals['solved']} solved"

    def _repr_markdown_(self) -> str:
        """The report, for notebooks."""
        return str(self.report("md"))


class ConfigurationResults:
    """A configuration with its results, as they were when it was read."""

    def __init__(self, sweep: SweepResults, found: Report, one: RankedConfiguration, is_best: bool = False) -> None:
        """`is_best`: it was chosen as the best of its cell, which comparisons say."""
        entry = one.configuration
        self.sweep = sweep
        self.number = entry.number
        self.cell: dict[str, str] = dict(entry.labels)
        """Axis -> label."""
        self.rank = one.rank
        """1 is the best of its cell; None while it is not complete."""
        self.state = one.state
        """complete, pruned, failed or running."""
        self.parameters: dict[str, Any] = dict(one.parameters)
        """Searched path -> value."""
        self.settings: dict[str, Any] = entry.settings
        """Resolved `model`, `task` and `train`, with every default."""
        results = found.judged_by(one).results
        self.summary: dict[str, Any] = found.figures_of(dataclasses.replace(one, results=results))
        """Metrics by name, those with an interval as estimate, low and high: `summary["success_rate"]["low"]`. Of the fresh
        seeds where they rank it, as in the report; `search_summary` has those of the search."""
        self.search_summary: dict[str, Any] = found.figures_of(one)
        self._found, self._one, self._is_best = found, one, is_best

    @property
    def store(self) -> str | Path:
        """Folder or URL."""
        return self.sweep.store

    @property
    def seeds(self) -> pd.DataFrame:
        """A row for each finished seed: see `SweepResults.frame`."""
        from sweeps.results.frames import frame

        return frame("seeds", [dataclasses.replace(self._found, configurations=(self._one,))])

    def load_model(self, seed: int | None = None, at: At = "best") -> TrainedModel:
        """Return a trained seed as a plain torch module; None is the best seed. See `sweeps.load_model`."""
        return self.sweep.load_model(seed, at, self._one.configuration.cell, self.number)

    @property
    def _selection(self) -> str:
        cell = f"{self.sweep.name}:{self._one.configuration.cell}"
        return cell if self._is_best else f"{cell}#{self.number}"

    def __repr__(self) -> str:
        from sweeps.results.formats import parameters

        labels = " ".join(self.cell.values())
        where = f"configuration {self.number} of sweep {self.sweep.name!r}" + (f", cell {labels}" if labels else "")
        found, one = self._found, self._one
        summary = found.judged_by(one)
        solved = f"{summary.solved} of {summary.seeds} seeds solved"
        if summary is not one.summary:
            solved += f" on fresh seeds, {one.summary.solved} of {one.summary.seeds} in the search"
        cell = next(cell for cell in found.cells() if cell[0].configuration.cell == one.configuration.cell)
        if one.rank == 1 and found.nothing_solved(cell):
            lowest = "; it has the lowest error" if found.ranked_by_error(cell) else ""
            solved += f"; nothing is solved in its cell, so it is no winner{lowest}"
        return f"{where}: {parameters(self.parameters, found.search.space)}; {solved}"


# ------------------------------------------------------------------------------------------- reading


def _reading(store: str | Path) -> Store:
    from sweeps.store import Store

    return Store(store, read_only=True)


def _report(opened: Store, name: str) -> Report:
    from sweeps.results.report import report

    return report(opened, name)


def _overrides(given: Sequence[str] | Mapping[str, Any], name: str | None) -> list[str]:
    import json

    if isinstance(given, str):
        raise UserError(f"overrides are a dict or a list, such as {{'train.steps': 2000}}, but got the text {given!r}")
    texts = list(given)
    if isinstance(given, Mapping):
        texts = [f"{path}={json.dumps(_plain(value))}" for path, value in given.items()]  # JSON is YAML in one line
    return [*texts, *([f"name={name}"] if name is not None else [])]


def _read(sweep: str | Path | Mapping[str, Any], overrides: list[str], store: str | Path) -> Sweep:
    from sweeps.config.sweep_file import find_file, load, parse
    from sweeps.config.yaml import dump
    from sweeps.runner.run import stored_sweep

    if isinstance(sweep, Mapping):
        return parse(dump(_plain(sweep)), "sweep", overrides)
    if isinstance(sweep, str) and ("\n" in sweep.strip() or sweep.lstrip().startswith("{")):
        return parse(sweep, "sweep", overrides)
    return stored_sweep(str(sweep), overrides, store) or load(find_file(str(sweep)), overrides)


def _plain(value: Any) -> Any:
    """Return a value of Python as YAML and JSON have them: NumPy's numbers and arrays, tuples and ranges included."""
    import numpy as np

    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple | range):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise UserError(f"a sweep is made of numbers, texts, lists and dicts, but it has {value!r} of type {type(value).__name__}")
