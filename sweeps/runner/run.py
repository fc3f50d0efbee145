"""`sweeps run`: start a sweep, or continue one that was interrupted, extended, or is done."""

from __future__ import annotations

import itertools
import logging
import os
import signal
import stat
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from rich.console import Console

from sweeps.config.compare import Cell
from sweeps.config.diff import Change, difference
from sweeps.config.faults import unknown
from sweeps.config.sweep_file import Budget, Resources, Sweep, definitions, parse
from sweeps.errors import StoreError, UserError, after_start
from sweeps.machine import number_in, ray_address
from sweeps.results import as_markdown, report
from sweeps.results.numbers import counted
from sweeps.results.report import Report
from sweeps.runner.budget import Spending
from sweeps.runner.driver import Driver, device_of
from sweeps.runner.gpu import gpus_of_this_machine
from sweeps.runner.progress import Progress
from sweeps.store import HeldByAnother, Store
from sweeps.store.database import exists
from sweeps.store.records import SweepRow
from sweeps.tracking import BackgroundTracker, Refill, Synced, Tracker, default_uri, experiment_of, has_runs, leaderboard
from sweeps.training.numerics import DEVICE_KINDS, MODES, NUMERICS, Numerics, is_device_kind, why_no_compiler

log = logging.getLogger(__name__)

STOPPED_MLFLOW_S = 4.0
"""Seconds that a stopped sweep waits for MLflow: batch systems kill 30 s after SIGTERM, of which Ray has 25."""


MOST_LANES_OF_PAGE = 20_000
"""Lanes of a sweep whose report is stored in MLflow as a page too: more take too long to write."""
MOST_CELLS = 10
"""Cells that ended by their target which are named one by one."""


@dataclass(frozen=True)
class RunOutcome:
    """How a run ended."""

    state: Literal["done", "stopped", "failed"]
    reason: str | None
    """Why it is not done."""
    how_to_continue: str = "the same command continues"


def run_sweep(
    sweep: Sweep,
    store: Store,
    folder: str | Path,
    console: Console,
    workers: int | None = None,
    tracked: bool = True,
    numerics: str | None = None,
) -> RunOutcome:
    """Train the lanes of a sweep that the store lacks, with at most `workers` worker processes.

    `folder` is the store's location, where MLflow's database is by default; with `tracked` MLflow is written. `numerics` is
    the text of --numerics, see `chosen_numerics`.

    Raises UserError where the file or `numerics` contradicts the sweep in the store, StoreError (HeldByAnother for a
    second driver) before training, SweepFailed for a store that cannot be used any more during training, and ClusterError.
    """
    # Wrong ones raise before anything begins; so does `budget.cost_usd` where no price is known.
    ray_address(), number_in("SWEEPS_WAIT_S"), number_in("SWEEPS_PLANNED_WORKERS"), Spending(sweep.budget, 0.0)
    with signals_interrupt(), store.hold(sweep.name):
        continued = _begin(sweep, store, console, numerics)
        row = store.sweep(sweep.name)
        assert row is not None
        mlflow = Tracker(default_uri(folder), sweep, created=row.created, refill=partial(sync_all, folder))
        tracker = BackgroundTracker(mlflow, partial(_catch_up, folder)) if tracked else None
        driver = Driver(sweep, sweep.name, store, tracker, workers or os.cpu_count() or 1)
        if continued:
            driver.require_same_lanes()  # a run that is refused leaves the sweep as it is
            store.update_definition(sweep.name, sweep.text, sweep.document)
            store.set_state(sweep.name, "running")
        try:
            driver.begin()
            if driver.lanes_reused:
                console.print(f"{driver.lanes_reused} lanes are in the store already", highlight=False)
            if driver.other_sources:
                console.print(_other_sources(driver.other_sources), highlight=False, soft_wrap=True)
            if not driver.done and not driver.out_of_budget():
                with after_start():
                    _train(driver, console, workers)
            outcome = _outcome(driver)
        except KeyboardInterrupt:
            outcome = RunOutcome("stopped", "interrupted twice" if driver.stop_reason else "interrupted")
        except Exception as error:
            # The sweep of a driver that was replaced by another is left as it is; a broken store raises again.
            if not isinstance(error.__cause__ or error, HeldByAnother):
                with suppress(StoreError):
                    _finish(driver, "failed", console)
            raise
        with after_start():
            _finish(driver, outcome.state, console)
    ended = driver.ended_by_target
    for sentence in ended[:MOST_CELLS]:
        console.print(sentence, highlight=False, soft_wrap=True)
    if ended:
        more = f"and so did {len(ended) - MOST_CELLS} more cells; " if len(ended) > MOST_CELLS else ""
        console.print(
            f"{more}the same command with a larger `budget.target.success_rate`, or without it, tries the others",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
    if driver.note:
        console.print(f"note: {driver.note}", highlight=False, soft_wrap=True)
    return outcome


def stored_sweep(name: str, overrides: Sequence[str], store: str | Path) -> Sweep | None:
    """Return the sweep of that name in the store, to continue it.

    None for a file, for a shipped definition with overrides, and where there is no such sweep or store. Raises SweepFileError.
    """
    if Path(name).is_file() or (overrides and name in definitions()) or not exists(store):
        return None
    with Store(store, read_only=True) as opened:
        row = opened.sweep(name)
    if row is None:
        return None
    named = any(argument.startswith("name=") for argument in overrides)
    sweep = parse(row.definition, name, overrides)
    if sweep.name != name and not named:  # the text is that of a sweep which was renamed
        sweep = parse(row.definition, name, [f"name={name}", *overrides])
    return replace(sweep, text=row.definition) if sweep.document == row.document else sweep


def chosen_numerics(sweep: Sweep, chosen: str | None) -> Numerics:
    """Return the numerics of a new sweep: this machine's, with `chosen` parts in place of its own.

    `chosen`, by default the environment variable SWEEPS_NUMERICS, has `compiled` or `plain`, a kind of device, or both, such
    as cpu-x86-64-v3,plain. Raises UserError for what is unknown, and for what the workers of this machine cannot be; those of
    a cluster are asked when they start.
    """
    device, here = device_of(sweep), Numerics.here(device_of(sweep))
    given = "SWEEPS_NUMERICS" if chosen is None else "--numerics"
    words = (os.environ.get("SWEEPS_NUMERICS", "") if chosen is None else chosen).replace(",", " ").split()
    modes, kinds = [w for w in words if w in MODES], [w for w in words if is_device_kind(w)]
    for word in words:
        if word not in (*modes, *kinds):
            raise UserError(f"{given}: {unknown('numerics', word, [*MODES, *DEVICE_KINDS])} Such as cpu-x86-64-v3,plain")
    if len(modes) > 1 or len(kinds) > 1:
        raise UserError(f"{given} has {' and '.join(modes if len(modes) > 1 else kinds)}: a sweep has one of them")
    result = Numerics(kinds[0] if kinds else here.device, modes[0] == "compiled" if modes else here.compiled)
    if not result.device.startswith(device):
        needed = "above 0" if result.device == "cuda" else "0"
        raise UserError(
            f"{given} is {result.device}, and the file's workers train on {device}: that needs resources.gpus {needed}"
        )
    if ray_address() is None and device == "cuda":
        gpus_of_this_machine()
    if ray_address() is None and result.device != here.device:
        raise UserError(f"{given} is {result.device}, and this machine is {here.device}: run it on a machine of that kind")
    if ray_address() is None and result.compiled and (reason := why_no_compiler()):
        raise UserError(f"{given} is compiled, and on this machine {reason}: install one, or choose plain")
    return result


def _other_sources(pairs: Iterable[tuple[str, str]]) -> str:
    first, *others = (f"{then} then, {here} here" for then, here in sorted(pairs))
    more = f", and {len(others)} other pairs" if others else ""
    return (
        f"warning: stored lanes are reused that other code trained (source {first}{more}). If the difference changes "
        "results, raise the `version` of what changed, or train with another --store."
    )


@contextmanager
def signals_interrupt() -> Iterator[None]:
    """Raise KeyboardInterrupt at SIGTERM and SIGHUP as at Ctrl-C, so that a sweep, or a server, ends in order.

    In another thread than the main one, which receives no signals, nothing is changed.
    """
    if not in_main_thread():
        yield
        return

    def on_hang_up(number: int, frame: object) -> None:
        ignore_hang_up()
        raise KeyboardInterrupt

    previous = {signal.SIGTERM: signal.signal(signal.SIGTERM, signal.default_int_handler)}
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as under nohup
        previous[signal.SIGHUP] = signal.signal(signal.SIGHUP, on_hang_up)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def in_main_thread() -> bool:
    """Return whether this thread may handle signals."""
    return threading.current_thread() is threading.main_thread()


def ignore_hang_up() -> None:
    """Ignore further SIGHUPs, since a closed terminal sends two, and print no more to a terminal that is gone."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for stream in (1, 2):
        with suppress(OSError):
            if stat.S_ISCHR(os.fstat(stream).st_mode) and not os.isatty(stream):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream)
                os.close(nowhere)


def _begin(sweep: Sweep, store: Store, console: Console, chosen: str | None) -> bool:
    """Write a new sweep to the store, or return whether it has one that the file continues. Raises UserError if it does not."""
    row = store.sweep(sweep.name)
    if row is None:
        _begin_anew(sweep, store, chosen_numerics(sweep, chosen), console)
        return False
    change = difference(row.document, sweep)
    before = _require_continues(sweep, row, change, store.location)
    if change.kind == "extension":
        console.print(change.message, highlight=False)
    if before is None or before.version < NUMERICS:
        numerics = chosen_numerics(sweep, chosen)
        version = before.version if before else 1
        kept = next(n for n in _free_names(f"{sweep.name[:80]}-numerics-{version}") if store.sweep(n) is None)
        store.rename_sweep(sweep.name, kept)
        console.print(
            f"{sweep.name} was trained with version {version} of the engine's numerics, and this is version {NUMERICS}, whose "
            f"numbers differ. Its results are kept as {kept}; {sweep.name} is trained anew.",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
        _begin_anew(sweep, store, numerics, console)
        return False
    if chosen is not None and before != (asked := chosen_numerics(sweep, chosen)):
        raise UserError(
            f"sweep {sweep.name!r} in {store.location} began with numerics {before}, not {asked}: all its lanes have the "
            "same. Leave --numerics out, or start another sweep with --name"
        )
    return True


def _require_continues(sweep: Sweep, row: SweepRow, change: Change, where: str) -> Numerics | None:
    """Return the numerics with which a stored sweep began. Raises UserError where the file does not continue it."""
    if change.kind == "refusal":
        raise UserError(f"sweep {sweep.name!r} in {where} has begun, and {change.message}")
    try:
        before = None if row.numerics is None else Numerics.parse(row.numerics)
    except ValueError as error:
        raise StoreError(f"store {where}: the numerics of sweep {sweep.name!r} cannot be read: {error}") from error
    if before is not None and before.version > NUMERICS:
        raise UserError(
            f"sweep {sweep.name!r} in {where} has numerics {before}, of a newer engine than this "
            f"(version {NUMERICS}): install the release that began it, or start anew with --name"
        )
    return before


def require_continues(sweep: Sweep, store: Store) -> None:
    """Raise UserError where `run_sweep` would refuse the sweep because of the one of that name in the store.

    Nothing is changed, and the store may be opened for reading only.
    """
    row = store.sweep(sweep.name)
    if row is None:
        return
    before = _require_continues(sweep, row, difference(row.document, sweep), store.location)
    if before is not None and before.version == NUMERICS:
        device = device_of(sweep)
        if row.state != "done" and not before.device.startswith(device):
            raise UserError(
                f"sweep {sweep.name!r} in {store.location} began with numerics {before}, and the file's workers train on "
                f"{device}, whose numbers differ: set resources.gpus as it was, or start another sweep with --name"
            )
        try:
            # Without the budget, for which only a driver needs a price.
            Driver(replace(sweep, budget=Budget()), sweep.name, store, None, 1).require_same_lanes()
        except StoreError as error:
            raise UserError(str(error)) from error


def _begin_anew(sweep: Sweep, store: Store, numerics: Numerics, console: Console) -> None:
    store.begin_sweep(sweep.name, sweep.text, sweep.document, str(numerics))
    if not numerics.compiled and (reason := why_no_compiler()):
        console.print(f"note: training runs uncompiled, several times slower: {reason}", highlight=False)


def _free_names(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name}-{number}" for number in itertools.count(2))


def _train(driver: Driver, console: Console, workers: int | None) -> None:
    with Progress(driver, console) as progress:
        progress.before("starting Ray")
        _train_on_ray(driver, console, workers, progress)


def _train_on_ray(driver: Driver, console: Console, workers: int | None, progress: Progress) -> None:
    from sweeps.runner import ray_tune  # it takes seconds to import, and a sweep that is done does not need it

    def before_exit() -> None:
        _finish(driver, "stopped", console)
        console.print(f"the sweep stopped: {driver.stop_reason}, and Ray did not end", highlight=False)

    resources = driver.sweep.resources
    with (
        ray_tune.stop_on_signals(driver, before_exit),
        ray_tune.ray_cluster(resources, workers, driver.sweep.document) as capacity,
    ):
        num_workers = capacity.current()
        driver.spending.set_nodes(capacity.num_nodes())
        driver.set_num_workers(max(num_workers, int(number_in("SWEEPS_PLANNED_WORKERS"))))
        most = "at most " if driver.may_stop_early else ""
        lanes = driver.lanes_planned - driver.lanes_done - driver.lanes_spared
        packs = f"{counted(num_workers, 'worker')}, packs of {counted(driver.slots, 'slot')}"
        console.print(f"{packs}, {most}{counted(lanes, 'lane')} to train", highlight=False)
        if idle := capacity.idle_gpus():
            console.print(f"note: {idle}", highlight=False, soft_wrap=True)
        progress.before(None)
        ray_tune.run(driver, resources, capacity, progress)
        progress.end()


def _outcome(driver: Driver) -> RunOutcome:
    if not driver.done:
        return RunOutcome("stopped", driver.stop_reason or "not every lane has a result", driver.how_to_continue)
    if driver.common_error is not None:
        return RunOutcome("failed", f"every seed ended in an error, such as {driver.common_error}")
    return RunOutcome("done", None)


def _finish(driver: Driver, state: str, console: Console) -> None:
    """Write the sweep's state to the store, and its report and ranks to MLflow; wait for MLflow."""
    store, name = driver.store, driver.name
    store.set_state(name, state)
    if driver.tracker is None:
        return
    found = report(store, name)
    ranks = {
        (one.configuration.cell, one.configuration.number): one.rank for one in found.with_repeats() if one.rank is not None
    }
    table = as_markdown(found, timing=False)
    driver.track(lambda tracker: tracker.finish(state, table, ranks))
    if state == "done":
        driver.track(lambda tracker: tracker.attach(_report_files(found)))

    def on_wait(num_writes: int) -> None:
        console.print(f"the records are safe; MLflow has {num_writes} writes to come", highlight=False)

    if not driver.tracker.flush(STOPPED_MLFLOW_S if state == "stopped" else None, on_wait):
        console.print(f"MLflow lacks the latest runs: `sweeps sync {name}` writes them", highlight=False)


def _report_files(found: Report) -> Iterator[tuple[str, bytes]]:
    """Yield the report as files, by name. The page has the figures, and needs nothing else."""
    from sweeps.results.html import as_html

    yield "report.md", as_markdown(found, timing=False).encode()
    if sum(len(one.results) for one in found.with_repeats()) <= MOST_LANES_OF_PAGE:
        yield "report.html", as_html([found], timing=False).encode()


def _catch_up(folder: str | Path, tracker: Tracker) -> None:
    """Write what the store has of a sweep that runs, without restoring what the user deleted in MLflow."""
    with Store(folder, read_only=True) as store:
        found = report(store, tracker.name)
        tracker.sync(found.with_repeats(), found.row.state, as_markdown(found, timing=False), restore=False)
        if found.row.state == "done":
            tracker.attach(_report_files(found))


def sync(name: str, store: Store, folder: str | Path, restore: bool = True) -> Synced:
    """Write all MLflow runs of a sweep from its records; with `restore` those too that were deleted in MLflow.

    Return how many there are and how many are new. Raises TrackingError, and StoreError for an unknown name.
    """
    return _write_runs(name, store, default_uri(folder), partial(sync_all, folder), restore)


def mlflow_page(name: str, store: Store, folder: str | Path, uri: str, server: str) -> str:
    """Return the URL of the sweep's leaderboard on `server`; its runs are written first where they are not shown there yet.

    Raises UnknownSweep, and TrackingError.
    """
    row = store.known_sweep(name)
    found = experiment_of(uri, name, row.created)
    if found is None:
        _write_runs(name, store, uri, partial(sync_all, folder))
        found = experiment_of(uri, name, row.created)
    return leaderboard(server, found or "0")


def sync_all(folder: str | Path, uri: str) -> None:
    """Write the MLflow runs of every sweep in a store from their records. Raises TrackingError and StoreError.

    A sweep whose records cannot be read is logged and left out.
    """
    with Store(folder, read_only=True) as store:
        for row in store.sweeps():
            try:
                _write_runs(row.name, store, uri)
            except (StoreError, UserError) as error:
                log.warning("the sweep %r is not written to MLflow: %s", row.name, error)


def _write_runs(name: str, store: Store, uri: str, refill: Refill | None = None, restore: bool = True) -> Synced:
    found = report(store, name)
    tracker = Tracker(uri, _as_stored(found), created=found.row.created, name=name, refill=refill)
    synced = tracker.sync(found.with_repeats(), found.row.state, as_markdown(found, timing=False), restore)
    if refill is not None:  # not where the runs of every sweep are written
        tracker.attach(_report_files(found))
    return synced


def describe(name: str, store: Store, folder: str | Path) -> None:
    """Write the name and the description of a sweep that was renamed to MLflow, if it has the sweep. Raises TrackingError."""
    found = report(store, name)
    if not has_runs(default_uri(folder), name, found.row.created):
        return
    tracker = Tracker(default_uri(folder), _as_stored(found), created=found.row.created, name=name)
    tracker.describe(as_markdown(found, timing=False))


def _as_stored(found: Report) -> Sweep:
    """Return a sweep as its records describe it: no file that it names is looked for, or executed."""
    cells: dict[str, Cell] = {}
    for configuration in (one.configuration for one in found.with_repeats()):
        named = {section: {"name": configuration.settings[section]["name"]} for section in ("model", "task")}
        cell = cells.setdefault(configuration.cell, Cell(configuration.labels, named))
        cell.space.update({path: found.search.space[path] for path in configuration.parameters if path in found.search.space})
    document = found.row.document
    return Sweep(
        name=found.name, question=str(document.get("question") or "").strip(), seeds=(), cells=tuple(cells.values()),
        search=found.search, resources=Resources(), budget=Budget(), warnings=(), text=found.row.definition,
        expected=None, document=document,
    )  # fmt: skip
