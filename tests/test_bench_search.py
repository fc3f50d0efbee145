"""Recordings of sweeps, and the strategies that `sweeps bench --search` replays on them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import call
from lanes import PLAIN
from test_driver import held_store, run, started, sweep_of
from test_early_stopping import DOCUMENT as TINY

from sweeps.bench import irace_peer, smac_peer
from sweeps.bench.recording import FOLDER, Recording, recorded
from sweeps.bench.search import (
    SMAC,
    Point,
    Repetition,
    Replay,
    Run,
    SearchBench,
    Strategy,
    bench_search,
    coordinates,
    draw,
    search,
)
from sweeps.config.settings import lane_key, resolve
from sweeps.config.space import Dimension, EarlyStopping, Halving, Objective, Race
from sweeps.errors import UserError
from sweeps.results.figures import write
from sweeps.results.statistics import Interval
from sweeps.runner.driver import Driver
from sweeps.store import Store
from sweeps.store.records import Configuration
from sweeps.training.lane import Curve, Lane, LaneResult, judge

BUDGET, EVERY = 400, 100
DOCUMENT: dict[str, Any] = {
    "name": "made",
    "task": {"name": "static", "operation": "sub"},
    "model": "nau",
    "train": {"steps": BUDGET, "evaluate_every": EVERY},
    "search": {
        "configurations": 3,
        "space": {"train.lr": {"log_uniform": [1e-4, 1e-1]}, "train.gradient_noise": {"log_uniform": [1e-5, 1e-1], "or": 0}},
    },
}
SHIPPED = sorted(FOLDER.glob("*.npz"))


def made(store: Store, converged: Sequence[Sequence[int | None]], stop: str = "never", lack: int = 0) -> list[list[LaneResult]]:
    """Store a sweep: a row of `converged` is a configuration, with the step at which each of its seeds is solved.

    The last `lack` lanes are left out.
    """
    store.begin_sweep("made", "name: made\n", {**DOCUMENT, "seeds": len(converged[0])})
    lanes = []
    for number, row in enumerate(converged):
        lr = 1e-4 * 10**number
        train = {**DOCUMENT["train"], "stop": stop, "lr": lr}
        settings, faults, _ = resolve({"task": DOCUMENT["task"], "model": "nau", "train": train})
        assert settings is not None, faults
        entry = Configuration(
            cell="all", labels={}, number=number, parameters={"train.lr": lr, "train.gradient_noise": 0} if number else {},
            settings=settings, keys={seed: lane_key(settings, seed, PLAIN) for seed in range(len(row))}, state="complete",
        )  # fmt: skip
        store.add_configuration("made", entry)
        lanes.append([solved_at(entry, seed, at) for seed, at in enumerate(row)])
    flat = [lane for row in lanes for lane in row]
    store.add_records(flat[: len(flat) - lack])
    store.set_state("made", "done")
    return lanes


def solved_at(entry: Configuration, seed: int, converged_at: int | None) -> LaneResult:
    """A lane whose error is 1 until that step and then 1e-9, as the engine would judge it."""
    curve = Curve()
    for step in range(0, BUDGET + 1, EVERY):
        error = 1.0 if converged_at is None or step < converged_at else 1e-9
        curve.add(step, {"error.interpolation": error, "error.extrapolation": error, "sparsity_error": 0.25})
    found = judge(Lane(entry.keys[seed], entry.settings, seed), curve, 1e-8, BUDGET)
    return dataclasses.replace(found, curve=curve.as_dict())


def recording_of(folder: Path, converged: Sequence[Sequence[int | None]]) -> Recording:
    with Store(folder) as store:
        made(store, converged)
        return recorded(store, "made")


def in_order(recording: Recording, stop: Any = "never") -> Replay:
    """A search that meets configurations and seeds in the order in which they were recorded."""
    return Replay(recording, range(len(recording.parameters)), range(len(recording.seeds)), 0, stop)


def test_a_saved_recording_gives_back_what_every_lane_ended_with(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        lanes = made(store, [[100, None], [300, 400]])
        recorded(store, "made").save(tmp_path / "made.npz")
    found = Recording.load(tmp_path / "made.npz")
    assert (found.budget, found.seeds, found.steps) == (BUDGET, (0, 1), (0, 100, 200, 300, 400))
    assert found.parameters[1] == {"train.lr": 1e-3, "train.gradient_noise": 0}
    for c, row in enumerate(lanes):
        for s, lane in enumerate(row):
            rounded = dataclasses.replace(lane, key=str(c), curve={}, error=found.result(c, s).error)
            assert found.result(c, s) == rounded
            assert found.result(c, s).error == pytest.approx(lane.error)


def test_before_the_end_a_lane_is_judged_by_its_curve_so_far(tmp_path: Path) -> None:
    found = recording_of(tmp_path, [[300, None]])
    early, later = found.result(0, 0, 200), found.result(0, 0, 300)
    assert (early.outcome, early.converged_at, early.steps, early.budget) == ("unsolved", None, 200, 200)
    assert (later.outcome, later.converged_at, later.steps, later.budget) == ("solved", 300, 300, 300)
    assert early.error["extrapolation"] == pytest.approx(1.0) and later.error["extrapolation"] == pytest.approx(1e-9, rel=0.01)
    assert found.result(0, 1, 399).error["extrapolation"] == pytest.approx(1.0)  # between two evaluations: the last one


def test_with_stop_solved_a_lane_ends_where_it_meets_the_threshold(tmp_path: Path) -> None:
    found = recording_of(tmp_path, [[300, None]])
    ended = found.result(0, 0, stop="solved")
    assert (ended.outcome, ended.steps, ended.budget, ended.converged_at) == ("solved", 300, BUDGET, 300)
    assert found.result(0, 1, stop="solved").steps == BUDGET
    assert [in_order(found, stop).results(0, 2, BUDGET)[0].steps for stop in ("never", "solved")] == [BUDGET, 300]


def test_a_lane_is_counted_once_up_to_where_it_was_trained_last(tmp_path: Path) -> None:
    replay = in_order(recording_of(tmp_path, [[300, None], [100, 100]]))
    replay.result(0, 0, 200)
    replay.result(0, 0, 100)
    assert (replay.seed_steps, replay.configurations) == (200, 1)
    replay.result(0, 0)
    replay.result(1, 1, 100)
    assert (replay.seed_steps, replay.configurations) == (BUDGET + 100, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lack": 1}, "1 configurations of made are not complete"),
        ({"stop": "solved"}, "a recording needs `train.stop: never`"),
    ],
)
def test_a_sweep_with_missing_curves_is_not_recorded(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with Store(tmp_path) as store:
        made(store, [[100, 200]], **changes)
        with pytest.raises(UserError, match=message):
            recorded(store, "made")


def test_a_file_that_is_no_recording_is_named(tmp_path: Path) -> None:
    for text in (b"", b"no archive", b"PK\x03\x04"):
        (tmp_path / "other.npz").write_bytes(text)
        with pytest.raises(UserError, match=r"other\.npz is not a recording"):
            Recording.load(tmp_path / "other.npz")


def test_everything_trains_all_and_chooses_the_lowest_par2(tmp_path: Path) -> None:
    # par2: 500 = (200 + 800) / 2, then 300, then 200.
    found = recording_of(tmp_path, [[200, None], [300, 300], [100, 300]])
    replay = in_order(found)
    assert search(Strategy(name="everything"), replay) == [
        Point(2 * BUDGET, 0), Point(4 * BUDGET, 1), Point(6 * BUDGET, 2), Point(6 * BUDGET, 2),
    ]  # fmt: skip


def test_racing_and_halving_stop_what_is_worse(tmp_path: Path) -> None:
    # Two groups of one: configuration 1 solves nothing, and configuration 0 all 20 seeds.
    found = recording_of(tmp_path, [[100] * 20, [None] * 20])
    racing = Strategy(name="racing", parallel=1, stopping=EarlyStopping(race=Race((10, 20))))
    replay = in_order(found)
    assert search(racing, replay)[-1] == Point(30 * BUDGET, 0)  # 20 seeds of one, 10 of the other
    rungs = EarlyStopping(halving=Halving((200,), Objective("error.extrapolation.median"), 0.5))
    replay = in_order(found)
    assert search(Strategy(name="halving", parallel=1, stopping=rungs), replay)[-1] == Point(20 * BUDGET + 20 * 200, 0)


def test_the_replay_stops_what_the_driver_stops(tmp_path: Path) -> None:
    """A sweep that is trained with early stopping, and a replay of the same sweep that was trained without."""
    few: dict[str, Any] = {"seeds": 10, "search": {**TINY["search"], "configurations": 8, "parallel": 3}, "confirm": None}
    with held_store(tmp_path / "whole") as store:
        run(started(sweep_of(TINY, **few, early_stopping=None), store))
        found = recorded(store, "tiny")
    with held_store(tmp_path / "early") as store:
        driver = started(sweep_of(TINY, **few), store)
        run(driver)
    replay = in_order(found)
    strategy = Strategy(name="as the file", parallel=3, stopping=driver.sweep.early_stopping)
    winner = search(strategy, replay)[-1].configuration
    assert replay.trained == trained_by(driver)
    assert len(set(replay.trained.values())) > 1 and len(replay.trained) < 8 * 8
    best = [one for one in driver.cells[0].configurations.values() if one.configuration.state == "complete"]
    assert winner in [one.configuration.number for one in best]


def trained_by(driver: Driver) -> dict[tuple[int, int], int]:
    """(configuration, seed) -> steps that a driver trained it for."""
    found: dict[tuple[int, int], int] = {}
    for number, entry in driver.cells[0].configurations.items():
        for result in entry.results.values():
            found[number, result.seed] = max(result.steps, found.get((number, result.seed), 0))
    return found


def test_tpe_tries_each_recorded_configuration_once_beginning_with_the_files_own(tmp_path: Path) -> None:
    found = recording_of(tmp_path, [[400, 400], [300, 300], [100, 100], [200, None]])
    replay = in_order(found)
    tried = [point.configuration for point in search(Strategy(name="tpe", tpe=True), replay)]
    assert (tried[0], tried[-1], replay.configurations) == (0, 2, 4)
    assert replay.seed_steps == 8 * BUDGET


def test_coordinates_by_hand() -> None:
    space = {
        "lr": Dimension("log_uniform", 1e-4, 1e-2),
        "noise": Dimension("uniform", 0.0, 2.0, off=0, has_off=True),
        "unit": Dimension("choice", choices=("nau", "nac")),
    }
    half = 0.5**0.5
    assert coordinates(space, {"lr": 1e-3, "noise": 0.5, "unit": "nac"}) == pytest.approx([0, 0.5, 0, 0.25, 0, half])
    assert coordinates(space, {"lr": 1e-1, "unit": "nau"}) == pytest.approx([0, 1, 1, 0.5, half, 0])  # noise is off


def bench_of(runs: Sequence[dict[str, list[Point]]], regret: list[float]) -> SearchBench:
    everything = 1000
    return SearchBench(
        recording="made", configurations=len(regret), seeds=2, fresh_seeds=2, budget=BUDGET, stop="never", good=1,
        objective="par2", best=0, best_success=Interval(1.0, 0.5, 1.0), best_value=Interval(100.0, 90.0, 110.0), equal=(0, 1),
        repetitions=tuple(
            Repetition(runs={name: Run(points, 2) for name, points in one.items()}, everything=everything, regret=regret)
            for one in runs
        ),
        not_run={},
    )  # fmt: skip


def test_the_table_by_hand() -> None:
    whole = [Point(500, 2), Point(1000, 0)]
    first = {"everything": whole, "racing": [Point(400, 1)], SMAC: [Point(100, 2), Point(200, 1), Point(300, 1)]}
    second = {"everything": whole, "racing": [Point(600, 1)], SMAC: [Point(100, 2), Point(150, 2), Point(300, 1)]}
    everything, racing, smac = bench_of([first, second], [0.0, 0.1, 1.0]).rows()
    assert (everything.regret.estimate, everything.best.estimate, everything.share.estimate) == (0.0, 1.0, 1.0)
    assert everything.smac is None  # its regret stays at 0.1
    assert racing.share.estimate == pytest.approx(0.5)  # of 0.4 and 0.6
    assert racing.regret.estimate == pytest.approx(0.1)
    assert (racing.best.estimate, racing.equal.estimate) == (0.0, 1.0)
    assert racing.random.estimate == 1.0  # after 400 and after 600 seed-steps, configuration 2
    assert racing.smac == pytest.approx(0.3)  # before, its mean is (0.1 + 1) / 2
    assert smac.seed_steps.estimate == 300


def test_the_seed_decides_the_table_and_the_figure(tmp_path: Path) -> None:
    draws = np.random.default_rng(1)
    table = [[None if draws.random() < 0.3 else int(draws.integers(1, 5)) * EVERY for _ in range(8)] for _ in range(10)]
    found = recording_of(tmp_path / "store", table)
    one, again, other = (bench_search(found, repeats=3, seed=seed, peers=False) for seed in (5, 5, 6))
    assert one.as_json() == again.as_json() != other.as_json()
    assert json.loads(json.dumps(one.as_json(), allow_nan=False))["rows"][0]["strategy"] == "everything"
    assert "| SMAC's intensifier | not measured: left out |" in one.table()
    for name, bench in (("one.svg", one), ("again.svg", again)):
        write(draw([bench]), tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "again.svg").read_bytes()


def test_the_regret_needs_an_objective_that_is_a_mean(tmp_path: Path) -> None:
    found = recording_of(tmp_path, [[100, 100], [200, 200]])
    document = {**found.document, "search": {**found.document["search"], "objective": "error.extrapolation.median"}}
    with pytest.raises(UserError, match=r"such as par2, not error\.extrapolation\.median"):
        bench_search(dataclasses.replace(found, document=document), repeats=2)


def test_smacs_intensifier_finds_the_best_with_few_trials() -> None:
    pytest.importorskip("smac", reason="SMAC3 is an optional peer of the bench (pip install smac)")
    trials = list(smac_peer.intensify(6, 10, lambda number, seed: abs(number - 4) + 0.01 * seed, seed=0))
    assert trials[-1] == 4 and 10 <= len(trials) < 60


def test_a_race_of_irace_looks_up_few_costs_of_bad_configurations() -> None:
    if reason := irace_peer.why_no_irace():
        pytest.skip(f"{reason}: irace is an optional peer of the bench (Debian: r-cran-irace)")
    costs = np.abs(np.arange(8.0)[:, None] - 4) + 0.01 * np.arange(20)
    winner, looked_up = irace_peer.race(costs, seed=1)
    assert winner == 4 and 5 * 8 <= len(looked_up) < 8 * 20
    assert {number for number, _ in looked_up} == set(range(8)) and {seed for _, seed in looked_up} <= set(range(20))


def test_the_shipped_recordings_are_what_a_search_meets() -> None:
    assert len(SHIPPED) == 2 and sum(file.stat().st_size for file in SHIPPED) < 5_000_000
    for file in SHIPPED:
        found = Recording.load(file)
        count, seeds = len(found.parameters), len(found.seeds)
        assert count >= 150 and seeds >= 50 and file.with_suffix(".yaml").exists()
        solved = [[found.result(c, s).solved for s in range(seeds)] for c in range(count)]
        good = sum(2 * sum(row) > seeds for row in solved)
        assert 0.15 < good / count < 0.25
        assert sum(all(row) for row in solved) < good / 2  # the good ones differ
        # The curve, of three digits, is judged as the lane was.
        late = [[found.result(c, s, found.budget - 1).solved for s in range(seeds)] for c in range(0, count, 10)]
        at_end = [[found.result(c, s, stop="solved").converged_at for s in range(seeds)] for c in range(0, count, 10)]
        assert np.mean(np.array(late) == np.array(solved[::10])) > 0.97
        assert at_end == [[found.result(c, s).converged_at for s in range(seeds)] for c in range(0, count, 10)]


def test_the_command_replays_a_recording_and_draws_it(tmp_path: Path) -> None:
    with Store(tmp_path / "results") as store:
        made(store, [[300, 300, None, 100], [100, 100, 100, 200], [None] * 4])
    file, figure = tmp_path / "made.npz", tmp_path / "made.svg"
    done = call("bench", "--record", "made", "-o", str(file), "--store", str(tmp_path / "results"))
    assert (done.status, done.out) == (0, f"{file}: 3 configurations of 4 seeds, 0.0 MB\n")
    done = call("bench", "--search", "--recording", str(file), "--repeats", "2", "-o", str(figure))
    assert done.status == 0 and "| everything | 3 |" in done.out and figure.exists()
    done = call("bench", "--search", "--recording", str(file), "--repeats", "2", "--json", "--stop", "solved")
    assert [one["stop"] for one in json.loads(done.out)] == ["solved"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--record", "made"], "--record needs a file to write: -o FILE.npz"),
        (["--search", "--stop", "always"], "--stop is never or solved, but 'always' is given"),
        (["--search", "--driver"], "--driver and --search are different measurements"),
        (["--search", "--recording", "missing.npz"], "missing.npz is not a recording"),
    ],
)
def test_a_wrong_request_starts_nothing(arguments: list[str], message: str) -> None:
    done = call("bench", *arguments)
    assert done.status == 2 and message in done.err
