"""KEY=VALUE arguments over a sweep file."""

from __future__ import annotations

import pytest

from sweeps.config.faults import SweepFileError
from sweeps.config.sweep_file import parse

SMALL = "task: {name: static, operation: add}\nmodel: nau\ntrain: {steps: 1000}\n"

FULL = """\
task: {name: static, operation: mul}
train: {steps: 3_000_000, lr: 1e-3}
compare:
  model: [nmu, nalu]
  range:
    - {label: "U[1,2]",   task: {interpolation: [1, 2],   extrapolation: [2, 6]}}
    - {label: "U[10,20]", task: {interpolation: [10, 20], extrapolation: [20, 40]}}
seeds: {first: 0, count: 100}
search:
  sampler: {name: tpe, seed: 3}
  configurations: 40
  space:
    train.lr: {log_uniform: [1e-4, 1e-1]}
"""


def faults(text: str, *overrides: str) -> str:
    with pytest.raises(SweepFileError) as error:
        parse(text, "bad.yaml", overrides)
    return str(error.value)


def test_overrides_set_leaves_and_make_missing_ones() -> None:
    sweep = parse(
        FULL,
        "x.yaml",
        ["train.steps=2000", "seeds.count=5", "search.space.train.lr.or=0.5", "compare.model=[nmu]"],
    )
    assert sweep.seeds == tuple(range(5))
    assert sweep.cells[0].settings["train"]["steps"] == 2000
    assert sweep.cells[0].space["train.lr"].off == 0.5
    assert len(sweep.cells) == 2


def test_an_override_opens_short_forms() -> None:
    text = SMALL.replace("{name: static, operation: add}", "static")
    text += "seeds: 100\nsearch: {sampler: tpe, configurations: 2, space: {train.lr: [1, 2]}}"
    sweep = parse(
        text, "x.yaml", ["task.operation=sub", "model.clamp=false", "seeds.first=7", "search.sampler.seed=5"]
    )
    assert sweep.cells[0].settings["task"] == {"name": "static", "operation": "sub"}
    assert sweep.cells[0].settings["model"] == {"name": "nau", "clamp": False}
    assert (sweep.seeds[0], len(sweep.seeds)) == (7, 100)
    assert sweep.search is not None and sweep.search.seed == 5


def test_dotted_keys_of_spaces_and_axes_can_be_added() -> None:
    sweep = parse(
        SMALL,
        "x.yaml",
        [
            "search.configurations=3",
            "search.space.train.lr={log_uniform: [1e-3, 1]}",
            "compare.task.operation=[add, sub]",
        ],
    )
    assert [cell.key for cell in sweep.cells] == ["task.operation=add", "task.operation=sub"]
    assert sweep.cells[0].space["train.lr"].high == 1.0


def test_the_text_of_a_sweep_has_its_overrides_in_it() -> None:
    sweep = parse(FULL, "x.yaml", ["train.steps=2000", "search=null"])
    again = parse(sweep.text, "x.yaml")
    assert again.document == sweep.document
    assert again.cells == sweep.cells
    assert sweep.text.startswith("# x.yaml with train.steps=2000 search=null\n")


def test_a_fault_of_an_override_names_the_override() -> None:
    told = faults(SMALL, "train.stepz=3", "seeds.count=0", "nonsense", "train.steps.x=1", "a=[1")
    assert "'train.stepz=3': train.stepz: is not a setting here. Did you mean 'steps'?" in told
    assert "'seeds.count=0': seeds.count: must be a whole number from 1" in told
    assert "'nonsense': write KEY=VALUE" in told
    assert "'train.steps.x=1': train.steps is 1000, which has no 'x'" in told
    assert "'a=[1': not YAML" in told


def test_items_of_lists_are_numbered_from_0() -> None:
    text = "task: static\ntrain: {steps: 1000}\ncompare: {model: [nau, nac]}"
    assert parse(text, "x.yaml", ["compare.model.0.hidden=3"]).cells[0].key == "model=nau hidden=3"
    assert "compare.model is a list of 2" in faults(text, "compare.model.7=nau")
