"""Digests of source code: of what trains a lane, without comments and docstrings, which change no number."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from pathlib import Path
from types import ModuleType

LENGTH = 16
"""Hexadecimal digits of a digest."""


def digest(files: Iterable[Path]) -> str:
    """Return one digest of several files' code. Neither their names nor their order are part of it."""
    parts = sorted({_of_file(path, *_stamp(path)) for path in files})
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:LENGTH]


def imported_files(module: ModuleType, folders: Iterable[Path]) -> set[Path]:
    """Return the file of a module, and of the modules that it imports, also in functions, as far as in these folders."""
    within = [folder.resolve() for folder in folders]
    found: set[Path] = set()
    queue = [(module.__name__, Path(module.__file__ or "").resolve())]
    while queue:
        name, path = queue.pop()
        if path in found or not path.is_file() or not any(path.is_relative_to(folder) for folder in within):
            continue
        found.add(path)
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        queue += [(n, file) for n in sorted(set(_imported_names(path, package))) if (file := _file_of(n)) is not None]
    return found


def _imported_names(path: Path, package: str) -> Iterator[str]:
    """Yield every name that a file imports, which may be a module or something in one, and the packages around it."""
    for node in ast.walk(_parsed(path)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = importlib.util.resolve_name("." * node.level + base, package)
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        for name in names:
            parts = name.split(".")
            yield from (".".join(parts[: i + 1]) for i in range(len(parts)))


@cache
def _file_of(name: str) -> Path | None:
    """Return the file of a module without importing it (its packages are imported); None where there is none."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, AttributeError, ValueError):  # something in a module, or a module without a spec
        return None
    return Path(spec.origin).resolve() if spec is not None and spec.origin and spec.has_location else None


def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_bytes())


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_mtime_ns, found.st_size


@lru_cache(maxsize=1024)
def _of_file(path: Path, mtime_ns: int, size: int) -> str:
    try:
        text = "".join(_plain(_parsed(path)))
    except SyntaxError:  # a file that cannot be imported, such as one that nothing uses
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(node: ast.AST) -> Iterator[str]:
    """Yield the syntax tree as text: no positions, and no texts that are statements, which are documentation.

    Not `ast.dump`, whose output changes from one version of Python to the next where fields are added.
    """
    yield f"({type(node).__name__}"
    for name, value in ast.iter_fields(node):
        if value is None or value == [] or name in ("type_comment", "kind"):
            continue
        yield f" {name}="
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant) and isinstance(item.value.value, str):
                continue
            if isinstance(item, ast.AST):
                yield from _plain(item)
            else:
                yield f"{item!r},"
    yield ")"
