"""The Neural GPU against torch's own 3 x 3 convolutions, its relaxation, its curriculum and its noise by hand."""

from __future__ import annotations

from typing import Any

import made_units
import pytest
import torch
from lanes import finish, resolved
from made_units import initialise
from torch.nn.functional import conv2d

from arith_models.networks.neural_gpu import Curriculum, NeuralGPU
from sweeps.config.settings import build
from sweeps.training.lane import Lane
from sweeps.training.pack import Pack
from sweeps.training.random import Stream, seed_key
from sweeps.training.step import Context

M, H = 5, 4


def network(**settings: Any) -> NeuralGPU:
    made: NeuralGPU = initialise(NeuralGPU(NeuralGPU.Config(maps=M, **settings), (), 13, 3), seed=3)
    return made


def context(model: NeuralGPU, training: bool = False) -> Context:
    return made_units.context(0.0, training, 4, 1.0, model.initial_memory())


def convolved(s_BMHn: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Our kernel [3 rows, 3 positions, in, out] as torch's, on images [B, maps, rows, positions]."""
    return conv2d(s_BMHn, kernel.permute(3, 2, 0, 1), bias, padding=1)


def by_convolutions(model: NeuralGPU, x_Bn: torch.Tensor) -> torch.Tensor:
    """Logits [B, n, O], one convolution after another; all symbols inside, none is padding."""

    def gate(v: torch.Tensor) -> torch.Tensor:
        return torch.clamp(1.2 * torch.sigmoid(v + 1.0) - 0.1, 0, 1)

    first = torch.tanh(model.embedding[x_Bn]) @ model.input + model.input_bias
    s = torch.zeros(len(x_Bn), M, H, x_Bn.shape[1])
    s[:, :, 0] = first.transpose(1, 2)
    for t in range(x_Bn.shape[1]):
        r = t % model.config.relaxation
        for layer in range(2):
            kernel, bias = model.gates[r, layer], model.gates_bias[r, layer]
            u = gate(convolved(s, kernel[..., :M], bias[:M]))
            reset = gate(convolved(s, kernel[..., M:], bias[M:]))
            c = torch.tanh(convolved(reset * s, model.candidate[r, layer], model.candidate_bias[r, layer]))
            s = u * s + (1 - u) * c
    return s[:, :, 0].transpose(1, 2) @ model.output + model.output_bias


def symbols(rows: int, n: int) -> torch.Tensor:
    return Stream(seed_key(n, "batch")).integers((rows, n), 1, 13)


def randomly_biased(model: NeuralGPU) -> NeuralGPU:
    stream = Stream(seed_key(8, "biases"))
    for name, p in model.named_parameters():
        if name.endswith("bias"):
            p.data = stream.child(name).uniform(p.shape, -0.5, 0.5)
    return model


def test_logits_are_those_of_convolutions_one_by_one() -> None:
    model, x = randomly_biased(network()), symbols(3, 8)
    (logits,), _ = model((x,), context(model))
    assert torch.allclose(logits, by_convolutions(model, x), atol=1e-5)


def test_an_example_is_read_after_as_many_steps_as_it_is_long() -> None:
    model, x = randomly_biased(network()), symbols(3, 6)
    padded = torch.cat([x, torch.full((3, 4), -1)], 1)
    (logits,), _ = model((padded,), context(model))
    assert torch.allclose(logits[:, :6], by_convolutions(model, x), atol=1e-5)


def test_bins_side_by_side_have_the_set_of_weights_of_their_own_step() -> None:
    model, bins = randomly_biased(network()), tuple(symbols(3, n) for n in (9, 10, 21))
    for ours, x in zip(model(bins, context(model))[0], bins, strict=True):
        assert torch.allclose(ours, by_convolutions(model, x), atol=1e-4)


def test_the_paper_s_count_of_weights() -> None:
    """31,248 for one set of two layers of three convolutions at m = 24."""
    model = NeuralGPU(NeuralGPU.Config(relaxation=1), (), 13, 3)
    cell = [p for name, p in model.named_parameters() if name.startswith(("gates", "candidate"))]
    assert sum(p.numel() for p in cell) == 31_248


def test_the_pull_is_the_squared_distance_of_the_sets_from_their_mean() -> None:
    model = network(relaxation=2, pull=0.25)
    for p in model._relaxed():
        p.data.zero_()
    model.gates_bias.data[0, 0, 0], model.gates_bias.data[1, 0, 0] = 1.0, 3.0  # mean 2: 0.25 (1 + 1)
    _, penalties = model((symbols(2, 5),), context(model, training=True))
    assert penalties["pull"].item() == pytest.approx(0.5)


def progressed(model: NeuralGPU, memory: dict[str, torch.Tensor], error: float) -> dict[str, torch.Tensor]:
    seen = {"scores": {"sequence_error": torch.tensor(error)}, "length": torch.tensor(5), "shortest": 3}
    return model.remember(memory, seen, torch.tensor(199))


def test_the_pull_grows_when_the_curriculum_moves_on_and_then_the_sets_are_averaged() -> None:
    model = network(pull=0.09, pull_factor=1.2)
    once = progressed(model, model.initial_memory(), 0.05)
    assert once["length"].item() == 7.0 and once["pull"].item() == pytest.approx(0.108)
    assert once["averages"].item() == 0.0
    twice = progressed(model, once, 0.05)
    assert twice["pull"].item() == pytest.approx(0.108) and twice["averages"].item() == 1.0
    with torch.no_grad():
        mean = model.gates.mean(0)
        model.settle(twice)
    assert all(torch.equal(one, mean) for one in model.gates)


def test_the_learning_rate_falls_where_sets_are_averaged_at_a_third_of_the_bound_as_in_the_code() -> None:
    model = network(most_pull=0.0, averaged_lr_factor=0.98, curriculum=Curriculum(bound=0.15))
    memory = model.initial_memory()
    assert model.lr_factor(memory).item() == 1.0
    memory = progressed(model, memory, 0.06)  # below the bound, but above a third of it
    assert memory["averages"].item() == 1.0 and model.lr_factor(memory).item() == 1.0
    memory = progressed(model, memory, 0.04)
    assert model.lr_factor(memory).item() == pytest.approx(0.98)
    memory = progressed(model, memory, 0.2)
    assert model.lr_factor(memory).item() == pytest.approx(0.98)


def test_the_curriculum_stays_where_errors_are_above_its_bound() -> None:
    model = network()
    memory = progressed(model, model.initial_memory(), 0.2)
    assert memory["length"].item() == 6.0 and memory["error"].item() == pytest.approx(0.2)


def test_batches_beyond_the_curriculum_do_not_count_in_its_error() -> None:
    curriculum = Curriculum(first=6.0)
    start = curriculum.initial_memory()
    after, _ = curriculum.remember(start, torch.tensor(1.0), torch.tensor(7), torch.tensor(0), 3)
    assert after["batches"].item() == 0.0
    after, moves = curriculum.remember(after, torch.tensor(0.0), torch.tensor(5), torch.tensor(199), 3)
    assert moves and after["length"].item() == 7.0


def test_a_curriculum_that_begins_below_the_shortest_length_begins_there() -> None:
    curriculum = Curriculum(first=6.0)
    assert int(curriculum.next_length(curriculum.initial_memory(), Stream(seed_key(1, "batch"), 0), 9, 9)) == 9
    after, moves = curriculum.remember(curriculum.initial_memory(), torch.tensor(0.0), torch.tensor(9), torch.tensor(199), 9)
    assert moves and after["length"].item() == 10.0


def test_a_curriculum_moves_on_at_most_once_in_a_period() -> None:
    curriculum = Curriculum(period=100)
    for step, ends in ((98, False), (99, True), (100, False)):
        _, moves = curriculum.remember(curriculum.initial_memory(), torch.tensor(0.0), torch.tensor(5), torch.tensor(step), 3)
        assert bool(moves) == ends


@pytest.mark.parametrize(("mixing", "within"), [("paper", 0.8 + 0.2 / 39), ("code", 0.0)])
def test_lengths_are_mixed_as_published(mixing, within) -> None:
    """paper: the present length in 4 of 5 batches. code: 0.75 of them at most the present length, and a few more."""
    curriculum = Curriculum(mixing=mixing, first=10.0)
    draw = [
        int(curriculum.next_length(curriculum.initial_memory(), Stream(seed_key(1, "batch"), step), 3, 41))
        for step in range(4000)
    ]
    assert min(draw) == 3 and max(draw) == 41
    if mixing == "paper":
        assert draw.count(10) / 4000 == pytest.approx(within, abs=0.02)
    else:
        assert sum(n <= 10 for n in draw) / 4000 == pytest.approx(0.75 + 0.25 * 8 / 39, abs=0.02)
        at_most_6 = 0.4 * 0.5 + 0.6 * 0.25  # one draw of 3..10, or the larger of two
        assert sum(n <= 6 for n in draw) / 4000 == pytest.approx(at_most_6 * (0.75 + 0.25 * 4 / 39), abs=0.02)


def test_gradient_noise_scales_with_the_sequence_error_and_is_off_below_two_percent() -> None:
    model = network(gradient_noise=2.0)
    memory = model.initial_memory() | {"error": torch.tensor(0.27)}
    deviation = model.noise_deviation(torch.tensor(99), memory, 1e-3)
    assert deviation.item() == pytest.approx(2.0 * (100**-0.55 * 0.25) ** 0.5)
    assert model.noise_deviation(torch.tensor(99), memory | {"error": torch.tensor(0.02)}, 1e-3).item() == 0.0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_compiled_it_trains_at_the_lengths_of_two_bins() -> None:
    """Every piece is compiled for both bins, and nothing is compiled again when a bin comes back."""
    task = {"name": "algorithm", "operation": "add", "bins": [8, 12], "test_rows": 64, "test_length": 12,
            "extrapolation_rows": 16, "curve_lengths": [12]}  # fmt: skip
    train = {"steps": 30, "batch": 4, "lr": 1e-3, "clip_norm": 1.0, "evaluate_every": 30}
    model = {"name": "neural_gpu", "maps": 2, "dropout": 0.1}
    settings = resolved(model, task, **train)
    pack = Pack([Lane("0", settings, 0)], 1, build)
    results = list(finish(pack).values())
    assert pack.why_uncompiled is None
    assert [(r.outcome, r.reason) for r in results] == [("unsolved", None)]
