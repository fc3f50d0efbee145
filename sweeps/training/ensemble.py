"""Several trained lanes judged as one model: the outputs of all, averaged (Kaiser and Sutskever 2016, section 4).

Legend of suffixes: B rows, n positions, S symbols.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from sweeps.config.settings import build
from sweeps.training.checkpoint import from_bytes, stacked
from sweeps.training.looped import LoopedEvaluation
from sweeps.training.settings import float_leaves
from sweeps.training.step import LaneFunctions, tensors_of


class Ensemble:
    """Trained lanes of one configuration. The average is that of softmaxes, as in the published code.

    Raises ValueError for a task whose outputs are not logits of symbols, for a length that it does not have, and for a
    state that is not one of these settings.
    """

    def __init__(self, settings: dict[str, Any], states: Sequence[bytes], compiled: bool = True) -> None:
        self._built = build(settings)
        self.task = self._built.task
        if not self.task.reads_symbols:
            raise ValueError(
                f"outputs can be averaged where they are logits of symbols, but task {settings['task']['name']} has numbers"
            )
        self._device = torch.device("cpu")
        functions = LaneFunctions(self._built, frozenset())
        fresh = functions.initial(self._built, 0, self._device)
        self._members = [stacked([from_bytes(state, fresh)[0]]) for state in states]
        self._floats = {p: torch.full((1,), v) for p, v in float_leaves(settings).items()}
        self._evaluation = LoopedEvaluation(functions, compiled, inputs_shared=True)

    def measure(self, length: int, tell: Callable[[str], None] = lambda line: None) -> list[dict[str, float]]:
        """The error and the scores at a length: of every member, then of their average. The same test set as the lanes'."""
        x = self.task.curve_inputs(length)
        inputs = tensors_of(x, self._device)
        targets = tensors_of(self.task.truth(x, 0), self._device)
        rows, total = [], None
        for number, member in enumerate(self._members, start=1):
            tell(f"length {length}: member {number} of {len(self._members)}")
            logits = self._evaluation.outputs(member["params"], member["memory"], self._floats, inputs)
            logits = tuple(y[0] for y in logits)
            rows.append(self._scores(logits, targets, len(x[0])))
            shares = tuple(y.softmax(dim=-1) for y in logits)
            total = shares if total is None else pytree.tree_map(torch.add, total, shares)
        assert total is not None, "an ensemble has members"
        rows.append(self._scores(tuple(share.log() for share in total), targets, len(x[0])))
        return rows

    def _scores(self, logits_BnS: tuple[Tensor, ...], targets: Any, rows: int) -> dict[str, float]:
        error = {"error": float(self.task.error(logits_BnS, targets)), "rows": float(rows)}
        return error | {n: float(v) for n, v in self.task.scores("at", logits_BnS, targets).items()}
