"""ResNets against torch's own modules: outputs, gradients, running statistics, initial values."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from plain_resnet import given_to, plain, running
from torch.func import functional_call, grad

from arith_models import resnet
from arith_models.images import num_channels
from arith_models.resnet import ResNet
from sweeps.training.random import Stream, seed_key
from sweeps.training.step import Context

NAMES = ["resnet18", "resnet34", "resnet50"]


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resnet, "WIDTHS", (4, 8, 16, 32))


def initialised(name: str, channels: int = 3, outputs: int = 2) -> ResNet:
    model = ResNet(name, channels, outputs)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(torch.nan)
        model.initialise(Stream(seed_key(1, "initialise")))
    return model


def context(training: bool, memory: dict[str, torch.Tensor] | None = None) -> Context:
    return Context(torch.tensor(0.0), training, Stream((0, 0)), torch.tensor(0.0), memory)


def pictures(count: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    ("name", "published"),
    [("resnet18", 11_689_512), ("resnet34", 21_797_672), ("resnet50", 25_557_032)],
)
def test_there_are_as_many_weights_as_in_the_published_networks(name, published) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in ResNet(name, 3, 1000).parameters()) == published


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("narrow")
def test_outputs_gradients_and_running_statistics_are_those_of_torchs_modules(name) -> None:
    """In float64: three steps of training on other pictures each, then evaluation by what was remembered."""
    model, other = initialised(name).double(), plain(name, 3, 2).double()
    params = {n: p.detach() for n, p in model.named_parameters()}
    given_to(other, params)
    memory = {n: t.double() for n, t in model.initial_memory().items()}
    for step in range(3):
        x = pictures(5, step)

        def loss(params: dict[str, torch.Tensor], x: torch.Tensor = x) -> tuple[torch.Tensor, object]:
            y, noted = functional_call(model, params, (x, context(training=True)))
            return y.square().mean(), (y, noted)

        grads, (y, noted) = grad(loss, has_aux=True)(params)
        expected = other(x)
        torch.testing.assert_close(y, expected)
        other.zero_grad()
        expected.square().mean().backward()
        memory = model.remember(memory, {n: t.unsqueeze(-1) for n, t in noted.items()})
    assert_gradients(other, grads)
    torch.testing.assert_close(memory, running(other))
    other.eval()
    y, noted = functional_call(model, params, (x, context(False, memory)))
    torch.testing.assert_close(y, other(x))
    assert noted == {}


def assert_gradients(other: torch.nn.Module, grads: dict[str, torch.Tensor]) -> None:
    """Ours, laid into a network of the same shape, beside torch's."""
    of_ours = copy.deepcopy(other)
    given_to(of_ours, grads)
    for mine, theirs in zip(of_ours.parameters(), other.parameters(), strict=True):
        assert theirs.grad is not None
        torch.testing.assert_close(mine.detach(), theirs.grad)


@pytest.mark.usefixtures("narrow")
def test_steps_of_time_enter_the_running_statistics_one_after_another() -> None:
    """From 0: 0.9 (0.1 * 1) + 0.1 * 2 = 0.29."""
    model = initialised("resnet18")
    start = model.initial_memory()
    noted = {n: torch.tensor([1.0, 2.0]).expand(len(t), 2) for n, t in start.items()}
    assert model.remember(start, noted)["mean"].unique().tolist() == pytest.approx([0.29])
    assert model.remember(start, noted)["variance"].unique().tolist() == pytest.approx([0.81 + 0.29])


def test_initial_values_have_the_distributions_of_torchvision() -> None:
    model = initialised("resnet18", outputs=3)
    for name, parameter in model.named_parameters():
        p = parameter.detach()
        if name.endswith("weight"):
            deviation = math.sqrt(2 / (p.shape[0] * p.shape[2] * p.shape[3]))
            assert float(p.std()) == pytest.approx(deviation, rel=5 / math.sqrt(p.numel())), name
            assert abs(float(p.mean())) < 5 * deviation / math.sqrt(p.numel()), name
        elif name.endswith("scale"):
            assert p.unique().tolist() == [1.0], name
        elif name.endswith("shift"):
            assert p.unique().tolist() == [0.0], name
    bound = 1 / math.sqrt(512)
    assert 0.98 * bound < model.out.detach().abs().max() < bound
    assert 0 < model.out_bias.detach().abs().max() < bound
    assert not torch.equal(model.blocks[0].layers[0].weight, model.blocks[0].layers[1].weight)


@pytest.mark.usefixtures("narrow")
def test_lanes_side_by_side_are_as_alone() -> None:
    model = initialised("resnet18").double()
    params = [{n: (k + 1) * p.detach() for n, p in model.named_parameters()} for k in range(2)]
    x = torch.stack([pictures(4, seed) for seed in range(2)])

    def lane(params: dict[str, torch.Tensor], x: torch.Tensor) -> object:
        return functional_call(model, params, (x, context(training=True)))

    together = torch.vmap(lane)({n: torch.stack([p[n] for p in params]) for n in params[0]}, x)
    for k in range(2):
        alone = lane(params[k], x[k])
        torch.testing.assert_close(together[0][k], alone[0])
        torch.testing.assert_close({n: t[k] for n, t in together[1].items()}, alone[1])


@pytest.mark.usefixtures("narrow")
def test_one_picture_has_no_variance_and_that_is_told() -> None:
    with pytest.raises(ValueError, match=r"train.batch must be at least 2"):
        initialised("resnet18").float()(pictures(1).float(), context(training=True))


@pytest.mark.parametrize(("inputs", "channels"), [(784, 1), (1024, 1), (3 * 784, 3), (3072, 3)])
def test_whether_pictures_are_in_colour_follows_from_how_many_numbers_they_have(inputs, channels) -> None:
    assert num_channels(inputs) == channels


@pytest.mark.parametrize("inputs", [785, 100, 3])
def test_inputs_that_are_no_picture_are_told(inputs) -> None:
    with pytest.raises(ValueError, match=rf"{inputs} inputs are no picture: .* 784 = 28 x 28"):
        num_channels(inputs)
