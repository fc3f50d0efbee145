"""What a run is called and holds, before MLflow is asked: names, the fraction of solved seeds, thinned curves, addresses."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tracked import configuration, record, small_sweep

from sweeps.config.sweep_file import Sweep
from sweeps.tracking import default_uri, rows
from sweeps.tracking.client import without_password
from sweeps.training.lane import LaneResult


@pytest.fixture(scope="module")
def sweep() -> Sweep:
    return small_sweep()


def test_names_are_short_and_tell_two_paths_apart(sweep: Sweep) -> None:
    assert rows.short_name("train.gradient_noise", ["train.lr"]) == "noise"  # type: ignore[arg-type]
    assert rows.short_name("a.weight_noise", ["train.gradient_noise"]) == "weight_noise"  # type: ignore[arg-type]
    assert rows.short_name("task.noise", ["model.noise"]) == "task.noise"  # type: ignore[arg-type]
    assert [rows.short_value(v) for v in (3.2e-3, 1e-3, 0.0, 0.25, 12345.0, 4, "adam")] == [
        "3.2e-3", "1e-3", "0", "0.25", "1.2e4", "4", "adam",
    ]  # fmt: skip
    name = rows.configuration_name(configuration(sweep, number=0), sweep.cells[0].space)
    assert set(name.split()) == {"c000", "nau", "lr=1e-3", "noise=off"}


def test_solved_fraction_is_counted_by_hand(sweep: Sweep) -> None:
    """Seeds: below from 2000 on; below at 1000 only; stopped at 1000 when solved; diverged after 1000 while below."""
    one = configuration(sweep, seeds=(0, 1, 2, 3))

    def seed(number: int, outcome: str, errors: list[float]) -> LaneResult:
        steps = [1000 * i for i in range(len(errors))]
        return record(one, number, outcome, curve={"step": steps, "error.extrapolation": errors})

    seeds = [
        seed(0, "solved", [1.0, 1.0, 1e-4, 1e-5]),
        seed(1, "unsolved", [1.0, 1e-4, 1.0, 1.0]),
        seed(2, "solved", [1.0, 1e-5]),
        seed(3, "diverged", [1.0, 1e-4]),
    ]
    assert rows.solved_fraction(seeds) == [(0, 0.0), (1000, 0.75), (2000, 0.5), (3000, 0.5)]
    assert rows.solved_fraction([dataclasses.replace(s, threshold=None) for s in seeds]) == []


@given(count=st.integers(1, 3000), keep=st.integers(0, 2999))
def test_a_thinned_curve_keeps_its_ends_and_its_crossing(count: int, keep: int) -> None:
    places = rows.thinned(count, [keep % count])
    assert len(places) <= 200 and places == sorted(set(places))
    assert {0, count - 1, keep % count} <= set(places)
    assert count > 200 or len(places) == count


def test_the_default_store_of_runs_is_beside_the_records(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert default_uri(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://somewhere")
    assert default_uri(tmp_path) == "http://somewhere"


@pytest.mark.parametrize("scheme", ["postgres", "postgresql"])
def test_an_uri_of_postgresql_names_the_driver_that_is_installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, scheme: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{scheme}://me:secret@there/mlflow")
    assert default_uri(tmp_path) == "postgresql+psycopg://me:secret@there/mlflow"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql+psycopg2://me@there/mlflow")
    assert default_uri(tmp_path) == "postgresql+psycopg2://me@there/mlflow"


def test_passwords_are_not_shown() -> None:
    assert without_password("https://me:secret@host:5000/x@y") == "https://host:5000/x@y"
    assert without_password("sqlite:////a/mlflow.db") == "sqlite:////a/mlflow.db"
