"""Thresholds from a reference sweep: test errors that a model with the exact solution built in stays below.

Madsen and Johansen (2020), appendix on sequential MNIST: for each test length mean + t * sd / √k of the test errors of k
reference runs, each at its best validation step, t being the 0.99 quantile of Student's distribution. Their script has 8
degrees of freedom whatever k is; ours has k - 1.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from typing import Any

from scipy.stats import t as student

from sweeps.errors import UserError

CONFIDENCE = 0.99


def thresholds(report: Mapping[str, Any]) -> dict[str, float]:
    """Split -> threshold, of a report of one configuration. Raises UserError where there are no two runs to compare."""
    entries = report["configurations"]
    if len(entries) != 1:
        raise UserError(
            f"sweep {report['sweep']!r} has {len(entries)} configurations; thresholds come from one reference model"
        )
    lanes = [lane for lane in entries[0]["lanes"] if lane["error"] and None not in lane["error"].values()]
    if len(lanes) < 2:
        raise UserError(
            f"sweep {report['sweep']!r} has {len(lanes)} seeds with finite errors; at least 2 are needed"
        )
    splits = [split for split in lanes[0]["error"] if split != "interpolation"]
    return {split: _upper([lane["error"][split] for lane in lanes]) for split in splits}


def _upper(errors: list[float]) -> float:
    spread = statistics.stdev(errors) / math.sqrt(len(errors))
    return statistics.fmean(errors) + float(student.ppf(CONFIDENCE, len(errors) - 1)) * spread
