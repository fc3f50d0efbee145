"""Two drivers never share a sweep's name, and a dead driver's name is free again.

A holder is a row: host, process, heartbeat. On the holder's own machine its process is looked up, by id and by
when it started, since ids are used again; from elsewhere it is alive while its heartbeat is fresh. A row is
taken over only by whoever replaces exactly the row that was found dead, so two that try at once cannot both win.
"""

from __future__ import annotations

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
from sweeps.store.database import Database, HeldByAnother, holders, sweeps
from sweeps.store.rows import utc_now

HEARTBEAT_S = 20.0
SILENCE_S = 120.0
"""After so long without a heartbeat a driver on another host counts as dead."""


@dataclass(frozen=True)
class Holder:
    """Who drives a sweep, or drove it last without letting go."""

    host: str
    pid: int
    since: str
    """UTC, ISO 8601."""
    silent_s: float
    """Seconds since the last heartbeat."""
    alive: bool


@dataclass
class _Hold:
    token: str
    counted_until_s: float  # monotonic; the wall time before this is in the sweep's `seconds`
    counted: bool
    beating: threading.Lock = field(
        default_factory=threading.Lock
    )  # or two threads would count the same time


class Ownership:
    """Part of `Store`."""

    database: Database
    _holds: dict[str, _Hold]

    @contextmanager
    def hold(self, name: str, counted: bool = True) -> Iterator[None]:
        """Drive the sweep `name`, alone, for as long as the block lasts. A thread sends the heartbeat.

        The time goes into the sweep's `seconds`, where it is `counted`. Raises HeldByAnother if a live driver has it; takes
        over from a dead one. The name need not have begun.
        """
        hold = _Hold(uuid.uuid4().hex, time.monotonic(), counted)
        self._take(name, hold.token)
        self._holds[name] = hold
        over = threading.Event()
        heart = threading.Thread(
            target=self._keep_beating, args=(name, over), name=f"hold {name}", daemon=True
        )
        heart.start()
        try:
            yield
        finally:
            over.set()
            heart.join()
            # Faults are dropped here: the block's own error matters more, and a row left behind dies with us.
            with suppress(StoreError):
                self.beat(name)
            with suppress(StoreError):
                self._let_go(name, hold.token)
            del self._holds[name]

    def beat(self, name: str) -> None:
        """Say that this driver lives, and add the time since the last beat to the sweep's `seconds`.

        Raises HeldByAnother if another driver took the name meanwhile, as after a long sleep of this machine: stop.
        """
        hold = self._holds.get(name)
        if hold is None:
            raise StoreError(f"sweep {name!r} is not held here: beat belongs inside `with store.hold(name)`")
        with hold.beating, self.database.write() as connection:
            mine = (holders.c.sweep == name) & (holders.c.token == hold.token)
            if not connection.execute(sa.update(holders).where(mine).values(beat_s=time.time())).rowcount:
                raise self._refusal(name, _find(connection, name))
            now_s = time.monotonic()
            spent = sweeps.c.seconds + (now_s - hold.counted_until_s if hold.counted else 0.0)
            begun = sa.update(sweeps).where(sweeps.c.name == name).values(seconds=spent, updated=utc_now())
            if connection.execute(begun).rowcount:
                hold.counted_until_s = now_s

    def holder(self, name: str) -> Holder | None:
        """Who holds the name, dead or alive, or None."""
        with self.database.read() as connection:
            row = _find(connection, name)
        return None if row is None else _holder(row)

    def _take(self, name: str, token: str) -> None:
        row = _myself() | {"sweep": name, "token": token}
        row |= {"since": utc_now(), "beat_s": time.time()}
        with self.database.write() as connection:
            if self.database.insert_new(connection, holders, row):
                return
            found = _find(connection, name)
            if found is not None and not _holder(found).alive:
                dead = (holders.c.sweep == name) & (holders.c.token == found.token)
                if connection.execute(sa.update(holders).where(dead).values(row)).rowcount:
                    return
                found = _find(connection, name)
        raise self._refusal(name, found)

    def _let_go(self, name: str, token: str) -> None:
        with self.database.write() as connection:
            connection.execute(sa.delete(holders).where(holders.c.sweep == name, holders.c.token == token))

    def _keep_beating(self, name: str, over: threading.Event) -> None:
        while not over.wait(HEARTBEAT_S):
            with suppress(StoreError):  # the driver's own beat says so, where it can be heard
                self.beat(name)

    def _refusal(self, name: str, row: sa.Row[Any] | None) -> StoreError:
        where = self.database.where
        if row is None:
            return StoreError(
                f"sweep {name!r} in store {where} was let go while it was being taken. Run again."
            )
        other = _holder(row)
        message = (
            f"sweep {name!r} in store {where} is being driven by process {other.pid} on {other.host}, since "
            f"{other.since} (last sign of life {other.silent_s:.0f} s ago). Wait for it, stop it there, or choose "
            "another name with --name."
        )
        if row.machine != _machine():
            message += f" If it is dead, it can be taken over once it has been silent for {SILENCE_S:.0f} s."
        return HeldByAnother(message, host=other.host, pid=other.pid, since=other.since)


def _find(connection: sa.Connection, name: str) -> sa.Row[Any] | None:
    return connection.execute(sa.select(holders).where(holders.c.sweep == name)).one_or_none()


def _holder(row: sa.Row[Any]) -> Holder:
    silent_s = max(0.0, time.time() - row.beat_s)
    alive = _process_lives(row.pid, row.started_s) if row.machine == _machine() else silent_s <= SILENCE_S
    return Holder(row.host, row.pid, row.since, silent_s, alive)


def _myself() -> dict[str, Any]:
    process = psutil.Process()
    return {
        "host": socket.gethostname(),
        "machine": _machine(),
        "pid": process.pid,
        "started_s": _started_s(process),
    }


def _process_lives(pid: int, started_s: float) -> bool:
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return abs(_started_s(process) - started_s) < 1.5  # boot_time is whole seconds, read twice
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def _started_s(process: psutil.Process) -> float:
    """Seconds after boot. Counted from 1970 it would move whenever the machine's clock is set."""
    return float(process.create_time() - psutil.boot_time())


@cache
def _machine() -> str:
    """Where a process id means something: host name, boot and, in containers, the process namespace."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)
