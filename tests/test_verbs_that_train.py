"""`sweeps run` and `sweeps reproduce` with packs in this process instead of Ray: extended, own units, reproduced."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from commands import call, train_in_process
from kept import records_of, states
from sample_sweeps import UNIT

from sweeps.config.yaml import dump, read
from sweeps.runner import run

SMALL = """\
name: small
task: {name: static, operation: sub, input_size: 10}
train: {steps: 20, batch: 8, evaluate_every: 10}
compare: {model: [nau, linear]}
seeds: 2
resources: {slots: 4}
"""
OWN = """\
name: own
task: {name: static, operation: sub, input_size: 10}
train: {steps: 200, batch: 16, evaluate_every: 100}
compare: {model: [./my_unit.py, {name: ./my_broken_unit.py, label: broken}]}
seeds: 3
search:
  sampler: {name: tpe, seed: 0, n_startup_trials: 1}
  configurations: 3
  objective: {error.extrapolation.median: minimize}
  space: {train.lr: {log_uniform: [1e28, 1e30]}}
"""
BROKEN = UNIT.replace("return x\n", 'raise ArithmeticError("it has never worked")\n', 1)


@pytest.fixture(autouse=True)
def _in_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SWEEPS_STORE", str(tmp_path / "results"))  # absolute: MLflow caches stores by URI
    monkeypatch.setattr(run, "_train", lambda driver, console, workers: train_in_process(driver))
    files = {"small.yaml": SMALL, "own.yaml": OWN, "my_unit.py": UNIT, "my_broken_unit.py": BROKEN}
    for name, text in files.items():
        (tmp_path / name).write_text(text)


def test_more_seeds_train_what_is_missing_and_leave_the_rest() -> None:
    assert call("run", "small.yaml", "--no-mlflow").status == 0
    before = records_of("results")
    answer = call("run", "small.yaml", "seeds=3", "--no-mlflow")
    assert answer.status == 0
    assert "seeds: 2 -> 3" in answer.out and "4 lanes are in the store already" in answer.out
    after = records_of("results")
    assert len(after) == 6
    assert [record for record in after if record.seed < 2] == before, "their wall times too"


def test_the_best_configuration_is_reproduced_and_a_wrong_figure_is_found() -> None:
    assert call("run", "small.yaml", "--no-mlflow").status == 0
    assert call("export", "small", "--cell", "nau", "-o", "best.yaml").status == 0
    passed = call("reproduce", "best.yaml")
    assert passed.status == 0, passed.out + passed.err
    assert "PASS: every figure of every seed is the same (2 seeds)" in passed.out
    values = read(Path("best.yaml").read_text()).values
    values["exported"]["lanes"][1]["error"]["extrapolation"] *= 1 + 1e-12
    Path("wrong.yaml").write_text(dump(values))
    failed = call("reproduce", "wrong.yaml")
    assert failed.status == 1
    assert "FAIL: the figures differ (2 seeds)" in failed.out
    assert failed.out.count("seed 1: error.extrapolation was") == failed.out.count("seed ") == 1


def test_fresh_seeds_pass_or_fail_by_their_success_rate() -> None:
    assert call("run", "small.yaml", "--no-mlflow").status == 0
    assert call("export", "small", "--cell", "nau", "-o", "best.yaml").status == 0
    passed = call("reproduce", "best.yaml", "--fresh-seeds")
    assert passed.status == 0, passed.out + passed.err
    assert "PASS: the rates agree: exported 0/2" in passed.out and "fresh seeds 0/2" in passed.out
    values = read(Path("best.yaml").read_text()).values
    values["exported"]["lanes"] = [{"seed": seed, "solved": True} for seed in range(20)]
    Path("wrong.yaml").write_text(dump(values))
    failed = call("reproduce", "wrong.yaml", "--fresh-seeds")
    assert failed.status == 1
    assert "FAIL: the rates differ: exported 20/20" in failed.out


def test_own_units_are_trained_and_those_that_diverge_or_raise_are_reported() -> None:
    assert call("run", "own.yaml").status == 0
    text = call("report", "own", "--format", "json").out
    by_model: dict[str, list[dict[str, Any]]] = {}
    for entry in sorted(json.loads(text)["configurations"], key=lambda entry: entry["number"]):
        by_model.setdefault(entry["cell"]["model"], []).append(entry)
    first, *others = by_model["./my_unit.py"]
    assert first["state"] == "complete" and first["rank"] == 1
    assert [lane["steps"] for lane in first["lanes"]] == [200] * 3
    assert all(lane["error"]["extrapolation"] is not None for lane in first["lanes"])
    for entry in others:
        assert entry["state"] == "complete" and entry["diverged"] == 3 and entry["solved"] == 0
        for lane in entry["lanes"]:
            assert lane["outcome"] == "diverged" and "is not finite" in lane["reason"]
    assert [entry["state"] for entry in by_model["broken"]] == ["failed"] * 3
    lanes = [lane for entry in by_model["broken"] for lane in entry["lanes"]]
    assert {lane["reason"] for lane in lanes} == {"ArithmeticError: it has never worked"}
    assert {status for _, status in states(Path("results").absolute(), "own")} == {"FINISHED", "FAILED"}
