"""Ctrl-C and SIGTERM while Ray runs: a sweep ends in order, and at last without Ray."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sweeps.driver import Driver

GRACE_S = 25.0
"""How long Ray has to end after SIGTERM. Batch systems send it to every process of a job, Ray's own too, and Ray then
waits a minute for itself; Slurm kills after 30 s."""


@contextmanager
def interruptible(driver: Driver, abandon: Callable[[], None]) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the sweep in order; a second one ends it at once.

    `abandon` is called from another thread, right before the process ends, where Ray does not end after SIGTERM.
    """
    signalled: list[int] = []

    def give_up() -> None:
        try:
            abandon()
        finally:
            os._exit(1)  # the main thread waits inside Ray, where no exception reaches it

    timer = threading.Timer(GRACE_S, give_up)
    timer.daemon = True

    def stop(number: int, frame: Any) -> None:
        signalled.append(number)
        if len(signalled) > 1:
            raise KeyboardInterrupt
        driver.stopping = f"{signal.Signals(number).name} was received"
        if number == signal.SIGTERM:
            timer.start()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def own_signals() -> Iterator[None]:
    """Joining a cluster puts Ray's handler of SIGTERM, which ends the process at once, in place of ours."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
