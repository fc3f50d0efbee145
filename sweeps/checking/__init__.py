"""The public checker of models and tasks: what `sweeps check model|task NAME` does, and what the tests call."""

from sweeps.checking.checker import check_model, check_task
from sweeps.checking.findings import Fault, Report

__all__ = ["Fault", "Report", "check_model", "check_task"]
