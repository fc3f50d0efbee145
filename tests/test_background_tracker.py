"""MLflow is written beside the sweep: nobody waits for it, and what it does wrong stops nothing."""

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
    """A tracker that waits until it is let go on."""

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
    assert (background.waiting, slow.written) == (5, [])
    slow.go_on.set()
    assert background.settle()
    assert (background.waiting, slow.written) == (0, [0, 1, 2, 3, 4])


def test_nothing_is_written_before_it_may_begin(slow: Any) -> None:
    background, written = BackgroundTracker(slow), threading.Event()
    background.write(lambda tracker: written.set())
    assert not written.wait(0.1)
    background.begin()
    assert written.wait(30)
    assert background.settle()


def test_settling_waits_no_longer_than_it_may_and_tells_how_much_is_left(slow: Any) -> None:
    background, told = BackgroundTracker(slow), []
    for number in range(3):
        background.write(lambda tracker, n=number: tracker.put(n))
    background.begin()
    assert not background.settle(1.0, told.append, every_s=0.3)
    assert set(told) == {3}


def test_nothing_more_is_written_once_it_was_given_up(slow: Any) -> None:
    background = BackgroundTracker(slow)
    first = threading.Event()
    background.write(lambda tracker: (first.set(), tracker.put(0)))
    background.begin()
    assert first.wait(30)
    background.write(lambda tracker: tracker.put(1))
    assert not background.settle(0.01)
    slow.go_on.set()
    while background.waiting:
        time.sleep(0.01)
    assert slow.written == [0]


def test_who_may_not_wait_does_not_begin(slow: Any) -> None:
    background = BackgroundTracker(slow)
    slow.go_on.set()
    background.write(lambda tracker: tracker.put(0))
    assert not background.settle(5.0)
    assert slow.written == []


def test_a_process_ends_though_mlflow_does_not_answer() -> None:
    program = (
        "import threading, types\n"
        "from sweeps.tracking import BackgroundTracker\n"
        "background = BackgroundTracker(types.SimpleNamespace(name='small'))\n"
        "background.write(lambda tracker: threading.Event().wait())\n"
        "background.begin()\n"
        "print(background.settle(0.2))\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "False\n", "")


def test_a_sweep_without_mlflow_goes_on_and_the_fault_is_told_once(
    slow: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(tracker: Any) -> None:
        raise TrackingError("the server is down")

    slow.go_on.set()
    background = BackgroundTracker(slow)
    with caplog.at_level(logging.WARNING):
        for write in (fails, fails, lambda tracker: tracker.put(1)):
            background.write(write)
        assert background.settle()
    assert slow.written == []
    assert len(caplog.records) == 1
    assert "the server is down" in caplog.text and "sweeps sync small" in caplog.text


def test_a_fault_of_our_own_is_not_hidden_by_the_thread(slow: Any) -> None:
    def fails(tracker: Any) -> None:
        raise KeyError("seed")

    background = BackgroundTracker(slow)
    background.write(fails)
    with pytest.raises(KeyError, match="seed"):
        background.settle()
