"""`sweeps bench --units`: for every unit, seed-steps a second of a pack against its own plain one-seed loop.

Both on one thread and in turn, so that they run under the same load. The case is the static task, 100-2-1, batch 128, Adam, in
the unit's network of the papers.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sweeps.bench.measure import Steps, pack_of, plain_steps, resolved, seconds_per_step
from sweeps.config import registry
from sweeps.config.settings import build
from sweeps.errors import UserError
from sweeps.runner.worker import prepare_process

ROUNDS = 3
RANGES = ((1.0, 2.0), (0.9, 1.1))
"""Of the inputs: the second one where lanes diverge in the first. A lane that has diverged makes no steps."""
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
        """A row of the table."""
        return (
            f"| {self.unit:24} | {self.network:40} | {self.plain:9,.0f} | {self.pack:10,.0f} "
            f"| {self.ratio:6.1f} | {self.compile_s:7.0f} |"
        )


HEADER = (
    f"| {'unit':24} | {'layers':40} | plain 1/s | pack 1/s   | times  | warm-up |\n"
    f"|{'-' * 26}|{'-' * 42}|{'-' * 11}|{'-' * 12}|{'-' * 8}|{'-' * 9}|"
)


def static_units() -> list[str]:
    """Return the units that the static task can train: all but recurrent cells."""
    return [name for name in registry.names("model") if registry.learnable_task(name) == "static"]


def bench_units(names: Sequence[str], num_lanes: int = 100) -> Iterator[UnitBench]:
    """Measure one unit after another. Raises UserError for a name that the static task cannot train."""
    prepare_process()
    for name in names:
        for interpolation in RANGES:
            task = {"name": "static", "interpolation": list(interpolation)}
            settings = resolved({"model": name, "task": task, "train": {"steps": 10**9}})
            started = time.perf_counter()
            plain, pack = plain_unit(settings), pack_of(num_lanes, settings)
            steps = pack.stepper()
            plain(20)
            steps(5)
            compile_s = time.perf_counter() - started
            plain_rates, pack_rates = [], []
            for _ in range(ROUNDS):
                plain_rates.append(1 / seconds_per_step(plain, PLAIN_STEPS))
                pack_rates.append(num_lanes / seconds_per_step(steps, PACK_STEPS))
            if not pack.tensors["state"]["status"].any():
                break
        else:
            raise UserError(f"lanes of {name} diverge in every range: there is nothing to measure")
        layers = ", ".join(unit["name"] for unit in settings["model"]["units"])
        layers += "" if interpolation is RANGES[0] else f" (inputs in {list(interpolation)})"
        yield UnitBench(name, layers, statistics.median(plain_rates), statistics.median(pack_rates), compile_s)


def plain_unit(settings: dict[str, Any]) -> Steps:
    """One seed as ordinary PyTorch: the same modules, torch.optim.Adam, NumPy data, torch's generator."""
    built = build(settings)
    rng, stream = np.random.RandomState(0), _TorchStream(torch.Generator().manual_seed(0))
    model = built.model()
    with torch.no_grad():
        model.initialise(stream)
    masks = built.task.instance(0)["masks"].astype(np.float64)
    low, high = settings["task"]["interpolation"]

    def loss(step: int) -> Tensor:
        x = rng.uniform(low, high, (built.train.batch, built.task.num_inputs))
        inputs = torch.from_numpy(x.astype(np.float32))
        targets = torch.from_numpy((x @ masks.T).sum(axis=1, keepdims=True).astype(np.float32))
        y_BO, penalties = model(inputs, _PlainContext(step, stream))
        total: Tensor = torch.nn.functional.mse_loss(y_BO, targets) + sum(penalties.values())
        return total

    optimizer = torch.optim.Adam(model.parameters(), lr=built.train.lr)
    return plain_steps(optimizer, loss, torch.no_grad()(model.constrain))


class _TorchStream:
    """`arith_models.base.Stream` on torch's own generator."""

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator

    def child(self, name: str) -> _TorchStream:
        return self

    def uniform(self, shape: Sequence[int], low: float | Tensor = 0.0, high: float | Tensor = 1.0) -> Tensor:
        return low + (high - low) * torch.rand(tuple(shape), generator=self._generator)

    def normal(self, shape: Sequence[int]) -> Tensor:
        return torch.randn(tuple(shape), generator=self._generator)

    def integers(self, shape: Sequence[int], low: int, high: int) -> Tensor:
        return torch.randint(low, high, tuple(shape), generator=self._generator)

    def bernoulli(self, shape: Sequence[int], p: float | Tensor) -> Tensor:
        return self.uniform(shape) < p


class _PlainContext:
    """`arith_models.base.Context` of a training step."""

    training = True

    def __init__(self, step: int, stream: _TorchStream) -> None:
        self.step, self.stream = torch.tensor(float(step)), stream
        self.last_error = torch.tensor(torch.inf)
        self.memory: dict[str, Tensor] = {}

    def part(self, number: Any) -> _PlainContext:
        return self

    def dropout(self, x: Tensor, rate: Any) -> Tensor:
        return torch.nn.functional.dropout(x, float(rate))
