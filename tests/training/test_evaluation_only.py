"""Settings that only evaluation sees: the nine ranges of the single-module task train in one pack, compiled once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lanes import assert_same, finish, pack_of, settings_of, train

from sweeps.config.settings import float_leaves, structure
from sweeps.config.sweep_file import load
from sweeps.training import trainers
from sweeps.training.lane import Lane

DEFINITION = Path(__file__).parents[2] / "sweeps" / "definitions" / "single-module-nmu.yaml"


def nine() -> dict[str, Lane]:
    """A lane of each range, shortened; every other one has seed 1."""
    found = {}
    for i, cell in enumerate(load(DEFINITION).cells):
        task = {k: v for k, v in cell.settings["task"].items() if k != "name"}
        settings = settings_of("nmu", {"name": "single_module", "input_size": 2, **task})
        found[cell.labels["range"]] = Lane(cell.labels["range"], settings, i % 2)
    return found


def test_the_step_never_sees_what_only_evaluation_does() -> None:
    union = nine()["U[-2,2]"].settings
    assert len(union["task"]["extrapolation"]) == 2 and isinstance(union["task"]["extrapolation"][0], list)
    task_leaves = [path for path in float_leaves(union) if path.startswith("task.")]
    assert task_leaves == ["task.interpolation.0", "task.interpolation.1"]


def test_all_lanes_of_the_shipped_sweep_have_one_structure() -> None:
    assert len({structure(lane.settings) for lane in nine().values()}) == 1
    cells = load(DEFINITION).cells
    assert len(cells) == 9 and len({cell.key for cell in cells}) == 9


def test_settings_that_the_step_reads_are_structure() -> None:
    plain: dict[str, Any] = {"name": "single_module", "input_size": 2}
    ranges = {"interpolation": [[-2, -1], [1, 2]]}
    union, other = settings_of("nmu", {**plain, **ranges}), settings_of("nmu", {**plain, "operation": "add"})
    assert len({structure(s) for s in (settings_of("nmu", plain), union, other)}) == 3
    epsilon = settings_of("nmu", {**plain, "epsilon": 1e-4})
    assert structure(epsilon) == structure(settings_of("nmu", plain))


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_nine_ranges_are_one_pack_with_one_compilation_and_each_lane_is_as_if_alone(compiled) -> None:
    before = len(trainers._LANE_PROGRAMS)
    trained = pack_of(list(nine().values()), 9, compiled)
    together = finish(trained)
    assert len(trainers._LANE_PROGRAMS) <= before + 1 and len(together) == 9
    assert {result.outcome for result in together.values()} == {"unsolved"}
    assert compiled is (trained.why_uncompiled is None)
    assert together["U[-2,2]"].threshold == pytest.approx(together["U[1,2]"].threshold, rel=1e-9)
    assert len({round(result.curve["error.extrapolation"][0], 6) for result in together.values()}) == 9
    for label in ("U[-20,-10]", "U[-2,2]", "U[1,2]"):
        alone = train([nine()[label]], compiled=compiled)[label]
        assert_same(together[label], alone, rounding_of_evaluation=True)
