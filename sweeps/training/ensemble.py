"""Several trained lanes evaluated as one model: the outputs of all, averaged (Kaiser and Sutskever 2016, section 4).

Legend of suffixes: B rows, n positions, S symbols.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from sweeps.training.looped import LoopedEvaluation
from sweeps.training.settings import Built
from sweeps.training.state import from_bytes, initial_state, stacked, tensors_of
from sweeps.training.step import LaneFunctions


class Ensemble:
    """Trained lanes of one configuration. The average is that of softmaxes, as in the published code.

    `built` are the configuration's objects, `floats` its float settings (`sweeps.training.settings.float_leaves`), and
    `states` the lanes' final states. Raises ValueError for a task whose outputs are not logits of symbols, and for a state
    of other settings.
    """

    def __init__(self, built: Built, floats: Mapping[str, float], states: Sequence[bytes], compiled: bool = True) -> None:
        self.task = built.task
        if not self.task.reads_symbols:
            raise ValueError(
                f"outputs can be averaged where they are logits of symbols, but those of {type(self.task).__name__} are numbers"
            )
        self._device = torch.device("cpu")
        initial = initial_state(built, 0, self._device)
        self._members = [stacked([from_bytes(state, initial)[0]]) for state in states]
        self._floats = {path: torch.full((1,), value) for path, value in floats.items()}
        functions = LaneFunctions(built, frozenset())
        self._evaluation = LoopedEvaluation(functions, compiled, inputs_shared=True)

    def measure(self, length: int, on_progress: Callable[[str], None] = lambda line: None) -> list[dict[str, float]]:
        """Return `error`, the task's scores and `rows` at a length: of every member, then of their average.

        The test set is the lanes' own. Raises ValueError for a length that the task does not have.
        """
        x = self.task.curve_inputs(length)
        inputs = tensors_of(x, self._device)
        targets = tensors_of(self.task.truth(x, 0), self._device)

        def evaluated(logits_BnS: tuple[Tensor, ...]) -> dict[str, float]:
            values = {"error": self.task.error(logits_BnS, targets)}
            values |= self.task.scores("at", logits_BnS, targets)
            return {name: float(value) for name, value in values.items()} | {"rows": float(len(x[0]))}

        rows: list[dict[str, float]] = []
        total: tuple[Tensor, ...] | None = None
        for number, member in enumerate(self._members, start=1):
            on_progress(f"length {length}: member {number} of {len(self._members)}")
            stacked_logits = self._evaluation.outputs(member["params"], member["memory"], self._floats, inputs)
            logits = tuple(y[0] for y in stacked_logits)
            rows.append(evaluated(logits))
            probabilities = tuple(y.softmax(dim=-1) for y in logits)
            total = probabilities if total is None else tuple(map(torch.add, total, probabilities))
        if total is None:
            raise ValueError("an ensemble has at least one member")
        rows.append(evaluated(tuple(summed.log() for summed in total)))
        return rows
