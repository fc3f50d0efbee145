"""The progress display of a running sweep: one updated screen on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live

from sweeps.results.formats import parameters
from sweeps.results.numbers import steps
from sweeps.results.statistics import wilson
from sweeps.runner.driver import Driver
from sweeps.runner.progress_log import MARK

PLAIN_PERIOD_S = 15.0
QUIET_PERIOD_S = 60.0  # where no lane has ended since, but steps were taken
LINES_PERIOD_S = 5.0
SCREEN_PERIOD_S = 0.5


class Progress:
    """Call it at every event; it shows something now and then."""

    def __init__(self, driver: Driver, console: Console) -> None:
        self._driver, self._console = driver, console
        self._started = time.monotonic()
        self._shown = 0.0
        self._lanes_shown = -1
        self._steps_shown = 0
        self._told = 0.0
        # A job's log, out of which `sweeps watch` makes a screen elsewhere.
        self._in_lines = os.environ.get("SWEEPS_PROGRESS") == "lines"
        on_screen = console.is_terminal and not self._in_lines
        self._live = Live(console=console, auto_refresh=False, transient=True) if on_screen else None
        plain_s = LINES_PERIOD_S if self._in_lines else PLAIN_PERIOD_S
        self._period_s = SCREEN_PERIOD_S if on_screen else plain_s

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()
        elif self._driver.lanes_done != self._lanes_shown:
            self._tell()

    def __call__(self) -> None:
        now = time.monotonic()
        first = self._driver.seed_steps > 0 and not self._steps_shown  # until then nobody knows that it works
        if now - self._shown < self._period_s and not first:
            return
        self._shown = now
        if self._live:
            self._steps_shown = self._driver.seed_steps
            self._live.update("\n".join(self.lines()), refresh=True)
        elif self._in_lines or self._is_news(now):
            self._tell()

    def _is_news(self, now: float) -> bool:
        d = self._driver
        if d.lanes_done != self._lanes_shown or (d.seed_steps and not self._steps_shown):
            return True
        return d.seed_steps != self._steps_shown and now - self._told >= QUIET_PERIOD_S

    def _tell(self) -> None:
        self._lanes_shown, self._steps_shown = self._driver.lanes_done, self._driver.seed_steps
        self._told = time.monotonic()
        mark = MARK if self._in_lines else ""
        self._console.print("\n".join(mark + line for line in self.lines()), soft_wrap=True, highlight=False)

    def lines(self) -> list[str]:
        """What is told: done, solved with its interval, speed, time left, and the best of every cell."""
        d = self._driver
        elapsed_s = time.monotonic() - self._started
        complete = sum(not a.missing for work in d.cells for a in work.asked.values())
        planned = sum(work.limit for work in d.cells)
        rate = wilson(d.solved, d.lanes_done) if d.lanes_done else None
        solved = f"{d.solved} solved" + (
            f" [{rate.low:.0%}, {rate.high:.0%}]" if rate and rate.low is not None else ""
        )
        fresh = d.lanes_done - d.lanes_reused
        left_s = elapsed_s / fresh * (d.lanes_planned - d.lanes_done) if fresh else None
        first = (
            f"{_clock(elapsed_s)}  configurations {complete}/{planned}  lanes {d.lanes_done}/{d.lanes_planned}, {solved}"
            f"  {steps(d.seed_steps / elapsed_s if elapsed_s else 0)} seed-steps/s"
            + (f"  left about {_clock(left_s)}" if left_s is not None else "")
        )
        return [first, *self._best()] if self._live or self._in_lines else [first]

    def _best(self) -> list[str]:
        lines = []
        for work in self._driver.cells:
            ended = [
                a for a in work.asked.values() if a.summary is not None and a.configuration.value is not None
            ]
            if ended:
                sign = (
                    -1
                    if self._driver.sweep.search
                    and self._driver.sweep.search.objective.direction == "maximize"
                    else 1
                )
                best = min(ended, key=lambda a: sign * float(a.configuration.value or 0.0))
                shown = parameters(best.configuration.parameters, {}) or "the file's own values"
                assert best.summary is not None
                lines.append(f"  {work.cell.key}: best #{best.configuration.number}, {best.summary.solved} of "
                             f"{best.summary.seeds} solved, {shown}")  # fmt: skip
        return lines


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
