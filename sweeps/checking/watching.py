"""Runs a definition's code and notes, with its line, whatever it does that it must not.

Drawing from torch's generator, looking at a tensor's value and writing into what it was given are seen by torch's own
modes; printing, logging and opening files by what stands in for them meanwhile; every other trace (NumPy's and Python's
generators, attributes, module variables) by comparing before and after each line.
"""

from __future__ import annotations

import builtins
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from sweeps.checking.places import Place, Sources, place_of_stack
from sweeps.checking.tracing import Snapshot, Tracer

Kind = Literal["random", "value", "write", "speak", "trace"]
LOOKS = {
    "item", "tolist", "numpy", "__bool__", "__float__", "__int__", "__index__", "__array__", "__complex__", "equal",
    "allclose", "nonzero", "unique",
}  # fmt: skip


@dataclass(frozen=True)
class Event:
    """Something that was done: its kind, what it was, and the line of the definition, if it has one."""

    kind: Kind
    what: str
    place: Place | None


@contextmanager
def watched(
    sources: Sources, given: dict[str, Tensor] | None = None, snapshot: Snapshot | None = None
) -> Iterator[list[Event]]:
    """Collects events. `given` names tensors that must not be written into, `snapshot` is compared line by line."""
    events: list[Event] = []
    tracer = Tracer(sources, snapshot or dict)

    def note(kind: Kind, what: str) -> None:
        if tracer.busy:
            return
        event = Event(kind, what, place_of_stack(sys._getframe(1), sources))
        if event.place is not None and event not in events:
            events.append(event)

    with ExitStack() as stack:
        stack.enter_context(_speechless(note))
        stack.enter_context(_Operations(note, given or {}))
        stack.enter_context(_Looks(note))
        with tracer:
            yield events
    events += [Event("trace", name, place) for name, place in tracer.changes]


Note = Callable[[Kind, str], None]


class _Looks(TorchFunctionMode):
    """Methods of tensors that turn a value into Python's; some of them reach no operation."""

    def __init__(self, note: Note) -> None:
        super().__init__()
        self.note = note

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in LOOKS:
            self.note("value", _spoken(name))
        return func(*args, **(kwargs or {}))


class _Operations(TorchDispatchMode):
    """Operations by what torch itself says of them: draws, depends on values, writes in place."""

    def __init__(self, note: Note, given: dict[str, Tensor]) -> None:
        super().__init__()
        self.note = note
        self.given = {t.untyped_storage().data_ptr(): name for name, t in given.items()}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if torch.Tag.nondeterministic_seeded in func.tags:
            self.note("random", f"torch's {name}")
        if torch.Tag.data_dependent_output in func.tags and name != "_local_scalar_dense":
            self.note("value", f"{name}()")
        if torch.Tag.dynamic_output_shape in func.tags and (name != "index" or _masks(args)):
            self.note("value", "an index by a mask" if name == "index" else f"{name}()")
        if func._schema.is_mutable:
            for argument, spec in zip(args, func._schema.arguments, strict=False):
                if isinstance(argument, Tensor) and spec.alias_info is not None and spec.alias_info.is_write:
                    written = self.given.get(argument.untyped_storage().data_ptr())
                    if written is not None:
                        self.note("write", written)
        return func(*args, **(kwargs or {}))


def _masks(args: Any) -> bool:
    indices = args[1] if len(args) > 1 else ()
    return any(isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8) for i in indices)


def _spoken(name: str) -> str:
    words = {"__bool__": "a branch on (or bool() of)", "__float__": "float() of", "__int__": "int() of",
             "__index__": "an index by", "__array__": "a NumPy array of", "__complex__": "complex() of"}  # fmt: skip
    return f"{words[name]} a tensor" if name in words else f".{name}()"


class _Mouth:
    """Stands in for standard output and error."""

    def __init__(self, note: Note) -> None:
        self.note = note

    def write(self, text: str) -> int:
        self.note("speak", "print")
        return len(text)

    def flush(self) -> None: ...


@contextmanager
def _speechless(note: Note) -> Iterator[None]:
    """Nothing is printed, logged, warned of or opened without being noted. Torch's own warnings are not the unit's."""
    opened = builtins.open

    def opens(file: Any, *rest: Any, **options: Any) -> Any:
        if _from_definition():
            note("speak", "open")
        return opened(file, *rest, **options)

    def logs(self: Any, record: Any) -> None:
        note("speak", "logging")

    def warns(*_: Any, **__: Any) -> None:
        if _from_definition():
            note("speak", "warnings.warn")

    def asks(*_: Any) -> str:
        note("speak", "input")
        return ""

    with ExitStack() as stack:
        mouth = _Mouth(note)
        for target, name, value in (
            (sys, "stdout", mouth), (sys, "stderr", mouth), (builtins, "open", opens), (builtins, "input", asks),
            (logging.Logger, "handle", logs), (warnings, "warn", warns),
        ):  # fmt: skip
            stack.enter_context(mock.patch.object(target, name, value))
        yield


def _from_definition() -> bool:
    """Whether the caller of what stands in is not a library at work for itself."""
    caller = sys._getframe(2).f_code.co_filename
    return "torch" not in caller.split("/") and not caller.startswith("<frozen")
