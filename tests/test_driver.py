"""A running sweep without a cluster: no worker, restart or loss changes what comes out, and nothing is trained twice."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sweeps.config.sweep_file import Sweep, from_document
from sweeps.results import as_json, report
from sweeps.runner.driver import MAX_LOSSES, Driver, PackOrder
from sweeps.runner.worker import PackRun
from sweeps.store import Store

DOCUMENT: dict[str, Any] = {
    "name": "tiny",
    "task": {"name": "static", "input_size": 10},
    "train": {"steps": 20, "batch": 8, "evaluate_every": 10},
    "compare": {"model": ["linear", "nau"]},
    "seeds": 3,
    "search": {
        "sampler": "random",
        "configurations": 3,
        "parallel": 2,
        "space": {"train.lr": {"log_uniform": [1e-4, 1e-1]}},
    },
    # Of the same size whatever the number of workers: uncompiled, packs of other sizes differ by rounding.
    "resources": {"slots": 4},
}
PLAIN = {key: value for key, value in DOCUMENT.items() if key != "search"}
LANES = 2 * 3 * 3


def sweep_of(document: dict[str, Any] = DOCUMENT, **changes: Any) -> Sweep:
    return from_document({**document, **changes})


def started(sweep: Sweep, store: Store, workers: int = 1) -> Driver:
    if store.sweep(sweep.name) is None:
        store.begin_sweep(sweep.name, sweep.text, sweep.document)
    driver = Driver(sweep, sweep.name, store, None, workers)
    driver.begin()
    return driver


def rounds(driver: Driver, workers: int = 1, orders: list[PackOrder] | None = None) -> Iterator[None]:
    """Workers that take turns: in each round every one of them trains a little and reports."""
    runs: dict[str, PackRun] = {}
    count = 0
    while True:
        while len(runs) < workers:
            order = driver.next_pack(f"pack {count}")
            if order is None:
                break
            if orders is not None:
                orders.append(order)
            runs[order.pack_id] = PackRun(order, compiled=False)
            count += 1
        if not runs:
            return
        for pack_id, run in list(runs.items()):
            driver.receive(pack_id, run.work(period_s=0.01))
            if run.done:
                driver.pack_ended(pack_id)
                del runs[pack_id]
        yield


def run(driver: Driver, workers: int = 1) -> list[PackOrder]:
    """Trains everything; returns the packs that were given out."""
    orders: list[PackOrder] = []
    for _ in rounds(driver, workers, orders):
        pass
    assert driver.done
    return orders


def trained(orders: list[PackOrder]) -> list[tuple[str, int]]:
    return sorted((lane.settings["model"]["name"], lane.seed) for order in orders for lane in order.lanes)


def text(store: Store, name: str = "tiny") -> str:
    return as_json(report(store, name), timing=False)


@contextmanager
def held_store(folder: Path) -> Iterator[Store]:
    """A store whose sweeps may be driven from here."""
    with Store(folder) as opened, opened.hold("tiny"), opened.hold("other"):
        yield opened


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with held_store(tmp_path / "results") as opened:
        yield opened


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    with held_store(tmp_path_factory.mktemp("undisturbed")) as opened:
        driver = started(sweep_of(), opened)
        orders = run(driver)
        assert len(trained(orders)) == driver.lanes_done == driver.lanes_planned == LANES
        assert driver.seed_steps == LANES * 20
        return text(opened)


def test_two_workers_give_the_report_of_one_byte_for_byte(store, undisturbed) -> None:
    run(started(sweep_of(), store, workers=2), workers=2)
    assert text(store) == undisturbed


@pytest.mark.parametrize("number", [1, 4, 7])
def test_a_run_cut_off_in_the_middle_and_continued_gives_the_same_report(store, undisturbed, number) -> None:
    going = rounds(started(sweep_of(), store, workers=2), workers=2)
    for _ in range(number):
        next(going)
    before = len(store_records(store))
    again = started(sweep_of(), store)
    assert again.lanes_reused == before and not again.done
    assert len(trained(run(again))) == LANES - before
    assert text(store) == undisturbed


def store_records(store: Store, name: str = "tiny", budget: int = 20) -> dict[Any, Any]:
    keys = {key for entry in store.configurations(name) for key in entry.keys.values()}
    return store.records((key, budget) for key in keys)


def test_nothing_is_left_to_do_for_a_sweep_that_is_done(store, undisturbed) -> None:
    run(started(sweep_of(), store))
    again = started(sweep_of(), store)
    assert again.done and again.lanes_reused == LANES and again.next_pack("more") is None
    assert text(store) == undisturbed


def test_lanes_of_a_lost_worker_go_on_from_their_checkpoints(store, undisturbed) -> None:
    driver = started(sweep_of(), store)
    order = driver.next_pack("lost")
    assert order is not None
    result = PackRun(order, compiled=False).work(period_s=0.01)
    assert not result.results and {c.steps for c in result.checkpoints.values()} == {1}  # between evaluations
    driver.receive("lost", result)
    driver.pack_ended("lost", "its process died")
    orders = run(driver)
    given = {lane.key: lane.checkpoint for later in orders for lane in later.lanes}
    assert all(given[lane.key] is not None for lane in order.lanes)
    assert len(trained(orders)) == LANES
    assert driver.seed_steps == LANES * 20
    assert text(store) == undisturbed


def test_what_a_lost_worker_reported_before_is_kept(store) -> None:
    short = sweep_of(PLAIN, compare={"model": ["nau"]}, seeds=5)
    driver = started(short, store)
    order = driver.next_pack("lost")
    assert order is not None and len(order.lanes) == 4
    running, result = PackRun(order, compiled=False), None
    while result is None or not result.results:
        result = running.work()
        driver.receive("lost", result)
    driver.pack_ended("lost", "its process died")
    assert trained(run(driver)) == [("nau", 4)]


def test_a_lane_whose_workers_are_lost_three_times_is_an_error_and_the_others_go_on(store) -> None:
    driver = started(sweep_of(PLAIN), store)
    first = driver.next_pack("pack")
    assert first is not None
    lost = {lane.key for lane in first.lanes}
    driver.pack_ended("pack", "killed")
    for loss in range(2, MAX_LOSSES + 1):
        order = driver.next_pack("pack")
        assert order is not None and {lane.key for lane in order.lanes} == lost
        driver.pack_ended("pack", f"killed again, {loss}")
    assert {key for key, _ in store_records(store)} == lost
    run(driver)
    records = store_records(store).values()
    assert len(records) == 6
    for record in records:
        assert (record.outcome == "error") == (record.key in lost)
        if record.key in lost:
            assert record.reason == "its worker was lost 3 times; the last time: killed again, 3"
    assert [entry.state for entry in store.configurations("tiny")] == ["failed", "complete"]


def test_lanes_that_were_errors_are_tried_again_by_the_next_run(store) -> None:
    driver = started(sweep_of(PLAIN), store)
    for _ in range(MAX_LOSSES):
        assert driver.next_pack("pack") is not None
        driver.pack_ended("pack", "killed")
    run(driver)
    again = started(sweep_of(PLAIN), store)
    assert len(trained(run(again))) == 3
    assert {record.outcome for record in store_records(store).values()} == {"unsolved"}
    assert {entry.state for entry in store.configurations("tiny")} == {"complete"}


def test_more_seeds_train_only_what_is_missing_and_end_as_if_asked_for_at_once(store, tmp_path) -> None:
    run(started(sweep_of(PLAIN, seeds=2), store))
    more = started(sweep_of(PLAIN, seeds=4), store)
    assert trained(run(more)) == [("linear", 2), ("linear", 3), ("nau", 2), ("nau", 3)]
    with held_store(tmp_path / "at once") as other:
        run(started(sweep_of(PLAIN, seeds=4), other))
        assert lanes_and_figures(store) == lanes_and_figures(other)


def lanes_and_figures(store: Store) -> list[Any]:
    return report(store, "tiny").as_dict()["configurations"]


def test_another_sweep_that_shares_lanes_takes_them_from_the_store(store) -> None:
    run(started(sweep_of(PLAIN), store))
    other = started(sweep_of(PLAIN, name="other", compare={"model": ["relu", "nau"]}), store)
    assert other.lanes_reused == 3
    assert {name for name, _ in trained(run(other))} == {"relu"}
    by_model = [
        {c["cell"]["model"]: c for c in report(store, name).as_dict()["configurations"]}
        for name in ("tiny", "other")
    ]
    assert by_model[0]["nau"]["lanes"] == by_model[1]["nau"]["lanes"]


@pytest.mark.parametrize(("shorter", "goes_on"), [(10, True), (15, False)])
def test_a_longer_budget_goes_on_from_a_state_on_the_grid_and_equals_a_run_of_that_length(
    store, tmp_path, shorter, goes_on
) -> None:
    """Evaluations stand at multiples of evaluate_every: a state between them would put them elsewhere."""
    run(started(with_steps(shorter), store))
    longer = started(with_steps(30), store)
    lanes = sum(len(order.lanes) for order in run(longer))
    assert longer.seed_steps == lanes * (30 - shorter if goes_on else 30)
    with held_store(tmp_path / "at once") as other:
        run(started(with_steps(30), other))
        assert curves(store, 30) == curves(other, 30)


def with_steps(steps: int) -> Sweep:
    return sweep_of(PLAIN, train={**DOCUMENT["train"], "steps": steps})


def curves(store: Store, budget: int) -> dict[Any, Any]:
    found = store_records(store, budget=budget)
    return {key: (record.curve, record.steps, record.outcome) for key, record in found.items()}


def test_after_a_longer_budget_the_report_is_of_that_budget(store, tmp_path) -> None:
    run(started(with_steps(10), store))
    run(started(with_steps(20), store))
    with held_store(tmp_path / "at once") as other:
        run(started(with_steps(20), other))
        assert lanes_and_figures(store) == lanes_and_figures(other)


def test_two_configurations_of_equal_settings_train_their_lanes_once(store) -> None:
    axis = [{"label": "a", "train": {"lr": 0.001}}, {"label": "b", "train": {"lr": 1e-3}}]
    driver = started(sweep_of(PLAIN, compare={"twice": axis}, model="nau"), store)
    assert trained(run(driver)) == [("nau", 0), ("nau", 1), ("nau", 2)]
    first, second = lanes_and_figures(store)
    assert first["lanes"] == second["lanes"] and len(first["lanes"]) == 3


def test_the_budget_of_hours_ends_a_sweep_and_says_so(store) -> None:
    driver = started(sweep_of(PLAIN, budget={"hours": 1e-6}), store)
    driver._started -= 1
    assert driver.next_pack("pack") is None and not driver.done
    assert driver.stopping == "the budget of 1e-06 hours is used up"


def test_a_sweep_that_is_stopping_gives_out_nothing_more(store) -> None:
    driver = started(sweep_of(PLAIN), store)
    driver.stopping = "SIGTERM was received"
    assert driver.next_pack("pack") is None


def test_results_of_a_pack_that_was_given_up_are_kept_and_counted_once(store) -> None:
    """A worker that was thought lost may report after all."""
    driver = started(sweep_of(PLAIN, seeds=2), store)
    order = driver.next_pack("slow")
    assert order is not None
    running = PackRun(order, compiled=False)
    driver.pack_ended("slow", "no sign of life")
    while not running.done:
        driver.receive("slow", running.work())
    run(driver)
    assert driver.lanes_done == 4
    assert len(store_records(store)) == 4


def test_what_is_asked_is_in_the_store_before_its_first_lane_starts(store) -> None:
    started(sweep_of(), store)
    asked = [(entry.cell, entry.number) for entry in store.configurations("tiny")]
    assert asked == [("model=linear", 0), ("model=linear", 1), ("model=nau", 0), ("model=nau", 1)]


def test_a_lane_that_cannot_be_built_ends_as_an_error_in_the_report(store) -> None:
    driver = started(sweep_of(PLAIN, compare={"model": ["nau"]}), store)
    order = driver.next_pack("pack")
    assert order is not None
    impossible = copy.deepcopy(order.lanes[1].settings)
    impossible["task"]["interpolation"] = [2.0, 1.0]
    broken = order.lanes[1] = dataclasses.replace(order.lanes[1], settings=impossible)
    running = PackRun(order, compiled=False)
    while not running.done:
        driver.receive("pack", running.work())
    driver.pack_ended("pack")
    outcomes = {record.seed: record.outcome for record in store_records(store).values()}
    assert driver.done and outcomes == dict.fromkeys(range(3), "unsolved") | {broken.seed: "error"}
    assert driver.only_errors is None


def test_a_sweep_whose_every_lane_ended_in_an_error_is_told_as_failed(store) -> None:
    driver = started(sweep_of(PLAIN, compare={"model": ["nau"]}), store)
    for _ in range(MAX_LOSSES):
        assert driver.next_pack("pack") is not None
        driver.pack_ended("pack", "its process died or raised")
    assert driver.done
    assert driver.only_errors == "its worker was lost 3 times; the last time: its process died or raised"
