"""`sweeps ensemble`: errors of the trained seeds of a configuration, and of one model that averages their outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sweeps.config.settings import build, float_leaves
from sweeps.errors import StoreError, UserError
from sweeps.results.export import best_configuration
from sweeps.results.metrics import SYMBOL_ERRORS
from sweeps.results.numbers import number
from sweeps.store import Store
from sweeps.training.numerics import Numerics

COLUMNS = tuple(share.name for share in reversed(SYMBOL_ERRORS))


def ensemble_table(
    store: Store,
    name: str,
    cell: str | None = None,
    lengths: Sequence[int] = (),
    on_progress: Callable[[str], None] = lambda line: None,
) -> str:
    """Return a Markdown table of the errors of each seed and of their average, by length, on the lanes' own test sets.

    `lengths` defaults to the task's `curve_lengths`, or its test length if it has none. Raises UserError where no
    configuration is complete, for fewer than 2 trained seeds, for a task without logits of symbols, and for a length that
    the task does not have; StoreError for an unknown sweep.
    """
    from sweeps.training.ensemble import Ensemble

    best = best_configuration(store, name, cell)
    settings = best.configuration.settings
    stored = {record.seed: store.state(record.key, record.budget) for record in best.results}
    states = {seed: state for seed, state in stored.items() if state is not None}
    if len(states) < 2:
        raise UserError(f"an average needs at least 2 trained seeds, but {name} has {len(states)}")
    task = settings["task"]
    built = build(settings)
    if not built.task.reads_symbols:
        raise UserError(f"outputs can be averaged where they are logits of symbols, but task {task['name']} has numbers")
    chosen = list(lengths or task["curve_lengths"] or [task["test_length"]])
    for length in chosen:  # checked before any is measured, which takes minutes
        try:
            built.task.curve_inputs(length)
        except ValueError as error:
            raise UserError(f"length {length} of sweep {name}: {error}") from error
    row = store.sweep(name)
    compiled = Numerics.parse(row.numerics).compiled if row and row.numerics else Numerics.here("cpu").compiled
    try:
        ensemble = Ensemble(built, float_leaves(settings), list(states.values()), compiled)
    except ValueError as error:
        raise StoreError(f"store {store.location}: the final states of sweep {name} cannot be used: {error}") from error
    columns = [*(f"seed {seed}" for seed in states), f"average of {len(states)}"]
    lines = [
        "| length | sequences | wrong | " + " | ".join(columns) + " |",
        "|---" * (len(columns) + 3) + "|",
    ]
    for length in chosen:
        rows = ensemble.measure(length, on_progress)
        for column in COLUMNS:
            what = column.removesuffix("_error") + "s"
            errors = " | ".join(number(row[column]) for row in rows)
            lines.append(f"| {length} | {rows[0]['rows']:.0f} | {what} | {errors} |")
    return "\n".join(lines)
