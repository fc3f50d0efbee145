"""The registry: models, networks and tasks by name, with the classes that they name.

A file of `arith_models/units/`, `arith_models/networks/` or `tasks/` is registered by existing. It defines exactly one
public subclass of `Unit`, `Network` or `Task`, whose name is the file's stem, or it lists several in a module-level
dictionary `UNITS`, `NETWORKS` or `TASKS` (name -> class). `base.py` and files whose name begins with an underscore define
nothing. A user's own class is named by its file, `./my_unit.py`, or by its module, `my_pkg.units:Mine`.
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
import re
import sys
import textwrap
import tokenize
import traceback
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, get_origin, get_type_hints, overload

from sweeps.config.source import INSTALLED, digest, imported_files, own_places
from sweeps.errors import UserError

if TYPE_CHECKING:  # torch takes seconds to import, and many modules need `nearest` alone
    from arith_models.base import Network, Unit
    from tasks.base import Task

SHIPPED = ("arith_models", "tasks")
"""Packages of this project that define models and tasks."""
Kind = Literal["model", "network", "task"]
"""`model` is the kind of a unit: most models are one unit, which a network arranges."""


@dataclass(frozen=True)
class _Source:
    """Where the definitions of a kind are."""

    package: str
    module: str
    """of the base class"""
    base: str
    """name of the base class"""
    listing: str
    """name of the dictionary by which one file defines several"""


SOURCES: dict[Kind, _Source] = {
    "model": _Source("arith_models.units", "arith_models.base", "Unit", "UNITS"),
    "network": _Source("arith_models.networks", "arith_models.base", "Network", "NETWORKS"),
    "task": _Source("tasks", "tasks.base", "Task", "TASKS"),
}


class UnknownName(UserError):
    """No definition of that name; the message contains the nearest one, and how to add one."""


class BrokenDefinition(UserError):
    """A definition's file cannot be used; the message names the file and the fault, and `line` where it is, if known."""

    def __init__(self, message: str, file: str | None = None, line: int | None = None) -> None:
        super().__init__(message)
        self.file, self.line = file, line


MOST_NAMES = 6
"""A message lists as many definitions, and of a longer list those that look like the name given."""

_SYNONYMS_OF = {
    "train.lr": "learning_rate lr_rate rate",
    "train.batch": "batch_size batchsize minibatch bs",
    "train.steps": "epochs num_epochs max_epochs iterations max_iterations iters max_steps num_steps total_steps",
    "train.optimizer": "optimiser optim opt",
    "train.beta1": "beta_1 betas", "train.beta2": "beta_2", "train.epsilon": "eps", "train.momentum": "momentum",
    "train.evaluate_every": "eval_every eval_interval eval_freq log_every",
    "train.clip_norm": "clip grad_clip max_grad_norm gradient_clip gradient_clipping", "train.clip_value": "clip_value",
    "train.gradient_noise": "grad_noise noise",
    "train.products": "precision matmul_precision tf32 bf16 amp",
    "train.lr_decay": "scheduler lr_schedule lr_scheduler",
    "train.stop": "early_stop",
    "model.dropout": "dropout_rate dropout_prob dropout_p",
    "model.hidden": "hidden_size hidden_dim num_hidden",
    "model.sparsity_penalty": "sparsity_penalty",
    "task.operation": "op",
    "task.input_size": "num_inputs n_inputs", "task.interpolation": "train_range", "task.extrapolation": "test_range",
    "task": "dataset", "name": "experiment", "question": "description notes",
    "seeds": "num_seeds n_seeds seed replicates",
    "search.configurations": "n_trials num_trials max_trials trials num_samples samples configs n_configs",
    "search.objective": "metric mode",
    "search.sampler": "method algorithm algo search_alg search.name",
    "search.space": "parameters param_space search_space hyperparameters",
    "search.parallel": "max_concurrent max_concurrent_trials n_jobs",
    "resources.cpus": "num_cpus", "resources.gpus": "num_gpus", "resources.memory_gb": "memory mem ram",
    "budget.hours": "max_hours max_time time_limit walltime",
    "budget.failures": "max_failures failure_cap max_errors errors",
    "budget.seed_steps": "max_seed_steps total_steps updates budget.steps budget.max_steps",
    "budget.cost_usd": "cost max_cost usd money price", "budget.target": "goal budget.success_rate",
    # In one section alone:
    "label": "compare.name",
    "input_size": "task.size", "success_rate": "budget.rate budget.success budget.solved",
    "seeds.first": "seeds.start seeds.from", "seeds.count": "seeds.n seeds.num seeds.number",
    "It belongs to the sampler: `sampler: {name: tpe, seed: 0}`.": "search.seed",
    "It belongs to the sampler: `sampler: {name: tpe, n_startup_trials: 10}`.": "search.n_startup_trials",
    "The time is in `hours`: half an hour is `hours: 0.5`.": "budget.minutes budget.seconds budget.time",
    "The last seed is first + count - 1: write `count`.": "seeds.end seeds.last seeds.stop",
    "The model is given by its `name`: `model: {name: nau}`.": "model.type model.kind",
    "The task is given by its `name`: `task: {name: static}`.": "task.type task.kind",
    "It is written with the objective: `objective: {success_rate: maximize}`.": "search.direction search.mode",
    "Every configuration trains to its end: none is stopped early.": "search.scheduler search.pruner pruner",
    "There is no weight decay; some models have a penalty, such as model.sparsity_penalty.": "weight_decay wd l2",
    "The number of workers follows from the cluster and from the `resources` of one worker.": "num_workers n_workers workers",
    "A worker computes on a GPU where `resources: {gpus: 1}` gives it one, and on CPUs otherwise.": "device accelerator",
}  # fmt: skip
SYNONYMS = {word: meant for meant, words in _SYNONYMS_OF.items() for word in words.split()}
"""Word of other tools, perhaps with the section that it is in -> dotted path of what it is called here, or a sentence."""


def nearest(word: str, known: Iterable[str], section: str | None = None) -> str | None:
    """Return the known name that means the same as the word, or else looks most like it, or None.

    `section` is the section of a sweep file that the word is in: in some it means something else.
    """
    given, known = word.lower(), list(known)
    meant = _meant(word, section)
    for name in (meant, meant.rpartition(".")[2]):
        if name in known:
            return name

    def likeness(name: str) -> float:
        swapped = sorted(given) == sorted(name.lower())  # letters in another order: the likeliest slip
        return difflib.SequenceMatcher(None, given, name.lower()).ratio() + 0.1 * swapped

    best = max(known, key=likeness, default=None)
    return best if best is not None and likeness(best) >= 0.6 else None


def _meant(word: str, section: str | None) -> str:
    """The dotted path or the sentence of SYNONYMS for a word, which may itself have dots; "" for none."""
    last = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", word.rpartition(".")[2]).lower().replace("-", "_")
    found = SYNONYMS.get(f"{section}.{last}") or SYNONYMS.get(last)
    return found or next((path for path in SYNONYMS.values() if path.rpartition(".")[2] == last != ""), "")


def did_you_mean(word: str, known: Iterable[str], section: str | None = None) -> str:
    """Return ` Did you mean 'lr'?` for a word in place of one of the known names, or "".

    Where the word is a key of a sweep file, `section` is the section that it is in ("" at top level): a name of another
    section is given with its path, and of what is not here the text says that.
    """
    known = list(known)
    near = nearest(word, known, section)
    if section is not None:
        outer, dot, inner = word.partition(".")
        if dot and inner and outer in known:
            keys = inner.split(".")
            return f" Write it nested: `{outer}: {': '.join('{' + key for key in keys)}: ...{'}' * len(keys)}`."
        meant = _meant(word, section)
        if meant.endswith("."):
            return f" {meant}"
        if meant and not {meant, meant.rpartition(".")[2]} & set(known) and meant.partition(".")[0] != section:
            return f" Did you mean {meant!r}{'' if '.' in meant or not section else ' at top level'}?"
    return f" Did you mean {near!r}?" if near and near != word else ""


def names(kind: Kind) -> list[str]:
    """Return the names of every definition that ships with this project, sorted."""
    return sorted(_modules(kind))


@lru_cache
def _modules(kind: Kind) -> dict[str, str]:
    """Name of every shipped definition -> the module that defines it. A file that cannot be imported has its stem."""
    source = SOURCES[kind]
    found: dict[str, str] = {}
    for file in pkgutil.iter_modules(importlib.import_module(source.package).__path__):
        if file.name.startswith("_") or file.name == "base":
            continue
        module = f"{source.package}.{file.name}"
        try:
            listed = vars(_import(module)).get(source.listing)
        except BrokenDefinition:
            listed = None  # `find` reports the file's fault where the name is used
        found |= dict.fromkeys([file.name] if listed is None else listed, module)
    return found


@lru_cache
def standalone_networks() -> list[str]:
    """Return the shipped networks that arrange no units, sorted: each is a model by its own name."""
    return [name for name in names("network") if find("network", name).num_units == 0]


def models() -> list[str]:
    """Return the shipped definitions that `model:` may name: units and standalone networks, sorted."""
    return sorted([*names("model"), *standalone_networks()])


def is_network(name: str) -> bool:
    """Return whether a model's name, which may be a user's file or class, is that of a network and not of a unit.

    Raises UnknownName and BrokenDefinition as `find` does.
    """
    if not is_reference(name):
        return name in names("network") and name not in names("model")
    return not _candidates(name, "model") and bool(_candidates(name, "network"))


@overload
def find(kind: Literal["model"], name: str) -> type[Unit]: ...
@overload
def find(kind: Literal["network"], name: str) -> type[Network]: ...
@overload
def find(kind: Literal["task"], name: str) -> type[Task]: ...
def find(kind: Kind, name: str) -> type[Any]:
    """Return the class of that name.

    Raises UnknownName, or BrokenDefinition where a file exists but cannot be imported or defines no such class.
    """
    return _find(kind, name)


def clear_cache() -> None:
    """Clear the caches of classes and names, as after an edit of a user's file."""
    for cached in (_find, _referred, _modules, _source_hash, standalone_networks):
        cached.cache_clear()


@lru_cache
def _find(kind: Kind, name: str) -> type[Any]:
    if is_reference(name):
        return _the_candidate(name, kind)
    module = _modules(kind).get(name)
    if module is None:
        raise UnknownName(_unknown(kind, name))
    listed = vars(_import(module)).get(SOURCES[kind].listing)
    if listed is None:
        return _the_candidate(module, kind)
    if not inspect.isclass(listed[name]):
        raise BrokenDefinition(f"{SOURCES[kind].listing} of {module}: {name} is no class, but {listed[name]!r}")
    return _complete(listed[name], kind, name)


def _unknown(kind: Kind, name: str) -> str:
    known = models() if kind == "model" else names(kind)
    if name in known:
        return f"{name} is a whole network, and no unit that a network arranges: write `model: {name}`"
    if kind == "model" and name in names("network"):
        return f"{name} is a network that arranges units, and no unit: write `model: {{name: nmu, network: {name}}}`"
    if name.isidentifier() and Path(f"{name}.py").is_file():
        return f"no {kind} named {name!r}, but there is a file of that name here: write ./{name}.py"
    folder = SOURCES[kind].package.replace(".", "/")
    near = difflib.get_close_matches(name.lower(), known, MOST_NAMES, cutoff=0.4)
    listed = f"Known: {', '.join(known)}."
    if len(known) > MOST_NAMES:
        listed = (f"Similar: {', '.join(near)}. " if near else "") + f"`sweeps list {kind}s` lists all {len(known)}."
    return (
        f"no {kind} named {name!r}.{did_you_mean(name, known)} {listed}"
        + f" Add one as {folder}/{name.split('/')[-1]}.py, or name your own file as ./my_{kind}.py"
    )


def version_key(kind: Kind, name: str) -> int | str:
    """Return what enters a lane's content address for a definition: its version.

    A user's own file contributes a digest of its code, and of what it imports beside it, as well: nobody raises the
    version of a file that is still being written.
    """
    version: int = _find(kind, name).version
    if name in names(kind):
        return version
    return f"{version} {_source_hash(kind, name, own_only=True)}"


def learnable_task(model: str) -> str:
    """Return the name of a task that a model can learn: its network's own, or that which fits a unit.

    A recurrent cell needs a sequence, and a network that reads symbols an algorithm.
    """
    if not is_network(model):
        return "recurrent" if find("model", model).is_cell else "static"
    network = find("network", model)
    if network.reads_symbols:
        return "algorithm"
    own = [name for name in names("task") if find("task", name).network == model]
    usual = "recurrent" if network.pieces else "static"
    return own[0] if own and usual not in own else usual


def source_hash(kind: Kind, name: str) -> str:
    """Return a digest of the code that defines a name, with what it imports of this project and of the user's own.

    It is that of the files when they were first read, as the imported code is.
    """
    return _source_hash(kind, name, own_only=False)


@lru_cache
def _source_hash(kind: Kind, name: str, own_only: bool) -> str:
    cls = _find(kind, name)
    link, module = Path(inspect.getfile(cls)).absolute(), cls.__module__
    file = link.resolve()
    shipped = dict.fromkeys(SHIPPED, (Path(__file__).resolve().parents[2],))
    if module.partition(".")[0] in SHIPPED:
        return digest(imported_files(module, file, shipped))
    if module.startswith("_user_"):  # a file of its own, whatever its folder is called
        module = file.stem
    top = module.partition(".")[0]
    depth = module.count(".") + (file.name == "__init__.py")
    above = [link.parents[depth], file.parents[depth]]
    # What is installed is no part of the user's own code, unless it is the package that the class is in.
    places: dict[str, Sequence[Path]] = {"": own_places(), top: above}
    if "." not in module:
        places[""] = [*(one for one in above if one.name not in INSTALLED), *places[""]]
    # Ours may lie beside the user's file, as on a cluster, where the key must be that of any other folder.
    ours = dict.fromkeys(SHIPPED, ()) if own_only else shipped
    return digest(imported_files(module, file, {**places, **ours}))


def is_reference(name: str) -> bool:
    """Whether a name refers to a user's own class: ./my_unit.py or my_pkg.units:Mine."""
    return name.endswith(".py") or ":" in name


@lru_cache
def _referred(name: str) -> tuple[ModuleType, tuple[type[Any], ...]]:
    """The module of a reference or of a shipped definition, and the public classes that it names."""
    if ":" in name:
        module_name, _, attribute = name.partition(":")
        if module_name.endswith(".py"):
            raise UnknownName(f"{name}: write {module_name} alone, since a file defines one class, or my_package.units:Mine")
        module = _import(module_name)
        if not hasattr(module, attribute):
            near = nearest(attribute, [known for known, value in vars(module).items() if inspect.isclass(value)])
            hint = f". Did you mean {near!r}?" if near else ""
            raise UnknownName(f"{module_name} has no class {attribute!r}{hint}")
        if not inspect.isclass(found := getattr(module, attribute)):
            raise BrokenDefinition(f"{name} is not a class")
        return module, (found,)
    module = _import_file(Path(name)) if name.endswith(".py") else _import(name)
    classes = [c for c in vars(module).values() if inspect.isclass(c) and c.__module__ == module.__name__]
    return module, tuple(dict.fromkeys(c for c in classes if not c.__name__.startswith("_")))


def _base(kind: Kind) -> type[Any]:
    source = SOURCES[kind]
    base: type[Any] = getattr(importlib.import_module(source.module), source.base)
    return base


def _candidates(name: str, kind: Kind) -> list[type[Any]]:
    """The public classes of a module that subclass the base class of a kind."""
    return [cls for cls in _referred(name)[1] if issubclass(cls, _base(kind))]


def _the_candidate(name: str, kind: Kind) -> type[Any]:
    """The one class of a kind that a module or a reference names. Raises BrokenDefinition where it cannot be used."""
    module, classes = _referred(name)
    found = _candidates(name, kind)
    if ":" in name or len(found) == 1:
        return _complete(found[0] if found else classes[0], kind, name)
    # A class that has a method of the contract, and not its base class, is most likely meant.
    likely = [cls for cls in classes if _base(kind).__abstractmethods__ & set(dir(cls))]
    if not found and likely:
        return _complete(likely[0], kind, name)
    source, file = SOURCES[kind], str(module.__file__)
    listed = f": {', '.join(c.__name__ for c in found)}. Helpers have names that begin with _" if found else ""
    raise BrokenDefinition(
        f"{file} must define exactly one {kind} class, a subclass of {source.module}.{source.base}, but defines "
        f"{len(found)}{listed}",
        file,
        inspect.getsourcelines(found[1])[1] if found else None,
    )


def _complete(cls: type[Any], kind: Kind, name: str) -> type[Any]:
    """The class itself. Raises BrokenDefinition where it is of another kind, or lacks what the contract requires."""
    source, (file, line) = SOURCES[kind], _location(cls)
    where = f"{file} (line {line}): class {cls.__name__}" if file else f"class {cls.__name__}"
    if kind == "model" and issubclass(cls, _base("network")):
        raise BrokenDefinition(
            f"{where} is a network, and no unit. A network whose num_units is 0 is a model by itself, `model: {name}`; one "
            f"that arranges units is named beside them, `model: {{name: nmu, network: {name}}}`",
            file,
            line,
        )
    if not issubclass(cls, _base(kind)):
        also = ", or arith_models.base.Network if it is a model by itself" if kind == "model" else ""
        raise BrokenDefinition(f"{where} must subclass {source.module}.{source.base}{also}", file, line)
    required = ("version", "num_units") if kind == "network" else ("version",)
    missing = [field for field in required if not hasattr(cls, field)] + sorted(cls.__abstractmethods__)
    if kind == "network" and not missing and not isinstance(cls.num_units, int):
        raise BrokenDefinition(f"{where} has num_units = {cls.num_units!r}: it must be a whole number", file, line)
    if missing:
        raise BrokenDefinition(f"{where} is not a {kind}: it lacks {', '.join(missing)}", file, line)
    return cls


def _location(cls: type[Any]) -> tuple[str | None, int | None]:
    """The file and the line of a class; None for one that is not written in Python."""
    try:
        return inspect.getsourcefile(cls), inspect.getsourcelines(cls)[1]
    except (OSError, TypeError):
        return None, None


def _import(module_name: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # a user's module may raise anything: the message is one line with its name
        absent = isinstance(error, ModuleNotFoundError) and module_name.startswith(error.name or module_name)
        remedy = ". Install its package in this environment, or name the file: ./my_unit.py" if absent else ""
        raise BrokenDefinition(f"{module_name} cannot be imported: {raised(error)}{remedy}") from error


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        near = nearest(path.name, [other.name for other in path.parent.glob("*.py")])
        folder = "./" if path.parent == Path() else f"{path.parent}/"
        guess = f". Did you mean {folder}{near}?" if near else ""
        if not guess and path.stem.isidentifier() and path.parent.is_dir():
            to = path.stem if path.parent == Path() else f"{path.stem} {path.parent}"
            guess = f". `sweeps new model {to}` writes a model to start from, `sweeps new task {to}` a task"
        raise UnknownName(f"no file {path} (looked in {Path.cwd()}){guess}")
    _check_encoding(path)
    folder_digest = hashlib.sha256(bytes(path.resolve().parent)).hexdigest()[:8]
    spec = importlib.util.spec_from_file_location(f"_user_{folder_digest}_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise BrokenDefinition(f"{path} cannot be imported as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module  # dataclasses and annotations look their module up there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # as above
        del sys.modules[module.__name__]
        file, line, message = _fault_of_import(error, path)
        where = f"{file} (line {line})" if line else f"{file}"
        text = linecache.getline(str(file.resolve()), line).strip() if line else ""
        raise BrokenDefinition(f"{where}: {message}" + (f": `{text}`" if text else ""), str(file), line) from error
    return module


def _check_encoding(path: Path) -> None:
    """Raise BrokenDefinition for a file that is not in its encoding. Python accepts that in comments, inspect does not."""
    try:
        with tokenize.open(path) as opened:
            opened.read()
    except UnicodeDecodeError as error:
        content = path.read_bytes()
        line = next((n for n, text in enumerate(content.splitlines(), 1) if not _decodes(text, error.encoding)), None)
        message = f"byte 0x{error.object[error.start]:02x} is not {error.encoding.upper()}: save the file as UTF-8"
        raise BrokenDefinition(f"{path} (line {line}): {message}", str(path), line) from error
    except (OSError, SyntaxError) as error:  # such as an encoding that Python does not have
        raise BrokenDefinition(f"{path}: {error}", str(path)) from error


def _decodes(text: bytes, encoding: str) -> bool:
    try:
        text.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def raised(error: BaseException) -> str:
    """Return what an exception of a definition's code is, on one line; SystemExit is one like any other there."""
    if isinstance(error, SystemExit):
        return f"it calls sys.exit({'' if error.code is None else repr(error.code)}), which would end the command"
    return f"{type(error).__name__}: {error}"


def _fault_of_import(error: BaseException, path: Path) -> tuple[Path, int | None, str]:
    """The file, the line and the message of an import's fault: the syntax error, or the line of the user's file that raised."""
    linecache.checkcache()
    if isinstance(error, SyntaxError) and error.filename:
        return _as_given(error.filename, path), error.lineno, f"{type(error).__name__}: {error.msg}"
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if _as_given(f.filename, path) == path]
    return path, lines[-1] if lines else None, raised(error)


def _as_given(file: str, path: Path) -> Path:
    return path if Path(file).resolve() == path.resolve() else Path(file)


@dataclass(frozen=True)
class FieldDoc:
    """A field as it is written (`hidden: int = 2`), the text under it ("" without one), and where."""

    name: str
    written: str
    text: str
    file: str
    line: int


def field_docs(config: type[Any]) -> list[FieldDoc]:
    """Return the fields in the order of the dataclass, each as the last class that declares it writes it."""
    found: dict[str, FieldDoc] = {}
    for cls in reversed(config.__mro__):
        if dataclasses.is_dataclass(cls):
            found |= {doc.name: doc for doc in _declared_fields(cls)}
    return [found[f.name] for f in dataclasses.fields(config) if f.name in found]


def settings_lines(config: type[Any]) -> list[str]:
    """Return lines for display: every field with its default, and its explanation under it."""
    hints = get_type_hints(config)
    lines = []
    for doc in field_docs(config):
        written = doc.written
        if get_origin(hints[doc.name]) is Literal and " = " in written:  # the choices, also where they have a name
            choices = str(hints[doc.name]).replace("typing.", "")
            written = f"{doc.name}: {choices}{written[written.index(' = ') :]}"
        lines += [written, *textwrap.indent(doc.text, "    ").splitlines()]
    return ["settings:", *lines] if lines else ["no settings"]


def _declared_fields(cls: type[Any]) -> Iterator[FieldDoc]:
    """The fields that the body of one class declares, read from its source."""
    lines, first = inspect.getsourcelines(cls)
    source = textwrap.dedent("".join(lines))
    body = ast.parse(source).body[0]
    statements = body.body if isinstance(body, ast.ClassDef) else []
    for i, item in enumerate(statements):
        if not isinstance(item, ast.AnnAssign) or not isinstance(item.target, ast.Name):
            continue
        after = statements[i + 1] if i + 1 < len(statements) else None
        text = ""
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str):
            text = inspect.cleandoc(after.value.value)
        file = inspect.getsourcefile(cls) or ""
        yield FieldDoc(item.target.id, ast.unparse(item), text, file, first + item.lineno - 1)
