"""Verbs of MLflow: sync writes its runs, ui serves its pages."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import tempfile
import time
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from sweeps.cli.app import StoreOption, app, console, require_store
from sweeps.errors import ClusterError, StoreError, TrackingError, UserError
from sweeps.machine import has_room
from sweeps.web import address, serving

FETCH_S = 30.0
"""Seconds between two fetches of a sweep that runs on a cluster."""
ROOM_BYTES = 256 * 1024
"""What SQLite needs to open a database with a write-ahead log."""


@app.command("sync")
def sync_(name: str, store: StoreOption = "results") -> None:
    """Write a sweep's MLflow runs from the records. What is there is kept; what was deleted in MLflow is restored."""
    from sweeps.results.numbers import counted
    from sweeps.runner.run import sync
    from sweeps.store import Store
    from sweeps.tracking import default_uri
    from sweeps.tracking.client import sqlite_file, without_password

    require_store(store)
    with Store(store, read_only=True) as opened:
        opened.known_sweep(name)
        file = sqlite_file(uri := default_uri(store))
        absent = file is not None and not file.exists()  # then the runs of all sweeps are written
        found = sync(name, opened, store)
    new = found.runs if absent else found.new
    console.print(
        f"{name}: {counted(found.runs, 'run')} in {without_password(uri)}, "
        + (f"{new} written now" if new else "complete"),
        highlight=False, soft_wrap=True,
    )  # fmt: skip


@app.command()
def ui(
    name: Annotated[str | None, typer.Argument(help="a sweep, whose leaderboard is opened")] = None,
    store: StoreOption = "results",
    host: str = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 5000,
    open_: Annotated[bool, typer.Option("--open", help="open the page in the browser too")] = False,
    on: Annotated[
        str | None, typer.Option("--on", metavar="CLUSTER", help="fetch the sweep from there, again and again while it runs")
    ] = None,
    optuna: Annotated[bool, typer.Option("--optuna", help="serve optuna-dashboard of the search instead")] = False,
) -> None:
    """Serve MLflow's pages of the store's sweeps, by default for this machine only."""
    if name is None and (on is not None or optuna):
        given = "--optuna" if optuna else f"--on {on}"
        raise UserError(f"{given} needs the name of a sweep: sweeps ui NAME {given}")
    if on is not None and name is not None:
        from sweeps.cli.remote import bring

        console.print(f"{name}: {bring(name, on, store)} new records of {on}", highlight=False)
    require_store(store)
    if name is not None:
        from sweeps.store import Store

        with Store(store, read_only=True) as opened:
            opened.known_sweep(name)
    from sweeps.runner.run import signals_interrupt

    with signals_interrupt():  # they must end the server too, which is in another session
        if optuna and name is not None:
            _serve_optuna(name, store, host, port, open_)
        else:
            _serve_mlflow(name, store, host, port, open_, on)


def _serve_mlflow(name: str | None, store: str, host: str, port: int, open_: bool, on: str | None) -> None:
    from sweeps.runner.run import mlflow_page, sync_all
    from sweeps.store import Store
    from sweeps.tracking import default_uri, serve

    def page(uri: str, server: str) -> str:
        if name is None:  # without the query MLflow opens its pages for language models
            return f"{server}/#/experiments?workflowType=machine_learning"
        with Store(store, read_only=True) as opened:
            return mlflow_page(name, opened, store, uri, server)

    again = partial(_bring_again, name, on, store) if name is not None and on is not None else None
    given = default_uri(store)
    if name is not None and given.startswith(("http://", "https://")):  # nothing is to be served
        _show("MLflow", page(given, given), open_, "   (Ctrl-C ends the fetching)" if again else "")
        if again is not None:
            _until_ended(None, again)
        return
    with _writable(given) as uri:
        _fill_if_absent(uri, store)
        with serving(process := serve(uri, host, port, refill=partial(sync_all, store))):
            _show("MLflow", page(uri, address(host, port)), open_)
            _until_ended(process, again)


def _fill_if_absent(uri: str, store: str) -> None:
    """Write every sweep of the store where MLflow's database was deleted, or never made."""
    from sweeps.runner.run import sync_all
    from sweeps.tracking.client import prepare, sqlite_file

    file = sqlite_file(uri)
    if file is not None and not file.exists():
        console.print(f"there is no {file}: it is written from the records", highlight=False, soft_wrap=True)
        prepare(uri, partial(sync_all, store), fill=True)


def _serve_optuna(name: str, store: str, host: str, port: int, open_: bool) -> None:
    """Serve optuna-dashboard on a study for each cell, as the records are now."""
    from sweeps.results.report import report
    from sweeps.results.summary import objective_values
    from sweeps.search.dashboard import Tried, serve_dashboard, write_study
    from sweeps.store import Store

    with Store(store, read_only=True) as opened:
        found = report(opened, name)
    if not found.search.space:
        raise UserError(f"sweep {name!r} searches nothing, so it has no study: `sweeps report {name}` shows its results")
    with tempfile.TemporaryDirectory(prefix="sweeps-optuna-") as folder:
        file = Path(folder) / "journal"
        by_cell: dict[str, list[Tried]] = {}
        for one in sorted(found.with_repeats(), key=lambda one: one.configuration.number):
            figures = {key: value for key, value in one.summary.columns(estimate="").items() if value is not None}
            about = {"configuration": one.configuration.number, "rank": one.rank, **figures}
            values = objective_values(one.summary, found.search) if one.results else ()
            by_cell.setdefault(one.configuration.cell, []).append(Tried(one.parameters, one.state, values, about))
        for cell, tried in by_cell.items():
            study = f"{name} {cell}" if len(by_cell) > 1 else name
            write_study(file, study, found.search.space, found.search.objectives, tried)
        with serving(process := serve_dashboard(file, host, port)):
            _show("optuna-dashboard", f"{address(host, port)}/dashboard", open_)
            _until_ended(process, None)


def _until_ended(process: subprocess.Popen[bytes] | None, again: Callable[[], bool] | None) -> None:
    """Wait until the server ends, or Ctrl-C. `again` is called every `FETCH_S` as long as it returns true."""
    next_s = time.monotonic() + FETCH_S
    with suppress(KeyboardInterrupt):
        while (process is None or process.poll() is None) and (process is not None or again is not None):
            time.sleep(0.5)
            if again is not None and time.monotonic() >= next_s:
                again = again if again() else None
                next_s = time.monotonic() + FETCH_S


def _bring_again(name: str, on: str, store: str) -> bool:
    """Fetch a sweep's new records, and write its runs if there are any, or its state is another one.

    Return whether more may come. A cluster that does not answer may answer later. What was deleted in MLflow stays so.
    """
    from cluster.clusters_file import find_cluster
    from sweeps.runner.run import sync
    from sweeps.store import Store

    def state(opened: Store) -> str | None:
        row = opened.sweep(name)
        return None if row is None else row.state

    try:
        cluster = find_cluster(on)
        with Store(store) as opened, opened.hold(name, count_time=False):
            before = state(opened)
            fresh = cluster.fetch(name, opened)
            after = state(opened)
            if fresh or after != before:
                sync(name, opened, store, restore=False)
    except (ClusterError, StoreError, TrackingError, UserError) as error:
        console.print(f"{name} was not fetched, which is tried again: {error}", highlight=False, soft_wrap=True)
        return True
    if fresh:
        console.print(f"{name}: {fresh} new records of {on}", highlight=False)
    return after in (None, "running")


def _show(what: str, page: str, in_browser: bool, more: str = "   (Ctrl-C ends it)") -> None:
    console.print(f"{what}: {page}{more}", highlight=False, soft_wrap=True)
    if in_browser and not webbrowser.open(page):
        console.print("no browser could be opened here", highlight=False)


@contextmanager
def _writable(uri: str) -> Iterator[str]:
    """Yield the URI, or that of a private copy of a database that may not be written: MLflow's server writes to its own."""
    from sweeps.store.reading import copy_apart
    from sweeps.tracking.client import sqlite_file
    from sweeps.tracking.database import SQLITE

    file = sqlite_file(uri)
    if file is None or ((os.access(file, os.W_OK) or not file.exists()) and has_room(file.parent, ROOM_BYTES)):
        yield uri
        return
    if not file.exists():
        raise UserError(
            f"{file.parent} has no MLflow database, and none can be written there: copy the folder, and write it with "
            "`sweeps sync NAME --store COPY`"
        )
    try:
        copy = copy_apart(file)
    except (OSError, sqlite3.Error) as error:
        raise UserError(f"{file} can be neither written nor copied: {error}") from error
    with copy as folder:
        console.print(f"{file} cannot be written: a private copy is served, as it is now", highlight=False, soft_wrap=True)
        yield f"{SQLITE}{folder}/{file.name}"
