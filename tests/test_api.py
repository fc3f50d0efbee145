"""The Python API, as a notebook or a script uses it. Packs are trained in this process instead of on Ray."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import train_in_process
from made_sweep import DOCUMENT, TUNED, configuration, lane, made_sweep

import sweeps
from sweeps.runner import run as runner
from sweeps.runner.driver import Driver
from sweeps.store import Store

NEAR = {"extrapolation": [2.0, 6.0]}
SWEEP: dict[str, Any] = {
    "task": {"name": "static", "operation": "add", "input_size": 10},
    "train": {"steps": 20, "batch": 8, "evaluate_every": 10},
    "model": "linear",
    "compare": {"range": [{"label": "near", "task": NEAR}, {"label": "far [10]", "task": {"extrapolation": [10.0, 20.0]}}]},
    "seeds": 2,
    "search": {
        "configurations": 2,
        "sampler": {"name": "random", "seed": 0},
        "space": {"train.lr": {"log_uniform": (1e-3, np.float64(1e-1))}},
    },
}
SMALL = {"task": SWEEP["task"], "train": SWEEP["train"], "model": "linear", "seeds": 1}
HEAVY = ("IPython", "matplotlib", "mlflow", "numpy", "optuna", "pandas", "pydantic", "ray", "rich", "sqlalchemy", "torch")


@pytest.fixture(scope="module")
def in_process(uncompiled: None) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "_train", lambda driver, *rest: train_in_process(driver))
        yield


@pytest.fixture(scope="module")
def sweep(in_process: None, tmp_path_factory: pytest.TempPathFactory) -> sweeps.SweepResults:
    folder = tmp_path_factory.mktemp("results")
    return sweeps.run(SWEEP, name="first", store=folder, mlflow=False, progress=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> sweeps.SweepResults:
    folder = tmp_path_factory.mktemp("made")
    with Store(folder) as store:
        made_sweep(store)
        store.begin_sweep("other", "name: other\n", {**DOCUMENT, "name": "other"})
    return sweeps.open(folder)["small"]


def test_importing_the_package_loads_nothing() -> None:
    code = "import json, sys; before = set(sys.modules); import sweeps; print(json.dumps(sorted(set(sys.modules) - before)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = json.loads(done.stdout)
    assert not [name for name in loaded if name.partition(".")[0] in HEAVY]
    assert [name for name in loaded if name.startswith("sweeps")] == ["sweeps"] and len(loaded) < 40


def test_every_name_of_the_package_is_there_when_it_is_used() -> None:
    for name in [*sweeps.__all__, "open"]:
        assert getattr(sweeps, name) is not None and name in dir(sweeps)
    assert [name for name in dir(sweeps) if not name.startswith("__")] == sorted([*sweeps.__all__, "open"])
    with pytest.raises(AttributeError, match="module 'sweeps' has no attribute 'runn'"):
        _ = sweeps.runn  # type: ignore[attr-defined]


def test_a_dict_runs_as_a_sweep_file_would(sweep: sweeps.SweepResults) -> None:
    assert sweep.state == "done" and sweep.document["search"]["space"]["train.lr"] == {"log_uniform": [1e-3, 1e-1]}
    assert repr(sweep).startswith("sweep 'first' in ") and ": done, 4 configurations, 8 of 8 seeds, " in repr(sweep)
    assert len(sweep.frame()) == 4 and len(sweep.frame("seeds")) == 8
    assert list(sweep.frame("curves").groupby(["cell.range", "number", "seed"], observed=True).size()) == [3] * 8
    assert set(sweep.frame()["cell.range"]) == {"near", "far [10]"}


def test_it_continues_by_the_same_call_or_by_its_name(sweep: sweeps.SweepResults, in_process: None) -> None:
    before = sweep.frame("seeds")
    again = sweeps.run({**SWEEP, "seeds": 3}, name="first", store=sweep.store, mlflow=False, progress=False)
    assert len(again.frame("seeds")) == 12
    more = sweeps.run("first", overrides={"seeds": 4}, store=sweep.store, mlflow=False, progress=False)
    after = more.frame("seeds")
    assert len(after) == 16
    kept = after.merge(before, on=["key", "wall_time_s"])
    assert len(kept) == len(before), "what was trained is kept"


def test_yaml_text_a_path_and_overrides_are_taken_too(tmp_path: Path, in_process: None, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = "name: tiny\ntask: {name: static, input_size: 10}\nmodel: linear\ntrain: {steps: 40, batch: 8, evaluate_every: 5}\n"
    (tmp_path / "tiny.yaml").write_text(text)
    one = sweeps.run(text, overrides={"train.steps": 5, "train.lr": 0.01}, mlflow=False, progress=False)
    assert (str(one.store), one.best().settings["train"]["lr"]) == ("results", 0.01)
    two = sweeps.run(Path("tiny.yaml"), name="two", overrides=["train.steps=5"], mlflow=False, progress=False)
    assert list(sweeps.open()) == ["tiny", "two"]
    assert two.frame("seeds")["steps"].tolist() == [5]


def test_what_is_wrong_is_said_as_the_command_says_it(tmp_path: Path, sweep: sweeps.SweepResults) -> None:
    for given, message in (
        ({**SWEEP, "train": {"stepz": 5}}, "train.stepz: is not a setting here. Did you mean 'steps'"),
        ("quikstart", "Did you mean 'quickstart'"),
        ({**SWEEP, "seeds": {1, 2}}, "it has {1, 2} of type set"),
    ):
        with pytest.raises(sweeps.UserError, match=message):
            sweeps.run(given, store=tmp_path / "none", progress=False)
    assert not (tmp_path / "none").exists()
    with pytest.raises(sweeps.UserError, match=r"overrides are a dict or a list"):
        sweeps.run(SWEEP, overrides="seeds=2", progress=False)
    with pytest.raises(sweeps.UserError, match="there is no store"):
        sweeps.open(tmp_path / "none")
    with pytest.raises(KeyError) as unknown:
        sweeps.open(sweep.store)["frist"]
    assert f"store {sweep.store} has no sweep named 'frist'. Did you mean 'first'? It has: first." in str(unknown.value)
    assert isinstance(unknown.value, sweeps.StoreError) and isinstance(unknown.value, sweeps.UserError)
    assert "frist" not in sweeps.open(sweep.store)
    for ask in (
        lambda: sweeps.load_model("frist", store=sweep.store),
        lambda: sweeps.compare("frist", sweep, store=sweep.store),
        lambda: sweeps.SweepResults("frist", sweep.store).frame(),
    ):
        with pytest.raises(type(unknown.value)) as same:
            ask()
        assert str(same.value) == str(unknown.value) == str(pickle.loads(pickle.dumps(same.value)))
    with pytest.raises(sweeps.UserError, match="unknown level 'seed'"):
        sweep.frame("seed")
    with pytest.raises(sweeps.UserError, match="unknown format 'pdf'"):
        sweep.report("pdf")


def test_the_best_configuration_has_its_settings_metrics_and_seeds(made: sweeps.SweepResults) -> None:
    best = made.best()
    assert (best.number, best.cell, best.rank, best.parameters["train.lr"]) == (1, {"model": "nau"}, 1, 3.2e-3)
    assert best.settings["train"]["lr"] == 3.2e-3 and best.summary["success_rate"]["estimate"] == 1.0
    assert best.seeds["converged_at"].tolist() == [3000, 4000, 8000]
    assert repr(best) == (
        "configuration 1 of sweep 'small', cell nau: lr 3.2e-3, dropout off, noise 3.4e-4; 3 of 3 seeds solved"
    )
    assert made.best("linear").cell == {"model": "linear"} and made.configuration(0, "linear").number == 0
    with pytest.raises(sweeps.UserError, match="has no configuration 9. It has: 0 to 1"):
        made.configuration(9)


def test_of_a_confirmed_configuration_the_fresh_seeds_count_and_without_a_solved_one_nothing_wins(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        made_sweep(store, document=DOCUMENT | {"confirm": {"top": 1, "seeds": {"first": 100, "count": 2}}})
        fresh = {100: "fresh 100", 101: "fresh 101"}
        store.add_seeds("small", "model=nau", 1, fresh, reopen=False)
        entry = dataclasses.replace(configuration("nau", 1, TUNED), keys=fresh)
        store.add_records([lane(entry, 100, 5000, 1e-9), lane(entry, 101, None, 0.2)])
    found = sweeps.open(tmp_path)["small"]
    best, linear = found.best("nau"), found.best("linear")
    assert (best.summary["success_rate"]["estimate"], best.search_summary["success_rate"]["estimate"]) == (0.5, 1.0)
    assert repr(best).endswith("; 1 of 2 seeds solved on fresh seeds, 3 of 3 in the search")
    ending = "; 0 of 3 seeds solved; nothing is solved in its cell, so it is no winner; it has the lowest error"
    assert repr(linear).endswith(ending)


def test_a_file_with_the_name_of_a_sweep_is_not_taken_for_it(made: sweeps.SweepResults, folder: Path) -> None:
    (folder / "small").touch()
    assert sweeps.compare(made).pairs == sweeps.compare("small", store=made.store).pairs
    with pytest.raises(sweeps.UserError, match="has no weights|no seed with weights"):  # made by hand, so it has none
        made.best().load_model()


def test_reports_exports_figures_and_comparisons_are_those_of_the_command(made: sweeps.SweepResults) -> None:
    assert str(made.report()).startswith("# small") and made._repr_markdown_() == made.report()
    assert json.loads(made.report("json"))["sweep"] == "small" and bytes(made.report("parquet"))[:4] == b"PAR1"
    assert made.export().count("exported:") == 1
    compared = sweeps.compare(made.best("nau"), made.best("linear"))
    assert [pair.first.labels for pair in compared.pairs] == [{"model": "nau"}]
    assert made.compare("small:linear").pairs
    assert sweeps.compare("small:nau", "small:linear", store=made.store).pairs == compared.pairs


def test_a_figure_is_shown_in_a_notebook(sweep: sweeps.SweepResults) -> None:
    drawn = sweep.figure(y="error.extrapolation")
    assert drawn.axes and drawn._repr_svg_().lstrip().startswith("<?xml")  # type: ignore[attr-defined]


def test_a_model_of_a_seed_is_loaded_from_any_of_them(sweep: sweeps.SweepResults) -> None:
    best = sweep.best("near")
    x = torch.rand(2, 10)
    expected = sweeps.load_model("first", seed=1, store=sweep.store, cell="near", configuration=best.number)(x)
    assert torch.equal(best.load_model(1)(x), expected)
    assert torch.equal(sweep.load_model(1, cell="near")(x), expected)


def test_several_sweeps_are_one_frame(made: sweeps.SweepResults) -> None:
    opened = sweeps.open(made.store)
    assert repr(opened).startswith(f"2 sweeps in {made.store}\n  small: done, begun ") and len(opened) == 2
    assert set(opened.frame("seeds")["sweep"]) == {"small"} and len(opened.frame("configurations", "small")) == 4


def test_a_sweep_that_is_stopped_raises_with_its_results_and_continues(tmp_path: Path, uncompiled, monkeypatch) -> None:
    def interrupted(driver: Driver, *rest: Any) -> None:
        signal.raise_signal(signal.SIGTERM)

    handler = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(runner, "_train", interrupted)
    with pytest.raises(sweeps.SweepIncomplete, match="the sweep stopped: interrupted.* the same call continues") as stopped:
        sweeps.run(SMALL, name="cut", store=tmp_path, mlflow=False, progress=False)
    assert signal.getsignal(signal.SIGTERM) is handler
    assert (stopped.value.state, stopped.value.sweep.state) == ("stopped", "stopped")
    monkeypatch.setattr(runner, "_train", lambda driver, *rest: train_in_process(driver))
    assert sweeps.run(SMALL, name="cut", store=tmp_path, mlflow=False, progress=False).state == "done"


def test_a_sweep_runs_in_a_thread_and_beside_a_running_event_loop(tmp_path: Path, in_process: None) -> None:
    found: list[Any] = []

    def other() -> None:
        found.append(sweeps.run(SMALL, name="thread", store=tmp_path, mlflow=False, progress=False))

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()

    async def cell() -> sweeps.SweepResults:  # a notebook's cell is run inside its kernel's loop
        return sweeps.run(SMALL, name="loop", store=tmp_path, mlflow=False, progress=False)

    found.append(asyncio.run(cell()))
    assert [one.state for one in found] == ["done", "done"]


def test_progress_is_shown_unless_it_is_not_wanted(tmp_path: Path, uncompiled, monkeypatch, capsys) -> None:
    def trained(driver: Driver, console: Any, *rest: Any) -> None:
        console.print("12 of 12 [done]")
        train_in_process(driver)

    monkeypatch.setattr(runner, "_train", trained)
    sweeps.run(SMALL, name="a", store=tmp_path / "a", mlflow=False)
    assert "12 of 12 [done]" in capsys.readouterr().out
    sweeps.run(SMALL, name="a", store=tmp_path / "b", mlflow=False, progress=False)
    assert not capsys.readouterr().out


def test_warnings_of_a_sweep_file_are_warnings_of_python(tmp_path: Path, in_process: None) -> None:
    late = {**SMALL, "model": {"name": "linear", "sparsity_penalty": {"weight": 1.0, "start": 5000.0}}}
    with pytest.warns(UserWarning, match="the penalty starts at step 5k"):
        sweeps.run(late, name="late", store=tmp_path, mlflow=False, progress=False)


@pytest.mark.slow
def test_a_real_sweep_runs_in_a_thread_of_a_script(tmp_path: Path) -> None:
    """On Ray, in another process: a thread may set no handlers of signals, and Ray sets some when it starts."""
    script = f"""
import signal, sweeps, threading
def other():
    print(sweeps.run({SMALL!r}, name="thread", store="results", workers=1))
if __name__ == "__main__":
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert before == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
"""
    (tmp_path / "script.py").write_text(script)
    done = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, cwd=tmp_path, timeout=280)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("sweep 'thread' in results: done, 1 configuration, 1 of 1 seeds, 0 solved\n")
