"""What a sweep takes before it is run: counts against a driver that runs it, times worked by hand from given costs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import call, train_in_process

from sweeps.config.sweep_file import Sweep, find_file, from_document, load
from sweeps.errors import SweepsError, UserError
from sweeps.machine import PRICE
from sweeps.runner import calibration
from sweeps.runner.calibration import MachineCost, StructureCost, calibrate, device_name, kept, measure, names_text
from sweeps.runner.driver import Driver
from sweeps.runner.plan import Bounds, CellWork, Schedule, Where, Work, count, plan, together
from sweeps.search.stopping import Stage
from sweeps.store import Store

DOCUMENT: dict[str, Any] = {
    "name": "tiny",
    "task": {"name": "static", "input_size": 10},
    "train": {"steps": 20, "batch": 8, "evaluate_every": 10},
    "compare": {"model": ["linear", "nau"]},
    "seeds": 4,
    "search": {"sampler": "random", "configurations": 5, "parallel": 2, "space": {"train.lr": {"log_uniform": [1e-4, 1e-1]}}},
}
PLAIN = {key: value for key, value in DOCUMENT.items() if key != "search"}
COST = StructureCost(
    load_s=2.0, compile_s=None, setup_s=0.0, step_s=0.01, evaluate_s=0.1, threshold_s=1.0, finish_s=0.0,
)  # fmt: skip
MACHINE = MachineCost(
    start_s=5.0, worker_s=3.0, pack_s=0.5, end_s=2.0, record_s=0.0, mlflow_s=0.0, mlflow_lane_s=0.0, mlflow_point_s=0.0,
)  # fmt: skip


def sweep_of(document: dict[str, Any] = DOCUMENT, **changes: Any) -> Sweep:
    return from_document({**document, **changes})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "results") as opened, opened.hold("tiny"):
        yield opened


def started(sweep: Sweep, store: Store) -> Driver:
    if store.sweep(sweep.name) is None:
        store.begin_sweep(sweep.name, sweep.text, sweep.document)
    driver = Driver(sweep, sweep.name, store, None, 1)
    driver.begin()
    return driver


class Counted(Driver):
    """A driver that counts its packs."""

    packs = 0

    def next_pack(self, pack_id: str, num_free: int = 1) -> Any:
        request = super().next_pack(pack_id, num_free)
        self.packs += request is not None
        return request


# ------------------------------------------------------------------------------------------- counts


def test_the_quickstart_has_the_numbers_of_its_header() -> None:
    counts = count(load(find_file("quickstart")), 2)
    assert (counts.cells, counts.configurations, counts.lanes) == (3, Bounds(18, 18), Bounds(360, 360))
    assert counts.seed_steps == Bounds(5.4e6, 5.4e6) and counts.lanes_stored == 0


@pytest.mark.parametrize("slots", ["auto", 1, 3, 8, 100])
def test_a_sweep_has_as_many_packs_lanes_and_seed_steps_as_were_counted(store: Store, slots: Any) -> None:
    sweep = sweep_of(resources={"slots": slots})
    counts = count(sweep, 1)
    store.begin_sweep("tiny", sweep.text, sweep.document)
    driver = Counted(sweep, "tiny", store, None, 1)
    driver.begin()
    train_in_process(driver)
    assert driver.done
    assert counts.packs == Bounds(driver.packs, driver.packs)
    assert counts.lanes == Bounds(driver.lanes_done, driver.lanes_done)
    assert counts.seed_steps == Bounds(driver.seed_steps, driver.seed_steps)


def test_what_the_store_has_is_counted_out(store: Store) -> None:
    driver = started(sweep_of(PLAIN, seeds=2), store)
    train_in_process(driver)
    counts = count(sweep_of(PLAIN, seeds=2), 1, store)
    assert (counts.lanes, counts.lanes_stored, counts.packs) == (Bounds(0, 0), 4, Bounds(0, 0))
    more = count(sweep_of(PLAIN, seeds=5), 1, store)
    assert (more.lanes, more.lanes_stored, more.seed_steps) == (Bounds(6, 6), 4, Bounds(120, 120))
    renamed = count(sweep_of(PLAIN, seeds=5, name="other"), 1, store)
    assert (renamed.lanes, renamed.lanes_stored) == (Bounds(6, 6), 4)
    assert store.sweep("other") is None and len(store.configurations("tiny")[0].keys) == 2, "nothing is written"


def test_a_longer_budget_counts_only_the_steps_that_are_missing(store: Store) -> None:
    train_in_process(started(sweep_of(PLAIN), store))
    longer = sweep_of(PLAIN, train={**DOCUMENT["train"], "steps": 50})
    counts = count(longer, 1, store)
    assert (counts.lanes, counts.seed_steps) == (Bounds(8, 8), Bounds(8 * 30, 8 * 30))


def test_a_whole_search_under_another_name_is_counted_out(store: Store) -> None:
    train_in_process(started(sweep_of(), store))
    counts = count(sweep_of(name="again"), 1, store)
    assert (counts.lanes.most, counts.lanes_stored) == (0, 2 * 5 * 4)


@pytest.mark.parametrize(
    ("changes", "lanes", "seed_steps"),
    [
        # A cell may end before configuration 2, the first that looks at another's results: 2 of 5 configurations.
        ({"budget": {"target": {"success_rate": 0.4}}}, Bounds(2 * 2 * 4, 40), Bounds(16 * 20, 40 * 20)),
        # One configuration of a cell has all 4 seeds, the four others at least 2.
        ({"early_stopping": {"seeds": {"race": [2, 4]}}}, Bounds(2 * (4 + 4 * 2), 40), Bounds(24 * 20, 40 * 20)),
        # The same with steps: 4 configurations end at step 10 at the earliest.
        ({"early_stopping": {"steps": {"halving": [10], "metric": "par2"}}}, Bounds(40, 40), Bounds(8 * (20 + 4 * 10), 800)),
        # The two best of each cell on 3 fresh seeds; one at least is complete.
        ({"confirm": {"top": 2, "seeds": {"first": 100, "count": 3}}}, Bounds(2 * (20 + 3), 2 * (20 + 6)), Bounds(920, 1040)),
    ],
)  # fmt: skip
def test_what_may_end_early_has_a_least_and_a_most(changes: dict[str, Any], lanes: Bounds, seed_steps: Bounds) -> None:
    counts = count(sweep_of(**changes), 1)
    assert (counts.lanes, counts.seed_steps) == (lanes, seed_steps)


def test_the_bytes_of_a_store_are_about_those_that_were_counted(store: Store, tmp_path: Path) -> None:
    sweep = sweep_of(PLAIN, seeds=60)
    train_in_process(started(sweep, store))
    counted = count(sweep, 1).bytes_of_records
    store.close()
    left = sum(path.stat().st_size for path in (tmp_path / "results").iterdir())
    assert counted is not None and left / 1.3 < counted < left * 1.3


# ------------------------------------------------------------------------------------------- the schedule


def work(lanes: int, steps: int = 100, sample: str = "a", task: str = "t") -> Work:
    return Work(lanes, steps, sample, task, 2)


def schedule(*cells: CellWork, slots: int = 10, workers: int = 2, is_auto: bool = False) -> Any:
    return Schedule(cells, slots, workers, is_auto, {"a": COST, "b": COST}, 0.5).run()


def test_packs_of_two_workers_by_hand() -> None:
    """A lane is 100 * 0.01 + 2 * 0.1 = 1.2 s; a pack of ten 12.5 s, and the first of a worker 3 s more, for program and
    threshold."""
    ended = schedule(CellWork((work(20),), 1, False))
    assert (ended.seconds, ended.packs, ended.programs_s) == (pytest.approx(15.5), 2, 3.0)
    assert schedule(CellWork((work(30),), 1, False)).seconds == pytest.approx(15.5 + 12.5)


def test_a_configuration_waits_for_those_that_its_search_needs() -> None:
    """One after another: a worker is idle. In groups of two all of the first group end before the second begins."""
    one_by_one = schedule(CellWork((work(10), work(10)), 1, False))
    assert one_by_one.seconds == pytest.approx(15.5 + 15.5), "the other worker takes the second, and loads the program too"
    both = schedule(CellWork((work(10), work(10)), 2, False))
    assert both.seconds == pytest.approx(15.5)
    grouped = schedule(CellWork((work(10), work(5), work(10)), 2, True), workers=3)
    assert grouped.seconds == pytest.approx(15.5 + 15.5)


def test_lanes_of_the_structure_that_has_the_most_are_taken_first_and_the_last_ones_are_shared() -> None:
    cells = (CellWork((work(3, sample="a"),), 1, False), CellWork((work(8, sample="b"),), 1, False))
    ended = schedule(*cells, slots=100, workers=1, is_auto=True)
    assert ended.packs == 2 and ended.last_lanes == 3
    assert schedule(CellWork((work(8),), 1, False), slots=100, workers=4, is_auto=True).packs == 4


def test_workers_and_driver_share_cores_and_the_driver_comes_first() -> None:
    """Two workers, 100 s each; a driver that writes for 40 s, the last 4 of them after the workers have ended."""
    assert together(100, 40, 4, workers=2, cores=0) == 104, "it has a core of its own"
    assert together(100, 40, 4, workers=2, cores=3) == 104
    assert together(100, 40, 4, workers=2, cores=2) == 100 + 36 / 2 + 4, "one of the two workers waits meanwhile"
    assert together(10, 40, 4, workers=2, cores=2) == 40, "the driver takes longer than both"


# ------------------------------------------------------------------------------------------- calibrations and plans


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty compile cache, in which calibrations are kept."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def keep(sweep: Sweep, workers: int, machine: str | None = None, cost: StructureCost = COST) -> None:
    """Keep costs as a calibration does."""
    for key in count(sweep, workers).samples:
        calibration._write(f"calibration-{key}", {machine or device_name("cpu"): dataclasses.asdict(cost)})
    calibration._write(calibration._machine_file(workers), {device_name("cpu"): dataclasses.asdict(MACHINE)})


def test_the_time_of_a_sweep_by_hand(cache: Path) -> None:
    """One structure, 8 lanes of 20 steps with 3 evaluations (at 0, 10 and 20): 0.5 s each. Start 5 + 3, program 2,
    threshold 1, two packs of a configuration each 0.5, lanes 4, end 2."""
    sweep = sweep_of(PLAIN, compare={"train.lr": [1e-3, 1e-2]}, model="nau")
    keep(sweep, 1)
    found = plan(sweep, Where(1, cores=2, price_per_hour=36.0))
    assert found.expected is not None and found.expected == found.worst and found.least is None
    assert found.expected.total_s == pytest.approx(5 + 3 + 2 + 1 + 2 * 0.5 + 4 + 2)
    assert found.cost_usd(found.expected) == pytest.approx(0.18)
    assert found.calibration == device_name("cpu")


def test_lanes_that_stop_when_solved_take_at_most_their_budget_and_the_store_says_how_much(cache: Path, store: Store) -> None:
    sweep = sweep_of(PLAIN, model="nau", compare=None, seeds=10, train={**DOCUMENT["train"], "stop": "solved"})
    keep(sweep, 1)
    before = plan(sweep, Where(1, cores=2), store)
    assert before.counts.stops_when_solved and before.expected == before.worst and not before.expected_from_store
    train_in_process(started(sweep, store))
    after = plan(dataclasses.replace(sweep, seeds=tuple(range(20))), Where(1, cores=2), store)
    assert after.expected_from_store and "made 100% of their steps" in " ".join(after.notes)


def test_a_structure_that_was_not_measured_is_estimated_from_another_which_is_named(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A linear layer of 10 inputs and 2 outputs and one of 2 and 1 have 22 weights, and 3 biases more: 25 / 22 = 1.1."""
    monkeypatch.setattr(calibration, "_measure_structures", lambda *arguments: {})
    sweep = sweep_of(PLAIN)
    keep(sweep, 1)
    (linear,) = (s for s in count(sweep, 1).samples.values() if s.name == "linear on static")
    (cache / "sweeps-programs" / f"calibration-{linear.key}.json").unlink()
    found = plan(sweep, Where(1, cores=2))
    assert "linear on static is estimated from nau on static, with 1.1 times its weights and batch" in found.calibration


def test_a_calibration_is_used_for_its_numerics_and_source_alone(cache: Path) -> None:
    sweep = sweep_of(PLAIN, model="nau", compare=None)
    keep(sweep, 1)
    (sample,) = count(sweep, 1).samples.values()
    assert kept([sample], "cpu", 1).structures == {sample.key: COST}
    for changes in ({"source": "other"}, {"numerics": dataclasses.replace(sample.request.numerics, version=0)}):
        other = dataclasses.replace(sample, request=dataclasses.replace(sample.request, **changes))
        assert not kept([other], "cpu", 1).structures
    assert kept([sample], "cpu", 2).machine is None, "the start is measured with each number of workers"


def test_the_calibration_of_another_machine_is_used_for_a_cluster_only(cache: Path) -> None:
    sweep = sweep_of(PLAIN, model="nau", compare=None)
    keep(sweep, 1, machine="another CPU, 8 cores")
    samples = list(count(sweep, 1).samples.values())
    assert not kept(samples, "cpu", 1).structures
    found = kept(samples, "cpu", 1, any_machine=True)
    assert found.structures and found.device == "another CPU, 8 cores"


def test_what_is_kept_and_damaged_is_measured_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = sweep_of(PLAIN, model="nau", compare=None)
    keep(sweep, 1)
    (sample,) = count(sweep, 1).samples.values()
    for text in ("[]", "{", json.dumps({device_name("cpu"): {"step_s": 1}})):
        (cache / "sweeps-programs" / f"calibration-{sample.key}.json").write_text(text)
        assert not kept([sample], "cpu", 1).structures
    monkeypatch.setattr(calibration, "_measure_structures", lambda samples, *rest: {one.key: COST for one in samples})
    found = calibrate([sample], "cpu", 1)
    assert found.measured == ("nau on static",) and kept([sample], "cpu", 1).structures == {sample.key: COST}


def test_lanes_are_measured_by_training_them() -> None:
    sweep = sweep_of(PLAIN, model="nau", compare=None)
    (sample,) = count(sweep, 1).samples.values()
    numerics = dataclasses.replace(sample.request.numerics, compiled=False)
    found = measure(dataclasses.replace(sample.request, numerics=numerics))
    assert found.step_s > 0 and found.evaluate_s > 0 and found.compile_s is None


def test_lanes_that_cannot_be_trained_end_the_calibration_with_their_reason() -> None:
    sweep = sweep_of(PLAIN, model="nau", compare=None)
    (sample,) = count(sweep, 1).samples.values()
    lanes = [dataclasses.replace(lane, settings={**lane.settings, "model": {}}) for lane in sample.request.lanes]
    with pytest.raises((SweepsError, KeyError)):
        measure(dataclasses.replace(sample.request, lanes=lanes))


def test_the_first_stage_is_the_least_of_early_stopping() -> None:
    from sweeps.runner.plan import lane_bounds

    sweep = sweep_of(early_stopping={"seeds": {"race": [2, 4]}, "steps": {"halving": [10], "metric": "par2"}})
    least, most = lane_bounds(sweep, 3, 4, 20)
    assert least == [Stage(4, 20), Stage(2, 10), Stage(2, 10)] and most == [Stage(4, 20)] * 3


# ------------------------------------------------------------------------------------------- the command


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "tiny.yaml"
    path.write_text(json.dumps(PLAIN))
    return path


def clusters(folder: Path, text: str) -> None:
    (folder / "clusters.yaml").write_text(text)


def test_a_plan_prints_its_numbers_and_what_they_are_for(file: Path) -> None:
    keep(load(file), 2)
    answer = call("plan", "tiny.yaml", "--workers", "2")
    assert answer.status == 0, answer.err
    lines = [" ".join(line.split()) for line in answer.out.splitlines()]
    assert lines[0] == "tiny on this machine: 2 workers"
    assert {"cells 2", "configurations 2", "lanes 8", "packs 2, of up to 4 lanes", "seed-steps 160"} <= set(lines)
    found = json.loads(call("plan", "tiny.yaml", "--workers", "2", "--format", "json").out)
    assert found["lanes"] == {"least": 8, "most": 8} and found["cost_usd"]["expected"] is None
    assert f"about {found['time']['expected']['total_s']:.0f} s" in answer.out
    assert not (file.parent / "results").exists(), "no store is made"


def test_a_plan_for_a_cluster_has_its_workers_and_its_price(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = "{kind: ray, address: 'http://head:8265', workers: 3, resources: {cpus: 4}, price_per_hour: 0.5}"
    clusters(file.parent, f"lab: {entry}\n")
    monkeypatch.setattr("sweeps.runner.plan.workers_here", lambda sweep: 12)
    keep(load(file), 12)
    found = json.loads(call("plan", "tiny.yaml", "--on", "lab", "--format", "json").out)
    assert (found["workers"], found["nodes"], found["price_per_hour"]) == (12, 3, 0.5)
    expected = found["time"]["expected"]["total_s"]
    assert found["cost_usd"]["expected"] == pytest.approx(3 * 0.5 * expected / 3600)
    assert any("the cluster's store is not read" in note for note in found["notes"])


def test_a_device_without_a_calibration_has_no_time_but_the_way_to_one(file: Path) -> None:
    clusters(file.parent, "lab: {kind: ray, address: 'http://head:8265', resources: {cpus: 4, gpus: 1}}\n")
    answer = call("plan", "tiny.yaml", "resources.gpus=1", "--on", "lab")
    assert answer.status == 0, answer.err
    text = " ".join(answer.out.split())
    assert " time the time is not known for cuda: no calibration of this sweep on such a device is kept in" in text
    assert "Run `sweeps plan` with the same file and settings on a node of cluster 'lab'" in text
    assert "the price is not known: give `price_per_hour` in the entry of 'lab' in clusters.yaml" in text
    arm = "lab: {kind: ray, address: 'http://head:8265', environment: {SWEEPS_NUMERICS: cpu-arm64}}\n"
    clusters(file.parent, arm)
    assert "the time is not known for cpu-arm64" in call("plan", "tiny.yaml", "--on", "lab").out


def test_a_plan_is_refused_where_a_run_is(file: Path) -> None:
    clusters(file.parent, "lab: {kind: ray, address: 'http://head:8265', resources: {cpus: 1}}\n")
    answer = call("plan", "tiny.yaml", "resources.cpus=2", "--on", "lab")
    assert answer.status == 2 and "no worker fits on a node of cluster 'lab'" in answer.err
    answer = call("plan", "tiny.yaml", "--on", "lap")
    assert answer.status == 2 and "Did you mean 'lab'?" in answer.err
    with Store(file.parent / "results") as store:
        begun = load(file, ["task.operation=sub"])
        store.begin_sweep("tiny", begun.text, begun.document)
    answer = call("plan", "tiny.yaml")
    assert answer.status == 2 and "task.operation: 'sub' -> 'add'" in answer.err


def test_a_plan_says_which_budget_ends_the_sweep_before(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(load(file), 1)
    limits = ["budget.hours=1e-4", "budget.seed_steps=100", "budget.cost_usd=1e-6"]
    answer = call("plan", "tiny.yaml", "--workers", "1", *limits)
    for part in ("budget.hours, 0.0001, may stop it", "budget.seed_steps, 100, may stop it", f"or {PRICE}; a run is refused"):
        assert part in answer.out
    monkeypatch.setenv(PRICE, "2")
    assert "budget.cost_usd, 1e-06 USD, may stop it before" in call("plan", "tiny.yaml", "--workers", "1", *limits).out


def test_a_sweep_with_a_budget_of_money_is_not_submitted_where_the_price_is_not_known(file: Path) -> None:
    clusters(file.parent, "lab: {kind: ray, address: 'http://127.0.0.1:9'}\n")
    answer = call("submit", "tiny.yaml", "budget.cost_usd=5", "--on", "lab")
    assert answer.status == 2 and "the price of cluster 'lab' is not known: give `price_per_hour`" in answer.err


def test_the_price_of_a_cluster_reaches_its_driver() -> None:
    from cluster.clusters_file import parse_clusters

    text = "lab: {kind: ray, address: 'http://head:8265', price_per_hour: 0.45, environment: {A: b}}\n"
    assert parse_clusters(text, "clusters.yaml")["lab"].cluster.driver_environment == {"A": "b", PRICE: "0.45"}
    with pytest.raises(UserError, match="SWEEPS_PRICE_PER_HOUR is not set here: give `price_per_hour`"):
        parse_clusters("lab: {kind: ray, address: 'http://h:1', environment: {SWEEPS_PRICE_PER_HOUR: 3}}\n", "clusters.yaml")


def test_a_plan_under_another_name_counts_out_what_the_store_has_of_that(file: Path) -> None:
    keep(load(file), 2)
    with Store(file.parent / "results") as store:
        begun = load(file, ["task.operation=sub"])
        store.begin_sweep("tiny", begun.text, begun.document)
    assert call("plan", "tiny.yaml").status == 2
    answer = call("plan", "tiny.yaml", "--name", "other", "--workers", "2")
    assert answer.status == 0 and answer.out.startswith("other on this machine: 2 workers"), answer.err
    assert "task.operation: 'sub' -> 'mul'" in call("plan", "tiny.yaml", "task.operation=mul", "--name", "tiny").err


def test_what_a_calibration_does_not_measure_in_its_time_has_no_cost(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "CALIBRATION_S", 0.0)
    found = calibrate(list(count(sweep_of(PLAIN), 1).samples.values()), "cpu", 1)
    assert (found.structures, found.machine, found.measured) == ({}, None, ())


@pytest.mark.slow
def test_a_calibration_measures_structures_and_the_start_of_ray_and_is_kept(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a busy machine half a minute is too short.
    monkeypatch.setattr(calibration, "CALIBRATION_S", 600.0)
    monkeypatch.setattr(calibration, "START_S", 300.0)
    found = json.loads(call("plan", "tiny.yaml", "--format", "json").out)
    assert found["time"]["expected"]["total_s"] > 0, found["why_time_is_unknown"]
    again = call("plan", "tiny.yaml")
    assert "calibration:" not in again.err and "measured now" not in again.out


def test_structures_of_one_name_are_listed_once_with_their_number() -> None:
    names = ["nalu on static", "nmu on static", "nmu on static"]
    assert names_text(names) == "nalu on static, 2 x nmu on static" and names_text([]) == ""
