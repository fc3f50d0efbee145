"""Verbs of MLflow: sync writes its runs, ui serves its pages."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Annotated

import typer

from sweeps.cli.app import StoreOption, app, console, require_store
from sweeps.errors import UserError
from sweeps.machine import has_room

ROOM_BYTES = 256 * 1024
"""What SQLite needs to open a database with a write-ahead log."""


@app.command("sync")
def sync_(name: str, store: StoreOption = "results") -> None:
    """Write a sweep's MLflow runs from the records. What is there is kept; what was deleted in MLflow is restored."""
    from sweeps.runner.run import sync
    from sweeps.store import Store

    require_store(store)
    with Store(store, read_only=True) as opened:
        row = opened.sweep(name)
        if row is None:
            raise UserError(f"no sweep named {name!r} in {opened.location}: `sweeps list` lists them")
        sync(name, opened, store)


@app.command()
def ui(
    name: Annotated[str | None, typer.Argument(help="a sweep, whose leaderboard is opened")] = None,
    store: StoreOption = "results",
    host: str = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 5000,
    open_: Annotated[bool, typer.Option("--open", help="open the page in the browser too")] = False,
) -> None:
    """Serve MLflow's pages of the store's sweeps, by default for this machine only."""
    from sweeps.runner.run import mlflow_page, sync_all
    from sweeps.store import Store
    from sweeps.tracking import default_uri, serve, stop
    from sweeps.tracking.server import address

    require_store(store)
    if name is not None:
        with Store(store, read_only=True) as opened:
            if opened.sweep(name) is None:
                raise UserError(f"no sweep named {name!r} in {opened.location}: `sweeps list` lists them")

    def page(uri: str, server: str) -> str:
        if name is None:  # without the query MLflow opens its pages for language models
            return f"{server}/#/experiments?workflowType=machine_learning"
        with Store(store, read_only=True) as opened:
            return mlflow_page(name, opened, store, uri, server)

    given = default_uri(store)
    if name is not None and given.startswith(("http://", "https://")):  # nothing is to be served
        _show(page(given, given), open_)
        return
    # SIGTERM must end the server too, which is in another session.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with _writable(given) as uri:
        _fill_if_absent(uri, store)
        process = serve(uri, host, port, refill=partial(sync_all, store))
        try:
            _show(page(uri, address(host, port)), open_, "   (Ctrl-C ends it)")
            while process.poll() is None:
                time.sleep(0.5)
        except KeyboardInterrupt:
            pass
        finally:
            stop(process)


def _fill_if_absent(uri: str, store: str) -> None:
    """Write every sweep of the store where MLflow's database was deleted, or never made."""
    from sweeps.runner.run import sync_all
    from sweeps.tracking.client import sqlite_file

    file = sqlite_file(uri)
    if file is not None and not file.exists():
        console.print(f"there is no {file}: it is written from the records", highlight=False, soft_wrap=True)
        sync_all(store, uri)


def _show(page: str, in_browser: bool, more: str = "") -> None:
    console.print(f"MLflow: {page}{more}", highlight=False, soft_wrap=True)
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
