"""Reading an SQLite file without writing beside it, for folders of other users, read-only mounts and full disks.

SQLite itself makes two files (`-wal`, `-shm`) beside a database with a write-ahead log, also where it only reads. In a
folder that cannot be written that fails; in one that can, files of the reader may be left that the owner cannot write.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from sweeps.machine import mark_as_ours

_LOG_HEADER_BYTES = 32  # they change whenever the log begins anew
_COPY_ATTEMPTS = 20
_MEMORY_DISK = Path("/dev/shm")


class Connection(sqlite3.Connection):
    """A connection that only reads. `at_open` is the state of a file that is read without locks, else None."""

    at_open: tuple[object, ...] | None = None


class ChangedWhileRead(sqlite3.OperationalError):
    """A database was written while it was read without locks, or copied."""


class Reader:
    """Opens connections to an SQLite file of which nothing is changed.

    - With a log and its index (another process may be writing now) SQLite reads them as they are.
    - Without a log the file is complete, and is read without locks: `Connection.at_open` shows whether it was changed since.
    - A log without its index (left by a killed process, or copied) is replayed in a private copy, as is a rollback
      journal, and whatever SQLite cannot open. `apart` forces the copy wherever there is a log: the index cannot be shared
      on network disks.
    """

    def __init__(self, file: Path, timeout_s: float, apart: bool = False) -> None:
        self.file, self._timeout_s, self._apart = file, timeout_s, apart
        self._copy: tempfile.TemporaryDirectory[str] | None = None
        self._lock = threading.Lock()

    def connect(self) -> Connection:
        """Return a new connection. Raises sqlite3.Error and OSError."""
        if self._copy is None:
            with suppress(sqlite3.OperationalError):
                at_open = _state(self.file)
                if _has_log_format(self.file):
                    log, index = self._beside("-wal"), self._beside("-shm")
                    if not index.exists() and not _size(log):
                        return self._open("mode=ro&immutable=1", at_open)
                    if index.exists() and log.exists() and not self._apart:
                        return self._open("mode=ro")
                else:
                    return self._open("mode=ro")
        with self._lock:
            if self._copy is None:
                self._copy = copy_apart(self.file)
        return self._open("mode=rw", file=Path(self._copy.name) / self.file.name)

    def require_unchanged(self, connection: object) -> None:
        """Raise ChangedWhileRead if the file was changed since this connection, which has no locks, was opened."""
        at_open = connection.at_open if isinstance(connection, Connection) else None
        if at_open is not None and at_open != _state(self.file):
            raise ChangedWhileRead("another process changed it while it was read")

    def close(self) -> None:
        if self._copy is not None:
            self._copy.cleanup()

    def _open(self, how: str, at_open: tuple[object, ...] | None = None, file: Path | None = None) -> Connection:
        path = quote(os.fsencode((file or self.file).absolute()))
        connection = sqlite3.connect(
            f"file:{path}?{how}",
            uri=True,
            timeout=self._timeout_s,
            isolation_level=None,
            check_same_thread=False,
            factory=Connection,
        )
        connection.at_open = at_open
        try:
            connection.execute("PRAGMA query_only=ON")
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()  # SQLite opens its files only now
        except BaseException:
            connection.close()
            raise
        return connection

    def _beside(self, suffix: str) -> Path:
        return Path(f"{self.file}{suffix}")


def copy_apart(file: Path) -> tempfile.TemporaryDirectory[str]:
    """Return a private temporary folder with a consistent copy of an SQLite file and its log, of the same names.

    It is in memory where the disk of temporary files is full. Raises OSError, and ChangedWhileRead for a file that is
    changed faster than it can be copied.
    """
    try:
        return _copied(file, None)
    except OSError:
        if not _MEMORY_DISK.is_dir():
            raise
    return _copied(file, _MEMORY_DISK)


def _copied(file: Path, parent: Path | None) -> tempfile.TemporaryDirectory[str]:
    folder = tempfile.TemporaryDirectory(prefix="sweeps-read-", dir=parent, ignore_cleanup_errors=True)
    mark_as_ours(Path(folder.name), "sweeps-read-")
    log = Path(f"{file}-wal")
    try:
        for _ in range(_COPY_ATTEMPTS):
            before = _state(file), _head(log, _LOG_HEADER_BYTES)
            for source in (file, log, Path(f"{file}-journal")):
                target = Path(folder.name) / source.name
                target.unlink(missing_ok=True)
                if source is file or source.is_file():
                    shutil.copyfile(source, target)
            # The log may have become longer: of its last transactions the copy has those that it has as a whole.
            if (_state(file), _head(log, _LOG_HEADER_BYTES)) == before:
                return folder
        raise ChangedWhileRead("another process changed it again and again while it was copied")
    except BaseException:
        folder.cleanup()
        raise


def _state(file: Path) -> tuple[object, ...]:
    """Return what differs after every change of the file itself, or of its rollback journal."""
    found: list[object] = []
    for path in (file, Path(f"{file}-journal")):
        with suppress(FileNotFoundError):
            stat = path.stat()
            found.append((path.name, stat.st_ino, stat.st_size, stat.st_mtime_ns))
    return tuple(found)


def _head(path: Path, size: int) -> bytes:
    try:
        with path.open("rb") as opened:
            return opened.read(size)
    except FileNotFoundError:
        return b""


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _has_log_format(file: Path) -> bool:
    """Return whether an SQLite file is written with a write-ahead log, from bytes 18 and 19 of its header."""
    return 2 in _head(file, 20)[18:]
