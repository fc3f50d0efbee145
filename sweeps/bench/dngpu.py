"""`sweeps bench --model dngpu`: a training step of the improved Neural GPU against the model written with conv1d calls.

The case is the published one for binary multiplication: 96 maps, nine bins from 8 to 41, 32 rows each, dropout 0.1,
saturation cost, AdaMax. One seed, one thread; and two seeds as lanes of one pack. All have their data ready; compilation
is not counted.

Legend of suffixes: B rows, n positions, M maps.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sweeps.bench.gpu_check import BINS, FLOPS, MAPS, ROWS
from sweeps.bench.measure import Steps, pack_steps, plain_steps, resolved, seconds_per_step
from sweeps.runner.worker import prepare_process

SYMBOLS, OUTPUTS = 13, 3
SETTINGS = {
    "model": {"name": "dngpu", "maps": MAPS, "dropout": 0.1},
    "task": {"name": "algorithm", "operation": "multiply", "base": 2, "bins": list(BINS)},
    "train": {"steps": 10**9, "batch": ROWS, "optimizer": "adamax", "lr": 0.005, "beta2": 0.9995},
}


@dataclass(frozen=True)
class DngpuBench:
    """Seconds a step and seed, one number a round; rounds alternate."""

    convolutions: list[float] = field(default_factory=list)
    engine: list[float] = field(default_factory=list)
    pair: list[float] = field(default_factory=list)
    """Of two seeds as lanes of one pack."""

    @property
    def ratios(self) -> list[float]:
        return [slow / fast for slow, fast in zip(self.convolutions, self.engine, strict=True)]

    def line(self) -> str:
        plain, engine, pair, ratio = (statistics.median(v) for v in (self.convolutions, self.engine, self.pair, self.ratios))
        return (
            f"dngpu, {MAPS} maps: {engine:.2f} s a step ({FLOPS / engine / 1e9:.0f} GFLOP/s); conv1d calls one by one: "
            f"{plain:.2f} s ({FLOPS / plain / 1e9:.0f} GFLOP/s); {ratio:.2f} times as fast (median of {len(self.ratios)} "
            f"rounds, {min(self.ratios):.2f} to {max(self.ratios):.2f}); two seeds as one pack: {pair:.2f} s each; one thread, "
            f"{torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}"
        )


def bench_dngpu(rounds: int = 5, on_progress: Callable[[str], None] = lambda line: None) -> DngpuBench:
    """Measure all three, alternating: two steps of each a round."""
    prepare_process()
    settings = resolved(SETTINGS)
    on_progress("compiling: a minute where the cache is cold")
    plain, engine, pair = plain_dngpu(), pack_steps(1, settings), pack_steps(2, settings)
    plain(1), engine(2), pair(2)
    result = DngpuBench()
    for i in range(1, rounds + 1):
        result.convolutions.append(seconds_per_step(plain, 2))
        result.engine.append(seconds_per_step(engine, 2))
        result.pair.append(seconds_per_step(pair, 2) / 2)
        on_progress(f"round {i} of {rounds}: {result.ratios[-1]:.2f} times as fast")
    return result


def plain_dngpu() -> Steps:
    """The model as its equations read, a convolution for every gate, one bin after another; torch's own AdaMax."""
    generator = torch.Generator().manual_seed(0)
    model = ConvolutionalDngpu(MAPS, SYMBOLS, OUTPUTS)
    batch = [tuple(torch.randint(0, high, (ROWS, n), generator=generator) for high in (SYMBOLS, OUTPUTS)) for n in BINS]

    def loss(step: int) -> Tensor:
        total = torch.zeros(())
        for x_Bn, target_Bn in batch:
            logits, cost = model(x_Bn)
            total = total + F.cross_entropy(logits.flatten(0, 1), target_Bn.flatten()) + 1e-3 * cost
        return total / len(batch)

    return plain_steps(torch.optim.Adamax(model.parameters(), lr=0.005), loss)


class ConvolutionalDngpu(nn.Module):
    """The equations of Freivalds and Liepins (2017), one conv1d a gate."""

    def __init__(self, maps: int, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.maps = maps
        self.embedding = nn.Conv1d(num_inputs, maps, 1)
        self.reset, self.update, self.candidate = (nn.Conv1d(maps, maps, 3, padding=1) for _ in range(3))
        self.output = nn.Conv1d(maps, num_outputs, 1)

    def forward(self, x_Bn: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, n, outputs] and the saturation cost."""
        rows, n = x_Bn.shape
        third = self.maps // 3
        v = self.embedding(F.one_hot(x_Bn, self.embedding.in_channels).to(torch.float32).transpose(1, 2))
        s, cost = F.dropout(v.clamp(-1, 1), 0.1, self.training), n * _over(v)
        for _ in range(n):
            v_r, v_u = self.reset(s) + 0.5, self.update(s) + 0.7
            v_c = self.candidate(_hard_sigmoid(v_r) * s)
            stay, right, left = s.split([self.maps - 2 * third, third, third], dim=1)
            shifted = torch.cat([stay, F.pad(right, (1, 0))[..., :-1], F.pad(left, (0, 1))[..., 1:]], dim=1)
            u = _hard_sigmoid(v_u)
            s = u * shifted + (1 - u) * F.dropout(v_c.clamp(-1, 1), 0.1, self.training)
            cost = cost + _over(v_r) + _over(v_u) + _over(v_c)
        return self.output(s).transpose(1, 2), cost / (n * n * rows)


def _hard_sigmoid(v: Tensor) -> Tensor:
    return (0.5 * v + 0.5).clamp(0, 1)


def _over(v: Tensor) -> Tensor:
    return torch.relu(v.abs() - 0.9).sum()
