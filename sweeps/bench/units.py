"""`sweeps bench --units`: for every unit, seed-steps a second of a pack against its own plain one-seed loop.

Both on one thread and in turn, so that they meet the same machine. The case is the static task, 100-2-1, batch 128, Adam, in
the unit's network of the papers.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sweeps.bench.engine import pack_of, rate
from sweeps.config import registry
from sweeps.config.settings import build, resolve
from sweeps.runner.worker import prepare_process

ROUNDS = 3
PLAIN_STEPS, PACK_STEPS = 200, 50


@dataclass(frozen=True)
class UnitBench:
    """Medians over the rounds, in seed-steps a second."""

    unit: str
    network: str
    plain: float
    pack: float
    compile_s: float

    @property
    def ratio(self) -> float:
        return self.pack / self.plain

    def line(self) -> str:
        """One row of the table."""
        return (
            f"| {self.unit:24} | {self.network:40} | {self.plain:9,.0f} | {self.pack:10,.0f} "
            f"| {self.ratio:6.1f} | {self.compile_s:7.0f} |"
        )


HEADER = (
    f"| {'unit':24} | {'layers':40} | plain 1/s | pack 1/s   | times  | warm-up |\n"
    f"|{'-' * 26}|{'-' * 42}|{'-' * 11}|{'-' * 12}|{'-' * 8}|{'-' * 9}|"
)


def static_units() -> list[str]:
    """Units that the static task can train: all but recurrent cells."""
    return [name for name in registry.names("model") if registry.learnable_task(name) == "static"]


def bench_units(names: Sequence[str], num_lanes: int = 100) -> Iterator[UnitBench]:
    """One after another. Raises ValueError for a name that the static task cannot train."""
    prepare_process()
    for name in names:
        settings, faults, _ = resolve({"model": name, "task": "static", "train": {"steps": 10**9}})
        if settings is None:
            raise ValueError("; ".join(map(str, faults)))
        started = time.perf_counter()
        plain, pack = plain_loop(settings), pack_of(num_lanes, settings)
        plain(20)
        pack(5)
        compile_s = time.perf_counter() - started
        layers = ", ".join(unit["name"] for unit in settings["model"]["units"])
        yield UnitBench(name, layers, *_in_turn(plain, pack, num_lanes), compile_s)


def _in_turn(
    plain: Callable[[int], None], pack: Callable[[int], None], num_lanes: int
) -> tuple[float, float]:
    plain_rates, pack_rates = [], []
    for _ in range(ROUNDS):
        plain_rates.append(rate(lambda: plain(PLAIN_STEPS), PLAIN_STEPS))
        pack_rates.append(rate(lambda: pack(PACK_STEPS), PACK_STEPS * num_lanes))
    return statistics.median(plain_rates), statistics.median(pack_rates)


def plain_loop(settings: dict[str, Any]) -> Callable[[int], None]:
    """Steps of one seed as ordinary PyTorch: the same modules, torch.optim.Adam, NumPy data, torch's generator."""
    built = build(settings)
    rng, draws = np.random.RandomState(0), _TorchDraws(0)
    model = built.model()
    with torch.no_grad():
        model.initialise(draws)
    optimizer = torch.optim.Adam(model.parameters(), lr=built.train.lr)
    masks = built.task.instance(0)["masks"].astype(np.float64)
    count = 0

    def run(steps: int) -> None:
        nonlocal count
        for _ in range(steps):
            x = rng.uniform(1.0, 2.0, (built.train.batch, built.task.num_inputs))
            inputs = torch.from_numpy(x.astype(np.float32))
            targets = torch.from_numpy((x @ masks.T).sum(axis=1, keepdims=True).astype(np.float32))
            optimizer.zero_grad()
            y_BO, penalties = model(inputs, _PlainContext(count, draws))
            loss = torch.nn.functional.mse_loss(y_BO, targets) + sum(penalties.values())
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                model.constrain()
            count += 1

    return run


class _TorchDraws:
    """What a model draws from, by torch's own generator."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def child(self, name: str) -> _TorchDraws:
        return self

    def uniform(self, shape: Sequence[int], low: float = 0.0, high: float = 1.0) -> torch.Tensor:
        return low + (high - low) * torch.rand(tuple(shape), generator=self._generator)

    def normal(self, shape: Sequence[int]) -> torch.Tensor:
        return torch.randn(tuple(shape), generator=self._generator)

    def bernoulli(self, shape: Sequence[int], p: float) -> torch.Tensor:
        return self.uniform(shape) < p


class _PlainContext:
    """What a model asks of the engine."""

    training = True

    def __init__(self, step: int, stream: _TorchDraws) -> None:
        self.step, self.stream = torch.tensor(float(step)), stream
        self.last_error = torch.tensor(torch.inf)

    def dropout(self, x: torch.Tensor, rate: float) -> torch.Tensor:
        return torch.nn.functional.dropout(x, rate)
