"""Which line changes something: a snapshot is taken at every line of a definition's files and compared with the last."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Mapping
from types import FrameType, ModuleType, TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sweeps.checking.places import Place, Sources, real

Snapshot = Callable[[], Mapping[str, Any]]
GENERATORS = {
    "torch's global generator": lambda: torch.get_rng_state().numpy().tobytes(),
    "NumPy's global generator": lambda: _numpy_state(),
    "Python's random module": random.getstate,
}


def _numpy_state() -> tuple[bytes, Any]:
    # A model must not draw from this generator: only its state, read before and after, shows that it did not.
    state: Any = np.random.get_state(legacy=False)  # noqa: NPY002  nothing newer tells has_gauss
    return state["state"]["key"].tobytes(), (state["state"]["pos"], state["has_gauss"], state["gauss"])


def generators() -> dict[str, Any]:
    """The state of every global generator."""
    return {name: state() for name, state in GENERATORS.items()}


def traces(model: nn.Module, sources: Sources) -> dict[str, Any]:
    """What code could leave behind: attributes of a model and its parts, variables of its class and its modules."""
    found: dict[str, Any] = {}
    for path, part in model.named_modules():
        for name, value in vars(part).items():
            if name not in ("_parameters", "_buffers", "_modules"):
                found[f"attribute {path + '.' if path else ''}{name}"] = _mark(value)
    for cls in sources.cls.__mro__:
        module = sys.modules.get(cls.__module__)
        if module is not None and real(getattr(module, "__file__", None) or "") in sources.files:
            found |= {f"class variable {n}": _mark(v) for n, v in vars(cls).items()}
            found |= {f"module variable {n}": _mark(v) for n, v in vars(module).items()}
    return found


def _mark(value: Any) -> Any:
    """Equal as long as nobody has changed or replaced the value."""
    if isinstance(value, bool | int | float | str | None):
        return repr(value)
    if isinstance(value, Tensor):
        return id(value), value._version
    if isinstance(value, dict):
        return id(value), len(value), tuple(map(id, value.values())) if len(value) < 100 else None
    if isinstance(value, list | set):
        return id(value), len(value), tuple(map(id, value)) if len(value) < 100 else None
    return id(value) if not isinstance(value, ModuleType) else None


class Tracer:
    """While it is entered, `changes` grows by (name, line) of whatever in the snapshot changes."""

    def __init__(self, sources: Sources, snapshot: Snapshot) -> None:
        self.changes: list[tuple[str, Place | None]] = []
        self.busy = False  # while a snapshot is taken, which itself looks at tensors
        self._files = frozenset(sources.files)
        self._snapshot, self._seen = snapshot, dict(snapshot())
        self._at: Place | None = None

    def __enter__(self) -> Tracer:
        self._before = sys.gettrace()
        sys.settrace(self._call)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: Any, trace: TracebackType | None) -> None:
        sys.settrace(self._before)
        self._compare()

    def _call(self, frame: FrameType, event: str, argument: Any) -> Any:
        return self._line if real(frame.f_code.co_filename) in self._files else None

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        self._compare()
        self._at = Place(real(frame.f_code.co_filename), frame.f_lineno)
        caller = frame.f_back
        if event == "return" and caller is not None and real(caller.f_code.co_filename) in self._files:
            self._at = Place(real(caller.f_code.co_filename), caller.f_lineno)
        return self._line

    def _compare(self) -> None:
        self.busy = True
        try:
            now = dict(self._snapshot())
        finally:
            self.busy = False
        for name, value in now.items():
            if self._seen.get(name) != value and name not in [known for known, _ in self.changes]:
                self.changes.append((name, self._at))
        self._seen = now
