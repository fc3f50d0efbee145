"""`sweeps new` and `sweeps check model|task` as commands: what they write, refuse and print."""

from __future__ import annotations

import gc
import io
import logging
from pathlib import Path

import pytest
from commands import call
from definitions import line_of

from sweeps.cli.define import listing, summary_line

pytestmark = pytest.mark.usefixtures("folder")


@pytest.mark.parametrize(("template", "kind"), [("model", "model"), ("network", "model"), ("task", "task")])
def test_a_new_file_is_sound_and_the_printed_commands_work(template: str, kind: str) -> None:
    answer = call("new", template, "mine")
    assert answer.status == 0
    assert answer.out.startswith("wrote ./mine.py. Edit it, then:\n")
    check, show, run = (line.strip() for line in answer.out.splitlines()[1:])
    assert check == f"sweeps check {kind} ./mine.py" and show == f"sweeps show {kind} ./mine.py"
    checked = call(*check.split()[1:])
    assert checked.status == 0, checked.out
    assert checked.out.splitlines()[-1].startswith(f"{kind} ./mine.py is sound: ")
    assert not checked.err and "warn" not in checked.out and "FAULT" not in checked.out
    assert "settings:" in call(*show.split()[1:]).out
    as_file = call("check", *run.replace("--name mine", "name=mine").split()[2:])
    assert as_file.status == 0 and "1 cell, 20 lanes" in as_file.out, as_file.err


def test_a_class_of_an_installed_module_is_checked_too() -> None:
    answer = call("check", "model", "arith_models.units.nau_nmu:NAU")
    assert answer.status == 0
    assert "model arith_models.units.nau_nmu:NAU is sound" in answer.out


def test_new_writes_into_a_folder() -> None:
    Path("mine").mkdir()
    assert call("new", "model", "unit_a.py", "mine").status == 0
    assert [path.name for path in Path("mine").iterdir()] == ["unit_a.py"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["model", "My-Unit"], "'My-Unit' cannot be the name of a model: a name is lower-case letters, digits and _"),
        (["model", "My-Unit"], "Perhaps 'my_unit'?"),
        (["model", "2nau"], "Perhaps 'nau'?"),
        (["model", "a/b"], "cannot be the name of a model"),
        (["task", "lambda"], "'lambda' is a keyword of Python: take another, for instance 'my_lambda'"),
        (["model", "nau"], "'nau' is the name of a definition that exists already"),
        (["model", "mine", "nowhere"], "there is no folder nowhere"),
        (["network", "two_layer"], "'two_layer' is the name of a definition that exists already"),
        (["unit", "mine"], "'unit' is not one of"),
    ],
)  # fmt: skip
def test_new_refuses_a_bad_name_and_writes_nothing(folder: Path, arguments: list[str], said: str) -> None:
    answer = call("new", *arguments)
    assert answer.status == 2
    assert said in answer.err
    assert not list(folder.iterdir())


def test_new_overwrites_nothing() -> None:
    Path("mine.py").write_text("x = 1\n")
    answer = call("new", "model", "mine")
    assert answer.status == 2
    assert "mine.py exists and is not overwritten: take another name" in answer.err
    assert Path("mine.py").read_text() == "x = 1\n"


def test_an_unsound_model_has_status_2_and_its_fault_is_printed_with_its_line() -> None:
    call("new", "model", "mine")
    path = Path("mine.py")
    path.write_text(path.read_text().replace("        return (self.eff", "        print(x_BI)\n        return (self.eff"))
    answer = call("check", "model", "./mine.py")
    assert answer.status == 2
    assert f"       mine.py:{line_of(path, 'print(x_BI)')}: print(x_BI)\n       found: forward calls print\n" in answer.out


@pytest.mark.parametrize("kind", ["model", "task"])
def test_a_file_that_cannot_be_read_as_python_is_reported_with_its_line_and_text(kind: str) -> None:
    Path("mine.py").write_text("x = 1\ny = = 2\n")
    answer = call("check", kind, "./mine.py")
    assert answer.status == 2
    assert "       mine.py:2: y = = 2\n" in answer.out
    assert "mine.py (line 2): SyntaxError: invalid syntax: `y = = 2`" in answer.out


def test_a_model_that_was_repaired_is_sound_in_the_same_process() -> None:
    call("new", "model", "mine")
    path, text = Path("mine.py"), Path("mine.py").read_text()
    path.write_text(text.replace("version = 1", "version = = 1"))
    assert call("check", "model", "./mine.py").status == 2
    path.write_text(text)
    assert call("check", "model", "./mine.py").status == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["model"], "`sweeps check model NAME` needs one name: `sweeps list models` lists them"),
        (["task", "static", "nau"], "`sweeps check task NAME` needs one name"),
        (["model", "nua"], "no model named 'nua'. Did you mean 'nau'?"),
        (["model", "./nowhere.py"], "no file nowhere.py (looked in "),
        (["quickstart", "--compiled"], "--compiled is for models and tasks"),
    ],
)
def test_a_wrong_request_is_reported(arguments: list[str], said: str) -> None:
    answer = call("check", *arguments)
    assert answer.status == 2
    assert said in answer.err
    assert not answer.out


def test_settings_that_a_config_inherits_are_shown_with_their_flags_and_choices() -> None:
    shown = call("show", "model", "nmu").out
    for said in ("sparsity_penalty: RampedPenalty", "(--regualizer, --regualizer-scaling)", "hidden: int = 2",
                 "clamp: bool = True", "(--oob-mode)", "penalty: Literal['linear', 'squared'] = 'linear'"):  # fmt: skip
        assert said in shown


def test_a_task_without_a_threshold_is_shown() -> None:
    call("new", "task", "mine")
    path = Path("mine.py")
    path.write_text(path.read_text().replace("return 1e-6", "return None"))
    assert "solved: not defined" in call("show", "task", "./mine.py").out


def test_a_listing_has_the_first_line_of_every_class_or_else_of_its_file() -> None:
    assert summary_line("task", "static") == ("Find two overlapping subsets of the inputs, sum each, and combine the sums.")
    for kind in ("model", "task"):
        for name, line in listing(kind):
            assert line and not line.startswith("Shapes:"), (kind, name)
    Path("mine.py").write_text('"""Of the file."""\n\nfrom arith_models.base import Unit\n\n\nclass Mine(Unit):\n'
                               "    version = 1\n    initialise = forward = effective_weight = None\n")  # fmt: skip
    assert summary_line("model", "./mine.py") == "Of the file."


def test_what_a_unit_prints_is_shown_once_and_a_setting_without_a_docstring_hides_no_rule() -> None:
    call("new", "model", "mine")
    text = Path("mine.py").read_text()
    config = text[text.index("    class Config") : text.index("    def __init__")]
    bare = "\n".join(line for line in config.splitlines() if not line.strip().startswith('"""'))
    text = text.replace(config, bare + "\n\n").replace("        r = ", "        print('drawn')\n        r = ")
    text = text.replace(
        "        print('drawn')\n", "        print('drawn')\n        logging.getLogger('mine').error('logged')\n"
    )
    text = text.replace("import torch\n", "import logging\n\nimport torch\n\nprint('imported')\n", 1)
    Path("mine.py").write_text(text)
    own = logging.StreamHandler(io.StringIO())
    logging.root.addHandler(own)
    try:
        answer = call("check", "model", "./mine.py")
    finally:
        logging.root.removeHandler(own)
    assert own.stream.getvalue() == ""
    assert answer.status == 2
    first, *lines = answer.out.splitlines()
    assert first == "printed during the check, each line once:" and lines[:2] == ["  imported", "  drawn"]
    assert lines.count("  drawn") == lines.count("  imported") == sum(line.endswith("logged") for line in lines) == 1
    assert "FAULT  it is documented" in answer.out and "has no explanation" in answer.out
    assert "FAULT  it neither prints nor logs" in answer.out and "not checked" not in answer.out
    assert gc.isenabled()
