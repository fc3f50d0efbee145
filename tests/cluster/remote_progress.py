"""How far a sweep on a cluster is, for tests that wait for it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from commands import PATIENCE_S

from cluster.clusters_file import find_cluster


def until(happened: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S * 2
    while not happened():
        assert time.monotonic() < deadline, f"no {what}"
        time.sleep(1.0)


def lanes_done(name: str, on: str) -> int:
    found = re.search(r"lanes (\d+)/", " ".join(find_cluster(on).status(name).progress))
    return int(found[1]) if found else 0


def trains(name: str, on: str) -> bool:
    progress = " ".join(find_cluster(on).status(name).progress)
    return "seed-steps/s" in progress and " 0 seed-steps/s" not in progress
