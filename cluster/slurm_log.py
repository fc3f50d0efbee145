"""A job's log to its end, while it grows on a disk that is shared with the node that writes it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from sweeps.errors import ClusterError

READ_S = 1.0
ASK_S = 5.0
"""How often Slurm is asked whether the job has ended."""
PATIENCE_S = 600.0
"""How long Slurm may be out of reach before following is given up."""


def whole_lines(log: Path) -> list[str]:
    """What there is now."""
    return [*_Reader(log).fresh(last=True)]


def followed(log: Path, goes_on: Callable[[], bool], tell: Callable[[str], None]) -> Iterator[str]:
    """Lines until the job has ended and all of them were given. `tell` hears when Slurm is out of reach.

    Raises ClusterError when it stays so.
    """
    reader = _Reader(log)
    asked_s, lost_s = -ASK_S, None
    while True:
        now_s = time.monotonic()
        if now_s - asked_s >= ASK_S:
            asked_s = now_s
            try:
                active = goes_on()  # before reading: what was written until the end is then read below
                lost_s = None
            except ClusterError as error:
                active = True
                if lost_s is None:
                    lost_s = now_s
                    tell(f"{error}, trying again")
                if now_s - lost_s > PATIENCE_S:
                    raise
            if not active:
                yield from reader.fresh(last=True)
                return
        yield from reader.fresh()
        time.sleep(READ_S)


class _Reader:
    """Opens the log anew each time: over NFS only what was opened after a write is sure to show it."""

    def __init__(self, log: Path) -> None:
        self._log, self._position, self._part = log, 0, b""

    def fresh(self, last: bool = False) -> Iterator[str]:
        """Whole lines since the last call; the `last` call also gives one that has no end."""
        try:
            with self._log.open("rb") as file:
                file.seek(self._position)
                found = file.read()
        except FileNotFoundError:  # the job has not begun
            found = b""
        self._position += len(found)
        *lines, self._part = (self._part + found).split(b"\n")
        if last and self._part:
            lines.append(self._part)
            self._part = b""
        yield from (line.decode(errors="replace") for line in lines)
