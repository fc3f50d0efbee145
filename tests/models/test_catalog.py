"""What every unit keeps to. A new file in arith_models/units is tested here by existing."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import re
import sys
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from sweeps.catalog import find, names
from sweeps.describing import about_model
from sweeps.training.random import Stream, seed_key

UNITS = [name for name in names("model") if not getattr(find("model", name), "is_cell", False)]
SHAPES = [(10, 2, 1), (4, 3, 2), (1, 1, 1)]  # inputs, hidden, outputs
ROWS = 5
# Published to start from constants: what differs between their seeds is what they draw later.
START_ALIKE = {"gradient_bandit_nac", "gumbel_mnac", "gumbel_nac"}
TWO_WEIGHTS = {"gated_nau_nmu"}  # one above the other in the effective weight


def network(unit: str, inputs: int = 10, hidden: int = 2, outputs: int = 1, seed: int = 1) -> nn.Module:
    two_layer, cls = find("network", "two_layer"), find("model", unit)
    config = two_layer.Config(hidden=hidden)
    model = two_layer(config, [partial(cls, cls.Config())] * 2, inputs, outputs)
    for parameter in model.parameters():
        nn.init.constant_(parameter, float("nan"))  # so that one left out is seen
    with torch.no_grad():
        model.initialise(Stream(seed_key(seed, "initialise")))
    return model


def context(step: float = 0.0, training: bool = True, seed: int = 3) -> Any:
    return SimpleNamespace(
        step=torch.tensor(step), training=training, stream=Stream(seed_key(seed, "model")),
        last_error=torch.tensor(1.0), dropout=lambda x, rate: x,
    )  # fmt: skip


def batch(inputs: int = 10) -> Tensor:
    return Stream(seed_key(9, "batch")).uniform((ROWS, inputs), 1.0, 2.0)


@pytest.fixture(params=UNITS)
def unit(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize(("inputs", "hidden", "outputs"), SHAPES)
def test_it_builds_and_maps_rows_of_inputs_to_rows_of_outputs(unit, inputs, hidden, outputs) -> None:
    model = network(unit, inputs, hidden, outputs)
    y_BO, penalties = model(batch(inputs), context())
    assert y_BO.shape == (ROWS, outputs) and y_BO.isfinite().all()
    assert all(p.shape == () and p.isfinite() for p in penalties.values())
    for weight, rows, columns in zip(
        model.effective_weights(), (hidden, outputs), (inputs, hidden), strict=True
    ):
        assert weight.shape[1] == columns and weight.shape[0] % rows == 0  # several matrices may be stacked


def test_initialise_fills_every_parameter_from_the_stream_alone(unit) -> None:
    before = torch.get_rng_state()
    one, same, other = network(unit), network(unit), network(unit, seed=2)
    assert torch.equal(torch.get_rng_state(), before), f"{unit} touches torch's global generator"
    for (name, p), q in zip(one.named_parameters(), same.parameters(), strict=True):
        assert p.isfinite().all(), f"{unit}: initialise leaves {name} as it was"
        assert torch.equal(p, q), f"{unit}: {name} does not depend on the stream alone"
    alike = all(torch.equal(p, q) for p, q in zip(one.parameters(), other.parameters(), strict=True))
    assert alike == (unit in START_ALIKE)


def test_forward_is_pure_and_draws_nothing_outside_of_its_stream(unit) -> None:
    model, x, before = network(unit), batch(), torch.get_rng_state()
    state = {name: p.clone() for name, p in model.state_dict().items()}
    first, second = model(x, context())[0], model(x, context())[0]
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(p, state[name]) for name, p in model.state_dict().items())


def test_evaluation_draws_nothing(unit) -> None:
    model, x = network(unit), batch()
    contexts = [context(training=False, seed=seed) for seed in (3, 4)]
    first, second = (model(x, ctx)[0] for ctx in contexts)
    assert torch.equal(first, second)
    fresh = context().stream.uniform((4,))
    assert torch.equal(contexts[0].stream.uniform((4,)), fresh), f"{unit} draws in evaluation"


def test_units_whose_seeds_start_alike_draw_in_training(unit) -> None:
    if unit in START_ALIKE:
        model, x = network(unit), batch()
        assert not torch.equal(model(x, context(seed=3))[0], model(x, context(seed=4))[0])


def test_rows_do_not_touch_each_other(unit) -> None:
    model, x = network(unit), batch()
    whole = model(x, context())[0]
    for row in range(ROWS):
        torch.testing.assert_close(model(x[row : row + 1], context())[0], whole[row : row + 1])


def test_a_gradient_reaches_every_parameter(unit) -> None:
    """Over several starts and inputs: a rectifier may be silent in one of them, and an imaginary weight without negative
    inputs. With a single output there is nothing for MC-FC to redistribute."""
    reached: dict[str, bool] = {}
    for seed, x_BI in itertools.product(range(5), (batch(), batch() - 1.5)):
        model = network(unit, outputs=2, seed=seed)
        y_BO, penalties = model(x_BI, context(step=1.5e6))
        if not y_BO.isfinite().all():  # a logarithm of a negative input; positive ones are tested above
            continue
        ((y_BO - 3).square().mean() + sum(penalties.values())).backward()
        for name, p in model.named_parameters():
            assert p.grad is not None and p.grad.isfinite().all(), f"{unit}: {name}"
            reached[name] = reached.get(name, False) or bool(p.grad.any())
    assert all(reached.values()), reached


def test_constrain_is_idempotent_and_keeps_what_it_has_constrained_finite(unit) -> None:
    model = network(unit)
    with torch.no_grad():
        for i, parameter in enumerate(model.parameters()):
            parameter.copy_(3 * Stream(seed_key(i, "model")).normal(parameter.shape))
        model.constrain()
        once = [p.clone() for p in model.parameters()]
        model.constrain()
    for first, second in zip(once, model.parameters(), strict=True):
        assert first.isfinite().all() and torch.equal(first, second)
    assert all(w.isfinite().all() for w in model.effective_weights())


def test_a_fresh_model_is_within_its_constraints(unit) -> None:
    model = network(unit)
    before = [p.clone() for p in model.parameters()]
    with torch.no_grad():
        model.constrain()
    assert all(torch.equal(p, q) for p, q in zip(before, model.parameters(), strict=True))


def test_everything_is_float32(unit) -> None:
    model = network(unit)
    y_BO, penalties = model(batch(), context())
    made = [y_BO, *penalties.values(), *model.parameters(), *model.effective_weights()]
    assert {tensor.dtype for tensor in made} == {torch.float32}


def test_under_vmap_each_lane_is_as_if_alone(unit) -> None:
    lanes = [network(unit, seed=seed) for seed in range(3)]
    params, _ = stack_module_state(lanes)
    x_KBI = torch.stack([batch() + k for k in range(3)])

    def lane(params: dict[str, Tensor], x_BI: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return functional_call(lanes[0], params, (x_BI, context(step=1.5e6)))

    y_KBO, penalties_K = torch.vmap(lane)(params, x_KBI)
    for k, model in enumerate(lanes):
        y_BO, penalties = model(x_KBI[k], context(step=1.5e6))
        torch.testing.assert_close(y_KBO[k], y_BO, rtol=1e-4, atol=1e-5)
        for name, value in penalties.items():
            torch.testing.assert_close(penalties_K[name][k], value)


def test_the_docstring_gives_equation_shapes_and_source(unit) -> None:
    cls = find("model", unit)
    text = f"{sys.modules[cls.__module__].__doc__} {cls.__doc__}"
    assert re.search(r"\((?:19|20)\d\d\)|\([A-Z]+ 20\d\d\)", text), f"{unit}: no paper with its year"
    assert "Shapes:" in text and "y = " in text.replace("y_o = ", "y = "), f"{unit}: no shapes or equation"


def test_every_setting_has_a_default_and_an_explanation(unit) -> None:
    """In the class that declares it, which may be one that several units share."""
    cls = find("model", unit)
    cls.Config()
    for config in filter(dataclasses.is_dataclass, cls.Config.__mro__):
        source = inspect.getsource(config)
        for name in config.__annotations__:
            explained = rf'^ +{name}: (.*|Literal\[(\n.*)*?\n +\]) = .*\n +"""'
            assert re.search(explained, source, re.MULTILINE), f"{unit}: {config.__qualname__}.{name}"


def test_what_is_shown_of_a_unit_names_every_setting_once_and_explains_it(unit) -> None:
    shown = about_model(unit).split(f"unit {unit} (version")[1].split("settings")[-1].splitlines()
    for name in find("model", unit).Config.__dataclass_fields__:
        (line,) = [i for i, text in enumerate(shown) if text.startswith(f"  {name}: ")]
        assert shown[line + 1].startswith("      "), f"{unit}: {name}"


def test_a_choice_is_shown_with_its_words() -> None:
    assert "  log: Literal['normal', 'safe', 'max_safe'] = 'normal'\n" in about_model("nac_mul")
