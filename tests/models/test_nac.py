"""NAC and its additive relatives: exact solutions, initial values, gradients by hand, and weights that are drawn."""

from __future__ import annotations

import math

import pytest
import torch
from lanes import resolved
from made_units import X, assert_fills, context, drawn, initialised, output, presolved, put, stream, unit
from safetensors.torch import load

from arith_models.units.nac import GumbelConfig, gumbel_noise, likeliest_weight, mean_weight, nac_range, sample_one_hot
from sweeps.config.settings import build
from sweeps.training.lane import Lane
from sweeps.training.pack import Pack
from sweeps.training.random import Stream, seed_key

ADDITIVE = [
    "gradient_bandit_nac", "gumbel_nac", "hard_softmax_nac", "independent_nac", "linear_nac", "nac", "nau", "softmax_nac",
]  # fmt: skip
DRAWING = ["gradient_bandit_nac", "gumbel_mnac", "gumbel_nac", "hard_softmax_nac"]


@pytest.mark.parametrize("training", [True, False])
def test_addition_and_subtraction_are_exact_at_the_solution(training) -> None:
    for name in ADDITIVE:
        both = presolved(name, [[1, 1, 0], [1, -1, 0]])
        assert both.effective_weight().tolist() == [[1, 1, 0], [1, -1, 0]], name
        assert output(both, ctx=context(training=training)) == [[5.5, -2.5], [3.5, 2.5]], name


def test_pos_nac_adds_exactly() -> None:
    assert output(presolved("pos_nac", [[1, 1, 0], [1, 1, 1]])) == [[5.5, 8.0], [3.5, 5.5]]


# ------------------------------------------------------------------------------------------- initial values


@pytest.mark.parametrize(
    ("inputs", "outputs", "r"),
    [(100, 2, 0.50391), (300, 2, 0.28550), (10, 1, 2.26047), (4, 2, 5.42551), (2, 1, 9.47141),
     (2, 2, 9.47141), (1, 1, 9.47141)],
)  # fmt: skip
def test_the_range_of_nac_is_the_reference_value(inputs, outputs, r) -> None:
    assert nac_range(inputs, outputs) == pytest.approx(r, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "inputs", "outputs", "parameters", "r"),
    [
        ("nac", 100, 2, ("W_hat", "M_hat"), 0.50391),
        ("independent_nac", 100, 2, ("M_hat",), 0.50391),
        ("linear_nac", 4, 2, ("weight",), 1.0),
        ("softmax_nac", 10, 2, ("logit",), 0.125**0.5),  # sqrt(1/2) sqrt(6 / 24)
        ("hard_softmax_nac", 10, 2, ("logit",), 0.125**0.5),
    ],
)
def test_initial_values_are_uniform_on_the_published_range(name, inputs, outputs, parameters, r) -> None:
    values = drawn(name, inputs, outputs, 300, *parameters)
    assert_fills(values, -r, r, missing=0.005)
    assert values.std().item() == pytest.approx(r / math.sqrt(3), rel=0.03)


@pytest.mark.parametrize(("inputs", "outputs"), [(10, 2), (2, 1)])
def test_pos_nacs_start_is_normal_with_xaviers_deviation(inputs, outputs) -> None:
    values = drawn("pos_nac", inputs, outputs, 300, "W_hat")
    assert values.std().item() == pytest.approx(math.sqrt(2 / (inputs + outputs)), rel=0.05)
    assert values.abs().max() > 2.5 * values.std()  # no uniform range


def test_the_initial_variance_of_nac_is_that_of_xavier() -> None:
    """r solves (I + O) Var = 2, for the product of tanh and sigmoid of uniform numbers."""
    weight = torch.cat([initialised("nac", 100, 2, seed).effective_weight() for seed in range(200)])
    assert weight.var().item() == pytest.approx(2 / 102, rel=0.03)


@pytest.mark.parametrize("name", ["gumbel_nac", "gradient_bandit_nac", "gumbel_mnac"])
def test_units_with_constant_starts_start_at_zero(name) -> None:
    assert all(not p.any() for p in initialised(name, 4, 2).parameters())


# ------------------------------------------------------------------------------------------- gradients


def hidden_gradients(gradient: str | None, W_hat: float, M_hat: float) -> tuple[float, float]:
    """of y = 2 W, so that dW = 2; None is NAC itself."""
    made = unit("nac", 1) if gradient is None else unit("independent_nac", 1, gradient=gradient)
    put(made, W_hat=W_hat, M_hat=M_hat)
    y = made(torch.tensor([[2.0]]), context())[0]
    assert y.item() == 2 * made.effective_weight().item()
    y.sum().backward()
    return made.W_hat.grad.item(), made.M_hat.grad.item()


@pytest.mark.parametrize("W_hat", [0.5, -0.75])
def test_independent_nacs_gradients_by_hand(W_hat) -> None:
    t, s = math.tanh(W_hat), 1 / (1 + math.exp(-0.25))
    ds = s * (1 - s)
    assert hidden_gradients(None, W_hat, 0.25) == pytest.approx((2 * (1 - t * t) * s, 2 * t * ds))
    assert hidden_gradients("independent", W_hat, 0.25) == pytest.approx((2 * (1 - t * t), 2 * ds))
    signed = (2 * (1 - t * t) * s, 0.1 * 2 * math.copysign(1, W_hat) * ds)
    assert hidden_gradients("sign", W_hat, 0.25) == pytest.approx(signed)


def test_r_z_of_nac_uses_the_effective_weight() -> None:
    """W = 1 and 1/2: nothing to let pass, and half."""
    mean = torch.tensor([2.0, -0.5])
    assert presolved("nac", [[1, 0.5]]).input_penalty(mean).item() == pytest.approx(0.5 * 0.25 / 2)


# ------------------------------------------------------------------------------------------- weights that are drawn


@pytest.mark.parametrize("name", DRAWING)
def test_draws_come_from_the_stream_alone(name) -> None:
    made = initialised(name, 3, 4)
    torch.manual_seed(0)
    first = output(made, ctx=context(seed=3))
    torch.manual_seed(1)
    assert output(made, ctx=context(seed=3)) == first
    assert output(made, ctx=context(seed=4)) != first


@pytest.mark.parametrize("name", DRAWING)
def test_two_forwards_of_one_step_draw_anew(name) -> None:
    """The layers of a network share a stream, and so do the time steps of a cell."""
    made, ctx = initialised(name, 3, 8), context()
    assert output(made, ctx=ctx) != output(made, ctx=ctx)


@pytest.mark.parametrize("name", DRAWING)
def test_evaluation_uses_the_effective_weight(name) -> None:
    made = unit(name, 3)
    put(made, **{n: stream().normal(p.shape) for n, p in made.named_parameters()})
    W_OI, evaluation = made.effective_weight().detach(), context(training=False)
    wanted = (W_OI * X + 1 - W_OI).prod(-1) if name == "gumbel_mnac" else X @ W_OI[0]
    torch.testing.assert_close(torch.tensor(output(made, ctx=evaluation))[:, 0], wanted)


def test_gumbel_noise_has_its_mean_and_variance_and_is_finite_at_the_ends() -> None:
    noise = gumbel_noise(stream(), (100_000,))
    assert noise.mean().item() == pytest.approx(0.5772, abs=0.01)
    assert noise.var().item() == pytest.approx(math.pi**2 / 6, rel=0.02)

    class Ends:
        def uniform(self, shape):
            return torch.tensor([0.0, 1 - 2.0**-24])

    assert gumbel_noise(Ends(), (2,)).tolist() == pytest.approx([-math.log(1e-8 + 18.42068), 16.48], abs=0.01)


@pytest.mark.parametrize(
    ("config", "step", "by_hand"),
    [
        (GumbelConfig(), 0, 1.0), (GumbelConfig(), 50_000, math.exp(-0.5)), (GumbelConfig(), 100_000, 0.5),
        (GumbelConfig(lowest_temperature=1.0), 50_000, 1.0), (GumbelConfig(cooling=1e-3), 100, math.exp(-0.1)),
    ],
)  # fmt: skip
def test_the_temperature_falls_with_the_step(config, step, by_hand) -> None:
    assert config.temperature(torch.tensor(float(step))).item() == pytest.approx(by_hand)


@pytest.mark.parametrize("wrong", [{"cooling": -1.0}, {"lowest_temperature": 0.0}, {"lowest_temperature": 2.0}])
def test_an_impossible_temperature_is_an_error(wrong) -> None:
    with pytest.raises(ValueError, match="lowest_temperature|cooling"):
        GumbelConfig(**wrong)


@pytest.mark.parametrize("step", [0.0, 50_000.0])
def test_gumbel_nac_by_hand(step) -> None:
    made = put(unit("gumbel_nac", 1), logit=torch.tensor([[[0.5, -0.25, 1.0]]]))
    tau = math.exp(-1e-5 * step)
    powers = ((torch.tensor([0.5, -0.25, 1.0]) + gumbel_noise(stream(), (1, 1, 3))[0, 0]) / tau).exp()
    wanted = 2 * (powers[0] - powers[1]) / powers.sum()
    assert output(made, torch.tensor([[2.0]]), context(step))[0][0] == pytest.approx(wanted.item(), rel=1e-5)


@pytest.mark.parametrize("step", [0.0, 50_000.0])
def test_gumbel_mnac_by_hand(step) -> None:
    made = put(unit("gumbel_mnac", 1), W_hat=0.5)
    W = torch.sigmoid((0.5 + gumbel_noise(stream(), (1, 1))[0, 0]) / math.exp(-1e-5 * step))
    assert output(made, torch.tensor([[3.0]]), context(step))[0][0] == pytest.approx((3 * W + 1 - W).item(), rel=1e-5)


def test_draws_have_their_probabilities() -> None:
    probability = torch.tensor([0.2, 0.5, 0.3]).expand(30_000, 1, 3)
    onehot = sample_one_hot(probability, stream())
    assert (onehot.sum(-1) == 1).all()
    assert onehot.mean((0, 1)).tolist() == pytest.approx([0.2, 0.5, 0.3], abs=0.01)
    assert sorted(set(mean_weight(onehot).flatten().tolist())) == [-1, 0, 1]


@pytest.mark.parametrize(
    ("logit", "weight"),
    [([2.0, 1.0, 0.0], 1), ([1.0, 2.0, 0.0], -1), ([1.0, 0.0, 2.0], 0), ([-1.0, 3.0, 2.0], -1), ([0.0, 0.0, 0.0], 1)],
)
def test_the_likeliest_weight(logit, weight) -> None:
    assert likeliest_weight(torch.tensor([[logit]])).tolist() == [[weight]]


def test_hard_softmax_gives_drawn_weights_and_the_gradient_of_the_soft_ones() -> None:
    hard, soft = initialised("hard_softmax_nac", 3, 4), initialised("softmax_nac", 3, 4)
    y = hard(X, context())[0]
    W_OI, _ = hard.weights(context())
    assert set(W_OI.flatten().tolist()) == {-1.0, 0.0, 1.0}  # exactly
    torch.testing.assert_close(y, X @ W_OI.T)
    upstream = stream(5).normal(y.shape)
    (y * upstream).sum().backward()
    (soft(X, context())[0] * upstream).sum().backward()
    assert torch.equal(hard.logit.grad, soft.logit.grad) and hard.logit.grad.all()


def test_softmax_nac_by_hand() -> None:
    """(e - e²) / (e + e² + 1)"""
    made = put(unit("softmax_nac", 1), logit=torch.tensor([[[1.0, 2.0]]]))
    e = math.e
    assert output(made, torch.tensor([[1.0]]))[0][0] == pytest.approx((e - e * e) / (e + e * e + 1))


def test_the_score_is_the_log_probability_of_the_draw_and_its_gradient_onehot_minus_pi() -> None:
    made = put(unit("gradient_bandit_nac", 2), logit=torch.tensor([[[1.0, 0.0, -1.0], [0.5, 0.25, 0.0]]]))
    W_OI, penalties = made.weights(context())
    pi = made.logit.detach().softmax(-1)
    onehot = torch.stack([W_OI == 1, W_OI == -1, W_OI == 0], -1).float()
    assert penalties["score"].item() == pytest.approx((onehot * pi).sum(-1).log().sum().item())
    penalties["score"].backward()
    torch.testing.assert_close(made.logit.grad, onehot - pi)
    assert made.weights(context(training=False))[1] == {}


def test_the_bandit_moves_towards_the_weight_of_the_least_loss() -> None:
    """One weight, target 1 * x: losses 0, 4, 1 for 1, -1, 0 at π = 1/3. Expected change of s: 1/3 (5/3 - loss)."""
    total, count = torch.zeros(3), 500
    for seed in range(count):
        made = initialised("gradient_bandit_nac", 1)
        y, penalties = made(torch.ones(1, 1), context(seed=seed))
        loss = (y - 1).square().mean()
        ((loss.detach() - 5 / 3) * penalties["score"]).backward()
        total -= made.logit.grad[0, 0]
    assert (total / count).tolist() == pytest.approx([5 / 9, -7 / 9, 2 / 9], abs=0.16)


def test_through_the_engine_plain_sgd_is_the_published_update() -> None:
    """Change of s: lr (baseline - loss) (onehot - 1/3), the same factor for all weights of both layers. The first loss is
    its own baseline, so nothing moves before the second.
    """
    moved = [logits_after(steps) for steps in (1, 2)]
    assert not moved[0].any()
    draws, onehots = Stream(seed_key(0, "model"), step=1), []
    for shape in [(2, 10, 3), (1, 2, 3)]:
        onehots.append(sample_one_hot(torch.full(shape, 1 / 3), draws).flatten())
        draws.uniform((8, 2))  # dropout, between the layers
    direction = torch.cat(onehots) - 1 / 3
    factor = (moved[1] * direction).sum() / direction.square().sum()
    assert factor != 0
    torch.testing.assert_close(moved[1], factor * direction, rtol=1e-4, atol=0)


def logits_after(steps: int) -> torch.Tensor:
    """All of a two-layer network's logits after so many steps of plain SGD: they start at 0."""
    train = {"steps": steps, "batch": 8, "evaluate_every": 1, "optimizer": "sgd", "lr": 1e-3}
    task = {"name": "static", "input_size": 10}
    settings = resolved("gradient_bandit_nac", task, **train)
    pack, done = Pack([Lane("one", settings, 0)], 3, build, compiled=False), []
    while not pack.done:
        done += pack.advance()
    state = load(done[0].state)
    return torch.cat([state[f"params.{layer}.logit"].flatten() for layer in ("first", "second")])
