"""The checker of models: each fault is caught under the right rule and at the right line, and nothing else is blamed."""

from __future__ import annotations

from pathlib import Path

import pytest
from definitions import assert_caught, before, checked, faults_of, line_of, written

from sweeps.checking import check_model, checker
from sweeps.cli.define import TEMPLATES

INITIALISE = "self.weight.copy_(stream.uniform(self.weight.shape, -r, r))"
FORWARD = 'return (self.effective_weight() @ x_BI.T).T, {"sparsity": nau_sparsity(self.weight)}'
PARAMETER = "self.weight = nn.Parameter(torch.empty(num_outputs, num_inputs))"
IMPORT = "import torch\nfrom torch import Tensor, nn\n"


TEMPLATE = (TEMPLATES / "model.txt").read_text(encoding="utf-8")
DOCSTRING = TEMPLATE[TEMPLATE.index('    """y = x W') : TEMPLATE.index("    version = 1")], ""


# What is changed, the rule that is broken, a piece of the line to blame, and a piece of the message.
FAULTS = {
    "torch's generator in initialise":
        ([(INITIALISE, "self.weight.copy_(r * (2 * torch.rand(self.weight.shape) - 1))")],
         checker.GLOBAL, "torch.rand(", "draws from torch's rand"),
    "nn.init in initialise":
        ([(INITIALISE, "nn.init.xavier_uniform_(self.weight)")],
         checker.GLOBAL, "nn.init.xavier", "draws from torch's uniform_"),
    "NumPy's generator in initialise":
        ([(IMPORT, "import numpy as np\n" + IMPORT), before(INITIALISE, "r = r * np.random.uniform(0.9, 1)")],
         checker.GLOBAL, "np.random.uniform", "draws from NumPy's global generator"),
    "Python's generator, imported by name":
        ([("import math\n", "import math\nfrom random import gauss\n"), before(INITIALISE, "r = r + 0 * gauss(0, 1)")],
         checker.GLOBAL, "0 * gauss(", "draws from Python's random module"),
    "torch.randn in forward":
        ([before(FORWARD, "x_BI = x_BI + 0.1 * torch.randn_like(x_BI)")],
         checker.GLOBAL, "randn_like", "draws from torch's randn_like"),
    "torch's dropout in forward":
        ([before(FORWARD, "x_BI = nn.functional.dropout(x_BI, 0.1)")],
         checker.GLOBAL, "functional.dropout", "draws from torch's"),
    "a global generator in a branch that the defaults do not take":
        ([before(FORWARD, "if self.config.bound == 7.0:\n            x_BI = torch.randn(x_BI.shape)")],
         checker.GLOBAL, "torch.randn(", "torch.randn() draws from a generator that all lanes share"),
    "a branch on data":
        ([before(FORWARD, "if x_BI.sum() > 0:\n            x_BI = 2 * x_BI")],
         checker.BLIND, "if x_BI.sum() > 0", "a branch on (or bool() of) a tensor reads a value"),
    ".item()":
        ([before(FORWARD, "x_BI = x_BI / x_BI.abs().max().item()"), ("version = 1", "mixes_rows = True\n    version = 1")],
         checker.BLIND, "max().item()", ".item() reads a value"),
    ".tolist()":
        ([before(FORWARD, "scale = max(self.weight.tolist()[0])")],
         checker.BLIND, ".tolist()", ".tolist() reads a value"),
    "an index by a mask":
        ([before(FORWARD, "penalty = self.weight[self.weight > 0].sum()")],
         checker.BLIND, "self.weight > 0", "an index by a mask reads a value"),
    "print in forward":
        ([before(FORWARD, 'print("forward", x_BI.shape)')], checker.SILENT, "print(", "forward calls print"),
    "logging in forward":
        ([("import math\n", "import logging\nimport math\n"),
          before(FORWARD, 'logging.getLogger(__name__).warning("hm")')], checker.SILENT, 'warning("hm")', "logging"),
    "a warning in forward":
        ([("import math\n", "import math\nimport warnings\n"), before(FORWARD, 'warnings.warn("hm", stacklevel=2)')],
         checker.SILENT, 'warnings.warn("hm"', "warnings.warn"),
    "x changed in place":
        ([before(FORWARD, "x_BI *= 2")], checker.PURE, "x_BI *= 2", "forward changes x in place"),
    "a parameter changed in forward":
        ([before(FORWARD, "self.weight.data.mul_(0.9)")], checker.PURE, "data.mul_", "changes parameter first.weight in place"),
    "an attribute that remembers":
        ([before(FORWARD, "self.last = x_BI.mean()")], checker.PURE, "self.last =", "forward changes attribute first.last"),
    "a list of the module that remembers":
        ([("class MyModel", "SEEN = []\n\n\nclass MyModel"), before(FORWARD, "SEEN.append(x_BI.mean().detach())")],
         checker.PURE, "SEEN.append", "forward changes module variable SEEN"),
    "a mean over lanes, remembered in the module":
        ([("class MyModel", "MEAN = [0.0]\n\n\nclass MyModel"),
          before(FORWARD, "MEAN[0] = 0.9 * MEAN[0] + x_BI.mean().detach()"),
          ("@ x_BI.T)", "@ (x_BI.T - MEAN[0]))")], checker.PURE, "MEAN[0] = 0.9", "forward changes module variable MEAN"),
    "a parameter that is left out of initialise":
        ([(PARAMETER, PARAMETER + "\n        self.bias = nn.Parameter(torch.empty(num_outputs))"),
          ("@ x_BI.T).T,", "@ x_BI.T).T + self.bias,")], checker.INITIALISES, "self.bias = nn", "leaves first.bias as it was"),
    "a weight that is computed once, in the constructor":
        ([(PARAMETER, PARAMETER + "\n        self.W = torch.tanh(torch.nan_to_num(self.weight))"),
          ("(self.effective_weight() @", "(self.W @")], checker.LEARNS, "self.W = torch.tanh", "first.weight never receives"),
    "a parameter that is not used":
        ([(PARAMETER, PARAMETER + "\n        self.gate = nn.Parameter(torch.empty(num_outputs))"),
          (INITIALISE, INITIALISE + "\n        self.gate.zero_()")],
         checker.LEARNS, "self.gate = nn", "first.gate never receives a gradient, so it never learns"),
    "a parameter behind detach":
        ([("self.effective_weight() @ x_BI.T", "self.effective_weight().detach() @ x_BI.T")],
         checker.LEARNS, "self.weight = nn.Parameter", "first.weight never receives a gradient"),
    "rows that mix":
        ([before(FORWARD, "x_BI = x_BI - x_BI.mean(0)")], checker.ROWS, "def forward", "row 0 alone gives another y"),
    "the wrong shape of y":
        ([("(self.effective_weight() @ x_BI.T).T", "self.effective_weight() @ x_BI.T")],
         checker.BUILDS, "def forward", "y has shape [1, 5] instead of [5, 1]"),
    "a penalty that is a vector":
        ([("nau_sparsity(self.weight)}", "self.weight.abs()}")], checker.BUILDS, "def forward",
         "penalty 'sparsity' has shape [1, 10] instead of []"),
    "float64":
        ([("@ x_BI.T).T", "@ x_BI.T).T.double()")], checker.BUILDS, "def forward", "y is torch.float64"),
    "an effective weight of another shape":
        ([("return torch.clamp(self.weight, -self.config.bound, self.config.bound)",
           "return self.weight.clamp(-1.0, 1.0).sum(0)"), ("self.effective_weight() @", "self.weight @"),
          ("copy_(self.effective_weight())", "clamp_(-1.0, 1.0)")],
         checker.BUILDS, "def effective_weight", "effective_weight() has shape [10] instead of [1, 10]"),
    "a draw in evaluation":
        ([before(FORWARD, "x_BI = x_BI + 0.1 * ctx.stream.normal(x_BI.shape)")], checker.EVALUATES, "def forward",
         "y in evaluation depends on what is drawn"),
    "seeds that are all alike":
        ([(INITIALISE, "self.weight.fill_(r / 2)")], checker.INITIALISES, "def initialise",
         "two seeds start with the same weights"),
    "a square root at 0":
        ([before(FORWARD, "x_BI = x_BI + torch.sqrt((self.weight - self.weight).sum())")], checker.LEARNS, "def forward",
         "the gradient of first.weight is not finite"),
    "a logarithm of 0":
        ([before(FORWARD, "x_BI = torch.log(x_BI - x_BI)")], checker.BUILDS, "def forward", "y is not finite"),
    "constrain that shrinks again and again":
        ([("self.weight.copy_(self.effective_weight())",
           "self.weight.sub_(0.1 * self.weight * (self.weight.abs() > 1))")],
         checker.CONSTRAINS, "def constrain", "a second constrain changes first.weight again"),
    "a start outside of the bounds":
        ([("r = min(self.config.bound / 2,", "r = 3 * max(self.config.bound / 2,")],
         checker.CONSTRAINS, "def constrain", "constrain changes a fresh first.weight"),
    "a Python function of a setting that is a lane's own":
        ([before(FORWARD, "x_BI = x_BI * math.sqrt(self.config.bound)")],
         checker.RECORDS, "math.sqrt(self", "reads a tensor's value"),
    "a branch on a setting that is a lane's own":
        ([before(FORWARD, "if self.config.bound > 3:\n            x_BI = 2 * x_BI")],
         checker.RECORDS, "if self.config.bound > 3", "reads a tensor's value"),
    "a tensor that the constructor made":
        ([(PARAMETER, PARAMETER + "\n        self.ones = torch.ones(num_inputs)"),
          ("@ x_BI.T)", "@ (x_BI * self.ones).T)")], checker.RECORDS, "x_BI * self.ones", "a tensor that the constructor made"),
    "no docstring":
        ([DOCSTRING],
         checker.DOCUMENTED, "class MyModel", "class MyModel has no docstring"),
    "a version that is text":
        ([("version = 1", 'version = "1"')], checker.DECLARES, "version =", "version = '1'"),
    "a Config that thaws":
        ([("@dataclass(frozen=True, kw_only=True)", "@dataclass(kw_only=True)")],
         checker.DECLARES, "class Config", "Config is not frozen"),
    "a Config by position":
        ([("@dataclass(frozen=True, kw_only=True)", "@dataclass(frozen=True)")],
         checker.DECLARES, "class Config", "not keyword-only"),
    "a setting without an explanation":
        ([('        """largest magnitude of a weight"""\n', "")],
         checker.DOCUMENTED, "bound: float = 1.0", "setting bound has no explanation"),
    "no version":
        ([("version = 1", "edition = 1")], checker.LOADS, "class MyModel", "is not a model: it lacks version"),
    "no effective weight":
        ([("def effective_weight", "def weight_in_effect")], checker.LOADS, "class MyModel", "it lacks effective_weight"),
    "another base class":
        ([("class MyModel(Unit)", "class MyModel(nn.Module)")], checker.LOADS, "class MyModel",
         "class MyModel must subclass arith_models.base.Unit, or arith_models.base.Network"),
    "a syntax error":
        ([("version = 1", "version = = 1")], checker.LOADS, "version = = 1", "SyntaxError: invalid syntax: `version = = 1"),
    "an import that fails":
        ([("import math\n", "import math\nimport no_such_library\n")], checker.LOADS, "import no_such_library",
         "ModuleNotFoundError: No module named 'no_such_library'"),
    "an exception in forward":
        ([before(FORWARD, "x_BI = x_BI @ self.wait")], checker.BUILDS, "@ self.wait", "has no attribute 'wait'"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_caught_under_its_rule_and_at_its_line(tmp_path: Path, fault: str) -> None:
    changes, rule, fragment, said = FAULTS[fault]
    report = assert_caught(written(tmp_path, "model", *changes), rule, fragment, said)
    assert not report.sound and all(f.do for found in report.broken.values() for f in found)


ALONE = [
    "torch.randn in forward", "a branch on data", ".item()", "print in forward", "x changed in place", "rows that mix",
    "a parameter that is not used", "a mean over lanes, remembered in the module", "no docstring",
    "a branch on a setting that is a lane's own", "constrain that shrinks again and again",
]  # fmt: skip


@pytest.mark.parametrize("fault", ALONE)
def test_one_fault_breaks_one_rule_and_blames_one_line(tmp_path: Path, fault: str) -> None:
    report = checked(written(tmp_path, "model", *FAULTS[fault][0]))
    assert len(faults_of(report)) == 1, report.text()


MIXES = """class Centred(torch.autograd.Function):
    @staticmethod
    def forward(x):
        return x.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, grad):
        return grad

    @staticmethod
    def vmap(info, in_dims, x):
        return x - 0.1 * x.mean(in_dims[0], keepdim=True), in_dims[0]


class MyModel"""


def test_a_rule_for_vmap_that_takes_a_mean_over_lanes_is_caught_there(tmp_path: Path) -> None:
    y = "(self.effective_weight() @ x_BI.T).T"
    path = written(tmp_path, "model", ("class MyModel", MIXES), (y, f"Centred.apply({y})"))
    report = checked(path)
    assert checker.APART in report.broken, report.text()
    assert {line for rule, line, _ in faults_of(report) if rule == checker.APART} == {line_of(path, "def vmap")}


def test_a_report_names_the_line_the_rule_the_finding_and_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, "model", *FAULTS["print in forward"][0])
    monkeypatch.chdir(tmp_path)
    text = checked(path).text()
    line = line_of(path, "print(")
    assert (
        "FAULT  it neither prints nor logs\n"
        f'       my_model.py:{line}: print("forward", x_BI.shape)\n'
        "       found: forward calls print\n"
        "       do: remove it: the engine records the code once"
    ) in text
    assert text.splitlines()[-1] == f"model {path} is not sound: 15 rules kept, 1 broken"
    assert "ok     every parameter learns" in text


def test_a_rule_that_cannot_be_checked_is_named(tmp_path: Path) -> None:
    text = checked(written(tmp_path, "model", *FAULTS["a branch on data"][0])).text()
    assert '-      lanes do not mix: not checked, because of "it does not read tensors\' values"' in text


def test_a_unit_of_the_user_s_own_is_only_warned_of_a_missing_paper(tmp_path: Path) -> None:
    change = ('Name the paper and its section, as in: A and B, "Title" (2020), section 2. ', "")
    report = checked(written(tmp_path, "model", change))
    assert report.sound
    assert [f.found for f in report.warnings] == ["the docstring has no paper with its year"]
    assert "warn   " in report.text()


def test_rows_may_mix_where_the_unit_declares_it(tmp_path: Path) -> None:
    changes = [*FAULTS["rows that mix"][0], ("version = 1", "mixes_rows = True\n    version = 1")]
    assert checked(written(tmp_path, "model", *changes)).sound


def test_noise_from_the_stream_is_allowed(tmp_path: Path) -> None:
    noise = before(FORWARD, "x_BI = x_BI + 0.1 * ctx.training * ctx.stream.normal(x_BI.shape) * (1 + ctx.step)")
    report = checked(written(tmp_path, "model", noise))
    assert report.sound, report.text()


def test_every_choice_of_a_setting_is_checked(tmp_path: Path) -> None:
    changes = [
        ('        bound: float = 1.0\n', '        noisy: bool = False\n        """hm"""\n        bound: float = 1.0\n'),
        before(FORWARD, "if self.config.noisy and x_BI.sum() > 0:\n            x_BI = 2 * x_BI"),
    ]  # fmt: skip
    path = written(tmp_path, "model", *changes)
    assert (checker.BLIND, line_of(path, "self.config.noisy and")) in [t[:2] for t in faults_of(checked(path))]


def test_a_check_leaves_the_global_generators_as_they_were(tmp_path: Path) -> None:
    import torch

    path = written(tmp_path, "model")
    torch.manual_seed(3)
    state = torch.get_rng_state()
    assert check_model(str(path)).sound
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("part", ["import", "__init__", "forward"])
def test_a_definition_that_exits_is_broken_and_the_command_goes_on(tmp_path: Path, part: str) -> None:
    edit = {
        "import": ("class MyModel", "import sys\n\nsys.exit(3)\n\n\nclass MyModel"),
        "__init__": before("self.config = config", "raise SystemExit(3)"),
        "forward": before(FORWARD, "raise SystemExit(3)"),
    }[part]
    path = written(tmp_path, "model", edit)
    text = check_model(str(path), last=checker.BUILDS).text()
    line = line_of(path, "raise SystemExit" if part != "import" else "sys.exit")
    assert "it calls sys.exit(3)" in text and f"{path.name}" in text, text
    assert f":{line}: " in text or f"(line {line})" in text, text
