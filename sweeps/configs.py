"""One `Config` from a mapping: checked, every fault at once, and made explicit. A `Config` alone spells its fields."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from sweeps import catalog

MOST_CHOICES = 64
"""How many ways to mend misspelt words are tried in search of other faults."""


@dataclass(frozen=True)
class Fault:
    """Something wrong (or to be warned of) at a dotted path of the settings."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


def section(
    cls: type[Any], given: Mapping[str, Any], path: str, steps: float | None, also: set[str] | None = None
) -> tuple[dict[str, Any] | None, list[Fault]]:
    """(plain explicit values, faults) of one Config from a mapping; the values are None where there is a fault.

    `steps` is what a share such as 40% is of; `also` names settings that others have, for the advice.
    """
    if not isinstance(given, Mapping):
        return None, [Fault(path, f"must be a mapping, but got {given!r}")]
    faults = [*_unknown(cls, given, path, also or set()), *_not_finite(given, path)]
    given = {key: value for key, value in given.items() if not any(_not_finite(value, ""))}
    known = _steps_from_shares(cls, _without_unknown(cls, given), path, steps, faults)
    try:
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(validated(cls, known))))
    except ValidationError as error:
        told = {fault.path for fault in faults}
        found = dict.fromkeys(_fault(e, path, cls, given) for e in error.errors())
        wrong = {str(e["loc"][0]) for e in error.errors() if e["loc"]}
        if wrong:
            found |= dict.fromkeys(Fault(path, message) for message in _besides(cls, known, wrong))
        return None, faults + [fault for fault in found if fault.path not in told]
    return (None, faults) if faults else (plain, [])


def validated(cls: type[Any], given: Mapping[str, Any]) -> Any:
    """An instance of a Config. Raises pydantic's ValidationError."""
    # Strict JSON mode: a list is a tuple and an int a float, but text is no number and a bool neither.
    return _adapter(cls).validate_json(json.dumps(_integral(given)), strict=True)


_ADAPTERS: dict[type[Any], TypeAdapter[Any]] = {}


def _adapter(cls: type[Any]) -> TypeAdapter[Any]:
    if cls not in _ADAPTERS:
        _ADAPTERS[cls] = TypeAdapter(cls)
    return _ADAPTERS[cls]


def _integral(value: Any) -> Any:
    """1e6 may stand where an int is asked for; every float field takes an int."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, Mapping):
        return {k: _integral(v) for k, v in value.items()}
    return [_integral(v) for v in value] if isinstance(value, list | tuple) else value


def _fault(error: Any, path: str, cls: type[Any], given: Mapping[str, Any]) -> Fault:
    name = str(error["loc"][0]) if error["loc"] else ""
    forms = get_args(fields_of(cls).get(name))
    if forms and all(get_origin(form) is tuple for form in forms):  # pydantic tells of each form in turn
        allowed = " or ".join(_form(form) for form in forms)
        return Fault(f"{path}.{name}", f"must be {allowed}, but got {given.get(name)!r}")
    where = ".".join(
        [path, *(str(p) for p in error["loc"] if not str(p).startswith(("tuple[", "float", "function-")))]
    )
    if error["type"] == "missing":
        return Fault(where, "is missing")
    if error["type"] == "value_error":
        return Fault(where, str(error["ctx"]["error"]))
    if error["type"] == "literal_error":
        known = [word for word in get_args(fields_of(cls).get(name)) if isinstance(word, str)]
        near = catalog.nearest(str(error["input"]), known)
        allowed = error["ctx"]["expected"]
        return Fault(
            where,
            f"must be {allowed}, but got {error['input']!r}" + (f". Did you mean {near!r}?" if near else ""),
        )
    return Fault(where, f"{error['msg'][0].lower() + error['msg'][1:]}, but got {error['input']!r}")


def _besides(cls: type[Any], known: Mapping[str, Any], wrong: set[str]) -> list[str]:
    """What is wrong with the other settings, whatever the `wrong` ones should have been.

    A Config looks at its own rules only where every value has the right type. So it is made with each word that a wrong
    setting may be, or with its default, and what all of these complain of is told.
    """
    fields = fields_of(cls)
    words = [
        [(key, word) for word in get_args(fields[key]) if isinstance(word, str)]
        for key in wrong & set(fields)
    ]
    rest = {key: value for key, value in known.items() if key not in wrong}
    seen: list[dict[str, None]] = []
    for choice in itertools.islice(itertools.product(*(some for some in words if some)), MOST_CHOICES):
        try:
            validated(cls, {**rest, **dict(choice)})
        except ValidationError as error:
            own = [e["ctx"]["error"] for e in error.errors() if not e["loc"] and e["type"] == "value_error"]
            seen.append(dict.fromkeys(message for text in own for message in str(text).split("; ")))
        else:
            return []
    return [message for message in (seen[0] if seen else ()) if all(message in others for others in seen)]


def _form(hint: Any) -> str:
    """`[number, number]` of a tuple of two floats."""
    parts = ", ".join(_form(part) for part in get_args(hint))
    return f"[{parts}]" if get_origin(hint) is tuple else "number"


def fields_of(cls: type[Any]) -> dict[str, Any]:
    """Field -> its type, annotations included."""
    hints = get_type_hints(cls, include_extras=True)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls)}


def _unknown(cls: type[Any], given: Mapping[str, Any], path: str, also: set[str]) -> Iterator[Fault]:
    fields = fields_of(cls)
    for key, value in given.items():
        if key not in fields:
            near = catalog.nearest(str(key), [*fields, *also])
            yield Fault(
                f"{path}.{key}",
                "is not a setting here." + (f" Did you mean {near!r}?" if near else "")
                + f" Known: {', '.join(sorted([*fields, *also])) or 'none'}.",
            )  # fmt: skip
        elif dataclasses.is_dataclass(fields[key]) and isinstance(value, Mapping):
            yield from _unknown(fields[key], value, f"{path}.{key}", set())


def _not_finite(value: Any, path: str) -> Iterator[Fault]:
    if isinstance(value, float) and not math.isfinite(value):
        yield Fault(path, f"must be a finite number, but got {value}")
    elif isinstance(value, Mapping | list | tuple):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, item in items:
            yield from _not_finite(item, f"{path}.{key}")


def _without_unknown(cls: type[Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The rest is checked all the same, so that every fault is told at once."""
    fields = fields_of(cls)
    return {
        key: _without_unknown(fields[key], value)
        if dataclasses.is_dataclass(fields[key]) and isinstance(value, Mapping)
        else value
        for key, value in given.items()
        if key in fields
    }


def _steps_from_shares(
    cls: type[Any], given: Mapping[str, Any], path: str, steps: float | None, faults: list[Fault]
) -> dict[str, Any]:
    """Turns "40%" into steps, in fields annotated as Steps only."""
    result = dict(given)
    for key, hint in fields_of(cls).items():
        value = result.get(key)
        if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
            result[key] = _steps_from_shares(_as_class(hint), value, f"{path}.{key}", steps, faults)
        elif get_origin(hint) is Annotated and "steps" in get_args(hint) and isinstance(value, str):
            try:
                share = float(value.strip().removesuffix("%")) / 100 if value.strip().endswith("%") else None
            except ValueError:
                share = None
            if share is None or steps is None:
                faults.append(
                    Fault(
                        f"{path}.{key}",
                        f"must be steps or a share of train.steps such as 40%, but got {value!r}",
                    )
                )
            else:
                result[key] = share * steps
    return result


def _as_class(hint: Any) -> type[Any]:
    result: type[Any] = hint
    return result
