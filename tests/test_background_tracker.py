"""MLflow is written in the background: the sweep does not wait for it, and its errors stop nothing."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from sweeps.errors import TrackingError
from sweeps.tracking import BackgroundTracker


class Slow:
    """A tracker that blocks until `go_on` is set."""

    name = "small"

    def __init__(self) -> None:
        self.go_on, self.written = threading.Event(), []

    def put(self, what: int) -> None:
        assert self.go_on.wait(30)
        self.written.append(what)


@pytest.fixture
def slow() -> Iterator[Any]:
    made = Slow()
    yield made
    made.go_on.set()


def test_a_write_returns_at_once_and_all_are_written_in_their_order(slow: Any) -> None:
    background = BackgroundTracker(slow)
    for number in range(5):
        background.write(lambda tracker, n=number: tracker.put(n))
    background.begin()
    assert (background.pending, slow.written) == (5, [])
    slow.go_on.set()
    assert background.flush()
    assert (background.pending, slow.written) == (0, [0, 1, 2, 3, 4])


def test_nothing_is_written_before_begin(slow: Any) -> None:
    background, written = BackgroundTracker(slow), threading.Event()
    background.write(lambda tracker: written.set())
    assert not written.wait(0.1)
    background.begin()
    assert written.wait(30)
    assert background.flush()


def test_flush_waits_no_longer_than_its_timeout_and_reports_how_much_is_left(slow: Any) -> None:
    background, reported = BackgroundTracker(slow), []
    for number in range(3):
        background.write(lambda tracker, n=number: tracker.put(n))
    background.begin()
    assert not background.flush(1.0, reported.append, every_s=0.3)
    assert set(reported) == {3}


def test_nothing_more_is_written_after_a_flush_that_timed_out(slow: Any) -> None:
    background = BackgroundTracker(slow)
    first = threading.Event()
    background.write(lambda tracker: (first.set(), tracker.put(0)))
    background.begin()
    assert first.wait(30)
    background.write(lambda tracker: tracker.put(1))
    assert not background.flush(0.01)
    slow.go_on.set()
    while background.pending:
        time.sleep(0.01)
    assert slow.written == [0]


def test_a_flush_with_a_timeout_does_not_begin(slow: Any) -> None:
    background = BackgroundTracker(slow)
    slow.go_on.set()
    background.write(lambda tracker: tracker.put(0))
    assert not background.flush(5.0)
    assert slow.written == []


def test_a_process_ends_though_mlflow_does_not_respond() -> None:
    program = (
        "import threading, types\n"
        "from sweeps.tracking import BackgroundTracker\n"
        "background = BackgroundTracker(types.SimpleNamespace(name='small'))\n"
        "background.write(lambda tracker: threading.Event().wait())\n"
        "background.begin()\n"
        "print(background.flush(0.2))\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "False\n", "")


def test_a_failure_of_mlflow_is_logged_once_and_stops_nothing(slow: Any, caplog: pytest.LogCaptureFixture) -> None:
    def fails(tracker: Any) -> None:
        raise TrackingError("the server is down")

    slow.go_on.set()
    background = BackgroundTracker(slow)
    with caplog.at_level(logging.WARNING):
        for write in (fails, fails, lambda tracker: tracker.put(1)):
            background.write(write)
        assert background.flush()
    assert slow.written == []
    assert len(caplog.records) == 1
    assert "the server is down" in caplog.text and "sweeps sync small" in caplog.text


def test_a_bug_is_not_hidden_by_the_thread(slow: Any) -> None:
    def fails(tracker: Any) -> None:
        raise KeyError("seed")

    background = BackgroundTracker(slow)
    background.write(fails)
    with pytest.raises(KeyError, match="seed"):
        background.flush()
