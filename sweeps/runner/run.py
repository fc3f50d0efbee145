"""`sweeps run`: begins a sweep, or continues one that was cut off, extended, or is done."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from sweeps.config.diff import difference
from sweeps.config.sweep_file import Sweep
from sweeps.errors import UserError
from sweeps.results import as_markdown, report
from sweeps.runner.driver import Driver
from sweeps.runner.progress import Progress
from sweeps.store import Store
from sweeps.tracking import BackgroundTracker, Tracker, default_uri

STOPPED_WAIT_S = 4.0
"""How long a sweep that was stopped waits for MLflow: batch systems kill 30 s after SIGTERM, and Ray has 25 of them."""


class Refused(UserError):
    """The request was wrong and nothing was started."""


@dataclass(frozen=True)
class RunOutcome:
    """How a run ended: done, stopped or failed, and why if it is not done."""

    state: str
    why: str | None
    driver: Driver


def run_sweep(
    sweep: Sweep,
    store: Store,
    folder: str | Path,
    console: Console,
    workers: int | None = None,
    tracked: bool = True,
) -> RunOutcome:
    """Runs what is missing of a sweep. Raises Refused, StoreError (also for a second driver) and ClusterError."""
    name = sweep.name
    with _sigterm_as_ctrl_c(), store.hold(name):
        _begin(sweep, store, console)
        row = store.sweep(name)
        assert row is not None
        mlflow = Tracker(default_uri(folder), sweep, created=row.created)
        tracker = BackgroundTracker(mlflow) if tracked else None
        driver = Driver(sweep, name, store, tracker, workers or os.cpu_count() or 1)
        state, why = "failed", None
        try:
            driver.begin()
            if driver.lanes_reused:
                console.print(f"{driver.lanes_reused} lanes are in the store already", highlight=False)
            if not driver.done and not driver.out_of_time():

                def abandon() -> None:
                    _end(driver, store, name, "stopped", console)
                    console.print(
                        f"the sweep stopped: {driver.stopping}, and Ray did not end", highlight=False
                    )

                _train(driver, console, workers, abandon)
            state, why = _came_to(driver)
        except KeyboardInterrupt:
            state, why = "stopped", "interrupted twice" if driver.stopping else "interrupted"
        finally:
            _end(driver, store, name, state, console)
    if driver.why_uncompiled:
        console.print(
            f"note: training ran uncompiled, several times slower: {driver.why_uncompiled}", highlight=False
        )
    return RunOutcome(state, why, driver)


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """While nothing trains yet, or no longer: what has begun is ended in order."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _came_to(driver: Driver) -> tuple[str, str | None]:
    if not driver.done:
        return "stopped", driver.stopping or "not all lanes came back"
    if driver.only_errors:
        return "failed", f"every seed ended in an error, such as {driver.only_errors}"
    return "done", None


def _begin(sweep: Sweep, store: Store, console: Console) -> None:
    row = store.sweep(sweep.name)
    if row is None:
        store.begin_sweep(sweep.name, sweep.text, sweep.document)
        return
    change = difference(row.document, sweep.document)
    if change.kind == "refusal":
        raise Refused(f"sweep {sweep.name!r} in {store.location} has begun, and {change.message}")
    if change.kind == "extension":
        console.print(change.message, highlight=False)
    store.update_definition(sweep.name, sweep.text, sweep.document)
    store.set_state(sweep.name, "running")


def _train(driver: Driver, console: Console, workers: int | None, abandon: Callable[[], None]) -> None:
    from sweeps.runner import ray_tune  # Ray takes seconds to import, and a sweep that is done needs none

    resources = driver.sweep.resources
    with (
        ray_tune.interruptible(driver, abandon),
        ray_tune.cluster(resources, workers, driver.sweep.document) as room,
    ):
        num_workers = room.now()
        driver.fit_to(max(num_workers, int(os.environ.get("SWEEPS_PLANNED_WORKERS", "0"))))
        console.print(
            f"{num_workers} workers, packs of {driver.slots} slots, {driver.lanes_planned - driver.lanes_done} lanes to train",
            highlight=False,
        )
        with Progress(driver, console) as progress:
            ray_tune.run(driver, resources, room, progress)


def _end(driver: Driver, store: Store, name: str, state: str, console: Console) -> None:
    store.set_state(name, state)
    if driver.tracker is None:
        return
    found = report(store, name)
    ranks = {
        (one.configuration.cell, one.configuration.number): one.rank
        for one in found.configurations
        if one.rank is not None
    }
    table = as_markdown(found, timing=False)
    driver.track(lambda tracker: tracker.finish(state, table, ranks))

    def tell(left: int) -> None:
        console.print(f"the records are safe; MLflow has {left} writes to come", highlight=False)

    if not driver.tracker.flush(STOPPED_WAIT_S if state == "stopped" else None, tell):
        console.print(f"MLflow lacks the latest runs: `sweeps sync {name}` writes them", highlight=False)


def sync(sweep: Sweep, store: Store, folder: str | Path) -> None:
    """Writes a sweep's MLflow runs anew from the records. Raises TrackingError and StoreError."""
    found = report(store, sweep.name)
    tracker = Tracker(default_uri(folder), sweep, created=found.row.created, name=found.name)
    tracker.sync(found.configurations, found.row.state, as_markdown(found, timing=False))
