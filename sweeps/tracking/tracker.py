"""The runs of a sweep in MLflow: sweep > configuration > seed, each written once.

Runs are found again by their tags, so that a sweep that was interrupted continues in the runs it has, and a call that
failed half way is completed by the next one. MLflow is a projection of the store: `sync` writes everything again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from queue import SimpleQueue

from sweeps.config.sweep_file import Sweep
from sweeps.errors import TrackingError
from sweeps.results.summary import RankedConfiguration
from sweeps.store.records import Configuration
from sweeps.tracking import rows
from sweeps.tracking.client import Client, Run
from sweeps.tracking.database import Refill
from sweeps.training.lane import LaneResult

STATUS = {"running": "RUNNING", "done": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
"""State of a sweep -> status of its run."""
STATUS_OF_CONFIGURATION = {"failed": "FAILED", "pruned": "KILLED"}
"""State of a configuration -> status of its run, where it is not FINISHED."""
LAYOUT = "2"
"""Tag `layout` of every run. Before 2 `converged_at` of a configuration was a median and `solved_fraction` could fall; MLflow
cannot delete points of a metric, so runs of an earlier layout are deleted and written anew from the records."""
PARENT, NOTE = "mlflow.parentRunId", "mlflow.note.content"
NOTE_LIMIT = 4500
"""Most characters of a description; MLflow's limit for an experiment is 5,000."""

Key = tuple[str, str, str, str]
"""Level, cell, configuration, seed; the empty text where a level has none."""


@dataclass
class _Connection:
    """A client with the sweep's experiment and runs."""

    client: Client
    experiment: str
    runs: dict[Key, Run]
    deleted: dict[Key, Run]
    """Runs that the user deleted in MLflow."""
    sweep: Run


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
        self._objective = sweep.objective
        self._opened: _Connection | None = None

    def begin(self) -> None:
        """Create the sweep's run, or set it back to RUNNING, with the question as its description."""
        opened = self._open()
        if opened.sweep.ended:
            self._end(opened, opened.sweep, "RUNNING")
        if opened.sweep.tags.get("outcome") != "running":
            opened.client.log(opened.sweep, self._created_ms, [], {}, {"outcome": "running"})
        if NOTE not in opened.sweep.tags:
            self.describe("")

    def start(self, configuration: Configuration) -> None:
        """Create the configuration's run, or set it back to RUNNING."""
        opened = self._open()
        run = self._configuration_run(opened, configuration, None)
        if run is not None and run.ended:
            self._end(opened, run, "RUNNING")

    def lanes(self, configuration: Configuration, results: Iterable[LaneResult], rank: int | None = None) -> None:
        """Write the runs of finished seeds, each with metrics, curves and the configuration's parameters."""
        opened = self._open()
        parent = self._configuration_run(opened, configuration, rank)
        if parent is None:
            return
        params = rows.parameters(configuration)
        for result in results:
            self._lane(opened, parent, configuration, result, params, rank)

    def complete(self, one: RankedConfiguration) -> None:
        """Write a configuration's metrics over all its seeds, and end its run. Seeds not written yet are written as well."""
        configuration = one.configuration
        self.lanes(configuration, (*one.results, *one.confirmation), one.rank)
        opened = self._open()
        run = self._configuration_run(opened, configuration, one.rank)
        if run is None:
            return
        points = rows.configuration_points(one, self._objective)
        tags = {
            **rows.configuration_tags(configuration),
            **_rank_tag(one.rank),
            "outcome": rows.configuration_outcome(configuration, one.summary),
            **({} if configuration.stopped is None else {"stopped": configuration.stopped.text}),
        }
        opened.client.log(run, self._created_ms, points, {}, _changed(run, tags))
        self._end(opened, run, STATUS_OF_CONFIGURATION.get(configuration.state, "FINISHED"))

    def rank(self, ranks: Mapping[tuple[str, int], int]) -> None:
        """Write the ranks, by (cell, number), to configurations and their seeds; only what changed is written."""
        opened = self._open()
        for (level, cell, number, _), run in opened.runs.items():
            rank = ranks.get((cell, int(number))) if level != "sweep" else None
            opened.client.log(run, self._created_ms, [], {}, _changed(run, _rank_tag(rank)))

    def describe(self, table: str) -> None:
        """Write the description of experiment and sweep run: question, Markdown table, command that reproduces it."""
        opened = self._open()
        text = _description(self._sweep.question, table, self._command, self.name)
        if opened.sweep.tags.get(NOTE) != text:
            opened.client.describe(opened.experiment, text)
            opened.client.log(opened.sweep, self._created_ms, [], {}, {NOTE: text})

    def finish(self, state: str, table: str = "", ranks: Mapping[tuple[str, int], int] | None = None) -> None:
        """End the sweep's run and all that are RUNNING. `state` is the sweep's: done, stopped or failed.

        Runs of a stopped sweep are KILLED; `begin` and `start` set them back to RUNNING when it is continued.
        """
        opened = self._open()
        self.rank(ranks or {})
        self.describe(table)
        opened.client.log(opened.sweep, self._created_ms, [], {}, _changed(opened.sweep, {"outcome": state}))
        for run in opened.runs.values():
            if run is not opened.sweep and not run.ended:
                # Nothing is left to run in a sweep that is done: its run was written by a driver that died.
                self._end(opened, run, "KILLED" if state == "done" else STATUS[state])
        self._end(opened, opened.sweep, STATUS[state])

    def sync(self, everything: Iterable[RankedConfiguration], state: str, table: str = "") -> None:
        """Write everything again from the store; what is there already is kept, what was deleted in MLflow is restored.

        `state` is the sweep's.
        """
        self._restoring = True
        ranks: dict[tuple[str, int], int] = {}
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

    @property
    def experiment_id(self) -> str:
        """Id of the sweep's experiment, for a link: <server>/#/experiments/<id>."""
        return self._open().experiment

    # --------------------------------------------------------------------------------------------- runs

    def _open(self) -> _Connection:
        if self._opened is None:
            client = Client(self.uri, self._refill)
            experiment = client.experiment(self.name, self._created)
            runs: dict[Key, Run] = {}
            deleted: dict[Key, Run] = {}
            for run in client.runs(experiment, self._created):
                key = _key(run.tags)
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
            of_sweep = _key({"level": "sweep"})
            if of_sweep in deleted:  # it is the parent of whatever is written
                client.restore(deleted[of_sweep])
                runs[of_sweep] = deleted.pop(of_sweep)
            sweep = runs.get(of_sweep) or self._create_sweep_run(client, experiment)
            if sweep.tags.get("name", self.name) != self.name:  # renamed in the store
                client.rename(sweep, self.name)
                client.log(sweep, self._created_ms, [], {}, {"name": self.name})
            runs[of_sweep] = sweep
            self._opened = _Connection(client, experiment, runs, deleted, sweep)
        return self._opened

    def _create_sweep_run(self, client: Client, experiment: str) -> Run:
        # Model and task of a cell are a name, or a mapping with a name.
        def named(section: str) -> str:
            given = [cell.settings.get(section) for cell in self._sweep.cells]
            names = [one.get("name") if isinstance(one, Mapping) else one for one in given]
            return ", ".join(sorted({str(name) for name in names if name}))

        tags = {
            "sweep": self._created,
            "name": self.name,
            "layout": LAYOUT,
            "level": "sweep",
            "model": named("model"),
            "task": named("task"),
            "digest": rows.digest(self._sweep.document),
            "outcome": "running",
        }
        return client.create(experiment, self.name, tags, self._created_ms)

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
        run, left_out = self._find(opened, _key(tags))
        if left_out:
            return None
        if run is None:
            name = rows.configuration_name(configuration, self._spaces.get(configuration.cell, {}))
            run = self._create(opened, opened.sweep, name, tags, _now_ms())
            opened.client.log(run, self._created_ms, [], rows.parameters(configuration), {"logged": "yes"})
        elif "logged" not in run.tags:  # it was created, and then the call for its parameters failed
            opened.client.log(run, self._created_ms, [], rows.parameters(configuration), {"logged": "yes"})
        return run

    def _lane(
        self, opened: _Connection, parent: Run, configuration: Configuration, result: LaneResult,
        params: Mapping[str, str], rank: int | None,
    ) -> None:  # fmt: skip
        tags = {**rows.seed_tags(configuration, result), **_rank_tag(rank)}
        run, left_out = self._find(opened, _key(tags))
        if left_out or (run is not None and run.ended and not _changed(run, tags)):
            return
        if run is None:
            started_ms = _now_ms() - int(result.wall_time_s * 1000)
            run = self._create(opened, parent, rows.seed_name(configuration, result.seed), tags, started_ms)
        with_seed = {**params, "seed": str(result.seed)}
        opened.client.log(run, self._created_ms, rows.seed_points(result), with_seed, _changed(run, tags))
        self._end(opened, run, "FAILED" if result.outcome == "error" else "FINISHED")

    def _create(self, opened: _Connection, parent: Run, name: str, tags: Mapping[str, str], started_ms: int) -> Run:
        all_tags = {**tags, "sweep": self._created, "layout": LAYOUT, PARENT: parent.id}
        run = opened.client.create(opened.experiment, name, all_tags, started_ms)
        opened.runs[_key(tags)] = run
        return run

    def _end(self, opened: _Connection, run: Run, status: str) -> None:
        if run.status != status:
            opened.client.set_status(run, status, _now_ms())


def _key(tags: Mapping[str, str]) -> Key:
    return tags.get("level", ""), tags.get("cell", ""), tags.get("configuration", ""), tags.get("seed", "")


def _changed(run: Run, tags: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in tags.items() if run.tags.get(name) != value}


def _rank_tag(rank: int | None) -> dict[str, str]:
    return {} if rank is None else {"rank": str(rank)}


def _now_ms() -> int:
    return int(time.time() * 1000)


def _description(question: str, table: str, command: str, name: str) -> str:
    tail = f"\n\n    {command}\n"
    limit = NOTE_LIMIT - len(tail)
    head = question.strip()[: limit // 2]
    lines: list[str] = []
    more = f"\n\nThe whole table: sweeps report {name}"
    for line in table.strip().splitlines():
        if len(head) + len("\n".join([*lines, line])) + len(more) + 2 > limit:
            return f"{head}\n\n" + "\n".join(lines) + more + tail
        lines.append(line)
    return "\n\n".join(part for part in (head, "\n".join(lines)) if part) + tail


log = logging.getLogger(__name__)

Write = Callable[[Tracker], object]


class BackgroundTracker:
    """A tracker whose calls are made in a background thread, from `begin` on.

    MLflow is a projection of the store: when it fails, that is logged once, nothing more is written, and the sweep
    continues. The thread is a daemon: a server that does not respond keeps no process from ending.
    """

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._queue: SimpleQueue[Write] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._progress = threading.Condition()
        self._failed, self._given_up = False, False
        self._bug: Exception | None = None
        self._queued, self._written = 0, 0

    def begin(self) -> None:
        """Start writing. It imports MLflow, which takes seconds that a sweep's first step should not wait for."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._write_all, name="mlflow", daemon=True)
            self._thread.start()

    @property
    def pending(self) -> int:
        """Number of writes that are queued."""
        return self._queued - self._written

    def write(self, what: Write) -> None:
        """Queue a call of `what` with the tracker, in the background thread. Its data must not change until it is called."""
        self._raise_bug()
        self._queued += 1
        self._queue.put(what)

    def flush(
        self, timeout_s: float | None = None, on_progress: Callable[[int], None] = lambda _: None, every_s: float = 5.0
    ) -> bool:
        """Wait until all is written, and return whether it is; after that nothing more is written.

        `on_progress` is called with the number of writes left. Ctrl-C ends the waiting. With a timeout, writing is not
        started here if it had not begun.
        """
        if timeout_s is None:
            self.begin()
        began_s = reported_s = time.monotonic()
        try:
            while self.pending and self._thread is not None:
                now_s = time.monotonic()
                if timeout_s is not None and now_s - began_s >= timeout_s:
                    break
                if now_s - reported_s >= every_s:
                    reported_s = now_s
                    on_progress(self.pending)
                with self._progress:
                    self._progress.wait(0.1)
        except KeyboardInterrupt:
            log.debug("interrupted while MLflow was written")
        self._given_up = True
        self._raise_bug()
        return not self.pending

    def _write_all(self) -> None:
        while True:
            self._write(self._queue.get())
            with self._progress:
                self._written += 1
                self._progress.notify_all()

    def _write(self, what: Write) -> None:
        if self._failed or self._given_up:
            return
        try:
            what(self._tracker)
        except TrackingError as error:
            self._failed = True
            if not self._given_up:
                log.warning(
                    "MLflow is not written any more: %s. `sweeps sync %s` writes it from the records", error,
                    self._tracker.name,
                )  # fmt: skip
        except Exception as error:  # a bug: raised by the next `write` or by `flush`
            self._failed, self._bug = True, error

    def _raise_bug(self) -> None:
        if self._bug is not None:
            bug, self._bug = self._bug, None
            raise bug
