"""The public checker of models and tasks: what `sweeps check model|task NAME` does, and what the tests call."""

from sweeps.checking.checker import Report, check_model, check_task
from sweeps.checking.source import Fault

__all__ = ["Fault", "Report", "check_model", "check_task"]
