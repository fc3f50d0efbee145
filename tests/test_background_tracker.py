"""MLflow is written in the background: the sweep does not wait for it, and its errors stop nothing."""

from __future__ import annotations

import contextlib
import itertools
import logging
import subprocess
import sys
import threading
import time
import types
from collections.abc import Iterator
from typing import Any

import pytest

from sweeps.errors import StoreError, TrackingError
from sweeps.tracking import BackgroundTracker
from sweeps.tracking import tracker as tracker_module
from sweeps.tracking.client import Rejected
from sweeps.tracking.runs import Changed, Unavailable


class Slow:
    """A tracker that blocks until `go_on` is set."""

    name = "small"

    def __init__(self) -> None:
        self.go_on, self.written = threading.Event(), []

    together = contextlib.nullcontext

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
        "import contextlib, threading, types\n"
        "from sweeps.tracking import BackgroundTracker\n"
        "background = BackgroundTracker(types.SimpleNamespace(name='small', together=contextlib.nullcontext))\n"
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
        assert not background.flush()
    assert slow.written == []
    assert len(caplog.records) == 1
    assert "the server is down" in caplog.text and "sweeps sync small" in caplog.text


def away(background: BackgroundTracker, tracker: Any, until: threading.Event) -> Any:
    """A write that fails as long as MLflow is away."""

    def write(_: Any) -> None:
        if not until.is_set():
            raise Unavailable("no server")
        tracker.written.append("back")

    return write


def test_what_could_not_be_written_is_written_once_mlflow_is_back_in_its_order(
    slow: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracker_module, "FIRST_PAUSE_S", 0.01)
    slow.go_on.set()
    background, back = BackgroundTracker(slow), threading.Event()
    for write in (away(background, slow, back), lambda tracker: tracker.put(1)):
        background.write(write)
    background.begin()
    while not caplog.records:
        time.sleep(0.01)
    assert (background.pending, slow.written) == (2, [])
    back.set()
    assert background.flush()
    assert slow.written == ["back", 1]
    first, last = (record.getMessage() for record in caplog.records)
    assert first == "MLflow cannot be written now, and is tried again: no server" and last == "MLflow is written again"


def test_the_end_of_a_sweep_waits_for_a_server_that_is_away_for_a_bounded_time(
    slow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count()  # a second passes whenever it is read
    fake = types.SimpleNamespace(monotonic=lambda: float(next(clock)), sleep=lambda _: None)
    monkeypatch.setattr(tracker_module, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(tracker_module, "AWAY_S", 4.0)
    monkeypatch.setattr(tracker_module, "time", fake)
    background = BackgroundTracker(slow)
    background.write(away(background, slow, threading.Event()))
    background.begin()
    while not background._away:
        time.sleep(0.01)
    began = next(clock)
    assert not background.flush()
    assert 4 <= next(clock) - began <= 8 < tracker_module.END_S


def test_what_mlflow_rejects_is_tried_three_times(slow: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracker_module, "FIRST_PAUSE_S", 0.01)
    tried = []

    def rejected(_: Any) -> None:
        tried.append(1)
        raise Rejected("no such run")

    background = BackgroundTracker(slow)
    background.write(rejected)
    assert not background.flush() and len(tried) == 3


def rejects(_: Any) -> None:
    raise Rejected("no such run")


def test_what_mlflow_rejects_is_left_out_alone(
    slow: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracker_module, "FIRST_PAUSE_S", 0.0)
    slow.go_on.set()
    background = BackgroundTracker(slow)
    for write in (rejects, lambda tracker: tracker.put(1), rejects, lambda tracker: tracker.put(2)):
        background.write(write)
    assert not background.flush(), "something is missing"
    assert slow.written == [1, 2]
    assert caplog.text.count("MLflow rejected a write, which is left out: no such run. `sweeps sync small`") == 2


def test_where_mlflow_rejects_everything_nothing_more_is_tried(
    slow: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracker_module, "FIRST_PAUSE_S", 0.0)
    background = BackgroundTracker(slow)
    for _ in range(100):
        background.write(rejects)
    assert not background.flush()
    assert caplog.text.count("is left out") == tracker_module.MOST_LEFT_OUT - 1
    assert "MLflow is not written any more: no such run" in caplog.text


def test_a_store_that_cannot_be_read_now_is_read_again(slow: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracker_module, "FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr(tracker_module, "MOST_QUEUED", 1)
    slow.go_on.set()
    busy = iter([True, False])

    def catch_up(tracker: Any) -> None:
        if next(busy):
            raise StoreError("locked for 60 s")
        tracker.put("store")

    background = BackgroundTracker(slow, catch_up)
    for number in range(3):
        background.write(lambda tracker, n=number: tracker.put(n))
    assert background.flush() and slow.written == [0, "store"]


def test_where_the_database_was_replaced_all_that_the_store_has_is_written(slow: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracker_module, "FIRST_PAUSE_S", 0.0)
    slow.go_on.set()
    replaced = iter([True, False])

    def write(tracker: Any) -> None:
        if next(replaced):
            raise Changed("it was deleted", lost=True)
        tracker.put(1)

    background = BackgroundTracker(slow, lambda tracker: tracker.put("store"))
    background.write(write)
    assert background.flush() and slow.written == [1, "store"]


def test_what_is_taken_from_the_queue_after_a_timeout_does_not_count_as_written(
    slow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    background = BackgroundTracker(slow)
    background.write(lambda tracker: tracker.put(0))
    background.begin()

    def meanwhile() -> None:
        slow.go_on.set()
        while background.pending:
            time.sleep(0.01)

    monkeypatch.setattr(background, "_raise_bug", meanwhile)  # it is called after the waiting
    assert not background.flush(0.01)


def test_beyond_a_number_of_writes_the_store_is_what_is_written(slow: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracker_module, "MOST_QUEUED", 3)
    slow.go_on.set()
    background = BackgroundTracker(slow, lambda tracker: tracker.put("store"))
    for number in range(10):
        background.write(lambda tracker, n=number: tracker.put(n))
    assert background.pending == 4
    assert background.flush()
    assert slow.written == [0, 1, 2, "store"]


def test_a_bug_is_not_hidden_by_the_thread(slow: Any) -> None:
    def fails(tracker: Any) -> None:
        raise KeyError("seed")

    background = BackgroundTracker(slow)
    background.write(fails)
    with pytest.raises(KeyError, match="seed"):
        background.flush()
