"""Reads IDX files, the format of MNIST: a magic number, the sizes of the axes, then one byte an entry."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks._digits.errors import DataError

Bytes = NDArray[np.uint8]

UNSIGNED_BYTES = 8
"""The third byte of an IDX file; the fourth is the number of axes."""
AGAIN = "Remove it and fetch it again (task.fetch=true)"


def read_images(folder: Path, stem: str) -> Bytes:
    """[N, height, width] of `stem` or `stem`.gz in a folder. Raises DataError."""
    return read_idx(find(folder, stem), axes=3)


def read_labels(folder: Path, stem: str) -> Bytes:
    """[N], each 0 to 9. Raises DataError."""
    path = find(folder, stem)
    labels = read_idx(path, axes=1)
    if labels.size and labels.max() > 9:
        raise DataError(
            f"{path}: label {labels.max()} at place {labels.argmax()} is not a digit 0 to 9. {AGAIN}"
        )
    return labels


def find(folder: Path, stem: str) -> Path:
    """The file itself, or else its gzipped form. Raises DataError where neither exists."""
    for path in (folder / stem, folder / f"{stem}.gz"):
        if path.is_file():
            return path
    raise DataError(
        f"no {stem}.gz (nor {stem} without .gz) in {folder.resolve()}. Put MNIST's four files there, or have them "
        "fetched: task.fetch=true"
    )


def read_idx(path: Path, axes: int) -> Bytes:
    """The entries, in their shape. Raises DataError for a file that is no IDX file of so many axes, or is cut off."""
    content = _content(path)
    wanted = bytes((0, 0, UNSIGNED_BYTES, axes))
    head = 4 + 4 * axes
    if content[:4] != wanted[: len(content)]:
        what = "images" if axes == 3 else "labels"
        raise DataError(
            f"{path}: starts with {content[:4].hex()}, but an IDX file of {what} starts with {wanted.hex()}. "
            f"Is it another file, or compressed twice? {AGAIN}"
        )
    if len(content) < head:
        raise DataError(f"{path}: cut off in its head, after {len(content)} of {head} bytes. {AGAIN}")
    shape = struct.unpack(f">{axes}I", content[4:head])
    expected = head + math.prod(shape)
    if len(content) != expected:
        fault = "cut off" if len(content) < expected else "too long"
        raise DataError(
            f"{path}: {fault}: shape {shape} needs {expected} bytes, but it has {len(content)}. {AGAIN}"
        )
    return np.frombuffer(content, np.uint8, offset=head).reshape(shape)


def _content(path: Path) -> bytes:
    raw = path.read_bytes()
    if path.suffix != ".gz":
        return raw
    try:
        return gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        fault = "cut off" if isinstance(error, EOFError) else "not a gzip file, or damaged"
        raise DataError(f"{path}: {fault} ({error}), {len(raw)} bytes. {AGAIN}") from error
