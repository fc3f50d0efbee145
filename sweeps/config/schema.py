"""The sweep file described once more for editors and readers: a JSON schema, and a page with every key.

Both are made from the tables below, which have the keys that `sweep_file` reads (a test compares them), and from the Configs
of all models and tasks that ship with this project. The schema is draft 7, which editors know. It accepts every file that is
sound, and refuses unknown keys and wrong types; what depends on several keys at once is left to `sweeps check`.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

from sweeps.config import registry
from sweeps.config.registry import FieldDoc, field_docs
from sweeps.config.settings import fields_of
from sweeps.config.space import BOUNDS, KINDS, Confirm, Race, Search
from sweeps.config.sweep_file import (
    ANCHORS,
    FRACTION,
    MAX_SEED,
    MAX_SEEDS,
    NAME_RULE,
    PERCENTAGE,
    SWEEP_NAME,
    Resources,
)

if TYPE_CHECKING:
    from sweeps.search.samplers import Option

Schema = dict[str, Any]

REFERENCE = r"\.py$|:"
"""A class of the user's own: ./my_unit.py or my_pkg.units:Mine."""
_UNDERSCORES = r"^[-+]?[0-9][0-9_]*_[0-9_]*(\.[0-9]+)?$"
"""A number such as 3_000_000, which is text for an editor, and a number here."""
_LEAF = r"^(model|task)\.[^\s]+$"


@dataclass(frozen=True)
class Key:
    """One key of a section."""

    schema: Schema
    values: str
    """What it may be, for people."""
    meaning: str
    default: str = ""
    """As it would be written; empty: none."""
    required: bool = False
    inner: Mapping[str, Key] = field(default_factory=dict)
    """Keys of the mapping that it may be."""


def _ref(name: str) -> Schema:
    return {"$ref": f"#/definitions/{name.replace('~', '~0').replace('/', '~1')}"}


def _whole(low: int | None = None, high: int | None = None) -> Schema:
    bounds = ({} if low is None else {"minimum": low}) | ({} if high is None else {"maximum": high})
    return {"anyOf": [{"type": "integer", **bounds}, {"type": "string", "pattern": _UNDERSCORES}]}


def _number(**bounds: float) -> Schema:
    return {"anyOf": [{"type": "number", **bounds}, {"type": "string", "pattern": _UNDERSCORES}]}


def _nothing_or(schema: Schema) -> Schema:
    """Null too. As a list of types where possible: the message about a fault inside is then about that fault."""
    if schema.get("type") in ("object", "string"):
        return schema | {"type": [schema["type"], "null"]}
    return {"anyOf": [schema, {"type": "null"}]}


def _name_or_mapping(name: str, mapping: str, null: bool = False) -> Schema:
    """A name, or a mapping with `name`. Not `anyOf`, whose message about a fault in the mapping would be about the name."""
    otherwise = {"anyOf": [_ref(name), {"type": "null"}]} if null else _ref(name)
    return {"if": {"type": "object"}, "then": _ref(mapping), "else": otherwise}


def _object(name: str) -> Schema:
    """A definition of a mapping, which itself states no type."""
    return {"type": "object", "allOf": [_ref(name)]}


def _mapping(keys: Mapping[str, Key], **more: Any) -> Schema:
    found: Schema = {
        "type": "object",
        "additionalProperties": False,
        "properties": {name: {"description": key.meaning, "allOf": [key.schema]} for name, key in keys.items()},
    }
    required = [name for name, key in keys.items() if key.required]
    return found | ({"required": required} if required else {}) | more


# ------------------------------------------------------------------------------------------- the keys

_SEED_KEYS = {
    "first": Key(_whole(0, MAX_SEED), f"whole number, 0 to {MAX_SEED}", "The first seed.", "0"),
    "count": Key(
        _whole(1, MAX_SEEDS), f"whole number, 1 to {MAX_SEEDS:,}", "How many, each one more than the last.", required=True
    ),
}
_SEEDS: Schema = {
    "anyOf": [
        _whole(1, MAX_SEEDS),
        {"type": "array", "items": _whole(0, MAX_SEED), "minItems": 1, "uniqueItems": True},
        _mapping(_SEED_KEYS),
    ]
}
_SEED_FORMS = "a count, a list of seeds, or `{first: 0, count: 100}`"
_RISING: Schema = {"type": "array", "items": _whole(1), "minItems": 1, "uniqueItems": True}
_SHARE: Schema = {
    "anyOf": [
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
        {"type": "string", "pattern": f"^\\s*({FRACTION.pattern}|{PERCENTAGE.pattern})\\s*$"},
    ]
}

RESOURCES: Mapping[str, Key] = {
    "cpus": Key(_whole(1), "whole number", "CPU cores of one worker, which it uses as threads.", str(Resources.cpus)),
    "gpus": Key(
        _number(minimum=0, maximum=1), "0, 1, or a whole part such as 0.5",
        "GPUs of one worker. With a part, as many workers share a GPU.", "0",
    ),
    "memory_gb": Key(
        _nothing_or(_number(exclusiveMinimum=0)), "number", "Memory that one worker reserves; a cluster places workers by it."
    ),
    "slots": Key(
        {"anyOf": [{"const": "auto"}, _whole(1)]}, "`auto` or a whole number",
        "Lanes that a worker trains together. `auto`: by the device and the number of lanes.", "auto",
    ),
    "checkpoint_s": Key(
        _number(exclusiveMinimum=0), "number", "Seconds between checkpoints: the most work that is lost with a worker.",
        f"{Resources.checkpoint_s:g}",
    ),
}  # fmt: skip
TARGET: Mapping[str, Key] = {
    "success_rate": Key(
        _number(exclusiveMinimum=0, exclusiveMaximum=1), "number between 0 and 1",
        "A cell tries no further configuration once the lower end of the best one's 95 % interval is above it.", required=True,
    ),
}  # fmt: skip
BUDGET: Mapping[str, Key] = {
    "hours": Key(_nothing_or(_number(exclusiveMinimum=0)), "number", "Wall time, all runs of the sweep together."),
    "seed_steps": Key(_nothing_or(_whole(1)), "whole number", "Optimiser updates, all lanes of all runs together."),
    "cost_usd": Key(
        _nothing_or(_number(exclusiveMinimum=0)), "number",
        "Wall time times nodes times the cluster's `price_per_hour`, all runs together.",
    ),
    "failures": Key(
        _nothing_or({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": PERCENTAGE.pattern}]}),
        "a number of lanes, or a share such as `5%`", "A run stops when more lanes end in an error.",
    ),
    "target": Key(_nothing_or(_mapping(TARGET)), "mapping", "Ends the search of a cell early.", inner=TARGET),
}  # fmt: skip
RACE: Mapping[str, Key] = {
    "race": Key(
        _RISING, "rising whole numbers, such as `[10, 25, 50, 100]`",
        "Numbers of seeds after which configurations are compared, and those that cannot win are stopped.", required=True,
    ),
    "confidence": Key(
        _number(exclusiveMinimum=0, exclusiveMaximum=1), "number between 0 and 1",
        "That the best configuration of a cell is not stopped.", f"{Race.confidence:g}",
    ),
}  # fmt: skip
HALVING: Mapping[str, Key] = {
    "halving": Key(
        _RISING, "rising whole numbers below `train.steps`", "Steps after which configurations are compared.", required=True
    ),
    "metric": Key(
        _ref("objective"), "as one `search.objective`", "What they are compared by, over their seeds.", required=True
    ),
    "keep": Key(_SHARE, "`1/3`, `0.25` or `30%`", "Share of the configurations that trains on.", "1/3"),
}  # fmt: skip
EARLY_STOPPING: Mapping[str, Key] = {
    "seeds": Key(_nothing_or(_mapping(RACE)), "mapping", "Few seeds for configurations that cannot win.", inner=RACE),
    "steps": Key(_nothing_or(_mapping(HALVING)), "mapping", "Few steps for configurations that are behind.", inner=HALVING),
}
CONFIRM: Mapping[str, Key] = {
    "seeds": Key(_SEEDS, _SEED_FORMS, "Fresh seeds: none of those that the search has.", required=True),
    "top": Key(_whole(1), "whole number", "How many configurations of each cell, the best ones.", str(Confirm.top)),
}
SEARCH: Mapping[str, Key] = {
    "sampler": Key(
        _ref("sampler"), "a name, or a mapping with `name`, `seed` and options", "Optuna's sampler; see below.", Search.sampler
    ),
    "configurations": Key(
        _whole(1), "whole number",
        "How many a cell tries, number 0 with the file's own values included. `grid` and `brute_force` end by themselves.",
    ),
    "parallel": Key(
        _whole(1), "whole number",
        "Configurations in flight in a cell. Suggestion k depends on results 0 to k - `parallel`, so it changes results.",
        str(Search.parallel),
    ),
    "objective": Key(
        _ref("objectives"), "a metric, `{METRIC: maximize}`, or a list of them", "What is optimised; see below.", "par2"
    ),
    "constraints": Key(
        _nothing_or(_object("constraints")), "mapping of a metric to `at_most` and `at_least`",
        "Configurations that break one rank after all that meet them all.",
    ),
    "space": Key(_ref("space"), "mapping of a dotted setting to a dimension", "What is searched; see below.", required=True),
}  # fmt: skip
DIMENSION: Mapping[str, Key] = {
    "uniform": Key(_ref("bounds"), "`[low, high]`", "Any number between, both bounds included."),
    "log_uniform": Key(_ref("bounds"), "`[low, high]`, above 0", "The same on a logarithmic scale."),
    "integer": Key(_ref("whole bounds"), "`[low, high]`", "Whole numbers, both bounds included."),
    "log_integer": Key(_ref("whole bounds"), "`[low, high]`, above 0", "The same on a logarithmic scale."),
    "choice": Key({"type": "array", "minItems": 1}, "list", "One of these values. A plain list means the same."),
    "or": Key({}, "any value", "One more value besides a range, such as `0` for off."),
    "when": Key(
        {"type": "object", "additionalProperties": {"not": {"type": "array", "maxItems": 0}}},
        "mapping of a dotted setting to a value, or a list of them",
        "The dimension exists only where the settings have these values.",
    ),
}  # fmt: skip
TOP: Mapping[str, Key] = {
    "name": Key(
        {"type": "string", "pattern": f"^{SWEEP_NAME.pattern}$"}, NAME_RULE,
        "What the sweep is called; without it, as the file.",
    ),
    "question": Key(_nothing_or({"type": "string"}), "text", "What the sweep is for; reports and MLflow show it."),
    "task": Key(
        _name_or_mapping("task name", "task mapping", null=True), "a name, or a mapping with `name` and settings",
        "What is learnt.",
    ),
    "model": Key(
        _name_or_mapping("model name", "model mapping", null=True), "a name, or a mapping with `name` and settings",
        "What learns it.",
    ),
    "train": Key(_nothing_or(_object("train")), "mapping", "How a lane is trained."),
    "compare": Key(_nothing_or(_object("compare")), "mapping of an axis to a list of entries", "What is crossed into cells."),
    "seeds": Key(_SEEDS, _SEED_FORMS, "Every configuration is trained with each of them.", "`[0]`", inner=_SEED_KEYS),
    "search": Key(_nothing_or(_object("search")), "mapping", "How the settings of every cell are searched.", inner=SEARCH),
    "early_stopping": Key(
        _nothing_or(_mapping(EARLY_STOPPING, minProperties=1)), "mapping", "Which configurations are not trained to their end.",
        inner=EARLY_STOPPING,
    ),
    "confirm": Key(
        _nothing_or(_mapping(CONFIRM)), "mapping", "The best configurations are trained again on fresh seeds.", inner=CONFIRM
    ),
    "resources": Key(
        _nothing_or(_mapping(RESOURCES)), "mapping", "What ONE worker has. It changes no result.", inner=RESOURCES
    ),
    "budget": Key(_nothing_or(_mapping(BUDGET)), "mapping", "When to stop a sweep that is not done.", inner=BUDGET),
    "exported": Key(
        _nothing_or({"type": "object"}), "mapping", "Written by `sweeps export`: the results that `sweeps reproduce` compares."
    ),
}  # fmt: skip


# ------------------------------------------------------------------------------------------- types of settings


def _of_type(hint: Any) -> Schema:
    """Return the schema of a field of a Config."""
    arguments = get_args(hint)
    if get_origin(hint) is Annotated:  # steps, or a share of train.steps
        return {"anyOf": [_of_type(arguments[0]), {"type": "string", "pattern": r"^\s*[0-9.]+\s*%\s*$"}]}
    if get_origin(hint) is Literal:
        return {"enum": list(arguments)}
    if get_origin(hint) is tuple:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return {"type": "array", "items": _of_type(arguments[0])}
        size = {"minItems": len(arguments), "maxItems": len(arguments)}
        return {"type": "array", "items": [_of_type(part) for part in arguments], **size}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return {"type": "object", "additionalProperties": False, "properties": _properties(hint)}
    if arguments:  # a union
        return {"anyOf": [_of_type(part) for part in arguments]}
    simple: dict[Any, Schema] = {
        int: _whole(), float: _number(), bool: {"type": "boolean"}, str: {"type": "string"}, type(None): {"type": "null"},
    }  # fmt: skip
    return dict(simple.get(hint, {}))


def _properties(config: type[Any]) -> dict[str, Schema]:
    docs = {doc.name: doc for doc in field_docs(config)}
    found = {}
    for name, hint in fields_of(config).items():
        text = _sentence(docs[name]) if name in docs else ""
        found[name] = _of_type(hint) | ({"description": text} if text else {})
    return found


def _sentence(doc: FieldDoc) -> str:
    return " ".join(doc.text.split())


def _default(config: type[Any], name: str) -> str:
    """Return a setting's default as a sweep file would have it."""
    (declared,) = (one for one in dataclasses.fields(config) if one.name == name)
    if declared.default is not dataclasses.MISSING:
        return f"`{'null' if declared.default is None else _as_written(declared.default)}`"
    return "(required)" if declared.default_factory is dataclasses.MISSING else "as below"


def _as_written(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, tuple):
        return f"[{', '.join(map(_as_written, value))}]"
    return f"{value:g}" if isinstance(value, float) else json.dumps(value)


def _values(hint: Any) -> str:
    """Return the type of a setting for people."""
    arguments = get_args(hint)
    if get_origin(hint) is Annotated:
        return "steps, or a share of `train.steps` such as `40%`"
    if get_origin(hint) is Literal:
        return ", ".join(f"`{word}`" for word in arguments)
    if get_origin(hint) is tuple:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return f"list, each: {_values(arguments[0])}"
        return "[" + ", ".join(_values(part) for part in arguments) + "]"
    if dataclasses.is_dataclass(hint):
        return "mapping"
    if arguments:
        return " or ".join(dict.fromkeys(_values(part) for part in arguments))
    words = {int: "whole number", float: "number", bool: "`true` or `false`", str: "text", type(None): "`null`"}
    return words.get(hint, getattr(hint, "__name__", str(hint)))


# ------------------------------------------------------------------------------------------- the JSON schema


def json_schema() -> Schema:
    """Return the JSON schema (draft 7) of a sweep file."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "A sweep file",
        "description": "Written by `sweeps schema`. `sweeps check FILE` checks what a schema cannot.",
        **_mapping(TOP, patternProperties={f"^{ANCHORS}": {}}),
        "definitions": dict(_definitions()),
    }


def _definitions() -> Iterator[tuple[str, Schema]]:
    from sweeps.training.settings import Train

    own = {"type": "string", "pattern": REFERENCE}
    yield "model name", {"anyOf": [{"enum": registry.models()}, own]}
    yield "unit name", {"anyOf": [{"enum": registry.names("model")}, own]}
    yield "network name", {"anyOf": [{"enum": registry.names("network")}, own]}
    yield "task name", {"anyOf": [{"enum": registry.names("task")}, own]}
    yield "train", {"additionalProperties": False, "properties": _properties(Train)}
    yield from _model_definitions()
    yield from _task_definitions()
    yield "compare", _compare(_train_paths(Train))
    yield "space", _space(_train_paths(Train))
    yield "dimension", _dimension()
    pair = {"type": "array", "minItems": 2, "maxItems": 2}
    yield "bounds", {**pair, "items": _number()}
    yield "whole bounds", {**pair, "items": _whole()}
    yield "search", {key: value for key, value in _mapping(SEARCH).items() if key != "type"}
    yield from _objective_definitions()
    yield from _sampler_definitions()


def _model_definitions() -> Iterator[tuple[str, Schema]]:
    networks = {name: registry.find("network", name) for name in registry.names("network")}
    shared: dict[str, list[Schema]] = {}
    for network in networks.values():
        for key, schema in _properties(network.Config).items() if network.num_units else ():
            if schema not in shared.setdefault(key, []):
                shared[key].append(schema)
    of_networks = {key: found[0] if len(found) == 1 else {"anyOf": found} for key, found in shared.items()}
    yield "settings of networks", {"properties": of_networks}
    inherited = {key: {"$ref": f"#/definitions/settings of networks/properties/{key}"} for key in of_networks}
    common: dict[str, Schema] = {
        "name": _ref("model name"),
        "label": {},
        "network": _ref("network name"),
        "units": {"type": "array", "items": _ref("unit"), "minItems": 1},
    }
    cases, unit_cases = [], []
    for name in registry.models():
        if name in registry.names("model"):
            own = _properties(registry.find("model", name).Config)
            properties = {**inherited, **own}
            for key in own.keys() & inherited.keys():
                properties[key] = {"anyOf": [own[key], inherited[key]]}
            yield f"unit {name}", _closed({"name": {}, **own})
            unit_cases.append(_case(name, _ref(f"unit {name}")))
        else:
            properties = _properties(registry.find("network", name).Config)
        yield f"model {name}", _closed({**common, **properties})
        # With `units` the settings are those of any of them.
        cases.append(_case(name, _ref(f"model {name}"), without=("units",)))
    yield "model mapping", {"type": "object", "properties": common, "allOf": cases}
    yield "model", _name_or_mapping("model name", "model mapping")
    named = {"type": "object", "properties": {"name": _ref("unit name")}, "required": ["name"], "allOf": unit_cases}
    yield "unit mapping", named
    yield "unit", _name_or_mapping("unit name", "unit mapping")


def _task_definitions() -> Iterator[tuple[str, Schema]]:
    cases = []
    for name in registry.names("task"):
        yield f"task {name}", _closed({"name": {}, "label": {}, **_properties(registry.find("task", name).Config)})
        cases.append(_case(name, _ref(f"task {name}")))
    yield "task mapping", {"type": "object", "properties": {"name": _ref("task name")}, "allOf": cases}
    yield "task", _name_or_mapping("task name", "task mapping")


def _closed(properties: Mapping[str, Schema]) -> Schema:
    return {"type": "object", "additionalProperties": False, "properties": dict(properties)}


def _case(name: str, then: Schema, without: tuple[str, ...] = ()) -> Schema:
    """What holds for a mapping with this `name`."""
    condition: Schema = {"required": ["name"], "properties": {"name": {"const": name}}}
    if without:
        condition["not"] = {"required": list(without)}
    return {"if": condition, "then": then}


def _train_paths(train: type[Any], prefix: str = "train") -> dict[str, Schema]:
    """Return the schemas of the settings of `train` by their dotted paths, nested ones included."""
    found = {}
    for (name, hint), schema in zip(fields_of(train).items(), _properties(train).values(), strict=True):
        found[f"{prefix}.{name}"] = schema
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            found |= _train_paths(hint, f"{prefix}.{name}")
    return found


def _compare(of_train: Mapping[str, Schema]) -> Schema:
    entry = _closed({"label": {"type": ["string", "number", "boolean"]}, "model": _ref("model"), "task": _ref("task"),
                     "train": _object("train")})  # fmt: skip
    lists: dict[str, Schema] = {
        section: {"type": "array", "minItems": 1, "items": _ref(section)} for section in ("model", "task")
    }
    return {
        "propertyNames": {"pattern": r"^[A-Za-z][A-Za-z0-9_.-]*$", "not": {"const": "train"}},
        "properties": lists | {path: {"type": "array", "minItems": 1, "items": one} for path, one in of_train.items()},
        "patternProperties": {_LEAF: {"type": "array", "minItems": 1}},
        "additionalProperties": {"type": "array", "minItems": 1, "items": {**entry, "required": ["label"]}},
    }


def _space(of_train: Mapping[str, Schema]) -> Schema:
    return {
        "type": "object",
        "minProperties": 1,
        "additionalProperties": False,
        "properties": {path: _ref("dimension") for path in of_train},
        "patternProperties": {_LEAF: _ref("dimension")},
    }


def _dimension() -> Schema:
    one_kind = [{"required": [kind]} for kind in KINDS]
    return {"anyOf": [{"type": "array", "minItems": 1}, _mapping(DIMENSION, oneOf=one_kind)]}


def _objective_definitions() -> Iterator[tuple[str, Schema]]:
    from sweeps.results import metrics

    median = {"type": "string", "pattern": r"^[^\s.]+\.[^\s.]+\.median$"}
    always = [*metrics.default_directions(), *metrics.ALIASES]
    yield "objective name", {"anyOf": [{"enum": always}, median]}
    directed = {
        "type": "object", "minProperties": 1, "maxProperties": 1, "propertyNames": _ref("objective name"),
        "additionalProperties": {"enum": ["minimize", "maximize"]},
    }  # fmt: skip
    yield "objective", {"anyOf": [_ref("objective name"), directed]}
    several = {key: value for key, value in directed.items() if key != "maxProperties"}
    listed = {"type": "array", "minItems": 1, "items": _ref("objective")}
    yield "objectives", {"anyOf": [_ref("objective"), listed, several]}
    limited = [*(metric.name for metric in metrics.configuration_metrics()), *metrics.ALIASES]
    bounds: dict[str, Schema] = {bound: _number() for bound in BOUNDS}
    yield (
        "constraints",
        {
            "propertyNames": {"anyOf": [{"enum": limited}, median]},
            "additionalProperties": {**_closed(bounds), "minProperties": 1},
        },
    )


def _sampler_definitions() -> Iterator[tuple[str, Schema]]:
    from sweeps.search.samplers import SAMPLERS

    names = {"enum": list(SAMPLERS)}
    cases = []
    for name, sampler in SAMPLERS.items():
        options = {key: _option(option) for key, option in sampler.options.items()}
        yield f"sampler {name}", _closed({"name": {}, "seed": _whole(0, MAX_SEED), **options})
        cases.append(_case(name, _ref(f"sampler {name}")))
    cases.append({"if": {"not": {"required": ["name"]}}, "then": _ref(f"sampler {Search.sampler}")})
    yield "sampler name", names
    yield "sampler mapping", {"type": "object", "properties": {"name": names}, "allOf": cases}
    yield "sampler", _name_or_mapping("sampler name", "sampler mapping")


def _option(option: Option) -> Schema:
    if option.type is list:
        return {"type": "array"}
    if option.type is not dict:
        simple = {int: _whole(option.least, option.most), float: _number(), bool: {"type": "boolean"}, str: {"type": "string"}}
        return dict(simple[option.type])
    if not option.parts:
        return {"type": ["string", "object"]}
    names: Schema = {"enum": list(option.parts)}
    cases = [
        _case(name, _closed({"name": {}, **{key: _option(one) for key, one in part.options.items()}}))
        for name, part in option.parts.items()
    ]
    return {"anyOf": [names, {"type": "object", "required": ["name"], "properties": {"name": names}, "allOf": cases}]}


# ------------------------------------------------------------------------------------------- the page

_HEADER = """\
# The sweep file: every key

Written by `sweeps schema --format md -o docs/sweep-file.md`; do not edit it. `sweeps schema -o sweep.schema.json` writes the
JSON schema with which an editor completes and checks a sweep file: with the YAML language server, this first line does it.

    # yaml-language-server: $schema=sweep.schema.json

A sweep file is YAML 1.2. A setting that is left out has its default. Keys at top level that begin with `x-` hold anchors for
`*aliases` elsewhere, and mean nothing themselves. `KEY=VALUE` on the command line sets a key by its dotted path, as in
`train.steps=60_000`. `sweeps check FILE` reports every fault at once, with its line.
"""
_COMPARE = """\
Axes are crossed in the order written, and every combination of entries is a cell, with its own search. An axis is

- `model` or `task`: a list of names, or of mappings with `name`, settings and perhaps a `label`. The section itself is then
  left out at top level.
- a dotted setting, such as `train.lr` or `task.operation`: a list of its values.
- any other word: a list of mappings, each with a `label`, and settings of `model`, `task` and `train` that change together.

```yaml
compare:
  model: [nmu, nalu, {name: nmu, clamp: false, label: NMU without clamp}]
  range:
    - {label: "U[1,2]",   task: {interpolation: [1, 2],   extrapolation: [2, 6]}}
    - {label: "U[10,20]", task: {interpolation: [10, 20], extrapolation: [20, 40]}}
```
"""
_SPACE = """\
`search.space` maps a dotted setting of `model`, `task` or `train` to a dimension: a list of choices, or a mapping with exactly
one of the first five keys.
"""
_MODELS = """\
`model` is a name, or a mapping with `name` and settings: those of the unit, and those of the network that arranges it. A class
of your own is `./my_unit.py` or `my_package.units:Mine`; `sweeps new model my_unit` writes one to start from.

| key | values | meaning |
|---|---|---|
| `name` | a unit or a whole network | See the lists below. |
| `network` | a network | How units are arranged; the task decides it where it is left out. |
| `units` | list of names, or of mappings with `name` and settings | The units of the network one by one, in place of `name`. |
| `label` | text | In `compare`: what the entry is called. |
"""


def reference() -> str:
    """Return the page of every key, as Markdown."""
    return "\n".join(part.rstrip() + "\n" for part in _parts())


def _parts() -> Iterator[str]:
    from sweeps.search.samplers import SAMPLERS
    from sweeps.training.settings import Train

    yield _HEADER
    yield "## Top level\n\n" + _table(TOP)
    yield "## train\n\n" + _settings(Train)
    yield "## compare\n\n" + _COMPARE
    yield "## seeds\n\n" + f"`seeds` is {_SEED_FORMS}.\n\n" + _table(_SEED_KEYS)
    yield "## search\n\n" + _table(SEARCH)
    yield "### search.space\n\n" + _SPACE + "\n" + _table(DIMENSION)
    yield "### search.objective and search.constraints\n\n" + _objectives()
    yield "### search.sampler\n\nEach takes `seed` too (default 0). What they do: [samplers.md](samplers.md).\n\n" + _rows(
        ("name", "options"),
        [(f"`{name}`", ", ".join(map(_about_option, sampler.options.items())) or "none") for name, sampler in SAMPLERS.items()],
    )
    for section in ("early_stopping", "confirm", "resources", "budget"):
        yield f"## {section}\n\n{TOP[section].meaning}\n\n" + _table(TOP[section].inner)
        for name, key in TOP[section].inner.items():
            if key.inner:
                yield f"### {section}.{name}\n\n{key.meaning}\n\n" + _table(key.inner)
    yield "## task\n\n`task` is a name, or a mapping with `name` and settings. One of your own is `./my_task.py`."
    for name in registry.names("task"):
        yield _about("task", name)
    yield "## model\n\n" + _MODELS
    yield "### Networks that arrange units"
    for name in registry.names("network"):
        if registry.find("network", name).num_units:
            yield _about("network", name)
    yield "### Whole networks"
    for name in registry.standalone_networks():
        yield _about("network", name)
    yield "### Units"
    for name in registry.names("model"):
        yield _about("model", name)


def _about(kind: registry.Kind, name: str) -> str:
    cls = registry.find(kind, name)
    summary = (inspect.cleandoc(cls.__doc__ or "").splitlines() or [""])[0]
    return f"#### {'unit' if kind == 'model' else kind} `{name}`\n\n{summary}\n\n{_settings(cls.Config)}"


def _settings(config: type[Any], prefix: str = "") -> str:
    return (
        _rows(("key", "default", "values", "meaning"), list(_setting_rows(config, prefix)))
        if fields_of(config)
        else "No settings."
    )


def _setting_rows(config: type[Any], prefix: str) -> Iterator[tuple[str, ...]]:
    hints = fields_of(config)
    for doc in field_docs(config):
        hint = hints[doc.name]
        yield f"`{prefix}{doc.name}`", _default(config, doc.name), _values(hint), _sentence(doc)
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            yield from _setting_rows(hint, f"{prefix}{doc.name}.")


def _table(keys: Mapping[str, Key]) -> str:
    rows = []
    for name, key in keys.items():
        default = "(required)" if key.required else f"`{key.default.strip('`')}`" if key.default else ""
        rows.append((f"`{name}`", default, key.values, key.meaning))
    return _rows(("key", "default", "values", "meaning"), rows)


def _objectives() -> str:
    from sweeps.results import metrics

    directions = metrics.default_directions()
    rows = [
        (f"`{one.name}`", directions.get(one.name, ""), " ".join(one.meaning.split()))
        for one in metrics.configuration_metrics()
    ]
    text = (
        "A metric with a direction may be an objective; every metric may have a constraint, `{at_most: 0.1}` or "
        "`{at_least: 0.9}`. Besides these there are `error.SPLIT.median`, minimised, and `SCORE.SPLIT.median` of a task's "
        "scores, whose direction is written: `{accuracy.extrapolation.median: maximize}`."
    )
    return "\n".join(textwrap.wrap(text, 128)) + "\n\n" + _rows(("metric", "direction", "meaning"), rows)


def _about_option(item: tuple[str, Option]) -> str:
    key, option = item
    words = {int: "whole number", float: "number", bool: "true or false", str: "word", list: "list", dict: "a sampler"}
    words |= {dict: "settings and their values"} if key == "fixed" else {}
    kind = words[option.type] if not option.parts else f"one of {', '.join(option.parts)}"
    return f"`{key}` ({kind})"


def _rows(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    def line(cells: tuple[str, ...]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(header), "|" + "---|" * len(header), *map(line, rows)])
