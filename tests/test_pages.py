"""What a person sees of a sweep in MLflow's pages, in a real browser. The format of saved views is not documented."""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Iterator

import pytest
from browser import Page, browser, chromium
from tracked import configuration, ranked, record, records_of, small_sweep

from sweeps.bench.tracking import _written
from sweeps.tracking import Tracker, experiment_of, serve, stop
from sweeps.tracking.views import BEST, CONVERGENCE, FAILED, LEADERBOARD, page

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(chromium() is None, reason="no Chromium or Chrome is installed: apt-get install chromium"),
]
CREATED = "2026-01-02T03:04:05+00:00"
LANES = 10_000


@dataclasses.dataclass
class Shown:
    """A browser, and a server with the sweeps `small` and `simulated`: of 12 and of 10,000 lanes."""

    page: Page
    server: str
    small: str
    simulated: str

    def opens(self, experiment: str, view: str, *words: str) -> float:
        """Open a view, wait for these words, and return the seconds that it took."""
        self.page.open(page(self.server, experiment, view))
        return self.page.shows(*words)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    folder = tmp_path_factory.mktemp("pages")
    uri, sweep = f"sqlite:///{folder}/mlflow.db", small_sweep()
    tracker = Tracker(uri, sweep, created=CREATED)
    tracker.begin()
    ranks = {}
    for cell in (0, 1):
        for number in (0, 1):
            one = configuration(sweep, cell, number, state="complete")
            results = records_of(one)
            if number == 1:  # solves two of three
                results[1] = record(one, 1)
            ranks[one.cell, number] = 2 - number
            tracker.complete(ranked(one, results))
    tracker.finish("done", "", ranks)
    _written("SQLite", uri, LANES)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = serve(uri, port=port)
    try:
        with browser(folder) as opened:
            server = f"http://127.0.0.1:{port}"
            opened.open(f"{server}/#/experiments?workflowType=machine_learning")
            opened.shows("small", "simulated")
            opened.value("localStorage.setItem('mlflow.assistant.panelOpen_v1', 'false')")
            small = experiment_of(uri, "small", CREATED) or ""
            yield Shown(opened, server, small, str(int(small) + 1))
    finally:
        stop(process)


def names(page: Page) -> list[str]:
    """The names of the runs in the table, from top to bottom."""
    rows = """[...document.querySelectorAll('.ag-pinned-left-cols-container .ag-row')]
        .sort((a, b) => a.getAttribute('row-index') - b.getAttribute('row-index'))
        .map(row => row.querySelector('a').innerText)"""
    return [str(name).strip() for name in page.value(rows)]


def test_the_leaderboard_has_the_configurations_by_their_objective_on_the_pages_for_training(shown: Shown) -> None:
    shown.opens(shown.small, LEADERBOARD, "4 matching runs", "objective", "success_rate", "Model registry")
    assert "tags.level = 'configuration'" in shown.page.value(
        "[...document.querySelectorAll('input')].map(i => i.value).join()"
    )
    found = names(shown.page)
    assert [name.split()[:2] for name in found[:2]] in (
        [["c001", "nau"], ["c001", "linear"]], [["c001", "linear"], ["c001", "nau"]],
    )  # fmt: skip
    assert len(found) == 4 and all(name.startswith("c000") for name in found[2:])
    cells = (
        "[...document.querySelectorAll('.ag-header-cell')].map(e => [e.getBoundingClientRect().x, e.getAttribute('col-id')])"
    )
    columns = [name for _, name in sorted(shown.page.value(cells)) if name.startswith(("metrics", "tags"))]
    first = ["metrics.`objective`", "metrics.`success_rate`", "metrics.`converged_at.median`", "tags.`lr`", "tags.`noise`"]
    assert columns[:5] == first
    shown.page.shows("Sort: order", "3.2e-3")


def test_what_is_asked_first_is_in_sight_on_a_small_screen(shown: Shown) -> None:
    shown.page.call("Emulation.setDeviceMetricsOverride", width=1400, height=900, deviceScaleFactor=1, mobile=False)
    shown.opens(shown.small, LEADERBOARD, "4 matching runs", "3.2e-3")
    cells = "[...document.querySelectorAll('.ag-header-cell')]"
    right = dict(shown.page.value(f"{cells}.map(e => [e.getAttribute('col-id'), e.getBoundingClientRect().right])"))
    border = shown.page.value("document.querySelector('.ag-header-viewport').getBoundingClientRect().right")
    shown.page.call("Emulation.clearDeviceMetricsOverride")
    for column in (
        "metrics.`objective`",
        "metrics.`success_rate`",
        "metrics.`converged_at.median`",
        "tags.`lr`",
        "tags.`noise`",
    ):
        assert right[column] <= border, column


def test_its_seeds_are_one_click_below_a_configuration_with_their_outcomes(shown: Shown) -> None:
    shown.opens(shown.small, LEADERBOARD, "4 matching runs")
    shown.page.click(next(name for name in names(shown.page) if name.startswith("c001 nau")))
    shown.page.shows("Child runs", "c001 nau s000 solved", "c001 nau s001 solved", "c001 nau s002 diverged")


def test_views_show_the_best_configurations_seeds_and_the_failed_ones(shown: Shown) -> None:
    shown.opens(shown.small, BEST, "6 matching runs", "Best configuration's seeds")
    assert all(name.startswith("c001") for name in names(shown.page))
    shown.opens(shown.small, FAILED, "6 matching runs", "Failed seeds")
    assert all(name.endswith(("on its way", "diverged")) for name in names(shown.page))


def test_the_convergence_view_draws_errors_on_a_logarithmic_scale(shown: Shown) -> None:
    shown.opens(shown.small, CONVERGENCE, "6 matching runs", "Errors against the step")
    shown.page.until("document.querySelectorAll('.js-plotly-plot .scatterlayer .trace').length >= 6")
    kinds = shown.page.value("[...document.querySelectorAll('.js-plotly-plot')].map(e => e._fullLayout.yaxis.type)")
    assert kinds and set(kinds) == {"log"}


def test_all_views_are_in_mlflow_s_own_list(shown: Shown) -> None:
    shown.opens(shown.small, LEADERBOARD, "4 matching runs")
    shown.page.click("Leaderboard")
    shown.page.shows("Best configuration's seeds", "Failed seeds", "Convergence")


def test_ten_thousand_lanes_take_no_longer_than_twelve(shown: Shown) -> None:
    seconds = []
    for experiment, words in ((shown.small, "4 matching runs"), (shown.simulated, "100 matching runs")):
        seconds.append(min(shown.opens(experiment, LEADERBOARD, words, "c00") for _ in range(3)))
    print(f"leaderboard of 12 lanes: {seconds[0]:.1f} s, of {LANES}: {seconds[1]:.1f} s")
    assert seconds[1] < 2 * seconds[0] + 1
