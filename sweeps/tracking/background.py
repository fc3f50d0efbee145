"""MLflow's runs written beside the sweep, in order: a worker that asks for its next pack does not wait for MLflow."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait

from sweeps.tracking.client import TrackingError
from sweeps.tracking.tracker import Tracker

log = logging.getLogger(__name__)


class BackgroundTracker:
    """A tracker that a thread of its own writes to, from `begin` on.

    MLflow is a projection of the store: when it fails, that is told once, nothing more is written, and the sweep goes on.
    """

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="mlflow")
        self._last: Future[None] | None = None
        self._failed = False
        self._bug: Exception | None = None
        self._asked, self._written = 0, 0
        self._held: list[Callable[[Tracker], object]] | None = []

    def begin(self) -> None:
        """Lets the writing begin. It imports MLflow, which takes seconds that a sweep's first step should not wait for."""
        held, self._held = self._held or [], None
        for what in held:
            self._last = self._pool.submit(self._write, what)

    @property
    def waiting(self) -> int:
        """How many writes are still to come."""
        return self._asked - self._written

    def write(self, what: Callable[[Tracker], object]) -> None:
        """Calls `what` with the tracker, later, from another thread: it must hold all it needs, and nothing that changes."""
        self._raise_bug()
        self._asked += 1
        if self._held is not None:
            self._held.append(what)
        else:
            self._last = self._pool.submit(self._write, what)

    def settle(
        self,
        patience_s: float | None = None,
        tell: Callable[[int], None] = lambda _: None,
        every_s: float = 5.0,
    ) -> bool:
        """Waits until all is written, and whether it is; what is not then never will be. `tell` hears how much is left.

        Ctrl-C ends the waiting.
        """
        self.begin()
        left_s = float("inf") if patience_s is None else patience_s
        try:
            while self.waiting and left_s > 0 and self._last is not None:
                step_s = min(every_s, left_s)
                wait([self._last], step_s)
                left_s -= step_s
                if self.waiting and left_s > 0:
                    tell(self.waiting)
        except KeyboardInterrupt:
            log.debug("interrupted while MLflow was written")
        whole = not self.waiting
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._raise_bug()
        return whole

    def _write(self, what: Callable[[Tracker], object]) -> None:
        try:
            if not self._failed:
                what(self._tracker)
        except TrackingError as error:
            self._failed = True
            log.warning(
                "MLflow is not written any more: %s. `sweeps sync %s` writes it from the records",
                error,
                self._tracker.name,
            )
        except Exception as error:  # ours: it ends the sweep at the next write, as it would without a thread
            self._failed, self._bug = True, error
        finally:
            self._written += 1

    def _raise_bug(self) -> None:
        if self._bug is not None:
            bug, self._bug = self._bug, None
            raise bug
