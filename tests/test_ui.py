"""`sweeps ui` of one sweep: its page, and a sweep that runs on a cluster."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import types
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from commands import call
from made_sweep import made_sweep

from sweeps.cli import tracking
from sweeps.errors import ClusterError, UserError
from sweeps.store import Store
from sweeps.web import serving


@pytest.fixture
def small(folder: Path) -> Path:
    with Store("results") as store:
        made_sweep(store)
    return folder


def test_an_unknown_sweep_and_options_without_one_are_refused_before_anything_is_served(small: Path) -> None:
    answer = call("ui", "smal")
    assert answer.status == 2 and "no sweep named 'smal'. Did you mean 'small'?" in answer.err
    answer = call("ui", "--on", "local")
    assert answer.status == 2 and "sweeps ui NAME --on local" in answer.err


def test_a_sweep_is_fetched_again_until_it_has_ended(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "FETCH_S", 0.0)
    answers = iter([True, True, False])
    calls = []

    def again() -> bool:
        calls.append(next(answers))
        return calls[-1]

    tracking._until_ended(None, again)
    assert calls == [True, True, False]


def test_a_cluster_that_does_not_answer_is_asked_again_and_ends_nothing(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for error in (ClusterError("no route"), UserError("no cluster 'box'")):
        monkeypatch.setattr("cluster.clusters_file.find_cluster", lambda _, error=error: box(error))
        assert tracking._bring_again("small", "box", "results")
        assert f"tried again: {error}" in capsys.readouterr().out.replace("\n", " ")


def box(*answers: Any) -> Any:
    """A cluster: each fetch raises an error, or gives the sweep a state and returns how many records were new."""
    left = iter(answers)

    def fetch(name: str, store: Store) -> int:
        answer = next(left)
        if isinstance(answer, Exception):
            raise answer
        fresh, state = answer
        store.set_state(name, state)
        return int(fresh)

    return types.SimpleNamespace(fetch=fetch)


def test_runs_are_written_again_only_where_something_is_new_and_none_is_restored(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [(3, "running"), (0, "running"), (2, "running"), (0, "running"), (0, "done")]
    cluster, written = box(*answers), []
    monkeypatch.setattr("cluster.clusters_file.find_cluster", lambda _: cluster)
    monkeypatch.setattr("sweeps.runner.run.sync", lambda name, *_, restore: written.append((name, restore)))
    more = []
    counts = []
    for _ in answers:
        more.append(tracking._bring_again("small", "box", "results"))
        counts.append(len(written))
    assert more == [True, True, True, True, False]
    assert counts == [1, 1, 2, 2, 3] and set(written) == {("small", False)}


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("optuna", [False, True])
def test_a_closed_terminal_ends_the_server_too(
    small: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, optuna: bool
) -> None:
    before = signal.signal(number, signal.default_int_handler)  # ignored where the tests run in the background
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    monkeypatch.setattr(tracking, "_fill_if_absent", lambda *_: None)
    monkeypatch.setattr("sweeps.tracking.serve", lambda *_, **__: process)
    monkeypatch.setattr("sweeps.search.dashboard.serve_dashboard", lambda *_: process)
    monkeypatch.setattr(tracking, "_show", lambda *_: os.kill(os.getpid(), number))
    try:
        call("ui", *(["small", "--optuna"] if optuna else []))
        assert process.poll() is not None
    finally:
        signal.signal(number, before)
        process.kill()
        process.wait()


def test_a_server_that_ends_by_itself_ends_the_command(small: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""], start_new_session=True)
    with serving(process):
        tracking._until_ended(process, None)
    assert process.returncode == 0


@pytest.mark.slow
def test_a_sweep_on_a_cluster_is_served_while_it_is_fetched_and_the_server_ends_with_the_command(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store("results") as store, store.hold("small"):
        store.set_state("small", "running")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pages = []

    def bring(name: str, on: str, store: str) -> int:
        assert (name, on, store) == ("small", "box", "results")
        if len(pages) == 2:
            raise KeyboardInterrupt
        if pages:  # the server is there by now
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20) as page:
                pages.append(page.status)
        else:
            pages.append(0)
        return 3

    monkeypatch.setattr(tracking, "FETCH_S", 0.0)
    monkeypatch.setattr("sweeps.cli.remote.bring", bring)
    monkeypatch.setattr(
        "cluster.clusters_file.find_cluster", lambda on: types.SimpleNamespace(fetch=lambda name, _: bring(name, on, "results"))
    )
    answer = call("ui", "small", "--on", "box", "--port", str(port))
    assert answer.status == 0 and pages == [0, 200], answer
    assert "small: 3 new records of box" in answer.out
    assert f"http://127.0.0.1:{port}/#/experiments/1/runs?viewStateShareKey=sweeps-leaderboard" in answer.out
    with socket.socket() as again:
        assert again.connect_ex(("127.0.0.1", port)) != 0
