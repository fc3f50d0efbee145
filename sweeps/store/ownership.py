"""Ownership of sweeps: one driver a sweep, and the name of a dead driver is free again.

A holder is a row with host, process and heartbeat. On the holder's own machine its process is looked up, by id and by
start time, since ids are reused. From another machine it counts as alive while its heartbeat is recent. A row is taken
over by replacing exactly the row that was found dead, so of two drivers that try at once one succeeds.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy as sa

from sweeps.errors import StoreError
from sweeps.store.database import Database, HeldByAnother, checked, decoding, holders, sweeps, utc_now

log = logging.getLogger(__name__)
HEARTBEAT_S = 20.0
"""Seconds between two heartbeats."""
HEARTBEAT_TIMEOUT_S = 120.0
"""After so long without a heartbeat a driver on another host counts as dead."""


@dataclass(frozen=True)
class Holder:
    """The driver of a sweep, or its last one if that ended without releasing the name."""

    host: str
    pid: int
    since: str
    """UTC, ISO 8601."""
    silent_s: float
    """Seconds since the last heartbeat; negative where its machine's clock is ahead of this one's."""
    alive: bool


@dataclass
class _Hold:
    """A name that this process holds."""

    token: str
    """Identifies this hold in the database."""
    counted_until_s: float
    """Monotonic clock; the time before it is included in the sweep's `seconds`."""
    count_time: bool
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Two threads send heartbeats, and would count the same time."""


class Ownership:
    """The names of sweeps that drivers hold, in one database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._holds: dict[str, _Hold] = {}

    @contextmanager
    def hold(self, name: str, count_time: bool = True) -> Iterator[None]:
        """Hold the sweep `name` for as long as the block lasts. A thread sends heartbeats.

        With `count_time` the time is added to the sweep's `seconds`, and `updated` changes. The sweep need not exist yet.
        Raises HeldByAnother if a live driver holds it; takes over from a dead one.
        """
        hold = _Hold(uuid.uuid4().hex, time.monotonic(), count_time)
        self._acquire(name, hold.token)
        self._holds[name] = hold
        released = threading.Event()

        def send_heartbeats() -> None:
            while not released.wait(HEARTBEAT_S):
                with suppress(StoreError):  # the driver sends heartbeats as well, and handles the error
                    self.heartbeat(name)

        thread = threading.Thread(target=send_heartbeats, name=f"hold {name}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            released.set()
            thread.join()
            # Errors are dropped here: the block's own matters more, and a row left behind is that of a dead process.
            with suppress(StoreError):
                self.heartbeat(name)
            with suppress(StoreError), self._database.write() as connection:
                connection.execute(sa.delete(holders).where(_row_of(name, hold.token)))
            del self._holds[name]

    def heartbeat(self, name: str) -> None:
        """Write that this driver is alive, and add the time since the last heartbeat to the sweep's `seconds`.

        Raises HeldByAnother if another driver has taken the name over, as after a long sleep of this machine; the caller
        must stop then. Raises StoreError outside of `hold`.
        """
        hold = self._holds.get(name)
        if hold is None:
            raise StoreError(f"sweep {name!r} is not held here: heartbeat belongs inside `with store.hold(name)`")
        with hold.lock, self._database.write() as connection:
            alive = sa.update(holders).where(_row_of(name, hold.token)).values(beat_s=time.time())
            if not connection.execute(alive).rowcount:
                raise self._refusal(name, _find(connection, name))
            now_s = time.monotonic()
            if not hold.count_time:
                return
            seconds = sweeps.c.seconds + (now_s - hold.counted_until_s)
            counted = sa.update(sweeps).where(sweeps.c.name == name).values(seconds=seconds, updated=utc_now())
            if connection.execute(counted).rowcount:
                hold.counted_until_s = now_s

    def holder(self, name: str) -> Holder | None:
        """Return the driver that holds the name, dead or alive, or None."""
        with self._database.read() as connection:
            row = _find(connection, name)
        return None if row is None else self._holder(row)

    def _holder(self, row: sa.Row[Any]) -> Holder:
        with decoding(self._database.where, f"the driver of sweep {row.sweep!r}"):
            checked(row, holders)
            silent_s = time.time() - row.beat_s
            here = row.machine == _machine()
            alive = _process_is_alive(row.pid, row.started_s) if here else silent_s <= HEARTBEAT_TIMEOUT_S
            return Holder(row.host, row.pid, row.since, silent_s, alive)

    def _acquire(self, name: str, token: str) -> None:
        process = psutil.Process()
        row = {
            "sweep": name,
            "token": token,
            "host": socket.gethostname(),
            "machine": _machine(),
            "pid": process.pid,
            "started_s": _started_s(process),
            "since": utc_now(),
            "beat_s": time.time(),
        }
        stopped = self._stopped_ahead(name)
        with self._database.write() as connection:
            if self._database.insert_new(connection, holders, row):
                return
            found = _find(connection, name)
            if found is not None and (found == stopped or not self._holder(found).alive):
                replaced = sa.update(holders).where(_row_of(name, found.token)).values(row)
                if connection.execute(replaced).rowcount:
                    return
                found = _find(connection, name)
        raise self._refusal(name, found)

    def _stopped_ahead(self, name: str) -> sa.Row[Any] | None:
        """Return the holder's row if its heartbeat is ahead of this machine's clock, and does not change for the timeout.

        It is then that of a dead driver. Otherwise return None, without a wait where the clocks agree.
        """
        with self._database.read() as connection:
            found = _find(connection, name)
        if found is None or found.machine == _machine() or self._holder(found).silent_s > -HEARTBEAT_TIMEOUT_S:
            return None
        log.warning(
            "the last heartbeat of %s, which drives sweep %r, is %.0f s ahead of this machine's clock: the next one is "
            "waited for, %.0f s at most", found.host, name, found.beat_s - time.time(), HEARTBEAT_TIMEOUT_S,
        )  # fmt: skip
        deadline = time.monotonic() + HEARTBEAT_TIMEOUT_S
        while time.monotonic() < deadline:
            time.sleep(HEARTBEAT_TIMEOUT_S / 60)
            with self._database.read() as connection:
                if _find(connection, name) != found:
                    return None
        return found

    def _refusal(self, name: str, row: sa.Row[Any] | None) -> StoreError:
        where = self._database.where
        if row is None:
            return StoreError(f"sweep {name!r} in store {where} was released while it was acquired. Run again.")
        other = self._holder(row)
        message = (
            f"sweep {name!r} in store {where} is being driven by process {other.pid} on {other.host}, since "
            f"{other.since} (last heartbeat {max(0.0, other.silent_s):.0f} s ago). Wait for it, stop it there, or choose "
            "another name with --name."
        )
        if row.machine != _machine():
            message += f" If it is dead, it can be taken over once it has been silent for {HEARTBEAT_TIMEOUT_S:.0f} s."
        return HeldByAnother(message, host=other.host, pid=other.pid, since=other.since)


def _row_of(name: str, token: str) -> sa.ColumnElement[bool]:
    return (holders.c.sweep == name) & (holders.c.token == token)


def _find(connection: sa.Connection, name: str) -> sa.Row[Any] | None:
    return connection.execute(sa.select(holders).where(holders.c.sweep == name)).one_or_none()


def _process_is_alive(pid: int, started_s: float) -> bool:
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return abs(_started_s(process) - started_s) < 1.5  # boot_time is whole seconds, read twice
    except psutil.NoSuchProcess:
        return _is_hidden(pid)
    except psutil.AccessDenied:
        return True


def _is_hidden(pid: int) -> bool:
    """Return whether it is a process of another user, which /proc may hide."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return False


def _started_s(process: psutil.Process) -> float:
    """Return seconds after boot. Counted from 1970 it would change whenever the machine's clock is set."""
    return float(process.create_time() - psutil.boot_time())


@cache
def _machine() -> str:
    """Return what process ids are unique in: host name, boot and, in containers, the process namespace."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)
