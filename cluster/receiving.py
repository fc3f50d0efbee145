"""This side of `sweeps fetch`: pieces of a log, put together, checked, and taken into the store here."""

from __future__ import annotations

import base64
import binascii
import hashlib
import tempfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.sending import MARK
from sweeps.errors import ClusterError

if TYPE_CHECKING:
    from sweeps.store import Store


def assemble(log: Iterable[str]) -> bytes:
    """What `sending.pieces` was given. Raises ClusterError if any piece is missing or damaged."""
    found: dict[int, bytes] = {}
    count, total = 0, ""
    for line in log:
        if not line.startswith(MARK + " "):
            continue
        try:
            _, place, total, checksum, text = line.split()
            number, _, of = place.partition("/")
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
    """Takes what was sent into the store; how many lanes were new."""
    from sweeps.store import Store as Opened
    from sweeps.store import copy_sweep
    from sweeps.store.database import FILE_NAME

    data = assemble(log)
    with tempfile.TemporaryDirectory(prefix="sweeps-received-") as folder:
        (Path(folder) / FILE_NAME).write_bytes(data)
        with Opened(folder) as source:
            return copy_sweep(source, store, name)
