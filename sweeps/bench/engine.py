"""`sweeps bench`: seed-steps a second of a pack against a plain PyTorch loop, in one run and on one thread.

The case is multiplication by a NAU and an NMU, 100-2-1, batch 128, Adam, penalty and clamp: the published one.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from sweeps.bench.measure import Steps, pack_steps, plain_steps, resolved, seconds_per_step
from sweeps.runner.worker import prepare_process

SETTINGS = {"model": "nmu", "task": {"name": "static", "operation": "mul"}, "train": {"steps": 10**9}}
ROUNDS = 5
PLAIN_STEPS, PACK_STEPS = 1000, 200


@dataclass(frozen=True)
class Bench:
    """Seed-steps a second, one number a round; rounds alternate, so that both run under the same load."""

    lanes: int
    plain: list[float] = field(default_factory=list)
    pack: list[float] = field(default_factory=list)

    @property
    def ratios(self) -> list[float]:
        return [fast / slow for fast, slow in zip(self.pack, self.plain, strict=True)]

    def line(self) -> str:
        """The medians in one line, and the ratio with its range over the rounds."""
        plain, pack, ratio = (statistics.median(v) for v in (self.plain, self.pack, self.ratios))
        return (
            f"{self.lanes} lanes: {pack:,.0f} seed-steps/s ({1e6 / pack:.1f} us each); "
            f"plain PyTorch loop, one seed: {plain:,.0f} ({1e6 / plain:.0f} us each); "
            f"{ratio:.1f} times as fast (median of {len(self.ratios)} rounds, {min(self.ratios):.1f} to "
            f"{max(self.ratios):.1f}), one thread, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}"
        )


def bench(num_lanes: int = 100, rounds: int = ROUNDS, on_progress: Callable[[str], None] = lambda line: None) -> Bench:
    """Measure both, alternating. Compilation is not counted."""
    prepare_process()
    plain, pack = plain_nmu(), pack_steps(num_lanes, resolved(SETTINGS))
    on_progress("compiling, then warming up")
    plain(200)
    pack(20)
    result = Bench(num_lanes)
    for i in range(1, rounds + 1):
        result.plain.append(1 / seconds_per_step(plain, PLAIN_STEPS))
        result.pack.append(num_lanes / seconds_per_step(pack, PACK_STEPS))
        on_progress(f"round {i} of {rounds}: {result.ratios[-1]:.1f} times as fast")
    return result


def plain_nmu() -> Steps:
    """One seed as a careful user would write it: modules, torch.optim.Adam, NumPy data, the same penalty and clamp."""
    rng, generator = np.random.RandomState(0), torch.Generator().manual_seed(0)
    model = _PlainNetwork(generator)
    offset = int(rng.randint(0, 63))

    def loss(step: int) -> torch.Tensor:
        x = rng.uniform(1.0, 2.0, (128, 100))
        a, b = x[:, offset : offset + 25].sum(axis=1), x[:, offset + 13 : offset + 38].sum(axis=1)
        inputs = torch.from_numpy(x.astype(np.float32))
        targets = torch.from_numpy((a * b).astype(np.float32)).unsqueeze(1)
        weight = 10.0 * min(max((step - 1e6) / 1e6, 0.0), 1.0)
        return nn.functional.mse_loss(model(inputs), targets) + weight * model.penalty()

    return plain_steps(torch.optim.Adam(model.parameters(), lr=1e-3), loss, model.clamp)


class _PlainNetwork(nn.Module):
    """A NAU of two outputs, then an NMU of one."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.empty(2, 100).uniform_(-0.2425, 0.2425, generator=generator))
        self.second = nn.Parameter(torch.empty(1, 2).uniform_(0.25, 0.75, generator=generator))

    def forward(self, x_BI: torch.Tensor) -> torch.Tensor:
        h_BH = nn.functional.linear(x_BI, self.first)
        return (self.second * h_BH + (1 - self.second)).prod(dim=1, keepdim=True)

    def penalty(self) -> torch.Tensor:
        first = torch.minimum(self.first.abs(), (1 - self.first.abs()).abs()).mean()
        return first + torch.minimum(self.second.abs(), (1 - self.second).abs()).mean()

    @torch.no_grad()
    def clamp(self) -> None:
        self.first.clamp_(-1, 1)
        self.second.clamp_(0, 1)
