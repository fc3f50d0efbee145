"""Compiled packs: the rule that a lane equals itself everywhere, bit for bit, and what happens without a compiler."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lanes import TOO_LARGE, assert_same, finish, lanes_of, pack_of, settings_of, tensors, train

from sweeps.training.lane import Lane, LaneResult

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

EVERYTHING = {"lr": 0.01, "gradient_noise": 1e-4, "clip_norm": 1.0}
TEST_FOLDER = Path(__file__).parents[1]


def model_with_dropout(name: str) -> dict[str, Any]:
    return {"name": name, "dropout": 0.05}


def in_three_places(name: str, slots: int) -> list[LaneResult]:
    """One lane in the first, the middle and the last slot, beside one that is not a number."""
    options = {**EVERYTHING, "steps": 2000, "evaluate_every": 1000}
    settings = settings_of(model_with_dropout(name), **options)
    bad = Lane("bad", settings_of(model_with_dropout(name), TOO_LARGE, **options), 0)
    lanes = [bad, *lanes_of(settings, range(100, 96 + slots), "other")] if slots > 3 else [bad]
    places = [0, slots // 2, slots - 1] if slots > 3 else [0, 2]
    for place in places:
        lanes.insert(place, Lane(f"place {place}", settings, 5))
    results = train(lanes, slots, compiled=True)
    assert len(results) == slots and results["bad"].outcome == "diverged"
    found = [results[f"place {place}"] for place in places]
    if slots == 3:
        other = lanes_of(settings, [100], "other")
        found.append(train([*other, Lane("middle", settings, 5), bad], 3, compiled=True)["middle"])
    return found


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("nau", (7, 25, 100)), ("nalu", (25,)), ("nmu", (25,))],
)  # fmt: skip
def test_a_lane_equals_itself_after_two_thousand_steps_in_every_place_of_packs_of_every_size(name, sizes) -> None:
    first, *others = in_three_places(name, 3)
    assert first.steps == 2000 and math.isfinite(first.curve["error.interpolation"][-1])
    for slots in sizes:
        others += in_three_places(name, slots)
    for other in others:
        assert_same(first, other)


SHORT = settings_of(model_with_dropout("nau"), **EVERYTHING)


def test_a_second_pack_with_other_numbers_reuses_the_compiled_programs_of_the_first() -> None:
    first = pack_of(lanes_of(SHORT, range(3)), compiled=True)
    results = finish(first)
    other = settings_of(
        {"name": "nau", "dropout": 0.3}, {"interpolation": [5, 7], "extrapolation": [-3, 3]},
        steps=33, lr=0.5, gradient_noise=0.0, clip_norm=0.1,
    )  # fmt: skip
    second = pack_of(lanes_of(other, range(7, 12)), compiled=True)
    assert {r.outcome for r in (results | finish(second)).values()} == {"unsolved"}
    assert second.trainer.programs() is first.trainer.programs()
    assert first.why_uncompiled is None and second.why_uncompiled is None


def test_interrupted_refilled_and_moved_lanes_equal_undisturbed_ones() -> None:
    undisturbed = train(lanes_of(SHORT, range(5)), compiled=True)
    pack = pack_of(lanes_of(SHORT, [0, 1, 2]), compiled=True)
    assert pack.advance() == []
    saved = pack.checkpoints()
    moved = [Lane(lane.key, SHORT, lane.seed, saved.get(lane.key)) for lane in lanes_of(SHORT, [4, 2, 0, 3, 1])]
    for key, result in train(moved, compiled=True).items():
        assert_same(result, undisturbed[key])


def test_compiled_and_uncompiled_agree_up_to_rounding_over_five_steps() -> None:
    settings = settings_of(model_with_dropout("nau"), steps=5, **EVERYTHING)
    compiled, plain = (train(lanes_of(settings, range(3)), compiled=flag) for flag in (True, False))
    for key, result in compiled.items():
        for name, tensor in tensors(result).items():
            torch.testing.assert_close(tensor, tensors(plain[key])[name], rtol=1e-4, atol=1e-5)
        assert result.curve["error.extrapolation"] == pytest.approx(plain[key].curve["error.extrapolation"], rel=1e-4)


def test_without_a_working_compiler_a_pack_trains_uncompiled_and_has_the_reason(tmp_path) -> None:
    script = f"""
import sys
sys.path.insert(0, {str(TEST_FOLDER)!r})
from lanes import finish, lanes_of, pack_of, settings_of
pack = pack_of(lanes_of(settings_of(steps=10), range(3)), compiled=True)
print([(r.outcome, r.steps) for r in finish(pack).values()])
print(pack.why_uncompiled)
"""
    environment = {**os.environ, "CXX": "/bin/false", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        cwd=TEST_FOLDER.parent, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    outcomes, why = done.stdout.strip().splitlines()
    assert outcomes == str([("unsolved", 10)] * 3)
    assert why.startswith("/bin/false could not compile a lane program")
    assert "training runs uncompiled" in done.stderr


def test_terms_that_are_left_out_of_the_step_change_no_bit_of_a_lane() -> None:
    """NMU: its product's gradient changed with the layout of the hidden values, when dropout could be left out."""
    settings = settings_of("nmu", steps=500, evaluate_every=250)
    all_zero = frozenset({"model.dropout", "train.gradient_noise", "train.clip_norm", "train.momentum"})
    kept = train(lanes_of(settings, range(3)), 3, compiled=True)
    left = train(lanes_of(settings, range(3)), 3, zero_floats=all_zero, compiled=True)
    for key, lane in kept.items():
        assert_same(lane, left[key])
