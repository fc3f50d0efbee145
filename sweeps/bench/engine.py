"""`sweeps bench`: seed-steps a second of packs against a plain PyTorch loop, JAX and the machine's limit, in one run.

The case is multiplication by a NAU and an NMU, 100-2-1, batch 128, Adam, penalty and clamp: the published one. Everything
runs on one thread of one core, or on one GPU. How the limit is computed: docs/engine.md.
"""

from __future__ import annotations

import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sweeps.bench.measure import Steps, pack_steps, plain_steps, resolved, seconds_per_step
from sweeps.errors import UserError
from sweeps.runner.worker import prepare_process
from sweeps.training.cpp import SLACK, header
from sweeps.training.lane_program import LaneProgram, Lanes, NativeProgram, compile_cpp, with_slack
from sweeps.training.random import Stream

SETTINGS = {"model": "nmu", "task": {"name": "static", "operation": "mul"}, "train": {"steps": 10**9}}
INPUTS, BATCH, HIDDEN = 100, 128, 2
NUMBERS = INPUTS * BATCH + BATCH * HIDDEN
"""Random numbers of a step: the batch, and the dropout of the hidden values, whose rate is a lane's own number."""
PRODUCTS = 2 * 3 * INPUTS * BATCH
"""Multiply-adds of a step: the hidden values and the sums of the target forward, the first layer's gradient backward."""
ROUNDS = 5
LANES = (1, 10, 100, 1000, 10_000)
PLAIN_STEPS, PACK_STEPS = 500, 1000
LONGEST = {"cpu": 200_000, "cuda": 20_000_000}
"""Updates of a pack in a round, at most: packs of many lanes make fewer steps each, and at least 50."""
DRAWING = {"cpu": 1, "cuda": 4096}
"""Lanes of the program that only draws numbers: enough to keep the device busy."""
MATRIX = 8192
"""Rows of the square matrices whose product measures a GPU's multiply-adds."""


@dataclass(frozen=True)
class Limit:
    """What the machine could do, from ceilings measured in the same run: microseconds a seed-step."""

    ns_per_number: float
    """Of a program that only draws the batch and stores it."""
    ns_per_product: float
    """Of vector multiply-adds on registers; on a GPU, of a product of large float32 matrices."""

    @property
    def microseconds(self) -> float:
        return (NUMBERS * self.ns_per_number + PRODUCTS * self.ns_per_product) / 1000


@dataclass(frozen=True)
class Bench:
    """Seed-steps a second, one number a round; rounds alternate, so that all run under the same load."""

    plain: list[float] = field(default_factory=list)
    packs: dict[int, list[float]] = field(default_factory=dict)
    """By number of lanes."""
    jax: dict[int, list[float]] = field(default_factory=dict)
    limits: list[Limit] = field(default_factory=list)
    why_no_jax: str | None = None
    device: str = "cpu"

    @property
    def limit_us(self) -> float:
        """The median over the rounds."""
        return statistics.median(limit.microseconds for limit in self.limits)

    def ratios(self, lanes: int) -> list[float]:
        """Times as fast as the plain loop, by round."""
        return [fast / slow for fast, slow in zip(self.packs[lanes], self.plain, strict=True)]

    def table(self) -> str:
        """The medians as text, and the ratios with their range over the rounds."""
        plain = statistics.median(self.plain)
        lines = [
            f"plain PyTorch loop, one seed: {plain:,.0f} seed-steps/s ({1e6 / plain:,.0f} us each)",
            f"limit of this {'core' if self.device == 'cpu' else 'GPU'}: {self.limit_us:.3g} us a seed-step "
            f"({statistics.median(limit.ns_per_number for limit in self.limits):.2g} ns a random number, "
            f"{statistics.median(limit.ns_per_product for limit in self.limits):.2g} ns a multiply-add)",
            "",
            "| lanes | seed-steps/s | us each | times the plain loop | times the limit | JAX, us each | times JAX |",
            "|---|---|---|---|---|---|---|",
        ]
        for lanes, rates in self.packs.items():
            rate, found = statistics.median(rates), self.ratios(lanes)
            us, jax = 1e6 / rate, self.jax.get(lanes)
            peer = [f"{1e6 / statistics.median(jax):.3g}", f"{rate / statistics.median(jax):.1f}"] if jax else ["-", "-"]
            times = f"{statistics.median(found):.0f} ({min(found):.0f} to {max(found):.0f})"
            cells = [f"{lanes:,}", f"{rate:,.0f}", f"{us:.3g}", times, f"{us / self.limit_us:.2f}", *peer]
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
        cpu = self.device == "cpu"
        where = f"one thread, {torch.backends.cpu.get_cpu_capability()}" if cpu else torch.cuda.get_device_name()
        lines.append(
            f"{where}, torch {torch.__version__}, "
            f"medians of {len(self.plain)} rounds" + (f"; no JAX: {self.why_no_jax}" if self.why_no_jax else "")
        )
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "limit_us": self.limit_us}


def bench(
    lanes: Sequence[int] = LANES, rounds: int = ROUNDS, jax: bool = True,
    on_progress: Callable[[str], None] = lambda line: None, device: str = "cpu",
) -> Bench:  # fmt: skip
    """Measure all in turn. Compilation is not counted. Raises UserError where there is no such device."""
    if device not in LONGEST:
        raise UserError(f"--device is cpu or cuda, but {device!r} is given")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError(f"torch {torch.__version__} finds no GPU here; without --device the bench measures the processor")
    prepare_process()
    plain, settings = plain_nmu(device), resolved(SETTINGS)
    on_progress("compiling, then warming up")
    packs = {count: pack_steps(count, settings, device=device) for count in lanes}
    plain(200)
    for run in packs.values():
        run(20)
    ceilings = _Ceilings(device)
    result = Bench(packs={count: [] for count in lanes}, why_no_jax=_why_no_jax(jax, device), device=device)
    peer = None if result.why_no_jax else JaxPeer(lanes, device)
    for i in range(1, rounds + 1):
        result.plain.append(1 / seconds_per_step(plain, PLAIN_STEPS))
        for count, run in packs.items():
            steps = max(50, min(PACK_STEPS, LONGEST[device] // count))
            result.packs[count].append(count / seconds_per_step(run, steps))
        result.limits.append(ceilings.measured())
        if peer is not None:
            for count in lanes:
                result.jax.setdefault(count, []).append(peer.rate(count))
        on_progress(f"round {i} of {rounds}: {result.ratios(lanes[-1])[-1]:.0f} times as fast")
    if peer is not None:
        peer.close()
    return result


def bench_threads(threads: int = 2, lanes: int = 100, rounds: int = ROUNDS) -> list[float]:
    """Return how many times as fast a pack is on several threads as on one, by round."""
    prepare_process()
    settings = resolved(SETTINGS)
    one, several = pack_steps(lanes, settings), pack_steps(lanes, settings, threads)
    one(20), several(20)
    return [seconds_per_step(one, PACK_STEPS) / seconds_per_step(several, PACK_STEPS) for _ in range(rounds)]


class _Ceilings:
    """Programs that do one thing as fast as this device can."""

    def __init__(self, device: str) -> None:
        self._device, self._count = device, DRAWING[device]
        key = torch.tensor([1, 2], dtype=torch.int32, device=device)

        def drawn(state: dict[str, torch.Tensor], key: torch.Tensor) -> dict[str, torch.Tensor]:
            x = Stream((key[0], key[1]), state["step"].to(torch.int32)).uniform((INPUTS, BATCH), 1.0, 2.0)
            return {"step": state["step"] + 1, "x": x}

        step = torch.zeros((), dtype=torch.int64, device=device)
        state = {"step": step, "x": torch.zeros(INPUTS, BATCH, device=device)}
        self._draw = LaneProgram(drawn, (state, key), carried=True)
        leaves = [with_slack(t.expand(self._count, *t.shape)) for t in (*state.values(), key)]
        self._lanes = Lanes(leaves, [None] * len(leaves), self._count)
        if device == "cpu":
            with tempfile.TemporaryDirectory(prefix="sweeps-bench-") as folder:
                self._multiply = NativeProgram(compile_cpp(_multiply_adds(), Path(folder)), 1)
            self._numbers = with_slack(torch.full((1, SLACK + 1), 0.5))
        else:
            self._numbers = torch.full((MATRIX, MATRIX), 0.5, device=device)

    def measured(self) -> Limit:
        every, steps = np.arange(self._count), 2000
        per_step = seconds_per_step(lambda n: self._draw.run(self._lanes, every, np.full(self._count, n)), steps)
        if self._device == "cpu":
            address, count = np.array([[self._numbers.data_ptr()]]), 100_000
            per_chain = seconds_per_step(lambda n: self._multiply.run(address, np.full(1, n)), count) / CHAINS
            per_product = per_chain / float(self._numbers[0, SLACK])
        else:
            per_product = seconds_per_step(self._matrix_products, 5) / MATRIX**3
        return Limit(per_step / self._count / (INPUTS * BATCH) * 1e9, per_product * 1e9)

    def _matrix_products(self, count: int) -> None:
        for _ in range(count):
            self._numbers @ self._numbers


CHAINS = 12
"""Independent sums, enough to hide the latency of a multiply-add."""


def _multiply_adds() -> str:
    """C++ that does nothing but vector multiply-adds on registers, and says how many elements a vector has."""
    names = [f"a{k}" for k in range(CHAINS)]
    body = " ".join(f"{a} = fma_({a}, x, y);" for a in names)
    return (
        f'{header()}\nextern "C" int64_t workspace() {{ return 64; }}\n'
        'extern "C" void run(char* const* at, const int64_t* steps, int64_t count, char* work) {\n'
        "  float* p = (float*)at[0]; vf x = load(p), y = x;\n"
        f"  vf {', '.join(f'{a} = x' for a in names)};\n"
        f"  for (int64_t s = 0; s < steps[0]; s++) {{ {body} }}\n"
        f"  store(p, {' + '.join(names)}); p[{SLACK}] = STEP;\n}}\n"
    )


def _why_no_jax(wanted: bool, device: str) -> str | None:
    if not wanted:
        return "not asked for"
    if device == "cuda" and not any(importlib.util.find_spec(f"jax_cuda{version}_plugin") for version in (12, 13)):
        return "it is not installed for GPUs (pip install 'jax[cuda12]')"
    return None if importlib.util.find_spec("jax") else "it is not installed (pip install 'sweeps[bench]')"


class JaxPeer:
    """The same case in JAX (vmap, scan, jit), in a process of its own on one core, or on a GPU."""

    def __init__(self, lanes: Sequence[int], device: str = "cpu") -> None:
        core, settings = -1, {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        if device == "cpu":
            core = sorted(os.sched_getaffinity(0))[0] if sys.platform == "linux" else 0
            settings = {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "sweeps.bench.jax_peer", str(core), *map(str, lanes)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **settings},
        )  # fmt: skip

    def rate(self, lanes: int) -> float:
        """Return seed-steps a second. Raises RuntimeError where the process has ended."""
        assert self._process.stdin is not None and self._process.stdout is not None
        print(lanes, file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process that runs JAX ended with status {self._process.wait()}")
        return float(line)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def plain_nmu(device: str = "cpu") -> Steps:
    """One seed as a careful user would write it: modules, torch.optim.Adam, NumPy data, the same penalty and clamp.

    On a GPU it draws its data there.
    """
    rng, generator = np.random.RandomState(0), torch.Generator().manual_seed(0)
    model, here = _PlainNetwork(generator).to(device), torch.Generator(device).manual_seed(1)
    offset = int(rng.randint(0, 63))

    def batch() -> tuple[torch.Tensor, torch.Tensor]:
        if device != "cpu":
            x = 1.0 + torch.rand(BATCH, INPUTS, device=device, generator=here)
            sums = [x[:, first : first + 25].sum(dim=1, keepdim=True) for first in (offset, offset + 13)]
            return x, sums[0] * sums[1]
        drawn = rng.uniform(1.0, 2.0, (BATCH, INPUTS))
        a, b = drawn[:, offset : offset + 25].sum(axis=1), drawn[:, offset + 13 : offset + 38].sum(axis=1)
        return torch.from_numpy(drawn.astype(np.float32)), torch.from_numpy((a * b).astype(np.float32)).unsqueeze(1)

    def loss(step: int) -> torch.Tensor:
        inputs, targets = batch()
        weight = 10.0 * min(max((step - 1e6) / 1e6, 0.0), 1.0)
        return nn.functional.mse_loss(model(inputs), targets) + weight * model.penalty()

    return plain_steps(torch.optim.Adam(model.parameters(), lr=1e-3), loss, model.clamp)


class _PlainNetwork(nn.Module):
    """A NAU of two outputs, then an NMU of one."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.empty(HIDDEN, INPUTS).uniform_(-0.2425, 0.2425, generator=generator))
        self.second = nn.Parameter(torch.empty(1, HIDDEN).uniform_(0.25, 0.75, generator=generator))

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
