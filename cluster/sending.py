"""The cluster's side of `sweeps fetch`: `python -m cluster.sending NAME` prints a sweep's records, in checked pieces.

A job's log is the one way back that needs nothing but the job server: no shared folder, no further port, and no pickle.
What is sent is a SQLite store that holds this sweep alone.
"""

from __future__ import annotations

import base64
import hashlib
import os
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

MARK = "sweeps-record"
PIECE_BYTES = 12_000  # 16,000 letters: one line of a log


def pieces(data: bytes) -> Iterator[str]:
    """Lines that say which piece they are, of how many, and what it must add up to."""
    packed = zlib.compress(data, 6)
    total = hashlib.sha256(packed).hexdigest()
    count = max(1, -(-len(packed) // PIECE_BYTES))
    for number in range(count):
        piece = packed[number * PIECE_BYTES : (number + 1) * PIECE_BYTES]
        yield f"{MARK} {number + 1}/{count} {total} {zlib.crc32(piece):08x} {base64.b64encode(piece).decode()}"


def main(name: str) -> None:
    from sweeps.errors import StoreError
    from sweeps.store import Store, copy_sweep
    from sweeps.store.database import FILE_NAME, require_written

    location = os.environ["SWEEPS_STORE"]
    with tempfile.TemporaryDirectory(prefix="sweeps-sending-") as folder:
        try:
            require_written(location)
            with Store(location) as source, Store(folder) as target:
                copy_sweep(source, target, name)
        except StoreError as error:
            print(error)
            sys.exit(2)
        for line in pieces((Path(folder) / FILE_NAME).read_bytes()):
            print(line)


if __name__ == "__main__":
    main(sys.argv[1])
