"""The verdict of one lane in words, from its learning curve: solved, or why not.

An exception and divergence come first, since then nothing after them was trained; a task without a threshold has no other
verdict. Of the unsolved rest a seed gets the first kind that applies:

    crossed back         some evaluation was below the threshold, but not the one that decides
    on its way           the error still falls at the end; a seed that is near and still falls is on its way
    near                 the lowest error is within a factor of `NEAR` of the threshold
    too few evaluations  fewer than `LEAST` of them have a finite error, which show no trend
    stalled              none of these: the error no longer falls

Errors are those on extrapolation, as in `sweeps.training.lane.judge`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from sweeps.results.numbers import number, steps
from sweeps.training.lane import LaneResult

NEAR = 3.0
"""Largest ratio of the lowest error to the threshold of a seed that is near."""
FARTHEST = 10
"""Budgets: a crossing is not extrapolated farther."""
LEAST = 4
"""Evaluations with a finite error without which no trend is significant."""
KINDS = (
    "solved", "solved, lost at the end", "crossed back", "near", "on its way", "stalled", "too few evaluations", "diverged",
    "no threshold", "error",
)  # fmt: skip
"""In the order of reports."""

_LAST_PART = 3  # the trend is that of the last third of a curve
_FEWEST_POINTS = 5  # but of at least these evaluations, where there are as many
_MOST_POINTS = 30  # medians of neighbours, so that a curve of thousands of evaluations costs no more
_FALLING = 1.645  # standard deviations of Kendall's S: one-sided 5 %
_IMPROVED = 1.1  # within this factor of the lowest error a curve has reached it


@dataclass(frozen=True)
class Verdict:
    """How a lane ended, and why."""

    kind: str
    """One of `KINDS`."""
    text: str
    """A sentence for people, without capital and full stop: `stalled at error 0.41, 2.9e7 times the threshold, ...`."""
    crosses_at: float | None = None
    """Of a seed on its way: the step near which its error would cross the threshold; None: farther than `FARTHEST` budgets."""

    @property
    def solved(self) -> bool:
        """Whether it is one of the two kinds of solved seeds."""
        return self.kind in KINDS[:2]


def verdict(result: LaneResult) -> Verdict:
    """Return the verdict of one lane."""
    if result.outcome == "error":
        return Verdict("error", f"ended in an exception: {result.reason or 'unknown'}")
    lowest, last = lowest_error(result), last_error(result)
    if result.outcome == "diverged":
        before = f"; its lowest error before was {_compared(lowest, result.threshold)}" if lowest is not None else ""
        return Verdict("diverged", f"{result.reason or f'diverged at step {result.steps}'}{before}")
    if result.threshold is None and not result.solved:
        found = "" if lowest is None else f"; lowest error {number(lowest)}, last error {number(last)}"
        return Verdict("no threshold", f"the task has no threshold, so nothing is judged{found}")
    if result.solved:
        at = f"error {number(_decisive(result))} at step {result.best_step} is below the threshold {number(result.threshold)}"
        if solved_at_end(result) is not False:
            return Verdict("solved", f"solved: {at}")
        return Verdict("solved, lost at the end", f"solved: {at}; but it ends at error {_compared(last, result.threshold)}")
    return _unsolved(result, lowest, last)


def _unsolved(result: LaneResult, lowest: float | None, last: float | None) -> Verdict:
    threshold = result.threshold
    assert threshold is not None
    if result.converged_at is not None:
        return Verdict(
            "crossed back", f"crossed the threshold {number(threshold)} at step {result.converged_at}{_after(result)}"
        )
    if lowest is None:
        return Verdict("stalled", "no evaluation has a finite error")
    near = threshold > 0 and lowest <= NEAR * threshold
    if last is None:
        text = f"its last evaluation is not finite; lowest error {_compared(lowest, threshold)}"
        return Verdict("near" if near else "stalled", text)
    slope, level = _trend(*_finite_curve(result))
    least = "" if last <= _IMPROVED * lowest else f"; its lowest error was {_compared(lowest, threshold)}"
    if slope < 0:
        end = result.curve["step"][-1]
        away = max((math.log10(threshold) - level) / slope, 0.0) if threshold > 0 else math.inf
        text = f"ends on its way: error {_compared(last, threshold)}; at its rate it would "
        if end + away > FARTHEST * result.budget:
            return Verdict("on its way", f"{text}take more than {FARTHEST} times the budget{least}")
        return Verdict("on its way", f"{text}cross near step {steps(end + away)}{least}", end + away)
    if near:
        return Verdict("near", f"near: lowest error {_compared(lowest, threshold)}; it ends at error {number(last)}")
    ends = "" if last <= _IMPROVED * lowest else f"; it ends at error {number(last)}"
    finite = [(step, error) for step, error in zip(*_columns(result), strict=True) if error is not None]
    if len(finite) < LEAST:
        text = f"too few evaluations to say: {len(finite)} of the {LEAST} that show a trend"
        return Verdict("too few evaluations", f"{text}; lowest error {_compared(lowest, threshold)}{ends}")
    since = next((step for step, error in finite if error <= _IMPROVED * lowest), None)
    flat = f"; not lower by more than 10 % since step {since}" if since is not None else ""
    return Verdict("stalled", f"stalled at error {_compared(lowest, threshold)}{flat}{ends}")


def _after(result: LaneResult) -> str:
    """Return why a seed that crossed its threshold is not solved."""
    last, threshold, at_best = last_error(result), result.threshold, _decisive(result)
    guide = result.curve.get("error.interpolation")
    by_end = "interpolation" not in result.error  # then the last evaluation decides
    if guide is not None and not any(error is not None and math.isfinite(error) for error in guide):
        ends = "it is below it at the end" if solved_at_end(result) else "it ends"
        return (
            f", but no interpolation error is finite, so no evaluation can decide; {ends} (error {_compared(last, threshold)})"
        )
    decisive = f"at step {result.best_step}, which has the lowest interpolation error"
    if solved_at_end(result):
        return f" and is below it at the end (error {number(last)}), but not {decisive}"
    came = f" and came back above it: lowest error {number(lowest_error(result))}, "
    if by_end:
        return f"{came}error {_compared(last, threshold)} at the last evaluation, which decides"
    came += f"last error {_compared(last, threshold)}"
    return came if at_best is None else f"{came}, error {number(at_best)} {decisive}"


@dataclass(frozen=True)
class Unsolved:
    """The unsolved seeds of one configuration that have the same kind of verdict."""

    kind: str
    seeds: tuple[int, ...]
    crosses_at: float | None = None
    """Of seeds on their way: the step near which the first of them would cross."""


def unsolved(results: Iterable[LaneResult], of: Callable[[LaneResult], Verdict] = verdict) -> list[Unsolved]:
    """Return the unsolved seeds by the kinds of their verdicts, the most frequent kind first.

    `of` returns the verdict of a result, for a caller that has it already.
    """
    groups: dict[str, list[tuple[int, float | None]]] = {}
    for result in results:
        found = of(result)
        if not found.solved:
            groups.setdefault(found.kind, []).append((result.seed, found.crosses_at))
    return [
        Unsolved(
            kind,
            tuple(sorted(seed for seed, _ in members)),
            min((step for _, step in members if step is not None), default=None),
        )
        for kind, members in sorted(groups.items(), key=lambda item: (-len(item[1]), KINDS.index(item[0])))
    ]


# ------------------------------------------------------------------------------------------- figures of one lane


def lowest_error(result: LaneResult) -> float | None:
    """Return the lowest extrapolation error of all evaluations; None where none is finite."""
    return min((error for error in _columns(result)[1] if error is not None), default=None)


def last_error(result: LaneResult) -> float | None:
    """Return the extrapolation error of the last evaluation; None where it is not finite."""
    errors = _columns(result)[1]
    return errors[-1] if errors else None


def threshold_ratio(result: LaneResult) -> float | None:
    """Return the lowest error divided by the threshold; None where one of them is missing."""
    lowest = lowest_error(result)
    if lowest is None or not result.threshold:
        return None
    ratio = lowest / result.threshold
    return ratio if math.isfinite(ratio) else None


def solved_at_end(result: LaneResult) -> bool | None:
    """Return whether the last evaluation is below the threshold; None where the task has none.

    A lane that diverged, or ended in an exception, is not solved at the end.
    """
    if result.outcome in ("diverged", "error"):
        return False
    if result.threshold is None:
        return None
    last = last_error(result)
    return last is not None and last < result.threshold


def _columns(result: LaneResult) -> tuple[list[int], list[float | None]]:
    """Return the evaluated steps and the errors that decide `solved`; of a lane without a curve those at its best step."""
    curve = result.curve
    name = next((name for name in ("error.extrapolation", *curve) if name in curve and name.startswith("error.")), None)
    if name is not None and curve.get("step"):
        return curve["step"], curve[name]
    return ([], []) if result.best_step is None else ([result.best_step], [_decisive(result)])


def _decisive(result: LaneResult) -> float | None:
    """Return the error at the best step."""
    return decisive_error(result.error)


def decisive_error(errors: Mapping[str, float | None]) -> float | None:
    """Return of the errors by split the one that decides `solved`; None where there is none, or it is not finite."""
    return errors.get("extrapolation", next(iter(errors.values()), None))


def _finite_curve(result: LaneResult) -> tuple[list[int], list[float]]:
    pairs = [(step, error) for step, error in zip(*_columns(result), strict=True) if error is not None and error > 0]
    return [step for step, _ in pairs], [error for _, error in pairs]


def _trend(at: list[int], errors: list[float]) -> tuple[float, float]:
    """Return the slope of log10 of the error a step over the last part of a curve, and its level at the last evaluation.

    Theil and Sen's median of all slopes between two points; 0 unless Kendall's S says that the error falls (one-sided, 5 %).
    Fewer than four points never fall significantly.
    """
    count = max(_FEWEST_POINTS, len(at) // _LAST_PART)
    x, y = np.array(at[-count:], float), np.log10(np.array(errors[-count:], float))
    if len(x) > _MOST_POINTS:
        parts = np.array_split(np.arange(len(x)), _MOST_POINTS)
        x, y = (np.array([np.median(values[part]) for part in parts]) for values in (x, y))
    n = len(x)
    if n < 2:
        return 0.0, 0.0
    first, second = np.triu_indices(n, 1)
    rises = y[second] - y[first]
    concordance = float(np.sign(rises).sum())
    if (concordance + 1) / math.sqrt(n * (n - 1) * (2 * n + 5) / 18) > -_FALLING:
        return 0.0, 0.0
    slope = float(np.median(rises / (x[second] - x[first])))
    return slope, float(np.median(y + slope * (at[-1] - x)))


def _compared(error: float | None, threshold: float | None) -> str:
    """Return `3.2e-3, 40 times the threshold 8e-5`; the error alone where there is no threshold to compare with."""
    if error is None:
        return "that is not finite"
    if not threshold or not math.isfinite(error / threshold):
        return number(error)
    return f"{number(error)}, {number(error / threshold)} times the threshold {number(threshold)}"
