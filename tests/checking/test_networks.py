"""Networks: shipped ones keep every rule, faults are found at their line, and a user's own is a model like any other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from commands import call
from definitions import assert_caught, before, checked, written
from lanes import PLAIN, resolved, train

from sweeps.checking import check_model, checker
from sweeps.config import registry
from sweeps.config.settings import build, lane_key, resolve
from sweeps.training.lane import Lane

pytestmark = pytest.mark.usefixtures("folder")

FORWARD = "h_BH = ctx.dropout(h_BH, self.config.dropout)"
RESULT = "return (self.second @ h_BH.T).T + self.second_bias, {}"
ARRANGER = '''"""One layer of a unit, twice as large."""

from arith_models.base import Network


class Doubled(Network):
    """y = 2 unit(x). Shapes: x [B, I] -> y [B, O]. From nowhere (2020)."""

    version = 1
    num_units = 1

    def __init__(self, config, units, num_inputs, num_outputs):
        super().__init__()
        self.unit = units[0](num_inputs, num_outputs)

    def initialise(self, stream):
        self.unit.initialise(stream)

    def forward(self, x, ctx):
        y, penalties = self.unit(x, ctx)
        return 2 * y, {}

    def effective_weights(self):
        return [self.unit.effective_weight()]

    def constrain(self):
        self.unit.constrain()
'''
SYMBOLS = '''"""Each symbol by itself."""

import torch

from arith_models.base import Network


class Positionwise(Network):
    """y = table[x] + b: logits of each position, whatever its neighbours are. Shapes: tuples of [B, n] -> of [B, n, O]."""

    version = 1
    num_units = 0
    reads_symbols = True

    def __init__(self, config, units, num_inputs, num_outputs):
        super().__init__()
        self.table = torch.nn.Parameter(torch.empty(num_inputs, num_outputs))

    def initialise(self, stream):
        self.table.copy_(stream.normal(self.table.shape))

    def forward(self, x, ctx):
        symbols = torch.arange(len(self.table), device=self.table.device)
        return tuple((bin.unsqueeze(-1) == symbols).float() @ self.table for bin in x), {}
'''


# What is changed, the rule that is broken, a piece of the line to blame, and a piece of the finding.
FAULTS = {
    "the wrong number of outputs":
        ([(RESULT, "return h_BH, {}")], checker.FITS, "def forward", "y has shape [5, 8] instead of [5, 1]"),
    "a tuple for numbers":
        ([(RESULT, "return (h_BH, h_BH), {}")], checker.FITS, "def forward", "y is a tuple of 2, but a tensor [5, 1] is"),
    "a penalty that is a vector":
        ([(RESULT, RESULT.replace("{}", '{"size": self.second.abs()}'))], checker.FITS, "def forward",
         "penalty 'size' has shape [1, 8] instead of []"),
    "defaults that it refuses":
        ([("hidden: int = 8", "hidden: int = 0")], checker.INITIALISES, "raise ValueError(f\"hidden",
         "hidden = 0 must be at least 1"),
    "a parameter that is left out of initialise":
        ([("        self.second_bias.zero_()\n", "")], checker.INITIALISES, "self.second_bias = nn",
         "leaves second_bias as it was"),
    "a draw in evaluation":
        ([(FORWARD, "h_BH = h_BH + ctx.stream.normal(h_BH.shape)")], checker.EVALUATES, "def forward",
         "depends on what is drawn"),
    "a parameter that is not used":
        ([(RESULT, "return (self.second @ h_BH.T).T, {}")], checker.LEARNS, "self.second_bias = nn",
         "never receives a gradient"),
    "a branch on a setting that is a lane's own":
        ([before(FORWARD, "if self.config.dropout > 0.5:\n            h_BH = -h_BH")],
         checker.RECORDS, "if self.config.dropout > 0.5", "reads a tensor's value"),
    "no docstring of shapes": ([("Shapes: x [B, I]", "x [B, I]")], checker.DOCUMENTED, "class MyNetwork", "no shapes"),
    "no num_units": ([("num_units = 0", "units = 0")], checker.LOADS, "class MyNetwork", "it lacks num_units"),
    "no forward": ([("def forward", "def backward")], checker.LOADS, "class MyNetwork", "it lacks forward"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_a_network_is_caught_under_its_rule_and_at_its_line(tmp_path: Path, fault: str) -> None:
    changes, rule, fragment, said = FAULTS[fault]
    assert_caught(written(tmp_path, "network", *changes), rule, fragment, said)


def test_a_network_that_reads_symbols_is_checked_on_a_task_on_symbols(folder: Path) -> None:
    (folder / "mine.py").write_text(SYMBOLS)
    report = check_model("./mine.py")
    assert report.sound, report.text()
    (folder / "mine.py").write_text(SYMBOLS.replace("return tuple(", "return list("))
    registry.clear_cache()
    report = check_model("./mine.py", last=checker.FITS)
    assert "y is a list, but a tuple of 2 is the target" in report.text()


def test_a_network_that_arranges_units_is_checked_with_units(folder: Path) -> None:
    (folder / "mine.py").write_text(ARRANGER)
    report = check_model("./mine.py")
    assert report.sound, report.text()


@pytest.mark.slow
def test_compiled_a_users_network_is_itself_alone_and_in_a_pack(folder: Path) -> None:
    written(folder, "network")
    assert checked(folder / "my_network.py", compiled=True).sound


def test_shown_and_listed() -> None:
    call("new", "network", "mine")
    shown = call("show", "model", "./mine.py").out
    assert "./mine.py is short for" in shown and 'network: "./mine.py"' in shown and "units: []" in shown
    assert "network ./mine.py (version 1" in shown and "number of hidden values" in shown
    shown = call("show", "model", "dngpu").out
    assert "dngpu is short for" in shown and "network dngpu (version" in shown and "settings:" in shown
    assert {"dngpu", "neural_gpu", "transformer", "lstm_attention"} <= set(call("list", "models", "--names").out.split())


def settings(model: object) -> dict[str, object]:
    task = {"name": "static", "input_size": 4, "subset_ratio": 0.5}
    return resolved(model, task, steps=300, batch=64, evaluate_every=100, lr=0.01)


def test_a_users_network_is_a_model_with_settings_and_learns(folder: Path) -> None:
    written(folder, "network")
    found = settings({"name": "./my_network.py", "hidden": 16, "dropout": 0.01})
    network = {"name": "./my_network.py", "network": "./my_network.py", "units": [], "hidden": 16, "dropout": 0.01}
    assert found["model"] == network
    (result,) = train([Lane("1", found, 1)]).values()
    errors = result.curve["error.interpolation"]
    assert len(errors) == 4 and errors[-1] < 0.1 * errors[0]


def test_the_address_of_a_lane_holds_the_source_of_a_users_network(folder: Path) -> None:
    path = written(folder, "network")
    first = lane_key(settings("./my_network.py"), 0, PLAIN)
    path.write_text(path.read_text().replace("torch.tanh(", "torch.sin("))
    registry.clear_cache()
    assert lane_key(settings("./my_network.py"), 0, PLAIN) != first


def test_a_users_network_that_arranges_units_is_named_beside_them(folder: Path) -> None:
    (folder / "mine.py").write_text(ARRANGER)
    model = build(settings({"name": "nau", "network": "./mine.py"})).model()
    assert type(model).__name__ == "Doubled" and type(model.unit).__name__ == "NAU"
    with torch.no_grad():
        model.unit.weight.fill_(0.5)
    assert [w.tolist() for w in model.effective_weights()] == [[[0.5] * 4]]
    _, faults, _ = resolve({"model": "./mine.py", "task": "static", "train": {"steps": 1}})
    assert "network ./mine.py arranges 1 unit: name a unit beside it" in str(faults[0])
    assert "`model: {name: nmu, network: ./mine.py}`" in str(faults[0])


def test_a_network_and_a_task_must_agree_on_symbols(folder: Path) -> None:
    written(folder, "network")
    _, faults, _ = resolve({"model": "./my_network.py", "task": "algorithm", "train": {"steps": 1}})
    assert "network ./my_network.py reads numbers, but task algorithm gives symbols" in str(faults[0])


def test_the_name_of_given_units_is_a_label_and_no_file() -> None:
    assert settings({"name": "mine:first", "units": ["nau", "nmu"]})["model"]["network"] == "two_layer"
