"""What travels to a cluster with a sweep: its file, the user's own units and tasks that it names, and our own code.

Our code goes along, so that a cluster needs the libraries only and what runs there is what was checked here. Data do not.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.attempts import digest_of
from cluster.sweep_file import SweepFile
from sweeps.config.user_files import OURS, own_files, tree
from sweeps.errors import UserError

RAY_LIMIT = "RAY_max_grpc_message_size"
"""The variable by which Ray itself is told how much it takes at most."""
KINDS_OF_FILE = (".py", ".yaml", ".txt")
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
    return int(os.environ.get(RAY_LIMIT, 512 * 1024**2))


@contextmanager
def parcel(order: Mapping[str, Any], text: str | None = None, document: Any = None) -> Iterator[Parcel]:
    """A working folder: order.json, the sweep file as `<name>.yaml`, what it names, our code.

    Raises UserError for files that cannot travel, and for more than Ray takes.
    """
    with tempfile.TemporaryDirectory(prefix="sweeps-parcel-") as made:
        files = own_files(document, Path.cwd()) | _our_files()
        num_bytes = sum(path.stat().st_size for path in files.values())
        if num_bytes > limit_bytes():
            raise UserError(_too_large(files, num_bytes))
        folder = Path(made)
        for name, path in files.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        (folder / ORDER).write_text(json.dumps(order, sort_keys=True), encoding="utf-8")
        (folder / ORDER).chmod(
            0o600
        )  # the store's URL may have a password, and Ray unpacks files with their modes
        if text is not None:
            (folder / f"{order['name']}.yaml").write_text(text, encoding="utf-8")
        made_of = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
        digest = digest_of({name: path.read_bytes() for name, path in made_of.items()})
        yield Parcel(folder, digest, num_bytes)


def travelling(name: str, text: str, document: Any) -> SweepFile:
    """A sweep file and what it names, where our own code is in the image already. Raises OutOfReach."""
    files = {path: file.read_bytes() for path, file in sorted(own_files(document, Path.cwd()).items())}
    return SweepFile(name, text, files)


def _our_files() -> dict[str, Path]:
    root = Path(__file__).resolve().parent.parent
    trees = (path for name in OURS for path in tree(root / name))
    return {path.relative_to(root).as_posix(): path for path in trees if path.suffix in KINDS_OF_FILE}


def _too_large(files: Mapping[str, Path], num_bytes: int) -> str:
    largest = sorted(files, key=lambda name: -files[name].stat().st_size)[:3]
    listed = ", ".join(f"{name} ({files[name].stat().st_size / 1024**2:.1f} MiB)" for name in largest)
    return (
        f"what the sweep needs is {num_bytes / 1024**2:.1f} MiB, and Ray takes {limit_bytes() / 1024**2:.1f} MiB at most. "
        f"Largest: {listed}. Keep data out of the packages that the sweep names"
    )
