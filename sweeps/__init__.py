"""A distributed hyperparameter-sweep system for models that learn arithmetic and algorithms.

    import sweeps

    sweep = sweeps.run("quickstart")              # a file, a definition, YAML text or a dict
    sweep = sweeps.open("results")["quickstart"]  # one that was run before
    sweep.frame("seeds")                          # pandas
    module = sweep.load_model()                   # a plain torch module

See docs/python.md. Importing the package loads nothing: each name is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweeps.api import ConfigurationResults, SweepResults, Sweeps, compare, open, run  # noqa: F401
    from sweeps.errors import (
        ClusterError,
        StoreError,
        SweepFailed,
        SweepIncomplete,
        SweepsError,
        TrackingError,
        UserError,
    )
    from sweeps.models import TrainedModel, load_model

_HOMES = {
    "sweeps.api": ("ConfigurationResults", "SweepResults", "Sweeps", "compare", "open", "run"),
    "sweeps.errors": (
        "ClusterError", "StoreError", "SweepFailed", "SweepIncomplete", "SweepsError", "TrackingError", "UserError",
    ),
    "sweeps.models": ("TrainedModel", "load_model"),
}  # fmt: skip
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [  # without `open`: `from sweeps import *` must not hide Python's
    "ClusterError",
    "ConfigurationResults",
    "StoreError",
    "SweepFailed",
    "SweepIncomplete",
    "SweepResults",
    "Sweeps",
    "SweepsError",
    "TrackingError",
    "TrainedModel",
    "UserError",
    "compare",
    "load_model",
    "run",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'sweeps' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*(name for name in globals() if name.startswith("__")), *_HOME})
