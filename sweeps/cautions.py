"""What sound settings may say that nobody means: warned of, never refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sweeps import catalog
from sweeps.configs import Fault, validated


def cautions(resolved: Mapping[str, Any]) -> Iterator[Fault]:
    """Warnings about one lane's explicit settings."""
    train, settings = resolved["train"], dict(resolved["task"])
    yield from _late_schedules(resolved["model"], "model", train["steps"])
    cls: Any = catalog.find("task", settings.pop("name"))
    task = cls(validated(cls.Config, settings))
    if train["stop"] == "solved" and _never_solved(task):
        yield Fault(
            "train.stop",
            f"task {resolved['task']['name']} has no threshold at these settings, so no lane is ever solved: "
            "every lane trains to the end, as with stop: never",
        )
    for message in task.cautions() if hasattr(task, "cautions") else ():
        yield Fault("task", message)


def _never_solved(task: Any) -> bool:
    """Whether there is no threshold. A method that promises a float is not called: it may take seconds."""
    promised = getattr(task.threshold, "__annotations__", {}).get("return")
    return promised not in ("float", float) and task.threshold() is None


def _late_schedules(node: Any, path: str, steps: int) -> Iterator[Fault]:
    if not isinstance(node, Mapping):
        return
    start, weight = node.get("start"), node.get("weight")
    if isinstance(start, float) and weight and start >= steps:
        yield Fault(
            f"{path}.start",
            f"the penalty starts at step {start:g}, but training ends at {steps}: it never acts",
        )
    for key, value in node.items():
        yield from _late_schedules(value, f"{path}.{key}", steps)
