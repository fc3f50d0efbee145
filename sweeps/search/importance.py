"""How much each parameter of a finished search matters: PED-ANOVA (Watanabe et al. 2023), by Optuna.

The importance of a parameter is how far its values in the best configurations are distributed differently from those in all
of them (Pearson divergence), as a share of the sum over the parameters. Only the order of the configurations counts. It is
computed without random numbers.

A parameter that a configuration does not have, since its dimension is off or its `when` does not hold, is compared among the
configurations that have it, and weighted by how many of those and of the best ones have it (conditional PED-ANOVA, Optuna 5).
Whether a dimension with an off value is on is a parameter of its own.
"""

from __future__ import annotations

import importlib
import math
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import create_trial

from sweeps.config.space import Dimension
from sweeps.search.cell import Parameter

BEST_SHARE = 0.25
"""Share of the configurations that counts as the best. Optuna's default, 0.1, is too small for few: docs/benchmarks.md."""
LEAST_BEST = 10
"""Number of the best at least, but no more than half of all."""
FEW, FEW_EACH = 20, 10
"""Fewer configurations, in all or for each parameter, need a caution."""


@dataclass(frozen=True)
class Importance:
    """The importance of the parameters of one search."""

    shares: dict[str, float]
    """`<path>`, or `<path> is on`, -> share of the importance of all, highest first. They sum to 1."""
    best: int
    """Number of configurations that count as the best."""
    configurations: int
    """Number of configurations that were compared."""

    @property
    def caution(self) -> str | None:
        """A sentence where the configurations are few; else None."""
        if self.configurations >= max(FEW, FEW_EACH * len(self.shares)):
            return None
        return (
            f"Caution: {self.configurations} configurations are few for {len(self.shares)} parameters ({FEW_EACH} for each and "
            f"{FEW} in all are advisable); another search of this size may give shares that differ by tens of points."
        )


def importance(
    space: Mapping[str, Dimension], configurations: Sequence[Mapping[str, Any]], ranks: Sequence[int]
) -> Importance | None:
    """Return the importance of reaching the best ranks; None where fewer than two parameters vary, or the ranks do not.

    `configurations` has searched path -> value, and `ranks` are lowest for the best; equal ranks count alike. Configurations
    outside of the space, as the file's own may be, are left out.
    """
    parameters = [Parameter(path, dimension, conditional=True) for path, dimension in space.items()]
    distributions = {name: one for parameter in parameters for name, one in parameter.distributions().items()}
    trials: list[tuple[dict[str, Any], int]] = []
    for values, rank in zip(configurations, ranks, strict=True):
        parts = [parameter.to_trial(values[parameter.path]) for parameter in parameters if parameter.path in values]
        if None not in parts:
            trials.append(({name: value for part in parts if part is not None for name, value in part.items()}, rank))
    varying = [name for name in distributions if len({repr(trial[name]) for trial, _ in trials if name in trial}) > 1]
    best, least = _best(sorted(rank for _, rank in trials))
    if len(varying) < 2 or best == len(trials):
        return None
    study = optuna.create_study(direction="minimize", sampler=optuna.samplers.RandomSampler(seed=0))
    for trial, rank in trials:
        study.add_trial(create_trial(value=rank, params=trial, distributions={name: distributions[name] for name in trial}))
    _import_without_scikit_learn()
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=least / len(trials))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that few trials have a parameter
        found = optuna.importance.get_param_importances(study, evaluator=evaluator, params=varying)
    shares = dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))
    return Importance(shares, best, len(trials))


def _best(ranks: Sequence[int]) -> tuple[int, int]:
    """Return how many of these, in ascending order, count as the best, with and without those that equal the last one."""
    count = len(ranks)
    least = min(max(math.ceil(BEST_SHARE * count), LEAST_BEST), count // 2)
    return sum(rank <= ranks[least - 1] for rank in ranks) if least else count, least


def _import_without_scikit_learn() -> None:
    """Import optuna.importance, which makes use of scikit-learn in fANOVA only, but takes a second to import it.

    Optuna does without it where it is not installed, and None in `sys.modules` means that.
    """
    if "optuna.importance" in sys.modules or "sklearn" in sys.modules:
        return
    sys.modules["sklearn"] = None  # type: ignore[assignment]
    try:
        importlib.import_module("optuna.importance")
    finally:
        del sys.modules["sklearn"]
