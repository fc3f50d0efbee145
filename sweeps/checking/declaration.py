"""The definition under check, and the rules that read it without running it: declaration, documentation, forbidden calls.

Forbidden calls are read from the source, so that branches which no run reaches are checked too.
"""

from __future__ import annotations

import ast
import dataclasses
import re
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

from arith_models.base import Network, Unit
from sweeps.checking.source import Fault, Location, Sources
from sweeps.config import registry
from tasks.base import Task

TORCH_DRAWS = {
    f"torch.{name}"
    for name in ("rand", "rand_like", "randn", "randn_like", "randint", "randint_like", "randperm", "normal",
                 "bernoulli", "multinomial", "poisson", "dropout")
}  # fmt: skip
INIT_DRAWS = {
    "uniform_", "normal_", "trunc_normal_", "xavier_uniform_", "xavier_normal_", "kaiming_uniform_",
    "kaiming_normal_", "orthogonal_", "sparse_",
}  # fmt: skip
TENSOR_DRAWS = {
    "normal_", "uniform_", "bernoulli_", "random_", "exponential_", "cauchy_", "log_normal_", "geometric_",
}  # fmt: skip
SEEDED = {"RandomState", "default_rng", "Generator", "PCG64", "Philox", "SeedSequence", "Random"}
OUTPUTS = {"print", "input", "open", "breakpoint", "warnings.warn"}


@dataclass(frozen=True)
class Variant:
    """A `Config`, and how it differs from the defaults ("" for these)."""

    label: str
    config: Any


class Subject:
    """A definition under check, with what every rule needs of it."""

    kind: ClassVar[registry.Kind]
    documentation: ClassVar[tuple[tuple[str, str, str], ...]]
    """(pattern, what it finds, what to write) of everything that a docstring must contain."""
    instead_of_random: ClassVar[str]
    """What to do in place of a draw from a global generator."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.cls: type[Unit] | type[Network] | type[Task] = registry.find(self.kind, name)
        self.shipped = name in registry.names(self.kind)
        self.sources = Sources(self.cls)

    @cached_property
    def variants(self) -> list[Variant]:
        """The default settings, and one variant for every value of a setting that has few."""
        return variants(self.cls)


def _forbidden_calls(sources: Sources, what: Literal["random", "output"]) -> Iterator[tuple[Location, str]]:
    """Yield line and name of every such call in the classes of the definition and the functions that they call."""
    for file, tree in sources.trees.items():
        modules = _modules(tree)
        for call in _calls(tree):
            name = _full_name(call.func, modules)
            if (what == "random" and _is_draw(call, name)) or (what == "output" and _is_output(name, tree)):
                yield Location(file, call.lineno), f"{ast.unparse(call.func)}()"


def _calls(tree: ast.Module) -> Iterator[ast.Call]:
    """Yield the calls inside classes, and inside the module's functions that these reach."""
    functions = {n.name: n for n in tree.body if isinstance(n, ast.FunctionDef)}
    reached: list[ast.AST] = [n for n in tree.body if isinstance(n, ast.ClassDef)]
    seen: set[str] = set()
    for node in reached:  # grows while it is walked
        for part in ast.walk(node):
            if isinstance(part, ast.Call):
                yield part
            if isinstance(part, ast.Name) and part.id in functions and part.id not in seen:
                seen.add(part.id)
                reached.append(functions[part.id])


def _modules(tree: ast.Module) -> dict[str, str]:
    """Return local name -> full name of everything that is imported."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {a.asname or a.name.split(".")[0]: a.name if a.asname else a.name.split(".")[0] for a in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    return found


def _full_name(function: ast.expr, modules: dict[str, str]) -> str:
    """Return numpy.random.rand for `np.random.rand`; ".NAME" for a method of an object that is not a module."""
    parts: list[str] = []
    while isinstance(function, ast.Attribute):
        parts.append(function.attr)
        function = function.value
    if not isinstance(function, ast.Name):
        return "." + parts[0] if parts else ""
    root = modules.get(function.id)
    if root is None:
        return ".".join([function.id, *reversed(parts)]) if not parts else "." + parts[0]
    return ".".join([root, *reversed(parts)])


def _is_draw(call: ast.Call, name: str) -> bool:
    module, _, last = name.rpartition(".")
    if name in TORCH_DRAWS or (module == "torch.nn.init" and last in INIT_DRAWS):
        return True
    if name.startswith("torch.nn") and ("dropout" in last.lower()):
        return True
    if not module and name.startswith("."):
        return last in TENSOR_DRAWS
    if module in ("numpy.random", "random"):
        return last not in SEEDED or not (call.args or call.keywords)
    return False


def _is_output(name: str, tree: ast.Module) -> bool:
    if name in OUTPUTS or name.startswith("logging."):
        return True
    return name.rpartition(".")[2] in {"debug", "info", "warning", "error", "exception", "critical"} and any(
        isinstance(n, ast.Call) and ast.unparse(n.func).endswith("getLogger") for n in ast.walk(tree)
    )


def variants(cls: type[Unit] | type[Network] | type[Task]) -> list[Variant]:
    """Return the default Config, and one for every value of a setting that has few; combinations it refuses are left out."""
    found = [Variant("", cls.Config())]
    hints, small = get_type_hints(cls.Config), dict(cls.small)
    usual = cls.Config(**small)
    for field in dataclasses.fields(cls.Config):
        for choice in _choices(hints[field.name]):
            try:
                config = cls.Config(**{**small, field.name: choice})
            except ValueError:
                continue
            if config not in (found[0].config, usual):
                found.append(Variant(f" with {field.name}: {choice}", config))
    return found


def _choices(hint: Any) -> Iterator[Any]:
    """Yield the values of a setting that has few, by its type."""
    if hint is bool:
        yield from (False, True)
    elif get_origin(hint) is Literal:
        yield from get_args(hint)
    elif get_origin(hint) in (Union, types.UnionType):
        for part in get_args(hint):
            yield from [None] if part is type(None) else _choices(part)


def declares(subject: Subject) -> Iterator[Fault]:
    """`version` is an int; `Config` is a frozen, keyword-only dataclass whose fields have defaults."""
    cls, sources = subject.cls, subject.sources
    if not isinstance(cls.version, int) or isinstance(cls.version, bool) or cls.version < 1:
        yield Fault(
            f"version = {cls.version!r}",
            "make it a whole number from 1; raise it when the numbers change",
            sources.of_class_attribute("version"),
        )
    here = sources.of_method("Config")
    config: Any = cls.Config
    if "__dataclass_params__" not in vars(config):
        yield Fault("Config is no dataclass", "write @dataclass(frozen=True, kw_only=True) above it", here)
        return
    if not config.__dataclass_params__.frozen:
        yield Fault("Config is not frozen", "write @dataclass(frozen=True, kw_only=True): settings never change", here)
    if any(not f.kw_only for f in dataclasses.fields(config)):
        yield Fault("Config's fields are not keyword-only", "write @dataclass(frozen=True, kw_only=True)", here)
    yield from _fields(subject, here)


def _fields(subject: Subject, here: Location) -> Iterator[Fault]:
    docs = {doc.name: doc for doc in registry.field_docs(subject.cls.Config)}
    for field in dataclasses.fields(subject.cls.Config):
        doc = docs.get(field.name)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            location = Location(doc.file, doc.line) if doc else here
            yield Fault(f"setting {field.name} has no default", "give it the published value", location)


def _unexplained(subject: Subject) -> Iterator[Fault]:
    """Yield a fault for each setting without a line of text under it."""
    if not dataclasses.is_dataclass(subject.cls.Config):
        return  # `declares` reports it
    docs = {doc.name: doc for doc in registry.field_docs(subject.cls.Config)}
    for field in dataclasses.fields(subject.cls.Config):
        doc = docs.get(field.name)
        if doc is None or not doc.text:
            location = Location(doc.file, doc.line) if doc else subject.sources.of_method("Config")
            do = 'write a line of text, """...""", under it: `sweeps show` prints it'
            yield Fault(f"setting {field.name} has no explanation", do, location, warning=subject.kind == "task")


def documented(subject: Subject) -> Iterator[Fault]:
    """Every setting is explained, and a docstring has equation, shapes and source; a missing one is a warning to users."""
    yield from _unexplained(subject)
    cls = subject.cls
    module = sys.modules[cls.__module__].__doc__ or ""
    location = subject.sources.of_class()
    if not (cls.__doc__ or "").strip():
        yield Fault(
            f"class {cls.__name__} has no docstring",
            "write one that states what it computes; `sweeps show` prints it",
            location,
        )
        return
    text = f"{module} {cls.__doc__}"
    own = not subject.shipped
    if not module.strip():
        do, top = "write one that states what it defines, with its source", Location(subject.sources.own, 1)
        yield Fault("the file has no docstring", do, top, warning=own)
    for pattern, what, do in subject.documentation:
        if not re.search(pattern, text):
            yield Fault(f"the docstring has no {what}", do, location, warning=own or subject.kind == "task")


def draws_nothing_global(subject: Subject) -> Iterator[Fault]:
    """The source calls no global generator, in branches that the default settings do not take either."""
    for location, call in _forbidden_calls(subject.sources, "random"):
        yield Fault(f"{call} draws from a generator that all lanes share", subject.instead_of_random, location)


def outputs_nothing(subject: Subject) -> Iterator[Fault]:
    """The source calls nothing that prints, logs, warns, reads or opens."""
    for location, call in _forbidden_calls(subject.sources, "output"):
        yield Fault(f"calls {call}", SILENCE, location)


SILENCE = (
    "remove it: the engine records the code once and replays only its tensor operations; to report a value, return it with "
    "the penalties"
)
