"""Where sweeps of a store came from: the sweep file of one that was submitted, the cluster of one that was fetched.

A file beside the database has it, by the names of sweeps, for messages alone: where it is missing, as in a store on
PostgreSQL, nothing is known. A removed sweep may leave an entry behind.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

FILE = "origins.json"
LOCK_S = 5.0


def origin_of(location: str | Path, name: str, kind: str) -> str | None:
    """Return what `record_origin` was given for a sweep."""
    return _entries(location).get(name, {}).get(kind)


def record_origin(location: str | Path, name: str, kind: str, value: str) -> None:
    """Record the `file` (submitted) or `cluster` (fetched) of a sweep. A folder that cannot be written is left as it is."""
    if "://" in str(location):
        return
    import filelock  # here, since `sweeps list` only reads

    path = Path(location) / FILE
    with suppress(OSError):  # filelock.Timeout is one
        path.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(path.with_suffix(".lock"), timeout=LOCK_S):
            entries = _entries(location)
            entries[name] = {**entries.get(name, {}), kind: value}
            new = path.with_suffix(f".{os.getpid()}")
            new.write_text(json.dumps(entries, indent=1, ensure_ascii=False), encoding="utf-8")
            new.replace(path)


def _entries(location: str | Path) -> dict[str, dict[str, str]]:
    if "://" in str(location):
        return {}
    try:
        found = json.loads((Path(location) / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and all(isinstance(entry, dict) for entry in found.values()) else {}
