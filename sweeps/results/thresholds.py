"""Thresholds from a reference sweep: upper bounds of the test errors of a model with the exact solution built in.

Madsen and Johansen (2020), appendix on sequential MNIST: for each test length mean + t * sd / √k of the test errors of k
reference runs, each at its best validation step, t being the 0.99 quantile of Student's distribution. Their script has 8
degrees of freedom for every k; here there are k - 1.
"""

from __future__ import annotations

import math
import statistics

from scipy.stats import t as student

from sweeps.errors import UserError
from sweeps.results.report import Report

CONFIDENCE = 0.99


def thresholds(report: Report) -> dict[str, float]:
    """Return split -> threshold, of a report of one configuration.

    Raises UserError for several configurations, and for fewer than two seeds with finite errors.
    """
    if len(report.configurations) != 1:
        raise UserError(
            f"sweep {report.name!r} has {len(report.configurations)} configurations; thresholds come from one reference model"
        )
    errors = [
        {split: value for split, value in result.error.items() if value is not None}
        for result in report.configurations[0].results
        if result.error and None not in result.error.values()
    ]
    if len(errors) < 2:
        raise UserError(f"sweep {report.name!r} has {len(errors)} seeds with finite errors; at least 2 are needed")
    splits = [split for split in sorted(errors[0]) if split != "interpolation"]
    return {split: _upper([error[split] for error in errors]) for split in splits}


def _upper(errors: list[float]) -> float:
    spread = statistics.stdev(errors) / math.sqrt(len(errors))
    return statistics.fmean(errors) + float(student.ppf(CONFIDENCE, len(errors) - 1)) * spread
