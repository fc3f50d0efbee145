"""The store: everything that a sweep must not lose, durable before it is told to anyone.

with Store("results") as store, store.hold("quickstart"):
    store.begin_sweep("quickstart", text, document)
    store.ask("quickstart", configuration)        # before its first lane starts
    store.add_records(finished)                   # on disk when it returns
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from sweeps.store.database import Database, HeldByAnother
from sweeps.store.ownership import Holder, Ownership
from sweeps.store.rows import ConfigurationRows, RecordRows, SweepRows

__all__ = ["HeldByAnother", "Holder", "Store"]


class Store(SweepRows, ConfigurationRows, RecordRows, Ownership):
    """A folder, made if it is missing, or a `postgresql://` URL. Safe to use from several threads.

    Raises StoreError, here and in every method, when the database cannot be opened, read or written.
    """

    def __init__(self, location: str | Path) -> None:
        self.database = Database(location)
        self._holds = {}

    @property
    def location(self) -> str:
        """The folder or URL, without a password."""
        return self.database.where

    def close(self) -> None:
        """Let go of the database's connections."""
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
