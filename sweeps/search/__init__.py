"""The search of a cell: which configuration is tried next. The only package that imports optuna.

samplers.py    the samplers by name, with their options
cell.py        the search of one cell: history in, suggestion out
study.py       Optuna's study of one cell, brought up to date with a history
stopping.py    early stopping: racing over seeds, successive halving over steps
"""

from sweeps.search.cell import CellSearch, Finished, Suggestion, count_different, file_values
from sweeps.search.samplers import SAMPLERS, check_sampler, is_grid
from sweeps.search.stopping import cannot_decide

__all__ = [
    "SAMPLERS",
    "CellSearch",
    "Finished",
    "Suggestion",
    "cannot_decide",
    "check_sampler",
    "count_different",
    "file_values",
    "is_grid",
]
