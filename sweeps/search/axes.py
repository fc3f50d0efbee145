"""How one dimension of a space looks to Optuna.

It depends on the sampler. TPE and random search know conditional parameters: a dimension with an off value becomes a
switch and, where the switch is on, a value, and TPE's `group=True` models the two apart. The others (gp, qmc, cmaes,
nsgaii, nsgaiii) want every parameter in every trial: there such a dimension is one number in [0, 1] whose lower half
means off and whose upper half is the range, low to high. Either way a random draw is off half of the time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import Trial

from sweeps.space import Dimension, same

OFF_SHARE = 0.5
"""Share of [0, 1] that means off, where a dimension is one number; a switch has the same odds."""


class Axis:
    """One dimension as Optuna sees it: how to ask a trial for its value, and how a value is written into a trial."""

    def __init__(self, path: str, dimension: Dimension, conditional: bool) -> None:
        self.path = path
        self.dimension = dimension
        choice = dimension.kind == "choice"
        self.options = list(dimension.choices)
        self.integer = dimension.kind in ("integer", "log_integer")
        self.log = dimension.kind in ("log_uniform", "log_integer")
        self.low = float(dimension.low or 0.0)  # None for a choice
        self.high = float(dimension.high or 0.0)
        can_be_off = dimension.has_off and not choice
        self.switch = f"{path} is on" if can_be_off and conditional else None
        self.folded = can_be_off and not conditional

    def distributions(self) -> dict[str, BaseDistribution]:
        """Name -> distribution of everything that this dimension may put into a trial."""
        if self.options:
            # By index: Optuna compares categories with ==, where 1, 1.0 and True are one.
            return {self.path: CategoricalDistribution(tuple(range(len(self.options))))}
        if self.folded:
            return {self.path: FloatDistribution(0.0, 1.0)}
        value: BaseDistribution
        if self.integer:
            value = IntDistribution(int(self.low), int(self.high), log=self.log)
        else:
            value = FloatDistribution(self.low, self.high, log=self.log)
        return (
            {self.path: value}
            if self.switch is None
            else {
                self.switch: CategoricalDistribution((True, False)),
                self.path: value,
            }
        )

    def lowest(self) -> dict[str, Any]:
        """Parameters of a trial at the low end of everything."""
        if self.options or self.folded:
            return {self.path: 0 if self.options else 0.0}
        low = {self.path: int(self.low) if self.integer else self.low}
        return low if self.switch is None else {self.switch: True, **low}

    def ask(self, trial: Trial) -> Any:
        """The value that the trial suggests, a plain Python object."""
        if self.options:
            return self.options[trial.suggest_categorical(self.path, tuple(range(len(self.options))))]
        if self.folded:
            return self._unfold(trial.suggest_float(self.path, 0.0, 1.0))
        if self.switch is not None and not trial.suggest_categorical(self.switch, (True, False)):
            return self.dimension.off
        if self.integer:
            return int(trial.suggest_int(self.path, int(self.low), int(self.high), log=self.log))
        value = float(trial.suggest_float(self.path, self.low, self.high, log=self.log))
        return min(max(value, self.low), self.high)

    def write(self, value: Any) -> dict[str, Any] | None:
        """Parameters of a trial that has `value`; None if the dimension cannot have it."""
        if self.options:
            index = index_of(self.options, value)
            return None if index is None else {self.path: index}
        if self.dimension.has_off and same(value, self.dimension.off):
            return {self.path: OFF_SHARE / 2} if self.folded else {str(self.switch): False}
        if (
            isinstance(value, bool)
            or not isinstance(value, (int, float))
            or not self.low <= value <= self.high
        ):
            return None
        if self.integer and value != int(value):
            return None
        if self.folded:
            return {self.path: self._fold(float(value))}
        number = int(value) if self.integer else float(value)
        return {self.path: number} if self.switch is None else {self.switch: True, self.path: number}

    def grid(self, points: int | None) -> list[Any]:
        """Its values for a grid: choices as they stand, off, then a range from end to end in `points` steps."""
        if self.options:
            return self.options
        ticks = [self._at(i / (points - 1)) for i in range(points)] if points else []
        off = [self.dimension.off] if self.dimension.has_off else []
        return off + sorted(set(ticks))

    def _at(self, share: float) -> int | float:
        """The value at `share` of the way from low to high."""
        if self.log:
            value = math.exp(math.log(self.low) + share * (math.log(self.high) - math.log(self.low)))
        else:
            value = self.low + share * (self.high - self.low)
        value = min(max(value, self.low), self.high)
        if share in (0.0, 1.0):
            value = self.high if share else self.low  # the ends exactly, not exp(log(end))
        return round(value) if self.integer else value

    def _unfold(self, u: float) -> Any:
        if u < OFF_SHARE:
            return self.dimension.off
        return self._at((u - OFF_SHARE) / (1 - OFF_SHARE))

    def _fold(self, value: float) -> float:
        if self.high == self.low:
            return 1.0
        if self.log:
            share = (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        else:
            share = (value - self.low) / (self.high - self.low)
        return OFF_SHARE + (1 - OFF_SHARE) * min(max(share, 0.0), 1.0)


def index_of(options: Sequence[Any], value: Any) -> int | None:
    return next((i for i, option in enumerate(options) if same(option, value)), None)
