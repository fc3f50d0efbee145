"""Checkpoints: exact for every lane, the same however many are written together, and one after another in batches."""

from __future__ import annotations

import dataclasses
import itertools
import json

import numpy as np
import pytest
import torch
from lanes import assert_same, lanes_of, pack_of, settings_of, train
from safetensors.torch import save
from torch.utils import _pytree as pytree

from sweeps.config.settings import build
from sweeps.training import pack as packs
from sweeps.training.lane import Curve
from sweeps.training.state import from_bytes, initial_state, stacked, to_bytes

CPU = torch.device("cpu")


def test_lanes_that_are_written_together_are_read_one_by_one_and_every_number_is_the_same() -> None:
    built = build(settings_of("nau", optimizer="adam"))
    states = [initial_state(built, seed, CPU) for seed in range(3)]
    curves = {
        "step": np.array([[0, 10], [0, 10], [0, 10]]),
        "error.interpolation": np.array([[1.5, np.nan], [0.1, np.inf], [-np.inf, 3e-45]], np.float32),
        "error.extrapolation": np.zeros((3, 2), np.float32),
        "sparsity_error": np.full((3, 2), 0.3, np.float32),
        "relative_error.extrapolation": np.ones((3, 2), np.float32),
    }
    best = pytree.tree_map(lambda t: t + 1, stacked([{"params": s["params"], "memory": s["memory"]} for s in states]))
    blobs = to_bytes(stacked(states), curves, np.array([0.1, 2.0, 1e9]), best)
    for k, blob in enumerate(blobs):
        state, curve, wall_time_s, kept = from_bytes(blob, states[0])
        assert wall_time_s == [0.1, 2.0, 1e9][k]
        for one, other in zip(pytree.tree_leaves(state), pytree.tree_leaves(states[k]), strict=True):
            assert one.dtype == other.dtype and torch.equal(one, other)
        for one, other in zip(pytree.tree_leaves(kept), pytree.tree_leaves(best), strict=True):
            assert torch.equal(one, other[k])
        assert list(curve.columns()) == list(curves)
        for name, column in curve.columns().items():
            assert np.array(column, curves[name].dtype).tobytes() == curves[name][k].tobytes()
        alone = pytree.tree_map(lambda t, k=k: t[k : k + 1], stacked(states))
        own_best = pytree.tree_map(lambda t, k=k: t[k : k + 1], best)
        own = {name: column[k : k + 1] for name, column in curves.items()}
        assert to_bytes(alone, own, np.array([0.1, 2.0, 1e9])[k : k + 1], own_best) == [blob]


def test_a_checkpoint_whose_curve_is_text_is_read() -> None:
    """As they were written before curves were tensors: stores have them."""
    state = initial_state(build(settings_of("nau")), 1, CPU)
    flat = {".".join(str(key.key) for key in path): leaf for path, leaf in pytree.tree_flatten_with_path(state)[0]}
    columns = {"step": [0, 10], "error": {"interpolation": [1.0, 0.5]}, "sparsity_error": [0.5, 0.4]}
    found = from_bytes(save(flat, {"curve": json.dumps(columns), "wall_time_s": "2.5"}), state)
    assert found[1:] == (Curve([0, 10], {"interpolation": [1.0, 0.5]}, [0.5, 0.4]), 2.5, None)


def test_batches_have_every_lane_in_turn_those_with_the_oldest_checkpoint_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "BATCH", 2)
    pack = pack_of(lanes_of(settings_of(steps=40), range(5)))
    pack.advance()
    batches = [list(pack.next_checkpoints(0.0)) for _ in range(4)]
    assert batches == [["seed 0", "seed 1"], ["seed 2", "seed 3"], ["seed 4"], []]  # none has moved since
    pack.advance()
    assert list(pack.next_checkpoints(0.0)) == ["seed 0", "seed 1"]
    pack.advance()
    assert list(pack.next_checkpoints(0.0)) == ["seed 2", "seed 3"]


def test_batches_end_when_their_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "BATCH", 1)
    pack = pack_of(lanes_of(settings_of(), range(6)), clock=itertools.count().__next__)  # each reading is a second later
    pack.advance()
    assert len(pack.next_checkpoints(3.0)) == 3


def test_lanes_that_go_on_from_older_and_newer_checkpoints_or_none_are_as_if_undisturbed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(packs, "BATCH", 2)
    settings = settings_of("nau", steps=40)
    undisturbed = train(lanes_of(settings, range(5)))
    pack = pack_of(lanes_of(settings, range(5)))
    kept = {}
    for _ in range(2):
        pack.advance()
        kept |= pack.next_checkpoints(0.0)
    assert {key: checkpoint.steps for key, checkpoint in kept.items()} == {
        "seed 0": 10,
        "seed 1": 10,
        "seed 2": 20,
        "seed 3": 20,
    }
    again = [dataclasses.replace(lane, checkpoint=kept.get(lane.key)) for lane in lanes_of(settings, range(5))]
    for key, result in train(again).items():
        assert_same(result, undisturbed[key])
