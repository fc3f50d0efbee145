"""The progress display of a running sweep: in place on a terminal and in a notebook, plain lines elsewhere.

A line has what is done, in flight and left; below it are the best configurations. `sweeps.runner.progress_log` has the form of
it in the log of a job, from which `sweeps watch` makes the same screen.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sweeps.config.space import Search
from sweeps.results import metrics
from sweeps.results.formats import parameters
from sweeps.results.numbers import UNKNOWN, percent, steps
from sweeps.results.statistics import wilson
from sweeps.results.summary import Standing, Summary, standing, summarise
from sweeps.runner.driver import ConfigurationProgress, Driver
from sweeps.runner.forecast import Forecast, Left
from sweeps.runner.progress_log import COMPILING, MARK, h_mm_ss

SCREEN_PERIOD_S = 0.5
PLAIN_PERIOD_S = 15.0
"""Seconds between two lines where lanes have ended since."""
QUIET_PERIOD_S = 60.0
"""Seconds between two lines where no lane has ended since, but steps were taken."""
LOG_PERIOD_S = 5.0
"""Seconds between two blocks of a log from which `sweeps watch` makes a screen (SWEEPS_PROGRESS=lines)."""
TABLE_PERIOD_S = 180.0
"""Seconds between two tables in plain lines."""
OWN_SHARE = 0.02
"""Of the time, what the display takes at most."""
MOST_ROWS = 5
MOST_CELLS = 6
"""Cells that have a row each; of more the best of all are shown."""
LOG_WIDTH = 120
"""Columns of a table in a log."""
NARROW = (100, 76)
"""Columns below which the objective, and then the number of seeds, is left out of the table."""


class Progress:
    """A context manager that shows a driver's progress. Call it at every event; it writes now and then."""

    def __init__(self, driver: Driver, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._driver, self._console, self._clock = driver, console, clock
        self._forecast, self._best = Forecast(driver, clock), _Best(driver)
        self._started_s = clock()
        self._updated_s = self._printed_s = self._table_s = -1e9
        self._took_s = 0.0
        self._ended = False
        self._before: str | None = None
        self._lanes_printed, self._ended_in_table = -1, 0
        self._steps_printed = 0
        self._preparing_printed: tuple[str, ...] = ()
        self._in_log = os.environ.get("SWEEPS_PROGRESS") == "lines"
        self._live: Live | None = None
        self._cell: _NotebookCell | None = None
        if console.is_jupyter and not self._in_log:
            self._cell = _NotebookCell.make()
        elif console.is_terminal and not self._in_log:
            self._live = Live(console=console, refresh_per_second=1, transient=True)
        in_place = self._live or self._cell
        self._period_s = SCREEN_PERIOD_S if in_place else LOG_PERIOD_S if self._in_log else PLAIN_PERIOD_S

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None) -> None:
        self.end()

    def end(self) -> None:
        """Show the end, once: what is called later is not shown."""
        if self._ended:
            return
        self._ended = True
        self._forecast.observe()
        if self._live:
            self._live.stop()
        elif self._cell:
            self._show()
        elif self._driver.lanes_done != self._lanes_printed and self._before is None:
            self._print(with_table=True)

    def before(self, what: str | None) -> None:
        """Show what happens before workers train, such as the start of Ray; None: it is over."""
        self._before = what
        if self._live or self._cell:
            self._show()
        elif what is not None:
            since = f"{MARK}{h_mm_ss(self._clock() - self._started_s)}  " if self._in_log else ""
            self._console.print(f"{since}{what}", soft_wrap=True, highlight=False)

    def __call__(self) -> None:
        driver, now_s = self._driver, self._clock()
        self._forecast.observe()
        preparing = driver.phases.preparing
        news = driver.seed_steps > 0 and not self._steps_printed  # shows that training works
        news |= not driver.seed_steps and preparing != self._preparing_printed  # and why it has not begun
        if now_s - self._updated_s < max(self._period_s, self._took_s / OWN_SHARE) and not news:
            return
        self._preparing_printed = preparing
        self._updated_s = now_s
        if self._live or self._cell:
            self._steps_printed = driver.seed_steps
            self._show()
        else:
            lanes_ended = driver.lanes_done != self._lanes_printed
            steps_taken = driver.seed_steps != self._steps_printed
            overdue = now_s - self._printed_s >= QUIET_PERIOD_S
            if self._in_log or lanes_ended or news or ((steps_taken or preparing) and overdue):
                self._print(self._in_log or now_s - self._table_s >= TABLE_PERIOD_S)
        self._took_s = self._clock() - now_s

    def _show(self) -> None:
        if self._live:
            starting = Starting(self._clock, self._started_s, self._before) if self._before else None
            self._live.update(starting or self.screen(self._console.width), refresh=True)
        elif self._cell:
            self._cell.show(self.screen(LOG_WIDTH))

    def _print(self, with_table: bool) -> None:
        self._lanes_printed, self._steps_printed = self._driver.lanes_done, self._driver.seed_steps
        self._printed_s = self._clock()
        ended = sum(entry.ended for cell in self._driver.cells for entry in cell.configurations.values())
        lines = [self.line()]
        if with_table and (self._in_log or ended != self._ended_in_table):
            lines += self.table_lines()
            if self._table_s < 0 and not ended:
                lines = lines[:1]
            else:
                self._table_s, self._ended_in_table = self._printed_s, ended
        mark = MARK if self._in_log else ""
        self._console.print("\n".join(mark + line for line in lines), soft_wrap=True, highlight=False)

    def line(self) -> str:
        """Return one line: lanes done, the solved ones with their interval, what is in flight, speed and time left."""
        return "  ".join((self._done(), self._going_on()))

    def _done(self) -> str:
        """Return the elapsed time, and what is done and in flight."""
        driver = self._driver
        complete = sum(entry.ended for cell in driver.cells for entry in cell.configurations.values())
        planned = sum(cell.limit for cell in driver.cells)
        rate = wilson(driver.solved, driver.lanes_done) if driver.lanes_done else None
        interval = f" [{rate.low:.0%}, {rate.high:.0%}]" if rate and rate.low is not None else ""
        in_flight = f", {driver.in_flight} in flight" if driver.in_flight else ""
        most = " at most" if driver.may_stop_early and not driver.done else ""
        lanes = (
            f"lanes {driver.lanes_done}/{driver.lanes_planned - driver.lanes_spared}{most}, {driver.solved} solved{interval}"
        )
        return f"{h_mm_ss(self._clock() - self._started_s)}  configurations {complete}/{planned}{in_flight}  {lanes}"

    def _going_on(self) -> str:
        """Return the speed, what workers do that do not train, and the time left."""
        driver = self._driver
        met = sum(cell.met_target is not None for cell in driver.cells)
        parts = [
            f"{steps(round(self._forecast.rate))} seed-steps/s",
            self._phase(),
            f"{met} of {len(driver.cells)} cells ended by their target" if met else "",
            self._time_left(),
        ]
        return "  ".join(part for part in parts if part)

    def _phase(self) -> str:
        """Return what workers do that do not train."""
        if self._before is not None:
            return self._before
        phases = self._driver.phases
        compiling = f"{COMPILING}{', '.join(phases.preparing)}" if phases.preparing else ""
        waiting = f"{phases.starting} worker{'s' if phases.starting != 1 else ''} starting" if phases.starting else ""
        return ", ".join(part for part in (compiling, waiting) if part)

    def _time_left(self) -> str:
        left = self._forecast.left()
        limit_s = self._driver.spending.seconds_left()
        if left.seconds is None or left.most_seconds is None:
            if limit_s is not None:
                return f"left at most {h_mm_ss(limit_s)}, by the budget"
            return "time left after the first results" if left.most_steps else ""
        if limit_s is not None and limit_s < left.seconds:
            return f"left about {h_mm_ss(limit_s)}, by the budget"
        return _left_text(left, limit_s)

    def screen(self, width: int) -> RenderableType:
        """Return the line and the table of the best configurations, for so many columns."""
        table = self._best.table(width)
        lines = [Text(self._done(), overflow="ellipsis"), Text(self._going_on(), overflow="ellipsis")]
        return Group(*lines, *([table] if table is not None else []))

    def table_lines(self) -> list[str]:
        """Return the table as indented lines of plain text; none where there is nothing yet."""
        table = self._best.table(LOG_WIDTH)
        if table is None:
            return []
        text = io.StringIO()
        Console(file=text, width=LOG_WIDTH, color_system=None, force_terminal=False, force_jupyter=False).print(table)
        return [f"  {line.rstrip()}" for line in text.getvalue().splitlines() if line.strip()]


@dataclass(frozen=True)
class Starting:
    """What is shown before workers train, with the time until now whenever it is drawn."""

    clock: Callable[[], float]
    started_s: float
    what: str

    def __rich__(self) -> Text:
        return Text(f"{h_mm_ss(self.clock() - self.started_s)}  {self.what}")


@dataclass(frozen=True)
class _Row:
    cell: str
    rank: int | None
    number: int
    complete: bool
    summary: Summary
    seeds: int
    parameters: str


class _Best:
    """The best configurations: of one cell five, of a few cells some of each, of many the best five of all.

    Those that are complete come first; where there are fewer, those follow of which some seeds have ended.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._search: Search = driver.sweep.ranked_by
        self._standings: dict[int, tuple[Summary, Standing]] = {}  # of complete configurations, by identity

    def rows(self) -> list[_Row]:
        """Return what the table shows, best first, by cell where there are few."""
        cells = self._driver.cells
        by_cell = [self._ranked(index) for index in range(len(cells))]
        if len(cells) > MOST_CELLS:
            every = sorted((found for ranked in by_cell for found in ranked), key=lambda found: found[0])
            return [self._row(*found, place) for place, found in enumerate(every[:MOST_ROWS], start=1)]
        each = MOST_ROWS if len(cells) == 1 else max(1, (MOST_ROWS + 1) // len(cells))
        return [self._row(*found, place) for ranked in by_cell for place, found in enumerate(ranked[:each], start=1)]

    def _ranked(self, index: int) -> list[tuple[tuple[int, Standing, int], int, ConfigurationProgress, Summary]]:
        found = []
        for number, entry in self._driver.cells[index].configurations.items():
            if entry.summary is not None and entry.configuration.state == "complete":
                known = self._standings.get(id(entry))
                if known is None or known[0] is not entry.summary:
                    known = self._standings[id(entry)] = (entry.summary, standing(entry.summary, self._search))
                found.append(((0, known[1], number), index, entry, entry.summary))
        if len(found) < MOST_ROWS:
            for number, entry in self._driver.cells[index].configurations.items():
                if not entry.ended and entry.results and len(found) < 2 * MOST_ROWS:
                    summary = summarise({result.seed: result for result in entry.results.values()}.values())
                    found.append(((1, standing(summary, self._search), number), index, entry, summary))
        return sorted(found, key=lambda one: one[0])

    def _row(
        self, order: tuple[int, Standing, int], index: int, entry: ConfigurationProgress, summary: Summary, place: int
    ) -> _Row:  # fmt: skip
        cell = self._driver.cells[index].cell
        label = " ".join(map(str, cell.labels.values())) if len(self._driver.cells) > 1 else ""
        values = entry.configuration.parameters
        named = parameters(values, cell.space) if values else "the file's own values" if cell.space else ""
        complete = order[0] == 0
        number = entry.configuration.number
        return _Row(label, place if complete else None, number, complete, summary, len(entry.keys), named)

    def table(self, width: int) -> Table | None:
        """Return the table for so many columns; None without a row."""
        rows = self.rows()
        if not rows:
            return None
        objective = metrics.find(self._search.objective.name, self._search.objective.direction)
        columns = {
            "cell": [_shortened(row.cell, max(8, width // 4)) for row in rows],
            "#": [str(row.number) for row in rows],
            "rank": [UNKNOWN if row.rank is None else str(row.rank) for row in rows],
            "solved": [_solved(row.summary) for row in rows],
            objective.name: [objective.format(row.summary.value(objective.name, objective.direction).estimate) for row in rows],
            "seeds": [f"{row.summary.seeds}/{row.seeds}" for row in rows],
        }
        left_out = {
            "cell": len(self._driver.cells) == 1,
            objective.name: width < NARROW[0] or objective is metrics.SUCCESS_RATE,
            "seeds": width < NARROW[1],
        }
        shown = {name: values for name, values in columns.items() if not left_out.get(name)}
        taken = sum(max(map(cell_len, (name, *values))) + 2 for name, values in shown.items())
        rest = max(3, width - taken - 1)
        shown[_shortened("parameters", rest)] = [_shortened(row.parameters, rest) for row in rows]
        table = Table(box=None, pad_edge=False, show_edge=False, header_style="dim")
        for name in shown:
            table.add_column(name, justify="right" if name in ("#", "rank", objective.name, "seeds") else "left", no_wrap=True)
        for row, *fields in zip(rows, *shown.values(), strict=True):
            table.add_row(*map(Text, fields), style="" if row.complete else "dim")
        return table


def _solved(summary: Summary) -> str:
    rate = wilson(summary.solved, summary.seeds)
    return f"{percent(rate.estimate)}% [{percent(rate.low)}, {percent(rate.high)}]"


def _shortened(text: str, width: int) -> str:
    shown = Text(text)
    shown.truncate(width, overflow="ellipsis")
    return shown.plain


@dataclass
class _NotebookCell:
    """An output of a notebook cell that is replaced at every update."""

    _handle: Any

    @classmethod
    def make(cls) -> _NotebookCell | None:
        """Return a new one; None where IPython is missing."""
        try:
            from IPython.display import display
        except ImportError:
            return None
        return cls(display({"text/plain": ""}, raw=True, display_id=True))

    def show(self, screen: RenderableType) -> None:
        """Replace what is shown."""
        recorder = Console(record=True, width=LOG_WIDTH, file=io.StringIO(), force_jupyter=False, force_terminal=True)
        recorder.print(screen)
        page = recorder.export_html(inline_styles=True, clear=False, code_format="<pre style='line-height:1.25'>{code}</pre>")
        self._handle.update({"text/html": page, "text/plain": recorder.export_text()}, raw=True)


def _left_text(left: Left, limit_s: float | None) -> str:
    assert left.seconds is not None and left.most_seconds is not None
    most_s = left.most_seconds if limit_s is None else min(left.most_seconds, limit_s)
    if left.guessed:
        return f"left at most {h_mm_ss(most_s)}"
    more = f", at most {h_mm_ss(most_s)}" if most_s > 1.1 * left.seconds + 1 else ""
    return f"left about {h_mm_ss(left.seconds)}{more}"
