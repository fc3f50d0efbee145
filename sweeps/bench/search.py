"""`sweeps bench --search`: search and early-stopping strategies on recorded sweeps (`sweeps.bench.recording`).

Every strategy meets the same configurations and seeds in the same random order, once for each repetition. It may use half of
the recorded seeds; the other half measures what it chose. Decisions are the product's own: suggestions of
`sweeps.search.cell`, early stopping of `sweeps.search.stopping`, metrics of `sweeps.results.metrics`.

What is counted: the updates of every lane that a strategy trains, each lane once, up to where it was trained last. A lane has
its whole budget unless it diverges or is stopped at a rung; with `stop: solved` it ends where it first meets the threshold.
"""

from __future__ import annotations

import bisect
import itertools
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property, partial
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from sweeps.bench import irace_peer, smac_peer
from sweeps.bench.recording import Recording, Stop
from sweeps.config.space import Dimension, EarlyStopping, Halving, Objective, Race, same
from sweeps.errors import UserError
from sweeps.results.drawing import COLOURS, GREY, MARKERS
from sweeps.results.numbers import UNKNOWN, percent, steps
from sweeps.results.statistics import Interval, t_mean, wilson
from sweeps.results.summary import Summary, log_error, objective_value, rank, summarise
from sweeps.search.cell import CellSearch, Finished
from sweeps.search.stopping import Values, is_stopped_at_rung, race, stages
from sweeps.training.lane import LaneResult

REPEATS = 20
LEAST_SHARE = 0.001
"""Of the seed-steps of everything that the figure shows."""
TPE_CONFIGURATIONS = 40
"""That TPE tries: from more of a recording's, the nearest one that is left is seldom near."""


class Point(NamedTuple):
    """What a search had chosen after so many seed-steps."""

    seed_steps: int
    configuration: int


Trajectory = Sequence[Point]
"""By rising seed-steps, from the first configuration that was completed; the last point has the winner and the whole cost."""


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """How a search proceeds."""

    name: str
    tpe: bool = False
    """Whether TPE suggests; otherwise configurations come in random order, which is random search."""
    configurations: int | None = None
    """Number that it tries; None: all that are recorded."""
    parallel: int = 8
    """Configurations in flight, and in a group."""
    stopping: EarlyStopping = field(default_factory=EarlyStopping)


@dataclass
class Replay:
    """A recording as one search meets it, and the seed-steps that the search has used."""

    recording: Recording
    order: Sequence[int]
    """The recorded configurations, the file's own first, the others shuffled."""
    seeds: Sequence[int]
    """Positions of the recorded seeds that the search may use, shuffled."""
    seed: int
    """Of all random numbers of the search."""
    stop: Stop = "never"
    seed_steps: int = field(default=0, init=False)
    """Updates so far."""
    trained: dict[tuple[int, int], int] = field(default_factory=dict, init=False)
    """(configuration, position of the seed) -> updates."""

    @property
    def configurations(self) -> int:
        """Number of configurations that were trained."""
        return len({configuration for configuration, _ in self.trained})

    def result(self, configuration: int, seed: int, at: int | None = None) -> LaneResult:
        """Train seed number `seed` of a search up to step `at` (None: its whole budget), and return its result there."""
        position = self.seeds[seed]
        found = self.recording.result(configuration, position, at, self.stop)
        lane = configuration, position
        before = self.trained.get(lane, 0)
        self.trained[lane] = max(found.steps, before)
        self.seed_steps += self.trained[lane] - before
        return found

    def results(self, configuration: int, seeds: int, at: int) -> list[LaneResult]:
        """Train the first `seeds` seeds of a configuration."""
        return [self.result(configuration, seed, at) for seed in range(seeds)]


def search(strategy: Strategy, replay: Replay) -> Trajectory:
    """Return what a strategy has chosen after each configuration that it completes, and at its end.

    The rules are those of the driver: groups that race, and comparisons at a rung with what had ended before a
    configuration was suggested.
    """
    recording, num_seeds, stopping = replay.recording, len(replay.seeds), strategy.stopping
    objective = recording.search.objective
    count = min(strategy.configurations or len(replay.order), len(replay.order))
    suggest = _suggestions(strategy, replay, count)
    tried: dict[int, int] = {}
    finished: dict[int, Finished] = {}
    complete: dict[int, Values] = {}
    at_rung: dict[int, dict[int, tuple[float, float]]] = {}
    best: tuple[int, Summary] | None = None
    found: list[Point] = []
    for first in range(0, count, strategy.parallel):
        numbers = range(first, min(first + strategy.parallel, count))
        for number in numbers:
            tried[number] = suggest(number, tried, finished)
        left, before, level = list(numbers), dict(complete), 0
        for index, stage in enumerate(stages(stopping, num_seeds, recording.budget)):
            values: dict[int, Values] = {}
            for number in left:
                results = replay.results(tried[number], stage.seeds, stage.steps)
                summary = summarise(results)
                parameters = recording.parameters[tried[number]] if number else {}
                value, tie_break = objective_value(summary, objective.name, objective.direction)
                finished[number] = Finished(parameters, value, tie_break, stopped_after=index + 1)
                values[number] = {
                    r.seed: (recording.seed_value.of(r), log_error(r.error.get("extrapolation"))) for r in results
                }
                if stage.steps < recording.budget:
                    at_rung.setdefault(stage.steps, {})[number] = _at_rung(stopping.halving, summary)
                elif stage.seeds == num_seeds:
                    complete[number] = values[number]
                    finished[number] = replace(finished[number], stopped_after=None)
                    if best is None or rank([best[1], summary], recording.search)[0].position == 1:
                        best = tried[number], summary
                    found.append(Point(replay.seed_steps, best[0]))
            if stage.steps < recording.budget and stopping.halving is not None:
                reached, keep = at_rung.get(stage.steps, {}), stopping.halving.keep
                earlier = {k: [reached[n] for n in range(max(0, k - strategy.parallel + 1)) if n in reached] for k in left}
                left = [k for k in left if not is_stopped_at_rung(reached[k], earlier[k], keep)]
            elif stage.seeds < num_seeds and stopping.race is not None:
                worse = race(stopping.race, level, values, before, recording.seed_value)
                left, level = [number for number in left if number not in worse], level + 1
    # The last configurations may have been stopped.
    return [*found, Point(replay.seed_steps, found[-1].configuration)]


def _at_rung(halving: Halving | None, summary: Summary) -> tuple[float, float]:
    """Return the metric that halving compares and what breaks ties, lower being better."""
    assert halving is not None
    value, tie_break = objective_value(summary, halving.metric.name, halving.metric.direction)
    return (-value if halving.metric.direction == "maximize" else value), tie_break


# ------------------------------------------------------------------------------------------- suggestions

Suggest = Callable[[int, Mapping[int, int], Mapping[int, Finished]], int]
"""(number, number -> recorded configuration so far, number -> result so far) -> recorded configuration."""


def _suggestions(strategy: Strategy, replay: Replay, count: int) -> Suggest:
    if not strategy.tpe:
        return lambda number, tried, finished: replay.order[number]
    recording = replay.recording
    settings = replace(
        recording.search, sampler="tpe", sampler_options={}, seed=replay.seed, configurations=count, parallel=strategy.parallel
    )
    space = settings.space
    in_groups = strategy.stopping.race is not None
    cell = CellSearch(space, settings, recording.cell, recording.parameters[0], in_groups)
    points = np.array([coordinates(space, parameters) for parameters in recording.parameters])

    def nearest(number: int, tried: Mapping[int, int], finished: Mapping[int, Finished]) -> int:
        running = {k: Finished(recording.parameters[c] if k else {}, None) for k, c in tried.items()}
        suggestion = cell.suggest(number, {**running, **finished})
        assert suggestion is not None
        if number == 0:
            return 0
        distances = np.square(points - coordinates(space, suggestion.parameters)).sum(axis=1)
        distances[list(tried.values())] = math.inf
        return int(distances.argmin())

    return nearest


def coordinates(space: Mapping[str, Dimension], parameters: Mapping[str, Any]) -> list[float]:
    """Return a point of a search space with distances that compare its dimensions.

    A range is [0, 1], on a logarithmic scale where it is searched on one. Off, and a choice, is 1 away from every other
    value. What is outside of a range is at its end; a missing parameter counts as off.
    """
    point: list[float] = []
    for path, dimension in space.items():
        value = parameters.get(path, dimension.off)
        if dimension.kind == "choice":
            # Two points that differ in their choice differ by sqrt(1/2) in two of these.
            point += [math.sqrt(0.5) * same(value, choice) for choice in dimension.choices]
        elif value is None or (dimension.has_off and same(value, dimension.off)):
            point += [1.0, 0.5]
        else:
            low, high, at = float(dimension.low or 0), float(dimension.high or 0), float(value)
            at = min(max(at, low), high)
            if dimension.kind in ("log_uniform", "log_integer"):
                low, high, at = math.log(low), math.log(high), math.log(at)
            point += [0.0, (at - low) / (high - low) if high > low else 0.5]
    return point


# ------------------------------------------------------------------------------------------- the strategies

EVERYTHING = Strategy(name="everything")
SMAC, IRACE = "SMAC's intensifier", "one race of irace"
LINES = {
    EVERYTHING.name: ("random: a subset with all seeds", GREY),
    "tpe": ("tpe", COLOURS[5]),
    SMAC: (SMAC, COLOURS[0]),
}
"""Strategies whose course is drawn, not only its end -> label, colour."""
POINTS = [*(colour for colour in COLOURS if colour not in (COLOURS[0], COLOURS[5])), "#999999"]
"""Colours of the others."""


def strategies(num_seeds: int, budget: int) -> list[Strategy]:
    """Return the strategies for a recording, `everything` first, whose first configurations are a random subset."""
    late, early = _doubling(max(1, num_seeds // 5), num_seeds), _doubling(max(1, num_seeds // 25), num_seeds)
    rungs = Halving((budget // 5, budget // 2), Objective("error.extrapolation.median"))
    both = EarlyStopping(race=late, halving=rungs)
    return [
        EVERYTHING,
        Strategy(name="halving", stopping=EarlyStopping(halving=rungs)),
        Strategy(name=f"racing from {late.levels[0]} seeds", stopping=EarlyStopping(race=late)),
        Strategy(name=f"racing from {early.levels[0]} seeds", stopping=EarlyStopping(race=early)),
        Strategy(name=f"racing from {late.levels[0]} + halving", stopping=both),
        Strategy(name="tpe", tpe=True, configurations=TPE_CONFIGURATIONS),
        Strategy(
            name=f"tpe + racing from {early.levels[0]}", tpe=True, configurations=TPE_CONFIGURATIONS,
            stopping=EarlyStopping(race=early),
        ),
        Strategy(
            name=f"tpe + racing from {late.levels[0]} + halving", tpe=True, configurations=TPE_CONFIGURATIONS, stopping=both
        ),
    ]  # fmt: skip


def _doubling(first: int, num_seeds: int) -> Race:
    """Return a race with levels that double, up to all seeds."""
    levels = itertools.takewhile(lambda level: level < num_seeds, (first * 2**k for k in itertools.count()))
    return Race((*levels, num_seeds))


# ------------------------------------------------------------------------------------------- the measurement


@dataclass(frozen=True)
class Run:
    """One search."""

    trajectory: Trajectory
    configurations: int
    """Number that it tried."""


@dataclass(frozen=True, kw_only=True)
class Repetition:
    """All strategies on one order of configurations and seeds."""

    runs: dict[str, Run]
    """By strategy."""
    everything: int
    """Seed-steps of all configurations with all seeds that a search may use."""
    regret: list[float]
    """By configuration: its objective over the fresh seeds relative to that of the best one, minus 1."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A strategy over all repetitions. Means have Student's interval, shares of the repetitions Wilson's."""

    strategy: str
    configurations: int
    """Number that it tried, in the mean."""
    seed_steps: Interval
    share: Interval
    """Of the seed-steps of `everything`."""
    regret: Interval
    """Of the objective on fresh seeds: 0.1 is a winner whose par2 is 10 % above that of the best configuration."""
    best: Interval
    """Share of the repetitions that chose the best configuration."""
    equal: Interval
    """Share that chose the best one, or one whose objective has an interval that overlaps that of the best."""
    random: Interval
    """Regret of a random subset of configurations with all seeds, for as many seed-steps in every repetition."""
    smac: float | None
    """Least share of the seed-steps of `everything` after which SMAC's mean regret is not above. None: there is none."""


@dataclass(frozen=True, kw_only=True)
class SearchBench:
    """The strategies on one recording."""

    recording: str
    configurations: int
    seeds: int
    """That a search may use."""
    fresh_seeds: int
    """That measure what it chose."""
    budget: int
    """train.steps."""
    stop: Stop
    good: int
    """Configurations that solve more than half of the recorded seeds."""
    objective: str
    best: int
    """The configuration with the best objective over all recorded seeds."""
    best_success: Interval
    best_value: Interval
    """Of the objective, with Student's interval."""
    equal: tuple[int, ...]
    """Configurations whose objective has an interval that overlaps that of the best, itself included; all recorded seeds."""
    repetitions: tuple[Repetition, ...]
    not_run: dict[str, str]
    """Peer -> why it was not measured."""

    def rows(self) -> list[Row]:
        """Return the table, `everything` first."""
        return [self._row(name) for name in self.repetitions[0].runs]

    def _row(self, name: str) -> Row:
        runs = [one.runs[name] for one in self.repetitions]
        costs = [run.trajectory[-1].seed_steps for run in runs]
        winners = [run.trajectory[-1].configuration for run in runs]
        regrets = [one.regret[winner] for one, winner in zip(self.repetitions, winners, strict=True)]
        return Row(
            strategy=name,
            configurations=round(statistics.mean(run.configurations for run in runs)),
            seed_steps=t_mean(costs, floor=0.0),
            share=t_mean([cost / one.everything for cost, one in zip(costs, self.repetitions, strict=True)], floor=0.0),
            regret=t_mean(regrets),
            best=wilson(sum(winner == self.best for winner in winners), len(winners)),
            equal=wilson(sum(winner in self.equal for winner in winners), len(winners)),
            random=t_mean(self.regrets(EVERYTHING.name, costs)),
            smac=next((share for share, mean in self._smac if share > 0 and mean <= statistics.mean(regrets) + 1e-9), None),
        )

    def regrets(self, strategy: str, seed_steps: Sequence[float]) -> list[float]:
        """Return the regret of a strategy after so many seed-steps, by repetition.

        Before its first configuration is complete, it is that of the first one.
        """
        found = []
        for one, most in zip(self.repetitions, seed_steps, strict=True):
            points = one.runs[strategy].trajectory
            last = bisect.bisect_right(points, most, key=lambda point: point.seed_steps) - 1
            found.append(one.regret[points[max(0, last)].configuration])
        return found

    def mean_regret(self, strategy: str, share: float) -> Interval:
        """Return the mean regret after a share of the seed-steps of `everything`, with Student's interval."""
        return t_mean(self.regrets(strategy, [share * one.everything for one in self.repetitions]))

    @cached_property
    def _smac(self) -> list[tuple[float, float]]:
        """(share of the seed-steps of `everything`, mean regret of SMAC from there on), by rising share."""
        if SMAC in self.not_run:
            return []
        changes: list[tuple[float, float]] = []  # (share, by how much the mean changes there)
        for one in self.repetitions:
            points, before = one.runs[SMAC].trajectory, 0.0
            for index, point in enumerate(points):
                if index == 0 or point.configuration != points[index - 1].configuration:
                    after = one.regret[point.configuration] / len(self.repetitions)
                    changes.append((point.seed_steps / one.everything if index else 0.0, after - before))
                    before = after
        changes.sort()
        means = itertools.accumulate(by for _, by in changes)
        return list(dict(zip([share for share, _ in changes], means, strict=True)).items())  # of equal shares the last

    def table(self) -> str:
        """Return the rows as text."""
        count = len(self.repetitions)
        success, value = self.best_success, self.best_value
        lines = [
            f"{self.recording}: {self.configurations} configurations, {self.good} of which solve more than half of their "
            f"seeds; {self.seeds} seeds for a search, {self.fresh_seeds} fresh ones to measure its winner; "
            f"{self.budget:,} steps, stop: {self.stop}",
            f"best, over all {self.seeds + self.fresh_seeds} seeds: success {percent(success.estimate)}% "
            f"[{percent(success.low)}, {percent(success.high)}], {self.objective} {steps(value.estimate)} [{steps(value.low)}, "
            f"{steps(value.high)}]; other configurations with an interval that overlaps: {len(self.equal) - 1}",
            "",
            "| strategy | tried | seed-steps | of everything, % | regret, % | best found | or equal | "
            "random for as much, regret % | SMAC needs, of everything, % |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        for row in self.rows():
            cells = [
                row.strategy, str(row.configurations), steps(row.seed_steps.estimate), _mean(row.share), _mean(row.regret),
                _count(row.best, count), _count(row.equal, count), _mean(row.random),
                UNKNOWN if SMAC in self.not_run else "never as low" if row.smac is None else f"{100 * row.smac:.3g}",
            ]  # fmt: skip
            lines.append("| " + " | ".join(cells) + " |")
        lines += [f"| {peer} | not measured: {why} |" + " |" * 7 for peer, why in self.not_run.items()]
        return "\n".join([*lines, "", f"means of {count} repetitions [95 % interval]"])

    def as_json(self) -> dict[str, Any]:
        """Return what `table` shows, as numbers."""
        about = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "repetitions"}
        plain = {name: asdict(value) if isinstance(value, Interval) else value for name, value in about.items()}
        return {**plain, "repetitions": len(self.repetitions), "rows": [asdict(row) for row in self.rows()]}


def _mean(value: Interval) -> str:
    """A share as percent, with its interval."""
    if value.estimate is None:
        return UNKNOWN
    ends = "" if value.low is None or value.high is None else f" [{100 * value.low:.3g}, {100 * value.high:.3g}]"
    return f"{100 * value.estimate:.3g}{ends}"


def _count(value: Interval, count: int) -> str:
    assert value.estimate is not None
    return f"{round(value.estimate * count)}/{count} [{percent(value.low)}, {percent(value.high)}]"


def bench_search(
    recording: Recording, repeats: int = REPEATS, seed: int = 0, stop: Stop = "never", peers: bool = True,
    on_progress: Callable[[str], None] = lambda line: None,
) -> SearchBench:  # fmt: skip
    """Repeat every strategy on shuffled configurations and seeds, and measure what it chose.

    `seed` is that of all random numbers, `stop` when a lane ends. `peers`: whether SMAC and irace are measured where
    they are installed.
    Raises UserError for a recording whose objective is not a mean over all seeds.
    """
    objective = recording.search.objective
    if recording.seed_value.by_rank or objective.direction == "maximize":
        raise UserError(f"a mean regret needs an objective that is a mean and is minimised, such as par2, not {objective.name}")
    lanes = [[recording.result(c, s, stop=stop) for s in range(len(recording.seeds))] for c in range(len(recording.parameters))]
    values = np.array([[recording.seed_value.of(result) for result in row] for row in lanes])
    intervals = [t_mean(row) for row in values.tolist()]
    best = int(values.mean(axis=1).argmin())
    not_run = _not_run() if peers else dict.fromkeys((SMAC, IRACE), "left out")
    num_seeds = len(recording.seeds) // 2
    repetitions = []
    for repeat in range(repeats):
        generator = np.random.default_rng([seed, repeat])
        order = [0, *(1 + generator.permutation(len(lanes) - 1)).tolist()]
        shuffled = generator.permutation(len(recording.seeds)).tolist()
        replay = partial(Replay, recording, order, shuffled[:num_seeds], int(generator.integers(2**31)), stop)
        runs = {one.name: _run(partial(search, one), replay()) for one in strategies(num_seeds, recording.budget)}
        if SMAC not in not_run:
            runs[SMAC] = _run(_smac, replay())
        if IRACE not in not_run:
            runs[IRACE] = _run(_irace, replay())
        fresh = values[:, shuffled[num_seeds:]].mean(axis=1)
        cost = runs[EVERYTHING.name].trajectory[-1].seed_steps
        repetitions.append(Repetition(runs=runs, everything=cost, regret=(fresh / fresh[best] - 1).tolist()))
        on_progress(f"{recording.sweep}: repetition {repeat + 1} of {repeats}")
    solved = [sum(result.solved for result in row) for row in lanes]
    return SearchBench(
        recording=recording.sweep, configurations=len(lanes), seeds=num_seeds, fresh_seeds=len(recording.seeds) - num_seeds,
        budget=recording.budget, stop=stop, good=sum(2 * n > len(recording.seeds) for n in solved), best=best,
        best_success=wilson(solved[best], len(recording.seeds)), best_value=intervals[best], objective=objective.name,
        equal=tuple(c for c, interval in enumerate(intervals) if _overlap(interval, intervals[best])),
        repetitions=tuple(repetitions), not_run=not_run,
    )  # fmt: skip


def _run(strategy: Callable[[Replay], Trajectory], replay: Replay) -> Run:
    return Run(strategy(replay), replay.configurations)


def _overlap(one: Interval, other: Interval) -> bool:
    assert one.low is not None and one.high is not None and other.low is not None and other.high is not None
    return one.low <= other.high and other.low <= one.high


def _not_run() -> dict[str, str]:
    """Return the peers that are not here, and why."""
    reasons = {SMAC: smac_peer.why_no_smac(), IRACE: irace_peer.why_no_irace()}
    return {peer: reason for peer, reason in reasons.items() if reason is not None}


def _smac(replay: Replay) -> Trajectory:
    def cost(number: int, seed: int) -> float:
        return replay.recording.seed_value.of(replay.result(replay.order[number], seed))

    incumbents = smac_peer.intensify(len(replay.order), len(replay.seeds), cost, replay.seed)
    return [Point(replay.seed_steps, replay.order[number]) for number in incumbents]


def _irace(replay: Replay) -> Trajectory:
    recording, stop = replay.recording, replay.stop
    rows = [[recording.result(c, seed, stop=stop) for seed in replay.seeds] for c in replay.order]
    costs = np.array([[recording.seed_value.of(result) for result in row] for row in rows])
    winner, looked_up = irace_peer.race(costs, replay.seed)
    for number, seed in looked_up:
        replay.result(replay.order[number], seed)
    return [Point(replay.seed_steps, replay.order[winner])]


# ------------------------------------------------------------------------------------------- the figure


def draw(benches: Sequence[SearchBench]) -> Figure:
    """Draw mean regret against seed-steps, a panel for each recording: searches as lines, early stopping as points."""
    with matplotlib.rc_context({"font.size": 9}):
        figure = Figure(figsize=(4.6 * len(benches), 4.4), layout="constrained")
        handles: dict[str, Any] = {}
        for index, bench in enumerate(benches):
            panel = figure.add_subplot(1, len(benches), index + 1)
            _panel(panel, bench)
            handles |= dict(zip(*reversed(panel.get_legend_handles_labels()), strict=True))
        figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=3, frameon=False)
        note = f"means of {len(benches[0].repetitions)} repetitions with 95 % intervals; points: at the end of a search"
        figure.suptitle(note, fontsize=7, color=GREY, x=0.995, ha="right")
    return figure


def _panel(panel: Axes, bench: SearchBench) -> None:
    rows = bench.rows()
    for row in (row for row in rows if row.strategy in LINES):
        label, colour = LINES[row.strategy]
        runs = [(one.runs[row.strategy].trajectory, one.everything) for one in bench.repetitions]
        first = max(run[0].seed_steps / everything for run, everything in runs)
        last = max(run[-1].seed_steps / everything for run, everything in runs)
        grid = np.geomspace(max(first, LEAST_SHARE), last, 40).tolist()
        means = [bench.mean_regret(row.strategy, share * (1 + 1e-9)) for share in grid]
        panel.plot(grid, [mean.estimate or 0.0 for mean in means], color=colour, label=label, linewidth=1.6)
        band = [mean.low or 0.0 for mean in means], [mean.high or 0.0 for mean in means]
        panel.fill_between(grid, *band, color=colour, alpha=0.15, linewidth=0)
    for number, row in enumerate(row for row in rows if row.strategy not in LINES):
        x, y = row.share, row.regret
        ends = [[[value - low], [high - value]] for value, low, high in (_ends(x), _ends(y))]
        panel.errorbar(
            [_ends(x)[0]], [_ends(y)[0]], xerr=ends[0], yerr=ends[1], label=row.strategy, color=POINTS[number % len(POINTS)],
            fmt=MARKERS[number % len(MARKERS)], markersize=5, capsize=2, linewidth=1,
        )  # fmt: skip
    panel.set_title(f"{bench.recording} ({bench.configurations} configurations)", fontsize=9)
    panel.set_xscale("log")
    panel.set_yscale("symlog", linthresh=0.01, linscale=0.4)
    panel.set_ylim(bottom=-0.01)
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g} %"))
    panel.set_xlabel("seed-steps, share of everything")
    panel.set_ylabel(f"regret: {bench.objective} above that of the best")
    panel.grid(True, color="#DDDDDD", linewidth=0.6)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)


def _ends(value: Interval) -> tuple[float, float, float]:
    assert value.estimate is not None
    low, high = value.low, value.high
    return value.estimate, value.estimate if low is None else low, value.estimate if high is None else high
