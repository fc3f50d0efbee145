"""`sweeps ensemble`: the trained seeds of a configuration judged one by one, and as one model whose outputs are averaged."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from sweeps.errors import UserError
from sweeps.results.export import best_configuration
from sweeps.results.metrics import SYMBOL_ERRORS
from sweeps.results.numbers import number
from sweeps.store import Store

COLUMNS = tuple(share.name for share in reversed(SYMBOL_ERRORS))


def ensemble_table(
    store: Store,
    name: str,
    cell: str | None = None,
    lengths: Sequence[int] = (),
    tell: Callable[[str], None] = lambda line: None,
) -> str:
    """A Markdown table: for every length the errors of each seed and of their average, on the lanes' own test sets.

    `lengths`: those of the task's `curve_lengths`, or its test length, where none are given. Raises ExportError where no
    configuration is complete, StoreError for an unknown sweep, and ValueError for a task without logits of symbols and for
    a length that it does not have.
    """
    from sweeps.training.ensemble import Ensemble

    best = best_configuration(store, name, cell)
    settings = best.configuration.settings
    kept = {record.seed: store.state(record.key, record.budget) for record in best.results}
    states = {seed: state for seed, state in kept.items() if state is not None}
    if len(states) < 2:
        raise UserError(f"an average needs at least 2 trained seeds, but {name} has {len(states)}")
    compiled = os.environ.get("SWEEPS_COMPILE", "1") != "0"
    ensemble = Ensemble(settings, list(states.values()), compiled)
    task = settings["task"]
    heads = [*(f"seed {seed}" for seed in states), f"average of {len(states)}"]
    chosen = list(lengths or task["curve_lengths"] or [task["test_length"]])
    for length in chosen:  # the first ones take minutes: a wrong last one is told before
        ensemble.task.curve_inputs(length)
    lines = ["| length | sequences | wrong | " + " | ".join(heads) + " |", "|---" * (len(heads) + 3) + "|"]
    for length in chosen:
        rows = ensemble.measure(length, tell)
        for column in COLUMNS:
            what = column.removesuffix("_error") + "s"
            errors = " | ".join(number(row[column]) for row in rows)
            lines.append(f"| {length} | {rows[0]['rows']:.0f} | {what} | {errors} |")
    return "\n".join(lines)
