"""Known answers from the papers, at a budget that fits, and the engine's speed as a ratio within one run."""

from __future__ import annotations

import statistics

import pytest

from sweeps.bench.engine import bench
from sweeps.config.settings import build, float_leaves, lane_key, resolve
from sweeps.training.lane import Lane, LaneResult
from sweeps.training.pack import Pack


def trained(model: str, operation: str, steps: int, seeds: int) -> list[LaneResult]:
    settings, faults, _ = resolve(
        {"model": model, "task": {"name": "static", "operation": operation}, "train": {"steps": steps}}
    )
    assert settings is not None, faults
    zero_floats = frozenset(path for path, value in float_leaves(settings).items() if value == 0.0)
    pack = Pack([Lane(lane_key(settings, seed), settings, seed) for seed in range(seeds)], seeds, build, zero_floats)
    results: list[LaneResult] = []
    while not pack.done:
        results += pack.advance()
    assert pack.why_uncompiled is None
    return results


@pytest.mark.slow
def test_nau_learns_subtraction_as_soon_as_published() -> None:
    """Madsen and Johansen (2020), table 2: 100 of 100 seeds, median converged-at 5,000, never below 4,000."""
    converged = [r.converged_at for r in trained("nau", "sub", 8000, 20)]
    found = [step for step in converged if step is not None]
    assert len(found) >= 18
    assert 4000 <= statistics.median(found) <= 6000


@pytest.mark.slow
def test_a_pack_of_100_lanes_is_many_times_as_fast_as_a_plain_loop() -> None:
    """The bench measures about 25 on a quiet machine; half of the promised 20 must hold on a busy one."""
    result = bench(100, rounds=3)
    assert statistics.median(result.ratios) > 10, result.line()
    assert "times as fast" in result.line()
