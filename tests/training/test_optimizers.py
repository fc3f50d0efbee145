"""Optimisers against torch.optim's, clipping against torch's, and gradient noise against its formula."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from sweeps.training import optimizers
from sweeps.training.optimizers import OPTIMIZERS
from sweeps.training.random import Stream, seed_key

ADAM = {"lr": 0.01, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}
SGD = {"lr": 0.01, "momentum": 0.9}
CURVATURE = torch.tensor([[1.0, 30.0, 0.1], [5.0, 0.5, 2.0]])


def start() -> dict[str, Tensor]:
    drawn = torch.Generator().manual_seed(0)
    return {"bias": torch.randn(3, generator=drawn), "weight": torch.randn(2, 3, generator=drawn)}


def loss(params: dict[str, Tensor]) -> Tensor:
    return (CURVATURE * (params["weight"] - 1).square()).sum() + (
        params["weight"] @ params["bias"]
    ).sin().sum()


def with_torch(optimizer: Callable[..., Any], **options: Any) -> dict[str, Tensor]:
    params = {name: p.requires_grad_() for name, p in start().items()}
    theirs = optimizer(params.values(), **options)
    for _ in range(50):
        theirs.zero_grad()
        loss(params).backward()
        theirs.step()
    return {name: p.detach() for name, p in params.items()}


def with_ours(name: str, train: Any) -> dict[str, Tensor]:
    update, moment_names = OPTIMIZERS[name]
    params = start()
    moments = {m: {n: torch.zeros_like(p) for n, p in params.items()} for m in moment_names}
    for step in range(50):
        grads = torch.func.grad(loss)(params)
        params, moments = update(params, grads, moments, torch.tensor(step), train)
    return params


def assert_close(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("change", [{}, {"beta1": 0.5, "beta2": 0.9}, {"epsilon": 0.1, "lr": 0.1}])
def test_adam_follows_torchs_for_fifty_steps(change) -> None:
    train = ADAM | change
    theirs = with_torch(
        torch.optim.Adam, lr=train["lr"], betas=(train["beta1"], train["beta2"]), eps=train["epsilon"]
    )
    assert_close(with_ours("adam", SimpleNamespace(**train)), theirs)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_follows_torchs_for_fifty_steps(momentum) -> None:
    theirs = with_torch(torch.optim.SGD, lr=SGD["lr"], momentum=momentum)
    assert_close(with_ours("sgd", SimpleNamespace(**SGD | {"momentum": momentum})), theirs)


@pytest.mark.parametrize(("name", "train"), [("adam", ADAM), ("sgd", SGD)])
def test_a_lanes_own_number_does_what_a_plain_number_does(name, train) -> None:
    """Inside a pack learning rate and momenta are tensors."""
    tensors = SimpleNamespace(**{key: torch.tensor(value) for key, value in train.items()})
    assert_close(with_ours(name, tensors), with_ours(name, SimpleNamespace(**train)))


def test_the_first_step_of_adam_by_hand() -> None:
    """The first moments are (1 - beta) g and (1 - beta) g^2, so corrected g and g^2: a step of lr against the sign."""
    update, _ = OPTIMIZERS["adam"]
    zero, grad = {"w": torch.zeros(2)}, {"w": torch.tensor([4.0, -0.5])}
    params, moments = update(
        {"w": torch.tensor([1.0, 1.0])},
        grad,
        {"first": zero, "second": zero},
        torch.tensor(0),
        SimpleNamespace(**ADAM),
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
    for ours, parameter in zip(
        optimizers.clipped(grads, torch.tensor(largest)).values(), theirs, strict=True
    ):
        torch.testing.assert_close(ours, parameter.grad, rtol=1e-5, atol=1e-7)


def test_clipping_by_hand() -> None:
    grads = {"a": torch.tensor([3.0]), "b": torch.tensor([[0.0, 4.0]])}  # norm 5
    clipped = optimizers.clipped(grads, torch.tensor(1.0))
    assert clipped["a"].tolist() == pytest.approx([0.6])
    assert clipped["b"].tolist() == [pytest.approx([0.0, 0.8])]


@pytest.mark.parametrize("off", [0.0, torch.tensor(0.0)])
def test_a_clip_norm_of_zero_is_off(off) -> None:
    grads = start()
    assert all(torch.equal(g, grads[name]) for name, g in optimizers.clipped(grads, off).items())


def test_clipping_leaves_a_gradient_of_zero_alone() -> None:
    assert optimizers.clipped({"a": torch.zeros(2)}, torch.tensor(1.0))["a"].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("step", [0, 9, 100_000])
def test_gradient_noise_has_the_published_variance(step) -> None:
    eta, zeros = 0.3, {"a": torch.zeros(300, 100), "b": torch.zeros(20_000)}
    stream = Stream(seed_key(1, "noise"), step)
    noisy = optimizers.with_noise(
        zeros, optimizers.annealed_variance(torch.tensor(eta), torch.tensor(step)), stream
    )
    for noise in noisy.values():
        assert noise.double().mean().abs() < 4 * noise.double().std() / noise.numel() ** 0.5
        assert noise.double().var() == pytest.approx(eta / (1 + step) ** 0.55, rel=0.04)
    assert not torch.equal(noisy["a"].flatten()[:100], noisy["b"][:100])


@pytest.mark.parametrize("off", [0.0, torch.tensor(0.0)])
def test_a_gradient_noise_of_zero_is_off(off) -> None:
    grads = start()
    noisy = optimizers.with_noise(grads, off, Stream((1, 2)))
    assert all(torch.equal(g, grads[name]) for name, g in noisy.items())
