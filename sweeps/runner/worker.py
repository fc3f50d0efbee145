"""What a worker process does with a pack: train it a while, then report plain data. Knows the engine, but no cluster."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import replace
from pathlib import Path

import torch

from sweeps.config import registry
from sweeps.config.settings import NUMERICS
from sweeps.runner.driver import PackReport, PackRequest
from sweeps.training.lane import LaneResult
from sweeps.training.pack import Pack, error_result


def prepare_process() -> None:
    """One thread a worker, and a compile cache that outlives it. Call it before the first pack."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sweeps" / "compiled"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache))
    import torch._inductor.config as inductor  # after that: it sets the variable to a folder in /tmp where there is none

    torch.set_num_threads(1)
    inductor.compile_threads = 1  # no pool of compiler processes beside every worker


class PackRun:
    """One pack in work. One that cannot even be set up comes back as lanes with outcome "error"."""

    def __init__(self, order: PackRequest, compiled: bool | None = None) -> None:
        if compiled is None:
            compiled = os.environ.get("SWEEPS_COMPILE", "1") != "0"
        self._lanes_lost: list[LaneResult] = []
        self._checkpoint_s = order.checkpoint_s
        try:
            self.pack: Pack | None = Pack(order.lanes, order.slots, order.zeros, order.device, compiled)
            self._provenance = _provenance(order)
        except (
            Exception
        ) as error:  # as in the step itself, whatever a model or task raises is data about its lanes
            self.pack = None
            self._lanes_lost = [
                error_result(lane, f"{type(error).__name__}: {error}") for lane in order.lanes
            ]

    @property
    def done(self) -> bool:
        return self.pack is None or self.pack.done

    def work(self, period_s: float | None = None) -> PackReport:
        """Trains until lanes have ended or it is time for a checkpoint, and at least a step."""
        period_s = self._checkpoint_s if period_s is None else period_s
        if self.pack is None:
            return PackReport(results=self._lanes_lost)
        started, before = time.monotonic(), self.pack.seed_steps
        ended: list[LaneResult] = []
        while not ended and not self.pack.done:
            ended = self.pack.advance(started + period_s)
            if time.monotonic() - started >= period_s:
                break
        return PackReport(
            results=[replace(result, provenance=self._provenance) for result in ended],
            checkpoints=self.pack.checkpoints(),
            seed_steps=self.pack.seed_steps - before,
            why_uncompiled=self.pack.why_uncompiled,
        )


def _provenance(order: PackRequest) -> dict[str, str]:
    """What may differ between equal lanes: where and with what they were trained."""
    settings = order.lanes[0].settings
    sources: list[tuple[registry.Kind, str]] = [
        ("task", settings["task"]["name"]),
        ("network", settings["model"]["network"]),
    ]
    sources += [("model", unit["name"]) for unit in settings["model"]["units"]]
    device = (
        torch.cuda.get_device_name()
        if order.device != "cpu"
        else f"cpu {torch.backends.cpu.get_cpu_capability()}"
    )
    return {
        "device": device,
        "machine": platform.machine(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "numerics": str(NUMERICS),
        "source_hash": "-".join(registry.source_hash(kind, name) for kind, name in sources),
    }
