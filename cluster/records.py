"""The records of a sweep as lines of a log, from which `sweeps fetch` copies them.

`python -m cluster.records NAME` prints them on the cluster, in pieces with checksums; `receive` copies them into a store
here. A job's log needs the job server only: no shared folder, no further port, and no pickle. The data are a SQLite store
that contains this sweep alone.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import sys
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sweeps.errors import ClusterError

if TYPE_CHECKING:
    from sweeps.store import Store

MARK = "sweeps-record"
PIECE_BYTES = 12_000  # 16,000 letters: one line of a log


def pieces(data: bytes) -> Iterator[str]:
    """Yield lines: the mark, number and count of pieces, the digest of all, the checksum and text of this one."""
    packed = zlib.compress(data, 6)
    total = hashlib.sha256(packed).hexdigest()
    count = max(1, -(-len(packed) // PIECE_BYTES))
    for number in range(count):
        piece = packed[number * PIECE_BYTES : (number + 1) * PIECE_BYTES]
        yield f"{MARK} {number + 1}/{count} {total} {zlib.crc32(piece):08x} {base64.b64encode(piece).decode()}"


def assemble(log: Iterable[str]) -> bytes:
    """Return the data that `pieces` was given. Raises ClusterError if a piece is missing or damaged."""
    found: dict[int, bytes] = {}
    count, total = 0, ""
    for line in log:
        if not line.startswith(MARK + " "):
            continue
        try:
            _, position, total, checksum, text = line.split()
            number, _, of = position.partition("/")
            piece = base64.b64decode(text, validate=True)
            if zlib.crc32(piece) == int(checksum, 16):
                found[int(number)] = piece
            count = int(of)
        except (ValueError, binascii.Error):
            continue  # counted as missing below
    missing = [number for number in range(1, count + 1) if number not in found]
    if not count or missing:
        raise ClusterError(f"{len(missing) or 'all'} pieces of the records did not arrive: fetch again")
    packed = b"".join(found[number] for number in sorted(found))
    if hashlib.sha256(packed).hexdigest() != total:
        raise ClusterError("the records that arrived do not add up to what was sent: fetch again")
    return zlib.decompress(packed)


def receive(log: Iterable[str], name: str, store: Store) -> int:
    """Copy the records out of a log into the store, and return how many lanes were new. Raises ClusterError."""
    from sweeps.store import Store as Opened
    from sweeps.store import copy_sweep
    from sweeps.store.database import FILE_NAME

    data = assemble(log)
    with tempfile.TemporaryDirectory(prefix="sweeps-received-") as folder:
        (Path(folder) / FILE_NAME).write_bytes(data)
        with Opened(folder) as source:
            return copy_sweep(source, store, name)


def main(name: str) -> None:
    """Print the sweep's records out of the store at $SWEEPS_STORE; exit with 2 if there is no such store or sweep."""
    from sweeps.errors import StoreError
    from sweeps.store import Store, copy_sweep
    from sweeps.store.database import FILE_NAME, require_written

    location = os.environ["SWEEPS_STORE"]
    with tempfile.TemporaryDirectory(prefix="sweeps-sent-") as folder:
        try:
            require_written(location)
            with Store(location, read_only=True) as source, Store(folder) as target:
                copy_sweep(source, target, name)
        except StoreError as error:
            print(error)
            sys.exit(2)
        for line in pieces((Path(folder) / FILE_NAME).read_bytes()):
            print(line)


if __name__ == "__main__":
    main(sys.argv[1])
