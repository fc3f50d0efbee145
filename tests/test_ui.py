"""`sweeps ui` of one sweep: its page, and a sweep that runs on a cluster."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from commands import call
from made_sweep import made_sweep

from sweeps.cli import tracking
from sweeps.errors import ClusterError
from sweeps.store import Store


@pytest.fixture
def small(folder: Path) -> Path:
    with Store("results") as store:
        made_sweep(store)
    return folder


def test_an_unknown_sweep_and_options_without_one_are_refused_before_anything_is_served(small: Path) -> None:
    answer = call("ui", "smal")
    assert answer.status == 2 and "no sweep named 'smal'" in answer.err and "`sweeps list`" in answer.err
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
    def refuses(*_: str) -> int:
        raise ClusterError("no route")

    monkeypatch.setattr("sweeps.cli.remote.bring", refuses)
    assert tracking._bring_again("small", "box", "results")
    monkeypatch.setattr("sweeps.cli.remote.bring", lambda *_: 3)
    with Store("results") as store, store.hold("small"):
        store.set_state("small", "running")
    assert tracking._bring_again("small", "box", "results")
    with Store("results") as store, store.hold("small"):
        store.set_state("small", "done")
    assert not tracking._bring_again("small", "box", "results")


def test_a_server_that_ends_by_itself_ends_the_command(small: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""], start_new_session=True)
    tracking._until_ended(process, None)
    assert process.returncode == 0
