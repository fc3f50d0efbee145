"""What can go wrong with a store, said so that the reader knows what to do."""

from __future__ import annotations


class StoreError(ValueError):
    """A store cannot be opened, read or written, or was asked for something that it must refuse."""


class HeldByAnother(StoreError):
    """Another live driver holds the sweep's name. `host`, `pid` and `since` (UTC, ISO 8601) say which one."""

    def __init__(self, message: str, *, host: str, pid: int, since: str) -> None:
        super().__init__(message)
        self.host, self.pid, self.since = host, pid, since
