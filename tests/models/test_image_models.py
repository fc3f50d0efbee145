"""The models that read images: ResNets against torch's own modules (outputs, gradients, running statistics, initial values)."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from made_units import initialise
from torch import Tensor, nn
from torch.func import functional_call, grad

from arith_models.networks import image_recurrent
from arith_models.networks.image_recurrent import ResNet, num_channels
from sweeps.training.random import Stream
from sweeps.training.step import Context

NAMES = ["resnet18", "resnet34", "resnet50"]


class PlainBlock(nn.Module):
    """Two 3x3 convolutions, or 1x1, 3x3 and 1x1, around a shortcut."""

    def __init__(self, inputs: int, width: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        if bottleneck:
            shapes = [(inputs, width, 1, 1), (width, width, 3, stride), (width, 4 * width, 1, 1)]
        else:
            shapes = [(inputs, width, 3, stride), (width, width, 3, 1)]
        self.layers = nn.ModuleList(conv_norm(*shape) for shape in shapes)
        self.outputs = shapes[-1][1]
        same = stride == 1 and inputs == self.outputs
        self.shortcut = nn.Identity() if same else conv_norm(inputs, self.outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for layer in self.layers[:-1]:
            y = nn.functional.relu(layer(y))
        return nn.functional.relu(self.layers[-1](y) + self.shortcut(x))


def conv_norm(inputs: int, outputs: int, size: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


def plain(name: str, channels: int, num_outputs: int) -> nn.Sequential:
    """Return torch's ResNet with the widths that ours has now: tests make it narrow."""
    inputs = image_recurrent.WIDTHS[0]
    parts: list[nn.Module] = [conv_norm(channels, inputs, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    for stage, (width, count) in enumerate(zip(image_recurrent.WIDTHS, image_recurrent.BLOCKS[name], strict=True)):
        for i in range(count):
            block = PlainBlock(inputs, width, 2 if stage and i == 0 else 1, name == "resnet50")
            parts.append(block)
            inputs = block.outputs
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, num_outputs))


def copy_to(plain_network: nn.Module, params: dict[str, Tensor]) -> None:
    """Copy our parameters, by name, into the plain network: both run their layers in one order."""
    model = layers_in_order(params)
    convs = [m for m in plain_network.modules() if isinstance(m, nn.Conv2d)]
    with torch.no_grad():
        for conv, norm, name in zip(convs, norms(plain_network), model, strict=True):
            conv.weight.copy_(params[f"{name}.weight"])
            norm.weight.copy_(params[f"{name}.scale"])
            norm.bias.copy_(params[f"{name}.shift"])
        linear: Any = list(plain_network.modules())[-1]
        linear.weight.copy_(params["out"])
        linear.bias.copy_(params["out_bias"])


def layers_in_order(params: dict[str, Tensor]) -> list[str]:
    """Return the normalised layers in the order in which they run: the stem, then by block, in each the shortcut last."""

    def order(name: str) -> tuple[int, int]:
        words = name.split(".")
        block = int(words[1]) if words[0] == "blocks" else -1
        return block, int(words[-1]) if words[-1].isdigit() else 99

    return sorted((n.removesuffix(".scale") for n in params if n.endswith(".scale")), key=order)


def norms(plain_network: nn.Module) -> list[Any]:
    return [m for m in plain_network.modules() if isinstance(m, nn.BatchNorm2d)]


def running(plain_network: nn.Module) -> dict[str, Tensor]:
    """Return its running statistics in the order of ours: all layers concatenated."""
    found = norms(plain_network)
    return {"mean": torch.cat([m.running_mean for m in found]), "variance": torch.cat([m.running_var for m in found])}


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_recurrent, "WIDTHS", (4, 8, 16, 32))


def initialised(name: str, channels: int = 3, outputs: int = 2) -> ResNet:
    model: ResNet = initialise(ResNet(name, channels, outputs), seed=1)
    return model


def context(training: bool, memory: dict[str, torch.Tensor] | None = None) -> Context:
    return Context(torch.tensor(0.0), training, Stream((0, 0)), torch.tensor(0.0), memory)


def images(count: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("name", "published"), [("resnet18", 11_689_512), ("resnet34", 21_797_672), ("resnet50", 25_557_032)])
def test_there_are_as_many_weights_as_in_the_published_networks(name, published) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in ResNet(name, 3, 1000).parameters()) == published


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("narrow")
def test_outputs_gradients_and_running_statistics_are_those_of_torchs_modules(name) -> None:
    """In float64: three steps of training on other images each, then evaluation by the memory."""
    model, other = initialised(name).double(), plain(name, 3, 2).double()
    params = {n: p.detach() for n, p in model.named_parameters()}
    copy_to(other, params)
    memory = {n: t.double() for n, t in model.initial_memory().items()}
    for step in range(3):
        x = images(5, step)

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
    """Compare ours, copied into a network of the same shape, with torch's."""
    of_ours = copy.deepcopy(other)
    copy_to(of_ours, grads)
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
    x = torch.stack([images(4, seed) for seed in range(2)])

    def lane(params: dict[str, torch.Tensor], x: torch.Tensor) -> object:
        return functional_call(model, params, (x, context(training=True)))

    together = torch.vmap(lane)({n: torch.stack([p[n] for p in params]) for n in params[0]}, x)
    for k in range(2):
        alone = lane(params[k], x[k])
        torch.testing.assert_close(together[0][k], alone[0])
        torch.testing.assert_close({n: t[k] for n, t in together[1].items()}, alone[1])


@pytest.mark.usefixtures("narrow")
def test_one_image_has_no_variance_and_that_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"train.batch must be at least 2"):
        initialised("resnet18").float()(images(1).float(), context(training=True))


@pytest.mark.parametrize(("inputs", "channels"), [(784, 1), (1024, 1), (3 * 784, 3), (3072, 3)])
def test_whether_images_are_in_colour_follows_from_how_many_numbers_they_have(inputs, channels) -> None:
    assert num_channels(inputs) == channels


@pytest.mark.parametrize("inputs", [785, 100, 3])
def test_inputs_that_are_no_image_are_an_error(inputs) -> None:
    with pytest.raises(ValueError, match=rf"{inputs} inputs are not an image: .* 784 = 28 x 28"):
        num_channels(inputs)
