"""What a definition declares, before any of it is run: version, Config, docstrings, and calls that it must not make."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Iterator
from typing import Any

from sweeps.checking.findings import Fault
from sweeps.checking.places import Place
from sweeps.checking.source_scan import scanned
from sweeps.field_docs import field_docs


def declares(subject: Any) -> Iterator[Fault]:
    """`version` is an int; `Config` is a frozen, keyword-only dataclass whose fields have defaults and explanations."""
    cls, sources = subject.cls, subject.sources
    if not isinstance(cls.version, int) or isinstance(cls.version, bool) or cls.version < 1:
        yield Fault(
            f"version = {cls.version!r}",
            "make it a whole number from 1; raise it when the numbers change",
            sources.of_class_attribute("version"),
        )
    here = _of_config(subject)
    config: Any = cls.Config
    if "__dataclass_params__" not in vars(config):
        yield Fault("Config is no dataclass", "write @dataclass(frozen=True, kw_only=True) above it", here)
        return
    if not config.__dataclass_params__.frozen:
        yield Fault(
            "Config is not frozen", "write @dataclass(frozen=True, kw_only=True): settings never change", here
        )
    if any(not f.kw_only for f in dataclasses.fields(config)):
        yield Fault(
            "Config's fields are not keyword-only", "write @dataclass(frozen=True, kw_only=True)", here
        )
    yield from _fields(subject, here)


def _fields(subject: Any, here: Place) -> Iterator[Fault]:
    docs = {doc.name: doc for doc in field_docs(subject.cls.Config)}
    for field in dataclasses.fields(subject.cls.Config):
        doc = docs.get(field.name)
        place = Place(doc.file, doc.line) if doc else here
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            yield Fault(f"setting {field.name} has no default", "give it the published value", place)
        if doc is None or not doc.text:
            yield Fault(
                f"setting {field.name} has no explanation",
                'write a line of text, """...""", under it: `sweeps show` prints it',
                place,
                warning=subject.kind == "task",
            )


def _of_config(subject: Any) -> Place:
    place: Place = subject.sources.of_method("Config")
    return place


def documented(subject: Any) -> Iterator[Fault]:
    """A docstring with the equation, the shapes and the source. A user's own unit may lack the latter, with a warning."""
    cls = subject.cls
    module = sys.modules[cls.__module__].__doc__ or ""
    place = subject.sources.of_class()
    if not (cls.__doc__ or "").strip():
        yield Fault(
            f"class {cls.__name__} has no docstring",
            "say in one what it computes; `sweeps show` prints it",
            place,
        )
        return
    text = f"{module} {cls.__doc__}"
    own = not subject.shipped
    if not module.strip():
        yield Fault(
            "the file has no docstring", "say in its first line what it is; `sweeps list` prints it",
            Place(subject.sources.own, 1), warning=own,
        )  # fmt: skip
    for pattern, what, do in subject.docstring_needs:
        if not re.search(pattern, text):
            yield Fault(f"the docstring has no {what}", do, place, warning=own or subject.kind == "task")


UNIT_DOCSTRING = (
    (r"Shapes:", "shapes", "write a line such as: Shapes: x [B, I] -> y [B, O]; W [O, I]"),
    (r"\b(y(_o)?|h') = ", "equation", "write it as: y = ..."),
    (r"\((?:19|20)\d\d\)|\([A-Z][A-Za-z]+ (?:19|20)\d\d\)", "paper with its year", "name paper and section"),
)  # fmt: skip
TASK_DOCSTRING = ((r"(?is)example.*=.*=", "two examples", "work two of them by hand: x = 1 2 3, y = 6"),)


def draws_nothing_global(subject: Any) -> Iterator[Fault]:
    """Also in branches that the default settings do not take: what the source calls."""
    for place, what in scanned(subject.sources, "random"):
        yield Fault(f"{what} draws from a generator that all lanes share", subject.instead_of_random, place)


def says_nothing(subject: Any) -> Iterator[Fault]:
    for place, what in scanned(subject.sources, "speak"):
        yield Fault(f"calls {what}", SILENCE, place)


SILENCE = (
    "remove it: the engine records the code once and replays only its tensor operations; what is to be seen belongs "
    "into the returned penalties"
)
