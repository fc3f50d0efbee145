"""The checker of tasks: each fault is caught under the right rule and at the right line."""

from __future__ import annotations

from pathlib import Path

import pytest
from definitions import assert_caught, checked, faults_of, written

from sweeps.checking import checker

SAMPLE = "x_BI = stream.uniform((batch, self.num_inputs), *self.config.interpolation)"
COMBINED = "return x_BI, (first_B * second_B).unsqueeze(1)"
PAIR = "i, j = np.random.RandomState(seed).permutation(self.num_inputs)[:2]"
INPUTS = "return np.random.RandomState(EVALUATION_SEEDS[split]).uniform("
LOSS = "return torch.square(y_BO - target_BO).mean()"
NAMED = "splits, network, inputs and outputs are named"
INSTANCE, FIXED = "the instance depends on the seed alone", "evaluation inputs are fixed"
TRUTH, LEAST = "truth agrees with the training targets", "the exact target has the least loss"
SCORES = "its scores are those that it names"
SCORED = "    def scores(self, split, y_BO, target_BO):\n        return {'off': torch.abs(y_BO - target_BO).mean()}\n\n"
THRESHOLD = "the threshold is a number, or None, within seconds"

FAULTS = {
    "an instance from NumPy's own generator":
        ([(PAIR, "i, j = np.random.permutation(self.num_inputs)[:2]")], checker.GLOBAL, "np.random.permutation",
         "NumPy's global generator"),
    "an instance that changes from call to call":
        ([(PAIR, "i, j = np.random.permutation(self.num_inputs)[:2]")], INSTANCE, "def instance", "two calls with seed"),
    "an instance whose shape depends on the seed":
        ([("np.zeros((2, self.num_inputs), np.float32)", "np.zeros((2, self.num_inputs + seed % 2), np.float32)")],
         INSTANCE, "def instance", "masks is float32 [2, 5] for seed 12345, float32 [2, 4]"),
    "a sample from torch's own generator":
        ([(SAMPLE, "x_BI = torch.rand(batch, self.num_inputs) + 1")], checker.GLOBAL, "torch.rand(", "draws from torch's rand"),
    "a sample that is always the same":
        ([(SAMPLE, "x_BI = torch.ones(batch, self.num_inputs)")], checker.BUILDS, "def sample", "two streams give the same"),
    "a target of the wrong shape":
        ([("(first_B * second_B).unsqueeze(1)", "first_B * second_B")], checker.BUILDS, "def sample",
         "target has shape [16] instead of [16, 1]"),
    "a sample in float64":
        ([(COMBINED, "return x_BI.double(), (first_B * second_B).unsqueeze(1)")], checker.BUILDS, "def sample",
         "x is torch.float64"),
    "a branch on the batch":
        ([(COMBINED, f"if x_BI.max() > 3:\n            x_BI = -x_BI\n        {COMBINED}")], checker.BLIND,
         "if x_BI.max() > 3", "a branch on (or bool() of) a tensor"),
    "print in sample":
        ([(COMBINED, f"print(x_BI)\n        {COMBINED}")], checker.BLIND, "print(x_BI)", "sample calls print"),
    "a branch on a range that is a lane's own":
        ([(COMBINED, f"if self.config.interpolation[1] > 50:\n            x_BI = -x_BI\n        {COMBINED}")],
         checker.RECORDS, "if self.config.interpolation[1]", "reads a tensor's value"),
    "evaluation inputs that are drawn anew":
        ([(INPUTS, "return np.random.default_rng().uniform(")], FIXED, "def evaluation_inputs", "two calls give different"),
    "a split that does not exist":
        ([('splits = ("interpolation", "extrapolation")', 'splits = ("interpolation", "beyond")')], FIXED,
         "low, high = getattr(self.config, split)\n", "has no attribute 'beyond'"),
    "no splits": ([('splits = ("interpolation", "extrapolation")', "splits = ()")], NAMED, "splits = ()", "splits = ()"),
    "an unknown network":
        ([('network = "two_layer"', 'network = "two_layers"')], NAMED, 'network = "two_layers"', "Did you mean 'two_layer'?"),
    "a truth that is another rule":
        ([("x_BI[:, [i]] * x_BI[:, [j]]", "x_BI[:, [i]] + x_BI[:, [j]]")], TRUTH, "def truth", "has the target"),
    "a truth that changes its inputs":
        ([("product: Floats = x_BI[:, [i]] * x_BI[:, [j]]",
           "product: Floats = x_BI[:, [i]] * x_BI[:, [j]]\n        x_BI += 1")], TRUTH, "def truth", "changes the inputs"),
    "a loss that is least elsewhere":
        ([(LOSS, "return torch.square(y_BO - target_BO - 1).mean()")], LEAST, "def loss", "has a smaller loss"),
    "a loss for each row":
        ([(LOSS, "return torch.square(y_BO - target_BO)")], LEAST, "def loss", "the loss of the exact target is"),
    "scores without their names":
        ([("    def threshold", SCORED + "    def threshold")], SCORES, "def scores", "score_names = (), but scores returns"),
    "a score for each row":
        ([("    def threshold", SCORED.replace(".mean()", "") + "    def threshold"),
          ("version = 1", 'score_names = ("off",)\n    version = 1')], SCORES, "def scores", "score off has shape [16, 1]"),
    "a threshold of 0": ([("return 1e-6", "return 0.0")], THRESHOLD, "def threshold", "threshold() is 0.0"),
    "a threshold that is not a number":
        ([("return 1e-6", 'return float("nan")')], THRESHOLD, "def threshold", "threshold() is nan"),
    "a threshold that differs":
        ([("return 1e-6", "return float(np.random.default_rng().uniform(1, 2))")], THRESHOLD, "def threshold",
         "two calls of threshold() differ"),
    "no version": ([("version = 1", "edition = 1")], checker.LOADS, "class MyTask", "it lacks version"),
    "a syntax error":
        ([("num_outputs = 1", "num_outputs = = 1")], checker.LOADS, "num_outputs = = 1", "SyntaxError: invalid syntax"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_a_task_is_caught_under_its_rule_and_at_its_line(tmp_path: Path, fault: str) -> None:
    changes, rule, fragment, said = FAULTS[fault]
    report = assert_caught(written(tmp_path, "task", *changes), rule, fragment, said)
    assert not report.sound


def test_a_task_without_a_threshold_is_sound(tmp_path: Path) -> None:
    report = checked(written(tmp_path, "task", ("return 1e-6", "return None")))
    assert report.sound, report.text()


def test_a_task_whose_every_batch_is_all_there_is_declares_it(tmp_path: Path) -> None:
    """x is 5 fixed rows whatever the batch."""
    changes = [(SAMPLE, "x_BI = 1 + torch.arange(5 * self.num_inputs).reshape(5, self.num_inputs) / 99")]
    report = checked(written(tmp_path, "task", *changes))
    assert {found for _, _, found in faults_of(report)} >= {"x has shape [5, 4] instead of [16, 4]"}
    changes.append(("version = 1", "full_batch = True\n    version = 1"))
    report = checked(written(tmp_path, "task", *changes))
    assert report.sound, report.text()


def test_a_task_without_worked_examples_is_warned_of(tmp_path: Path) -> None:
    change = ("Two examples worked by hand", "The rule")
    report = checked(written(tmp_path, "task", change), last=checker.DOCUMENTED)
    assert report.sound
    assert [f.found for f in report.warnings] == ["the docstring has no two examples"]
