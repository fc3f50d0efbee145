"""The checker of tasks on symbols: a sound one passes, each fault is caught under the right rule and at the right line."""

from __future__ import annotations

from pathlib import Path

import pytest
from definitions import assert_caught, checked

from sweeps.checking import check_task, checker
from sweeps.checking.declaration import variants
from sweeps.config import registry
from tasks.algorithm import Algorithm

LEAST = "the exact target has the least loss"
FIXED, TRUTH = "evaluation inputs are fixed", "truth agrees with the training targets"

TASK = '''"""Sequences the other way round."""

from dataclasses import dataclass

import numpy as np
import torch

from tasks.base import Task

LENGTHS = {"interpolation": (4, 6), "extrapolation": (20,)}


class Reversed(Task):
    """y = x from the last symbol to the first.

    Two examples worked by hand, with x = 1 2: y = 2 1, with x = 1 1 2: y = 2 1 1.
    """

    version = 1
    network = "two_layer"
    reads_symbols = True
    splits = ("interpolation", "extrapolation")
    num_inputs = num_outputs = 3
    bins = (5, 6)

    @dataclass(frozen=True, kw_only=True)
    class Config:
        bound: float = 0.1
        """solved is an error below this"""

    def sample(self, stream, instance, batch):
        drawn = [stream.integers((batch, n), 1, 3) for n in (4, 6)]
        x = torch.nn.functional.pad(drawn[0], (0, 1), value=-1), drawn[1]
        return x, (torch.nn.functional.pad(drawn[0].flip(1), (0, 1)), drawn[1].flip(1))

    def evaluation_inputs(self, split):
        rng = np.random.RandomState(5)
        return tuple(rng.randint(1, 3, (9, n)) for n in LENGTHS[split])

    def truth(self, x, seed):
        def row(symbols):
            inside = [s for s in symbols if s != -1]
            return inside[::-1] + [0] * (len(symbols) - len(inside))

        return tuple(np.array([row(symbols) for symbols in rows.tolist()]) for rows in x)

    def loss(self, y, target):
        parts = [torch.nn.functional.cross_entropy(a.movedim(2, 1), t) for a, t in zip(y, target)]
        return torch.stack(parts).mean()

    def error(self, y, target):
        wrong = [(a.argmax(2) != t).any(1) for a, t in zip(y, target)]
        return torch.cat(wrong).float().mean()

    def threshold(self):
        return self.config.bound
'''

FAULTS = {
    "x of one tensor": ("return x, (torch", "return x[0], (torch", checker.BUILDS, "def sample", "x has shapes Tensor"),
    "bins in another order": ("bins = (5, 6)", "bins = (5, 7)", checker.BUILDS, "def sample", "instead of [[16, 5], [16, 7]]"),
    "symbols as floats":
        ("return x, (torch", "return (x[0], x[1].float()), (torch", checker.BUILDS, "def sample",
         "x of bin 6 is torch.float32"),
    "a symbol too many": ("(batch, n), 1, 3)", "(batch, n), 1, 4)", checker.BUILDS, "def sample", "has symbols from"),
    "padding that is not marked":
        ("(0, 1), value=-1)", "(0, 1), value=0)", checker.BUILDS, "def sample", "x of bin 5 is not -1 exactly where"),
    "one array in a split":
        ("return tuple(rng.randint(1, 3, (9, n)) for n in LENGTHS[split])", "return rng.randint(1, 3, (9, 20))", FIXED,
         "def evaluation_inputs", "interpolation has shapes ndarray"),
    "a split with strange symbols":
        ("rng.randint(1, 3, (9, n))", "rng.randint(1, 9, (9, n))", FIXED, "def evaluation_inputs", "has symbols from 1 to 8"),
    "a split of fractions":
        ("rng.randint(1, 3, (9, n))", "rng.uniform(1, 2, (9, n))", FIXED, "def evaluation_inputs", "interpolation is float64"),
    "inputs that are drawn anew":
        ("np.random.RandomState(5)", "np.random.RandomState()", FIXED, "def evaluation_inputs", "two calls give different"),
    "a truth that is another rule": ("inside[::-1]", "inside", TRUTH, "def truth", "has the target"),
    "a truth of one bin": ("for rows in x)", "for rows in x[:1])", TRUTH, "def truth", "truth has 1 arrays, the target 2"),
    "a truth that changes its inputs":
        ("return tuple(np.array(", "given = x[0]\n        x = tuple(rows.copy() for rows in x)\n        given[:] = 1\n"
         "        return tuple(np.array(",
         TRUTH, "def truth", "changes the inputs"),
    "a loss that grows with certainty":
        ("return torch.stack(parts).mean()", "return -torch.stack(parts).mean()", LEAST, "def loss",
         "the loss of wrong symbols"),
    "an error that is always 0":
        ("return torch.cat(wrong).float().mean()", "return 0 * torch.cat(wrong).float().mean()", LEAST, "def error",
         "the error of wrong symbols is 0"),
    "an error for each row":
        ("return torch.cat(wrong).float().mean()", "return torch.cat(wrong).float()", LEAST, "def error",
         "the error of the exact target is"),
    "an error that reads a value":
        ("return torch.cat(wrong).float().mean()", "return torch.tensor(float(torch.cat(wrong).sum().item()))", checker.BLIND,
         "return torch.tensor(float(", "error: .item()"),
}  # fmt: skip


def made(folder: Path, old: str = "", new: str = "") -> Path:
    path = folder / "my_task.py"
    assert old in TASK
    path.write_text(TASK.replace(old, new, 1))
    registry.clear_cache()
    return path


def test_a_sound_task_on_symbols_keeps_every_rule_on_the_way_to_the_engine(tmp_path: Path) -> None:
    report = checked(made(tmp_path), last="the threshold is a number, or None, within seconds")
    assert report.sound, report.text()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_a_task_on_symbols_is_caught_under_its_rule_and_at_its_line(tmp_path: Path, fault: str) -> None:
    old, new, rule, fragment, said = FAULTS[fault]
    report = assert_caught(made(tmp_path, old, new), rule, fragment, said)
    assert not report.sound


def test_every_operation_is_looked_at_with_small_settings() -> None:
    labels = [v.label for v in variants(Algorithm)]
    assert len([label for label in labels if "operation" in label]) == 14  # and multiply, the default
    assert " with high_zeros: stripped" in labels and " with padding_counts: False" in labels
    assert variants(Algorithm)[0].config == Algorithm.Config()
    assert {v.config.bins for v in variants(Algorithm)[1:]} == {Algorithm.small["bins"]}


@pytest.mark.parametrize("rule", [checker.BUILDS, FIXED, TRUTH, LEAST])
def test_a_rule_that_is_broken_for_one_operation_names_it(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """sort, of which every part is made wrong in turn."""

    def only_sort(method: str, wrong):
        right = getattr(Algorithm, method)
        monkeypatch.setattr(
            Algorithm, method,
            lambda self, *a: wrong(right(self, *a)) if self.config.operation == "sort" else right(self, *a),
        )  # fmt: skip

    if rule == checker.BUILDS:
        only_sort("sample", lambda batch: (batch[0], batch[1][:1]))
    elif rule == FIXED:
        only_sort("evaluation_inputs", lambda found: tuple(a + 9 for a in found))
    elif rule == TRUTH:
        only_sort("truth", lambda found: tuple(a[:, ::-1] for a in found))
    else:
        only_sort("error", lambda error: 1 - error)
    report = check_task("algorithm", last=rule)
    assert all("with operation: sort" in fault.found for fault in report.broken[rule]), report.text()
