"""The table of several seeds and their average, from a sweep that was really trained (small, uncompiled)."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from commands import train_in_process

from sweeps.config.sweep_file import parse
from sweeps.errors import StoreError, UserError
from sweeps.results import report
from sweeps.results.figures import draw
from sweeps.results.numbers import number
from sweeps.runner.driver import Driver
from sweeps.runner.ensembles import ensemble_table
from sweeps.store import Store
from sweeps.store.database import records

SWEEP = """
name: tiny
task: {name: algorithm, operation: copy, bins: [4, 6], examples_per_length: 50, test_rows: 20, test_length: 6,
       extrapolation_rows: 10, curve_lengths: [4, 6], curve_rows: [10, 4]}
model: {name: dngpu, maps: 6}
train: {steps: 4, batch: 4, evaluate_every: 4, lr: 0.01, optimizer: adamax}
"""


def trained(folder: Path, seeds: int, text: str = SWEEP) -> Store:
    store, sweep = Store(folder), parse(text + f"seeds: {seeds}", "tiny")
    with store.hold("tiny"):
        store.begin_sweep("tiny", sweep.text, sweep.document)
        driver = Driver(sweep, "tiny", store, None, 1)
        driver.begin()
        train_in_process(driver)
    return store


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with trained(tmp_path_factory.mktemp("store"), 2) as opened:
        yield opened


def test_the_table_has_each_seeds_errors_as_recorded_and_their_average(store, monkeypatch) -> None:
    monkeypatch.setenv("SWEEPS_COMPILE", "0")
    lines_printed: list[str] = []
    lines = ensemble_table(store, "tiny", on_progress=lines_printed.append).splitlines()
    assert lines[0] == "| length | sequences | wrong | seed 0 | seed 1 | average of 2 |"
    assert len(lines) == 2 + 2 * 2 and lines_printed[0] == "length 4: member 1 of 2"
    lanes = report(store, "tiny").configurations[0].results
    symbols = [number(lane.by_length["symbol_error"][1]) for lane in lanes]
    assert lines[5].startswith(f"| 6 | 10 | symbols | {symbols[0]} | {symbols[1]} | ")


def test_other_lengths_may_be_requested(store, monkeypatch) -> None:
    monkeypatch.setenv("SWEEPS_COMPILE", "0")
    assert ensemble_table(store, "tiny", lengths=[5]).splitlines()[2].startswith("| 5 | ")


def test_final_states_that_sweeps_did_not_write_are_refused(store, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SWEEPS_COMPILE", "0")
    shutil.copytree(store.location, tmp_path / "copy")
    with Store(tmp_path / "copy") as copy:
        with copy.database.write() as connection:
            connection.execute(sa.update(records).values(state=b"\x80\x04"))
        with pytest.raises(StoreError, match="a checkpoint is damaged, or was not written by sweeps"):
            ensemble_table(copy, "tiny")


def test_a_length_that_the_task_does_not_have_is_refused_before_any_is_measured(store, monkeypatch) -> None:
    monkeypatch.setenv("SWEEPS_COMPILE", "0")
    lines_printed: list[str] = []
    with pytest.raises(UserError, match="needs at least"):
        ensemble_table(store, "tiny", lengths=[5, 0], on_progress=lines_printed.append)
    assert lines_printed == []


def test_one_seed_is_no_ensemble(tmp_path) -> None:
    with trained(tmp_path, 1) as store, pytest.raises(UserError, match="at least 2 trained seeds, but tiny has 1"):
        ensemble_table(store, "tiny")


def test_a_task_on_numbers_has_no_ensemble(tmp_path) -> None:
    text = "name: tiny\ntask: {name: static, operation: add}\nmodel: nau\ntrain: {steps: 2}\n"
    with trained(tmp_path, 2, text) as store, pytest.raises(UserError, match="but task static has numbers"):
        ensemble_table(store, "tiny")


def test_errors_by_length_are_drawn_as_shares_that_are_right(store) -> None:
    symbols, sequences = draw(store, ["tiny"], x="length").axes
    assert [t.get_text() for t in symbols.get_xticklabels()] == ["4", "6"]
    assert symbols.get_ylabel() == "symbols right" and sequences.get_ylabel() == "sequences right"
    lanes = report(store, "tiny").configurations[0].results
    expected = [1 - lane.by_length["symbol_error"][0] for lane in lanes]
    drawn = np.asarray(symbols.lines[0].get_ydata()).reshape(len(lanes), -1)  # a seed after the other, with gaps between
    assert drawn[:, 0].tolist() == pytest.approx(expected)
