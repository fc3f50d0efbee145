"""The engine: many lanes in one process. Torch only; what is imported here is the one door to it."""

from sweeps.training.ensemble import Ensemble
from sweeps.training.lane import Curve, Lane, LaneResult, Verdict, judge
from sweeps.training.pack import LEAST_SLOTS, Pack
from sweeps.training.random import Stream, seed_key
from sweeps.training.settings import float_leaves, structure
from sweeps.training.step import Context

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
