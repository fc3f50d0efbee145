"""Training in a worker process: a pack for some seconds, then plain data for the driver. No cluster, no Ray."""

from __future__ import annotations

import os
import platform
import socket
import time
from dataclasses import replace
from pathlib import Path

import torch

from sweeps.config import registry
from sweeps.config.settings import build, source_of
from sweeps.errors import UserError
from sweeps.machine import use_compile_cache
from sweeps.runner.driver import PackReport, PackRequest
from sweeps.training.lane import LaneResult, error_result
from sweeps.training.numerics import device_kind
from sweeps.training.pack import Pack

_note: str | None = None
"""A sentence about this machine that is printed at the end, if there is one."""


def prepare_process() -> None:
    """Use one thread, and a compile cache that outlives the process. Call it before the first pack."""
    global _note
    _note = use_compile_cache() or _note
    torch.set_num_threads(1)
    # No pool of compiler processes beside every worker. Torch's compiler reads it when it is imported, which takes a second
    # and is not needed where lane programs are found in the cache.
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"


class PackRun:
    """The training of one pack. If the pack cannot be set up, all its lanes are returned with outcome "error".

    Where this process is not what the request is for (other code, another kind of device, no compiler) it trains nothing,
    and its report has the reason: its numbers would be stored as those of other lanes.
    """

    def __init__(self, request: PackRequest) -> None:
        self._request = request
        self._failed: list[LaneResult] = []
        self.pack: Pack | None = None
        self._refusal = _why_not_here(request)
        if self._refusal is not None:
            return
        try:
            self._provenance = _provenance(request)
            self.pack = Pack(
                request.lanes, request.slots, build, request.zeros, request.device, request.numerics.compiled,
                threads=request.threads, source=request.source,
            )  # fmt: skip
        except Exception as error:  # as in the step, whatever a model or task raises is data about its lanes
            self.pack = None
            self._failed = [error_result(lane, f"{type(error).__name__}: {error}") for lane in request.lanes]

    @property
    def done(self) -> bool:
        return self.pack is None or self.pack.done

    def work(self, period_s: float | None = None) -> PackReport:
        """Train until lanes have ended or `period_s` (None: the request's `checkpoint_s`) is over, and at least a step."""
        period_s = self._request.checkpoint_s if period_s is None else period_s
        if self.pack is None:
            return PackReport(results=self._failed, refusal=self._refusal)
        started, before = time.monotonic(), self.pack.seed_steps
        ended: list[LaneResult] = []
        while not ended and not self.pack.done:
            ended = self.pack.advance(started + period_s)
            if self._request.numerics.compiled and self.pack.why_uncompiled:
                return PackReport(refusal=_refused(f"it cannot compile the step: {self.pack.why_uncompiled}", PLAIN))
            if time.monotonic() - started >= period_s:
                break
        return PackReport(
            results=[replace(result, provenance=self._provenance) for result in ended],
            checkpoints=self.pack.checkpoints(),
            seed_steps=self.pack.seed_steps - before,
            note=_note or self.pack.note,
        )


PLAIN = (
    "Install a C++ compiler there, or start the sweep under another --name with --numerics plain (on a cluster: "
    "SWEEPS_NUMERICS=plain in the `environment` of its entry), which is several times slower."
)
"""The remedy where a step cannot be compiled."""


def _why_not_here(request: PackRequest) -> str | None:
    """Return why this process may not train the lanes of a request, or None."""
    wanted, kind = request.numerics, device_kind(request.device)
    here_numerics = replace(wanted, device=kind)
    network = registry.find("network", request.lanes[0].settings["model"]["network"])
    same = here_numerics == wanted if network.pieces else here_numerics.of_lane_programs() == wanted.of_lane_programs()
    if not same:
        return _refused(
            f"it is {kind}, and the sweep's numbers are those of {wanted.device}",
            f"Use workers of that kind, or start the sweep under another --name with --numerics {kind} (on a cluster: "
            f"SWEEPS_NUMERICS={kind} in the `environment` of its entry).",
        )
    try:
        here = source_of(request.lanes[0].settings)
    except UserError as error:  # the driver has read the same definitions
        return _refused(str(error), "Every machine needs the files of the one where the sweep was started.")
    if here != request.source:
        return _refused(
            f"its code is another (source {here}, in {Path(registry.__file__).parents[2]}) than that of the command "
            f"(source {request.source}, in {request.installation})",
            "Install the same version of sweeps on every machine, and keep your own files equal.",
        )
    return None


def _refused(reason: str, remedy: str) -> str:
    return f"the worker on {socket.gethostname()} cannot train this sweep: {reason}. {remedy}"


def _provenance(request: PackRequest) -> dict[str, str]:
    """What may differ between equal lanes: the device, versions, and the source of what trains them."""
    on_cpu = request.device == "cpu"
    return {
        "device": f"cpu {torch.backends.cpu.get_cpu_capability()}" if on_cpu else torch.cuda.get_device_name(),
        "machine": platform.machine(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "numerics": str(request.numerics),
        "source_hash": request.source,
    }
