"""Finds models, networks and tasks by name. A file's existence is its registration; a broken file fails with its name.

A name is a file's stem, or a user's own class: `./my_unit.py` or `my_pkg.units:Mine`.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import hashlib
import importlib
import importlib.util
import inspect
import linecache
import pkgutil
import sys
import textwrap
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_origin, get_type_hints

from sweeps.errors import UserError

Kind = Literal["model", "network", "task"]
PACKAGES: dict[str, str] = {
    "model": "arith_models.units",
    "network": "arith_models.networks",
    "task": "tasks",
}


class UnknownName(UserError):
    """No definition of that name; the message offers the nearest one and says how to add one."""


class BrokenDefinition(UserError):
    """A definition's file cannot be used; the message names the file and the fault, and `line` where it is, if known."""

    def __init__(self, message: str, file: str | None = None, line: int | None = None) -> None:
        super().__init__(message)
        self.file, self.line = file, line


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known name that looks most like the word, if any does."""
    given = word.lower()

    def likeness(name: str) -> float:
        swapped = sorted(given) == sorted(name.lower())  # letters in another order: the likeliest slip
        return difflib.SequenceMatcher(None, given, name.lower()).ratio() + 0.1 * swapped

    best = max(known, key=likeness, default=None)
    return best if best is not None and likeness(best) >= 0.6 else None


@lru_cache
def names(kind: Kind) -> list[str]:
    """Every definition that ships with us, sorted."""
    return sorted(_modules(kind))


@lru_cache
def _modules(kind: Kind) -> dict[str, str]:
    """The module of every name: a file's stem, or, where the file has a mapping UNITS, each of its keys."""
    package = importlib.import_module(PACKAGES[kind])
    found: dict[str, str] = {}
    for m in pkgutil.iter_modules(package.__path__):
        if not m.name.startswith("_") and m.name != "base":
            module = f"{PACKAGES[kind]}.{m.name}"
            found |= dict.fromkeys(vars(_import(module)).get("UNITS", [m.name]), module)
    return found


@lru_cache
def whole_networks() -> list[str]:
    """Networks that arrange no units: each is a model of its own name."""
    return [name for name in names("network") if find("network", name).num_units == 0]


def models() -> list[str]:
    """What `model:` may name, of what ships with us: units and whole networks, sorted."""
    return sorted([*names("model"), *whole_networks()])


@lru_cache
def find(kind: Kind, name: str) -> type[Any]:
    """The class that a name stands for.

    Raises UnknownName, or BrokenDefinition where a file exists but cannot be imported or defines no such class.
    """
    if name.endswith(".py"):
        return _the_class(_import_file(Path(name)), kind)
    if ":" in name:
        module_name, _, attribute = name.partition(":")
        module = _import(module_name)
        if not hasattr(module, attribute):
            near = nearest(
                attribute, [known for known, value in vars(module).items() if inspect.isclass(value)]
            )
            raise UnknownName(
                f"{module_name} has no class {attribute!r}" + (f". Did you mean {near!r}?" if near else "")
            )
        return _checked(getattr(module, attribute), kind, name)
    if name not in names(kind):
        raise UnknownName(_unknown(kind, name))
    module = _import(_modules(kind)[name])
    if name in vars(module).get("UNITS", {}):
        return _checked(module.UNITS[name], kind, name)
    return _the_class(module, kind)


def _unknown(kind: Kind, name: str) -> str:
    known = models() if kind == "model" else names(kind)
    if name in known:
        return f"{name} is a network of its own, and no unit that a network arranges: write `model: {name}`"
    near = nearest(name, known)
    folder = PACKAGES[kind].replace(".", "/")
    return (
        f"no {kind} named {name!r}."
        + (f" Did you mean {near!r}?" if near else "")
        + f" {len(known)} are known: {', '.join(known)}."
        + f" Add one as {folder}/{name.split('/')[-1]}.py, or name your own file as ./my_{kind}.py"
    )


def identity(kind: Kind, name: str) -> int | str:
    """What tells a definition's numbers from those of another of the same name: its version.

    A user's own file has its source's hash besides: nobody raises the version of a file that is still being written.
    """
    version: int = find(kind, name).version
    return version if name in names(kind) else f"{version} {source_hash(kind, name)}"


def example_task(unit: str) -> str:
    """A task that a model of this name can learn: a recurrent cell needs a sequence, a network on symbols an algorithm."""
    if unit in whole_networks():
        return "algorithm"
    return "recurrent" if find("model", unit).is_cell else "static"


def source_hash(kind: Kind, name: str) -> str:
    """sha256 of the file that defines a name, for the record's provenance."""
    return hashlib.sha256(Path(inspect.getfile(find(kind, name))).read_bytes()).hexdigest()[:16]


def _import(module_name: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except Exception as error:  # whatever a user's module raises becomes one line with its name
        absent = isinstance(error, ModuleNotFoundError) and module_name.startswith(error.name or module_name)
        do = ". Install its package in this environment, or name the file: ./my_unit.py" if absent else ""
        raise BrokenDefinition(
            f"{module_name} cannot be imported: {type(error).__name__}: {error}{do}"
        ) from error


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        near = nearest(path.name, [other.name for other in path.parent.glob("*.py")])
        folder = "./" if path.parent == Path() else f"{path.parent}/"
        guess = f". Did you mean {folder}{near}?" if near else ""
        raise UnknownName(f"no file {path} (looked in {Path.cwd()}){guess}")
    place = hashlib.sha256(bytes(path.resolve().parent)).hexdigest()[:8]
    spec = importlib.util.spec_from_file_location(f"_user_{place}_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise BrokenDefinition(f"{path} cannot be imported as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module  # dataclasses and annotations look their module up there
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # as above
        del sys.modules[module.__name__]
        file, line, message = _fault_of_import(error, path)
        where = f"{file} (line {line})" if line else f"{file}"
        text = linecache.getline(str(file.resolve()), line).strip() if line else ""
        raise BrokenDefinition(
            f"{where}: {type(error).__name__}: {message}" + (f": `{text}`" if text else ""), str(file), line
        ) from error
    return module


def _fault_of_import(error: Exception, path: Path) -> tuple[Path, int | None, str]:
    """The file and line that are to blame: where the syntax is wrong, or what line of the user's file raised."""
    linecache.checkcache()
    if isinstance(error, SyntaxError) and error.filename:
        return _as_given(error.filename, path), error.lineno, error.msg
    lines = [
        f.lineno for f in traceback.extract_tb(error.__traceback__) if _as_given(f.filename, path) == path
    ]
    return path, lines[-1] if lines else None, str(error)


def _as_given(file: str, path: Path) -> Path:
    return path if Path(file).resolve() == path.resolve() else Path(file)


NEEDED: dict[str, tuple[str, ...]] = {
    "model": ("initialise", "forward", "effective_weight", "constrain"),
    "network": ("initialise", "forward", "effective_weights", "constrain", "num_units"),
    "task": (
        "instance", "sample", "evaluation_inputs", "truth", "loss", "threshold", "network", "splits",
    ),
}  # fmt: skip
"""What a class must have besides `version` and `Config`."""


def _the_class(module: ModuleType, kind: Kind) -> type[Any]:
    """The one class with a `Config` that the module itself defines."""
    classes = [c for c in vars(module).values() if inspect.isclass(c) and c.__module__ == module.__name__]
    own = [c for c in classes if hasattr(c, "Config") and hasattr(c, "version")]
    if not own:  # a class that is nearly one is told what it lacks
        own = [c for c in classes if hasattr(c, NEEDED[kind][0]) and hasattr(c, NEEDED[kind][1])]
    if len(own) != 1:
        file = str(module.__file__)
        raise BrokenDefinition(
            f"{file} must define exactly one {kind} class with `version` and `Config`, but defines {len(own)}",
            file,
            inspect.getsourcelines(own[1])[1] if own else None,
        )
    return _checked(own[0], kind, str(module.__file__))


def _checked(found: Any, kind: Kind, name: str) -> type[Any]:
    missing = [m for m in ("version", "Config", *NEEDED[kind]) if not hasattr(found, m)]
    if not inspect.isclass(found) or missing:
        lines = inspect.getsourcelines(found)[1] if inspect.isclass(found) else None
        raise BrokenDefinition(
            f"{name} is not a {kind}: it lacks {', '.join(missing) or 'a class'}",
            inspect.getsourcefile(found) if inspect.isclass(found) else None,
            lines,
        )
    return found


@dataclass(frozen=True)
class FieldDoc:
    """A field as it is written (`hidden: int = 2`), the text under it ("" without one), and where."""

    name: str
    written: str
    text: str
    file: str
    line: int


def field_docs(config: type[Any]) -> list[FieldDoc]:
    """The fields in the order of the dataclass, each from the class that has the last word on it."""
    found: dict[str, FieldDoc] = {}
    for cls in reversed(config.__mro__):
        if dataclasses.is_dataclass(cls):
            found |= {doc.name: doc for doc in _of_class(cls)}
    return [found[f.name] for f in dataclasses.fields(config) if f.name in found]


def settings_lines(config: type[Any]) -> list[str]:
    """For people: every field with its default, and its explanation under it."""
    hints = get_type_hints(config)
    lines = []
    for doc in field_docs(config):
        written = doc.written
        if (
            get_origin(hints[doc.name]) is Literal and " = " in written
        ):  # the choices, also where they have a name
            choices = str(hints[doc.name]).replace("typing.", "")
            written = f"{doc.name}: {choices}{written[written.index(' = ') :]}"
        lines += [written, *textwrap.indent(doc.text, "    ").splitlines()]
    return ["settings:", *lines] if lines else ["no settings"]


def _of_class(cls: type[Any]) -> Iterator[FieldDoc]:
    lines, first = inspect.getsourcelines(cls)
    source = textwrap.dedent("".join(lines))
    body = ast.parse(source).body[0]
    statements = body.body if isinstance(body, ast.ClassDef) else []
    for i, item in enumerate(statements):
        if not isinstance(item, ast.AnnAssign) or not isinstance(item.target, ast.Name):
            continue
        after = statements[i + 1] if i + 1 < len(statements) else None
        text = ""
        if (
            isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
            and isinstance(after.value.value, str)
        ):
            text = inspect.cleandoc(after.value.value)
        file = inspect.getsourcefile(cls) or ""
        yield FieldDoc(item.target.id, ast.unparse(item), text, file, first + item.lineno - 1)
