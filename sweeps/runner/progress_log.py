"""The progress display in a job's log: blocks of lines with a mark, of which further lines of a block are indented."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

MARK = "progress| "
"""Prefix of every line of a block."""
COMPILING = "compiling or loading "
"""In the first line of a block, before the models whose programs workers compile."""
PERIOD_S = 15
"""Seconds between two lines that `plain` yields."""
QUIET_PERIOD_S = 60
"""Seconds between two lines that `plain` yields where no lane has ended since."""
TABLE_PERIOD_S = 180
"""Seconds between two tables that `plain` yields."""
RAY_LINE = re.compile(r"Running entrypoint for job |\d{4}-\d\d-\d\d \S+\tINFO job_manager")
"""Lines that Ray adds to a job's log."""
_FIRST_LINE = re.compile(r"(\d+):(\d\d):(\d\d)\s.*?(lanes \d+)/")
_PHASES = {
    "compiling": re.compile(COMPILING),
    "starting": re.compile(r"\d workers? starting"),
    "training": re.compile(r"  (?!0 )\S+ seed-steps/s"),
}
"""What workers do, by the part of a first line that shows it; the first that is found counts."""


def h_mm_ss(seconds: float) -> str:
    """Return a time as it is at the beginning of a block, `1:02:03`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def is_first(line: str) -> bool:
    """Return whether a line is the first one of a block."""
    return line.startswith(MARK) and not line.removeprefix(MARK).startswith(" ")


def last_block(log: Sequence[str]) -> list[str]:
    """Return the last block of a log, without marks."""
    block: list[str] = []
    for line in log:
        if is_first(line):
            block = []
        if line.startswith(MARK):
            block.append(line.removeprefix(MARK))
    return block


def plain(log: Iterator[str]) -> Iterator[str]:
    """Yield a log for reading: the first line of a block where lanes have ended since the last one, every 15 s.

    Where none has ended there is a line every minute, and one for the first block in which workers start, compile or train.
    Every few minutes, and at the end, the rest of the block follows, the table of the best configurations.
    """
    shown_s, table_s, lanes, pending = -PERIOD_S, 0, "lanes 0", None
    seen: set[str] = set()  # phases
    rest: list[str] = []  # of the block that is read
    with_rest = False
    for line in log:
        if is_first(line):
            pending, rest, with_rest = line.removeprefix(MARK), [], False
            found = _FIRST_LINE.match(pending)
            at_s = 3600 * int(found[1]) + 60 * int(found[2]) + int(found[3]) if found else 0
            if at_s < shown_s:  # the clock of a driver that was started again begins at 0
                shown_s, table_s = -PERIOD_S, 0
                seen.clear()
            phase = next((name for name, pattern in _PHASES.items() if pattern.search(pending)), None)
            if found is None or (found[4] != lanes and at_s - shown_s >= PERIOD_S):
                yield pending
                with_rest = at_s - table_s >= TABLE_PERIOD_S
                table_s = at_s if with_rest else table_s
                shown_s, lanes, pending = at_s, found[4] if found else lanes, None
            elif phase is not None and (phase not in seen or at_s - shown_s >= QUIET_PERIOD_S):
                yield pending
                shown_s, lanes, pending = at_s, found[4], None
            elif found[4] == lanes:
                pending = None
            seen |= {phase} if phase is not None else set()
        elif line.startswith(MARK):
            if with_rest:
                yield line.removeprefix(MARK)
            else:
                rest.append(line.removeprefix(MARK))
        elif not RAY_LINE.match(line):
            yield from _end_of_block(pending, rest)
            pending, rest = None, []
            yield line
    yield from _end_of_block(pending, rest)


def _end_of_block(pending: str | None, rest: list[str]) -> Iterator[str]:
    """Yield what was not shown of a block that other lines, or the end, follow."""
    if pending is not None:
        yield pending
        yield from rest
