"""Tables of configurations, seeds and evaluations: rows, pandas, CSV and Parquet."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from commands import call
from made_sweep import DOCUMENT, configuration, lane, made_sweep

import sweeps.results
from sweeps.errors import UserError
from sweeps.results import Report, report
from sweeps.results.frames import LEVELS, curve_rows, frame, parquet, rows_of, seed_rows
from sweeps.store import Store

CURVE: dict[str, list[Any]] = {
    "step": [0, 5000], "error.interpolation": [9.0, None], "error.extrapolation": [90.0, 1e-9], "sparsity_error": [0.4, 0.1],
}  # fmt: skip


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory):
    with Store(tmp_path_factory.mktemp("store")) as store:
        made_sweep(store, curve=CURVE)
        yield store


@pytest.fixture(scope="module")
def small(opened: Store) -> Report:
    return report(opened, "small")


def test_a_seed_is_a_row_with_its_configuration_and_its_outcome(small: Report) -> None:
    rows = seed_rows(small)
    assert len(rows) == 12
    first = rows[0]
    assert (first["sweep"], first["cell.model"], first["number"], first["rank"], first["seed"]) == ("small", "nau", 1, 1, 0)
    assert (first["solved"], first["converged_at"], first["parameters.train.lr"]) == (True, 3000, 3.2e-3)
    diverged = next(row for row in rows if row["outcome"] == "diverged")
    assert (diverged["steps"], diverged["reason"], diverged["converged_at"]) == (700, "not finite at step 700", None)


def test_an_evaluation_is_a_row_with_what_was_measured(small: Report) -> None:
    rows = curve_rows(small)
    assert len(rows) == 3 * 2  # the best configuration's seeds have curves of two evaluations
    identity = {"sweep": "small", "cell.model": "nau", "rank": 1, "number": 1, "phase": "search", "seed": 0}
    measured = {"error.interpolation": None, "error.extrapolation": 1e-9, "sparsity_error": 0.1}
    assert rows[1] == {**identity, "step": 5000, **measured}


def test_a_frame_has_the_rows_and_a_type_for_each_column(small: Report) -> None:
    for level in LEVELS:
        rows, found = rows_of(level, [small]), frame(level, [small])
        assert len(found) == len(rows)
        assert set(found.columns) == {column for row in rows for column in row}
        for column in found:
            assert [None if pd.isna(value) else value for value in found[column]] == [row.get(column) for row in rows]
    seeds = frame("seeds", [small])
    types = {name: str(seeds[name].dtype) for name in ("converged_at", "solved", "outcome", "error.extrapolation", "reason")}
    assert types == {
        "converged_at": "Int64", "solved": "boolean", "outcome": "str", "error.extrapolation": "float64", "reason": "str",
    }  # fmt: skip
    configurations = frame("configurations", [small])
    types = {
        name: str(configurations[name].dtype) for name in ("solved", "seed_steps", "converged_at.mean", "success_rate.low")
    }
    assert types == {"solved": "Int64", "seed_steps": "Int64", "converged_at.mean": "float64", "success_rate.low": "float64"}


def test_types_do_not_depend_on_what_a_sweep_found(opened: Store, small: Report) -> None:
    entry = configuration("nau", 0, seeds=1)
    opened.begin_sweep("other", "name: other\n", {**DOCUMENT, "name": "other"})
    opened.add_configuration("other", entry)
    opened.add_records([lane(entry, 0, None, None, outcome="diverged", steps=1)])
    other = report(opened, "other")
    for level in LEVELS:
        one, two = frame(level, [small]), frame(level, [other])
        shared = [column for column in two if column in one and not column.startswith("parameters.")]
        assert {name: str(two[name].dtype) for name in shared} == {name: str(one[name].dtype) for name in shared}
        both = pd.concat([one, two])
        assert len(both) == len(frame(level, [small, other]))
        assert {name: str(both[name].dtype) for name in shared} == {name: str(one[name].dtype) for name in shared}


def test_a_sweep_without_results_is_an_empty_frame(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.begin_sweep("none", "name: none\n", {**DOCUMENT, "name": "none"})
        found = {level: frame(level, [report(store, "none")]) for level in LEVELS}
        assert {level: len(one) for level, one in found.items()} == dict.fromkeys(LEVELS, 0)
        assert list(found["curves"]) == ["sweep", "rank", "number", "phase", "seed", "step"]
        made_sweep(store)
        for level, one in found.items():
            full = frame(level, [report(store, "small")])
            assert set(one) <= set(full) and {"sweep", "rank", "number"} <= set(one)
            assert {name: str(one[name].dtype) for name in one} == {name: str(full[name].dtype) for name in one}
        assert {"seed", "verdict", "converged_at", "wall_time_s"} <= set(found["seeds"])


def test_tables_of_every_level_are_written_as_csv_and_parquet(opened: Store, small: Report, tmp_path: Path) -> None:
    for level in LEVELS:
        expected = frame(level, [small])
        for form in ("csv", "parquet"):
            file = tmp_path / f"{level}.{form}"
            answer = call(
                "report", "small", "--format", form, "--level", level, "-o", str(file), "--store", opened.location,
            )  # fmt: skip
            assert answer.status == 0 and f"wrote {file}" in answer.out.replace("\n", ""), answer.err
        pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / f"{level}.parquet"), expected)
        rows = list(csv.DictReader(io.StringIO((tmp_path / f"{level}.csv").read_text())))
        assert len(rows) == len(expected) and list(rows[0]) == list(expected)


def test_a_lone_surrogate_in_a_label_is_written_as_its_escape(opened: Store, tmp_path: Path) -> None:
    entry = dataclasses.replace(configuration("nau", 0, seeds=1), labels={"model": "nau"})
    opened.begin_sweep("odd", "name: odd\n", {**DOCUMENT, "name": "odd"})
    opened.add_configuration("odd", entry)
    opened.add_records([lane(entry, 0, None, 1.0)])
    found = report(opened, "odd")
    one = dataclasses.replace(found.configurations[0].configuration, labels={"model": "a\ud800"})
    found = dataclasses.replace(found, configurations=(dataclasses.replace(found.configurations[0], configuration=one),))
    assert list(frame("seeds", [found])["cell.model"]) == ["a\\ud800"] and parquet("seeds", [found])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweeps.results, "report", lambda store, name: found)
        for form in ("md", "json", "csv", "parquet"):
            answer = call(
                "report", "odd", "--format", form, "-o", str(tmp_path / f"odd.{form}"), "--store", opened.location,
            )  # fmt: skip
            assert answer.status == 0, answer.err
    assert json.loads((tmp_path / "odd.json").read_bytes())["configurations"][0]["cell"] == {"model": "a\ud800"}


def test_without_timing_equal_sweeps_give_equal_tables(small: Report) -> None:
    assert "wall_time_s" in frame("seeds", [small]) and "wall_time_s" not in frame("seeds", [small], timing=False)


def test_a_wrong_level_names_the_nearest_one(small: Report) -> None:
    with pytest.raises(UserError, match="unknown level 'seed'. Did you mean 'seeds'"):
        frame("seed", [small])


def test_parquet_needs_a_file_and_a_level_needs_a_table(opened: Store) -> None:
    refused = call("report", "small", "--format", "parquet", "--store", opened.location)
    assert refused.status == 2 and "name the file to write, -o small.parquet" in refused.err
    refused = call("report", "small", "--level", "seeds", "--store", opened.location)
    assert refused.status == 2 and "--level is for tables: --format csv or parquet, and not md" in refused.err
