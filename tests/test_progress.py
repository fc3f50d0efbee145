"""What is left of a running sweep, with simulated workers and a clock that they move, and how progress is shown."""

from __future__ import annotations

import dataclasses
import heapq
import io
import itertools
import re
import sys
import tempfile
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from cluster.backend import JobStatus
from sweeps.cli import remote
from sweeps.config.sweep_file import from_document
from sweeps.runner.driver import Driver, PackReport
from sweeps.runner.forecast import Forecast, Left, Lengths
from sweeps.runner.progress import Progress
from sweeps.runner.progress_log import MARK
from sweeps.store import Store
from sweeps.training.lane import Lane, LaneResult

BUDGET = 1000
DOCUMENT: dict[str, Any] = {
    "name": "simulated",
    "task": {"name": "static", "input_size": 10},
    "train": {"steps": BUDGET, "batch": 8, "evaluate_every": 100},
    "model": "nau",
    "seeds": 6,
    "search": {"sampler": "random", "configurations": 5, "parallel": 2, "space": {"train.lr": {"log_uniform": [1e-4, 1e-1]}}},
}
End = Callable[[Lane], int | None]
"""The step at which a lane is solved and ends; None: it is not."""


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@contextmanager
def driver_of(**changes: Any) -> Iterator[Driver]:
    document = {**DOCUMENT, **changes}
    if "model" in changes.get("compare", {}):
        del document["model"]
    sweep = from_document(document)
    with tempfile.TemporaryDirectory() as folder, Store(folder) as store, store.hold(sweep.name):
        store.begin_sweep(sweep.name, sweep.text, sweep.document)
        driver = Driver(sweep, sweep.name, store, None, 2)
        driver.begin()
        yield driver


def result(lane: Lane, end: int | None) -> LaneResult:
    return LaneResult(
        key=lane.key, seed=lane.seed, budget=lane.budget, steps=lane.budget if end is None else end,
        outcome="unsolved" if end is None else "solved", solved=end is not None, converged_at=end,
        error={"extrapolation": 1.0 if end is None else 1e-9}, threshold=1e-8,
    )  # fmt: skip


def simulate(
    driver: Driver, clock: Clock, end: End = lambda lane: None, workers: int = 2, step_s: float = 0.001, start_s: float = 20.0,
    stride: int = 250,
) -> Iterator[None]:  # fmt: skip
    """Let workers train packs, all lanes of one alike far; stop after each report. The first pack of each takes `start_s`."""

    def steps_of(lane: Lane) -> int:
        at = end(lane)
        return lane.budget if at is None else min(lane.budget, at)

    free, numbers = [(0.0, start_s)] * workers, itertools.count()
    coming: list[tuple[float, int, str, list[Lane], int, float]] = []  # reports: when, and after which training
    while True:
        while free and (request := driver.next_pack(f"pack {next(numbers)}", len(free))) is not None:
            at, wait_s = free.pop()
            if wait_s:
                driver.receive(request.pack_id, PackReport(preparing=True))
            heapq.heappush(coming, (max(at, clock.now_s) + wait_s, next(numbers), request.pack_id, request.lanes, 0, 0.0))
        if not coming:
            return
        clock.now_s, _, pack_id, lanes, made, seconds = heapq.heappop(coming)
        if made:
            steps = sum(min(steps_of(lane), made) - min(steps_of(lane), made - stride) for lane in lanes)
            ended = [lane for lane in lanes if steps_of(lane) <= made]
            lanes = [lane for lane in lanes if steps_of(lane) > made]
            solved = [result(lane, at if (at := end(lane)) is not None and at <= lane.budget else None) for lane in ended]
            driver.receive(pack_id, PackReport(results=solved, seed_steps=steps, seconds=seconds))
        if lanes:
            took_s = step_s * sum(min(steps_of(lane), made + stride) - made for lane in lanes)
            heapq.heappush(coming, (clock.now_s + took_s, next(numbers), pack_id, lanes, made + stride, took_s))
        else:
            driver.pack_ended(pack_id)
            free.append((clock.now_s, 0.0))
        yield


def forecasts(driver: Driver, **options: Any) -> list[tuple[float, float, Left]]:
    """Return (seconds, updates made, what is left) at every event of a simulated sweep, its end included."""
    clock = Clock()
    forecast = Forecast(driver, clock)
    found = []
    for _ in simulate(driver, clock, **options):
        forecast.observe()
        found.append((clock.now_s, float(driver.seed_steps), forecast.left()))
    assert driver.done
    return found


# ------------------------------------------------------------------------------------------- how long lanes are


def test_lengths_are_those_of_kaplan_and_meier_in_a_published_example() -> None:
    """Weeks in remission of 21 patients with 6-MP (Freireich 1963), of whom 9 relapsed."""
    relapsed = np.array([6, 6, 6, 7, 10, 13, 16, 22, 23], float)
    others = np.array([6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35], float)
    found = Lengths(relapsed, others)
    assert found.at.tolist() == [6, 7, 10, 13, 16, 22, 23]
    assert found.share[1:] == pytest.approx([0.857, 0.807, 0.753, 0.690, 0.627, 0.538, 0.448], abs=5e-4)
    area = 6 + 0.857 + 3 * 0.807 + 3 * 0.753 + 3 * 0.690 + 6 * 0.627 + 0.538 + 12 * 0.448
    assert float(found.mean(35)) == pytest.approx(area, abs=0.02)


def test_without_a_lane_that_ended_early_lanes_take_their_whole_budget() -> None:
    found = Lengths(np.array([]), np.array([3.0, 5.0]))
    assert found.rest(np.array([3.0, 5.0]), np.array([10.0, 10.0])).tolist() == [7.0, 5.0]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 1000), max_size=20), st.lists(st.integers(1, 1000), min_size=1, max_size=20))
def test_the_rest_of_a_lane_is_between_nothing_and_its_budget(ended: list[int], running: list[int]) -> None:
    found = Lengths(np.array(ended, float), np.array(running, float))
    rest = found.rest(np.array(running, float), np.full(len(running), 1000.0))
    assert np.all(rest >= 0) and np.all(rest <= 1000 - np.array(running) + 1e-9)


# ------------------------------------------------------------------------------------------- what is left


def test_workers_that_still_compile_are_expected_to_train_soon_but_the_most_is_without_them() -> None:
    with driver_of(seeds=2, search={**DOCUMENT["search"], "configurations": 2}) as driver:
        clock = Clock()
        forecast = Forecast(driver, clock)
        first, second = driver.next_pack("first", 2), driver.next_pack("second", 1)
        assert first is not None and second is not None and len(first.lanes) == len(second.lanes) == 2
        driver.receive("second", PackReport(preparing=True))
        clock.now_s = 10.0
        driver.receive("first", PackReport(seed_steps=500, seconds=5.0))
        forecast.observe()
        left = forecast.left()
    # 3500 updates at 100 a second: with one worker 35 s, with both 17.5 s.
    assert (left.steps, left.seconds, left.most_seconds) == pytest.approx((3500, 17.5, 35.0))


@settings(max_examples=4, deadline=None)
@given(seeds=st.integers(1, 7), configurations=st.integers(1, 5), workers=st.integers(1, 3), stride=st.sampled_from([130, 500]))
def test_where_every_lane_takes_its_budget_what_is_left_is_exact(
    seeds: int, configurations: int, workers: int, stride: int
) -> None:
    search = {**DOCUMENT["search"], "configurations": configurations}
    with driver_of(seeds=seeds, search=search) as driver:
        total = seeds * configurations * BUDGET
        for _, made, left in forecasts(driver, workers=workers, stride=stride):
            assert left.steps == left.most_steps == pytest.approx(total - made)


@settings(max_examples=4, deadline=None)
@given(st.randoms(use_true_random=False), st.sampled_from([1, 2, 3]))
def test_what_is_left_is_never_negative_never_less_likely_than_the_most_and_nothing_at_the_end(
    random: Any, workers: int
) -> None:
    ends: dict[str, int | None] = {}

    def end(lane: Lane) -> int | None:
        return ends.setdefault(lane.key, random.choice([None, 100, 300, 300, 900]))

    with driver_of(
        train={**DOCUMENT["train"], "stop": "solved"}, confirm={"top": 1, "seeds": {"first": 100, "count": 3}},
        early_stopping={"seeds": {"race": [3]}}, search={**DOCUMENT["search"], "objective": "success_rate"},
    ) as driver:  # fmt: skip
        found = forecasts(driver, end=end, workers=workers)
        made_at_last = found[-1][1]
        for _, made, left in found:
            assert 0 <= left.steps <= left.most_steps + 1e-6
            assert left.most_steps >= made_at_last - made - 1e-6  # it takes no more than the most
            assert (left.seconds is None) == (made == 0)
            assert left.seconds is None or 0 <= left.seconds <= (left.most_seconds or 0) + 1e-6
        assert found[-1][2].most_steps == 0


def test_a_grid_counts_its_points_and_not_the_configurations_of_the_file() -> None:
    search = {"sampler": "grid", "configurations": 50, "parallel": 2, "space": {"train.lr": [1e-3, 3e-3, 1e-2]}}
    with driver_of(search=search) as driver:
        found = forecasts(driver)
        assert found[0][2].most_steps == 3 * 6 * BUDGET  # the file's own 1e-3 is one of them


def test_repeated_suggestions_cost_nothing() -> None:
    search = {"sampler": "random", "configurations": 30, "parallel": 2, "space": {"train.lr": [1e-3, 3e-3, 1e-2]}}
    with driver_of(search=search) as driver:
        for _, made, left in forecasts(driver):
            assert left.most_steps <= 3 * 6 * BUDGET - made


def test_what_a_race_saves_is_expected_from_what_it_saved_so_far() -> None:
    """With racing that stops most, what is expected after a few groups is near what is really left, and the most is not."""
    search = {**DOCUMENT["search"], "configurations": 16, "parallel": 4, "objective": "success_rate"}
    with driver_of(seeds=40, search=search, early_stopping={"seeds": {"race": [10]}}) as driver:

        def end(lane: Lane) -> int | None:
            return 500 if lane.settings["train"]["lr"] == 1e-3 else None  # configuration 0 is the best by far

        found = forecasts(driver, end=end)
        assert found[0][2].guessed and not found[-1][2].guessed
        made_at_last = found[-1][1]
        middle = next((made, left) for _, made, left in found if made > made_at_last / 2)
        truth = made_at_last - middle[0]
        assert middle[1].steps == pytest.approx(truth, rel=0.35)
        assert middle[1].most_steps > 2 * truth


def test_lanes_that_end_when_solved_are_expected_to_be_as_long_as_those_before() -> None:
    """The first lanes that end are the short ones: their mean alone would promise too little."""
    rng = np.random.default_rng(0)
    ends: dict[str, int] = {}

    def end(lane: Lane) -> int | None:
        return ends.setdefault(lane.key, int(rng.integers(100, 1000)))

    search = {**DOCUMENT["search"], "configurations": 8}
    with driver_of(seeds=15, search=search, train={**DOCUMENT["train"], "stop": "solved"}) as driver:
        found = forecasts(driver, end=end, stride=150)
        made_at_last = found[-1][1]
        later = [(made_at_last - made, left.steps) for _, made, left in found if made > 0.2 * made_at_last]
        assert all(left == pytest.approx(truth, rel=0.2, abs=3000) for truth, left in later)


def test_the_time_left_leaves_out_the_start_and_compilation() -> None:
    """Two workers make 1,000 updates a second each; compilation takes 20 s before, which no later pack takes."""
    with driver_of(seeds=40) as driver:
        found = forecasts(driver, workers=2, start_s=500.0)
        end_s = found[-1][0]
        first_s = next(at for at, _, left in found if left.seconds is not None)
        at, left = next((at, left) for at, _, left in found if at > first_s)  # both workers have reported
        assert left.seconds == pytest.approx(end_s - at, rel=0.25)


# ------------------------------------------------------------------------------------------- the display


def screen_of(driver: Driver, width: int, events: int | None = None) -> list[str]:
    output, clock = io.StringIO(), Clock()
    progress = Progress(driver, Console(file=io.StringIO(), width=width), clock)
    for _ in itertools.islice(simulate(driver, clock, end=lambda lane: 300 if lane.seed % 2 else None), events):
        progress()
    Console(file=output, width=width, color_system=None).print(progress.screen(width))
    return output.getvalue().splitlines()


@pytest.mark.parametrize("width", [40, 80, 120])
def test_no_line_of_the_table_is_wider_than_the_terminal_or_wrapped(width: int) -> None:
    with driver_of(compare={"model": ["nau", "nac", {"name": "nac", "label": "a rather long label of a cell"}]}) as driver:
        lines = screen_of(driver, width)
    header = next(i for i, line in enumerate(lines) if " # " in line)
    rows = lines[header + 1 :]
    assert max(map(len, lines)) <= width
    assert len(rows) == 6 and all("50% [" in row for row in rows)
    assert ("par2" in lines[header], "seeds" in lines[header]) == (width >= 100, width >= 76)


def test_of_one_cell_five_are_shown_best_first_and_of_many_cells_five_in_all() -> None:
    with driver_of(search={**DOCUMENT["search"], "configurations": 6}) as driver:
        lines = screen_of(driver, 120)
    assert [line.split()[1] for line in lines[-5:]] == ["1", "2", "3", "4", "5"]
    ranges = [{"label": f"up to {n}", "task": {"interpolation": [1, n]}} for n in range(2, 9)]
    with driver_of(compare={"range": ranges}, seeds=2, search={**DOCUMENT["search"], "configurations": 2}) as driver:
        assert len([line for line in screen_of(driver, 120) if "up to" in line]) == 5


def test_what_is_still_running_is_shown_below_the_complete_ones_without_a_rank() -> None:
    with driver_of(seeds=40, resources={"slots": 10}) as driver:
        lines = screen_of(driver, 120, events=12)
    assert any("/40" in line and "–" in line and "40/40" not in line for line in lines)


def test_compilation_and_the_start_of_workers_are_shown_as_such() -> None:
    with driver_of() as driver:
        output, clock = io.StringIO(), Clock()
        progress = Progress(driver, Console(file=output, width=200), clock)
        progress.before("starting Ray")
        progress.before(None)
        for _ in simulate(driver, clock):
            progress()
        progress.end()
    lines = output.getvalue().splitlines()
    assert lines[0] == "starting Ray"
    assert "2 in flight" in lines[1] and "compiling or loading nau" in lines[1]
    assert "time left after the first results" in lines[1]
    first = next(line for line in lines if " seed-steps/s" in line and "  0 seed-steps/s" not in line)
    assert "lanes 0/" in first and "left about" in first  # as soon as steps are reported
    assert "compiling" not in lines[-7]


def test_a_job_log_has_the_time_beside_the_start_of_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEEPS_PROGRESS", "lines")
    with driver_of() as driver:
        output, clock = io.StringIO(), Clock()
        progress = Progress(driver, Console(file=output, width=200), clock)
        clock.now_s = 3723.0
        progress.before("starting Ray")
    assert output.getvalue() == f"{MARK}1:02:03  starting Ray\n"


def test_watch_shows_a_job_that_waits_with_the_time_since_it_was_submitted_and_then_its_log(
    capsys: pytest.CaptureFixture[str],
) -> None:
    since = (datetime.now(UTC) - timedelta(seconds=75)).isoformat(timespec="seconds")
    queued = JobStatus("job-7", "waiting", 1, since, "it waits in the queue")
    states = iter([queued, queued, dataclasses.replace(queued, message=""), JobStatus("job-7", "running", 1, "today")])
    pauses: list[float] = []

    class Stub:
        def status(self, name: str) -> JobStatus:
            return next(states)

        def logs(self, name: str, follow: bool, on_message: Callable[[str], None]) -> Iterator[str]:
            return iter([f"{MARK}0:00:00  starting Ray", "# small"])

    remote._in_lines(remote._followed(Stub(), "small", 1000.0, pauses.append))  # type: ignore[arg-type]
    lines = capsys.readouterr().out.splitlines()
    assert [re.sub(r"^0:01:1\d", "0:01:1_", line) for line in lines] == [
        "0:01:1_  job job-7 is submitted: it waits in the queue",
        "0:01:1_  job job-7 is submitted: it waits for the cluster",
        "0:00:00  job job-7 has started and loads the sweep",
        "0:00:00  starting Ray",
        "# small",
    ]
    assert pauses == [remote.POLL_S] * 3


def test_plain_lines_have_a_table_at_most_every_few_minutes_and_at_the_end() -> None:
    with driver_of(seeds=10, search={**DOCUMENT["search"], "configurations": 20}) as driver:
        output, clock = io.StringIO(), Clock()
        progress = Progress(driver, Console(file=output, width=200), clock)
        for _ in simulate(driver, clock, step_s=0.01, stride=500):
            progress()
        progress.end()
        progress.end()
    lines = output.getvalue().splitlines()
    tables = [i for i, line in enumerate(lines) if line.lstrip().startswith("#")]
    firsts = [line for line in lines if re.match(r"\d+:\d\d:\d\d  configurations", line)]
    assert 2 <= len(tables) <= clock.now_s / 180 + 2 < len(firsts)
    assert "configurations 20/20" in lines[tables[-1] - 1]


@pytest.mark.parametrize(
    "log",
    [
        [
            "Running entrypoint for job small-1: exec python -m cluster.job",
            f"{MARK}0:00:05  lanes 1/9, 0 solved",
            f"{MARK}  model=nau: best #0, 1 of 2 solved, lr 1e-3",
            "# small",
        ],  # of an older version
        [f"{MARK}  nau  1  cut off at its beginning", f"{MARK}0:00:09  lanes 2/9", f"{MARK}  {'long ' * 60}"],
        [],
    ],
)
def test_watch_shows_the_logs_of_any_version_on_a_narrow_screen(log: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    output = io.StringIO()
    monkeypatch.setattr(remote, "console", Console(file=output, width=60, force_terminal=True))
    remote._on_screen(iter(log))
    text = re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", output.getvalue())
    assert "entrypoint" not in text
    assert max((len(line.strip("\r")) for line in text.splitlines()), default=0) <= 60
    assert all(
        part in text
        for part in (line.removeprefix(MARK).split("  ")[0] for line in log if not line.startswith((f"{MARK}  ", "Running")))
    )


def test_a_notebook_updates_one_output_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[dict[str, str]] = []

    class Handle:
        def update(self, bundle: dict[str, str], raw: bool) -> None:
            shown.append(bundle)

    def display(bundle: dict[str, str], raw: bool, display_id: bool) -> Handle:
        assert raw and display_id
        return Handle()

    module = types.ModuleType("IPython.display")
    module.__dict__["display"] = display
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    with driver_of() as driver:
        output, clock = io.StringIO(), Clock()
        with Progress(driver, Console(file=output, force_jupyter=True), clock) as progress:
            for _ in simulate(driver, clock):
                progress()
    assert output.getvalue() == ""
    assert "configurations 5/5" in shown[-1]["text/plain"] and "<pre" in shown[-1]["text/html"]
    assert "rank" in shown[-1]["text/html"]
