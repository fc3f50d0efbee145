"""The HTML report: what is in it, that nobody's text can become markup, and that it works in a browser."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from commands import call
from made_sweep import DOCUMENT, TUNED, configuration, lane, made_sweep

from sweeps.machine import PRICE
from sweeps.results import FORMATS, Report, as_json, as_markdown, report
from sweeps.results.html import as_html
from sweeps.results.provenance import cost, digest, duration, failures
from sweeps.results.verdicts import Verdict, verdict
from sweeps.store import Store
from sweeps.training.lane import LaneResult

HOSTILE = "</script><img src=x onerror=alert(1)>&'\"$x$\x1b\ud800"
CURVE = {"step": [0, 7000, 14000], "error.interpolation": [9.0, 2.0, 1e-9], "error.extrapolation": [9.0, 2.0, 1e-9]}
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Page(HTMLParser):
    """The elements of a page, its ids, and the text of its scripts, styles and all else."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.raw: dict[str, list[str]] = {"script": [], "style": []}
        self.text = ""
        self._inside = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag if tag in self.raw else self._inside
        if tag in self.raw:
            self.raw[tag].append("")
        self.text += " " if tag in ("td", "th") else ""

    def handle_endtag(self, tag: str) -> None:
        self._inside = "" if tag == self._inside else self._inside

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.raw[self._inside][-1] += data
        else:
            self.text += data

    def attributes(self, name: str) -> list[str]:
        return [value or "" for _, attributes in self.elements for key, value in attributes.items() if key == name]

    def seeds(self, sweep: int = 0) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.raw["script"][sweep])
        return found


@pytest.fixture
def store(tmp_path: Path):
    with Store(tmp_path) as opened:
        yield opened


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Report:
    with Store(tmp_path_factory.mktemp("small")) as opened:
        made_sweep(opened, curve=CURVE)
        return report(opened, "small")


@pytest.fixture(scope="module")
def text(small: Report) -> str:
    return as_html([small])


@pytest.fixture(scope="module")
def untimed(small: Report) -> str:
    return as_html([small], timing=False)


def assert_needs_nothing_else(page: Page) -> None:
    references = [*page.attributes("href"), *page.attributes("src"), *page.attributes("xlink:href"), *page.attributes("action")]
    assert references and all(reference.startswith("#") for reference in references)
    assert not page.attributes("style") and not [name for _, found in page.elements for name in found if name.startswith("on")]
    assert not {tag for tag, _ in page.elements} & {"link", "iframe", "object", "embed", "base", "form", "img", "image"}
    (policy,) = [found["content"] for tag, found in page.elements if tag == "meta" and "http-equiv" in found]
    assert policy is not None and policy.startswith("default-src 'none'; style-src 'sha256-")
    for text in (*page.raw["style"], page.raw["script"][-1]):
        assert f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" in policy
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))


def test_the_page_is_one_file_that_needs_nothing_else_and_permits_only_its_own_style_and_script(text: str) -> None:
    assert text.isascii()
    page = Page(text)
    assert_needs_nothing_else(page)
    assert [tag for tag, _ in page.elements].count("svg") >= 4
    assert "Which unit learns subtraction?" in " ".join(page.text.split())
    assert len(page.raw["script"]) == 2 and len(page.raw["style"]) == 1


def test_the_verdict_of_a_seed_is_computed_once(small: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[str] = []

    def count(result: LaneResult) -> Verdict:
        counted.append(str(result.id))
        return verdict(result)

    monkeypatch.setitem(Report.verdict_of.__globals__, "verdict", count)
    again = dataclasses.replace(small)
    as_html([again], timing=False)
    assert len(counted) == len(set(counted)) == 12


def test_every_seed_is_there_with_its_verdict(small: Report, text: str) -> None:
    data = Page(text).seeds()
    verdicts = [
        [(seed[0], data["kinds"][seed[1]]) for seed in fresh_or_not] for entry in data["seeds"] for fresh_or_not in entry
    ]
    assert [[seed for seed, _ in one] for one in verdicts] == [[0, 1, 2]] * 4
    assert [kind for _, kind in verdicts[0]] == ["solved"] * 3
    last = {one.configuration.cell: found for one, found in zip(small.configurations, data["seeds"], strict=True)}
    assert [data["kinds"][seed[1]] for seed in last["model=linear"][0]][1:] == ["diverged", "error"]
    assert last["model=linear"][0][2][2] == "ended in an exception: RuntimeError: boom"
    converged = data["columns"].index("converged at")
    assert [seed[converged] for seed in data["seeds"][0][0]] == [3000, 4000, 8000]


def test_the_page_has_cost_provenance_failures_and_the_file_with_its_digest(text: str, untimed: str) -> None:
    read = " ".join(Page(text).text.split())
    for part in (
        "Failures by reason", "not finite at step 700", "lane time", "15.0 s, the wall times of all lanes added up",
        "torch 2.13.0", "sweep file, SHA-256", digest("name: small\n"), "sweeps run small.yaml", "sweeps reproduce best.yaml",
        "model source ab12",
    ):  # fmt: skip
        assert part in read, part
    assert "secret-node" not in text
    assert "lane time" not in untimed and "ab12" not in untimed and digest("name: small\n") in untimed


def test_equal_records_give_equal_pages_in_any_order_of_arrival(store: Store, untimed: str) -> None:
    made_sweep(store, reverse=True, curve=CURVE)
    assert as_html([report(store, "small")], timing=False) == untimed


def test_hostile_names_stay_text(store: Store) -> None:
    document = {**DOCUMENT, "name": HOSTILE[:40], "question": f"Is it {HOSTILE}?"}
    store.begin_sweep("small", f"name: {HOSTILE.encode('ascii', 'ignore').decode()}\n", json.loads(json.dumps(document)))
    entry = dataclasses.replace(
        configuration("nau", 1, TUNED, seeds=2), labels={"model": HOSTILE[:-1]}, cell=f"model={HOSTILE[:-1]}"
    )
    store.add_configuration("small", entry)
    curve = {"step": [0, 10], "error.extrapolation": [4.0, 2.0]}
    store.add_records([
        lane(entry, 0, None, 4.0, curve=curve),
        lane(entry, 1, None, None, outcome="error", reason=f"ValueError: {HOSTILE[:-1]}", curve=curve),
    ])  # fmt: skip
    page = Page(as_html([report(store, "small")]))
    assert_needs_nothing_else(page)
    assert len(page.raw["script"]) == 2 and "\x1b" not in page.text
    visible = HOSTILE[:-1].replace("\x1b", "\\x1b")
    assert page.text.count(visible) > 5
    assert page.seeds()["seeds"][0][0][1][2] == f"ended in an exception: ValueError: {visible}"


def test_several_sweeps_share_a_page_with_a_table_of_contents(small: Report) -> None:
    one = dataclasses.replace(small, configurations=(dataclasses.replace(small.configurations[0], results=()),))
    page = Page(FORMATS["html"].several([one, one], True))  # type: ignore[misc]
    assert_needs_nothing_else(page)
    assert page.attributes("href")[:2] == ["#sweep-1", "#sweep-2"]
    assert page.seeds(0) == page.seeds(1)


def test_a_sweep_without_results_says_so(store: Store) -> None:
    store.begin_sweep("empty", "", {"name": "empty"})
    text = Page(as_html([report(store, "empty")])).text
    assert "No configuration has been tried yet." in text and "No figure: no seed has ended" in text


def test_markdown_and_json_have_failures_and_provenance_too(small: Report) -> None:
    found = json.loads(as_json(small))
    assert [(one["outcome"], one["reason"], one["seeds"]) for one in found["failures"]] == [
        ("diverged", "not finite at step 700", 1), ("error", "RuntimeError: boom", 1),
    ]  # fmt: skip
    assert found["provenance"]["torch"] == "2.13.0" and "provenance" not in json.loads(as_json(small, timing=False))
    text = as_markdown(small)
    assert "| 1     | diverged | not finite at step 700 | model=linear #0 |" in text and "torch 2.13.0" in " ".join(
        text.split()
    )
    assert "Provenance" not in as_markdown(small, timing=False)


def test_failures_that_differ_only_in_numbers_are_one_with_the_range_of_the_numbers(small: Report) -> None:
    results = tuple(
        dataclasses.replace(result, outcome="diverged", solved=False, reason=f"not finite at step {step}")
        for result, step in zip(small.configurations[0].results, (700, 1200, 90), strict=True)
    )
    first = dataclasses.replace(small.configurations[0], results=results)
    found = failures(dataclasses.replace(small, configurations=(first, *small.configurations[1:])))
    assert [(one.outcome, one.reason, one.seeds) for one in found] == [
        ("diverged", "not finite at step 90 to 1200", 4), ("error", "RuntimeError: boom", 1),
    ]  # fmt: skip
    assert found[0].configurations == ("model=nau #1", "model=linear #0")


def test_a_reason_that_has_a_sign_for_a_number_in_it_is_a_failure_of_its_own(small: Report) -> None:
    results = tuple(
        dataclasses.replace(result, outcome="error", solved=False, reason=reason)
        for result, reason in zip(small.configurations[0].results, ("KeyError: #", "KeyError: 3", "KeyError: 7"), strict=True)
    )
    only = dataclasses.replace(small.configurations[0], results=results)
    found = failures(dataclasses.replace(small, configurations=(only,)))
    assert [(one.reason, one.seeds) for one in found] == [("KeyError: 3 to 7", 2), ("KeyError: #", 1)]


def test_the_price_is_there_where_that_of_a_node_is_known(small: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    row = dataclasses.replace(small.row, seconds=7200.0)
    priced = dataclasses.replace(small, row=row)
    assert cost(priced, priced.totals(), 1.5)["price"] == "3.00 USD a node, at 1.5 USD an hour"
    assert "price" not in cost(priced, priced.totals())
    assert json.loads(as_json(priced))["totals"]["timing"]["cost_usd_per_node"] is None
    monkeypatch.setenv(PRICE, "1.5")
    assert json.loads(as_json(priced))["totals"]["timing"]["cost_usd_per_node"] == 3.0
    assert "Timing: 7200.0 s of wall time, 15.0 s of all lanes together, 20.9 seed-steps a second, 3.00 USD a node." in (
        as_markdown(priced)
    )
    assert (duration(3.21), duration(245), duration(12_300)) == ("3.2 s", "4 min 5 s", "3 h 25 min")


@pytest.mark.slow
def test_the_page_of_ten_thousand_lanes_has_less_than_five_megabytes(store: Store) -> None:
    curve = {"step": list(range(0, 21 * 750, 750)), "error.extrapolation": [10.0 ** -(at / 3) for at in range(21)]}
    store.begin_sweep("small", "name: small\n", {**DOCUMENT, "seeds": 100})
    for number in range(100):
        entry = configuration("nau", number, TUNED | {"train.lr": 1e-4 + 1e-5 * number} if number else {}, seeds=100)
        store.add_configuration("small", entry)
        store.add_records([
            lane(entry, seed, None, 1e-3, curve={**curve, "error.interpolation": [seed + at / 7 for at in range(21)]})
            for seed in range(100)
        ])  # fmt: skip
    text = as_html([report(store, "small")])
    assert sum(len(one) for entry in Page(text).seeds()["seeds"] for one in entry) == 10_000
    assert len(text) < 5_000_000


# ------------------------------------------------------------------------------------------- in a browser


def browsed(tmp_path: Path, text: str, script: str) -> Any:
    """Return what `script`, which runs after those of the page and under its policy, returns."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine")
    code = f"document.body.dataset.found = JSON.stringify((() => {{ {script} }})());"
    allowed = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    text = text.replace("script-src ", f"script-src 'sha256-{allowed}' ").replace("</body>", f"<script>{code}</script></body>")
    file = tmp_path / "page.html"
    file.write_text(text)
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
         "--virtual-time-budget=5000", "--dump-dom", file.as_uri()],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    found = re.search(r'data-found="([^"]*)"', done.stdout)
    assert found, done.stderr[-2000:]
    return json.loads(html.unescape(found[1]))


@pytest.mark.cluster
def test_in_a_browser_columns_sort_seeds_open_and_words_filter(text: str, tmp_path: Path) -> None:
    found = browsed(
        tmp_path, text,
        """
        const table = document.querySelector("table.configurations");
        const rows = () => [...table.tBodies].filter((body) => !body.hidden).map(
            (body) => body.rows[0].cells[1].textContent + body.rows[0].cells[2].textContent);
        const header = (name) => [...table.tHead.querySelectorAll("button")].find((button) => button.textContent === name);
        const seen = { first: rows() };
        header("par2").click();
        seen.rising = rows();
        seen.sort = header("par2").parentElement.getAttribute("aria-sort");
        header("par2").click();
        seen.falling = rows();
        const opener = table.querySelector("button.open");
        opener.click();
        const detail = document.getElementById(opener.getAttribute("aria-controls"));
        seen.expanded = opener.getAttribute("aria-expanded");
        seen.seeds = detail.querySelector("table").tBodies[0].rows.length;
        seen.below = detail.previousElementSibling === opener.closest("tr");
        const filter = document.querySelector("input[type=search]");
        filter.value = "linear 1";
        filter.dispatchEvent(new Event("input"));
        seen.filtered = rows();
        seen.focusable = document.querySelectorAll(".scroll[tabindex='0']").length > 0;
        return seen;
        """,
    )  # fmt: skip
    assert found["first"] == ["nau1", "nau0", "linear1", "linear0"]
    assert found["rising"] == ["nau1", "nau0", "linear1", "linear0"] and found["sort"] == "ascending"
    assert found["falling"] == ["linear1", "linear0", "nau0", "nau1"]
    assert (found["expanded"], found["seeds"], found["below"]) == ("true", 3, True)
    assert set(found["filtered"]) <= {"linear1", "linear0"} and "linear1" in found["filtered"]
    assert found["focusable"]


def test_the_command_prints_the_page(store: Store, tmp_path: Path) -> None:
    store.begin_sweep("empty", "", {"name": "empty"})
    answer = call("report", "empty", "--store", str(tmp_path), "--format", "html")
    assert answer.status == 0 and answer.out.startswith("<!DOCTYPE html>") and answer.out.rstrip().endswith("</html>")
