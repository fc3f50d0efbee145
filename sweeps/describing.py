"""What `sweeps show` and `sweeps list` print about models, tasks, files and sweeps."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from sweeps import catalog
from sweeps.field_docs import settings_lines
from sweeps.settings import resolve
from sweeps.shelf import definitions, question_of
from sweeps.spec import Sweep
from sweeps.store import Store
from sweeps.yaml_source import dump


def summary_line(kind: catalog.Kind, name: str) -> str:
    """The first line of a definition's module."""
    module = inspect.getmodule(catalog.find(kind, name))
    return (inspect.getdoc(module) or "").splitlines()[0]


def listing(kind: catalog.Kind) -> list[tuple[str, str]]:
    """Names and what they stand for; models are units, and networks that are models of their own."""
    found = [(name, summary_line(kind, name)) for name in catalog.names(kind)]
    if kind == "model":
        found += [(name, summary_line("network", name)) for name in catalog.whole_networks()]
    return sorted(found)


def definition_listing() -> list[tuple[str, str]]:
    return [(name, question_of(name)) for name in definitions()]


def cluster_listing() -> list[tuple[str, str]]:
    """Clusters and what they are, without credentials."""
    from cluster.clusters_file import load_clusters

    return [(name, cluster.where) for name, cluster in load_clusters().items()]


def sweep_listing(store: Store) -> list[tuple[str, str]]:
    """Every sweep of a store and its state; a sweep whose driver was killed is told as interrupted."""
    return [(row.name, state_of(store, row.name)) for row in store.sweeps()]


def state_of(store: Store, name: str) -> str:
    row = store.sweep(name)
    state = row.state if row else "unknown"
    holder = store.holder(name)
    if state == "running" and (holder is None or not holder.alive):
        return f"interrupted: `sweeps run {name}` continues it"
    return state


def about_model(name: str) -> str:
    """What a model name stands for: its network's and units' equations, and every setting with its default."""
    model = _resolved_model(name)
    parts = [f"{name} stands for\n", dump({"model": model})]
    for kind, unit in [
        ("network", model["network"]),
        *(("model", u) for u in dict.fromkeys(u["name"] for u in model["units"])),
    ]:
        parts += ["", *_about(catalog.find(kind, unit), f"{'unit' if kind == 'model' else kind} {unit}")]
    return "\n".join(parts)


def _resolved_model(name: str) -> dict[str, Any]:
    """The model on a task that it can learn."""
    settings, faults, _ = resolve(
        {"model": name, "task": catalog.example_task(name), "train": {"steps": 10**9}}
    )
    if settings is None:
        raise catalog.UnknownName("; ".join(f.message for f in faults))
    model: dict[str, Any] = settings["model"]
    return model


def about_task(name: str) -> str:
    """A task's rule with worked examples, its settings, its threshold at the defaults."""
    cls = catalog.find("task", name)
    lines = [*_about(cls, f"task {name}")]
    threshold = cls(cls.Config()).threshold()
    if threshold is None:
        lines.append("  solved: not defined, since no threshold is published; look at the errors and scores")
    else:
        lines.append(f"  solved: an extrapolation error below {threshold:.4g} (at the settings above)")
    return "\n".join(lines)


def about_file(sweep: Sweep) -> str:
    """A sweep file resolved: its cells with every default filled in, its search space, what it amounts to."""
    lanes = sum(sweep.configurations(cell) for cell in sweep.cells) * len(sweep.seeds)
    parts = [f"# {sweep.name}: {len(sweep.cells)} cells, {len(sweep.seeds)} seeds, {lanes} lanes"]
    parts += [f"# warning: {warning}" for warning in sweep.warnings]
    for cell in sweep.cells:
        settings, _, _ = resolve(cell.settings)
        space = {path: _dimension(d) for path, d in cell.space.items()}
        parts += ["", f"# cell {cell.key}, {sweep.configurations(cell)} configurations", dump(settings or {})]
        parts += [dump({"space": space})] if space else []
    return "\n".join(parts)


def _dimension(dimension: Any) -> dict[str, Any]:
    if dimension.kind == "choice":
        text: dict[str, Any] = {"choice": list(dimension.choices)}
    else:
        text = {dimension.kind: [dimension.low, dimension.high]}
    return (
        text
        | ({"or": dimension.off} if dimension.has_off else {})
        | ({"when": dict(dimension.when)} if dimension.when else {})
    )


def _about(cls: type[Any], title: str) -> Iterator[str]:
    module = inspect.getmodule(cls)
    yield f"{title} (version {cls.version}, {inspect.getsourcefile(cls)})"
    for text in (inspect.getdoc(module), inspect.getdoc(cls)):
        yield from (f"  {line}" for line in (text or "").splitlines())
        yield ""
    yield from (f"  {line}" for line in settings_lines(cls.Config))
