"""Which configuration a cell tries next. The only package that imports optuna.

samplers.py    the samplers by name, their options, and what is wrong with a sweep file's choice of them
axes.py        how one dimension of a space looks to Optuna
cell.py        the search of one cell: history in, suggestion out
"""

from sweeps.search.cell import CellSearch, Finished, Suggestion, file_values
from sweeps.search.samplers import check_sampler, sampler_names

__all__ = ["CellSearch", "Finished", "Suggestion", "check_sampler", "file_values", "sampler_names"]
