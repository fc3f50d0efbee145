"""Trained models in MLflow: logged to the runs of their seeds, and registered. A real tracking database, nothing compiled."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import call, train_in_process
from lanes import resolved
from sample_sweeps import UNIT

from sweeps.errors import TrackingError
from sweeps.models import TrainedModel, load_model, log_to_mlflow
from sweeps.runner import run as runner
from sweeps.tracking.client import below, default_uri
from sweeps.tracking.models import _quiet

SWEEP = """
name: small
task: {name: static, operation: add, input_size: 10}
train: {steps: 20, batch: 8, evaluate_every: 10}
model: linear
seeds: 2
"""
WORDS = """
name: words
task: {name: recurrent, input_size: 4, length: 2, extrapolation_length: 3}
train: {steps: 2, batch: 8, evaluate_every: 1}
model: {units: [gru, ./my_unit.py], name: own}
seeds: 1
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("tracked")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(runner, "_train", lambda driver, *rest: train_in_process(driver))
        (folder / "small.yaml").write_text(SWEEP)
        (folder / "words.yaml").write_text(WORDS)
        (folder / "my_unit.py").write_text(UNIT)
        for file in ("small.yaml", "words.yaml"):
            answer = call("run", file, "--store", str(folder / "results"))
            assert answer.status == 0, answer.err
        yield folder / "results"


@pytest.fixture
def client(store: Path) -> Any:
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{store / 'mlflow.db'}"
    return MlflowClient(uri, registry_uri=uri)


def loaded(store: Path, uri: str) -> Any:
    import mlflow.pytorch

    with _quiet(f"sqlite:///{store / 'mlflow.db'}"):
        return mlflow.pytorch.load_model(uri)


@pytest.mark.parametrize("given", [None, "sqlite:////elsewhere/mlflow.db"])
def test_where_later_runs_are_written_is_not_changed(given: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    if given is not None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", given)
    import mlflow

    before = default_uri("x"), mlflow.get_tracking_uri()
    with _quiet("sqlite:////tracked/mlflow.db"):
        assert mlflow.get_tracking_uri() == "sqlite:////tracked/mlflow.db"
    assert (default_uri("x"), mlflow.get_tracking_uri()) == before


@pytest.mark.slow
def test_a_model_of_rows_is_a_graph_below_its_seeds_run_that_runs_nothing_when_it_is_loaded(store, client, monkeypatch) -> None:
    logged = log_to_mlflow("small", seed=1, store=store)
    run = client.get_run(logged.run)
    assert (run.data.tags["level"], run.data.tags["seed"], run.info.status) == ("seed", "1", "FINISHED")
    assert [one.model_id for one in run.outputs.model_outputs] == [logged.uri.removeprefix("models:/")]
    found = client.get_logged_model(logged.uri.removeprefix("models:/"))
    assert (
        found.experiment_id == run.info.experiment_id and (store / "mlartifacts") in Path(found.artifact_location[7:]).parents
    )
    assert found.params["train.lr"] == "0.001" and found.tags["at"] == "best"
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    x = torch.rand(7, 10)
    assert torch.allclose(loaded(store, logged.uri)(x), load_model("small", seed=1, store=store)(x))


@pytest.mark.slow
def test_it_is_logged_and_registered_once(store, client) -> None:
    first = log_to_mlflow("small", seed=0, store=store, register="adder")
    again = log_to_mlflow("small", seed=0, store=store, register="adder")
    assert (first.is_new, again.is_new) == (True, False) and (first.uri, "1") == (again.uri, again.version)
    assert default_uri("x") == f"sqlite:///{Path('x').absolute()}/mlflow.db"
    other = log_to_mlflow("small", seed=1, at="end", store=store, register="adder")
    assert other.version == "2"
    best = client.get_model_version_by_alias("adder", "best")
    assert (str(best.version), best.tags["seed"], best.tags["sweep"]) == ("2", "1", "small")
    assert best.description.startswith("Seed 1 of configuration 0 of sweep small, at step 20: ")
    x = torch.rand(3, 10)
    expected = load_model("small", seed=1, at="end", store=store)(x)
    assert torch.allclose(loaded(store, "models:/adder@best")(x), expected)


@pytest.mark.slow
def test_a_sequence_and_a_unit_of_the_users_own_are_pickled_with_their_file(store, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(store.parent)
    logged = log_to_mlflow("words", store=store)
    x = torch.rand(5, 3, 4)
    torch.save((x, load_model("words", store=store)(x)), tmp_path / "expected.pt")
    script = (
        "import sys, mlflow, torch; mlflow.set_tracking_uri(sys.argv[1]); m = mlflow.pytorch.load_model(sys.argv[2]);"
        "x, y = torch.load('expected.pt'); print(torch.equal(m(x), y), type(m).__name__)"
    )
    command = [sys.executable, "-c", script, f"sqlite:///{store / 'mlflow.db'}", logged.uri]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.stdout.split() == ["True", "TrainedModel"], done.stderr


@pytest.mark.slow
def test_the_command_says_how_to_load_it_and_what_is_wrong(store, tmp_path) -> None:
    answer = call("export", "small", "--register", "sums", "--store", str(store))
    assert answer.status == 0 and 'mlflow.pytorch.load_model("models:/sums@best")' in answer.out, answer.err
    assert "is logged already" in call("export", "small", "--mlflow", "--store", str(store)).out
    wrong = call("export", "small", "--mlflow", "--seed", "9", "--store", str(store))
    assert wrong.status == 2 and "has no finished seed 9. It has: 0 to 1" in wrong.err


@pytest.mark.slow
def test_a_sweep_that_mlflow_does_not_have_is_written_first(store, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    with pytest.raises(TrackingError, match="has no run of this seed: `sweeps sync small` writes the sweep's runs"):
        log_to_mlflow("small", store=store)
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.slow
def test_a_copied_store_logs_no_model_to_the_folder_of_the_first(store, tmp_path) -> None:
    shutil.copytree(store, tmp_path / "copy")
    before = sorted((store / "mlartifacts").rglob("*"))
    with pytest.raises(TrackingError, match="the store was moved or copied"):
        log_to_mlflow("small", seed=0, at="end", store=tmp_path / "copy")
    assert sorted((store / "mlartifacts").rglob("*")) == before


@pytest.mark.parametrize(
    ("uri", "is_below"),
    [("file://{f}/mlartifacts/1", True), ("{f}/a%20b", True), ("file:{f}/a", True), ("{f}", False), ("{f}-2/a", False),
     ("{f}/../a", False), ("s3://{f}/a", False), ("file://host{f}/a", False), ("", False), ("a", False), ("{f}/link/a", False)],
)  # fmt: skip
def test_a_location_is_below_the_folder_of_the_database_where_it_leads_there(tmp_path: Path, uri: str, is_below: bool) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store/link").symlink_to(tmp_path)
    assert below(tmp_path / "store/mlflow.db", uri.format(f=tmp_path / "store")) == is_below


def test_symbols_have_a_signature_of_any_length() -> None:
    from sweeps.models import _to_log

    task = {"name": "algorithm", "operation": "copy", "bins": [4, 6], "examples_per_length": 50, "test_rows": 20}
    task |= {"test_length": 6, "extrapolation_rows": 10, "curve_lengths": [4]}
    settings = resolved({"name": "dngpu", "maps": 4}, task, steps=1)
    about = {"cell": "all", "labels": {}, "configuration": 0, "seed": 0, "step": 1, "sweep": "s", "verdict": "v", "error": {}}
    logged = _to_log(TrainedModel(settings, about | {"outcome": "unsolved", "key": "k", "budget": 1}), "best")
    assert logged.inputs == ("int64", (-1, -1)) and logged.outputs == ("float32", (-1, -1, 6)) and logged.example is None
