"""The driver's benchmark runs a whole sweep: every lane comes to an end, and few files are left."""

from __future__ import annotations

import pytest

from sweeps.bench.driver import bench_driver


@pytest.mark.slow
@pytest.mark.parametrize("tracked", [False, True])
def test_a_sweep_of_simulated_packs_ends_whole_and_leaves_few_files(tracked: bool) -> None:
    result = bench_driver(lanes=200, workers=7, tracked=tracked, on_progress=lambda line: None)
    assert (result.lanes, result.packs) == (200, 20)
    assert result.files < 10
    assert "200 lanes in 20 packs, 7 simulated workers" in result.line()
