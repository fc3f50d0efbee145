"""The progress display in a job's log: blocks of lines with a mark, of which further lines of a block are indented."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

MARK = "progress| "
"""Prefix of every line of a block."""
PERIOD_S = 15
"""Seconds between two lines that `plain` yields."""
RAY_LINE = re.compile(r"Running entrypoint for job |\d{4}-\d\d-\d\d \S+\tINFO job_manager")
"""Lines that Ray adds to a job's log."""
_FIRST_LINE = re.compile(r"(\d+):(\d\d):(\d\d)\s.*?(lanes \d+)/")


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
    """Yield a log for reading: the first line of a block where lanes have ended since the last one, every 15 s."""
    shown_s, lanes, pending = -PERIOD_S, "lanes 0", None
    for line in log:
        if is_first(line):
            pending = line.removeprefix(MARK)
            found = _FIRST_LINE.match(pending)
            at_s = 3600 * int(found[1]) + 60 * int(found[2]) + int(found[3]) if found else 0
            if at_s < shown_s:  # the clock of a driver that was started again begins at 0
                shown_s = -PERIOD_S
            if found is None or (found[4] != lanes and at_s - shown_s >= PERIOD_S):
                yield pending
                shown_s, lanes, pending = at_s, found[4] if found else lanes, None
            elif found[4] == lanes:
                pending = None
        elif not line.startswith(MARK) and not RAY_LINE.match(line):
            if pending is not None:
                yield pending
                pending = None
            yield line
    if pending is not None:
        yield pending
