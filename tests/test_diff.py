"""Editing the file of a sweep that has begun."""

from __future__ import annotations

import pytest

from sweeps.config.diff import Change, difference
from sweeps.config.sweep_file import parse

BEGUN = """\
question: which?
task: {name: static, operation: add}
train: {steps: 10_000, lr: 1e-3}
compare:
  model: [nau, nac]
  range: [{label: low, task: {interpolation: [1, 2]}}]
seeds: 25
search:
  sampler: tpe
  configurations: 6
  space: {train.lr: {log_uniform: [1e-4, 1e-1]}, model.dropout: {uniform: [0, 0.5]}}
"""

SPACE = "{train.lr: {log_uniform: [1e-4, 1e-1]}, model.dropout: {uniform: [0, 0.5]}}"
REORDERED_SPACE = """
    model.dropout: {uniform: [0, 0.5], when: {model.name: [nac, nau]}}
    train.lr: {log_uniform: [0.0001, .1]}"""


def edited(*changes: tuple[str, str], begun: str = BEGUN) -> Change:
    text = begun
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return difference(parse(begun, "a.yaml").document, parse(text, "b.yaml"))


@pytest.mark.parametrize(
    "change",
    [
        ("question: which?", "# a comment\nquestion: which one?"),
        ("question: which?\n", "resources: {cpus: 2, slots: 50}\nbudget: {hours: 3}\n"),
        ("{steps: 10_000, lr: 1e-3}", "{lr: 0.001, steps: 1e4}"),
        ("lr: 1e-3", "lr: 1e-3, batch: 128, optimizer: adam"),  # what the default was anyway
        ("seeds: 25", "seeds: {first: 0, count: 25}"),
        ("model: [nau, nac]", "model: [nac, {name: nau, label: nau}]"),
        ("sampler: tpe", "sampler: {name: tpe, seed: 0}\n  parallel: 8\n  objective: {par2: minimize}"),
        (SPACE,
         REORDERED_SPACE),
        ("  model: [nau, nac]\n  range: [{label: low, task: {interpolation: [1, 2]}}]",
         "  range: [{label: low, task: {interpolation: [1, 2]}}]\n  model: [nau, nac]"),
    ],
)  # fmt: skip
def test_an_edit_that_changes_no_lane_is_no_difference(change: tuple[str, str]) -> None:
    assert edited(change) == Change("nothing")
    assert edited(change).message == ""


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("seeds: 25", "seeds: 100"), "seeds: 25 -> 100"),
        (("seeds: 25", "seeds: {count: 30}"), "seeds: 25 -> 30"),
        (("configurations: 6", "configurations: 10"), "search.configurations: 6 -> 10 in every cell"),
        (("[nau, nac]", "[nau, linear, nac]"), "compare: 1 more cell: model=linear range=low"),
        (("steps: 10_000", "steps: 20_000"), "train.steps: 10,000 -> 20,000, continued from checkpoints"),
    ],
)
def test_more_of_the_same_is_an_extension(change: tuple[str, str], expected: str) -> None:
    found = edited(change)
    assert found.kind == "extension"
    assert found.differences == (expected,)
    assert expected in found.message and "--name" not in found.message


def test_several_extensions_are_listed_together() -> None:
    found = edited(("seeds: 25", "seeds: 50"), ("configurations: 6", "configurations: 8"), ("[nau, nac]", "[nau, nac, nmu]"))
    assert (found.kind, len(found.differences)) == ("extension", 3)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("seeds: 25", "seeds: 20"), "seeds: 20, 21, 22, 23, 24 left out"),
        (("seeds: 25", "seeds: {first: 1000, count: 100}"), "left out"),
        (("configurations: 6", "configurations: 5"), "search.configurations: 6 -> 5"),
        (("configurations: 6", "configurations: 6\n  parallel: 2"), "search.parallel: 8 -> 2"),
        (("sampler: tpe", "sampler: random"), "search.sampler: 'tpe' -> 'random'"),
        (("sampler: tpe", "sampler: {name: tpe, seed: 1}"), "search.seed: 0 -> 1"),
        (("sampler: tpe", "sampler: {name: tpe, n_startup_trials: 2}"), "search.sampler_options: {} -> {n_startup_trials: 2}"),
        (("sampler: tpe", "objective: success_rate"), "search.objective: 'par2' -> 'success_rate'"),
        (
            ("sampler: tpe", "objective: [par2, seed_steps]"),
            "search.objective: 'par2' -> ['minimize par2', 'minimize seed_steps'] would change what was already suggested",
        ),
        (("sampler: tpe", "constraints: {diverged: {at_most: 0}}"), "search.constraints: [] -> ['diverged at_most 0.0']"),
        (("1e-1", "1e0"), "search.space.train.lr: log_uniform [0.0001, 0.1] -> log_uniform [0.0001, 1.0]"),
        (("[1e-4, 1e-1]", "[1e-4, 1e-1], or: 0.5"), "log_uniform [0.0001, 0.1] or 0.5"),
        ((", model.dropout: {uniform: [0, 0.5]}", ""), "search.space.model.dropout: uniform [0.0, 0.5] -> not searched"),
        (("[nau, nac]", "[nau]"), "cell model=nac range=low left out"),
        (("label: low", "label: small"), "left out, model=nau range=small, model=nac range=small new"),
        (("lr: 1e-3", "lr: 2e-3"), "train.lr: 0.001 -> 0.002"),
        (("lr: 1e-3", "lr: 1e-3, stop: solved"), "train.stop: 'never' -> 'solved'"),
        (("operation: add", "operation: sub"), "task.operation: 'add' -> 'sub'"),
        (("[nau, nac]", "[{name: nau, clamp: false, label: nau}, nac]"), "clamp: true -> false (in model=nau range=low)"),
        (("steps: 10_000", "steps: 9_000"), "train.steps: 10,000 -> 9,000; there can only be more"),
    ],
)
def test_anything_else_is_refused_with_the_difference(change: tuple[str, str], expected: str) -> None:
    found = edited(change)
    assert found.kind == "refusal"
    assert any(expected in difference for difference in found.differences), found.differences
    assert "--name NEW" in found.message


def test_a_refusal_lists_all_that_is_refused_and_nothing_that_is_not() -> None:
    found = edited(("lr: 1e-3", "lr: 2e-3"), ("sampler: tpe", "sampler: random"), ("seeds: 25", "seeds: 50"))
    assert (found.kind, len(found.differences)) == ("refusal", 2)


def test_more_steps_are_refused_where_a_schedule_is_a_share_of_the_budget() -> None:
    begun = BEGUN.replace("[nau, nac]", "[{name: nau, sparsity_penalty: {weight: 1, start: 40%, end: 80%}, label: nau}, nac]")
    found = edited(("steps: 10_000", "steps: 20_000"), begun=begun)
    assert found.kind == "refusal"
    expected = "\n".join(found.differences)
    assert "would move model.sparsity_penalty.start, model.sparsity_penalty.end, a share of the budget" in expected
    assert "(in model=nau range=low)" in expected


def test_a_share_written_as_the_steps_it_stands_for_is_nothing() -> None:
    begun = BEGUN.replace("[nau, nac]", "[{name: nau, sparsity_penalty: {weight: 1, start: 40%, end: 80%}, label: nau}, nac]")
    assert edited(("40%", "4000"), ("80%", "8000"), begun=begun).kind == "nothing"


def test_a_search_cannot_be_added_or_taken_out() -> None:
    without = BEGUN.partition("search:")[0]
    assert edited((BEGUN, without)).differences[0] == "search: taken out"
    assert difference(parse(without, "a").document, parse(BEGUN, "a")).kind == "refusal"


def test_a_broken_old_file_is_a_refusal() -> None:
    sound = parse(BEGUN, "a")
    broken = sound.document | {"model": "gone"}
    assert "cannot be read any more" in difference(broken, sound).message


def test_the_order_of_objectives_and_constraints_may_change_and_nothing_else_of_them() -> None:
    line = "objective: [par2, seed_steps]\n  constraints: {diverged: {at_most: 0}, errors: {at_most: 1}}"
    begun = BEGUN.replace("sampler: tpe", line)
    turned = "objective: {seed_steps: minimize, par2: minimize}\n  constraints: {errors: {at_most: 1}, diverged: {at_most: 0}}"
    assert edited((line, turned), begun=begun).kind == "nothing"
    assert edited(("par2, seed_steps", "par2, {seed_steps: maximize}"), begun=begun).kind == "refusal"
    assert edited(("{at_most: 1}", "{at_most: 1.0000001}"), begun=begun).kind == "refusal"
