"""The verbs init, new, check, show and list: sweep files, models and tasks. Nothing is trained."""

from __future__ import annotations

import atexit
import gc
import inspect
import io
import json
import keyword
import logging
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sweeps.cli.app import StoreOption, app, console, echo, load_sweep, require_store, writing
from sweeps.config import registry
from sweeps.config.registry import settings_lines
from sweeps.config.settings import resolve
from sweeps.config.space import Dimension
from sweeps.config.sweep_file import NoSuchFile, Sweep, definitions, question_of
from sweeps.config.yaml import dump
from sweeps.errors import UserError
from sweeps.results.numbers import counted
from sweeps.store import Store
from sweeps.store.origins import origin_of

if TYPE_CHECKING:
    from arith_models.base import Network, Unit
    from tasks.base import Task


@app.command()
def init(
    file: Annotated[Path, typer.Argument()] = Path("sweep.yaml"),
    definition: Annotated[str, typer.Option(help="shipped sweep file to start from: `sweeps list definitions`")] = "quickstart",
) -> None:
    """Write a commented sweep file to start from."""
    from sweeps.config.sweep_file import DEFINITIONS, find_definition

    if file.suffix not in (".yaml", ".yml"):
        raise UserError(
            f"a sweep file ends on .yaml, and {str(file)!r} does not: `sweeps init {file}.yaml`"
            + (f"; `sweeps init my.yaml --definition {file}` starts from that one" if str(file) in definitions() else "")
        )
    if file.exists():
        raise UserError(f"{file} exists and is not overwritten: name another file")
    text = (DEFINITIONS / f"{find_definition(definition)}.yaml").read_text(encoding="utf-8")
    with writing(file) as opened:
        text = text.replace(f"name: {definition}", f"name: {file.stem}").replace(f"run {definition}  ", f"run {file}")
        opened.write_text(text, encoding="utf-8", errors="backslashreplace")
    console.print(f"wrote {file}: edit it, then `sweeps check {file}` and `sweeps run {file}`", highlight=False)


class SchemaFormat(StrEnum):
    json = "json"
    md = "md"


@app.command()
def schema(
    format: Annotated[
        SchemaFormat, typer.Option("--format", help="json: a JSON schema, for editors; md: a page of every key")
    ] = SchemaFormat.json,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="file to write")] = None,
) -> None:
    """Print the JSON schema of the sweep file, for editors, or the reference of every key."""
    from sweeps.config.schema import json_schema, reference

    text = reference() if format is SchemaFormat.md else json.dumps(json_schema(), indent=1) + "\n"
    if output is None:
        echo(text, nl=False)
        return
    with writing(output) as file:
        file.write_text(text, encoding="utf-8")
    hint = "" if format is SchemaFormat.md else f". First line of a sweep file: # yaml-language-server: $schema={output}"
    console.print(f"wrote {output}{hint}", highlight=False, soft_wrap=True)


class Template(StrEnum):
    """What `sweeps new` writes: a unit, a whole network, or a task."""

    model = "model"
    network = "network"
    task = "task"


@app.command()
def new(
    what: Annotated[Template, typer.Argument(help="model: a unit; network: a whole network; task")],
    name: Annotated[str, typer.Argument(help="its name, and that of its file")],
    folder: Annotated[Path, typer.Argument(help="where to write it")] = Path(),
) -> None:
    """Write a model, a network or a task of your own to start from."""
    path = write_template(what.value, name, folder)
    given = path if path.is_absolute() else f"./{path}"
    kind = "task" if what is Template.task else "model"
    swept = f"task={given} model=nmu" if what is Template.task else f"model={given}"
    console.print(f"wrote {given}. Edit it, then:", highlight=False)
    for line in (f"sweeps check {kind} {given}", f"sweeps show {kind} {given}",
                 f"sweeps run nau-addition {swept} seeds=20 --name {path.stem}"):  # fmt: skip
        console.print(f"  {line}", highlight=False)


@app.command()
def check(
    what: Annotated[str, typer.Argument(metavar="FILE|model|task", help="FILE, or `model`, or `task`")],
    rest: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...|NAME", help="settings that replace the file's; or which model or task"),
    ] = None,
    compiled: Annotated[bool, typer.Option("--compiled", help="compile a model or task too (slower)")] = False,
) -> None:
    """Check a sweep file, or a model or a task against every rule: all faults at once."""
    if what in ("model", "task"):
        _check_definition(what, rest or [], compiled)
        return
    if compiled:
        raise UserError("--compiled is for models and tasks: `sweeps check model NAME --compiled`")
    from sweeps.cli.plan import counts_line
    from sweeps.runner.plan import count

    file, sweep = what, _load("check", what, rest)
    counts = count(sweep)
    console.print(f"{file} is sound: {counts_line(counts)}", highlight=False, soft_wrap=True)
    for note in counts.notes:
        console.print(f"note: {note}", highlight=False, soft_wrap=True)


@app.command()
def show(
    what: Annotated[str, typer.Argument(metavar="FILE|NAME|model|task", help="FILE, a sweep of the store, `model`, or `task`")],
    rest: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...|NAME", help="settings that replace the file's; or which model or task"),
    ] = None,
    store: StoreOption = "results",
) -> None:
    """Print a sweep file, or a sweep of the store, with defaults filled in; or the documentation of a model or task."""
    from sweeps.runner.run import stored_sweep

    if what in ("model", "task"):
        if len(rest or []) != 1:
            raise UserError(f"`sweeps show {what} NAME` needs one name: `sweeps list {what}s` lists them")
        (name,) = rest or []
        text = about_model(name) if what == "model" else about_task(name)
    else:
        text = about_file(stored_sweep(what, rest or [], store) or _load("show", what, rest))
    echo(text)


def _load(verb: str, what: str, rest: list[str] | None) -> Sweep:
    """Load a sweep file. Raises NoSuchFile, also with the command that was meant: what is missing may be a word, or a name."""
    try:
        return load_sweep(what, rest)
    except NoSuchFile as error:
        if rest and (near := registry.nearest(what, ["model", "task"])):
            raise NoSuchFile(f"{error} For a {near}: `sweeps {verb} {near} {rest[0]}`.") from None
        if rest and "=" not in rest[0]:
            raise NoSuchFile(
                f"no sweep file {what!r}, and before the name {rest[0]!r} only `model` or `task` is allowed: "
                f"`sweeps {verb} model NAME`, `sweeps {verb} task NAME`, or `sweeps {verb} FILE [KEY=VALUE]...`"
                + (". `sweeps list metrics` lists metrics" if registry.nearest(what, ["metric", "metrics"]) else "")
            ) from None
        from sweeps.search import SAMPLERS

        commands = {
            **{name: f"the sampler {name!r}: `sweeps list samplers`" for name in SAMPLERS},
            **{name: f"the task {name!r}: `sweeps {verb} task {name}`" for name in registry.names("task")},
            **{
                name: f"the model {name!r}: `sweeps {verb} model {name}`"
                for name in (*registry.names("model"), *registry.standalone_networks())
            },
        }
        near = registry.nearest(what, commands)
        raise NoSuchFile(f"{error} For {commands[near]}." if near else str(error)) from None


class Listed(StrEnum):
    sweeps = "sweeps"
    definitions = "definitions"
    models = "models"
    tasks = "tasks"
    clusters = "clusters"
    metrics = "metrics"
    samplers = "samplers"


@app.command("list")
def list_(
    what: Annotated[Listed, typer.Argument()] = Listed.sweeps,
    store: StoreOption = "results",
    names: Annotated[bool, typer.Option("--names", help="names only")] = False,
) -> None:
    """List the store's sweeps, or the definitions, models, tasks, samplers, metrics or clusters that exist."""
    if what is Listed.sweeps:
        require_store(store)
        with Store(store, read_only=True) as opened:
            rows = sweep_rows(opened)
    elif what is Listed.definitions:
        rows = [(name, question_of(name)) for name in definitions()]
    elif what is Listed.clusters:
        from cluster.clusters_file import load_clusters

        rows = [(name, cluster.where) for name, cluster in load_clusters().items()]
    elif what is Listed.samplers:
        from sweeps.search import SAMPLERS

        rows = [(name, ", ".join(("seed", *sampler.options))) for name, sampler in sorted(SAMPLERS.items())]
    elif what is Listed.metrics:
        from sweeps.results import metrics

        rows = metrics.listing()
    else:
        rows = listing("model" if what is Listed.models else "task")
    width = max((len(row[0]) for row in rows), default=0)
    for row in rows:
        echo(row[0] if names else f"{row[0]:{width}}  {row[1]}")


def _check_definition(kind: str, names: list[str], compiled: bool) -> None:
    if not compiled:
        # Of the time without the compiler a third would be garbage collection among the objects of torch's modules.
        gc.disable()
        atexit.register(gc.freeze)
    try:
        _check_and_print(kind, names, compiled)
    finally:
        gc.enable()


def _check_and_print(kind: str, names: list[str], compiled: bool) -> None:
    from sweeps.checking import check_model, check_task

    if len(names) != 1:
        raise UserError(
            f"`sweeps check {kind} NAME` needs one name: `sweeps list {kind}s` lists them, ./my.py is a file of your own"
        )
    printed = io.StringIO()
    handlers = [one for one in logging.root.handlers if isinstance(one, logging.StreamHandler)]
    before = [handler.setStream(printed) for handler in handlers]
    try:
        with redirect_stdout(printed), redirect_stderr(printed):
            report = (check_model if kind == "model" else check_task)(names[0], compiled)
    finally:
        for handler, stream in zip(handlers, before, strict=True):
            handler.setStream(stream or handler.stream)
        _echo_once(printed.getvalue())
    echo(report.text())
    if not report.sound:
        raise typer.Exit(2)


MOST_PRINTED = 20
"""Lines of a definition's own output that are shown."""


def _echo_once(printed: str) -> None:
    """Print each line that a definition printed once, though its code runs for every rule."""
    lines = [line for line in dict.fromkeys(printed.splitlines()) if line.strip()]
    if lines:
        echo("\n".join(["printed during the check, each line once:", *(f"  {line}" for line in lines[:MOST_PRINTED])]))
    if len(lines) > MOST_PRINTED:
        echo(f"  and {len(lines) - MOST_PRINTED} other lines")


TEMPLATES = Path(__file__).parent / "templates"


def write_template(kind: registry.Kind, name: str, folder: Path) -> Path:
    """Write FOLDER/NAME.py and return its path. Raises UserError for a name that cannot be one, and overwrites nothing."""
    name = name.removesuffix(".py")
    _check_name(kind, name)
    path = folder / f"{name}.py"
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: make it first, or leave it out")
    if path.exists():
        raise UserError(f"{path} exists and is not overwritten: take another name")
    text = (TEMPLATES / f"{kind}.txt").read_text(encoding="utf-8")
    class_name = "".join(word.capitalize() for word in name.split("_"))
    with writing(path) as opened:
        opened.write_text(text.replace("NAME", name).replace("CLASS", class_name), encoding="utf-8")
    return path


def _check_name(kind: registry.Kind, name: str) -> None:
    """Raise UserError for a word that cannot be the name of a definition."""
    rule = "a name is lower-case letters, digits and _, and begins with a letter: my_unit"
    if not name.isidentifier() or not name.isascii() or name != name.lower() or not name[:1].isalpha():
        near = "".join(c if c.isalnum() else "_" for c in name.lower()).strip("_0123456789")
        suggestion = f". Perhaps {near!r}?" if near.isidentifier() and near.isascii() else ""
        raise UserError(f"{name!r} cannot be the name of a {kind}: {rule}{suggestion}")
    if keyword.iskeyword(name) or keyword.issoftkeyword(name):
        raise UserError(f"{name!r} is a keyword of Python: take another, for instance {'my_' + name!r}")
    if name in {*registry.names(kind), *(registry.names("model") + registry.names("network") if kind != "task" else [])}:
        raise UserError(f"{name!r} is the name of a definition that exists already: take another")


def summary_line(kind: registry.Kind, name: str) -> str:
    """Return the first line of a class's docstring; that of its module's where the class has no sentence there."""
    cls = registry.find(kind, name)
    docs = inspect.cleandoc(cls.__doc__ or ""), inspect.getdoc(inspect.getmodule(cls)) or ""
    own, module = (next(iter(text.splitlines()), "") for text in docs)
    is_summary = own.endswith(".") and not own.startswith("Shapes:")
    return own if is_summary or not module else module


def listing(kind: registry.Kind) -> list[tuple[str, str]]:
    """Return names with the summaries of their classes; models are units and whole networks."""
    found = [(name, summary_line(kind, name)) for name in registry.names(kind)]
    if kind == "model":
        found += [(name, summary_line("network", name)) for name in registry.standalone_networks()]
    return sorted(found)


def state_of(store: Store, name: str) -> str:
    """Return a sweep's state for display; a sweep whose driver was killed is interrupted.

    The driver of one that was fetched from a cluster while it ran is there, and goes on.
    """
    row = store.sweep(name)
    state = row.state if row else "unknown"
    holder = store.holder(name)
    if state == "running" and holder is None and (cluster := origin_of(store.location, name, "cluster")) is not None:
        return f"running on {cluster} when it was fetched: `sweeps fetch {name} --on {cluster}` brings what is new there"
    if state == "running" and (holder is None or not holder.alive):
        return f"interrupted: `sweeps run {name}` continues it"
    return state


def sweep_rows(store: Store) -> list[tuple[str, str]]:
    """Return names and states of a store's sweeps; of two that have the same file, which one the later one repeats."""
    first: dict[str, str] = {}
    rows = []
    for row in store.sweeps():
        document = json.dumps({key: value for key, value in row.document.items() if key != "name"}, sort_keys=True)
        same = first.setdefault(document, row.name)
        rows.append((row.name, state_of(store, row.name) + (f" (the same sweep as {same})" if same != row.name else "")))
    return rows


def about_model(name: str) -> str:
    """Return a model's explicit settings, and the documentation and every setting of its network and units.

    Raises UnknownName, BrokenDefinition, or UserError where its defaults have faults.
    """
    task = registry.learnable_task(name)
    settings, faults, _ = resolve({"model": name, "task": task, "train": {"steps": 10**9}})
    if settings is None:
        raise UserError("; ".join(f.message for f in faults))
    model: dict[str, Any] = settings["model"]
    parts = [f"{name} is short for\n", dump({"model": model})]
    network = model["network"]
    parts += ["", *_about(registry.find("network", network), f"network {network}")]
    for unit in dict.fromkeys(u["name"] for u in model["units"]):
        parts += ["", *_about(registry.find("model", unit), f"unit {unit}")]
    return "\n".join(parts)


def about_task(name: str) -> str:
    """Return a task's rule with worked examples, its settings and its threshold at the defaults."""
    cls = registry.find("task", name)
    lines = [*_about(cls, f"task {name}")]
    threshold = cls(cls.Config()).threshold()
    if threshold is None:
        lines.append("  solved: not defined, since no threshold is published; look at the errors and scores")
    else:
        lines.append(f"  solved: an extrapolation error below {threshold:.4g} (at the settings above)")
    return "\n".join(lines)


def about_file(sweep: Sweep) -> str:
    """Return a sweep file resolved: its cells with every default filled in, its search space, its number of lanes."""
    lanes = sum(sweep.configurations(cell) for cell in sweep.cells) * len(sweep.seeds)
    parts = [
        f"# {sweep.name}: {counted(len(sweep.cells), 'cell')}, {counted(len(sweep.seeds), 'seed')}, {counted(lanes, 'lane')}"
    ]
    parts += [f"# warning: {warning}" for warning in sweep.warnings]
    for cell in sweep.cells:
        settings, _, _ = resolve(cell.settings)
        space = {path: _dimension(d) for path, d in cell.space.items()}
        parts += ["", f"# cell {cell.key}, {counted(sweep.configurations(cell), 'configuration')}", dump(settings or {})]
        parts += [dump({"space": space})] if space else []
    return "\n".join(parts)


def _dimension(dimension: Dimension) -> dict[str, Any]:
    if dimension.kind == "choice":
        text: dict[str, Any] = {"choice": list(dimension.choices)}
    else:
        text = {dimension.kind: [dimension.low, dimension.high]}
    return (
        text | ({"or": dimension.off} if dimension.has_off else {}) | ({"when": dict(dimension.when)} if dimension.when else {})
    )


def _about(cls: type[Unit | Network | Task], title: str) -> Iterator[str]:
    module = inspect.getmodule(cls)
    yield f"{title} (version {cls.version}, {inspect.getsourcefile(cls)})"
    for text in (inspect.getdoc(module), inspect.getdoc(cls)):
        yield from (f"  {line}" for line in (text or "").splitlines())
        yield ""
    yield from (f"  {line}" for line in settings_lines(cls.Config))
