"""Digests of source code: of what trains a lane, without comments and docstrings, which change no number."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

INSTALLED = ("site-packages", "dist-packages")
"""Names of folders of installed packages."""
LENGTH = 16
"""Hexadecimal digits of a digest."""
_UNREADABLE = (SyntaxError, ValueError, RecursionError, MemoryError)
"""What `ast` raises for a file that is not Python of this version, is not text, or is nested too deeply."""


def digest(files: Mapping[str, Path]) -> str:
    """Return one digest of the code of several files, by the name of each, in any order."""
    parts = [f"{name} {_of_file(path, *_stamp(path))}" for name, path in sorted(files.items())]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:LENGTH]


def imported_files(name: str, file: Path, places: Mapping[str, Sequence[Path]]) -> dict[str, Path]:
    """Return a module's file and those of the modules that it imports, also in functions, by the modules' names.

    Nothing is imported: the names are those of import statements, and of calls of `import_module` with a constant. `places`
    has the folders in which modules are looked for, in this order, by the name of a top-level package, or under "" for every
    other name; what is in none of them is left out.
    """
    found: dict[str, Path] = {}
    queue = [(name, file)]
    while queue:
        name, path = queue.pop()
        if name in found:
            continue
        found[name] = path
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        for other in _imported_names(path, package):
            for place in places.get(other.partition(".")[0], places.get("", ())):
                if (there := _file_of(other, place)) is not None:
                    queue.append((other, there))
                    break
    return found


def own_places() -> list[Path]:
    """Return the folders on Python's path that have the user's own modules: neither Python's, nor installed ones, nor ours."""
    installed = Path(__file__).resolve().parents[2]
    python = [Path(path).resolve() for path in {sys.prefix, sys.base_prefix, sysconfig.get_path("stdlib")}]
    found = []
    for entry in map(Path, dict.fromkeys(sys.path)):
        place = entry.absolute()
        real = place.resolve()
        if place.name in INSTALLED or real == installed or not place.is_dir():
            continue
        if not any(real.is_relative_to(one / "lib") or real == one / "bin" for one in python):
            found.append(place)
    return found


def _file_of(name: str, place: Path) -> Path | None:
    path = place.joinpath(*name.split("."))
    return next((file for file in (path / "__init__.py", path.with_suffix(".py")) if file.is_file()), None)


def _imported_names(path: Path, package: str) -> Iterator[str]:
    """Yield every name that a file imports, which may be a module or something in one, and the packages around it."""
    try:
        nodes = list(ast.walk(ast.parse(path.read_bytes())))
    except _UNREADABLE:
        return
    for node in nodes:
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.Call) and len(node.args) == 1 and isinstance(node.args[0], ast.Constant):
            called = ast.unparse(node.func)
            if called.rpartition(".")[2] in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                names = [node.args[0].value]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                try:
                    base = importlib.util.resolve_name("." * node.level + base, package)
                except ImportError:  # above the top-level package: an import that was never run
                    continue
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        for name in names:
            parts = name.split(".")
            yield from (".".join(parts[: i + 1]) for i in range(len(parts)))


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_mtime_ns, found.st_size


@lru_cache(maxsize=1024)
def _of_file(path: Path, mtime_ns: int, size: int) -> str:
    content = path.read_bytes()
    with suppress(*_UNREADABLE):  # then it is the file as it is
        words: list[str] = []
        _add_plain(ast.parse(content), words)
        content = "".join(words).encode("utf-8", "surrogatepass")
    return hashlib.sha256(content).hexdigest()


def _add_plain(node: ast.AST, words: list[str]) -> None:
    """Append the syntax tree as text: no positions, and no texts that are statements, which are documentation.

    Not `ast.dump`, whose output changes from one version of Python to the next where fields are added.
    """
    words.append(f"({type(node).__name__}")
    for name, value in ast.iter_fields(node):
        if value is None or value == [] or name in ("type_comment", "kind"):
            continue
        words.append(f" {name}=")
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant) and isinstance(item.value.value, str):
                continue
            if isinstance(item, ast.AST):
                _add_plain(item, words)
            else:
                words.append(f"{item!r},")
    words.append(")")
