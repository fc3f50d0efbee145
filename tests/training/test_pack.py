"""Packs: a lane's figures are its own, whatever trains beside it and however often it is interrupted.

These run uncompiled. Bit for bit equality holds there as long as no exp, log or cosine is computed, since torch rounds those
differently at the ends of its vectors; test_pack_compiled.py has the whole rule.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from lanes import TOO_LARGE, assert_same, finish, lanes_of, pack_of, settings_of, tensors, train

from sweeps.training.compile import Recorded
from sweeps.training.lane import Checkpoint, Lane
from tasks.static import Static

TRAIN = {"lr": 0.01, "clip_norm": 1.0}
NAU = settings_of({"name": "nau", "dropout": 0.1}, **TRAIN)
NOT_A_NUMBER = settings_of({"name": "nau", "dropout": 0.1}, TOO_LARGE, **TRAIN)


def test_lanes_that_take_over_slots_equal_lanes_of_fresh_packs() -> None:
    together = train(lanes_of(NAU, range(8)))
    assert list(together) == [f"seed {seed}" for seed in range(8)]
    for first in (0, 3, 6):
        for key, alone in train(lanes_of(NAU, range(first, min(first + 3, 8)))).items():
            assert_same(together[key], alone)


def test_a_freed_slot_takes_the_next_lane_while_its_neighbours_go_on() -> None:
    short = settings_of({"name": "nau", "dropout": 0.1}, steps=10, **TRAIN)
    lanes = [*lanes_of(short, [0], "short"), *lanes_of(NAU, [1, 2, 3])]
    pack = pack_of(lanes)
    assert pack.advance() == []
    assert [result.key for result in pack.advance()] == ["short 0"]
    assert set(pack.checkpoints()) == {"seed 1", "seed 2", "seed 3"}
    late = finish(pack)["seed 3"]
    assert_same(late, train(lanes_of(NAU, [3]))["seed 3"])


@pytest.mark.parametrize("slots", [7, 25])
def test_a_lane_equals_itself_in_every_place_of_packs_of_every_size_beside_a_lane_that_diverges(slots) -> None:
    alone = train(lanes_of(NAU, [5]))["seed 5"]
    neighbours = lanes_of(NAU, range(100, 98 + slots), "other")
    bad = Lane("bad", NOT_A_NUMBER, 1)
    for place in (0, slots // 2, slots - 1):
        lanes = [*neighbours, bad]
        lanes.insert(place, Lane("seed 5", NAU, 5))
        results = train(lanes, slots)
        assert_same(results["seed 5"], alone, rounding_of_evaluation=True)
        assert results["bad"].outcome == "diverged"
        assert all(results[lane.key].outcome == "unsolved" for lane in neighbours)


def test_a_lane_whose_loss_is_not_finite_reports_the_step_and_keeps_its_last_finite_weights() -> None:
    results = train([Lane("bad", NOT_A_NUMBER, 1), *lanes_of(NAU, [1])])
    bad = results["bad"]
    assert (bad.outcome, bad.steps) == ("diverged", 0)
    assert bad.reason == "diverged at step 0: the loss is not finite"
    assert bad.curve["step"] == [0] and not bad.solved
    fresh = pack_of(lanes_of(NAU, [1]))
    fresh._fill()
    before = fresh.tensors["state"]["params"]
    for name in before:
        assert torch.equal(tensors(bad)[f"params.{name}"], before[name][0])


def test_a_lane_that_runs_away_in_the_middle_keeps_its_last_finite_weights_and_its_curve() -> None:
    """Squared error and steps far too long: the weights of a linear network grow until they overflow."""
    wild = settings_of("linear", optimizer="sgd", lr=0.5, steps=60)
    calm = settings_of("linear", optimizer="sgd", lr=1e-6, steps=60)
    results = train([Lane("wild", wild, 0), Lane("calm", calm, 0)])
    bad = results["wild"]
    assert bad.outcome == "diverged" and 0 < bad.steps < 60
    assert bad.reason is not None and bad.reason.startswith(f"diverged at step {bad.steps}: ")
    assert int(tensors(bad)["step"]) == bad.steps
    assert all(bool(t.isfinite().all()) for name, t in tensors(bad).items() if name.startswith("params"))
    assert bad.curve["step"] == list(range(0, bad.steps + 1, 10))
    assert_same(results["calm"], train([Lane("calm", calm, 0)])["calm"])


def test_an_evaluation_stands_at_every_interval_and_at_the_end_of_the_budget() -> None:
    result = train(lanes_of(settings_of(steps=25), [0]))["seed 0"]
    assert result.curve["step"] == [0, 10, 20, 25]
    assert (result.steps, result.outcome, result.reason) == (25, "unsolved", None)
    assert {len(s) for s in (result.curve["sparsity_error"], result.curve["error.extrapolation"])} == {4}


def test_training_ends_with_the_budget_however_far_the_next_evaluation_is() -> None:
    result = train(lanes_of(settings_of(steps=7, evaluate_every=2**63 - 1), [0]))["seed 0"]
    assert (result.curve["step"], result.steps, result.outcome) == ([0, 7], 7, "unsolved")


def test_lanes_of_different_budgets_share_a_pack() -> None:
    budgets = {"a": 5, "b": 10, "c": 35}
    results = train([Lane(name, settings_of(steps=steps), 0) for name, steps in budgets.items()])
    assert {name: result.steps for name, result in results.items()} == budgets
    assert results["a"].curve["step"] == [0, 5] and results["c"].curve["step"] == [0, 10, 20, 30, 35]
    for name in "ab":
        shared = results[name].curve["error.interpolation"][:-1]
        assert shared == results["c"].curve["error.interpolation"][: len(shared)]


def test_a_lane_that_stops_when_solved_ends_at_the_first_evaluation_below_the_threshold() -> None:
    """The sum of both inputs through one hidden value: all weights must be 1, where the clamp holds them exactly."""
    easy = {"input_size": 2, "subset_ratio": 1, "num_subsets": 1}
    options: dict[str, Any] = {"lr": 0.1, "steps": 80}
    early, whole = (
        train(lanes_of(settings_of({"name": "nau", "hidden": 1}, easy, stop=stop, **options), range(3)))
        for stop in ("solved", "never")
    )
    for key, result in early.items():
        assert result.outcome == "solved" and result.steps == result.converged_at < 80
        assert result.reason == f"stopped at step {result.steps}: the threshold is met"
        assert whole[key].converged_at == result.steps and whole[key].outcome == "solved"
        assert whole[key].steps == 80 and whole[key].reason is None


@pytest.mark.parametrize("rounds", [1, 3])
def test_a_lane_that_moves_to_another_pack_by_its_checkpoint_is_as_if_undisturbed(rounds) -> None:
    settings = settings_of({"name": "nau", "dropout": 0.1}, steps=35, **TRAIN)
    undisturbed = train(lanes_of(settings, range(4)), slots=7)
    pack = pack_of(lanes_of(settings, range(4)), 7)
    for _ in range(rounds):
        assert pack.advance() == []
    saved = pack.checkpoints()
    assert {c.steps for c in saved.values()} == {10 * rounds}
    moved = [dataclasses.replace(lane, checkpoint=saved[lane.key]) for lane in lanes_of(settings, range(4))]
    for key, result in train(moved[::-1]).items():
        assert_same(result, undisturbed[key])


@pytest.mark.parametrize("steps_done", [1, 4, 13])
def test_a_lane_cut_off_between_evaluations_is_as_if_undisturbed_beside_lanes_at_other_steps(steps_done) -> None:
    settings = settings_of({"name": "nau", "dropout": 0.1}, steps=35, **TRAIN)
    undisturbed = train(lanes_of(settings, range(4)), slots=7)
    pack = pack_of(lanes_of(settings, range(2)), 7)
    for _ in range(steps_done):
        pack._updates_per_run = 1
        assert pack.advance(until=0.0) == []  # time is always up: a step of one lane at a time
    saved = pack.checkpoints()
    assert sorted(checkpoint.steps for checkpoint in saved.values()) == [steps_done // 2, -(-steps_done // 2)]
    checkpoints = [saved[f"seed {seed}"] for seed in range(2)] + [None, None]
    moved = [
        dataclasses.replace(lane, checkpoint=blob) for lane, blob in zip(lanes_of(settings, range(4)), checkpoints, strict=True)
    ]
    results = train(moved, slots=7)
    for key, result in results.items():
        assert_same(result, undisturbed[key])
        assert result.curve["step"] == [0, 10, 20, 30, 35]


def test_a_final_state_off_the_steps_of_evaluation_is_not_continued() -> None:
    """A longer budget has no evaluation there, and the rules of training have used it."""
    final = train(lanes_of(settings_of(steps=25), [2]))["seed 2"]
    continued = train([Lane("seed 2", settings_of(steps=40), 2, Checkpoint(final.steps, final.state))])["seed 2"]
    assert_same(continued, train(lanes_of(settings_of(steps=40), [2]))["seed 2"])


def test_a_longer_budget_continues_the_final_state_of_a_shorter_one() -> None:
    short, long = settings_of(steps=20), settings_of(steps=35)
    final = train(lanes_of(short, [2]))["seed 2"]
    continued = train([Lane("seed 2", long, 2, Checkpoint(final.steps, final.state))])["seed 2"]
    assert_same(continued, train(lanes_of(long, [2]))["seed 2"])


def test_wall_time_is_counted_on_from_a_checkpoint() -> None:
    pack = pack_of(lanes_of(NAU, [0]))
    pack.advance()
    pack._wall_time_s[0] = 1000.0
    saved = pack.checkpoints()["seed 0"]
    assert train([Lane("seed 0", NAU, 0, saved)])["seed 0"].wall_time_s > 1000.0


@pytest.mark.parametrize("damage", ["another model's", "cut off"])
def test_a_lane_whose_checkpoint_cannot_be_used_starts_over_and_a_note_has_the_reason(damage) -> None:
    final = train(lanes_of(settings_of("linear" if damage == "another model's" else "nau"), [0]))["seed 0"]
    wrong = Checkpoint(final.steps, final.state if damage == "another model's" else final.state[:-1])
    pack = pack_of([Lane("seed 0", NAU, 0, wrong), *lanes_of(NAU, [1])])
    results = {}
    while not pack.done:
        results |= {result.key: result for result in pack.advance()}
    assert pack.note.startswith("seed 0 starts over, from step 0: a checkpoint ")
    for key, undisturbed in train(lanes_of(NAU, [0, 1])).items():
        assert_same(results[key], undisturbed)


def test_terms_that_are_left_out_because_they_are_zero_change_no_number() -> None:
    plain = settings_of("nau")
    zero_floats = frozenset({"model.dropout", "train.gradient_noise", "train.clip_norm", "train.momentum"})
    with_terms, without = (train(lanes_of(plain, range(3))), train(lanes_of(plain, range(3)), zero_floats=zero_floats))
    for key, result in with_terms.items():
        assert_same(result, without[key])


def test_a_lane_that_cannot_be_built_is_an_error_and_its_neighbours_go_on() -> None:
    impossible = {**NAU, "task": {**NAU["task"], "interpolation": [2.0, 1.0]}}
    results = train([*lanes_of(NAU, [0]), Lane("impossible", impossible, 0), *lanes_of(NAU, [1, 2])])
    bad = results["impossible"]
    assert (bad.outcome, bad.steps, bad.state, bad.curve) == ("error", 0, None, {})
    assert "low must be below high" in bad.reason
    alone = train(lanes_of(NAU, range(3)))
    for key, result in alone.items():
        assert_same(results[key], result, rounding_of_evaluation=True)


def test_a_lane_whose_threshold_cannot_be_computed_is_an_error_and_its_neighbours_have_their_results(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    computed: list[float] = []

    def threshold(task: Static) -> float:
        computed.append(0.0)
        if len(computed) == 2:
            raise ArithmeticError("no such threshold")
        return math.inf

    monkeypatch.setattr(Static, "threshold", threshold)
    results = train(lanes_of(NAU, range(3)), 3)
    outcomes = {lane.seed: (lane.outcome, lane.reason) for lane in results.values()}
    line = threshold.__code__.co_firstlineno + 3
    assert outcomes[1] == ("error", f"ArithmeticError: no such threshold (test_pack.py:{line})")
    assert outcomes[0] == outcomes[2] == ("solved", None)


def test_a_model_that_raises_in_its_forward_gives_errors_and_no_exception(tmp_path) -> None:
    source = "from arith_models.units.activations import Linear\n\nclass Broken(Linear):\n"
    source += "    def activation(self, x):\n        raise RuntimeError('no such gate')\n"
    (tmp_path / "broken_unit.py").write_text(source)
    settings = settings_of(str(tmp_path / "broken_unit.py"))
    results = train(lanes_of(settings, range(5)))
    assert len(results) == 5
    reason = "RuntimeError: no such gate (broken_unit.py:5)"
    assert {(r.outcome, r.steps, r.reason) for r in results.values()} == {("error", 0, reason)}


def test_ranges_are_a_lanes_own_numbers() -> None:
    near = settings_of("nau", {"interpolation": [1, 2], "extrapolation": [2, 6]})
    far = settings_of("nau", {"interpolation": [-3, -1], "extrapolation": [10, 20]})
    mixed = train([*lanes_of(near, [0, 1], "near"), *lanes_of(far, [0], "far")])
    alone = {**train(lanes_of(near, [0, 1], "near")), **train(lanes_of(far, [0], "far"))}
    for key, result in alone.items():
        assert_same(mixed[key], result, rounding_of_evaluation=True)
        assert mixed[key].threshold == result.threshold
    assert mixed["near 0"].threshold != mixed["far 0"].threshold


def test_learning_rate_clipping_dropout_and_penalties_are_a_lanes_own_numbers() -> None:
    plain = settings_of("nau")
    penalty = {"weight": 0.5, "start": 0, "end": 10}
    other = settings_of({"name": "nau", "dropout": 0.3, "sparsity_penalty": penalty}, **TRAIN)
    mixed = train([*lanes_of(plain, [0], "plain"), *lanes_of(other, [0, 1], "other")])
    alone = {**train(lanes_of(plain, [0], "plain")), **train(lanes_of(other, [0, 1], "other"))}
    for key, result in alone.items():
        assert_same(mixed[key], result, rounding_of_evaluation=True)
    assert not torch.equal(tensors(mixed["plain 0"])["params.first.weight"],
                           tensors(mixed["other 0"])["params.first.weight"])  # fmt: skip


def test_lanes_of_two_structures_cannot_share_a_pack() -> None:
    with pytest.raises(ValueError, match="one structure, but these have 2"):
        pack_of([*lanes_of(NAU, [0]), *lanes_of(settings_of("linear"), [0])])


def test_every_lane_has_a_place_from_the_beginning_however_few_slots_are_requested() -> None:
    assert pack_of(lanes_of(NAU, range(5)), 1).num_places == 5


def test_packs_of_one_structure_have_the_same_programs_however_many_lanes_they_have() -> None:
    first = pack_of(lanes_of(NAU, range(3)))
    finish(first)
    changed = settings_of({"name": "nau", "dropout": 0.4}, {"interpolation": [5, 7]}, steps=12, lr=0.5)
    second = pack_of(lanes_of(changed, range(7, 17)))
    finish(second)
    assert second.trainer.programs() is first.trainer.programs() and first.trainer.programs().step is not None


def test_programs_whose_own_tensors_alone_differ_have_one_graph_and_each_its_values() -> None:
    x = torch.linspace(0.0, 1.0, 7)
    tables = [torch.full((7,), factor) for factor in (2.0, 3.0)]
    recorded = [Recorded(lambda x, table=table: x * table, (x,), compiled=False) for table in tables]
    assert recorded[0].graph.code == recorded[1].graph.code
    for program, table in zip(recorded, tables, strict=True):
        assert not program.graph.graph.find_nodes(op="get_attr")
        assert torch.equal(program(x), x * table)


def test_seed_steps_count_the_updates_of_live_lanes_only() -> None:
    pack = pack_of([*lanes_of(settings_of(steps=15), [0]), *lanes_of(settings_of(steps=20), [1])], 7)
    finish(pack)
    assert pack.seed_steps == 35


def test_the_target_of_a_lane_is_its_seeds() -> None:
    """Seeds sum other inputs, so untrained networks that are equally poor have other errors."""
    results = train(lanes_of(NAU, range(3)))
    first = [result.curve["error.extrapolation"][0] for result in results.values()]
    assert len(set(first)) == 3 and all(math.isfinite(error) for error in first)


def evaluations(pack: Any, interpolation: list[float], extrapolation: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the evaluations of all lanes of a pack have these errors, one after another."""
    found = iter(zip(interpolation, extrapolation, strict=True))

    def evaluate(which: Any) -> dict[str, Any]:
        guide, test = next(found)
        columns = {"error.interpolation": guide, "error.extrapolation": test, "sparsity_error": 0.5}
        return {name: np.full(len(which), value, np.float32) for name, value in columns.items()}

    monkeypatch.setattr(pack.trainer, "evaluate", evaluate)


def test_a_lane_that_stops_when_solved_goes_on_while_its_best_evaluation_is_not_below_the_threshold(monkeypatch) -> None:
    """At step 10 the extrapolation error is 0, but the lowest interpolation error is that of step 0: so far it is unsolved."""
    pack = pack_of(lanes_of(settings_of(steps=50, stop="solved"), range(2)))
    evaluations(pack, [0.1, 0.5, 0.05], [1e9, 0.0, 0.0], monkeypatch)
    for result in finish(pack).values():
        assert (result.outcome, result.steps, result.best_step, result.converged_at) == ("solved", 20, 20, 10)


def test_a_lane_does_not_stop_as_solved_without_a_finite_interpolation_error(monkeypatch) -> None:
    pack = pack_of(lanes_of(settings_of(steps=30, stop="solved"), range(2)))
    evaluations(pack, [math.nan, math.inf, math.nan, math.nan], [0.0] * 4, monkeypatch)
    for result in finish(pack).values():
        assert (result.outcome, result.steps, result.converged_at) == ("unsolved", 30, 0)


def test_a_record_has_the_weights_of_the_best_evaluation_where_they_are_not_the_last_ones(monkeypatch) -> None:
    expected = {}
    for last_is_best in (False, True):
        pack = pack_of(lanes_of(settings_of(steps=30), [0, 1]))
        evaluations(pack, [0.5, 0.1, 0.1, 0.01 if last_is_best else 0.2], [1.0] * 4, monkeypatch)
        pack.advance()  # to step 10
        expected = {k: pack.tensors["state"]["params"]["first.weight"][k].clone() for k in (0, 1)}
        # A checkpoint between evaluations has them too.
        pack.advance()
        moved = [Lane(f"seed {k}", settings_of(steps=30), k, pack.checkpoints()[f"seed {k}"]) for k in (0, 1)]
        others = pack_of(moved)
        evaluations(others, [0.1, 0.01 if last_is_best else 0.2], [1.0] * 2, monkeypatch)
        for results in (finish(pack), finish(others)):
            for k in (0, 1):
                state = tensors(results[f"seed {k}"])
                assert ("best.params.first.weight" in state) is not last_is_best
                if not last_is_best:
                    assert results[f"seed {k}"].best_step == 10, "the first of equal ones"
                    assert torch.equal(state["best.params.first.weight"], expected[k])


def test_lanes_that_can_be_started_one_by_one_but_not_together_have_results(monkeypatch) -> None:
    pack = pack_of(lanes_of(NAU, range(3)))
    start = pack.trainer.start

    def refuse(starts: Any) -> None:
        if len(starts) > 1:
            raise MemoryError("too many")
        start(starts)

    monkeypatch.setattr(pack.trainer, "start", refuse)
    line = refuse.__code__.co_firstlineno + 2
    results = finish(pack)
    assert {(r.key, r.outcome, r.reason) for r in results.values()} == {
        (f"seed {k}", "error", f"MemoryError: too many (test_pack.py:{line})") for k in range(3)
    }


def test_the_clock_is_read_soon_after_a_lane_has_diverged(monkeypatch) -> None:
    """Its steps take no time, and must not count as speed."""
    options = {**TRAIN, "steps": 10**9, "evaluate_every": 10**9}
    bad = settings_of({"name": "nau", "dropout": 0.1}, TOO_LARGE, **options)
    good = settings_of({"name": "nau", "dropout": 0.1}, **options)
    clock = 0.0
    pack = pack_of([Lane("bad", bad, 1), *lanes_of(good, range(4))], clock=lambda: clock)
    counts: list[int] = []
    train_ = pack.trainer.train

    def counted(which: Any, steps: Any) -> None:
        nonlocal clock
        counts.append(int(steps.sum()))
        before = pack.trainer.state["step"].sum()
        train_(which, steps)
        clock += 1e-3 * int(pack.trainer.state["step"].sum() - before)

    monkeypatch.setattr(pack.trainer, "train", counted)
    pack.advance(until=1.0)
    assert len(counts) > 2 and max(counts) < 10**4
