"""The `sweeps` command without training: refusals with their messages, and what it prints. See also test_errors.py."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from commands import Answer, call
from made_sweep import configuration, lane, made_sweep

from sweeps.cli.app import app
from sweeps.config import registry
from sweeps.config.sweep_file import parse
from sweeps.store import Store
from sweeps.store.database import holders
from sweeps.training.numerics import Numerics

FILE = """\
name: small
task: {name: static, operation: sub, input_size: 10}
train: {steps: 400, batch: 16, evaluate_every: 100}
compare:
  model: [linear, relu]
seeds: 4
search:
  sampler: {name: tpe, seed: 0}
  configurations: 3
  parallel: 2
  space:
    train.lr: {log_uniform: [1e-4, 1e-1]}
"""


Command = Callable[..., Answer]


def test_a_package_that_hides_one_of_sweeps_is_named_and_nothing_is_started(tmp_path) -> None:
    """A user's own tasks.py, which `python -m` finds before the installation."""
    (tmp_path / "tasks.py").write_text("def deploy(): ...\n")
    command = [sys.executable, "-m", "sweeps.cli", "list"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    message = " ".join(done.stderr.split())
    assert done.returncode == 2 and f"`tasks` would be imported from {tmp_path / 'tasks.py'}" in message
    assert "run `sweeps` instead of `python -m sweeps.cli`" in message and "Traceback" not in message


@pytest.fixture
def sweeps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """The command in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return call


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(FILE)
    return path


# ------------------------------------------------------------------------------------------- bad files


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[linear, relu]", "[linear, relo]", "no model named 'relo'. Did you mean 'relu'?"),
        ("operation: sub", "operator: sub", "line 2: task.operator: is not a setting here. Did you mean 'operation'?"),
        ("[1e-4, 1e-1]", "[1e-1, 1e-4]", "line 12: search.space.train.lr.log_uniform"),
        ("input_size: 10", "input_size: 10, num_subsets: 12", "cover 13 inputs, but input_size = 10"),
        ("name: small", "name: small\n - x: [", "line 2: not YAML"),
    ],
)  # fmt: skip
def test_a_bad_file_is_refused_with_its_line_and_the_nearest_name_and_nothing_is_made(
    sweeps: Command, file: Path, old: str, new: str, message: str
) -> None:
    assert old in FILE
    file.write_text(FILE.replace(old, new, 1))
    for verb in ("check", "run"):
        answer = sweeps(verb, str(file))
        assert answer.status == 2
        assert message in answer.err
        assert not answer.out
    assert [path.name for path in file.parent.iterdir()] == ["small.yaml"], "no store is made"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "smal.yaml"], "no sweep file 'smal.yaml', and no definition of that name"),
        (["run", "quickstrat"], "Did you mean 'quickstart'?"),
        (["run", "small.yaml", "train.step=5"], "'train.step=5': train.step: is not a setting here. Did you mean"),
        (["run", "small.yaml", "train.lr"], "'train.lr'"),
        (["run", "small.yaml", "--name", "no/slash"], "name: must be 1 to 100 letters"),
        (["run", "small.yaml", "--workers", "0"], "Invalid value for '--workers'"),
        (["show", "model", "nmuu"], "no model named 'nmuu'. Did you mean 'nmu'?"),
        (["show", "task", "statik"], "no task named 'statik'. Did you mean 'static'?"),
        (["show", "model"], "`sweeps list models` lists them"),
        (["show", "task", "static", "algorithm"], "needs one name: `sweeps list tasks` lists them"),
        (["status", "small"], "there is no store 'results' here"),
        (["report", "small"], "there is no store 'results' here"),
        (["export", "small"], "there is no store 'results' here"),
        (["sync", "small"], "there is no store 'results' here"),
        (["list"], "there is no store 'results' here"),
        (["ui"], "there is no store 'results' here"),
        (["bench", "--device", "gpu"], "--device is cpu or cuda, but 'gpu' is given"),
        (["bench", "--device", "cuda", "--threads", "2"], "--threads and --device are different measurements"),
        (["bench", "--units", "nmu", "--driver"], "--units and --driver are different measurements"),
        (["reproduce", "small.yaml"], "small.yaml has no `exported` section: `sweeps export"),
        (["reproduce", "best.yaml"], "best.yaml: no such file"),
        (["reproduce", "smal"], "`sweeps export smal -o best.yaml` writes that"),
        (["rum", "small.yaml"], "No such command 'rum'. Did you mean 'run'"),
        (["list", "modls"], "Invalid value for 'what': 'modls' is not one of 'sweeps', "),
        (["list", "modls"], "Did you mean 'models'?"),
        (["report", "small", "--format", "htm"], "Did you mean 'html'?"),
        (["show", "modle", "nau"], "For a model: `sweeps show model nau`."),
        (["check", "tsk", "static"], "For a task: `sweeps check task static`."),
        (["show", "metric", "par2"], "before the name 'par2' only `model` or `task` is allowed"),
        (["check", "model", "./none.py"], "`sweeps new model none` writes a model to start from"),
        (["check", "."], "'.' is a folder, and a sweep file is expected. It has small.yaml."),
        (["run", "small.yaml", "--workers", "many"], "Invalid value for '--workers': must be a whole number, not 'many'"),
        (["run", "small.yaml", "--workers", "0"], "Invalid value for '--workers': must be at least 1, not '0'"),
        (["predict", "small", "--seed", "x"], "Invalid value for '--seed': must be a whole number, not 'x'"),
        (["figure", "small", "--font-size", "x"], "Invalid value for '--font-size': must be a number, not 'x'"),
        (["ui", "--port", "70000"], "Invalid value for '--port': must be at most 65535, not '70000'"),
        (["show", "naw"], "For the model 'nac': `sweeps show model nac`."),
        (["show", "radom"], "For the sampler 'random': `sweeps list samplers`."),
        (["run"], "Missing argument"),
    ],
)  # fmt: skip
def test_a_wrong_request_has_status_2_and_one_clear_message_and_makes_nothing(
    sweeps: Command, file: Path, arguments: list[str], message: str
) -> None:
    answer = sweeps(*arguments)
    assert answer.status == 2
    assert message in answer.err
    assert [path.name for path in file.parent.iterdir()] == ["small.yaml"]


# ------------------------------------------------------------------------------------------- bad stores


def test_a_damaged_store_is_refused(sweeps: Command, file: Path) -> None:
    (file.parent / "results").mkdir()
    (file.parent / "results" / "sweeps.db").write_bytes(b"no database" * 100)
    for arguments in (["run", "small.yaml"], ["status", "small"]):
        answer = sweeps(*arguments)
        assert answer.status == 2
        assert "is not a database, or is damaged" in answer.err


def made_at(folder: Path) -> None:
    with Store(folder) as store:
        made_sweep(store)


# ------------------------------------------------------------------------------------------- begun sweeps


def test_an_unknown_sweep_is_refused_with_the_nearest_name(sweeps: Command, tmp_path: Path) -> None:
    made_at(tmp_path / "results")
    for verb in ("status", "report", "export", "sync"):
        answer = sweeps(verb, "smal")
        assert answer.status == 2
        assert "no sweep named 'smal'" in answer.err


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("operation: sub", "operation: add", "task.operation: 'sub' -> 'add'"),
        ("[linear, relu]", "[linear]", "compare: cell model=relu left out"),
    ],
)
def test_an_edit_that_changes_a_begun_sweep_is_refused_with_the_difference(
    sweeps: Command, file: Path, old: str, new: str, message: str
) -> None:
    begun = parse(FILE, "small.yaml")
    with Store(file.parent / "results") as store:
        store.begin_sweep("small", begun.text, begun.document, str(Numerics.here("cpu")))
        store.set_state("small", "stopped")
    file.write_text(FILE.replace(old, new))
    answer = sweeps("run", "small.yaml")
    assert answer.status == 2
    assert message in answer.err
    assert "--name NEW" in answer.err
    with Store(file.parent / "results") as store:
        row = store.sweep("small")
        assert row is not None and (row.document, row.state) == (begun.document, "stopped")
        assert store.holder("small") is None
    assert not (file.parent / "results" / "mlflow.db").exists()


def test_nothing_is_exported_before_a_configuration_is_complete(sweeps: Command, tmp_path: Path) -> None:
    entry = configuration("nau", 0)
    with Store(tmp_path / "results") as store:
        store.begin_sweep("small", "", {"name": "small"})
        store.add_configuration("small", dataclasses.replace(entry, state="running"))
        store.add_records([lane(entry, 0, 3000, 1e-9)])
    answer = sweeps("export", "small", "-o", "best.yaml")
    assert answer.status == 2
    assert "has no complete configuration yet" in answer.err
    assert not (tmp_path / "best.yaml").exists()


# ------------------------------------------------------------------------------------------- good requests


def test_init_writes_a_file_that_is_sound_and_overwrites_none(sweeps: Command, tmp_path: Path) -> None:
    answer = sweeps("init", "mine.yaml")
    assert answer.status == 0
    assert "`sweeps run mine.yaml`" in answer.out
    text = (tmp_path / "mine.yaml").read_text()
    assert "\nname: mine\n" in text and "sweeps run mine.yaml " in text and "quickstart" not in text
    assert sweeps("check", "mine.yaml").status == 0
    first = text.index("# early_stopping:")
    assert "# confirm: " in text[first:]
    uncommented = text[:first] + re.sub("(?m)^# ", "", text[first:])
    (tmp_path / "uncommented.yaml").write_text(uncommented)
    sound = sweeps("check", "uncommented.yaml")
    assert sound.status == 0 and "3 cells" in sound.out and "to 420 lanes" in sound.out and not sound.err, sound
    again = sweeps("init", "mine.yaml")
    assert again.status == 2
    assert "mine.yaml exists and is not overwritten" in again.err
    assert (tmp_path / "mine.yaml").read_text() == text


def test_init_starts_from_a_definition_and_refuses_a_name_without_yaml(sweeps: Command, tmp_path: Path) -> None:
    assert sweeps("init", "mine.yaml", "--definition", "nau-addition").status == 0
    assert "\nname: mine\n" in (tmp_path / "mine.yaml").read_text()
    assert sweeps("check", "mine.yaml").status == 0
    refused = sweeps("init", "nau-addition")
    assert refused.status == 2
    assert "`sweeps init my.yaml --definition nau-addition` starts from that one" in refused.err
    assert "Did you mean 'nau-addition'?" in sweeps("init", "x.yaml", "--definition", "nau-adition").err


def test_a_misspelled_file_is_answered_with_the_nearest_file_and_sweep(sweeps: Command, file: Path) -> None:
    made_at(file.parent / "results")
    answer = sweeps("run", "smal")
    assert answer.status == 2
    assert "Did you mean 'small.yaml'?" in answer.err and "The store has a sweep 'small': `sweeps run small`" in answer.err


def test_check_prints_how_many_lanes_a_file_has(sweeps: Command, file: Path) -> None:
    answer = sweeps("check", "small.yaml")
    assert answer.status == 0 and answer.out.startswith("small.yaml is sound: 2 cells, 24 lanes, 6 configurations, ")
    assert "9.6k seed-steps" in answer.out and " MB in the store and MLflow" in answer.out
    assert "48 lanes" in sweeps("check", "small.yaml", "seeds=8").out
    assert "is sound: 3 cells, 360 lanes" in sweeps("check", "quickstart").out


def test_a_penalty_that_starts_after_the_end_is_a_warning_and_no_fault(sweeps: Command, file: Path) -> None:
    answer = sweeps("check", "small.yaml", "compare.model=[nau, linear]")
    assert answer.status == 0
    assert "starts at step 5k, but training ends at 400: it never acts. Shares" in answer.err
    assert "is sound" in answer.out


def test_a_file_is_shown_with_its_defaults_filled_in_and_can_be_read_again(sweeps: Command, file: Path) -> None:
    answer = sweeps("show", "small.yaml", "train.batch=8", "seeds=5")
    assert answer.status == 0
    for line in ("2 cells, 5 seeds, 30 lanes", "# cell model=relu, 3 configurations", "optimizer: adam",
                 "batch: 8", "log_uniform: [0.0001, 0.1]"):  # fmt: skip
        assert line in answer.out


def test_every_model_is_shown_with_its_paper_and_settings(sweeps: Command) -> None:
    for name in registry.names("model"):
        answer = sweeps("show", "model", name)
        assert answer.status == 0, name
        assert f"{name} is short for" in answer.out and "network: " in answer.out
        assert f"unit {name} (version" in answer.out
        assert "settings:" in answer.out


def test_every_task_is_shown_with_its_threshold(sweeps: Command) -> None:
    for name in registry.names("task"):
        answer = sweeps("show", "task", name)
        assert answer.status == 0, name
        assert "solved: an extrapolation error below" in answer.out or "solved: not defined" in answer.out


def test_models_tasks_and_definitions_are_listed_each_with_one_line(sweeps: Command) -> None:
    for kind, one in (("models", "nau"), ("tasks", "static"), ("definitions", "quickstart")):
        lines = sweeps("list", kind).out.splitlines()
        names = sweeps("list", kind, "--names").out.splitlines()
        assert one in names
        assert [line.split()[0] for line in lines] == names
        assert all(len(line.split()) > 2 for line in lines)


def test_the_store_s_sweeps_are_listed_with_their_state(sweeps: Command, tmp_path: Path) -> None:
    with Store(tmp_path / "results") as store:
        made_sweep(store)
        store.begin_sweep("cut-off", "", {"name": "cut-off"})
    answer = sweeps("list")
    assert answer.status == 0
    first, second = answer.out.splitlines()
    assert first.split() == ["small", "done"]
    assert second.startswith("cut-off") and "interrupted" in second
    assert sweeps("list", "--names").out.split() == ["small", "cut-off"]


def test_reports_are_printed_in_every_format(sweeps: Command, tmp_path: Path) -> None:
    made_at(tmp_path / "results")
    assert "## model=nau" in sweeps("report", "small").out
    found = json.loads(sweeps("report", "small", "--format", "json", "--no-timing").out)
    assert set(found) == {"sweep", "definition", "configurations", "failures", "totals"}
    assert sweeps("report", "small", "--format", "csv").out.startswith("cell.model,rank,number,state,")
    assert sweeps("report", "small", "--format", "tex2").status == 2
    assert sweeps("status", "small").out.startswith("small: done")


def test_the_store_is_found_by_option_and_by_variable(sweeps: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_at(tmp_path / "elsewhere")
    assert sweeps("list", "--store", "elsewhere").out.split() == ["small", "done"]
    monkeypatch.setenv("SWEEPS_STORE", "elsewhere")
    assert sweeps("list").out.split() == ["small", "done"]


def test_an_exported_file_is_sound_and_shown(sweeps: Command, tmp_path: Path) -> None:
    made_at(tmp_path / "results")
    assert sweeps("export", "small", "-o", "best.yaml").status == 0
    assert sweeps("check", "best.yaml").status == 0
    assert sweeps("export", "small", "--cell", "nau").out == (tmp_path / "best.yaml").read_text() + "\n"
    assert sweeps("export", "small", "-o", "best.yaml").status == 0


def test_a_sweep_file_of_ones_own_is_not_overwritten(sweeps: Command, tmp_path: Path, file: Path) -> None:
    made_at(tmp_path / "results")
    answer = sweeps("export", "small", "-o", "small.yaml")
    assert answer.status == 2
    assert "small.yaml is a sweep file without results, and is not overwritten: name another file" in answer.err
    assert file.read_text() == FILE


def test_a_sweep_of_the_store_is_shown_by_its_name(sweeps: Command, tmp_path: Path) -> None:
    with Store(tmp_path / "results") as store:
        store.begin_sweep("small", FILE, dict(parse(FILE, "small.yaml").document))
    answer = sweeps("show", "small")
    assert answer.status == 0 and answer.out.startswith("# small: 2 cells, 4 seeds") and "  name: relu\n" in answer.out


def test_a_setting_that_an_axis_sets_in_every_cell_cannot_be_given_beside_it(sweeps: Command, file: Path) -> None:
    file.write_text(FILE + "\n")
    assert sweeps("check", "small.yaml", "train.lr=0.1").status == 0
    file.write_text(FILE.replace("  model: [linear, relu]", "  model: [linear, relu]\n  train.batch: [8, 32]"))
    answer = sweeps("check", "small.yaml", "train.batch=64")
    assert answer.status == 2
    assert "has no effect: axis 'train.batch' sets it in every cell. Change compare.train.batch" in answer.err


def test_a_sweep_of_the_store_may_be_named_in_place_of_its_file(sweeps: Command, tmp_path: Path) -> None:
    made_at(tmp_path / "results")
    answer = sweeps("run", "small", "seeds=0")
    assert answer.status == 2
    assert "seeds: must be a whole number from 1" in answer.err


def test_a_driver_that_died_is_not_printed_as_the_driver(sweeps: Command, tmp_path: Path) -> None:
    made_at(tmp_path / "results")
    with Store(tmp_path / "results") as store, store.database.write() as connection:
        row = {"sweep": "small", "token": "t", "host": "h", "machine": "m", "pid": 1, "started_s": 1.0}
        connection.execute(sa.insert(holders).values(**row, since="2026-01-01", beat_s=1.0))
    assert "driver: process" not in sweeps("status", "small").out


def test_a_store_that_mlflow_s_url_could_not_name_is_refused(sweeps: Command, file: Path) -> None:
    answer = sweeps("run", "small.yaml", "--store", "what?")
    assert answer.status == 2 and "has ?, # or % in it" in answer.err
    assert not Path("what?").exists()


def test_labels_with_brackets_are_printed_as_they_are(sweeps: Command, file: Path) -> None:
    label = "[red] U[/a]"
    file.write_text(FILE.replace("[linear, relu]", f'[{{name: nau, label: "{label}"}}, linear]'))
    assert f"(in cell model={label})" in sweeps("check", "small.yaml").err


def test_every_verb_has_help(sweeps: Command) -> None:
    listed = sweeps("--help")
    assert listed.status == 0
    for verb in {command.name or str(command.callback.__name__) for command in app.registered_commands}:
        assert f"  {verb} " in listed.out
        answer = sweeps(verb, "--help")
        assert answer.status == 0 and f"Usage: sweeps {verb}" in answer.out
