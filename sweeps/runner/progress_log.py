"""The progress display as lines of a log: blocks that begin with a mark, further lines of a block indented."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

MARK = "progress| "
PERIOD_S = 15
RAYS_OWN = re.compile(r"Running entrypoint for job |\d{4}-\d\d-\d\d \S+\tINFO job_manager")
_FIRST = re.compile(r"(\d+):(\d\d):(\d\d)\s.*?(lanes \d+)/")


def is_first(line: str) -> bool:
    """Whether a block begins here."""
    return line.startswith(MARK) and not line.removeprefix(MARK).startswith(" ")


def last_block(log: Sequence[str]) -> list[str]:
    """The last block of a log, without marks."""
    block: list[str] = []
    for line in log:
        if is_first(line):
            block = []
        if line.startswith(MARK):
            block.append(line.removeprefix(MARK))
    return block


def plain(log: Iterator[str]) -> Iterator[str]:
    """A log as people read it: of each block the first line, where lanes have ended since the last one, now and then."""
    shown_s, lanes, held = -PERIOD_S, "lanes 0", None
    for line in log:
        if is_first(line):
            held = line.removeprefix(MARK)
            found = _FIRST.match(held)
            at_s = 3600 * int(found[1]) + 60 * int(found[2]) + int(found[3]) if found else 0
            if at_s < shown_s:  # a driver that went on counts anew
                shown_s = -PERIOD_S
            if found is None or (found[4] != lanes and at_s - shown_s >= PERIOD_S):
                yield held
                shown_s, lanes, held = at_s, found[4] if found else lanes, None
            elif found[4] == lanes:
                held = None
        elif not line.startswith(MARK) and not RAYS_OWN.match(line):
            if held is not None:
                yield held
                held = None
            yield line
    if held is not None:
        yield held
