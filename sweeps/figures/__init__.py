"""What came out of a sweep, drawn: against the step, the length, or an axis of the sweep.

    write(draw(store, ["dngpu-binary-multiplication"], x="length"), Path("length.svg"))

The records alone decide what is drawn. Of a cell that was searched, its best configuration.
"""

from sweeps.figures.drawing import draw, write
from sweeps.figures.series import FigureError

__all__ = ["FigureError", "draw", "write"]
