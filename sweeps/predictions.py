"""`sweeps predict`: outputs of trained models for rows of a file, and their errors on the task's own evaluation sets."""

from __future__ import annotations

import csv
import io
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweeps.errors import UserError
from sweeps.models import TrainedModel, evaluate, outputs
from sweeps.results.formats import table
from sweeps.results.numbers import number
from sweeps.training.state import tensors_of
from tasks.base import Task

NO_ROWS = "has no rows"
ROUNDING = 1e-5
"""Of the size of the targets: what another order of sums in float32 may change in an error's root."""


class Inputs:
    """How a task's inputs are written in files.

    A row of numbers has a column for each input. A sequence is one row, with the inputs of its first time step first; a
    sequence of symbols, words or images is a row of whole numbers, as the task numbers them, of any length; some tasks have
    a notation besides, such as `110*101` or `twenty one`.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        reference = task.evaluation_inputs(task.splits[0])
        self.symbols = task.reads_symbols
        self.whole = self.symbols or np.issubdtype(reference.dtype, np.integer)
        self._shape: tuple[int, ...] = (
            () if self.symbols else reference.shape[1:] if task.time_steps is None else reference.shape[2:]
        )
        """Of one row, or of one time step of it."""
        self.as_text = False
        """Whether a row was read in the task's own notation: see `Task.read`."""

    def read(self, file: str) -> Any:
        """Return the inputs in a .npy file, else a CSV file, `-` being standard input, in the form of `Task.evaluation_inputs`.

        Raises UserError for a file that cannot be read, and for rows that are not inputs of the task.
        """
        if file == "-":
            return self.parse(sys.stdin.read().removeprefix("\ufeff"), "standard input")  # a byte order mark, as of a file
        try:
            if file.endswith(".npy"):
                return self._checked(np.load(file, allow_pickle=False), file)
            return self.parse(Path(file).read_text(encoding="utf-8-sig"), file)
        except (OSError, UnicodeDecodeError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from error

    def parse(self, text: str, file: str) -> Any:
        """Return the inputs of CSV text; of numbers a first line without a number is a header. Raises UserError."""
        lines = [(line, row) for line, row in enumerate(csv.reader(io.StringIO(text)), start=1) if any(map(str.strip, row))]
        header = not self.whole and lines and not any(_is_number(cell) for cell in lines[0][1])
        if header and len(lines) == 1:
            shown = ",".join(lines[0][1])[:60]
            raise UserError(f"{file} {NO_ROWS} after the header {shown!r}; columns are separated by commas: {self.expected}")
        if header:
            del lines[0]
        if not lines:
            raise UserError(f"{file} {NO_ROWS}: {self.expected}")
        rows = [self._symbols(row, line, file) if self.whole else self._numbers(row, line, file) for line, row in lines]
        if self.symbols:
            return self._bins(rows, file)
        width = math.prod(self._shape)
        for (line, _), row in zip(lines, rows, strict=True):
            fits = len(row) == width if self.task.time_steps is None else len(row) and len(row) % width == 0
            if not fits or len(row) != len(rows[0]):
                other = "" if not fits else f", and the first row has {len(rows[0])}: sequences of one file have one length"
                raise UserError(f"line {line} of {file} has {len(row)} columns{other or f': {self.expected}'}")
        array = np.array(rows, np.int64 if self.whole else np.float64)
        if self.task.time_steps is None:
            return array.reshape(len(rows), *self._shape)
        return array.reshape(len(rows), -1, *self._shape).swapaxes(0, 1)

    @property
    def expected(self) -> str:
        """What a row must be, as a phrase for messages."""
        if self.symbols:
            return f"a row is one sequence of symbols, whole numbers from 0 to {self.task.num_inputs - 1}"
        width = math.prod(self._shape)
        if self.task.time_steps is None:
            return f"a row of this task has {width} numbers"
        what = "whole numbers" if self.whole else "numbers"
        return f"a row of this task is a sequence of {width} {what} for each time step"

    def _numbers(self, row: Sequence[str], line: int, file: str) -> list[float]:
        wrong = next((cell for cell in row if not _is_number(cell)), None)
        if wrong is not None:
            raise UserError(f"line {line} of {file}: {wrong.strip()!r} is no number: {self.expected}")
        return [float(cell) for cell in row]

    def _symbols(self, row: Sequence[str], line: int, file: str) -> Sequence[float]:
        words = " ".join(row).split()
        if all(word.isdecimal() for word in words):
            return [int(word) for word in words]
        try:
            symbols = self.task.read(",".join(row).strip())
        except ValueError as error:
            raise UserError(f"line {line} of {file}: {error}. {self.expected[0].upper()}{self.expected[1:]}") from error
        self.as_text = True
        return symbols

    def _bins(self, rows: Sequence[Sequence[float]], file: str) -> tuple[NDArray[np.int64], ...]:
        """Return sequences as arrays of one length each, in order of their lengths, as tasks on symbols have them."""
        for row in rows:
            wrong = next((symbol for symbol in row if not 0 <= symbol < self.task.num_inputs), None)
            if wrong is not None:
                raise UserError(f"{file} has the symbol {wrong}: {self.expected}")
        return tuple(np.array([row], np.int64) for row in rows)

    def _checked(self, array: NDArray[Any], file: str) -> Any:
        before = 1 if self.task.time_steps is None or self.symbols else 2
        shape = (
            "[rows, n]"
            if self.symbols
            else f"[{'rows' if before == 1 else 'time, rows'}{''.join(f', {n}' for n in self._shape)}]"
        )
        fits = (
            array.ndim == 2 if self.symbols else array.ndim == before + len(self._shape) and array.shape[before:] == self._shape
        )
        if not fits or not np.issubdtype(array.dtype, np.integer if self.whole else np.number):
            kind = "whole numbers" if self.whole else "numbers"
            raise UserError(f"{file} is {array.dtype} {list(array.shape)}; the model takes {kind} {shape}")
        if not array.size:
            raise UserError(f"{file} {NO_ROWS}: {self.expected}")
        array = array.astype(np.int64 if self.whole else np.float64)
        return self._bins(array.tolist(), file) if self.symbols else array


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


class Predictions:
    """The outputs of models of one configuration for some inputs, and the task's exact targets where it defines them."""

    def __init__(self, models: Sequence[TrainedModel], x: Any, as_text: bool = False) -> None:
        """`x` is in the form of `Task.evaluation_inputs`. `as_text`: symbols are written in the task's own notation."""
        self.note: str | None = None
        """Why there are no targets."""
        self.columns: dict[str, list[Any]] = {}
        """`prediction`, of several models `seed_3`; `.0`, `.1` are appended where a model has several outputs. Then `truth`,
        or `truth_seed_3` where it depends on the seed."""
        for model in models:
            name = "prediction" if len(models) == 1 else f"seed_{model.about['seed']}"
            self._add(name, _predicted(model, x, as_text))
        try:
            truths = {
                model.about["seed"]: _rows(model.task.truth(x, model.about["seed"]), model.task, as_text) for model in models
            }
        except Exception as error:  # an oracle of a task need not take other inputs than its own
            self.note = f"the task has no exact result for these inputs ({type(error).__name__}: {error})"
            return
        first = next(iter(truths.values()))
        if all(repr(rows) == repr(first) for rows in truths.values()):
            self._add("truth", first)
        else:
            for seed, rows in truths.items():
                self._add(f"truth_seed_{seed}", rows)

    def _add(self, name: str, rows: list[list[Any]]) -> None:
        several = len(rows[0]) > 1
        for position in range(len(rows[0])):
            self.columns[f"{name}.{position}" if several else name] = [row[position] for row in rows]

    def csv(self) -> str:
        """Return a line for each input."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(zip(*self.columns.values(), strict=True))
        return text.getvalue()

    def array(self) -> NDArray[np.float64]:
        """Return the predictions without the targets, [rows, columns]. Raises UserError for symbols."""
        values = [column for name, column in self.columns.items() if not name.startswith("truth")]
        if any(isinstance(value, str) for value in values[0]):
            raise UserError("sequences of symbols differ in length, so they are written as CSV: name a file that ends on .csv")
        return np.array(values, np.float64).T


def _predicted(model: TrainedModel, x: Any, as_text: bool) -> list[list[Any]]:
    """Return the outputs of every row; of a task on symbols the symbols, as one text."""
    shared = tensors_of(model.task.shared()) if model.task.inputs_are_indices else {}
    inputs = tensors_of(x)
    if model.task.inputs_are_indices:
        largest = len(next(iter(shared.values())))
        if int(inputs.min()) < 0 or int(inputs.max()) >= largest:
            raise UserError(f"images are numbered 0 to {largest - 1}, but a row has {int(inputs.max())}")
        inputs = model.task.present(inputs, shared)
    y = outputs(model, inputs)
    found = tuple(logits.argmax(-1).numpy() for logits in y) if isinstance(y, tuple) else y.numpy()
    return _rows(found, model.task, as_text)


def _rows(y: Any, task: Task, as_text: bool) -> list[list[Any]]:
    """Return outputs or targets as rows of values; symbols, which come in arrays of one row each, as texts."""
    if isinstance(y, tuple):
        write = task.write if as_text else lambda symbols: " ".join(map(str, symbols))
        return [[write(row)] for array in y for row in np.asarray(array).tolist()]
    array = np.asarray(y)
    rows = array.reshape(len(array), -1)
    if rows.dtype == np.float32:  # in as many digits as float32 has
        return [[float(str(value)) for value in row] for row in rows]
    found: list[list[Any]] = rows.tolist()
    return found


def summary(models: Sequence[TrainedModel]) -> str:
    """Return a Markdown table of the errors on the task's own evaluation sets, as recorded and as computed again."""
    rows, far = [], []
    splits: list[str] = list(models[0].task.splits)
    for model in models:
        found, recorded = evaluate(model), model.about.get("error") or {}
        fields = [str(model.about["seed"]), model.about["at"][0], str(model.about["step"])]
        for split in splits:
            was, now = recorded.get(split), found[f"error.{split}"]
            fields += [number(was), number(now if math.isfinite(now) else None)]
            if was is not None and not _agree(was, now, model, split):
                far.append(f"seed {model.about['seed']}, {split}: {was:g} recorded, {now:g} now")
        rows.append(fields)
    header = ["seed", "at", "step", *(text for split in splits for text in (f"{split} (record)", f"{split} (now)"))]
    verdict = (
        "Differences beyond float32's rounding, so the model, the task or the device is another than in training: "
        + "; ".join(far)
        if far
        else "The errors are those of the records, within float32's rounding."
    )
    return f"{table(header, rows)}\n\n{verdict}"


def _agree(was: float, now: float, model: TrainedModel, split: str) -> bool:
    """Whether two errors differ by rounding alone: little, or little beside the targets, as of a model that is nearly exact."""
    if math.isclose(was, now, rel_tol=1e-3):
        return True
    if model.task.reads_symbols or not math.isfinite(now):
        return False
    target = model.task.truth(model.task.evaluation_inputs(split), model.about["seed"])
    size = float(np.sqrt(np.mean(np.square(target))))
    return abs(math.sqrt(abs(was)) - math.sqrt(abs(now))) < ROUNDING * size
