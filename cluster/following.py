"""A job's log to its end, each line once. A tail may end while the job goes on, with or without an error."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

from sweeps.errors import ClusterError, UserError

SILENCE_S = 30.0
"""After so long without a word the tail is begun anew: a connection may be dead without saying so."""
PATIENCE_S = 600.0
"""How long a server may be out of reach before following is given up."""
PAUSE_S = 1.0


class Log(Protocol):
    """A job's log, which may be asked for again and again. Any of it may raise what a lost connection raises."""

    def look(self) -> Look:
        """Which text it is now, and whether the job has ended."""

    def whole(self) -> str:
        """All there is now."""

    def tail(self) -> Iterator[str]:
        """Pieces from the beginning on, as they come; may end early."""


class Look(NamedTuple):
    text: str
    """Names the text: another name is another text, such as that of a job that was begun anew."""
    ended: bool


def followed(client: Any, job_id: str, tell: Callable[[str], None] = lambda _: None) -> Iterator[str]:
    """Lines of the log of one of Ray's jobs; see `follow`."""
    return follow(_RayLog(client, job_id), tell)


def follow(log: Log, tell: Callable[[str], None] = lambda _: None) -> Iterator[str]:
    """Lines of the log, until the job has ended and all of them were given. `tell` hears of lost connections.

    Raises ClusterError when the server stays out of reach.
    """
    lines, text = _Lines(), ""
    lost_s: float | None = None
    while True:
        try:
            look = log.look()
            if lost_s is not None:
                tell("connected again")
                lost_s = None
            if look.text != text:
                yield from lines.rest()
                lines, text = _Lines(), look.text
            if look.ended:
                yield from lines.of(log.whole())
                yield from lines.rest()
                return
            lines.begin()
            for chunk in log.tail():
                yield from lines.add(chunk)
        except UserError:
            raise  # waiting would not help
        except (RuntimeError, OSError, ValueError) as error:
            now_s = time.monotonic()
            if lost_s is None:
                lost_s = now_s
                tell(f"the connection was lost ({type(error).__name__}), trying again")
            if now_s - lost_s > PATIENCE_S:
                raise ClusterError(
                    f"the cluster was out of reach for {PATIENCE_S:g} s. The job may go on: follow it again later"
                ) from error
        time.sleep(PAUSE_S)


class _RayLog:
    def __init__(self, client: Any, job_id: str) -> None:
        self._client, self._job_id = client, job_id

    def look(self) -> Look:
        return Look(self._job_id, self._client.get_job_status(self._job_id).is_terminal())

    def whole(self) -> str:
        return str(self._client.get_job_logs(self._job_id))

    def tail(self) -> Iterator[str]:
        """What one tail gives, until it ends, fails or falls silent."""
        import aiohttp

        loop = asyncio.new_event_loop()
        chunks = self._client.tail_job_logs(self._job_id)
        try:
            while True:
                try:
                    chunk = loop.run_until_complete(asyncio.wait_for(anext(chunks), SILENCE_S))
                except (StopAsyncIteration, TimeoutError):
                    return
                except aiohttp.ClientError as error:
                    raise ConnectionError(str(error)) from error
                yield chunk
        finally:
            loop.run_until_complete(chunks.aclose())
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()


class _Lines:
    """Whole lines out of pieces of a text that begins anew with every tail."""

    def __init__(self) -> None:
        self._given = 0  # characters of the text that were seen, over all tails
        self._position = 0  # of this tail
        self._part = ""

    def begin(self) -> None:
        self._position = 0

    def add(self, chunk: str) -> Iterator[str]:
        start = self._position
        self._position += len(chunk)
        if self._position <= self._given:
            return
        self._part += chunk[max(0, self._given - start) :]
        self._given = self._position
        *whole, self._part = self._part.split("\n")
        yield from whole

    def of(self, text: str) -> Iterator[str]:
        self.begin()
        yield from self.add(text)

    def rest(self) -> Iterator[str]:
        if self._part:
            yield self._part
            self._part = ""
