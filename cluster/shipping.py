"""What travels to a cluster with a sweep: its file, the user's own units and tasks that it names, and our own code.

Our code goes along, so that a cluster needs the libraries only and what runs there is what was checked here. Data do not.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.errors import ClusterRefusal

OURS = ("arith_models", "cluster", "sweeps", "tasks")
KINDS_OF_FILE = (".py", ".yaml", ".txt")
LEFT_OUT = ("__pycache__", "node_modules", "results", "mlruns")  # and whatever begins with a dot
ORDER = "order.json"


@dataclass(frozen=True)
class Parcel:
    """A folder that is ready to be sent."""

    folder: Path
    digest: str
    """sha256 of all that is in it."""
    num_bytes: int


def limit_bytes() -> int:
    """What Ray takes at most as a working folder."""
    return int(os.environ.get("RAY_max_grpc_message_size", 512 * 1024**2))  # noqa: SIM112, Ray's own name


@contextmanager
def parcel(order: Mapping[str, Any], text: str | None = None, document: Any = None) -> Iterator[Parcel]:
    """A working folder: order.json, the sweep file as `<name>.yaml`, what it names, our code.

    Raises ClusterRefusal for files that cannot travel, and for more than Ray takes.
    """
    with tempfile.TemporaryDirectory(prefix="sweeps-parcel-") as made:
        files = own_files(document, Path.cwd()) | _our_files()
        num_bytes = sum(path.stat().st_size for path in files.values())
        if num_bytes > limit_bytes():
            raise ClusterRefusal(_too_large(files, num_bytes))
        folder = Path(made)
        for name, path in files.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        (folder / ORDER).write_text(json.dumps(order, sort_keys=True), encoding="utf-8")
        if text is not None:
            (folder / f"{order['name']}.yaml").write_text(text, encoding="utf-8")
        yield Parcel(folder, _digest(folder), num_bytes)


def own_files(document: Any, home: Path) -> dict[str, Path]:
    """The user's files that a sweep names (`./my_unit.py`, `my_pkg.units:Mine`), by their path in the parcel."""
    found: dict[str, Path] = {}
    for word in _words(document):
        if word.endswith(".py"):
            found |= _file(word, home)
        elif word.count(":") == 1 and all(part.isidentifier() for part in word.replace(":", ".").split(".")):
            found |= _package(word.partition(":")[0].partition(".")[0], home)
    return found


def _words(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _words(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _words(item)


def _file(word: str, home: Path) -> dict[str, Path]:
    path = home / word
    if not path.is_file():
        return {}  # not a file's name; a model of that name was refused when the sweep file was read
    inside = Path(os.path.normpath(word))
    if inside.is_absolute() or inside.parts[0] == "..":
        raise ClusterRefusal(
            f"{word} lies outside the folder that the sweep is submitted from, and would not be found on the cluster: "
            f"copy it here and write ./{path.name}, or submit from a folder above it"
        )
    return {inside.as_posix(): path}


def _package(name: str, home: Path) -> dict[str, Path]:
    """A package of the user's that lies here; one that is installed must be installed on the cluster too."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None or name in OURS:
        return {}
    origin = Path(spec.origin).resolve()
    home = home.resolve()
    if not origin.is_relative_to(home) or "site-packages" in origin.parts:
        return {}
    if origin.name != "__init__.py":
        return {origin.relative_to(home).as_posix(): origin}
    return {path.relative_to(home).as_posix(): path for path in _tree(origin.parent)}


def _tree(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in LEFT_OUT and not name.startswith(".")]
        yield from (
            Path(place) / name for name in files if not name.endswith(".pyc") and not name.startswith(".")
        )


def _our_files() -> dict[str, Path]:
    root = Path(__file__).resolve().parent.parent
    trees = (path for name in OURS for path in _tree(root / name))
    return {path.relative_to(root).as_posix(): path for path in trees if path.suffix in KINDS_OF_FILE}


def _digest(folder: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        for part in (path.relative_to(folder).as_posix().encode(), path.read_bytes()):
            total.update(len(part).to_bytes(8, "big") + part)
    return total.hexdigest()


def _too_large(files: Mapping[str, Path], num_bytes: int) -> str:
    largest = sorted(files, key=lambda name: -files[name].stat().st_size)[:3]
    listed = ", ".join(f"{name} ({files[name].stat().st_size / 1024**2:.1f} MiB)" for name in largest)
    return (
        f"what the sweep needs is {num_bytes / 1024**2:.1f} MiB, and Ray takes {limit_bytes() / 1024**2:.1f} MiB at most. "
        f"Largest: {listed}. Keep data out of the packages that the sweep names"
    )
