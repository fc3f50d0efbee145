"""Lanes that restart with new weights by iNALU's rule, and gradients whose elements are clipped, as iNALU's are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lanes import assert_same, finish, lanes_of, pack_of, settings_of, tensors, train

from sweeps.training.lane import Checkpoint, Lane, LaneResult
from sweeps.training.pack import Pack

FAR = {"name": "single_module", "input_size": 2, "interpolation": [1000, 2000], "extrapolation": [2000, 3000]}
NEAR = {**FAR, "interpolation": [1, 2], "extrapolation": [2, 6]}


def inalu(steps: int = 60, lr: float = 1e-12, task: Any = FAR, **model: Any) -> dict[str, Any]:
    """A lane that does not learn, at errors of about a million. It restarts once more than 20 steps are stored: at step 20."""
    return settings_of({"name": "inalu", "reinit_stored": 20, **model}, task, steps=steps, clip_value=0.1, lr=lr)


def restarted_at(result: LaneResult) -> int:
    return int(tensors(result)["restarted_at"])


def weights(pack: Pack, slot: int) -> torch.Tensor:
    found: torch.Tensor = pack.tensors["state"]["params"]["unit.Wm_hat"][slot].clone()
    return found


def test_a_stalled_lane_takes_new_weights_at_an_evaluation_and_its_neighbours_keep_theirs() -> None:
    stalled, stubborn = inalu(), inalu(reinit_threshold=1e30)
    pack = pack_of([*lanes_of(stalled, [0]), *lanes_of(stubborn, [1], "stubborn")])
    pack.advance(), pack.advance()
    before = weights(pack, 0)
    pack.advance()
    state = pack.tensors["state"]
    assert state["restarted_at"][:2].tolist() == [20, 0]
    assert (weights(pack, 0) - before).abs().max() > 0.05
    results = finish(pack)
    assert restarted_at(results["seed 0"]) >= 20 and restarted_at(results["stubborn 1"]) == 0
    assert results["seed 0"].curve["step"] == [0, 10, 20, 30, 40, 50, 60]
    assert_same(results["stubborn 1"], train(lanes_of(stubborn, [1], "stubborn"))["stubborn 1"])


def test_a_lane_that_learns_does_not_restart() -> None:
    learning, still = (inalu(lr=lr, task=NEAR, reinit_threshold=0.0) for lr in (0.01, 1e-12))
    results = train([Lane("learning", learning, 0), Lane("still", still, 0)])
    assert restarted_at(results["learning"]) == 0 < restarted_at(results["still"])


def test_every_start_of_every_seed_has_its_own_weights() -> None:
    seen = []
    for stored in (20, 30):  # new weights at step 20, and at step 30
        pack = pack_of(lanes_of(inalu(reinit_stored=stored), range(3)))
        for _ in range(stored // 10 + 1):
            pack.advance()
        assert pack.tensors["state"]["restarted_at"].tolist() == [stored] * 3
        seen += [weights(pack, slot) for slot in range(3)]
    seen += [tensors(r)["params.unit.Wm_hat"] for r in train(lanes_of(inalu(reinit=False), range(3))).values()]
    distances = [(one - other).abs().max() for i, one in enumerate(seen) for other in seen[:i]]
    assert len(seen) == 9 and min(distances) > 1e-3


def test_a_restart_draws_weights_by_the_program_that_drew_the_first_ones() -> None:
    pack = pack_of(lanes_of(inalu(), range(3)), compiled=True)
    assert pack._fill() == []
    params = pack.tensors["state"]["params"]
    first = {name: t.clone() for name, t in params.items()}
    pack.trainer.redraw(1, pack.built, 1, "restart 20")
    assert all(not torch.equal(t[1], first[name][1]) and torch.equal(t[2], first[name][2]) for name, t in params.items())
    pack.trainer.redraw(1, pack.built, 1, "initialise")
    assert all(torch.equal(t, first[name]) for name, t in params.items())


def test_the_error_at_a_restart_is_that_of_the_old_weights_whoever_else_comes_and_goes() -> None:
    """A neighbour that ends at the same evaluation lets a waiting lane in, and everything is evaluated once more."""
    alone = train(lanes_of(inalu(), [0]))["seed 0"]
    short = lanes_of(inalu(steps=20), [1, 2, 3, 4], "short")
    together = train([*lanes_of(inalu(), [0]), *short])["seed 0"]
    assert_same(alone, together, rounding_of_evaluation=True)
    assert restarted_at(alone) >= 20


@pytest.mark.parametrize("rounds", [2, 3, 4])
def test_a_lane_that_moves_by_its_checkpoint_restarts_where_it_would_have(rounds) -> None:
    undisturbed = train(lanes_of(inalu(), range(3)))
    pack = pack_of(lanes_of(inalu(), range(3)))
    for _ in range(rounds):
        assert pack.advance() == []
    saved = pack.checkpoints()
    moved = [Lane(lane.key, lane.settings, lane.seed, saved[lane.key]) for lane in lanes_of(inalu(), [2, 0, 1])]
    for key, result in train(moved).items():
        assert_same(result, undisturbed[key])


def test_a_longer_budget_goes_on_from_an_end_that_was_a_restart() -> None:
    short = train(lanes_of(inalu(steps=20), [0]))["seed 0"]
    assert short.state is not None and restarted_at(short) == 20
    longer = train([Lane("seed 0", inalu(), 0, Checkpoint(short.steps, short.state))])["seed 0"]
    assert_same(longer, train(lanes_of(inalu(), [0]))["seed 0"])


def test_a_clip_value_is_a_lanes_own_number() -> None:
    """One step of gradient descent at a rate of 1/2: no weight moves by more than half of what the clip lets through."""
    options: dict[str, Any] = {"steps": 1, "evaluate_every": 1, "optimizer": "sgd"}

    def after(clip: float, lr: float = 0.5) -> Lane:
        return Lane(f"{clip} {lr}", settings_of("nmu", NEAR, clip_value=clip, lr=lr, **options), 3)

    start, free, wide, narrow = (
        tensors(result)["params.unit.weight"]
        for result in train([after(0.0, 1e-12), after(0.0), after(0.01), after(1e-3)]).values()
    )
    assert (free - start).abs().max() > 0.01
    assert (wide - start).abs().flatten().tolist() == pytest.approx([0.005] * 2, rel=1e-3)
    assert (narrow - start).abs().flatten().tolist() == pytest.approx([0.0005] * 2, rel=1e-3)
