"""Training in a worker process: a pack for some seconds, then plain data for the driver. No cluster, no Ray."""

from __future__ import annotations

import gc
import os
import platform
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from sweeps.config import registry
from sweeps.config.settings import build, source_of, structure
from sweeps.errors import UserError
from sweeps.machine import use_compile_cache
from sweeps.runner.driver import PackReport, PackRequest
from sweeps.runner.gpu import Footprint, Gpu, assigned_gpus, keep_to_share, most_lanes
from sweeps.training.lane import Checkpoint, Lane, LaneResult, error_result, exception_text
from sweeps.training.numerics import device_kind
from sweeps.training.pack import Pack

CHECKPOINT_SHARE = 0.02
"""Of a pack's time, what checkpoints take at most."""
SMALL_REPORT_BYTES = 1_000_000
"""Checkpoints that are sent with a report without making it any slower."""

_prepared: set[str] = set()
"""Structures whose programs this process has: see `_programs_key`."""
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
    gc.freeze()  # what was imported stays, and no collection walks through it: the digest of the source takes half as long


class CheckpointPace:
    """When checkpoints are made, and for how long: they take `CHECKPOINT_SHARE` of the time at most.

    What a report with many of them takes until training goes on is counted too. Of the share that has accumulated since the
    last ones, half is for making them, and half for that.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._balance_s = 0.0
        self._counted_s = self._last_s = clock()

    def seconds(self) -> float:
        """Return how long checkpoints may be made now; 0: not yet."""
        now = self._clock()
        self._balance_s += CHECKPOINT_SHARE * (now - self._counted_s)
        self._counted_s = now
        return CHECKPOINT_SHARE / 2 * (now - self._last_s) if self._balance_s > 0 else 0.0

    def spend(self, seconds: float) -> None:
        """Count time that checkpoints have taken."""
        self._balance_s -= seconds
        self._last_s = self._clock()


class PackRun:
    """The training of one pack. If the pack cannot be set up, all its lanes are returned with outcome "error".

    Where this process is not what the request is for (other code, another kind of device, no compiler) it trains nothing,
    and its report has the reason: its numbers would be stored as those of other lanes.
    """

    def __init__(self, request: PackRequest, clock: Callable[[], float] = time.monotonic) -> None:
        self._request, self._clock = request, clock
        self._pace = CheckpointPace(clock)
        self._sending_since: float | None = None
        self._failed: list[LaneResult] = []
        self._returned: list[Lane] = []
        self.pack: Pack | None = None
        self._refusal = _why_not_here(request)
        if self._refusal is not None:
            return
        lanes, slots = request.lanes, request.slots
        try:
            self._provenance = _provenance(request)
            if request.device == "cuda" and request.gpus < 1:
                keep_to_share(request.gpus)
            if request.sized_by_worker:
                most = most_lanes(Gpu.here(), request.gpus, Footprint.of(lanes, build))
                lanes, slots, self._returned = lanes[:most], min(slots, most), lanes[most:]
            self.pack = Pack(
                lanes, slots, build, request.zeros, request.device, request.numerics.compiled,
                threads=request.threads, source=request.source, clock=clock,
            )  # fmt: skip
        except Exception as error:  # as in the step, whatever a model or task raises is data about its lanes
            self.pack = None
            self._failed = [error_result(lane, exception_text(error)) for lane in lanes]

    @property
    def done(self) -> bool:
        return self.pack is None or self.pack.done

    def work(self, period_s: float | None = None) -> PackReport:
        """Train until lanes have ended or `period_s` (None: the request's `checkpoint_s`) is over, and at least a step.

        The report has new checkpoints of as many lanes as the pace permits, those with the oldest first.
        """
        if self._sending_since is not None:
            self._pace.spend(self._clock() - self._sending_since)
            self._sending_since = None
        period_s = self._request.checkpoint_s if period_s is None else period_s
        if self.pack is None:
            return PackReport(results=self._failed, returned=self._return(), refusal=self._refusal)
        if self._returned:  # at once, for other workers
            return PackReport(returned=self._return())
        if self._request.numerics.compiled and (key := _programs_key(self._request)) not in _prepared:
            _prepared.add(key)
            return PackReport(preparing=True)
        started, before = self._clock(), self.pack.seed_steps
        ended: list[LaneResult] = []
        while not ended and not self.pack.done:
            ended = self.pack.advance(started + period_s)
            if self._request.numerics.compiled and self.pack.why_uncompiled:
                return PackReport(refusal=_refused(f"it cannot compile the step: {self.pack.why_uncompiled}", PLAIN))
            if self._clock() - started >= period_s:
                break
        trained_s = 0.0 if self.pack.began is None else self._clock() - max(started, self.pack.began)
        checkpoints: dict[str, Checkpoint] = {}
        if seconds := self._pace.seconds():
            began = self._clock()
            checkpoints = self.pack.next_checkpoints(seconds)
            self._pace.spend(self._clock() - began)
            if sum(len(checkpoint.state) for checkpoint in checkpoints.values()) > SMALL_REPORT_BYTES:
                self._sending_since = self._clock()
        return PackReport(
            results=[replace(result, provenance=self._provenance) for result in ended],
            checkpoints=checkpoints,
            seed_steps=self.pack.seed_steps - before,
            seconds=trained_s,
            note=_note or self.pack.note,
        )

    def _return(self) -> list[tuple[str, int]]:
        """The ids of lanes that are not trained here, once."""
        returned, self._returned = self._returned, []
        return [(lane.key, lane.budget) for lane in returned]


def _programs_key(request: PackRequest) -> str:
    """Return what the programs of a pack are made from, as far as it may differ between packs of one sweep."""
    return f"{request.source} {request.device} {structure(request.lanes[0].settings)}"


PLAIN = (
    "Install a C++ compiler there, or start the sweep under another --name with --numerics plain (on a cluster: "
    "SWEEPS_NUMERICS=plain in the `environment` of its entry), which is several times slower."
)
"""The remedy where a step cannot be compiled."""


def _why_not_here(request: PackRequest) -> str | None:
    """Return why this process may not train the lanes of a request, or None."""
    if request.device == "cuda" and not torch.cuda.is_available():
        return _refused(
            f"torch {torch.__version__} finds no GPU there, and Ray gave it GPU {assigned_gpus()}",
            "Install a torch that is built for CUDA, and NVIDIA's driver, on the nodes that Ray has GPUs of, or train on CPUs "
            "with resources.gpus=0, under another --name.",
        )
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
    of_node = {"gpu_of_node": assigned_gpus()} if request.gpus else {}
    return of_node | {
        "device": f"cpu {torch.backends.cpu.get_cpu_capability()}" if on_cpu else torch.cuda.get_device_name(),
        "machine": platform.machine(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "numerics": str(request.numerics),
        "source_hash": request.source,
    }
