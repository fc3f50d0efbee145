"""`sweeps bench`: seed-steps a second of a pack against a plain PyTorch loop, in one run and on one thread.

The case is multiplication by a NAU and an NMU, 100-2-1, batch 128, Adam, penalty and clamp: the published one.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from sweeps.config.settings import lane_key, resolve
from sweeps.runner.worker import prepare_process
from sweeps.training.lane import Lane
from sweeps.training.pack import Pack
from sweeps.training.settings import float_leaves

SETTINGS = {"model": "nmu", "task": {"name": "static", "operation": "mul"}, "train": {"steps": 10**9}}
ROUNDS = 5
PLAIN_STEPS, PACK_STEPS = 1000, 200


@dataclass(frozen=True)
class Bench:
    """Seed-steps a second, one number a round; rounds alternate, so that both meet the same machine."""

    lanes: int
    plain: list[float]
    pack: list[float]

    @property
    def ratios(self) -> list[float]:
        return [fast / slow for fast, slow in zip(self.pack, self.plain, strict=True)]

    def line(self) -> str:
        """One line for a person: medians, and the ratio with its range over the rounds."""
        plain, pack, ratio = (statistics.median(v) for v in (self.plain, self.pack, self.ratios))
        return (
            f"{self.lanes} lanes: {pack:,.0f} seed-steps/s ({1e6 / pack:.1f} us each); "
            f"plain PyTorch loop, one seed: {plain:,.0f} ({1e6 / plain:.0f} us each); "
            f"{ratio:.1f} times as fast (median of {len(self.ratios)} rounds, {min(self.ratios):.1f} to "
            f"{max(self.ratios):.1f}), one thread, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}"
        )


def bench(
    num_lanes: int = 100, rounds: int = ROUNDS, tell: Callable[[str], None] = lambda line: None
) -> Bench:
    """Measures both, alternating. Compilation is not counted."""
    prepare_process()
    settings, faults, _ = resolve(SETTINGS)
    if settings is None:
        raise ValueError("; ".join(map(str, faults)))
    plain, pack = plain_loop(), pack_of(num_lanes, settings)
    tell("compiling, then warming up")
    plain(200)
    pack(20)
    result = Bench(num_lanes, [], [])
    for i in range(rounds):
        result.plain.append(rate(lambda: plain(PLAIN_STEPS), PLAIN_STEPS))
        result.pack.append(rate(lambda: pack(PACK_STEPS), PACK_STEPS * num_lanes))
        tell(f"round {i + 1} of {rounds}: {result.ratios[-1]:.1f} times as fast")
    return result


def pack_of(num_lanes: int, settings: dict[str, Any]) -> Callable[[int], None]:
    """Steps of a compiled pack with its data drawn inside."""
    lanes = [Lane(lane_key(settings, seed), settings, seed) for seed in range(num_lanes)]
    zeros = frozenset(path for path, value in float_leaves(settings).items() if value == 0.0)
    return Pack(lanes, num_lanes, zeros).stepper()


def plain_loop() -> Callable[[int], None]:
    """One seed as a careful user would write it: modules, torch.optim.Adam, NumPy data, the same penalty and clamp."""
    rng, generator = np.random.RandomState(0), torch.Generator().manual_seed(0)
    first = nn.Parameter(torch.empty(2, 100).uniform_(-0.2425, 0.2425, generator=generator))
    second = nn.Parameter(torch.empty(1, 2).uniform_(0.25, 0.75, generator=generator))
    model = _PlainNetwork(first, second)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    offset, count = int(rng.randint(0, 63)), 0

    def run(steps: int) -> None:
        nonlocal count
        for _ in range(steps):
            x = rng.uniform(1.0, 2.0, (128, 100))
            a, b = x[:, offset : offset + 25].sum(axis=1), x[:, offset + 13 : offset + 38].sum(axis=1)
            inputs = torch.from_numpy(x.astype(np.float32))
            targets = torch.from_numpy((a * b).astype(np.float32)).unsqueeze(1)
            weight = 10.0 * min(max((count - 1e6) / 1e6, 0.0), 1.0)
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(inputs), targets) + weight * model.penalty()
            loss.backward()
            optimizer.step()
            model.clamp()
            count += 1

    return run


class _PlainNetwork(nn.Module):
    def __init__(self, first: nn.Parameter, second: nn.Parameter) -> None:
        super().__init__()
        self.first, self.second = first, second

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


def rate(run: Callable[[], None], seed_steps: int) -> float:
    """Seed-steps a second."""
    started = time.perf_counter()
    run()
    return seed_steps / (time.perf_counter() - started)
