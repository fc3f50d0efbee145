"""`make gpu-check`: whether the engine is right and fast on a machine's GPU, in under six minutes.

For a bare machine with a GPU and torch 2.11 or newer: it runs from the source tree (`python3 -m sweeps.bench.gpu_check`) and
needs torch, numpy, safetensors, filelock and NVIDIA's packages (`pip install 'sweeps[gpu]'`, or the machine's own), and neither
ray, optuna, mlflow, pydantic nor ruamel.yaml. It prints one table, and writes all numbers to a JSON file. A check that cannot
be made is in the table with the reason. `--device cpu` makes the same checks on a processor, with fewer lanes.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import logging
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from arith_models.base import Network, Unit
from arith_models.networks.dngpu import DNGPU
from arith_models.networks.one_layer import OneLayer
from arith_models.networks.two_layer import TwoLayer
from arith_models.penalties import PenaltyConfig
from arith_models.units.inalu import INALU
from arith_models.units.nalu import NALU, GatedNAUNMU
from arith_models.units.nau_nmu import NAU, NMU
from arith_models.units.npu import NPU
from sweeps.training.lane import Lane
from sweeps.training.pack import Pack
from sweeps.training.random import threefry2x32, threefry_of_ints
from sweeps.training.settings import Built, Train
from sweeps.training.trainers import LaneTrainer
from tasks.algorithm import Algorithm
from tasks.base import Task
from tasks.single_module import SingleModule
from tasks.static import Static

BUDGET_S = 340.0
"""Of all checks; those that are left when it is spent are skipped."""
DNGPU_S = 170.0
"""Of the DNGPU check, which is the last one and may compile for long."""
KNOWN = {((0, 0), (0, 0)): (0x6B200159, 0x99BA4EFE), ((2**32 - 1,) * 2, (2**32 - 1,) * 2): (0x1CB996FC, 0xBB002BE7)}
"""Published answers of Threefry-2x32 with 20 rounds (Salmon et al. 2011, Random123)."""
PUBLISHED_MEDIAN = 18_000
"""Converged-at of NAU on addition (Madsen and Johansen 2020, table 2)."""
MAPS, ROWS = 96, 32
BINS = (8, 12, 16, 20, 25, 28, 31, 36, 41)
"""The published case of DNGPU for binary multiplication: channels, rows of a bin, lengths of the bins."""
FLOPS = 3 * 2 * 9 * MAPS**2 * ROWS * sum(n * n for n in BINS)
"""Of its step: products of three gates of width 3 at every position and time step, forward once and backward twice."""
PEAK_FLOPS = {"H100": 67e12, "H200": 67e12, "A100": 19.5e12}
"""float32 products a second outside of tensor cores, by a part of the device's name (NVIDIA's data sheets)."""


class Case:
    """A configuration made of classes, without the registry: the modules of a bare machine are enough."""

    def __init__(
        self, network: type[Network], config: Any, units: tuple[tuple[type[Unit], Any], ...], task: Task, **train: Any
    ) -> None:
        options = Train(**{"steps": 10**6, **train})
        self.built = Built(network, config, units, task, options)
        own = {"units": [{"name": unit.__name__, **_plain(of_unit)} for unit, of_unit in units], **_plain(config)}
        name = {"name": network.__name__, "network": network.__name__}
        task_settings = {"name": type(task).__name__, **_plain(task.config)}
        self.settings = {"model": {**name, **own}, "task": task_settings, "train": _plain(options)}

    def pack(self, lanes: int, device: str, first: int = 0) -> Pack:
        """A pack of so many seeds, from the first on."""
        seeds = range(first, first + lanes)

        def build(settings: Mapping[str, Any]) -> Built:
            return self.built

        zeros = frozenset({"train.gradient_noise", "train.clip_norm", "train.clip_value", "train.momentum"})
        unused = zeros - {path for path in zeros if self.settings["train"][path.partition(".")[2]]}
        return Pack([Lane(f"seed {s}", self.settings, s) for s in seeds], lanes, build, unused, device)


def _plain(config: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return found


def static(operation: Any, units: tuple[type[Unit], ...], dropout: float = 0.0, **train: Any) -> Case:
    """The static task in two layers, 100-2-1."""
    config, task = TwoLayer.Config(dropout=dropout), Static(Static.Config(operation=operation))
    return Case(TwoLayer, config, tuple((u, u.Config()) for u in units), task, **train)


def cases() -> dict[str, Case]:
    single = SingleModule(SingleModule.Config(operation="mul"))
    return {
        "nmu": static("mul", (NAU, NMU)),
        "nmu, dropout and noise": static("mul", (NAU, NMU), 0.1, gradient_noise=0.01, clip_norm=1.0),
        "nau, sgd": static("add", (NAU, NAU), optimizer="sgd", momentum=0.9, lr=1e-4),
        "nalu, adamax": static("mul", (NALU, NALU), optimizer="adamax"),
        "gated nau/nmu": static("mul", (GatedNAUNMU, GatedNAUNMU)),
        "inalu": static("mul", (INALU, INALU)),
        "npu": static("div", (NPU, NPU)),
        "nmu, single module": Case(OneLayer, PenaltyConfig(), ((NMU, NMU.Config()),), single),
    }


class Checks:
    """Runs checks one after another, and keeps what they found."""

    def __init__(self, device: str, quick: bool) -> None:
        self.device, self.quick = device, quick
        self.started = time.monotonic()
        self.rows: list[tuple[str, str, str]] = []
        """Check, passed | failed | skipped, what was found."""
        self.numbers: dict[str, Any] = {}

    @property
    def left_s(self) -> float:
        return BUDGET_S - (time.monotonic() - self.started)

    def run(self, name: str, check: Callable[[Checks], str]) -> None:
        """A check returns what it found, raises AssertionError where that is wrong, and Skipped where it cannot be made."""
        if self.left_s <= 0:
            self._add(name, "skipped", f"the {BUDGET_S:.0f} s of all checks are over")
            return
        started = time.monotonic()
        try:
            found, outcome = check(self), "passed"
        except Skipped as why:
            found, outcome = str(why), "skipped"
        except AssertionError as wrong:
            found, outcome = str(wrong), "failed"
        except Exception as error:  # what one check raises is no reason not to make the others
            logging.getLogger(__name__).exception("%s", name)
            found, outcome = f"{type(error).__name__}: {error}", "failed"
        self._add(name, outcome, f"{found} ({time.monotonic() - started:.1f} s)")

    def _add(self, name: str, outcome: str, found: str) -> None:
        self.rows.append((name, outcome, " ".join(found.split())))
        print(f"{outcome:8} {name}: {self.rows[-1][2]}", flush=True)

    def synchronize(self) -> None:
        if self.device != "cpu":
            torch.cuda.synchronize()


class Skipped(Exception):
    """A check that cannot be made here. The message is the reason."""


def generator(checks: Checks) -> str:
    """Threefry: published answers, and the device's words against the integers' for many keys and counters."""
    for (key, counter), expected in KNOWN.items():
        assert threefry_of_ints(key, counter, 20) == expected, "the published answers of 20 rounds differ"
    words = np.random.RandomState(0).randint(0, 2**32, (4, 500), dtype=np.uint64).astype(np.uint32)
    tensors = [torch.from_numpy(row.view(np.int32)).to(checks.device) for row in words]
    found = [t.cpu().numpy().view(np.uint32) for t in threefry2x32(*tensors)]
    for k in range(500):
        k0, k1, c0, c1 = (int(row[k]) for row in words)
        assert threefry_of_ints((k0, k1), (c0, c1)) == (int(found[0][k]), int(found[1][k])), f"word {k} differs"
    return "2 published answers, and 500 pairs of words equal those of the integer reference"


def programs(checks: Checks) -> str:
    """Every structure's programs against the recorded operations, as at their first compilation, and the time it takes."""
    seconds = {}
    for name, case in cases().items():
        started = time.monotonic()
        pack = case.pack(2, checks.device)
        pack.stepper()
        trainer = pack.trainer
        assert isinstance(trainer, LaneTrainer)
        step = trainer.programs().step
        assert step is not None and step.is_native, f"{name}: {step and (step.why_uncompiled or step.not_lowered)}"
        seconds[name] = round(time.monotonic() - started, 2)
    checks.numbers["compile_s"] = seconds
    return f"{len(seconds)} structures agree with their recorded operations; {max(seconds.values()):.1f} s for the slowest"


def equal_to_itself(checks: Checks) -> str:
    """One seed's state after 300 steps: alone, and among others."""
    case, sizes = cases()["nmu, dropout and noise"], (1, 7, 100, 300 if checks.quick else 5000)
    states = []
    for size in sizes:
        pack = case.pack(size, checks.device)
        pack.stepper()(300)
        checks.synchronize()
        states.append([leaf[0].cpu() for leaf in pytree.tree_leaves(pack.tensors["state"])])
    for size, state in zip(sizes[1:], states[1:], strict=True):
        for one, other in zip(states[0], state, strict=True):
            assert torch.equal(one, other), f"seed 0 among {size} lanes differs from seed 0 alone"
    return f"seed 0 has the same bits alone and among {', '.join(map(str, sizes[1:]))} lanes"


def addition(checks: Checks) -> str:
    """NAU learns addition when it was published to."""
    seeds, steps = (20, 30_000) if checks.quick else (1000, 60_000)
    pack = static("add", (NAU, NAU), steps=steps).pack(seeds, checks.device)
    pack.stepper()
    started, results = time.monotonic(), []
    while not pack.done:
        results += pack.advance()
    seconds = time.monotonic() - started
    converged = [r.converged_at for r in results if r.converged_at is not None]
    median = statistics.median(converged) if converged else None
    checks.numbers["nau_addition"] = {"seeds": seeds, "converged": len(converged), "median": median, "seconds": seconds}
    found = f"{len(converged)} of {seeds} seeds converge, median {median}, {seconds:.1f} s for {steps:,} steps each"
    assert len(converged) >= 0.9 * seeds and median is not None, found
    assert abs(median - PUBLISHED_MEDIAN) <= 2000, f"{found}; published: {PUBLISHED_MEDIAN}"
    return found


def speed(checks: Checks) -> str:
    """Seed-steps a second by number of lanes, and JAX's where it is installed with this kind of device."""
    sizes = (1, 10, 100) if checks.quick else (1, 100, 1000, 4000, 16_000)
    steps = 200 if checks.quick else 1000
    ours: dict[int, float] = {}
    for size in sizes:
        run = cases()["nmu"].pack(size, checks.device).stepper()
        run(10)
        checks.synchronize()
        rates = []
        for _ in range(3):
            started = time.perf_counter()
            run(steps)
            checks.synchronize()
            rates.append(size * steps / (time.perf_counter() - started))
        ours[size] = statistics.median(rates)
    peer = _jax(checks, [size for size in sizes if size >= 100])
    checks.numbers["seed_steps_per_s"] = ours
    checks.numbers["jax_seed_steps_per_s"] = peer
    parts = [f"{size:,} lanes {rate / 1e6:.3g} M/s" + (f" (JAX {peer[size] / 1e6:.3g})" if size in peer else "")
             for size, rate in ours.items()]  # fmt: skip
    return "; ".join(parts) + ("" if peer else "; no JAX here")


def _jax(checks: Checks, sizes: list[int]) -> dict[int, float]:
    if importlib.util.find_spec("jax") is None:
        return {}
    command = [sys.executable, "-m", "sweeps.bench.jax_peer", "-1", *map(str, sizes)]
    environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    asked = "".join(f"{size}\n" for size in sizes for _ in range(3))
    try:
        done = subprocess.run(
            command, input=asked, capture_output=True, text=True, timeout=max(20.0, min(90.0, checks.left_s)), env=environment
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {}
    rates = [float(line) for line in done.stdout.split()]
    return {size: statistics.median(rates[3 * k : 3 * k + 3]) for k, size in enumerate(sizes) if len(rates) >= 3 * k + 3}


def dngpu(checks: Checks) -> str:
    """The published case in a process of its own, which is ended when its time is over."""
    if checks.quick:
        raise Skipped("on a processor `sweeps bench --model dngpu` measures it")
    limit = max(30.0, min(DNGPU_S, checks.left_s))
    command = [sys.executable, "-m", "sweeps.bench.gpu_check", "--device", checks.device, "--dngpu"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired as over:
        raise AssertionError(f"no step in {limit:.0f} s") from over
    assert done.returncode == 0, done.stderr[-500:]
    found = json.loads(done.stdout.splitlines()[-1])
    checks.numbers["dngpu"] = found
    name = torch.cuda.get_device_name() if checks.device != "cpu" else ""
    peak = next((flops for part, flops in PEAK_FLOPS.items() if part in name), None)
    share = f", {found['flops'] / found['step_s'] / peak:.0%} of float32's peak" if peak else ""
    return f"first step after {found['first_step_s']:.0f} s, then {1 / found['step_s']:.1f} steps a second{share}"


def _dngpu_here(device: str) -> None:
    task = Algorithm(Algorithm.Config(operation="multiply", base=2, bins=BINS))
    case = Case(DNGPU, DNGPU.Config(maps=MAPS, dropout=0.1), (), task, batch=ROWS, optimizer="adamax", lr=0.005, beta2=0.9995)
    started = time.monotonic()
    run = case.pack(1, device).stepper()
    run(1)
    if device != "cpu":
        torch.cuda.synchronize()
    first_s = time.monotonic() - started
    steps = 20 if device != "cpu" else 2
    run(2)
    if device != "cpu":
        torch.cuda.synchronize()
    started = time.monotonic()
    run(steps)
    if device != "cpu":
        torch.cuda.synchronize()
    print(json.dumps({"first_step_s": first_s, "step_s": (time.monotonic() - started) / steps, "flops": FLOPS}))


CHECKS: dict[str, Callable[[Checks], str]] = {
    "random numbers": generator,
    "lane programs": programs,
    "a lane equals itself": equal_to_itself,
    "NAU addition": addition,
    "speed": speed,
    "DNGPU": dngpu,
}


def main(arguments: list[str] | None = None) -> int:
    """Make the checks; return 1 where one failed, 2 where there is no such device."""
    parser = argparse.ArgumentParser(prog="python3 -m sweeps.bench.gpu_check", description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", help="cuda (default) or cpu")
    parser.add_argument("--json", type=Path, default=Path("gpu-check.json"), help="file of all numbers")
    parser.add_argument("--dngpu", action="store_true", help="this process measures DNGPU only")
    given = parser.parse_args(arguments)
    if given.device != "cpu" and not torch.cuda.is_available():
        print(f"torch {torch.__version__} finds no GPU here; --device cpu makes the checks on the processor", file=sys.stderr)
        return 2
    torch.set_num_threads(1)
    if given.dngpu:
        _dngpu_here(given.device)
        return 0
    checks = Checks(given.device, quick=given.device == "cpu")
    here = torch.cuda.get_device_name() if given.device != "cpu" else torch.backends.cpu.get_cpu_capability()
    print(f"{given.device} {here}, torch {torch.__version__}, Python {sys.version.split()[0]}", flush=True)
    for name, check in CHECKS.items():
        checks.run(name, check)
    print("\n| check | outcome | found |\n|---|---|---|")
    for row in checks.rows:
        print("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |")
    about = {"device": f"{given.device} {here}", "torch": torch.__version__, "seconds": time.monotonic() - checks.started}
    rows = [dict(zip(("check", "outcome", "found"), row, strict=True)) for row in checks.rows]
    given.json.write_text(json.dumps({**about, "checks": rows, "numbers": checks.numbers}, indent=1))
    print(f"\n{time.monotonic() - checks.started:.0f} s; all numbers: {given.json}")
    return int(any(outcome == "failed" for _, outcome, _ in checks.rows))


if __name__ == "__main__":
    sys.exit(main())
