"""The driver without a cluster: workers, restarts and losses never change the results, and no lane is trained twice."""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from commands import plain

from sweeps.config.sweep_file import Sweep, from_document, parse
from sweeps.results import as_json, report
from sweeps.runner import worker
from sweeps.runner.driver import MAX_LOSSES, Driver, PackRequest
from sweeps.runner.worker import PackRun
from sweeps.store import Store
from sweeps.training import pack

DOCUMENT: dict[str, Any] = {
    "name": "tiny",
    "task": {"name": "static", "input_size": 10},
    "train": {"steps": 20, "batch": 8, "evaluate_every": 10},
    "compare": {"model": ["linear", "nau"]},
    "seeds": 3,
    "search": {"sampler": "random", "configurations": 3, "parallel": 2, "space": {"train.lr": {"log_uniform": [1e-4, 1e-1]}}},
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


def rounds(driver: Driver, workers: int = 1, requests: list[PackRequest] | None = None) -> Iterator[None]:
    """Let workers take turns: in each round every one of them trains for a short time and reports."""
    runs: dict[str, PackRun] = {}
    count = 0
    while True:
        while len(runs) < workers:
            request = driver.next_pack(f"pack {count}")
            if request is None:
                break
            if requests is not None:
                requests.append(request)
            runs[request.pack_id] = PackRun(plain(request))
            count += 1
        if not runs:
            return
        for pack_id, run in list(runs.items()):
            driver.receive(pack_id, run.work(period_s=0.01))
            if run.done:
                driver.pack_ended(pack_id)
                del runs[pack_id]
        yield


def run(driver: Driver, workers: int = 1) -> list[PackRequest]:
    """Train all lanes and return the packs."""
    requests: list[PackRequest] = []
    for _ in rounds(driver, workers, requests):
        pass
    assert driver.done
    return requests


def trained(requests: list[PackRequest]) -> list[tuple[str, int]]:
    return sorted((lane.settings["model"]["name"], lane.seed) for request in requests for lane in request.lanes)


def text(store: Store, name: str = "tiny") -> str:
    return as_json(report(store, name), timing=False)


@contextmanager
def held_store(folder: Path) -> Iterator[Store]:
    """A store whose sweeps this test holds."""
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
        requests = run(driver)
        assert len(trained(requests)) == driver.lanes_done == driver.lanes_planned == LANES
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


def test_lanes_of_a_lost_worker_go_on_from_their_checkpoints(store, undisturbed, monkeypatch) -> None:
    monkeypatch.setattr(pack, "FIRST_RUN", 1)  # a step of one lane, then the clock is read
    driver = started(sweep_of(), store)
    request = driver.next_pack("lost")
    assert request is not None
    result = PackRun(plain(request)).work(period_s=0.0)
    assert not result.results and {c.steps for c in result.checkpoints.values()} == {0, 1}  # between evaluations
    driver.receive("lost", result)
    driver.pack_ended("lost", "its process died")
    requests = run(driver)
    given = {lane.key: lane.checkpoint for later in requests for lane in later.lanes}
    assert all(given[lane.key] is not None for lane in request.lanes)
    assert len(trained(requests)) == LANES
    assert driver.seed_steps == LANES * 20
    assert text(store) == undisturbed


class Clock:
    """A clock that advances where a test says so, and by a second at each reading if it `ticks`."""

    def __init__(self, ticks: bool = False) -> None:
        self.now_s, self._ticks = 0.0, ticks

    def __call__(self) -> float:
        self.now_s += self._ticks
        return self.now_s


def test_a_worker_lost_between_batches_of_checkpoints_loses_no_lane(store, undisturbed, monkeypatch) -> None:
    monkeypatch.setattr(pack, "FIRST_RUN", 1)
    monkeypatch.setattr(pack, "BATCH", 1)
    monkeypatch.setattr(worker, "CHECKPOINT_SHARE", 1.0)
    driver = started(sweep_of(), store)
    request = driver.next_pack("lost")
    assert request is not None
    lost, saved = PackRun(plain(request), Clock(ticks=True)), []
    for _ in range(6):
        report = lost.work(period_s=0.0)
        saved.append(len(report.checkpoints))
        driver.receive("lost", report)
    assert all(0 < count < len(request.lanes) for count in saved)
    driver.pack_ended("lost", "its process died")
    requests = run(driver)
    given = [lane.checkpoint for later in requests for lane in later.lanes if lane.checkpoint is not None]
    assert len({checkpoint.steps for checkpoint in given}) > 1
    assert len(trained(requests)) == LANES
    assert text(store) == undisturbed


def test_checkpoints_take_two_percent_of_the_time_and_every_lane_has_its_turn(store, monkeypatch) -> None:
    """Time is what a clock of the test counts: a second for a step, a tenth for a checkpoint, three for sending them."""
    monkeypatch.setattr(pack, "BATCH", 1)
    monkeypatch.setattr(worker, "SMALL_REPORT_BYTES", 0)
    driver = started(sweep_of(PLAIN, train={**DOCUMENT["train"], "steps": 10**6}, compare={"model": ["nau"]}), store)
    request = driver.next_pack("long")
    assert request is not None
    clock, spent_s = Clock(), 0.0
    long = PackRun(plain(request), clock)
    assert long.pack is not None
    step, write = long.pack.trainer.train, pack.to_bytes

    def a_second_of_training(which: Any, steps: Any) -> None:
        clock.now_s += 1.0
        step(which[:1], steps[:1].clip(max=1))

    def a_tenth_for_each(states: Any, curves: Any, wall_time_s: Any, best: Any = None) -> list[bytes]:
        nonlocal spent_s
        clock.now_s += 0.1 * len(wall_time_s)
        spent_s += 0.1 * len(wall_time_s)
        return write(states, curves, wall_time_s, best)

    monkeypatch.setattr(long.pack.trainer, "train", a_second_of_training)
    monkeypatch.setattr(pack, "to_bytes", a_tenth_for_each)
    times = dict.fromkeys((lane.key for lane in request.lanes), 0)
    for _ in range(1000):
        report = long.work(period_s=5.0)
        for key in report.checkpoints:
            times[key] += 1
        if report.checkpoints:
            clock.now_s += 3.0
            spent_s += 3.0
    assert 0.01 * clock.now_s < spent_s <= 0.02 * clock.now_s + 3.0 + 0.1 * len(times)
    assert min(times.values()) >= 10 and max(times.values()) - min(times.values()) <= 1


def test_results_that_a_lost_worker_reported_are_kept(store) -> None:
    short = sweep_of(PLAIN, compare={"model": ["nau"]}, seeds=5)
    driver = started(short, store)
    request = driver.next_pack("lost")
    assert request is not None and len(request.lanes) == 4
    running, result = PackRun(plain(request)), None
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
        request = driver.next_pack("pack")
        assert request is not None and {lane.key for lane in request.lanes} == lost
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


@pytest.mark.parametrize("failures", [2, "49%"])
def test_a_run_stops_when_more_lanes_end_in_an_error_than_the_budget_allows(store, failures) -> None:
    """Three of six lanes: one pack is lost three times."""
    driver = started(sweep_of(PLAIN, budget={"failures": failures}), store)
    for _ in range(MAX_LOSSES):
        assert driver.next_pack("pack") is not None
        driver.pack_ended("pack", "killed")
    assert driver.next_pack("pack") is None and not driver.done
    assert driver.stop_reason is not None
    assert driver.stop_reason.startswith("3 of 6 lanes ended in an error, and `budget.failures` allows 2; the last one: its")
    assert "`budget.failures` is larger" in driver.how_to_continue
    again = started(sweep_of(PLAIN, budget={"failures": "50%"}), store)
    run(again)
    assert again.done and again.stop_reason is None


def test_more_seeds_train_only_what_is_missing_and_end_as_if_they_had_been_there_from_the_start(store, tmp_path) -> None:
    run(started(sweep_of(PLAIN, seeds=2), store))
    extended = sweep_of(PLAIN, seeds=4)
    store.update_definition("tiny", extended.text, extended.document)
    more = started(extended, store)
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
    by_model = [{c["cell"]["model"]: c for c in report(store, name).as_dict()["configurations"]} for name in ("tiny", "other")]
    assert by_model[0]["nau"]["lanes"] == by_model[1]["nau"]["lanes"]


@pytest.mark.parametrize(("shorter", "goes_on"), [(10, True), (15, False)])
def test_a_longer_budget_goes_on_from_a_state_on_the_grid_and_equals_a_run_of_that_length(
    store, tmp_path, shorter, goes_on
) -> None:
    """Evaluations are at multiples of evaluate_every: continued from a state between them they would be elsewhere."""
    run(started(with_steps(shorter), store))
    longer = started(with_steps(30), store)
    lanes = sum(len(request.lanes) for request in run(longer))
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


def test_the_budget_of_hours_stops_a_sweep(store) -> None:
    driver = started(sweep_of(PLAIN, budget={"hours": 1e-6}), store)
    time.sleep(0.01)  # longer than 1e-6 hours
    assert driver.next_pack("pack") is None and not driver.done
    assert driver.stop_reason == "the budget of 1e-06 hours is used up"
    assert driver.how_to_continue == "the same command with a larger budget, such as `budget.hours=2e-06`, continues"


def test_a_sweep_that_is_stopping_starts_no_pack(store) -> None:
    driver = started(sweep_of(PLAIN), store)
    driver.stop_reason = "SIGTERM was received"
    assert driver.next_pack("pack") is None


def test_results_of_a_pack_that_was_ended_before_are_kept_and_counted_once(store) -> None:
    """A worker that was counted as lost may still report."""
    driver = started(sweep_of(PLAIN, seeds=2), store)
    request = driver.next_pack("slow")
    assert request is not None
    running = PackRun(plain(request))
    driver.pack_ended("slow", "no sign of life")
    while not running.done:
        driver.receive("slow", running.work())
    run(driver)
    assert driver.lanes_done == 4
    assert len(store_records(store)) == 4


def test_a_configuration_is_in_the_store_before_its_first_lane_starts(store) -> None:
    started(sweep_of(), store)
    stored = [(entry.cell, entry.number) for entry in store.configurations("tiny")]
    assert stored == [("model=linear", 0), ("model=linear", 1), ("model=nau", 0), ("model=nau", 1)]


def test_a_lane_that_cannot_be_built_ends_as_an_error_in_the_report(store) -> None:
    driver = started(sweep_of(PLAIN, compare={"model": ["nau"]}), store)
    request = driver.next_pack("pack")
    assert request is not None
    impossible = copy.deepcopy(request.lanes[1].settings)
    impossible["task"]["interpolation"] = [2.0, 1.0]
    broken = request.lanes[1] = dataclasses.replace(request.lanes[1], settings=impossible)
    running = PackRun(plain(request))
    while not running.done:
        driver.receive("pack", running.work())
    driver.pack_ended("pack")
    outcomes = {record.seed: record.outcome for record in store_records(store).values()}
    assert driver.done and outcomes == dict.fromkeys(range(3), "unsolved") | {broken.seed: "error"}
    assert driver.common_error is None


def test_a_sweep_with_errors_in_every_lane_has_a_common_error(store) -> None:
    driver = started(sweep_of(PLAIN, compare={"model": ["nau"]}), store)
    for _ in range(MAX_LOSSES):
        assert driver.next_pack("pack") is not None
        driver.pack_ended("pack", "its process died or raised")
    assert driver.done
    assert driver.common_error == "its worker was lost 3 times; the last time: its process died or raised"


# Lanes that several configurations have in common

COMMON = """
task: {name: static, operation: sub, input_size: 10}
model: linear
seeds: 3
"""


def drive(store: Store, text: str, name: str = "s", losses: int = 0) -> Driver:
    """Run a sweep's packs in this process, one after another. The first `losses` are lost."""
    sweep = parse(COMMON + text, name, [f"name={name}"])
    with store.hold(name):
        if store.sweep(name) is None:
            store.begin_sweep(name, sweep.text, sweep.document)
        driver = Driver(sweep, name, store, None, 1)
        driver.begin()
        packs = 0
        while not driver.done:
            request = driver.next_pack(f"pack{packs}")
            assert request is not None, "the sweep waits for a lane that no worker trains"
            assert len({lane.key for lane in request.lanes}) == len(request.lanes), "a lane twice in one pack"
            pack = PackRun(plain(request))
            if packs < losses:
                driver.receive(request.pack_id, pack.work(0.0))
            else:
                while not pack.done:
                    driver.receive(request.pack_id, pack.work(60.0))
            driver.pack_ended(request.pack_id, "its process died")
            packs += 1
        store.set_state(name, "done")
    return driver


def configurations(store: Store, name: str = "s") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = report(store, name).as_dict()["configurations"]
    return found


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
    found = configurations(store)
    assert [entry["state"] for entry in found] == ["complete"] * 2
    assert sorted(number for entry in found for number in (entry["number"], *entry["repeats"])) == [0, 1, 2, 3, 4]
    assert driver.seed_steps == 2 * 3 * 20


def test_a_longer_budget_goes_on_from_the_shorter_one(store: Store) -> None:
    axis = "train: {steps: 40, batch: 4, evaluate_every: 20}\ncompare: {case: [{label: a}, {label: b, train: {steps: 100}}]}"
    driver = drive(store, axis)
    assert [entry["lanes"][0]["steps"] for entry in configurations(store)] == [40, 100]
    assert driver.seed_steps == 3 * 100


def test_a_budget_that_ends_off_the_evaluation_grid_changes_nothing_of_a_longer_one(store: Store, tmp_path: Path) -> None:
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


def test_a_worker_lost_after_its_lanes_got_farther_is_not_their_fault(store: Store) -> None:
    drive(store, "train: {steps: 60, batch: 4, evaluate_every: 20}", losses=5)
    (entry,) = configurations(store)
    assert entry["state"] == "complete" and entry["errors"] == 0


# ------------------------------------------------------------------------------------------- searches


def test_a_brute_force_search_ends_by_itself_and_has_every_point_once(store: Store) -> None:
    space = {"train.optimizer": ["adam", "sgd"], "train.momentum": {"choice": [0.5, 0.9], "when": {"train.optimizer": "sgd"}}}
    sweep = sweep_of(search={"sampler": "brute_force", "parallel": 2, "space": space}, seeds=1)
    driver = started(sweep, store)
    assert driver.lanes_planned == 2 * 3
    run(driver)
    found = [one.configuration for one in report(store, "tiny").configurations if one.configuration.cell == "model=nau"]
    assert sorted((entry.number, entry.parameters.get("train.momentum")) for entry in found if entry.number == 0) == [(0, None)]
    assert {entry.parameters["train.momentum"] for entry in found if entry.number} == {0.5, 0.9} and len(found) == 3


@pytest.mark.parametrize(
    "search",
    [
        {"sampler": {"name": "tpe", "n_startup_trials": 2}, "constraints": {"error.extrapolation.median": {"at_most": 1.0}}},
        {"sampler": {"name": "tpe", "n_startup_trials": 2}, "objective": ["error.extrapolation.median", "seed_steps"]},
        {"sampler": {"name": "nsgaii", "population_size": 2}, "objective": ["error.extrapolation.median", "diverged"]},
        {"sampler": {"name": "partial_fixed", "fixed": {"train.momentum": 0.5}, "sampler": "cmaes"}},
    ],
)
def test_a_search_cut_off_and_continued_suggests_the_same(store: Store, tmp_path: Path, search: dict[str, Any]) -> None:
    space = {"train.lr": {"log_uniform": [1e-4, 1e-1]}, "train.momentum": {"uniform": [0.1, 0.9]}}
    train = DOCUMENT["train"] | {"optimizer": "sgd"}
    document = {
        **DOCUMENT,
        "seeds": 1,
        "train": train,
        "search": {"configurations": 7, "parallel": 2, "space": space, **search},
    }
    run(started(sweep_of(document), store))
    with held_store(tmp_path / "cut") as other:
        for cuts in range(6):
            going = rounds(started(sweep_of(document), other, workers=2), workers=2)
            for _ in range(1 + cuts):
                next(going, None)
        run(started(sweep_of(document), other))
        assert text(other) == text(store)
    assert any(one.configuration.origin == "model" for one in report(store, "tiny").configurations)
