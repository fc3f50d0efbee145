"""Compression of learning curves: columns of numbers as exact, compressed bytes.

As JSON a number computed in float32 takes up to 20 characters, most of which do not compress; as float32 it takes 4
bytes. Every column is written in the smallest form that gives back equal values: float32 where no value changes,
otherwise float64; integers as differences, which are equal for evenly spaced steps; anything else as JSON. A value that
is not finite is None.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_LARGEST_DELTA = 2**62  # differences of whole numbers beyond this could overflow an int64

_LARGEST_CURVE = 2**29  # a few bytes can stand for gigabytes


def pack(curve: Mapping[str, Sequence[Any]]) -> bytes:
    """Return the curve as bytes. `unpack` returns equal columns, with None in place of NaN and infinities."""
    header, parts = [], []
    for name, column in curve.items():
        kind, body = _encode(list(column))
        header.append([name, kind, len(body)])
        parts.append(body)
    return zlib.compress(json.dumps(header).encode() + b"\n" + b"".join(parts), 6)


def unpack(data: bytes) -> dict[str, list[Any]]:
    """Return the curve of which `pack` made these bytes. Raises zlib.error, ValueError, TypeError or LookupError for others."""
    decompressor = zlib.decompressobj()
    raw = decompressor.decompress(data, _LARGEST_CURVE)
    if not decompressor.eof:
        raise ValueError(f"a curve is cut off, or has more than {_LARGEST_CURVE} bytes")
    start = raw.index(b"\n") + 1
    curve: dict[str, list[Any]] = {}
    for name, kind, size in json.loads(raw[: start - 1]):
        curve[name] = _decode(kind, raw[start : start + size])
        start += size
    return curve


def storable(text: str) -> str:
    """Return a text without what a database's text cannot contain, such as an exception's may: NUL, half a surrogate pair."""
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode("utf-8")


def finite(value: Any) -> Any:
    """Return the value with None in place of every float in it that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: finite(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    return value


def _encode(column: list[Any]) -> tuple[str, bytes]:
    kinds = {type(value) for value in column}
    if kinds == {int} and max(map(abs, column)) < _LARGEST_DELTA:
        return "i8", _split_bytes(np.diff(np.array(column, dtype="<i8"), prepend=0))
    if float in kinds and kinds <= {float, type(None)}:
        wide = np.array([math.nan if value is None else value for value in column], dtype="<f8")
        with np.errstate(over="ignore", invalid="ignore"):
            narrow = wide.astype("<f4")
        if np.array_equal(narrow.astype("<f8"), wide, equal_nan=True):
            return "f4", _split_bytes(narrow)
        return "f8", _split_bytes(wide)
    return "json", json.dumps(finite(column), allow_nan=False).encode()


def _decode(kind: str, body: bytes) -> list[Any]:
    if kind == "json":
        return list(json.loads(body))
    if kind not in ("i8", "f4", "f8"):
        raise ValueError(f"a column is of kind {kind!r}")
    size = int(kind[1])
    values = np.frombuffer(body, dtype=np.uint8).reshape(size, -1).T.copy().view("<" + kind).ravel()
    if kind == "i8":
        return list(np.cumsum(values).tolist())
    column = values.astype("<f8").tolist()
    if np.isfinite(values).all():
        return list(column)
    return [value if math.isfinite(value) else None for value in column]


def _split_bytes(values: np.ndarray[Any, Any]) -> bytes:
    """Return all first bytes, then all second bytes, and so on: similar signs and exponents become neighbours."""
    return values.view(np.uint8).reshape(len(values), -1).T.tobytes()
