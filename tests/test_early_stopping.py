"""Sweeps with racing, halving and confirmation: what is trained, what is reported, and that nothing depends on the order."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from test_driver import held_store, rounds, run, started, sweep_of, text

from sweeps.config.diff import difference
from sweeps.config.faults import SweepFileError
from sweeps.config.sweep_file import Sweep, parse
from sweeps.config.yaml import dump
from sweeps.results import as_markdown, report
from sweeps.results.export import best
from sweeps.results.html import as_html
from sweeps.results.latex import as_tex
from sweeps.results.summary import RankedConfiguration
from sweeps.runner.driver import Driver, PackReport, PackRequest
from sweeps.search import CellSearch, Finished
from sweeps.store import Store
from sweeps.store.store import copy_sweep
from sweeps.tracking.rows import configuration_points
from sweeps.training.lane import Lane, LaneResult, error_result

RACING = {"seeds": {"race": [7, 9]}}
HALVING = {"steps": {"halving": [10], "keep": "1/2", "metric": "error.extrapolation.median"}}
CONFIRM = {"top": 2, "seeds": {"first": 1000, "count": 5}}
DOCUMENT: dict[str, Any] = {
    "name": "tiny",
    "task": {"name": "static", "input_size": 10},
    "model": "linear",
    "train": {"steps": 40, "batch": 8, "evaluate_every": 10},
    "seeds": 12,
    "search": {
        "sampler": "random", "configurations": 8, "parallel": 4, "objective": "error.extrapolation.median",
        "space": {"train.lr": {"log_uniform": [1e-5, 1e-1]}},
    },
    "early_stopping": {**RACING, **HALVING},
    "confirm": CONFIRM,
}  # fmt: skip
STEPS = 40


def early(**changes: Any) -> Sweep:
    return sweep_of(DOCUMENT, **changes)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with held_store(tmp_path / "results") as opened:
        yield opened


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Driver, list[PackRequest]]]:
    with held_store(tmp_path_factory.mktemp("early")) as opened:
        driver = started(early(), opened)
        yield opened, driver, run(driver)


Finish = tuple[Store, Driver, list[PackRequest]]


def test_bad_configurations_get_few_seeds_and_few_steps_and_the_best_get_all(finished: Finish) -> None:
    store, driver, _ = finished
    found = report(store, "tiny")
    states = {one.configuration.number: one.state for one in found.configurations}
    assert set(states.values()) == {"complete", "pruned"}
    for one in found.configurations:
        stopped = one.configuration.stopped
        if stopped is None:
            assert (len(one.results), {r.budget for r in one.results}) == (12, {STEPS})
        else:
            assert one.rank is None
            assert (len(one.results), {r.budget for r in one.results}) == (stopped.seeds, {stopped.steps})
            assert (stopped.seeds, stopped.steps) in {(7, 10), (7, STEPS), (9, STEPS)}
    assert driver.lanes_done + driver.lanes_spared == driver.lanes_planned == 8 * 12 + 2 * 5


def test_the_report_says_what_was_stopped_and_what_that_saved(finished: Finish) -> None:
    found = report(finished[0], "tiny")
    stopped = [one for one in found.configurations if one.state == "pruned"]
    saved = found.as_dict()["totals"]["early_stopping"]
    assert saved["configurations_stopped"] == len(stopped)
    assert saved["lanes_never_run"] == sum(12 - len(one.results) for one in stopped)
    done = sum(result.steps for one in found.configurations for result in one.results)
    assert saved["seed_steps_saved"] == 8 * 12 * STEPS - done
    assert saved["share_saved"] == saved["seed_steps_saved"] / (8 * 12 * STEPS)
    shown = as_markdown(found)
    assert f"Early stopping stopped {len(stopped)} configurations" in shown
    assert "Stopped early, so not ranked: #" in shown and " after 7 seeds of" in shown
    for page, mark in ((shown, "| {}† "), (as_tex([found]), "\n{}$\\dagger$ & "), (as_html([found]), ">{}&#8224;<")):
        assert all(mark.format(one.configuration.number) in page.replace("</td>", "<") for one in stopped)
        assert "stopped early, so its figures are of fewer seeds or steps" in " ".join(page.split())
    entry = next(e for e in found.as_dict()["configurations"] if e["state"] == "pruned" and e["stopped"]["steps"] == 10)
    assert entry["stopped"]["reason"].endswith("at step 10 by error.extrapolation.median")
    assert entry["objective"] is None and entry["par2"] is None  # of another budget than the others


def test_the_best_are_confirmed_on_fresh_seeds_and_the_confirmed_one_is_exported(finished: Finish) -> None:
    store = finished[0]
    found = report(store, "tiny")
    confirmed = [one for one in found.configurations if one.seeds_to_confirm]
    assert [one.rank for one in confirmed] == [1, 2]
    assert all([r.seed for r in one.confirmation] == [1000, 1001, 1002, 1003, 1004] for one in confirmed)
    assert all(len(one.configuration.keys) == 12 for one in confirmed)
    medians = [one.confirmed.value("error.extrapolation.median").estimate for one in confirmed if one.confirmed]
    assert medians == sorted(medians)
    shown = as_markdown(found)
    assert "## Confirmation on fresh seeds" in shown and "on fresh seeds" in shown.split("## Confirmation")[0]
    exported = best(store, "tiny")
    assert "seeds: [1000, 1001, 1002, 1003, 1004]" in exported or "- 1004" in exported
    assert "0/5" in exported and "search_summary:" in exported


def test_mlflow_receives_the_metrics_of_the_confirmation_while_the_sweep_runs(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[RankedConfiguration] = []
    tracker: Any = SimpleNamespace(complete=written.append, lanes=lambda *_: None, start=lambda _: None, begin=lambda: None)
    monkeypatch.setattr(Driver, "track", lambda self, write: write(tracker))
    few = {**DOCUMENT["search"], "configurations": 2, "parallel": 2}
    confirm = {"top": 1, "seeds": {"first": 1000, "count": 2}}
    run(started(early(early_stopping=None, confirm=confirm, seeds=2, search=few), store))
    (confirmed,) = [one for one in written if one.confirmed is not None]
    points = {point.key for point in configuration_points(confirmed, early().objective)}
    assert {"confirmation.success_rate", "confirmation.error.extrapolation.median"} <= points


def test_workers_and_their_order_change_nothing(finished: Finish, tmp_path: Path) -> None:
    for workers in (2, 5):
        with held_store(tmp_path / str(workers)) as other:
            run(started(early(resources={"slots": workers + 1}), other, workers), workers)
            one, two = json.loads(text(other)), json.loads(text(finished[0]))
            assert one.pop("definition") != two.pop("definition")  # the slots
            assert one == two


def test_a_sweep_that_is_cut_off_again_and_again_gives_the_same_report(finished: Finish, store: Store) -> None:
    random_rounds = random.Random(5)
    stops = 0
    while True:
        driver = started(early(), store)  # what was in memory is lost
        if driver.done:
            break
        ended = rounds(driver, workers=1 + stops % 2)
        for _ in range(random_rounds.randrange(1, 6)):
            if next(ended, "done") == "done":
                break
        stops += 1
    assert stops > 10
    assert text(store) == text(finished[0])


def test_a_lane_that_passed_a_rung_ends_as_one_that_trained_without(finished: Finish, store: Store) -> None:
    run(started(early(early_stopping=None, confirm=None), store))
    whole = {r.key: r for one in report(store, "tiny").configurations for r in one.results}
    complete = [one for one in report(finished[0], "tiny").configurations if one.state == "complete"]
    assert len(complete) > 1
    for result in (result for one in complete for result in one.results):
        other = whole[result.key]
        assert (result.curve, result.error, result.steps) == (other.curve, other.error, other.steps)


def test_no_lane_is_trained_twice_and_lanes_at_a_rung_are_continued(finished: Finish) -> None:
    requests = finished[2]
    lanes = [(lane.key, lane.budget) for request in requests for lane in request.lanes]
    assert len(lanes) == len(set(lanes))
    at_rung = {key for key, budget in lanes if budget == 10}
    continued = [lane for r in requests for lane in r.lanes if lane.key in at_rung and lane.budget == STEPS]
    assert continued and all(lane.checkpoint is not None and lane.checkpoint.steps == 10 for lane in continued)


def test_more_seeds_and_levels_and_configurations_extend_the_sweep(finished: Finish, store: Store) -> None:
    copy_sweep(finished[0], store, "tiny")
    before = {one.configuration.number: one for one in report(store, "tiny").configurations}
    more = early(
        seeds=20, early_stopping={"seeds": {"race": [7, 9, 12]}, **HALVING},
        search={**DOCUMENT["search"], "configurations": 10}, confirm={"top": 1, "seeds": {"first": 1000, "count": 8}},
    )  # fmt: skip
    change = difference(early().document, more)
    assert change.kind == "extension"
    assert "confirm: the best 1 of every cell on 8 fresh seeds" in change.message
    store.update_definition("tiny", more.text, more.document)
    run(started(more, store))
    after = {one.configuration.number: one for one in report(store, "tiny").configurations}
    assert len(after) == 10
    assert "early_stopping.seeds: further levels of 12 seeds" in change.message
    for number, one in before.items():
        if one.configuration.stopped is not None:
            assert after[number].configuration.stopped == one.configuration.stopped
        else:  # it passed the former levels, whatever the new seeds say
            stopped = after[number].configuration.stopped
            assert stopped is None or stopped.seeds == 12
            assert len(after[number].results) >= 12
    (best_one,) = [one for one in after.values() if one.seeds_to_confirm]
    assert best_one.rank == 1 and len(best_one.results) == 20 and len(best_one.confirmation) == 8


def test_other_seeds_of_confirmation_do_not_become_seeds_of_the_search(finished: Finish, store: Store) -> None:
    copy_sweep(finished[0], store, "tiny")
    others = early(confirm={"top": 2, "seeds": {"first": 2000, "count": 4}})
    store.update_definition("tiny", others.text, others.document)
    run(started(others, store))
    for name, document in (("others", others.document), ("none", early(confirm=None).document)):
        store.update_definition("tiny", "", document)
        found = report(store, "tiny").configurations
        assert {len(one.configuration.keys) for one in found} == {12}
        assert {r.seed for one in found for r in one.confirmation} == (set(range(2000, 2004)) if name == "others" else set())


def test_halving_of_all_seeds_continues_after_it_was_cut_off_and_refuses_more_seeds(store: Store) -> None:
    sweep = early(early_stopping=HALVING, confirm=None)
    run(started(sweep, store))
    before = text(store)
    assert started(sweep, store).done and text(store) == before
    change = difference(sweep.document, early(early_stopping=HALVING, confirm=None, seeds=14))
    assert change.kind == "refusal" and "the rungs compare the first 12 seeds, and would compare 14" in change.message


def with_errors(driver: Driver, fails: Callable[[LaneResult], bool]) -> None:
    """Train all lanes, those for which `fails` is true ending in an error."""
    receive = driver.receive

    def received(pack_id: str, given: PackReport) -> None:
        results = [
            error_result(Lane(r.key, {"train": {"steps": r.budget}}, r.seed), "out of memory") if fails(r) else r
            for r in given.results
        ]
        receive(pack_id, dataclasses.replace(given, results=results))

    driver.receive = received  # type: ignore[method-assign]
    run(driver)


def test_what_was_decided_with_lanes_that_ended_in_an_error_stays_decided(store: Store) -> None:
    with_errors(started(early(), store), lambda result: result.seed in (0, 1))
    before = report(store, "tiny")
    assert any(one.summary.errors == 2 for one in before.configurations if one.state == "pruned")
    driver = started(early(), store)
    after = {one.configuration.number: one for one in report(store, "tiny").configurations}
    for one in before.configurations:
        if one.state == "pruned":
            assert after[one.configuration.number] == dataclasses.replace(one, rank=None)
    run(driver)  # the lanes of complete configurations are trained again
    assert all(one.summary.errors == 0 for one in report(store, "tiny").configurations if one.state == "complete")


def test_a_configuration_whose_seeds_all_fail_at_a_rung_says_so(store: Store) -> None:
    with_errors(started(early(confirm=None), store), lambda result: True)
    found = report(store, "tiny")
    assert {one.state for one in found.configurations} == {"failed"}
    assert "Error of 7 seeds: out of memory" in as_markdown(found) or "out of memory" in as_markdown(found)
    assert found.totals()["errors"] > 0 and "Failed, so not ranked" in as_markdown(found)
    driver = started(early(confirm=None), store)
    assert not driver.done and driver.lanes_reused == 0  # they are trained again


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"early_stopping": RACING}, "early_stopping.steps: taken out"),
        ({"early_stopping": {"seeds": {"race": [2, 9]}, **HALVING}}, "levels can only be added, from 12 seeds on"),
        ({"early_stopping": {"seeds": {"race": [7, 9], "confidence": 0.9}, **HALVING}}, "at 0.9; levels can only be added"),
        ({"train": {**DOCUMENT["train"], "steps": 50}}, "with early_stopping the budget cannot grow"),
        ({"seeds": [*range(1, 13), 0]}, "seeds: another order"),
    ],
)
def test_what_would_change_decisions_that_were_taken_is_refused(changes: dict[str, Any], message: str) -> None:
    change = difference(early().document, early(**changes))
    assert change.kind == "refusal" and message in change.message


def test_optuna_is_told_which_configurations_were_stopped_and_where(monkeypatch: pytest.MonkeyPatch) -> None:
    studies = []
    create = optuna.create_study

    def created(**options: Any) -> optuna.Study:
        studies.append(create(**options))
        return studies[-1]

    monkeypatch.setattr("optuna.create_study", created)
    for sampler in ("tpe", "nsgaii"):
        sweep = early(search={**DOCUMENT["search"], "sampler": sampler})
        assert sweep.search is not None
        search = CellSearch(sweep.cells[0].space, sweep.search, "all", in_groups=True)
        finished = {
            0: Finished({}, 1.0), 1: Finished({"train.lr": 1e-2}, 2.0, 0.0, stopped_after=2),
            2: Finished({"train.lr": 1e-3}, None), 3: Finished({"train.lr": 1e-4}, 3.0),
        }  # fmt: skip
        assert search.needs(4) == search.needs(7) == range(4)
        search.suggest(4, finished)
        states = {t.params["train.lr"]: (t.state.name, t.last_step) for t in studies[-1].trials if "train.lr" in t.params}
        assert {state for lr, state in states.items() if lr in (1e-2, 1e-3, 1e-4)} == {
            ("PRUNED", 2), ("FAIL", None), ("COMPLETE", None),
        }  # fmt: skip


def faults(changes: dict[str, Any]) -> str:
    with pytest.raises(SweepFileError) as caught:
        parse(dump({**DOCUMENT, **changes}), "bad.yaml")
    return str(caught.value)


def test_all_faults_of_early_stopping_and_confirmation_are_reported_at_once() -> None:
    found = faults(
        {
            "early_stopping": {
                "seeds": {"race": [3, 30]},
                "steps": {**HALVING["steps"], "halving": [10, 40], "metric": "par3"},
            },
            "confirm": {"seeds": {"first": 10, "count": 5}},
            "search": {**DOCUMENT["search"], "objective": "converged_at.mean"},
        }
    )
    assert "30 seeds are more than the 12 of the file: write [3, 12], or raise `seeds`" in found
    assert "cannot compare configurations by converged_at.mean" in found
    assert "40 must be below train.steps, 40" in found
    assert "unknown objective 'par3'. Did you mean 'par2'?" in found
    assert "has seeds of the search (10, 11)" in found and "begin with 12 or later" in found


def test_a_rung_before_a_penalty_starts_is_warned_of() -> None:
    model = {"name": "nmu", "sparsity_penalty": {"weight": 1.0, "start": 20, "end": 30}}
    sweep = parse(dump({**DOCUMENT, "model": model, "task": {"name": "static", "operation": "mul"}}), "penalty.yaml")
    (warning,) = [one for one in sweep.warnings if "halving" in one]
    assert "10 is not after step 20, where the penalty model.sparsity_penalty starts" in warning
