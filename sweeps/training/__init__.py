"""The engine: many lanes in one process. Torch only; what is imported here is the one door to it."""

from sweeps.training.context import Context
from sweeps.training.ensemble import Ensemble
from sweeps.training.lane import Lane, LaneResult
from sweeps.training.lane_floats import float_leaves, structure
from sweeps.training.outcome import Curve, Verdict, judge
from sweeps.training.pack import LEAST_SLOTS, Pack
from sweeps.training.random import Stream, seed_key

__all__ = [
    "LEAST_SLOTS",
    "Context",
    "Curve",
    "Ensemble",
    "Lane",
    "LaneResult",
    "Pack",
    "Stream",
    "Verdict",
    "float_leaves",
    "judge",
    "seed_key",
    "structure",
]
