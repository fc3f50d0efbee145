"""Training in a worker process: a pack for some seconds, then plain data for the driver. No cluster, no Ray."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import replace
from pathlib import Path

import torch

from sweeps.config import registry
from sweeps.config.settings import build
from sweeps.runner.driver import PackReport, PackRequest
from sweeps.training.lane import LaneResult, error_result
from sweeps.training.pack import Pack
from sweeps.training.settings import NUMERICS


def prepare_process() -> None:
    """Use one thread, and a compile cache that outlives the process. Call it before the first pack."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sweeps" / "compiled"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache))
    import torch._inductor.config as inductor  # afterwards: it sets the variable to a folder in /tmp if there is none

    torch.set_num_threads(1)
    inductor.compile_threads = 1  # no pool of compiler processes beside every worker


class PackRun:
    """The training of one pack. If the pack cannot be set up, all its lanes are returned with outcome "error".

    `compiled`: None is the environment variable SWEEPS_COMPILE, by default true.
    """

    def __init__(self, request: PackRequest, compiled: bool | None = None) -> None:
        if compiled is None:
            compiled = os.environ.get("SWEEPS_COMPILE", "1") != "0"
        self._checkpoint_s = request.checkpoint_s
        self._failed: list[LaneResult] = []
        self.pack: Pack | None = None
        try:
            self.pack = Pack(request.lanes, request.slots, build, request.zeros, request.device, compiled)
            self._provenance = _provenance(request)
        except Exception as error:  # as in the step, whatever a model or task raises is data about its lanes
            self.pack = None
            self._failed = [error_result(lane, f"{type(error).__name__}: {error}") for lane in request.lanes]

    @property
    def done(self) -> bool:
        return self.pack is None or self.pack.done

    def work(self, period_s: float | None = None) -> PackReport:
        """Train until lanes have ended or `period_s` (None: the request's `checkpoint_s`) is over, and at least a step."""
        period_s = self._checkpoint_s if period_s is None else period_s
        if self.pack is None:
            return PackReport(results=self._failed)
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


def _provenance(request: PackRequest) -> dict[str, str]:
    """What may differ between equal lanes: the device, versions, and the source of task, network and units."""
    model, task = request.lanes[0].settings["model"], request.lanes[0].settings["task"]
    sources = [
        registry.source_hash("task", task["name"]),
        registry.source_hash("network", model["network"]),
        *(registry.source_hash("model", unit["name"]) for unit in model["units"]),
    ]
    on_cpu = request.device == "cpu"
    return {
        "device": f"cpu {torch.backends.cpu.get_cpu_capability()}" if on_cpu else torch.cuda.get_device_name(),
        "machine": platform.machine(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "numerics": str(NUMERICS),
        "source_hash": "-".join(sources),
    }
