"""The user's own units and tasks that a sweep names: files that have to be sent to workers on other machines.

An exported configuration has them in itself (`embedded`), and is reproduced with them (`embedded_code`).
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from sweeps.config import registry
from sweeps.config.source import imported_files
from sweeps.config.yaml import read
from sweeps.errors import UserError

PACKAGES = ("arith_models", "cluster", "sweeps", "tasks")
"""The packages of this project."""
_LEFT_OUT = ("__pycache__", "node_modules", "results", "mlruns")  # and names that begin with a dot


MOST_EMBEDDED_BYTES = 1_000_000
"""Of the files in one exported configuration."""


class OutOfReach(UserError):
    """A file that cannot be sent; the message contains the reason and what to do."""


def own_files(document: Any, home: Path) -> dict[str, Path]:
    """Return the user's files that a sweep names (`./my_unit.py`, `my_pkg.units:Mine`), and those that they import.

    The keys are paths below `home`, the folder that the sweep is submitted from; a package of the user's is sent as a
    whole, and of what a file imports the modules in `home`. Raises OutOfReach for a named file outside of `home`.
    """
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
        return {}  # not the name of a file; as a model it was refused when the sweep file was read
    inside = Path(os.path.normpath(word))
    if inside.is_absolute() or inside.parts[0] == "..":
        raise OutOfReach(
            f"{word} is outside the folder that the sweep is submitted from, and would not be found on the cluster: "
            f"copy it here and write ./{path.name}, or submit from a folder above it"
        )
    # Imports find modules in `home`, where the command runs, and not in the folder of the file that imports.
    modules = imported_files(path.stem, path, {**dict.fromkeys(PACKAGES, ()), "": (home,)})
    helpers = {module.relative_to(home).as_posix(): module for module in modules.values() if module != path}
    return {inside.as_posix(): path, **helpers}


def _package(name: str, home: Path) -> dict[str, Path]:
    """Return a package of the user's that is in `home`; one that is installed must be installed on the cluster too."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None or name in PACKAGES:
        return {}
    origin, home = Path(spec.origin).absolute(), home.absolute()
    if not origin.is_relative_to(home):  # one of the two was reached by a link
        origin, home = origin.resolve(), home.resolve()
    if not origin.is_relative_to(home) or "site-packages" in origin.parts:
        return {}
    if origin.name != "__init__.py":
        return {origin.relative_to(home).as_posix(): origin}
    return {path.relative_to(home).as_posix(): path for path in files_below(origin.parent)}


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder and its folders, without hidden ones, and without caches and results unless they are code."""
    for parent, folders, files in os.walk(folder):
        packages = {name for name in folders if (Path(parent) / name / "__init__.py").is_file()}
        folders[:] = [name for name in folders if (name in packages or name not in _LEFT_OUT) and not name.startswith(".")]
        yield from (Path(parent) / name for name in files if not name.endswith(".pyc") and not name.startswith("."))


# ------------------------------------------------------------------------------------------- code in exported files


def embedded(files: Mapping[str, Path]) -> dict[str, dict[str, str]]:
    """Return the text of files and its sha256, by their paths. Raises OutOfReach for what cannot be part of a YAML file."""
    found = {}
    size = 0
    for name, path in sorted(files.items()):
        content = path.read_bytes()
        size += len(content)
        if size > MOST_EMBEDDED_BYTES:
            raise OutOfReach(f"the code is larger than {MOST_EMBEDDED_BYTES / 1e6:g} MB")
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise OutOfReach(f"{name} is not UTF-8 text") from error
        found[name] = {"sha256": hashlib.sha256(content).hexdigest(), "text": text}
    return found


@contextmanager
def embedded_code(file: Path, on_code: Callable[[str], object], trusted: bool = False) -> Iterator[Path]:
    """Yield the path of an exported file, for as long as the block lasts in a folder of its own with the code that it has.

    That is the working directory then, and first on Python's path. `on_code` receives a sentence before. Without code in the
    file nothing is changed. Raises UserError where the code is not what was exported, and where it is neither `trusted` nor the
    same as the files in the working directory; it is not executed then.
    """
    sources = _embedded_in(file)
    if not sources:
        yield file
        return
    if not trusted and (unknown := [name for name, text in sources.items() if not _is_here(name, text)]):
        raise UserError(
            f"{file} has code of its own ({', '.join(unknown)}, under `exported.sources`) that the working directory lacks. "
            f"Look at it; `sweeps reproduce {shlex.quote(str(file))} --trust-code` then executes it"
        )
    before = Path.cwd()
    file = file.absolute()
    with tempfile.TemporaryDirectory(prefix="sweeps-code-") as folder:
        for name, text in sources.items():
            path = Path(folder, *PurePosixPath(name).parts)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode("utf-8"))
        on_code(f"{file.name} has the code of {', '.join(sources)}: it is executed, from a folder of its own")
        os.chdir(folder)
        sys.path.insert(0, folder)
        importlib.invalidate_caches()
        registry.clear_cache()
        try:
            yield file
        finally:
            sys.path.remove(folder)
            os.chdir(before)
            registry.clear_cache()


def _is_here(name: str, text: str) -> bool:
    """Return whether the working directory has a file of that name and text, which a sweep file may execute anyway."""
    try:
        return Path(name).read_bytes() == text.encode("utf-8")
    except OSError:
        return False


def _embedded_in(file: Path) -> dict[str, str]:
    """Return the code of an exported file by path. Raises UserError where it was edited."""
    try:
        document = read(file.read_text(encoding="utf-8-sig")).values
    except (OSError, UnicodeDecodeError):
        return {}  # reading it as a sweep file reports that
    exported = document.get("exported") if isinstance(document, Mapping) else None
    sources = exported.get("sources") if isinstance(exported, Mapping) else None
    if sources is None:
        return {}
    found: dict[str, str] = {}
    paths = [PurePosixPath(name) for name in sources if isinstance(name, str)] if isinstance(sources, Mapping) else []
    folders = {parent for path in paths for parent in path.parents}
    for name, source in sources.items() if isinstance(sources, Mapping) else [("", None)]:
        text, stated = (source.get("text"), source.get("sha256")) if isinstance(source, Mapping) else (None, None)
        sound = isinstance(name, str) and _is_file_below(name) and PurePosixPath(name) not in folders
        if not (sound and isinstance(text, str) and isinstance(stated, str) and _is_utf8(text)):
            raise UserError(
                f"{file}: `exported.sources` must be a mapping of paths below its folder to `sha256` and `text`, as `sweeps "
                "export` writes it"
            )
        if (digest := hashlib.sha256(text.encode("utf-8")).hexdigest()) != stated:
            raise UserError(
                f"{file}: the code of {name} is not what was exported: its sha256 is {digest[:16]}..., and the file has "
                f"{stated[:16]}... Export it again, or take `sources` out and put {name} into the working directory: then "
                "it is that file that trains"
            )
        found[name] = text
    return found


def _is_file_below(name: str) -> bool:
    """Return whether it is a path below a folder, that a file system can have."""
    parts = PurePosixPath(name).parts
    inside = bool(parts) and parts[0] != "/" and not {"..", "."} & set(parts) and not set(name) & set("\\:\0")
    return inside and _is_utf8(name) and len(name) <= 1000 and all(len(part.encode()) <= 255 for part in parts)


def _is_utf8(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text)
