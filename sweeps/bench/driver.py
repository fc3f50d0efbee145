"""`sweeps bench --driver`: how many packs a second the driver can send and receive, with simulated workers.

A simulated worker returns at once: first a checkpoint of every lane, then its results, which are those of one trained lane
under other keys. Store, search, records and MLflow (SQLite) are real; there is no Ray, so the figure is the driver's own
limit.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sweeps.config.sweep_file import parse
from sweeps.runner.driver import Driver, PackReport, PackRequest
from sweeps.runner.worker import PackRun
from sweeps.store import Store
from sweeps.tracking import BackgroundTracker, Tracker, default_uri
from sweeps.training.lane import Checkpoint, LaneResult

SEEDS, SLOTS, STEPS = 100, 10, 200  # and twenty evaluations, as a lane of 20,000 steps has
SWEEP = """\
name: simulated
task: {{name: static, operation: add}}
model: nau
train: {{steps: {steps}, evaluate_every: 10}}
seeds: {seeds}
resources: {{slots: {slots}}}
search:
  sampler: {{name: random, seed: 0}}
  configurations: {configurations}
  parallel: {configurations}
  space: {{train.lr: {{log_uniform: [1e-4, 1e-1]}}}}
"""


@dataclass(frozen=True)
class DriverBench:
    """The duration of a sweep of trivial packs, and the size of its files."""

    lanes: int
    workers: int
    packs: int
    begin_s: float
    """To sample all configurations."""
    seconds: float
    """From then until the last record is in the store."""
    mlflow_s: float
    """From then until MLflow, which is written at the same time, is complete."""
    files: int
    megabytes: float

    def line(self) -> str:
        return (
            f"{self.lanes:,} lanes in {self.packs:,} packs, {self.workers} simulated workers: {self.packs / self.seconds:.1f} "
            f"packs and {self.lanes / self.seconds:.0f} lanes a second ({self.seconds:.0f} s after {self.begin_s:.0f} s of "
            f"sampling; MLflow {self.mlflow_s:.0f} s more); it leaves {self.files} files, {self.megabytes:.0f} MB"
        )


def bench_driver(
    lanes: int = 10_000, workers: int = 200, tracked: bool = True, on_progress: Callable[[str], None] = print
) -> DriverBench:
    """Run a whole sweep of simulated packs in a temporary folder."""
    text = SWEEP.format(steps=STEPS, seeds=SEEDS, slots=SLOTS, configurations=max(1, lanes // SEEDS))
    sweep = parse(text, "simulated", [])
    with (
        tempfile.TemporaryDirectory(prefix="sweeps-bench-", ignore_cleanup_errors=True) as folder,
        Store(folder) as store,
        store.hold(sweep.name),
    ):
        row = store.begin_sweep(sweep.name, sweep.text, sweep.document)
        tracker = BackgroundTracker(Tracker(default_uri(folder), sweep, created=row.created)) if tracked else None
        driver = Driver(sweep, sweep.name, store, tracker, workers)
        began = time.perf_counter()
        driver.begin()
        begun = time.perf_counter()
        sample = _sample(driver)
        started = time.perf_counter()
        packs = _run_packs(driver, workers, sample, on_progress)
        store.set_state(sweep.name, "done")
        ended = time.perf_counter()
        if tracker is not None:
            tracker.flush(on_progress=lambda left: on_progress(f"MLflow has {left:,} writes left"), every_s=10.0)
        settled = time.perf_counter()
        store.close()
        sizes = [path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()]
    return DriverBench(
        driver.lanes_done,
        workers,
        packs,
        begun - began,
        ended - started,
        settled - ended,
        len(sizes),
        sum(sizes) / 1e6,
    )


def _run_packs(driver: Driver, workers: int, sample: LaneResult, on_progress: Callable[[str], None]) -> int:
    """Give every worker a pack at all times, as long as there are some, and return the number of packs."""
    assert sample.state is not None
    packs, reported_s = 0, time.perf_counter()
    running: deque[tuple[PackRequest, bool]] = deque()
    while not driver.done:
        while len(running) < workers and (request := driver.next_pack(f"pack{packs}")):
            packs += 1
            running.append((request, False))
        request, has_reported = running.popleft()
        if not has_reported:
            checkpoints = {lane.key: Checkpoint(STEPS // 2, sample.state) for lane in request.lanes}
            driver.receive(request.pack_id, PackReport(checkpoints=checkpoints))
            running.append((request, True))
            continue
        results = [dataclasses.replace(sample, key=lane.key, seed=lane.seed) for lane in request.lanes]
        driver.receive(request.pack_id, PackReport(results=results, seed_steps=len(results) * STEPS))
        driver.pack_ended(request.pack_id)
        if time.perf_counter() - reported_s > 10:
            reported_s = time.perf_counter()
            on_progress(f"{driver.lanes_done:,} of {driver.lanes_planned:,} lanes")
    return packs


def _sample(driver: Driver) -> LaneResult:
    """The result of a lane that is really trained; the lanes of its pack are queued again."""
    request = driver.next_pack("sample")
    assert request is not None
    plain = dataclasses.replace(request.numerics, compiled=False)  # once: nothing is measured here
    run = PackRun(dataclasses.replace(request, lanes=request.lanes[:1], slots=3, numerics=plain))
    results: list[LaneResult] = []
    while not run.done:
        results += run.work(60.0).results
    driver.pack_ended("sample")
    return results[0]
