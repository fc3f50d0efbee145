"""Thresholds from a reference sweep."""

from __future__ import annotations

import math
from typing import Any

import pytest

from sweeps.results.thresholds import thresholds


def report(*errors: dict[str, float | None]) -> dict[str, Any]:
    lanes = [{"seed": i, "error": error} for i, error in enumerate(errors)]
    return {"sweep": "reference", "configurations": [{"lanes": lanes}]}


def test_a_threshold_is_the_mean_and_two_point_eight_nine_six_standard_errors_for_nine_runs() -> None:
    """t(0.99, 8) = 2.896, as published. Errors 1 to 9: mean 5, sd sqrt(7.5)."""
    found = thresholds(report(*({"interpolation": 9.0, "extrapolation": float(e)} for e in range(1, 10))))
    assert found == {"extrapolation": pytest.approx(5 + 2.896 * math.sqrt(7.5) / 3, rel=1e-4)}


def test_runs_without_finite_errors_are_left_out_and_one_run_is_too_few() -> None:
    with pytest.raises(ValueError, match="has 1 seeds with finite errors; at least 2"):
        thresholds(report({"extrapolation": 1.0}, {"extrapolation": None}, {}))


def test_several_configurations_are_refused() -> None:
    both = report({"extrapolation": 1.0})
    both["configurations"] *= 2
    with pytest.raises(ValueError, match="has 2 configurations"):
        thresholds(both)
