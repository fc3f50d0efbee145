"""The verb plan, and the numbers of a sweep as text: what it takes before it is run."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from sweeps.cli.app import OnOption, Overrides, StoreOption, app, echo, errors, load_sweep
from sweeps.errors import UserError
from sweeps.results.numbers import counted, number, steps

if TYPE_CHECKING:
    from sweeps.config.sweep_file import Sweep
    from sweeps.runner.plan import Bounds, Counts, Estimate, Plan, Where


class PlanFormat(StrEnum):
    text = "text"
    json = "json"


@app.command()
def plan(
    file: str,
    overrides: Overrides = None,
    name: Annotated[
        str | None, typer.Option(help="plan it under another name: what the store has of that is not to do")
    ] = None,
    on: OnOption = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="worker processes; by default as many as there are cores for")
    ] = None,
    store: StoreOption = "results",
    recalibrate: Annotated[bool, typer.Option("--recalibrate", help="measure again what is kept")] = False,
    format: Annotated[PlanFormat, typer.Option("--format", help="text for people, json for programs")] = PlanFormat.text,
) -> None:
    """Print what a sweep takes: lanes, packs, steps, time, price, bytes. Nothing is run, but a calibration of half a minute."""
    from sweeps.runner.plan import plan as planned
    from sweeps.store import Store
    from sweeps.store.database import exists

    sweep = load_sweep(file, [*(overrides or []), *([f"name={name}"] if name is not None else [])])
    where = _where(sweep, on, workers)

    def on_progress(line: str) -> None:
        errors.print(line, highlight=False, soft_wrap=True)

    if on is None and exists(store):
        with Store(store, read_only=True) as opened:
            _refuse_changed(sweep, opened)
            found = planned(sweep, where, opened, recalibrate, on_progress)
    else:
        found = planned(sweep, where, None, recalibrate, on_progress)
    if on is not None:
        found = replace(found, notes=(*found.notes, *_cluster_notes(found)))
    if format is PlanFormat.json:
        echo(json.dumps({"sweep": sweep.name, **found.as_dict()}, indent=2, ensure_ascii=False, allow_nan=False))
        return
    for line in plan_lines(sweep.name, found):
        echo(line)


def _refuse_changed(sweep: Sweep, store: object) -> None:
    """Raise UserError for a file that a run would refuse, since it was changed after its sweep began."""
    from sweeps.config.diff import difference
    from sweeps.store import Store

    assert isinstance(store, Store)
    row = store.sweep(sweep.name)
    if row is not None and (change := difference(row.document, sweep)).kind == "refusal":
        raise UserError(f"sweep {sweep.name!r} in {store.location} has begun, and {change.message}")


def _where(sweep: Sweep, on: str | None, workers: int | None) -> Where:
    """Return the machines of a cluster, or this one."""
    from sweeps.machine import price_here
    from sweeps.runner.driver import device_of
    from sweeps.runner.plan import Where, workers_here
    from sweeps.training.numerics import device_kind, is_device_kind

    cores = os.cpu_count() or 1
    if on is None:
        return Where(workers or workers_here(sweep), cores=cores, price_per_hour=price_here())
    from cluster.clusters_file import find_cluster

    backend = find_cluster(on)
    cluster, needs = backend.cluster, sweep.resources
    node = cluster.resources
    fits = [node.cpus / needs.cpus, *([node.gpus / needs.gpus] if needs.gpus else [])]
    fits += [node.memory_gb / needs.memory_gb] if needs.memory_gb and node.memory_gb else []
    of_node = int(min(fits) + 1e-6)
    if of_node < 1:
        raise UserError(
            f"no worker fits on a node of cluster {on!r} ({cluster.size}): one needs {needs.cpus} CPUs and {needs.gpus:g} GPUs"
            + (f" and {needs.memory_gb:g} GB" if needs.memory_gb else "")
            + ". Make `resources` of the sweep file smaller, or correct `resources` of the cluster in clusters.yaml"
        )
    given = cluster.environment.get("SWEEPS_NUMERICS", "").replace(",", " ").split()
    kind = next((word for word in given if is_device_kind(word)), device_kind("cpu"))
    if device_of(sweep) == "cuda":
        kind = "cuda"
    is_here = backend.kind == "local" or kind == device_kind("cpu")
    return Where(
        min(workers or of_node * cluster.workers.max, of_node * cluster.workers.max), cluster.workers.max,
        cores if backend.kind == "local" else 0, cluster.price_per_hour, on, None if is_here else kind,
    )  # fmt: skip


def _cluster_notes(found: Plan) -> Iterator[str]:
    yield "the cluster's store is not read: what it has already is not counted out"
    if found.expected is not None and not found.where.cores:
        yield "its processors are taken to be as fast as those of the calibration"
        yield "waiting in a queue and starting nodes are not counted"
    if found.where.price_per_hour is None:
        yield f"the price is not known: give `price_per_hour` in the entry of {found.where.cluster!r} in clusters.yaml"


# ------------------------------------------------------------------------------------------- text


def counts_line(counts: Counts) -> str:
    """Return `2 cells, 24 lanes, 6 configurations, 2 packs, 9.6k seed-steps, 1.3 MB in the store`."""
    parts = [
        f"{counts.cells} cell{'s' * (counts.cells != 1)}", f"{_range(counts.lanes)} lane{_s(counts.lanes)}",
        f"{_range(counts.configurations)} configuration{_s(counts.configurations)}",
        f"{_range(counts.packs)} pack{_s(counts.packs)}", f"{_steps(counts)} seed-steps",
        f"{megabytes(_all_bytes(counts))} in the store and MLflow",
    ]  # fmt: skip
    return ", ".join(parts)


def plan_lines(name: str, found: Plan) -> Iterator[str]:
    """Yield the lines of a plan for people."""
    counts, where = found.counts, found.where
    nodes = f" on {counted(where.nodes, 'node')}" if where.cluster else ""
    place = f"cluster {where.cluster}" if where.cluster else "this machine"
    yield f"{name} on {place}: {where.workers} worker{'' if where.workers == 1 else 's'}{nodes}"
    stored = f" ({counts.lanes_stored} more are in the store already)" if counts.lanes_stored else ""
    yield f"  cells           {counts.cells}"
    yield f"  configurations  {_range(counts.configurations)}"
    yield f"  lanes           {_range(counts.lanes)}{stored}"
    if counts.likely_lanes is not None:
        yield f"                  about {_range(counts.likely_lanes)}, as in recorded searches or in this one so far"
    yield f"  packs           {_range(counts.packs)}, of up to {counted(counts.slots, 'lane')}"
    most = ", at most: lanes end when they are solved" if counts.stops_when_solved else ""
    yield f"  seed-steps      {_steps(counts)}{most}"
    if found.expected is None or found.worst is None:
        yield f"  time            {found.why_unknown}"
    else:
        yield f"  time            {_time(found)}"
        for line in _spent(found.expected, where):
            yield f"                  {line}"
    if where.price_per_hour is not None and found.worst is not None:
        cost, worst = found.cost_usd(found.expected), found.cost_usd(found.worst)
        more = f", at most {_usd(worst)}" if _usd(worst) != _usd(cost) else ""
        yield f"  price           {_usd(cost)}{more} ({where.nodes} x {where.price_per_hour:g} USD an hour)"
    yield f"  store           {counts.files} files, {megabytes(_all_bytes(counts))}: {_bytes(counts)}"
    if found.calibration:
        yield f"  calibration     {found.calibration}"
    for note in (*counts.notes, *found.notes):
        yield f"  note: {note}"


def megabytes(size: float | None) -> str:
    """Return `14.3 MB`, with three digits."""
    if size is None:
        return "an unknown size"
    return f"{number(size / 1e6, 3)} MB" if size < 1e9 else f"{number(size / 1e9, 3)} GB"


def clock(seconds: float) -> str:
    """Return `35 s`, `4 min 10 s` or `2 h 5 min`."""
    whole = max(1, round(seconds)) if seconds else 0
    if whole < 100:
        return f"{whole} s"
    if whole < 3 * 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _time(found: Plan) -> str:
    expected, worst, least = found.expected, found.worst, found.least
    assert expected is not None and worst is not None
    if found.likely is not None and least is not None:
        low, high = found.likely
        about, bounds = (
            ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"
            for ends in ((clock(low.total_s), clock(high.total_s)), (clock(least.total_s), clock(worst.total_s)))
        )
        text = f"about {about}; {bounds} whatever is stopped early"
    elif least is not None:
        text = f"{clock(least.total_s)} at least, where as many configurations as possible end early, to {clock(worst.total_s)}"
    elif worst == expected and not found.counts.stops_when_solved:
        return f"about {clock(expected.total_s)}"
    elif worst != expected:
        return f"about {clock(expected.total_s)}, at most {clock(worst.total_s)}"
    else:
        text = f"at most {clock(worst.total_s)}"
    if found.counts.stops_when_solved:
        text += "; less where lanes are solved: when that is, only a run shows"
    return text


def _spent(one: Estimate, where: Where) -> Iterator[str]:
    beside = "beside it" if not where.cores else f"beside it, on the same {where.cores} cores"
    yield f"{one.start_s:.1f} s to start the command, Ray and workers; {one.end_s:.1f} s to end"
    yield f"{one.programs_s:.1f} s for programs and thresholds, in each worker"
    yield (
        f"{clock(one.training_s)} of steps and {clock(one.evaluation_s)} of evaluations, in each worker; "
        f"{clock(one.writing_s)} of records and MLflow {beside}"
    )


def _bytes(counts: Counts) -> str:
    parts = f"records with curves and states {megabytes(counts.bytes_of_records)}, MLflow {megabytes(counts.bytes_of_mlflow)}"
    return f"{parts}; checkpoints up to {megabytes(counts.bytes_of_checkpoints)} while it runs, none at the end"


def _all_bytes(counts: Counts) -> float | None:
    return None if counts.bytes_of_records is None else counts.bytes_of_records + counts.bytes_of_mlflow


def _s(bounds: Bounds) -> str:
    return "" if _range(bounds) == "1" else "s"


def _range(bounds: Bounds) -> str:
    return f"{bounds.most:.0f}" if bounds.is_exact else f"{bounds.least:.0f} to {bounds.most:.0f}"


def _steps(counts: Counts) -> str:
    bounds = counts.seed_steps
    return steps(bounds.most) if bounds.is_exact else f"{steps(bounds.least)} to {steps(bounds.most)}"


def _usd(cost: float | None) -> str:
    if cost is None:
        return "unknown"
    return f"{cost:.2f} USD" if not 0 < cost < 0.01 else "less than 0.01 USD"
