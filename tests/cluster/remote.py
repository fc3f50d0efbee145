"""What the tests of every cluster wait for and check: the progress of a sweep, its end, its report, a stop and what follows."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path

from commands import PATIENCE_S, Commands, call

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


def assert_reports_as_here(name: str, on: str, lanes: int, folder: Path, commands: Commands) -> None:
    """Fetch a sweep that has ended; its report has the bytes of a run on this machine, and nothing is left to submit."""
    assert call("fetch", name, "--on", on, "--store", "there").status == 0
    here = commands.start(folder, "run", f"{name}.yaml", "--store", "here", "--workers", "2", "--no-mlflow")
    assert here.ended() == 0, here.output
    reports = [call("report", name, "--format", "json", "--no-timing", "--store", store).out for store in ("there", "here")]
    assert json.loads(reports[0])["totals"]["lanes"] == lanes
    assert reports[0] == reports[1]
    again = call("submit", f"{name}.yaml", "--on", on)
    assert "nothing to submit" in again.out, again.err


def stop(name: str, on: str) -> None:
    """Stop a sweep that trains: its driver ends in order."""
    until(lambda: trains(name, on), "step")
    stopped = call("stop", name, "--on", on)
    assert (stopped.status, f"{name} on {on}: stopped" in stopped.out) == (0, True), stopped
    assert "SIGTERM was received" in call("logs", name, "--on", on).out
