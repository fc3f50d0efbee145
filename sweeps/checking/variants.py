"""The settings under which a definition is checked: all defaults, then each choice of each setting that has choices.

A definition that takes long at its defaults names `small` settings, which go with each choice.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class Variant:
    """A `Config`, and what tells it from the defaults ("" for these)."""

    label: str
    config: Any


def variants(cls: type[Any]) -> list[Variant]:
    """What the Config itself refuses is left out."""
    found = [Variant("", cls.Config())]
    hints, small = get_type_hints(cls.Config), getattr(cls, "small", {})
    usual = cls.Config(**small)
    for field in dataclasses.fields(cls.Config):
        for choice in _choices(hints[field.name]):
            try:
                config = cls.Config(**{**small, field.name: choice})
            except ValueError:
                continue
            if config not in (found[0].config, usual):
                found.append(Variant(f" with {field.name}: {choice}", config))
    return found


def _choices(hint: Any) -> Iterator[Any]:
    """The values that a setting may take, where these are few."""
    if hint is bool:
        yield from (False, True)
    elif get_origin(hint) is Literal:
        yield from get_args(hint)
    elif get_origin(hint) in (Union, types.UnionType):
        for part in get_args(hint):
            yield from [None] if part is type(None) else _choices(part)
