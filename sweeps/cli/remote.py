"""Verbs about clusters: describe them, start the local one, and run sweeps on them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from sweeps.cli.app import Overrides, StoreOption, app, console, echo, errors, load_sweep
from sweeps.errors import ClusterError, StoreError, UserError
from sweeps.results.numbers import counted

if TYPE_CHECKING:
    from cluster.backend import Backend, Submission
    from sweeps.config.sweep_file import Sweep
    from sweeps.store import Store

REACHED_S = 5
"""Seconds within which a database must answer for its sweeps to be compared before a submission."""
POLL_S = 5.0
"""As `cluster.following.CHECK_S`: seconds between two requests for the state of a job that waits."""
WAITING_PERIOD_S = 30.0
"""Seconds between two lines about a job that waits, where they are not shown in place."""

cluster_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Clusters, as clusters.yaml describes them.")
app.add_typer(cluster_app, name="cluster")


@cluster_app.command("show")
def show_cluster(
    name: Annotated[str, typer.Argument(help="of a cluster in clusters.yaml; `sweeps list clusters` lists them")],
    sweep: Annotated[
        str | None, typer.Option("--sweep", metavar="FILE", help="the sweep file that would be sent there")
    ] = None,
) -> None:
    """Print a cluster's finished text (manifest, batch scripts, launcher file); nothing is started."""
    from cluster.clusters_file import find_cluster

    found = find_cluster(name)
    submission = _submission(load_sweep(sweep, None)) if sweep else None
    echo(found.show(submission), nl=False)
    for line in found.advice(submission):
        errors.print(line, highlight=False, soft_wrap=True)


@cluster_app.command()
def up(
    nodes: Annotated[int | None, typer.Option(min=1, max=64, help="how many nodes, the head among them")] = None,
    cpus_per_node: Annotated[int | None, typer.Option(min=1, max=1024, help="CPUs that each node reports")] = None,
) -> None:
    """Start a local cluster, for `--on local`. Without options as clusters.yaml describes `local`."""
    from cluster.clusters_file import find_cluster
    from cluster.local import up as start

    described = find_cluster("local").cluster
    found = start(nodes or described.workers.max, cpus_per_node or described.resources.cpus)
    console.print(
        f"{len(found.nodes)} nodes of {counted(found.nodes[0]['cpus'], 'CPU')} are up; job server {found.job_server}, "
        f"token in {found.token_file}. `sweeps submit FILE --on local`; `sweeps cluster down` ends them",
        highlight=False, soft_wrap=True,
    )  # fmt: skip


@cluster_app.command()
def down() -> None:
    """End the local cluster and all that runs on it; records are kept."""
    from cluster.local import down as end

    console.print(f"{end()} nodes are down", highlight=False)


@cluster_app.command()
def status() -> None:
    """Print whether the local cluster is up, and which of its nodes live. Exit status 1: it is not, or not whole."""
    from cluster.local import NOT_UP, alive, current

    state = current()
    if state is None:
        console.print(NOT_UP, highlight=False)
        raise typer.Exit(1)
    console.print(
        f"job server {state.job_server}, Ray at {state.ray_address}, token in {state.token_file}",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    live = [alive(node, state) for node in state.nodes]
    for node, lives in zip(state.nodes, live, strict=True):
        how = "alive" if lives else "dead"
        console.print(f"  node of {counted(node['cpus'], 'CPU')}, process {node['raylet']}: {how}", highlight=False)
    if not all(live):
        raise typer.Exit(1)


def _submission(sweep: Sweep) -> Submission:
    """Return a sweep as it is sent to a cluster. Raises OutOfReach for a file that cannot be sent."""
    from cluster.backend import Submission
    from sweeps.config.user_files import own_files

    files, needs = own_files(sweep.document, Path.cwd()), sweep.resources
    return Submission(sweep.name, sweep.text, files, needs.cpus, needs.gpus, needs.memory_gb)


On = Annotated[str, typer.Option("--on", metavar="CLUSTER", help="a cluster's name in clusters.yaml")]


@app.command()
def submit(
    file: str,
    on: On,
    overrides: Overrides = None,
    name: Annotated[str | None, typer.Option(help="run it under another name")] = None,
) -> None:
    """Run a sweep on a cluster. Submitting the same again is the same job; a stopped or failed one continues."""
    from cluster.backend import Submission, all_at_once
    from cluster.clusters_file import find_cluster

    sweep = load_sweep(file, [*(overrides or []), *([f"name={name}"] if name is not None else [])])
    cluster = find_cluster(on)
    needs = sweep.resources
    origin = Path(file).resolve() if Path(file).is_file() else None  # None: a shipped definition
    all_at_once(
        partial(_submission, sweep),
        partial(_require_price, sweep, cluster),
        partial(_require_free_in_store, sweep, cluster, origin),
        partial(cluster.check_once, Submission(sweep.name, "", {}, needs.cpus, needs.gpus, needs.memory_gb)),
    )
    done = cluster.submit(replace(_submission(sweep), origin=origin))
    again = f", attempt {done.attempt}" if done.attempt > 1 else ""
    if done.fresh:
        message = f"{sweep.name} is submitted to {on} as job {done.job}{again}"
    elif done.state == "done":
        message = f"{sweep.name} is done on {on} (job {done.job}): nothing to submit"
    else:
        message = f"{sweep.name} is {done.state} on {on} already (job {done.job}{again}): nothing to submit"
    verb = "fetch" if done.state == "done" else "watch"
    console.print(f"{message}. Next: sweeps {verb} {sweep.name} --on {on}", highlight=False, soft_wrap=True)


def _require_price(sweep: Sweep, cluster: Backend[Any]) -> None:
    if sweep.budget.cost_usd is not None and cluster.cluster.price_per_hour is None:
        raise UserError(
            f"budget.cost_usd is {sweep.budget.cost_usd:g}, and the price of cluster {cluster.name!r} is not known: give "
            "`price_per_hour` (USD an hour for one worker node) in its entry of clusters.yaml, or use budget.hours"
        )


def _require_free_in_store(sweep: Sweep, cluster: Backend[Any], origin: Path | None) -> None:
    """Raise UserError where the cluster's store, as far as it can be read here, has a sweep that the driver would refuse."""
    from sweeps.store import Store
    from sweeps.store.database import exists

    location = cluster.store_here
    if location is None:
        return
    if "://" in location and "connect_timeout=" not in location:
        location += f"{'&' if '?' in location else '?'}connect_timeout={REACHED_S}"
    try:
        if not exists(location):
            return
        store = Store(location, read_only=True)
    except StoreError:
        return  # out of reach from here, and perhaps not from there
    with store:
        from sweeps.runner.run import require_continues  # here, because it takes a second

        _require_same_folder(sweep, store, cluster, origin)
        require_continues(sweep, store)
        holder = store.holder(sweep.name)
    if holder is None or not holder.alive:
        return
    try:
        if cluster.status(sweep.name).state in ("waiting", "running"):
            return  # its driver is that of the job there, which `submit` compares with this one
    except (UserError, ClusterError):
        pass
    raise UserError(
        f"sweep {sweep.name!r} is being driven by process {holder.pid} on {holder.host}, since {holder.since}, in the store of "
        f"cluster {cluster.name!r}. Wait for it, stop it there, or choose another name with --name"
    )


def _require_same_folder(sweep: Sweep, store: Store, cluster: Backend[Any], origin: Path | None) -> None:
    """Raise UserError for another file of the name of a sweep that was submitted from another folder, where its file still is.

    The store of a cluster on this machine is that of all projects: the two are two sweeps, though one may extend the other.
    """
    row, other = store.sweep(sweep.name), cluster.submitted_from(sweep.name)
    if row is None or origin is None or other is None or row.document == sweep.document:
        return
    if other.parent != origin.parent and other.is_file():
        raise UserError(
            f"cluster {cluster.name!r} has a sweep {sweep.name!r} that was submitted from another folder, with {other}, and "
            f"{origin} differs: all folders share the store of this cluster. Choose another name with --name"
        )


@app.command()
def watch(name: str, on: On) -> None:
    """Follow a sweep on a cluster to its end, as if it ran here. Exit status 0: done, 1: stopped or failed."""
    from cluster.clusters_file import find_cluster

    cluster = find_cluster(on)
    if console.is_terminal:
        _on_screen(_followed(cluster, name, POLL_S))
    else:
        _in_lines(_followed(cluster, name, WAITING_PERIOD_S))
    _end(name, on)


def _followed(cluster: Backend[Any], name: str, period_s: float, pause: Callable[[float], None] = time.sleep) -> Iterator[str]:
    """Yield lines about a job that has not begun, with the time since it was submitted, and then those of its log.

    A line is yielded where its text is new, and every `period_s`.
    """
    from sweeps.runner.progress_log import MARK

    shown, shown_s = "", 0.0
    began = datetime.now(UTC)
    while True:
        try:
            found = cluster.status(name)
        except ClusterError:  # `logs` says so, and waits for the cluster
            break
        if found.state != "waiting":
            if found.state == "running" and not found.progress:
                yield f"{MARK}{_since(found.since, began)}  job {found.job} has started and loads the sweep"
            break
        text = f"job {found.job} is submitted: {found.message or 'it waits for the cluster'}"
        now_s = time.monotonic()
        if text != shown or now_s - shown_s >= period_s:
            yield f"{MARK}{_since(found.since, began)}  {text}"
            shown, shown_s = text, now_s
        pause(POLL_S)
    yield from cluster.logs(name, True, _note)


def _since(text: str, otherwise: datetime) -> str:
    """Return the time since a UTC time in ISO 8601 as h:mm:ss; since `otherwise` where it is none."""
    from sweeps.runner.progress_log import h_mm_ss

    try:
        began = datetime.fromisoformat(text)
    except ValueError:
        began = otherwise
    began = began if began.tzinfo else began.replace(tzinfo=UTC)
    return h_mm_ss(max(0.0, (datetime.now(UTC) - began).total_seconds()))


@app.command()
def logs(
    name: str,
    on: On,
    follow: Annotated[bool, typer.Option(help="to its end, or what there is now")] = True,
) -> None:
    """Print the log of a sweep on a cluster, to its end."""
    from cluster.clusters_file import find_cluster

    _in_lines(find_cluster(on).logs(name, follow, _note))


@app.command()
def stop(name: str, on: On) -> None:
    """Stop a sweep on a cluster in order: checkpoints are kept, and `sweeps submit` continues from them."""
    from cluster.clusters_file import find_cluster

    cluster = find_cluster(on)
    _note_other_folder(cluster, name)
    found = cluster.stop(name)
    console.print(f"{name} on {on}: {found.state} (job {found.job}). What is done is kept", highlight=False)


def _note_other_folder(cluster: Backend[Any], name: str) -> None:
    """Print from where a sweep was submitted, if that is another folder than this: projects share names on some clusters."""
    other = cluster.submitted_from(name)
    if other is not None and not other.is_relative_to(Path.cwd()):
        _note(f"{name} was submitted to {cluster.name} with {other}")


@app.command()
def fetch(name: str, on: On, store: StoreOption = "results") -> None:
    """Bring a sweep's records from a cluster into the store here, also while it runs; then report and ui work."""
    from cluster.clusters_file import find_cluster
    from sweeps.store import Store

    _note_other_folder(find_cluster(on), name)
    fresh = bring(name, on, store)
    with Store(store, read_only=True) as opened:
        where = opened.location
    console.print(f"{name}: {fresh} new records in {where}. `sweeps report {name}` shows it", highlight=False)


def bring(name: str, on: str, store: str) -> int:
    """Copy a sweep's records from a cluster into a store here and its runs into MLflow; return how many lanes were new."""
    from cluster.clusters_file import find_cluster
    from sweeps.runner.run import sync
    from sweeps.store import Store
    from sweeps.store.origins import record_origin

    cluster = find_cluster(on)
    with Store(store) as opened, opened.hold(name, count_time=False):
        fresh = cluster.fetch(name, opened)
        record_origin(store, name, "cluster", on)
        sync(name, opened, store)
    return fresh


def remote_status(name: str, on: str) -> None:
    """`sweeps status NAME --on CLUSTER`."""
    from cluster.clusters_file import find_cluster

    found = find_cluster(on).status(name)
    again = f", attempt {found.attempt}" if found.attempt > 1 else ""
    console.print(f"{name} on {on}: {found.state} (job {found.job}{again}, since {found.since})", highlight=False)
    for line in found.progress:
        console.print(line, highlight=False, soft_wrap=True)
    if found.message:
        console.print(found.message, highlight=False, soft_wrap=True)


def _in_lines(lines: Iterator[str]) -> None:
    from sweeps.runner.progress_log import plain

    for line in plain(lines):
        echo(line)


def _on_screen(lines: Iterator[str]) -> None:
    """Show the last block of progress in place, everything else above it."""
    from sweeps.runner.progress_log import MARK, RAY_LINE, is_first

    block: list[str] = []
    with Live(console=console, auto_refresh=False, transient=True) as live:
        for line in lines:
            if RAY_LINE.match(line):
                continue
            if not line.startswith(MARK):
                console.print(line, highlight=False, soft_wrap=True)
                continue
            block = [line] if is_first(line) or not block else [*block, line]
            # The first line may take several lines of a narrow terminal; those of its table are cut.
            first, *rest = (Text(part.removeprefix(MARK)) for part in block)
            table = (Text(part.plain, no_wrap=True, overflow="ellipsis") for part in rest)
            live.update(Group(first, *table), refresh=True)


def _end(name: str, on: str) -> None:
    from cluster.clusters_file import find_cluster

    found = find_cluster(on).status(name)
    if found.state == "done":
        console.print(f"{name} is done on {on}. Next: sweeps fetch {name} --on {on}", highlight=False)
        return
    errors.print(
        f"{name} on {on}: {found.state}. What is done is kept; `sweeps submit` again continues.",
        highlight=False,
    )
    raise typer.Exit(1)


def _note(message: str) -> None:
    errors.print(f"note: {message}", highlight=False)
