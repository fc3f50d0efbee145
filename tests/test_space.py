"""Search spaces: what may be written, what is refused, and when a dimension is there."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.config.faults import Faults, SweepFileError
from sweeps.config.space import Dimension, active, read_dimension, read_space, restrict, same
from sweeps.config.yaml import read


def dimension(text: str, name: str = "train.lr") -> Dimension:
    document = read(text)
    faults = Faults(document.lines)
    result = read_dimension(document.values, "", name, faults)
    faults.raise_any("space")
    assert result is not None
    return result


def space(text: str) -> dict[str, Dimension]:
    document = read(text)
    faults = Faults(document.lines)
    result = read_space(document.values, "", faults)
    faults.raise_any("space")
    return result


def test_a_range_has_inclusive_bounds_and_may_be_off() -> None:
    found = dimension("{log_uniform: [1e-6, 0.2], or: 0}")
    assert found == Dimension("log_uniform", 1e-6, 0.2, off=0, has_off=True)
    assert list(found.corners()) == [1e-6, 0.2, 0]
    assert found.may_be(1e-6) and found.may_be(0.2) and found.may_be(0)
    assert not found.may_be(0.21) and not found.may_be(True) and not found.may_be("off")


def test_off_may_be_nothing() -> None:
    found = dimension("{uniform: [0, 1], or: null}")
    assert found.has_off and found.off is None


def test_integers_may_be_written_as_integral_floats() -> None:
    found = dimension("{log_integer: [1, 1e6]}")
    assert (found.low, found.high) == (1, 1_000_000)
    assert isinstance(found.high, int)
    assert not found.may_be(1.5)


def test_a_plain_list_is_a_choice() -> None:
    assert dimension("[adam, sgd]") == dimension("{choice: [adam, sgd]}") == Dimension("choice", choices=("adam", "sgd"))


def test_equal_bounds_are_one_value() -> None:
    assert dimension("{uniform: [2, 2]}").low == 2.0


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("{log_uniform: [0, 1]}", "above 0. To try off as well, start above 0 and add `or: 0`"),
        ("{log_uniform: [-1, 1]}", "both bounds must be above 0"),
        ("{log_integer: [0, 8]}", "logarithmic scale has no 0"),
        ("{uniform: [0.2, 0.1]}", "the bounds are reversed: write [0.1, 0.2]"),
        ("{integer: [4, 1]}", "the bounds are reversed: write [1, 4]"),
        ("{integer: [1, 2.5]}", "whole numbers"),
        ("{uniform: [1]}", "must be [low, high]"),
        ("{uniform: [1, 2, 3]}", "must be [low, high]"),
        ("{uniform: [true, 2]}", "must be [low, high]"),
        ("{uniform: 3}", "must be [low, high]"),
        ("{log_unifrm: [1, 2]}", "Did you mean 'log_uniform'?"),
        ("{uniform: [1, 2], log_uniform: [1, 2]}", "keep one"),
        ("{or: 0}", "needs one of uniform"),
        ("0.1", "A fixed value belongs in the section train"),
        ("[]", "at least one value"),
        ("[1, 2, 1.0]", "the choice 1.0 is given twice"),
        ("{choice: [1, 2], or: 0}", "add the value to the choices"),
        ("{uniform: [1, 2], when: {train.lr: 1}}", "cannot depend on itself"),
        ("{uniform: [1, 2], when: {model.name: []}}", "never holds"),
        ("{uniform: [1, 2], when: nmu}", "must be a mapping"),
    ],
)
def test_an_impossible_dimension_is_refused(text: str, part: str) -> None:
    with pytest.raises(SweepFileError) as error:
        dimension(text)
    assert part in str(error.value)


def test_true_and_1_are_two_choices() -> None:
    assert dimension("[1, true]").choices == (1, True)
    assert not same([1, 2], [True, 2])
    assert same({"a": [1]}, {"a": (1.0,)})


def test_a_path_outside_model_task_and_train_is_refused() -> None:
    with pytest.raises(SweepFileError, match="must be a dotted path into model, task or train"):
        space("{seeds.count: {integer: [1, 2]}}")
    with pytest.raises(SweepFileError, match="must be a dotted path"):
        space("{train: {integer: [1, 2]}}")
    with pytest.raises(SweepFileError, match="nothing to search"):
        space("{}")


def test_the_order_of_keys_does_not_matter() -> None:
    one = space("{train.lr: {uniform: [1, 2]}, model.dropout: {uniform: [0, 1]}}")
    other = space("{model.dropout: {uniform: [0, 1]}, train.lr: {uniform: [1, 2]}}")
    assert list(one.items()) == list(other.items())


# ---------------------------------------------------------------------------------------------- when

MOMENTUM = """
train.optimizer: [adam, sgd]
train.momentum: {uniform: [0, 0.9], when: {train.optimizer: sgd}}
model.dropout: {uniform: [0, 0.5], when: {model.name: [nmu, nau]}}
"""


def test_a_condition_on_the_cell_itself_is_decided_there() -> None:
    def own(name: str) -> Any:
        return lambda path: [name] if path == "model.name" else []

    assert "model.dropout" in restrict(space(MOMENTUM), own("nau"))
    assert "model.dropout" not in restrict(space(MOMENTUM), own("linear"))
    assert restrict(space(MOMENTUM), own("nau"))["model.dropout"].when == {}


def test_a_condition_on_another_dimension_stays() -> None:
    left = restrict(space(MOMENTUM), lambda path: [])
    assert left["train.momentum"].when == {"train.optimizer": ("sgd",)}
    assert active(left, {"train.optimizer": "sgd", "train.momentum": 0.5}) == {"train.optimizer": "sgd", "train.momentum": 0.5}
    assert active(left, {"train.optimizer": "adam", "train.momentum": 0.5}) == {"train.optimizer": "adam"}
    assert active(left, {}) == {}


def test_conditions_form_chains() -> None:
    chain = space("""
train.optimizer: {choice: [adam, sgd], when: {model.name: nmu}}
train.momentum: {uniform: [0.1, 0.9], or: 0, when: {train.optimizer: sgd}}
train.clip_norm: {uniform: [1, 2], when: {train.momentum: 0}}
""")
    parameters = {"train.optimizer": "sgd", "train.momentum": 0, "train.clip_norm": 1.5}
    inside = restrict(chain, lambda path: ["nmu"] if path == "model.name" else [])
    assert active(inside, parameters) == parameters
    assert active(inside, parameters | {"train.optimizer": "adam"}) == {"train.optimizer": "adam"}
    # Where the cell has no choice of optimizer, its own optimizer decides.
    left = restrict(chain, lambda path: {"model.name": ["nau"], "train.optimizer": ["sgd"]}.get(path, []))
    assert sorted(left) == ["train.clip_norm", "train.momentum"]
    assert left["train.momentum"].when == {}


def test_a_condition_that_another_dimension_cannot_meet_is_refused() -> None:
    with pytest.raises(SweepFileError, match=r"never holds: train.optimizer cannot be"):
        space(MOMENTUM.replace("train.optimizer: sgd", "train.optimizer: sdg"))


@given(st.floats(1e-9, 1e9), st.floats(1e-9, 1e9))
def test_bounds_are_accepted_exactly_when_they_are_in_order(a: float, b: float) -> None:
    for kind in ("uniform", "log_uniform"):
        text = f"{{{kind}: [{a!r}, {b!r}]}}"
        if a <= b:
            assert (dimension(text).low, dimension(text).high) == (a, b)
        else:
            with pytest.raises(SweepFileError, match="reversed"):
                dimension(text)
