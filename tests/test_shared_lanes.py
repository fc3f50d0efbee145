"""Lanes that several configurations have in common are trained once. The driver with packs in this process, no Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sweeps.config.sweep_file import parse
from sweeps.results import as_json, report
from sweeps.runner.driver import Driver
from sweeps.runner.worker import PackRun
from sweeps.store import Store

COMMON = """
task: {name: static, operation: sub, input_size: 10}
model: linear
seeds: 3
"""


def drive(store: Store, text: str, name: str = "s", losses: int = 0, dumb: bool = False) -> Driver:
    """Runs a sweep's packs here, one after another; loses the first workers, before they told anything if `dumb`."""
    sweep = parse(COMMON + text, name, [f"name={name}"])
    with store.hold(name):
        if store.sweep(name) is None:
            store.begin_sweep(name, sweep.text, sweep.document)
        driver = Driver(sweep, name, store, None, 1)
        driver.begin()
        packs = 0
        while not driver.done:
            order = driver.next_pack(f"pack{packs}")
            assert order is not None, "the sweep waits for something that nobody trains"
            assert len({lane.key for lane in order.lanes}) == len(order.lanes), "a lane twice in one pack"
            run = PackRun(order, compiled=False)
            if packs < losses:
                told = run.work(0.0)
                if not dumb:
                    driver.receive(order.pack_id, told)
            else:
                while not run.done:
                    driver.receive(order.pack_id, run.work(60.0))
            driver.pack_ended(order.pack_id, "its process died")
            packs += 1
        store.set_state(name, "done")
    return driver


def configurations(store: Store, name: str = "s") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = report(store, name).as_dict()["configurations"]
    return found


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with Store(tmp_path) as opened:
        yield opened


def test_cells_with_equal_settings_share_their_lanes(store: Store) -> None:
    axis = "train: {steps: 40, batch: 4, evaluate_every: 20}\ncompare: {case: [{label: a}, {label: b, train: {lr: 1e-3}}]}"
    driver = drive(store, axis)
    a, b = configurations(store)
    assert a["state"] == b["state"] == "complete"
    assert a["lanes"] == b["lanes"]
    assert driver.seed_steps == 3 * 40, "each lane is trained once"


def test_a_search_that_suggests_the_same_values_twice_ends(store: Store) -> None:
    search = (
        "train: {steps: 20, batch: 4, evaluate_every: 20}\n"
        "search: {sampler: random, configurations: 5, parallel: 5, space: {train.lr: {choice: [1e-3, 1e-2]}}}"
    )
    driver = drive(store, search)
    assert [entry["state"] for entry in configurations(store)] == ["complete"] * 5
    assert driver.seed_steps == 2 * 3 * 20


def test_a_longer_budget_goes_on_from_the_shorter_one(store: Store) -> None:
    axis = "train: {steps: 40, batch: 4, evaluate_every: 20}\ncompare: {case: [{label: a}, {label: b, train: {steps: 100}}]}"
    driver = drive(store, axis)
    assert [entry["lanes"][0]["steps"] for entry in configurations(store)] == [40, 100]
    assert driver.seed_steps == 3 * 100


def test_a_budget_that_ends_off_the_evaluation_grid_changes_nothing_of_a_longer_one(
    store: Store, tmp_path: Path
) -> None:
    train = "train: {{steps: {}, batch: 4, evaluate_every: 20}}"
    drive(store, train.format(50), "short")
    drive(store, train.format(100), "long")
    with Store(tmp_path / "another") as fresh:
        drive(fresh, train.format(100), "long")
        key = next(iter(fresh.configurations("long")[0].keys.values()))
        assert fresh.records([(key, 100)])[key, 100].curve == store.records([(key, 100)])[key, 100].curve
        assert configurations(fresh, "long") == configurations(store, "long")


def test_a_lost_worker_s_lanes_are_trained_again_with_the_same_report(store: Store, tmp_path: Path) -> None:
    text = "train: {steps: 60, batch: 4, evaluate_every: 20}\ncompare: {case: [{label: a}, {label: b}]}"
    drive(store, text, losses=2)
    with Store(tmp_path / "another") as calm:
        drive(calm, text)
        assert as_json(report(calm, "s"), timing=False) == as_json(report(store, "s"), timing=False)


def test_lanes_whose_worker_is_lost_every_time_end_in_an_error_that_says_so(store: Store) -> None:
    drive(store, "train: {steps: 60, batch: 4, evaluate_every: 20}", losses=3, dumb=True)
    (entry,) = configurations(store)
    assert entry["state"] == "failed" and entry["errors"] == 3
    assert "lost 3 times; the last time: its process died" in entry["lanes"][0]["reason"]


def test_a_worker_lost_after_its_lanes_got_farther_is_not_their_fault(store: Store) -> None:
    drive(store, "train: {steps: 60, batch: 4, evaluate_every: 20}", losses=5)
    (entry,) = configurations(store)
    assert entry["state"] == "complete" and entry["errors"] == 0
