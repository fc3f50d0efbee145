"""MLflow's runs written beside the sweep, in order: a worker that asks for its next pack does not wait for MLflow."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

from sweeps.tracking.client import TrackingError
from sweeps.tracking.tracker import Tracker

log = logging.getLogger(__name__)

Write = Callable[[Tracker], object]


class BackgroundTracker:
    """A tracker that a thread of its own writes to, from `begin` on.

    MLflow is a projection of the store: when it fails, that is told once, nothing more is written, and the sweep goes on.
    The thread is a daemon: a server that does not answer keeps no process from ending.
    """

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._queue: SimpleQueue[Write] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._written_one = threading.Condition()
        self._failed, self._given_up = False, False
        self._bug: Exception | None = None
        self._asked, self._written = 0, 0

    def begin(self) -> None:
        """Lets the writing begin. It imports MLflow, which takes seconds that a sweep's first step should not wait for."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._write_all, name="mlflow", daemon=True)
            self._thread.start()

    @property
    def waiting(self) -> int:
        """How many writes are still to come."""
        return self._asked - self._written

    def write(self, what: Write) -> None:
        """Calls `what` with the tracker, later, from another thread: it must hold all it needs, and nothing that changes."""
        self._raise_bug()
        self._asked += 1
        self._queue.put(what)

    def settle(
        self,
        patience_s: float | None = None,
        tell: Callable[[int], None] = lambda _: None,
        every_s: float = 5.0,
    ) -> bool:
        """Waits until all is written, and whether it is; what is not then never will be. `tell` hears how much is left.

        Ctrl-C ends the waiting. Who may not wait for long does not begin here.
        """
        if patience_s is None:
            self.begin()
        began_s = told_s = time.monotonic()
        try:
            while self.waiting and self._thread is not None:
                now_s = time.monotonic()
                if patience_s is not None and now_s - began_s >= patience_s:
                    break
                if now_s - told_s >= every_s:
                    told_s = now_s
                    tell(self.waiting)
                with self._written_one:
                    self._written_one.wait(0.1)
        except KeyboardInterrupt:
            log.debug("interrupted while MLflow was written")
        self._given_up = True
        self._raise_bug()
        return not self.waiting

    def _write_all(self) -> None:
        while True:
            self._write(self._queue.get())
            with self._written_one:
                self._written += 1
                self._written_one.notify_all()

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
        except Exception as error:  # ours: it ends the sweep at the next write, as it would without a thread
            self._failed, self._bug = True, error

    def _raise_bug(self) -> None:
        if self._bug is not None:
            bug, self._bug = self._bug, None
            raise bug
