"""The runs of a sweep in MLflow: sweep > configuration > seed, each written once.

Runs are found again by their tags, so that a sweep that was interrupted continues in the runs it has, and a call that
failed half way is completed by the next one. MLflow is a projection of the store: `sync` writes everything again.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from sweeps.config.sweep_file import Sweep
from sweeps.errors import StoreError, TrackingError
from sweeps.results.summary import RankedConfiguration
from sweeps.results.verdicts import verdict
from sweeps.store.curves import storable
from sweeps.store.records import Configuration
from sweeps.tracking import rows, views
from sweeps.tracking.client import LOGGED, Client, Rejected
from sweeps.tracking.database import Refill
from sweeps.tracking.runs import Change, Changed, Key, Run, Unavailable, key_of
from sweeps.training.lane import LaneResult

log = logging.getLogger(__name__)

STATUS = {"running": "RUNNING", "done": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
"""State of a sweep -> status of its run."""
STATUS_OF_CONFIGURATION = {"failed": "FAILED", "pruned": "KILLED"}
"""State of a configuration -> status of its run, where it is not FINISHED."""
LAYOUT = "3"
"""Tag `layout` of every run. Before 2 `converged_at` of a configuration was a median and `solved_fraction` could fall, and
before 3 seeds of two cells had the same name; MLflow cannot delete points of a metric, so runs of an earlier layout are deleted
and written anew from the records."""
NOTE = "mlflow.note.content"
NOTE_LIMIT = 4500
"""Most characters of a description; MLflow's limit for an experiment is 5,000."""
MOST_TOGETHER = 500
"""Runs after which what was gathered is written: a transaction is neither long nor large."""
Write = Callable[["Tracker"], object]
MOST_QUEUED = 10_000
"""Most writes that wait, each of one pack's lanes. The driver holds their results anyway."""
END_S, AWAY_S = 60.0, 10.0
"""Seconds that a sweep's end waits for MLflow, and where it is away."""
FIRST_PAUSE_S, LAST_PAUSE_S = 0.5, 30.0
"""Between attempts, doubled each time."""
MOST_REJECTED = 3
"""Attempts after which writes that MLflow rejects are tried one by one."""
MOST_LEFT_OUT = 10
"""Writes in a row, rejected one by one, after which nothing more is written."""


class Synced(NamedTuple):
    """What MLflow has of a sweep after `Tracker.sync`."""

    runs: int
    new: int
    """Those of them that were missing, or deleted."""


@dataclass
class _Connection:
    """A client with the sweep's experiment and runs."""

    client: Client
    experiment: str
    runs: dict[Key, Run]
    deleted: dict[Key, Run]
    """Runs that the user deleted in MLflow."""
    sweep: Run
    found: int
    """How many runs there were when it was opened."""
    planned: dict[Run, Change] = field(default_factory=dict)
    """What is not written yet."""


class Tracker:
    """Writes one sweep into MLflow.

    `created` is the time at which the store began the sweep (SweepRow.created, ISO 8601): a sweep that is begun again under
    an old name has new runs besides the old ones. `name` is the sweep's and the experiment's name; `command` reproduces the
    sweep. MLflow is imported and opened at the first call. Methods raise TrackingError and nothing else, and may be called
    again.

    The runs stay in the experiment that has them if the user renames it. Runs that the user deletes in MLflow, with all that
    is below them, are not written any more until `sync`, which restores them, as it restores a deleted experiment.

    `refill` writes all runs of the store to the URI that it is given; it is called where a damaged database is replaced.
    """

    def __init__(
        self, uri: str, sweep: Sweep, *, created: str, name: str | None = None, command: str | None = None,
        refill: Refill | None = None,
    ) -> None:  # fmt: skip
        self.uri = uri
        self._refill = refill
        self._restoring = False
        self._sweep = sweep
        self._created = created
        self._created_ms = int(datetime.fromisoformat(created).timestamp() * 1000)
        self.name = name or sweep.name
        self._command = command or f"sweeps run {self.name}"
        self._spaces = {cell.key: cell.space for cell in sweep.cells}
        self._searched = rows.searched_names(self._spaces.values())
        self._objective, self._search = sweep.objective, sweep.ranked_by
        self._opened: _Connection | None = None
        self._before: tuple[object, str] | None = None
        """The database's file, and the sweep's run in it, as they were found at the last opening."""
        self._depth = 0  # of nested `_writing`
        self._begun: tuple[threading.Thread, list[BaseException]] | None = None

    @contextmanager
    def together(self) -> Iterator[None]:
        """Gather what is written within, and write it at the end, with few transactions or several requests at a time.

        Where it raises, some of it may be written: all of it may be written again.
        """
        with self._writing():
            yield

    @contextmanager
    def _writing(self) -> Iterator[_Connection]:
        opened = self._open()
        self._depth += 1
        try:
            yield opened
            if self._depth == 1 or len(opened.planned) >= MOST_TOGETHER:
                self._write_planned(opened)
            if self._depth == 1:
                self._written()
        except BaseException as error:
            self._opened = None  # what is there is not known any more; the next call finds it out
            if isinstance(error, Exception):  # not at Ctrl-C
                with suppress(Exception):
                    self._written()
            raise
        finally:
            self._depth -= 1

    def _write_planned(self, opened: _Connection) -> None:
        """Begin to write what is planned, once what was begun before is written. Meanwhile more can be planned."""
        self._written()
        if not opened.planned:
            return
        changes = list(opened.planned.values())
        opened.planned.clear()
        errors: list[BaseException] = []

        def write() -> None:
            try:
                opened.client.write(opened.experiment, self._created, self._created_ms, changes)
            except BaseException as error:
                errors.append(error)

        # A daemon: a server that does not respond keeps no process from ending.
        thread = threading.Thread(target=write, name="mlflow-write", daemon=True)
        self._begun = (thread, errors)
        thread.start()

    def _written(self) -> None:
        """Wait until what was begun is written; raise what it raised."""
        if self._begun is not None:
            thread, errors = self._begun
            thread.join()
            self._begun = None
            if errors:
                raise errors[0]

    def begin(self) -> None:
        """Create the sweep's run, or set it back to RUNNING, with the question as its description."""
        with self._writing() as opened:
            if opened.sweep.ended:
                self._end(opened, opened.sweep, "RUNNING")
            self._tag(opened, opened.sweep, {"outcome": "running"})
            self._show(opened)
            if NOTE not in opened.sweep.tags:
                self.describe("")

    def start(self, configuration: Configuration) -> None:
        """Create the configuration's run, or set it back to RUNNING."""
        with self._writing() as opened:
            run = self._configuration_run(opened, configuration, None)
            if run is not None and run.ended:
                self._end(opened, run, "RUNNING")

    def lanes(self, configuration: Configuration, results: Iterable[LaneResult], rank: int | None = None) -> None:
        """Write the runs of finished seeds, each with metrics, curves and the configuration's parameters."""
        with self._writing() as opened:
            parent = self._configuration_run(opened, configuration, rank)
            if parent is None:
                return
            params = rows.parameters(configuration)
            for result in results:
                self._lane(opened, parent, configuration, result, params, rank)

    def complete(self, one: RankedConfiguration) -> None:
        """Write a configuration's metrics over all its seeds, and end its run. Seeds not written yet are written as well."""
        configuration = one.configuration
        with self._writing() as opened:
            self.lanes(configuration, (*one.results, *one.confirmation), one.rank)
            run = self._configuration_run(opened, configuration, one.rank)
            if run is None:
                return
            self._change(opened, run).points += rows.configuration_points(one, self._objective)
            tags = {
                **rows.configuration_tags(configuration),
                **rows.searched_tags(configuration, self._spaces.get(configuration.cell, {}), self._searched),
                **_rank_tag(one.rank),
                "order": rows.order(one, self._search),
                "outcome": rows.configuration_outcome(configuration, one.summary),
                **({} if configuration.stopped is None else {"stopped": configuration.stopped.text}),
            }
            self._tag(opened, run, tags)
            self._end(opened, run, STATUS_OF_CONFIGURATION.get(configuration.state, "FINISHED"))

    def _show(self, opened: _Connection) -> None:
        """Write what MLflow's pages open with."""
        tags = views.experiment_tags(self._objective, list(self._searched.values()), self._created_ms)
        opened.client.tag_experiment(opened.experiment, tags, unless=views.WRITTEN)

    def rank(self, ranks: Mapping[tuple[str, int], int]) -> None:
        """Write the ranks, by (cell, number), to configurations and their seeds; only what changed is written."""
        with self._writing() as opened:
            for (level, cell, number, _), run in opened.runs.items():
                rank = ranks.get((cell, int(number))) if level != "sweep" else None
                # A configuration that was ranked before has none where more of its seeds are wanted now.
                lost = rank is None and run.tags.get("rank")
                self._tag(opened, run, {"rank": ""} if lost else _rank_tag(rank))
                if lost and "order" in run.tags:
                    self._tag(opened, run, {"order": rows.last(int(number))})
                elif self._search.further_objectives and "order" in run.tags:
                    self._tag(opened, run, {"order": rows.with_rank(run.tags["order"], rank)})

    def describe(self, table: str) -> None:
        """Write the description of experiment and sweep run: question, Markdown table, command that reproduces it."""
        with self._writing() as opened:
            text = storable(_description(self._sweep.question, table, self._command, self.name))
            if opened.sweep.tags.get(NOTE) != text:
                opened.client.describe(opened.experiment, text)
                self._tag(opened, opened.sweep, {NOTE: text})

    def finish(self, state: str, table: str = "", ranks: Mapping[tuple[str, int], int] | None = None) -> None:
        """End the sweep's run and all that are RUNNING. `state` is the sweep's: done, stopped or failed.

        Runs of a stopped sweep are KILLED; `begin` and `start` set them back to RUNNING when it is continued.
        """
        with self._writing() as opened:
            if ranks is not None:
                self.rank(ranks)
            self.describe(table)
            self._tag(opened, opened.sweep, {"outcome": state})
            for run in opened.runs.values():
                if run is not opened.sweep and not run.ended:
                    # Nothing is left to run in a sweep that is done: its run was written by a driver that died.
                    self._end(opened, run, "KILLED" if state == "done" else STATUS[state])
            self._end(opened, opened.sweep, STATUS[state])

    def attach(self, files: Iterable[tuple[str, bytes]]) -> None:
        """Write files, by name, as artifacts of the sweep's run; those of the same name are replaced.

        What MLflow has no place for, as where a package for its storage is missing, is logged and left.
        """
        with self._writing() as opened:
            try:
                opened.client.attach(opened.sweep, files)
            except Rejected as error:
                log.warning("%s", error)

    def sync(self, everything: Iterable[RankedConfiguration], state: str, table: str = "", restore: bool = True) -> Synced:
        """Write everything again from the store; what is there already is kept. `state` is the sweep's.

        With `restore` what was deleted in MLflow is restored. Return how many runs there are, and how many of them are new.
        """
        self._restoring = restore
        ranks: dict[tuple[str, int], int] = {}
        with self._writing() as opened:
            for one in everything:
                if one.rank is not None:
                    ranks[one.configuration.cell, one.configuration.number] = one.rank
                if one.state != "running":
                    self.complete(one)
                else:
                    self.lanes(one.configuration, (*one.results, *one.confirmation), one.rank)
            if state == "running":
                self.rank(ranks)
                self.describe(table)
            else:
                self.finish(state, table, ranks)
            # Last: an experiment that has its views is taken for complete.
            self._write_planned(opened)
            self._written()
            self._show(opened)
        return Synced(len(opened.runs), len(opened.runs) - opened.found)

    # --------------------------------------------------------------------------------------------- runs

    def _open(self) -> _Connection:
        if self._opened is None:
            client = Client(self.uri, self._refill)
            experiment = client.experiment(self.name, self._created)
            runs: dict[Key, Run] = {}
            deleted: dict[Key, Run] = {}
            for run in client.runs(experiment, self._created):
                key = run.key
                if run.deleted:
                    if run.tags.get("layout") == LAYOUT:
                        deleted.setdefault(key, run)
                # A run of an earlier layout is created anew. One that exists twice: a server created it, its response was
                # lost, and it was requested again.
                elif key in runs or run.tags.get("layout") != LAYOUT:
                    client.delete(run)
                else:
                    runs[key] = run
            deleted = {key: run for key, run in deleted.items() if key not in runs}
            found = len(runs)
            of_sweep = key_of({"level": "sweep"})
            if of_sweep in deleted:  # it is the parent of whatever is written
                client.restore(deleted[of_sweep])
                runs[of_sweep] = deleted.pop(of_sweep)
            sweep = runs.get(of_sweep)
            before, self._before = self._before, None
            if before is not None and before != (client.identity, sweep.id if sweep else ""):
                raise Changed("the database was replaced, or the sweep's runs were removed from it, meanwhile", lost=True)
            if sweep is None:
                made = Change(Run("", "RUNNING", self._sweep_tags()), True, None, self.name, self._created_ms)
                made.tags = dict(made.run.tags)
                client.write(experiment, self._created, self._created_ms, [made])
                sweep = made.run
            if sweep.tags.get("name", self.name) != self.name:  # renamed in the store
                client.rename(sweep, self.name)
                sweep.tags["name"] = self.name
                renamed = Change(sweep, tags={"name": self.name})
                client.write(experiment, self._created, self._created_ms, [renamed])
            runs[of_sweep] = sweep
            self._before = client.identity, sweep.id
            self._opened = _Connection(client, experiment, runs, deleted, sweep, found)
        return self._opened

    def _sweep_tags(self) -> dict[str, str]:
        # Model and task of a cell are a name, or a mapping with a name.
        def named(section: str) -> str:
            given = [cell.settings.get(section) for cell in self._sweep.cells]
            names = [one.get("name") if isinstance(one, Mapping) else one for one in given]
            return ", ".join(sorted({str(name) for name in names if name}))

        return {
            "sweep": self._created,
            "name": self.name,
            "layout": LAYOUT,
            "level": "sweep",
            "model": named("model"),
            "task": named("task"),
            "digest": rows.digest(self._sweep.document),
            "outcome": "running",
        }

    def _find(self, opened: _Connection, key: Key) -> tuple[Run | None, bool]:
        """Return the run if there is one, and whether it is to be left as it is: deleted. `sync` restores it."""
        run = opened.deleted.get(key)
        if run is None or not self._restoring:
            return opened.runs.get(key), run is not None
        opened.client.restore(run)
        opened.runs[key] = opened.deleted.pop(key)
        return run, False

    def _configuration_run(self, opened: _Connection, configuration: Configuration, rank: int | None) -> Run | None:
        """Return the run of a configuration, created if need be; None if the user deleted it."""
        tags = {**rows.configuration_tags(configuration), **_rank_tag(rank)}
        run, left_out = self._find(opened, key_of(tags))
        if left_out:
            return None
        if run is None:
            name = rows.configuration_name(configuration, self._spaces.get(configuration.cell, {}))
            run = self._create(opened, opened.sweep, name, tags, _now_ms())
        if LOGGED not in run.tags:  # it is new, or the request for its parameters failed
            self._change(opened, run).params |= rows.parameters(configuration)
            self._tag(opened, run, {LOGGED: "yes"})
        return run

    def _lane(
        self, opened: _Connection, parent: Run, configuration: Configuration, result: LaneResult,
        params: Mapping[str, str], rank: int | None,
    ) -> None:  # fmt: skip
        tags = {**rows.seed_tags(configuration, result), **_rank_tag(rank)}
        run, left_out = self._find(opened, key_of(tags))
        if left_out or (run is not None and run.ended and "verdict" in run.tags and not _changed(run, tags)):
            return
        judged = verdict(result)
        tags |= {"verdict": judged.kind, "why": judged.text}
        name = rows.seed_name(configuration, result.seed, judged.kind)
        if run is None:
            run = self._create(opened, parent, name, tags, _now_ms() - int(result.wall_time_s * 1000))
        elif run.tags.get("verdict") != judged.kind:
            self._change(opened, run).name = name
        self._tag(opened, run, tags)
        change = self._change(opened, run)
        change.points += rows.seed_points(result)
        change.params |= {**params, "seed": str(result.seed)}
        self._end(opened, run, "FAILED" if result.outcome == "error" else "FINISHED")

    def _create(self, opened: _Connection, parent: Run, name: str, tags: Mapping[str, str], started_ms: int) -> Run:
        all_tags = {name: storable(value) for name, value in {**tags, "sweep": self._created, "layout": LAYOUT}.items()}
        run = Run("", "RUNNING", all_tags)
        opened.runs[run.key] = run
        opened.planned[run] = Change(run, True, parent, storable(name), started_ms, dict(all_tags))
        return run

    def _change(self, opened: _Connection, run: Run) -> Change:
        """Return what is planned for a run; what is added to it is written."""
        return opened.planned.setdefault(run, Change(run))

    def _tag(self, opened: _Connection, run: Run, tags: Mapping[str, str]) -> None:
        if changed := _changed(run, tags):
            self._change(opened, run).tags |= changed
            run.tags |= changed

    def _end(self, opened: _Connection, run: Run, status: str) -> None:
        if run.status != status:
            run.status = status
            change = self._change(opened, run)
            change.status, change.ended_ms = status, None if status == "RUNNING" else _now_ms()


def _changed(run: Run, tags: Mapping[str, str]) -> dict[str, str]:
    wanted = {name: storable(value) for name, value in tags.items()}
    return {name: value for name, value in wanted.items() if run.tags.get(name) != value}


def _rank_tag(rank: int | None) -> dict[str, str]:
    return {} if rank is None else {"rank": str(rank)}


def _now_ms() -> int:
    return int(time.time() * 1000)


def _description(question: str, table: str, command: str, name: str) -> str:
    tail = f"\n\n    {command}\n"
    limit = NOTE_LIMIT - len(tail)
    head = "" if question.strip() in table else question.strip()[: limit // 2]  # a report states it
    lines: list[str] = []
    more = f"\n\nThe whole table: sweeps report {name}"
    for line in table.strip().splitlines():
        if len(head) + len("\n".join([*lines, line])) + len(more) + 2 > limit:
            return f"{head}\n\n" + "\n".join(lines) + more + tail
        lines.append(line)
    return "\n\n".join(part for part in (head, "\n".join(lines)) if part) + tail


class BackgroundTracker:
    """A tracker whose calls are made in a background thread, from `begin` on, those that wait together.

    MLflow is a projection of the store, and the sweep never waits for it. While its server or database is away, the calls are
    kept and tried again; with more than `MOST_QUEUED` of them, the further ones are dropped, and `catch_up` then writes what
    the store has, as it does where the database was deleted. A call that MLflow rejects is left out. After another failure
    nothing more is written. Both are logged, with what to do. The thread is a daemon: a server that does not respond keeps no
    process from ending.
    """

    def __init__(self, tracker: Tracker, catch_up: Write | None = None) -> None:
        self._tracker, self._catch_up = tracker, catch_up
        self._queue: deque[Write] = deque()
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition()
        self._failed, self._given_up = False, False
        self._away = False  # the last attempt failed, and another one follows
        self._dropped = False
        self._left_out, self._in_a_row = 0, 0  # rejected writes
        self._bug: Exception | None = None
        self._hurry = threading.Event()

    def begin(self) -> None:
        """Start writing. It imports MLflow, which takes seconds that a sweep's first step should not wait for."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._write_all, name="mlflow", daemon=True)
            self._thread.start()

    @property
    def pending(self) -> int:
        """Number of writes that are queued."""
        return len(self._queue) + self._dropped

    def write(self, what: Write) -> None:
        """Queue a call of `what` with the tracker, in the background thread. Its data must not change until it is called."""
        self._raise_bug()
        with self._changed:
            if self._catch_up is not None and (self._dropped or len(self._queue) >= MOST_QUEUED):
                self._dropped = True
            elif not self._failed:
                self._queue.append(what)
            self._changed.notify_all()

    def flush(
        self, timeout_s: float | None = None, on_progress: Callable[[int], None] = lambda _: None, every_s: float = 5.0
    ) -> bool:
        """Wait until all is written, and return whether it is; after that nothing more is written.

        `on_progress` is called with the number of writes left. Ctrl-C ends the waiting. Without a timeout it is `END_S`, or
        `AWAY_S` where MLflow is away. With one, writing is not started here if it had not begun.
        """
        if timeout_s is None:
            self.begin()
        began_s = reported_s = time.monotonic()
        self._hurry.set()
        try:
            while self.pending and self._thread is not None:
                now_s = time.monotonic()
                most_s = (AWAY_S if self._away else END_S) if timeout_s is None else timeout_s
                if now_s - began_s >= most_s:
                    break
                if now_s - reported_s >= every_s:
                    reported_s = now_s
                    on_progress(self.pending)
                with self._changed:
                    self._changed.wait(0.1)
        except KeyboardInterrupt:
            log.debug("interrupted while MLflow was written")
        with self._changed:
            written = not self.pending and not self._failed and not self._left_out
            self._given_up = True  # the thread then takes from the queue what it does not write
        self._raise_bug()
        return written

    def _write_all(self) -> None:
        while True:
            with self._changed:
                while not self.pending:
                    self._changed.wait()
                batch = list(itertools.islice(self._queue, MOST_TOGETHER))
                if not batch:  # what was dropped follows what was queued
                    self._dropped, batch = False, [self._catch_up or _nothing]
                    self._queue.append(batch[0])
            self._write(batch, MOST_REJECTED)
            with self._changed:
                for _ in batch:
                    self._queue.popleft()
                self._changed.notify_all()

    def _write(self, batch: Sequence[Write], attempts: int) -> None:
        """Write a batch; while MLflow is away, try again and again. What it rejects is tried so many times."""
        rejected, pause_s = 0, FIRST_PAUSE_S
        while not (self._failed or self._given_up):
            try:
                with self._tracker.together():
                    for what in batch:
                        if self._given_up:
                            raise _GivenUp
                        what(self._tracker)
            except _GivenUp:
                return
            except (Unavailable, Rejected, StoreError) as error:  # the store is read by `catch_up`
                if isinstance(error, Changed) and error.lost and self._catch_up is not None:
                    self._dropped = True
                rejected += isinstance(error, Rejected)
                if rejected == attempts:
                    if len(batch) == 1:
                        self._leave_out(error)
                    else:
                        for one in batch:
                            self._write([one], 1)
                    return
                if not self._away and not self._given_up:
                    log.warning("MLflow cannot be written now, and is tried again: %s", error)
                self._away = True
                self._hurry.wait(pause_s)
                # While the sweep waits for its end there is no time for long pauses.
                pause_s = FIRST_PAUSE_S if self._hurry.is_set() else min(2 * pause_s, LAST_PAUSE_S)
                if self._hurry.is_set():
                    time.sleep(FIRST_PAUSE_S)
            except TrackingError as error:
                self._fail(error)
            except Exception as error:  # a bug: raised by the next `write` or by `flush`
                self._failed, self._bug = True, error
            else:
                self._in_a_row = 0
                if self._away:
                    self._away = False
                    log.warning("MLflow is written again")
                return

    def _leave_out(self, error: TrackingError | StoreError) -> None:
        """Leave out a write that MLflow rejects; end the writing where it rejects everything."""
        self._left_out += 1
        self._in_a_row += 1
        if self._in_a_row == MOST_LEFT_OUT:
            self._fail(error)
        elif not self._given_up:
            again = f"`sweeps sync {self._tracker.name}` tries it again"
            log.warning("MLflow rejected a write, which is left out: %s. %s", error, again)

    def _fail(self, error: Exception) -> None:
        self._failed = True
        if not self._given_up:
            log.warning(
                "MLflow is not written any more: %s. `sweeps sync %s` writes it from the records", error, self._tracker.name
            )

    def _raise_bug(self) -> None:
        if self._bug is not None:
            bug, self._bug = self._bug, None
            raise bug


class _GivenUp(Exception):
    """Nothing more is to be written: what was gathered is left."""


def _nothing(tracker: Tracker) -> None:
    pass
