"""One extension of each kind, each one file or one entry (the table in CONTRIBUTING.md), used together by one sweep."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import optuna
import pytest
from commands import call, train_in_process
from kept import runs_of

import cluster
import sweeps.cli
from cluster.backend import backends
from sweeps.cli.app import app
from sweeps.config import registry, sweep_file
from sweeps.config import settings as config_settings
from sweeps.results import FORMATS, metrics, report
from sweeps.results.figures import draw, figure_of
from sweeps.results.formats import Format
from sweeps.results.metrics import Column, ConfigurationMetric, LaneMetric
from sweeps.runner import run
from sweeps.search import SAMPLERS
from sweeps.search.samplers import Option, Sampler
from sweeps.store import Store
from sweeps.training import settings as training_settings
from sweeps.training.lane import LaneResult
from sweeps.training.optimizers import OPTIMIZERS, Optimizer

DEFINITION = """\
name: extended
question: Do one extension of each kind work together?
task: ./my_task.py
train: {steps: 20, batch: 8, evaluate_every: 10, optimizer: sign_descent}
compare: {model: [./my_unit.py, ./my_network.py]}
seeds: 2
search:
  sampler: {name: brute_force, seed: 1, avoid_premature_stop: true}
  configurations: 3
  objective: lowest_error_at.median
  space: {train.lr: [0.01, 0.02]}
"""
VERB = """\
from sweeps.cli.app import StoreOption, app
from sweeps.results import FORMATS, report
from sweeps.store import Store


@app.command()
def brief(name: str, store: StoreOption = "results") -> None:
    with Store(store) as opened:
        print(FORMATS["count"].render(report(opened, name), False), end="")
"""
BACKEND = """\
from dataclasses import dataclass

from cluster.backend import Backend, JobStatus, Submitted
from cluster.description import Cluster, Word


@dataclass(frozen=True, kw_only=True)
class ToyCluster(Cluster):
    colour: Word = "red"


class ToyBackend(Backend[ToyCluster]):
    kind = "toy"
    schema = ToyCluster
    submitted = []

    def submit(self, submission):
        self.submitted.append(submission)
        return Submitted("toy-1", "waiting", True)

    def status(self, name):
        return JobStatus("toy-1", "done", 1, "today", progress=["0:00:01  lanes 1/1"])

    def logs(self, name, follow, on_message):
        on_message("a note")
        yield "a line"

    def stop(self, name):
        return JobStatus("toy-1", "stopped", 1, "today")

    def fetch(self, name, store):
        from made_sweep import made_sweep

        made_sweep(store)
        return 12

    def show(self, submission):
        return f"paint it {self.cluster.colour}\\n"
"""


def lowest_error_at(result: LaneResult) -> float | None:
    if not result.curve:
        return None
    return float(min(zip(result.curve["error.extrapolation"], result.curve["step"], strict=True))[1])


LANE = LaneMetric(name="lowest_error_at", meaning="step of the lowest error", unit="steps", value=lowest_error_at)
MEDIAN = ConfigurationMetric(
    name="lowest_error_at.median",
    meaning="median step of the lowest error",
    unit="steps",
    lane_value=lowest_error_at,
    aggregation=metrics.MEDIAN,
    direction="maximize",
    format=lambda value: f"at {value:g}" if value is not None else "never",
    column=Column(header="lowest error", legend="its step"),
    label="step of the lowest error",
)


def sign_descent(params: Any, grads: Any, moments: Any, step: Any, *, lr: Any) -> Any:
    return {name: p - lr * grads[name].sign() for name, p in params.items()}, moments


def registries() -> list[Any]:
    verbs = [command.callback for command in app.registered_commands]
    return [list(SAMPLERS), list(FORMATS), list(OPTIMIZERS), metrics.listing(), verbs, list(backends()),
            sweep_file.definitions(), registry.models(), registry.names("task")]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder in which the sweep was trained, in this process; the extensions exist as long as this fixture does."""
    folder, before = tmp_path_factory.mktemp("extended"), registries()
    assert get_args(training_settings.OptimizerName) == tuple(OPTIMIZERS)
    with pytest.MonkeyPatch.context() as patch, metrics.registered(LANE, MEDIAN):
        patch.chdir(folder)
        patch.setenv("SWEEPS_STORE", str(folder / "results"))  # absolute: MLflow caches stores by URI
        registry.clear_cache()
        for kind, name in (("model", "my_unit"), ("network", "my_network"), ("task", "my_task")):
            assert call("new", kind, name).status == 0
        for path, text in (("definitions/extended.yaml", DEFINITION), ("backends/toy.py", BACKEND), ("verbs/brief.py", VERB)):
            Path(path).parent.mkdir()
            Path(path).write_text(text)
        Path("clusters.yaml").write_text("box: {kind: toy, colour: blue}\n")
        patch.setattr(sweep_file, "DEFINITIONS", folder / "definitions")
        patch.setattr(cluster, "__path__", [*cluster.__path__, str(folder / "backends")])
        patch.setitem(FORMATS, "count", Format(lambda report, timing: f"{len(report.configurations)} of {report.name}\n"))
        options = {"avoid_premature_stop": Option(bool)}
        sampler = Sampler(make=optuna.samplers.BruteForceSampler, options=options, conditional=True)
        patch.setitem(SAMPLERS, "brute_force", sampler)
        patch.setitem(OPTIMIZERS, "sign_descent", Optimizer(sign_descent, moments=(), settings=("lr",)))
        # The names are read from the registry when the settings of training are imported.
        patch.setattr(training_settings, "OptimizerName", Literal[tuple(OPTIMIZERS)])
        patch.setattr(config_settings, "_ADAPTERS", {})
        patch.setattr(app, "registered_commands", [*app.registered_commands])
        patch.setattr(sweeps.cli, "__path__", [*sweeps.cli.__path__, str(folder / "verbs")])
        sweeps.cli.import_verbs()
        patch.setattr(run, "_train", lambda driver, console, workers: train_in_process(driver))
        done = call("run", "extended")
        assert done.status == 0, done.err
        yield folder
    for module in ("cluster.toy", "sweeps.cli.brief"):
        sys.modules.pop(module, None)
    assert registries() == before


def test_units_networks_tasks_samplers_and_optimizers_of_a_definition_train_its_lanes(folder: Path) -> None:
    assert call("list", "definitions", "--names").out.split() == ["extended"]
    assert call("check", "extended").out.startswith("extended is sound: 2 cells, 12 lanes, 6 configurations, 2 packs,")
    with Store(folder / "results") as store:
        configurations = report(store, "extended").configurations
    assert {one.configuration.labels["model"] for one in configurations} == {"./my_unit.py", "./my_network.py"}
    assert sorted(one.parameters["train.lr"] for one in configurations) == [0.001] * 2 + [0.01] * 2 + [0.02] * 2
    for one in configurations:
        settings = one.configuration.settings
        assert settings["task"]["name"] == "./my_task.py" and settings["train"]["optimizer"] == "sign_descent"
        assert [result.outcome for result in one.results] == ["unsolved"] * 2, one.results[0].reason
    misspelt = call("check", "extended", "search.sampler.avoid_premature_stops=true", "train.optimizer=sign_descend")
    assert misspelt.status == 2
    assert "Did you mean 'avoid_premature_stop'" in misspelt.err and "Did you mean 'sign_descent'" in misspelt.err


def test_a_metric_that_is_the_objective_is_in_every_format_in_mlflow_and_in_figures(folder: Path) -> None:
    with Store(folder / "results") as store:
        best = report(store, "extended").configurations[0]
        panel = draw(store, ["extended"], x="model", y=[MEDIAN.name]).axes[0]
    steps = [lowest_error_at(result) for result in best.results]
    value = metrics.MEDIAN.apply(steps).estimate
    assert value is not None
    assert panel.get_ylabel() == MEDIAN.label and figure_of(best, MEDIAN.name).estimate == value
    text = call("report", "extended").out
    assert "by highest lowest_error_at.median" in text
    assert "| lowest error |" in text and f"| at {value:g} " in text
    assert "lowest error: its step." in " ".join(text.split())
    entry = json.loads(call("report", "extended", "--format", "json").out)["configurations"][0]
    assert entry["lowest_error_at"]["median"] == entry["objective"] == value
    assert [lane["lowest_error_at"] for lane in entry["lanes"]] == steps
    row = next(csv.DictReader(io.StringIO(call("report", "extended", "--format", "csv").out)))
    assert row["lowest_error_at.median"] == row["objective"] == str(value)
    written: dict[str, list[dict[str, float]]] = {}
    for found in runs_of(folder / "results", "extended"):
        written.setdefault(found.data.tags["level"], []).append(found.data.metrics)
    assert len(written["configuration"]) == 6 and len(written["seed"]) == 12
    assert all(found[MEDIAN.name] == found["objective"] for found in written["configuration"])
    assert max(found[MEDIAN.name] for found in written["configuration"]) == value
    assert all(LANE.name in found for found in written["seed"])
    listed = " ".join(call("list", "metrics").out.split())
    assert f"configuration: {MEDIAN.meaning}; 95 % interval: order statistics; objective: maximize" in listed


def test_a_metric_whose_name_is_taken_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="LaneMetric named 'lowest_error_at'"):
        metrics.register(LANE)
    with pytest.raises(ValueError, match=r"named 'lowest_error_at\.median' already"):
        metrics.register(dataclasses.replace(MEDIAN, name="lowest_error_at"))


def test_a_report_is_printed_in_an_added_format_by_an_added_verb(folder: Path) -> None:
    assert call("brief", "extended")[:2] == (0, "6 of extended\n")
    assert call("report", "extended", "--format", "count")[:2] == (0, "6 of extended\n")
    wrong = call("report", "extended", "--format", "cuont")
    assert wrong.status == 2 and "'cuont' is not one of 'md', 'json', 'html', 'tex', 'csv', 'parquet', 'count'" in " ".join(
        wrong.err.split()
    )


def test_an_added_backend_is_reached_by_every_verb(folder: Path) -> None:
    assert "box toy: 1 worker node of 1 CPU" in re.sub(r" +", " ", call("list", "clusters").out)
    shown = call("cluster", "show", "box")
    assert (shown.status, shown.out) == (0, "paint it blue\n"), shown
    assert "no --sweep FILE was given" in shown.err
    assert "extended is submitted to box as job toy-1" in call("submit", "extended", "--on", "box").out
    (submission,) = backends()["toy"].submitted  # type: ignore[attr-defined]
    assert submission.name == "extended" and "seeds" in submission.text
    assert {"my_unit.py", "my_network.py", "my_task.py"} <= set(submission.files)
    refused = call("submit", "extended", "--on", "box", "resources.cpus=64")
    assert (refused.status, "and no node of 'box' has that" in refused.err) == (2, True), refused
    status = call("status", "extended", "--on", "box").out
    assert "extended on box: done (job toy-1, since today)\n0:00:01  lanes 1/1" in status
    watched = call("watch", "extended", "--on", "box")
    assert (watched.status, "a line\nextended is done on box" in watched.out) == (0, True), watched
    assert "note: a note" in watched.err
    assert "extended on box: stopped" in call("stop", "extended", "--on", "box").out
    fetched = call("fetch", "small", "--on", "box")
    assert (fetched.status, "small: 12 new records" in fetched.out) == (0, True), fetched


def test_the_fields_of_an_added_backend_are_checked(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("clusters.yaml").write_text("box: {kind: toy, color: blue}\nlab: {kind: local, colour: red}\nc: {kind: tou}")
    refused = call("list", "clusters")
    assert refused.status == 2
    assert "unknown key 'color'. Did you mean 'colour'?" in refused.err
    assert "colour: is a setting of kind toy, not of local" in refused.err
    assert "unknown kind 'tou'. Did you mean 'toy'?" in refused.err
