"""Which rules a model and a task keep to, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sweeps.checking import engine, tasks, units
from sweeps.checking.declaration import declares, documented
from sweeps.checking.findings import Fault, Outcome, Place, Report, Rule, apply, real
from sweeps.checking.tasks import TaskSubject
from sweeps.checking.units import Unit
from sweeps.config import registry

LOADS = "it can be loaded"
DECLARES = "version and Config are declared"
DOCUMENTED = "it is documented"
BUILDS = "it maps rows of inputs to rows of outputs"
GLOBAL = "it draws from no global generator"
PURE = "the same input gives the same output, and nothing else changes"
SILENT = "it neither prints nor logs"
BLIND = "it does not look at tensors' values"
RECORDS = "the engine can record it"
TRAINS = "it trains in a pack, whoever the neighbours are"
COMPILES = "compiled, a lane equals itself alone and in a pack"

MODEL_RULES = (
    Rule(DECLARES, declares),
    Rule(DOCUMENTED, documented),
    Rule(BUILDS, units.builds, (DECLARES,)),
    Rule("initialise fills every parameter from the stream alone", units.initialises, (DECLARES,)),
    Rule(GLOBAL, units.global_generators, (DECLARES,)),
    Rule(PURE, units.pure, (GLOBAL,)),
    Rule("evaluation draws nothing", units.evaluates, (PURE,)),
    Rule(SILENT, units.silent, (DECLARES,)),
    Rule(BLIND, units.blind, (DECLARES,)),
    Rule("rows of a batch do not touch each other", units.rows, (BUILDS, GLOBAL, PURE)),
    Rule("every parameter learns", units.learns, (GLOBAL, PURE, BLIND)),
    Rule("constrain keeps to its bounds", units.constrains, (DECLARES,)),
    Rule("lanes do not mix", units.apart, (BUILDS, GLOBAL, PURE, BLIND)),
    Rule(RECORDS, engine.records, (BUILDS, GLOBAL, PURE, BLIND)),
    Rule(TRAINS, engine.trains, (RECORDS,)),
)

TASK_RULES = (
    Rule(DECLARES, declares),
    Rule(DOCUMENTED, documented),
    Rule("splits, network, inputs and outputs are named", tasks.named, (DECLARES,)),
    Rule("the instance depends on the seed alone", tasks.instances, (DECLARES,)),
    Rule(BUILDS, tasks.samples, (DECLARES,)),
    Rule(GLOBAL, tasks.global_generators, (DECLARES,)),
    Rule(BLIND, tasks.blind, (DECLARES,)),
    Rule("evaluation inputs are fixed", tasks.evaluation, (DECLARES,)),
    Rule("truth agrees with the training targets", tasks.truths, (BUILDS,)),
    Rule("the exact target has the least loss", tasks.losses, (BUILDS,)),
    Rule("its scores are those that it names", tasks.scores, (BUILDS,)),
    Rule("the threshold is a number, or None, and soon there", tasks.thresholds, (DECLARES,)),
    Rule(RECORDS, engine.records, (BUILDS, GLOBAL, BLIND)),
    Rule(TRAINS, engine.trains, (RECORDS,)),
)
COMPILED = Rule(COMPILES, engine.compiles, (TRAINS,))


def check_model(name: str, compiled: bool = False, last: str | None = None) -> Report:
    """A unit against every rule; `compiled` adds what takes a compiler and half a minute, `last` ends with that rule."""
    return _checked("model", name, Unit, _rules(MODEL_RULES, compiled, last))


def check_task(name: str, compiled: bool = False, last: str | None = None) -> Report:
    """A task against every rule."""
    return _checked("task", name, TaskSubject, _rules(TASK_RULES, compiled, last))


def _rules(rules: Sequence[Rule], compiled: bool, last: str | None) -> list[Rule]:
    found = [Rule(LOADS, _loads), *rules, *([COMPILED] if compiled else [])]
    return found if last is None else found[: [rule.name for rule in found].index(last) + 1]


def _checked(kind: registry.Kind, name: str, make: Callable[[str], Any], rules: list[Rule]) -> Report:
    title = f"{kind} {name}"
    try:
        subject = make(name)
    except registry.BrokenDefinition as error:
        place = Place(real(error.file), error.line) if error.file and error.line else None
        fault = Fault(str(error), _remedy(error, kind), place)
        return Report(title, (Outcome(LOADS, "broken", (fault,)),))
    return apply(title, rules, subject)


def _loads(subject: Any) -> Iterator[Fault]:
    yield from ()


def _remedy(error: registry.BrokenDefinition, kind: registry.Kind) -> str:
    if error.__cause__ is not None:
        return "repair this line"
    return f"`sweeps new {kind} NAME` writes a working one to compare with"
