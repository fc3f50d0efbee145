"""Two drivers never hold the same name, and the name of a dead driver is free."""

from __future__ import annotations

import functools
import os
import signal
import threading
import time
from typing import Any

import pytest
import sqlalchemy as sa
from commands import Start, output_line, proceed

from sweeps.errors import StoreError
from sweeps.store import HeldByAnother, Store, ownership
from sweeps.store.database import holders

DRIVER = """
import sys, time
from sweeps.store import HeldByAnother, Store
store = Store(sys.argv[1])
sys.stdin.readline()
try:
    with store.hold("s"):
        print("holds", flush=True)
        sys.stdin.readline()
except HeldByAnother as refused:
    print(refused, flush=True)
"""


@pytest.fixture
def driver(python: Start) -> Start:
    """Start a process that holds `s` once it reads a line."""
    return functools.partial(python, DRIVER)


def rewrite(store: Store, **values: Any) -> None:
    """Change the row of the holder of `s`."""
    with store.database.write() as connection:
        connection.execute(sa.update(holders).values(**values))


def test_a_second_driver_is_refused_with_the_holder_and_a_killed_one_is_taken_over(driver: Start, store: Store) -> None:
    first = driver()
    proceed(first)
    assert output_line(first) == "holds"
    with pytest.raises(HeldByAnother, match=f"driven by process {first.pid} on .* since 20") as refused, store.hold("s"):
        pass
    assert refused.value.pid == first.pid
    holder = store.holder("s")
    assert holder is not None and holder.alive
    first.kill()
    first.wait(30)
    left = store.holder("s")
    assert left is not None and not left.alive
    with store.hold("s"):
        now = store.holder("s")
        assert now is not None and now.pid == os.getpid()
    assert store.holder("s") is None


def test_a_killed_driver_that_is_still_a_zombie_is_dead(driver: Start, store: Store) -> None:
    first = driver()
    proceed(first)
    assert output_line(first) == "holds"
    os.kill(first.pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while (holder := store.holder("s")) is not None and holder.alive and time.monotonic() < deadline:
        time.sleep(0.02)
    with store.hold("s"):
        pass


def test_of_drivers_that_take_a_dead_ones_name_at_once_one_gets_it(driver: Start, store: Store) -> None:
    with store.hold("s"):
        rewrite(store, pid=2**22 + 1)  # larger than any process id
        drivers = [driver() for _ in range(3)]
        time.sleep(0.7)
        for process in drivers:
            proceed(process)
        lines = [output_line(process) for process in drivers]
        assert sorted(line == "holds" for line in lines) == [False, False, True]
        with pytest.raises(HeldByAnother):
            store.heartbeat("s")


def test_a_process_id_that_was_used_again_is_not_the_holder(store: Store) -> None:
    with store.hold("s"):
        holder = store.holder("s")
        assert holder is not None and holder.alive
        with store.database.read() as connection:
            started_s = connection.execute(sa.select(holders.c.started_s)).scalar_one()
        rewrite(store, started_s=started_s - 60)
        reused = store.holder("s")
        assert reused is not None and not reused.alive


def test_a_holder_on_another_host_is_dead_after_two_minutes_of_silence(where: str, store: Store) -> None:
    with store.hold("s"):
        rewrite(store, host="elsewhere", machine="elsewhere", token="theirs", beat_s=time.time() - 100)
        with pytest.raises(HeldByAnother, match="on elsewhere.*silent for 120 s"), store.hold("s"):
            pass
        rewrite(store, beat_s=time.time() - 121)
        with Store(where) as other, other.hold("s"):
            other.heartbeat("s")


def test_a_holder_whose_clock_is_ahead_is_dead_once_its_heartbeat_stands_still(
    where: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ownership, "HEARTBEAT_TIMEOUT_S", 1.0)
    with store.hold("s"):
        rewrite(store, host="elsewhere", machine="elsewhere", token="theirs", beat_s=time.time() + 86400)
        beats = threading.Timer(0.3, rewrite, (store,), {"beat_s": time.time() + 86401})
        beats.start()
        with pytest.raises(HeldByAnother, match="on elsewhere"), store.hold("s"):
            pass
        beats.join()
        with Store(where) as other, other.hold("s"):
            other.heartbeat("s")


def test_a_holder_that_sweeps_did_not_write_is_named_and_takes_no_name_over(store: Store) -> None:
    with store.hold("s"):
        rewrite(store, host="elsewhere", machine="elsewhere", token="theirs")
        if store.database.where.startswith("postgresql"):
            pytest.skip("PostgreSQL keeps numbers only in a column of numbers")
        with store.database.write() as connection:
            connection.execute(sa.text("UPDATE holders SET beat_s = 'abc'"))
        damaged = "the driver of sweep 's' is damaged, or was not written by sweeps"
        with pytest.raises(StoreError, match=damaged), store.hold("s"):
            pass


def test_a_process_that_proc_hides_counts_as_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    def hidden(pid: int, signal_number: int) -> None:
        raise PermissionError

    absent = 2**22 + 1  # larger than any process id
    assert not ownership._process_is_alive(absent, 0.0)
    monkeypatch.setattr(os, "kill", hidden)
    assert ownership._process_is_alive(absent, 0.0)


def test_one_process_cannot_hold_a_name_twice(where: str, store: Store) -> None:
    with store.hold("s"), Store(where) as other:
        with pytest.raises(HeldByAnother), other.hold("s"):
            pass
        with other.hold("another name"):
            pass


def test_the_next_heartbeat_raises_where_the_name_was_taken_over(store: Store) -> None:
    with store.hold("s"):
        rewrite(store, token="someone else's")
        with pytest.raises(HeldByAnother):
            store.heartbeat("s")
    holder = store.holder("s")
    assert holder is not None, "leaving the block must not release another's hold"


def test_a_thread_sends_heartbeats_and_counts_the_sweeps_seconds(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership, "HEARTBEAT_S", 0.05)
    store.begin_sweep("s", "", {})
    with store.hold("s"):
        rewrite(store, beat_s=0.0)
        time.sleep(0.4)
        holder = store.holder("s")
        assert holder is not None and holder.silent_s < 10
        meanwhile = store.sweep("s")
    sweep = store.sweep("s")
    assert meanwhile is not None and sweep is not None
    assert 0 < meanwhile.seconds < sweep.seconds
    assert 0.4 <= sweep.seconds < 10
    with store.hold("s"):
        pass
    again = store.sweep("s")
    assert again is not None and again.seconds > sweep.seconds


def test_a_failing_sweep_releases_its_name(store: Store) -> None:
    with pytest.raises(KeyboardInterrupt), store.hold("s"):
        raise KeyboardInterrupt
    assert store.holder("s") is None
    with pytest.raises(StoreError, match="is not held here"):
        store.heartbeat("s")
