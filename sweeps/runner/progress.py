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
from sweeps.results.summary import standing
from sweeps.runner.driver import Driver
from sweeps.runner.progress_log import MARK

SCREEN_PERIOD_S = 0.5
PLAIN_PERIOD_S = 15.0
"""Seconds between two lines where lanes have ended since."""
QUIET_PERIOD_S = 60.0
"""Seconds between two lines where no lane has ended since, but steps were taken."""
LOG_PERIOD_S = 5.0
"""Seconds between two blocks of a log from which `sweeps watch` makes a screen (SWEEPS_PROGRESS=lines)."""


class Progress:
    """A context manager that prints a driver's progress. Call it at every event; it prints now and then."""

    def __init__(self, driver: Driver, console: Console) -> None:
        self._driver, self._console = driver, console
        self._started_s = time.monotonic()
        self._updated_s = self._printed_s = 0.0
        self._lanes_printed = -1
        self._steps_printed = 0
        self._in_log = os.environ.get("SWEEPS_PROGRESS") == "lines"
        on_screen = console.is_terminal and not self._in_log
        self._live = Live(console=console, auto_refresh=False, transient=True) if on_screen else None
        if on_screen:
            self._period_s = SCREEN_PERIOD_S
        else:
            self._period_s = LOG_PERIOD_S if self._in_log else PLAIN_PERIOD_S

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None) -> None:
        if self._live:
            self._live.stop()
        elif self._driver.lanes_done != self._lanes_printed:
            self._print()

    def __call__(self) -> None:
        driver, now_s = self._driver, time.monotonic()
        first_steps = driver.seed_steps > 0 and not self._steps_printed  # shows that training works
        if now_s - self._updated_s < self._period_s and not first_steps:
            return
        self._updated_s = now_s
        if self._live:
            self._steps_printed = driver.seed_steps
            self._live.update("\n".join(self.lines()), refresh=True)
            return
        lanes_ended = driver.lanes_done != self._lanes_printed
        steps_taken = driver.seed_steps != self._steps_printed
        overdue = now_s - self._printed_s >= QUIET_PERIOD_S
        if self._in_log or lanes_ended or first_steps or (steps_taken and overdue):
            self._print()

    def _print(self) -> None:
        self._lanes_printed, self._steps_printed = self._driver.lanes_done, self._driver.seed_steps
        self._printed_s = time.monotonic()
        mark = MARK if self._in_log else ""
        self._console.print("\n".join(mark + line for line in self.lines()), soft_wrap=True, highlight=False)

    def lines(self) -> list[str]:
        """Return one line with lanes done, the solved ones with their interval, speed and time left.

        On a screen and in a log a line with the best configuration of every cell follows for each of them.
        """
        driver = self._driver
        elapsed_s = time.monotonic() - self._started_s
        complete = sum(entry.ended for cell in driver.cells for entry in cell.configurations.values())
        planned = sum(cell.limit for cell in driver.cells)
        rate = wilson(driver.solved, driver.lanes_done) if driver.lanes_done else None
        interval = f" [{rate.low:.0%}, {rate.high:.0%}]" if rate and rate.low is not None else ""
        trained = driver.lanes_done - driver.lanes_reused
        planned_lanes = driver.lanes_planned - driver.lanes_spared
        left_s = elapsed_s / trained * (planned_lanes - driver.lanes_done) if trained else None
        budget_s, of_budget = driver.spending.seconds_left(), ""
        if budget_s is not None and (left_s is None or budget_s < left_s):
            left_s, of_budget = budget_s, ", by the budget"
        met = sum(cell.met_target is not None for cell in driver.cells)
        first = (
            f"{_clock(elapsed_s)}  configurations {complete}/{planned}  lanes {driver.lanes_done}/{planned_lanes}, "
            f"{driver.solved} solved{interval}"
            f"  {steps(driver.seed_steps / elapsed_s if elapsed_s else 0)} seed-steps/s"
            + (f"  {met} of {len(driver.cells)} cells ended by their target" if met else "")
            + (f"  left about {_clock(left_s)}{of_budget}" if left_s is not None else "")
        )
        return [first, *self._best_of_cells()] if self._live or self._in_log else [first]

    def _best_of_cells(self) -> list[str]:
        search = self._driver.sweep.ranked_by
        lines = []
        for cell in self._driver.cells:
            finished = [
                (standing(entry.summary, search), number, entry.summary)
                for number, entry in cell.configurations.items()
                if entry.summary is not None and entry.configuration.state == "complete"
            ]
            if not finished:
                continue
            _, number, summary = min(finished, key=lambda found: found[0])
            given = cell.configurations[number].configuration.parameters
            lines.append(
                f"  {cell.cell.key}: best #{number}, {summary.solved} of {summary.seeds} solved, "
                + (parameters(given, {}) or "the file's own values")
                + (f"; ended by its target, {cell.not_tried} not tried" if cell.met_target is not None else "")
            )
        return lines


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
