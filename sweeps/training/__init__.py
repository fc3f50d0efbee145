"""The engine: many lanes in one process. Torch only; what is imported here is the one door to it."""

from sweeps.training.lane import Lane, LaneResult
from sweeps.training.lane_floats import float_leaves, structure
from sweeps.training.outcome import Curve, Verdict, judge
from sweeps.training.pack import LEAST_SLOTS, Pack

__all__ = [
    "LEAST_SLOTS",
    "Curve",
    "Lane",
    "LaneResult",
    "Pack",
    "Verdict",
    "float_leaves",
    "judge",
    "structure",
]
