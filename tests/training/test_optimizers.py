"""Optimisers and clipping against torch's; gradient noise and the decay of the learning rate against their formulas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from sweeps.config.settings import build, float_leaves, resolve
from sweeps.training import optimizers
from sweeps.training.optimizers import DOUBLE, OPTIMIZERS, LrDecay
from sweeps.training.random import Stream, seed_key, signed
from sweeps.training.state import initial_state
from sweeps.training.step import PURPOSES, LaneFunctions, with_params

ADAM = {"lr": 0.01, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}
SGD = {"lr": 0.01, "momentum": 0.9}
CURVATURE = torch.tensor([[1.0, 30.0, 0.1], [5.0, 0.5, 2.0]])


def start() -> dict[str, Tensor]:
    drawn = torch.Generator().manual_seed(0)
    return {"bias": torch.randn(3, generator=drawn), "weight": torch.randn(2, 3, generator=drawn)}


def loss(params: dict[str, Tensor]) -> Tensor:
    return (CURVATURE * (params["weight"] - 1).square()).sum() + (params["weight"] @ params["bias"]).sin().sum()


def with_torch(optimizer: Callable[..., Any], **options: Any) -> dict[str, Tensor]:
    params = {name: p.requires_grad_() for name, p in start().items()}
    theirs = optimizer(params.values(), **options)
    for _ in range(50):
        theirs.zero_grad()
        loss(params).backward()
        theirs.step()
    return {name: p.detach() for name, p in params.items()}


def with_ours(name: str, settings: dict[str, Any]) -> dict[str, Tensor]:
    optimizer = OPTIMIZERS[name]
    assert sorted(optimizer.settings) == sorted(settings)
    params = start()
    moments = {m: {n: torch.zeros_like(p) for n, p in params.items()} for m in optimizer.moments}
    for step in range(50):
        grads = torch.func.grad(loss)(params)
        params, moments = optimizer.update(params, grads, moments, torch.tensor(step), **settings)
    return params


def assert_close(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("change", [{}, {"beta1": 0.5, "beta2": 0.9}, {"epsilon": 0.1, "lr": 0.1}])
def test_adam_follows_torchs_for_fifty_steps(change) -> None:
    train = ADAM | change
    theirs = with_torch(torch.optim.Adam, lr=train["lr"], betas=(train["beta1"], train["beta2"]), eps=train["epsilon"])
    assert_close(with_ours("adam", train), theirs)


@pytest.mark.parametrize("change", [{}, {"beta1": 0.3, "beta2": 0.9}, {"epsilon": 1e-4, "lr": 0.0123}])
@pytest.mark.parametrize("as_tensors", [False, True])
def test_adam_computes_what_torchs_does_to_the_last_bits(change, as_tensors) -> None:
    """The same operations in the same order on the same gradients: what is left is one rounding where torch fuses two."""
    train = ADAM | change
    ours = start()
    theirs = {name: torch.nn.Parameter(p.clone()) for name, p in ours.items()}
    optimizer = torch.optim.Adam(
        theirs.values(), lr=train["lr"], betas=(train["beta1"], train["beta2"]), eps=train["epsilon"], foreach=False
    )
    settings = {name: torch.tensor(value, dtype=torch.float64) for name, value in train.items()} if as_tensors else train
    moments = {m: {n: torch.zeros_like(p) for n, p in ours.items()} for m in OPTIMIZERS["adam"].moments}
    for step in range(50):
        grads = torch.func.grad(loss)(ours)
        for name, parameter in theirs.items():
            parameter.grad = grads[name].clone()
        optimizer.step()
        ours, moments = optimizers.adam(ours, grads, moments, torch.tensor(step), **settings)
    for name, parameter in theirs.items():
        torch.testing.assert_close(ours[name], parameter.detach(), rtol=5e-7, atol=5e-7)
        state = optimizer.state[parameter]
        torch.testing.assert_close(moments["first"][name], state["exp_avg"], rtol=5e-7, atol=1e-7)
        torch.testing.assert_close(moments["second"][name], state["exp_avg_sq"], rtol=5e-7, atol=0.0)


@pytest.mark.parametrize("exponent", [18, 19, 20, 21])
def test_adam_overflows_where_torchs_does(exponent) -> None:
    """torch's second moment is finite to 5.8e20, where grad * grad alone would be infinite from 1.8e19 on."""
    parameter = torch.nn.Parameter(torch.ones(1))
    theirs = torch.optim.Adam([parameter], lr=0.01, foreach=False)
    gradient = torch.tensor([5.0 * 10**exponent])
    parameter.grad = gradient.clone()
    theirs.step()
    zero = {"w": torch.zeros(1)}
    params, moments = optimizers.adam(
        {"w": torch.ones(1)}, {"w": gradient}, {"first": zero, "second": zero}, torch.tensor(0), **ADAM
    )
    assert params["w"].tolist() == parameter.tolist()
    assert moments["second"]["w"].tolist() == theirs.state[parameter]["exp_avg_sq"].tolist()
    assert (moments["second"]["w"].item() == float("inf")) == (exponent == 21)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_follows_torchs_for_fifty_steps(momentum) -> None:
    theirs = with_torch(torch.optim.SGD, lr=SGD["lr"], momentum=momentum)
    assert_close(with_ours("sgd", SGD | {"momentum": momentum}), theirs)


@pytest.mark.parametrize(("name", "train"), [("adam", ADAM), ("sgd", SGD)])
def test_a_lanes_own_number_does_what_a_plain_number_does(name, train) -> None:
    """Inside a pack learning rate and momenta are tensors."""
    tensors = {key: torch.tensor(value) for key, value in train.items()}
    assert_close(with_ours(name, tensors), with_ours(name, train))


def test_the_first_step_of_adam_by_hand() -> None:
    """The first moments are (1 - beta) g and (1 - beta) g^2, so corrected g and g^2: a step of lr against the sign."""
    zero, grad = {"w": torch.zeros(2)}, {"w": torch.tensor([4.0, -0.5])}
    params, moments = optimizers.adam(
        {"w": torch.tensor([1.0, 1.0])}, grad, {"first": zero, "second": zero}, torch.tensor(0), **ADAM
    )
    assert params["w"].tolist() == pytest.approx([0.99, 1.01])
    assert moments["first"]["w"].tolist() == pytest.approx([0.4, -0.05])
    assert moments["second"]["w"].tolist() == pytest.approx([0.016, 0.00025])


@pytest.mark.parametrize("largest", [0.5, 5.0, 1e6])
def test_clipping_scales_a_lane_as_torch_scales_a_model(largest) -> None:
    grads = {name: 3 * p for name, p in start().items()}
    theirs = [torch.nn.Parameter(torch.zeros_like(g)) for g in grads.values()]
    for parameter, gradient in zip(theirs, grads.values(), strict=True):
        parameter.grad = gradient.clone()
    torch.nn.utils.clip_grad_norm_(theirs, largest)
    for ours, parameter in zip(optimizers.clip_norm(grads, torch.tensor(largest)).values(), theirs, strict=True):
        torch.testing.assert_close(ours, parameter.grad, rtol=1e-5, atol=1e-7)


def test_clipping_by_hand() -> None:
    grads = {"a": torch.tensor([3.0]), "b": torch.tensor([[0.0, 4.0]])}  # norm 5
    clipped = optimizers.clip_norm(grads, torch.tensor(1.0))
    assert clipped["a"].tolist() == pytest.approx([0.6])
    assert clipped["b"].tolist() == [pytest.approx([0.0, 0.8])]


@pytest.mark.parametrize("off", [0.0, torch.tensor(0.0)])
def test_a_clip_norm_of_zero_is_off(off) -> None:
    grads = start()
    assert all(torch.equal(g, grads[name]) for name, g in optimizers.clip_norm(grads, off).items())


def test_clipping_leaves_a_gradient_of_zero_alone() -> None:
    assert optimizers.clip_norm({"a": torch.zeros(2)}, torch.tensor(1.0))["a"].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("step", [0, 9, 100_000])
def test_gradient_noise_has_the_published_variance(step) -> None:
    eta, nothing = 0.3, {"a": torch.zeros(300, 100), "b": torch.zeros(20_000)}
    stream = Stream(seed_key(1, "noise"), step)
    noisy = optimizers.add_noise(nothing, optimizers.annealed_variance(torch.tensor(eta), torch.tensor(step)), stream)
    for noise in noisy.values():
        assert noise.double().mean().abs() < 4 * noise.double().std() / noise.numel() ** 0.5
        assert noise.double().var() == pytest.approx(eta / (1 + step) ** 0.55, rel=0.04)
    assert not torch.equal(noisy["a"].flatten()[:100], noisy["b"][:100])


@pytest.mark.parametrize("off", [0.0, torch.tensor(0.0)])
def test_a_gradient_noise_of_zero_is_off(off) -> None:
    grads = start()
    noisy = optimizers.add_noise(grads, off, Stream((1, 2)))
    assert all(torch.equal(g, grads[name]) for name, g in noisy.items())


@pytest.mark.parametrize("largest", [0.0, torch.tensor(0.0), torch.tensor(0.1)])
def test_clipping_elements(largest) -> None:
    grads = {"a": torch.tensor([-3.0, 0.05]), "b": torch.tensor([[0.1, 4.0, -0.1]])}
    clipped = optimizers.clip_value(grads, largest)
    for name, grad in grads.items():
        assert torch.equal(clipped[name], grad.clamp(-0.1, 0.1) if largest > 0 else grad)


def factors(decay: LrDecay, means: list[float]) -> list[float]:
    """The factor after each period of two steps whose losses have these means."""
    memory, found = decay.initial_memory(), []
    for i, mean in enumerate(means):
        for step in (2 * i, 2 * i + 1):
            memory = decay.remember(memory, torch.tensor(mean), torch.tensor(step))
        found.append(memory["factor"].item())
    return found


def test_two_worse_compares_with_a_mean_that_is_two_periods_old() -> None:
    decay = LrDecay(rule="two_worse", factor=0.5, period=2)
    assert factors(decay, [3.0, 2.0, 2.5, 2.1, 1.0, 1.5]) == [1, 1, 1, 0.5, 0.5, 0.5]
    assert factors(decay, [1.0, 5.0]) == [1, 1], "never within the first two periods"


def test_worst_of_four_compares_with_the_three_means_before() -> None:
    decay = LrDecay(rule="worst_of_four", factor=0.5, period=2)
    assert factors(decay, [1.0, 2.0, 3.0, 2.5, 3.1, 3.0]) == [1, 1, 1, 1, 0.5, 0.5]


def test_the_factor_stops_at_the_floor() -> None:
    decay = LrDecay(rule="two_worse", factor=0.1, floor=0.3, period=2)
    assert factors(decay, [1.0, 2.0, 3.0])[-1] == pytest.approx(0.3)


def test_bad_settings_of_the_decay_are_reported_together() -> None:
    with pytest.raises(ValueError, match=r"factor = 2.*must lie in \[0, 1\].*period = 0 must be at least 1"):
        LrDecay(factor=2.0, period=0)


def test_an_unknown_optimizer_is_refused_with_the_names_of_the_registry() -> None:
    _, faults, _ = resolve({"model": "nau", "task": "static", "train": {"steps": 10, "optimizer": "adm"}})
    assert [str(fault) for fault in faults] == [
        "train.optimizer: must be 'adam', 'adamax' or 'sgd', but got 'adm'. Did you mean 'adam'?"
    ]


@pytest.mark.parametrize("model", ["gated_nau_nmu", "nalu", "nmu"])
def test_a_lane_is_trained_as_torch_optim_adam_trains_the_same_module(model) -> None:
    """The same batches for 30 steps. The first gradients of Gated NAU/NMU on products of 17 numbers pass 1.8e19."""
    task = {"name": "static", "operation": "mul", "input_size": 17, "interpolation": [1, 6]}
    settings, faults, _ = resolve({"model": model, "task": task, "train": {"steps": 30, "batch": 16, "lr": 0.01}})
    assert settings is not None, faults
    functions = LaneFunctions(build(settings), frozenset())
    state = initial_state(functions.built, 1, torch.device("cpu"))
    floats = {
        path: torch.tensor(value, dtype=torch.float64 if path in DOUBLE else torch.float32)
        for path, value in float_leaves(settings).items()
    }
    keys = {name: torch.tensor([signed(w) for w in seed_key(1, name)], dtype=torch.int32) for name in PURPOSES}
    data = {name: torch.from_numpy(array) for name, array in functions.built.task.instance(1).items()}
    theirs = {name: torch.nn.Parameter(p.clone()) for name, p in state["params"].items()}
    optimizer = torch.optim.Adam(theirs.values(), lr=0.01)
    for _ in range(30):
        ctx, (x, target) = functions.context(state, keys), functions.sample(state, floats, keys, data)
        y, penalties = functional_call(functions.model(floats), theirs, (x, ctx))
        optimizer.zero_grad()
        functions.total(state, floats, y, target, penalties)[0].backward()
        optimizer.step()
        with torch.no_grad():
            with_params(functions.model(floats), theirs, lambda model: model.constrain())
        state = functions.step(state, floats, keys, torch.tensor(30), data, {})
    assert state["step"].item() == 30
    for name, parameter in theirs.items():
        torch.testing.assert_close(state["params"][name], parameter.detach(), rtol=1e-5, atol=1e-6)
