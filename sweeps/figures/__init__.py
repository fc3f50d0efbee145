"""What came out of a sweep, drawn: against the step, the length, or an axis of the sweep.

    draw(store, ["dngpu-binary-multiplication"], x="length").savefig("length.svg")

The records alone decide what is drawn. Of a cell that was searched, its best configuration.
"""

from sweeps.figures.drawing import draw
from sweeps.figures.series import FigureError

__all__ = ["FigureError", "draw"]
