"""Budgets: what a sweep has used, when it stops, and cells that end by their target. No lane is trained here."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sweeps.config.space import Constraint, Objective, Search
from sweeps.config.sweep_file import Budget, Sweep, from_document
from sweeps.errors import UserError
from sweeps.machine import PRICE
from sweeps.results import as_json, as_markdown, report
from sweeps.results.summary import meets_target, summarise
from sweeps.runner.budget import Spending
from sweeps.runner.driver import Driver, PackReport, PackRequest
from sweeps.runner.progress import Progress
from sweeps.runner.run import run_sweep
from sweeps.store import Store
from sweeps.training.lane import Checkpoint, Lane, LaneResult

DOCUMENT: dict[str, Any] = {
    "name": "target",
    "task": {"name": "static", "input_size": 10},
    "train": {"steps": 20, "batch": 8, "evaluate_every": 10},
    "model": "nau",
    "seeds": 40,
    "search": {"sampler": "random", "configurations": 6, "parallel": 2, "space": {"train.lr": {"log_uniform": [1e-4, 1e-1]}}},
    "resources": {"slots": 40},
}


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "results") as opened, opened.hold("target"):
        yield opened


def sweep_of(**changes: Any) -> Sweep:
    return from_document({**DOCUMENT, **changes})


def with_target(rate: float) -> Sweep:
    return sweep_of(budget={"target": {"success_rate": rate}})


def started(sweep: Sweep, store: Store) -> Driver:
    if store.sweep(sweep.name) is None:
        store.begin_sweep(sweep.name, sweep.text, sweep.document)
    store.update_definition(sweep.name, sweep.text, sweep.document)
    driver = Driver(sweep, sweep.name, store, None, 1)
    driver.begin()
    return driver


def result(lane: Lane, solved: bool) -> LaneResult:
    return LaneResult(
        key=lane.key, seed=lane.seed, budget=lane.budget, steps=lane.budget, outcome="solved" if solved else "unsolved",
        solved=solved, converged_at=10 if solved else None, error={"extrapolation": 1e-9 if solved else 1.0},
    )  # fmt: skip


def number_of(driver: Driver, request: PackRequest) -> int:
    """The configuration of a pack's lanes; the file's slots give each configuration one pack."""
    keys = {lane.key for lane in request.lanes}
    return next(n for n, entry in driver.cells[0].configurations.items() if keys <= set(entry.configuration.keys.values()))


def train(driver: Driver, solved: dict[int, int], last_first: bool = False, packs: int = 100) -> list[int]:
    """Let two workers end packs, each of one configuration, whose first seeds are solved; return the configurations."""
    running: list[tuple[int, PackRequest]] = []
    order: list[int] = []
    for _ in range(packs):
        while len(running) < 2 and (request := driver.next_pack(f"pack {len(order)} {len(running)}")) is not None:
            running.append((number_of(driver, request), request))
        if not running:
            break
        number, request = running.pop(-1 if last_first else 0)
        results = [result(lane, lane.seed < solved.get(number, 0)) for lane in request.lanes]
        driver.receive(request.pack_id, PackReport(results=results, seed_steps=20 * len(results)))
        driver.pack_ended(request.pack_id)
        order.append(number)
    return order


# ------------------------------------------------------------------------------------------- what was used


def test_hours_seed_steps_and_money_are_those_of_all_runs() -> None:
    """Two hours before, one hour now with two nodes of 3 USD: 3 h * 2 * 3 USD = 18 USD."""
    clock, environment = Clock(), pytest.MonkeyPatch()
    environment.setenv(PRICE, "3")
    spent = Spending(Budget(hours=4, cost_usd=20), 2 * 3600, clock)
    environment.undo()
    spent.set_nodes(2)
    clock.now_s = 3600
    assert (spent.seconds, spent.cost_usd, spent.used_up()) == (3 * 3600, 18, None)
    spent.set_nodes(1)
    clock.now_s = 3600 + 2400  # 40 minutes of one node: 2 USD
    stop = spent.used_up()
    assert stop is not None and stop.reason == "the budget of 20 USD is used up"
    assert "`budget.cost_usd=40`, continues" in stop.how_to_continue
    clock.now_s = 2 * 3600
    stop = spent.used_up()
    assert stop is not None and stop.reason == "the budget of 4 hours is used up"


def test_steps_of_a_lane_count_once_whether_stored_or_trained_here() -> None:
    spent = Spending(Budget(seed_steps=100), 0.0)
    spent.count_stored("a", 30)
    spent.count_stored("a", 50)  # of a longer budget, continued from the 30
    spent.begin_lane("b", 10)  # from the checkpoint of an earlier run
    spent.steps_of_run += 20
    spent.count_stored("b", 30)  # its record, needed by another configuration
    assert spent.seed_steps == 50 + 10 + 20 and spent.used_up() is None
    spent.steps_of_run += 20
    stop = spent.used_up()
    assert stop is not None and stop.reason == "the budget of 100 seed-steps is used up"
    assert stop.how_to_continue == "the same command with a larger budget, such as `budget.seed_steps=200`, continues"


def test_the_time_that_is_left_is_that_of_the_budget_used_up_first() -> None:
    clock = Clock()
    spent = Spending(Budget(hours=1, seed_steps=1000), 0.0, clock)
    clock.now_s = 10
    assert spent.seconds_left() == 3590
    spent.steps_of_run = 200  # 20 a second: 800 more take 40 s
    assert spent.seconds_left() == 40
    assert Spending(Budget(), 0.0).seconds_left() is None


def test_a_budget_of_money_is_refused_where_no_price_is_known(store: Store, tmp_path: Path) -> None:
    sweep = sweep_of(budget={"cost_usd": 5})
    with pytest.raises(UserError, match=rf"budget.cost_usd is 5, and the price of this machine is not known. Set {PRICE}"):
        run_sweep(sweep, store, tmp_path, Console())
    assert store.sweep("target") is None


def test_a_sweep_stops_at_its_seed_steps_and_goes_on_with_more(store: Store) -> None:
    """40 lanes of 20 steps are 800 seed-steps: the second pack uses up 1,200, while the third is running."""
    limited = sweep_of(budget={"seed_steps": 1200})
    driver = started(limited, store)
    assert train(driver, {}) == [0, 1, 2] and not driver.done
    assert driver.stop_reason == "the budget of 1.2k seed-steps is used up"
    again = started(limited, store)
    assert again.out_of_budget() and again.next_pack("more") is None
    more = started(sweep_of(budget={"seed_steps": 10_000}), store)
    assert train(more, {}) == [3, 4, 5] and more.done
    assert more.spending.seed_steps == 6 * 40 * 20


def test_steps_between_checkpoint_and_record_are_counted_by_the_next_run(store: Store) -> None:
    driver = started(sweep_of(), store)
    request = driver.next_pack("cut off")
    assert request is not None
    saved = {lane.key: Checkpoint(10, b"state") for lane in request.lanes}
    driver.receive("cut off", PackReport(checkpoints=saved, seed_steps=10 * len(saved)))
    again = started(sweep_of(), store)
    assert again.spending.seed_steps == 0
    again.next_pack("continued")
    assert again.spending.seed_steps == 10 * len(saved)


# ------------------------------------------------------------------------------------------- targets


@pytest.mark.parametrize("last_first", [False, True])
@pytest.mark.parametrize(
    ("solved", "tried", "best"),
    [
        ({0: 40}, 2, 0),  # 40 of 40: at least 91 %. Number 1 runs beside it; before 2 is suggested, only 0 is looked at
        ({1: 40}, 3, 1),  # before 2 only 0 is looked at, before 3 both
        ({0: 39, 1: 38}, 6, None),  # 39 of 40: at least 87 %
    ],
)
def test_a_cell_ends_by_its_target_at_the_same_configuration_in_any_order(
    store: Store, solved: dict[int, int], tried: int, best: int | None, last_first: bool
) -> None:
    driver = started(with_target(0.9), store)
    train(driver, solved, last_first)
    (cell,) = driver.cells
    assert driver.done and sorted(cell.configurations) == list(range(tried))
    assert (cell.met_target, cell.not_tried, cell.limit) == (best, 6 - tried if best is not None else 0, tried)
    assert driver.lanes_planned == driver.lanes_done == 40 * tried


def test_a_run_cut_off_and_continued_ends_at_the_same_configuration(store: Store) -> None:
    train(started(with_target(0.9), store), {1: 40}, last_first=True, packs=1)
    again = started(with_target(0.9), store)
    assert train(again, {1: 40}) == [0, 2] and again.done
    once_more = started(with_target(0.9), store)
    assert once_more.done and once_more.cells[0].met_target == 1


def test_a_higher_target_tries_the_other_configurations(store: Store) -> None:
    train(started(with_target(0.9), store), {0: 40})
    more = started(with_target(0.95), store)
    assert not more.done and train(more, {}) == [2, 3, 4, 5]
    assert more.done and more.lanes_planned == 240 and not more.ended_by_target


def test_report_and_progress_say_that_a_cell_ended_by_its_target_and_what_was_not_tried(store: Store) -> None:
    driver = started(with_target(0.9), store)
    train(driver, {0: 40})
    assert driver.ended_by_target == [
        "cell all ended by its target: configuration 0 solves 40 of 40 seeds. Not tried: 4 of 6 configurations"
    ]
    found = report(store, "target")
    text = " ".join(as_markdown(found).split())
    assert "Ended by its target: #0 solves at least 91 % of seeds (lower end of its interval), above 90 %." in text
    assert "Not tried: configurations from #2 on, 4 of 6." in text
    assert '"not_tried": 4' in as_json(found)
    line = Progress(driver, Console()).line()
    assert "configurations 2/2  lanes 80/80" in line and "1 of 1 cells ended by their target" in line
    store.update_definition("target", "", sweep_of().document)
    assert "Ended by its target" not in as_markdown(report(store, "target"))
    assert "ended_by_target" not in as_json(report(store, "target"))


def test_the_best_by_the_objective_decides_and_not_another_that_solves_more_seeds() -> None:
    """par2 of 30 seeds at step 10 and 10 unsolved ones is (30 * 10 + 10 * 40) / 40 = 17.5; of 40 at step 18 it is 18."""
    lanes = [Lane(f"k{seed}", {"train": {"steps": 20}}, seed) for seed in range(40)]
    few = summarise(result(lane, lane.seed < 30) for lane in lanes)
    all_late = summarise(dataclasses.replace(result(lane, True), converged_at=18) for lane in lanes)
    by_rate = Search(configurations=1, objective=Objective("success_rate", "maximize"))
    assert meets_target([few, all_late], 0.9, Search(configurations=1)) is None
    assert meets_target([all_late], 0.9, Search(configurations=1)) == 0
    assert meets_target([few, all_late], 0.9, by_rate) == 1
    never = dataclasses.replace(by_rate, constraints=(Constraint("success_rate", "at_most", 0.5),))
    assert meets_target([all_late], 0.9, never) is None
