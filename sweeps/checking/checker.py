"""The checker: the rules for units, networks and tasks, in order, and the report on one definition."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from sweeps.checking import engine, models, tasks
from sweeps.checking.declaration import Subject, declares, documented
from sweeps.checking.models import NetworkSubject, UnitSubject
from sweeps.checking.source import Fault, Location, fault_of_exception, real_path
from sweeps.checking.tasks import TaskSubject
from sweeps.config import registry

State = Literal["kept", "broken", "skipped"]
S = TypeVar("S", bound=Subject)


@dataclass(frozen=True)
class Rule(Generic[S]):
    """A rule for definitions: `check` yields the faults found against it.

    `needs` names rules without which this one cannot be checked.
    """

    name: str
    check: Callable[[S], Iterable[Fault]]
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """The result of one rule."""

    rule: str
    state: State
    faults: tuple[Fault, ...] = ()
    why_skipped: str = ""

    def lines(self) -> Iterator[str]:
        broken = [f for f in self.faults if not f.warning]
        if self.state == "skipped":
            yield f"-      {self.rule}: not checked, because of {self.why_skipped!r}"
        elif not broken:
            yield f"ok     {self.rule}"
        else:
            yield f"FAULT  {self.rule}"
        for fault in [*broken, *(f for f in self.faults if f.warning)]:
            lines = [f"{fault.location}: {fault.location.text}"] if fault.location else []
            lines += [f"found: {fault.found}", f"do: {fault.do}"]
            for i, line in enumerate(lines):
                yield f"{'warn' if fault.warning and i == 0 else '':6} {line}"


@dataclass(frozen=True)
class Report:
    """The results of all rules for one definition."""

    title: str
    outcomes: tuple[Outcome, ...]

    @property
    def broken(self) -> dict[str, tuple[Fault, ...]]:
        """Rule -> its faults, warnings apart."""
        return {
            o.rule: tuple(f for f in o.faults if not f.warning) for o in self.outcomes if any(not f.warning for f in o.faults)
        }

    @property
    def warnings(self) -> tuple[Fault, ...]:
        return tuple(f for o in self.outcomes for f in o.faults if f.warning)

    @property
    def sound(self) -> bool:
        return not self.broken

    def text(self) -> str:
        lines = [line for outcome in self.outcomes for line in outcome.lines()]
        kept = sum(o.state == "kept" for o in self.outcomes)
        skipped = sum(o.state == "skipped" for o in self.outcomes)
        counts = [f"{kept} rules kept"]
        counts += [f"{len(self.broken)} broken"] if self.broken else []
        counts += [f"{skipped} not checked"] if skipped else []
        counts += [f"{len(self.warnings)} warnings"] if self.warnings else []
        verdict = "is sound" if self.sound else "is not sound"
        return "\n".join([*lines, f"{self.title} {verdict}: {', '.join(counts)}"])


def run_rules(title: str, rules: Sequence[Rule[S]], subject: S) -> Report:
    """Check the rules in turn; one that needs a broken rule is skipped.

    An exception inside a rule is a fault, at the line of the definition that raised it.
    """
    outcomes: list[Outcome] = []
    exceptions: dict[Fault, str] = {}  # fault -> the rule that reported it first
    unreliable: dict[str, str] = {}  # rule that is broken or skipped -> the broken rule that is the reason
    for rule in rules:
        reason = next((unreliable[need] for need in rule.needs if need in unreliable), None)
        faults: list[Fault] = []
        if reason is None:
            try:
                faults.extend(rule.check(subject))
            except (Exception, SystemExit) as error:  # any exception of the definition is a fault
                fault = fault_of_exception(error, subject.sources)
                if fault in exceptions and not faults:  # reported already, and this rule cannot be checked
                    reason = exceptions[fault]
                else:
                    exceptions[fault] = rule.name
                    faults.append(fault)
        if reason is not None:
            unreliable[rule.name] = reason
            outcomes.append(Outcome(rule.name, "skipped", why_skipped=reason))
            continue
        state: State = "broken" if any(not f.warning for f in faults) else "kept"
        if state == "broken":
            unreliable[rule.name] = rule.name
        outcomes.append(Outcome(rule.name, state, tuple(_without_repetitions(faults))))
    return Report(title, tuple(outcomes))


def _without_repetitions(faults: Iterable[Fault]) -> Iterator[Fault]:
    """Yield the first fault of each line; several settings often have the same fault."""
    seen: set[Any] = set()
    for fault in faults:
        key = (fault.location, fault.warning) if fault.location else (fault.found, fault.warning)
        if key not in seen:
            seen.add(key)
            yield fault


LOADS = "it can be loaded"
DECLARES = "version and Config are declared"
DOCUMENTED = "it is documented"
BUILDS = "it maps rows of inputs to rows of outputs"
FITS = "it maps its task's inputs to outputs of the task's shape"
INITIALISES = "initialise fills every parameter from the stream alone"
GLOBAL = "it draws from no global generator"
PURE = "the same input gives the same output, and nothing else changes"
EVALUATES = "evaluation draws nothing"
SILENT = "it neither prints nor logs"
BLIND = "it does not read tensors' values"
ROWS = "rows of a batch do not influence each other"
LEARNS = "every parameter learns"
CONSTRAINS = "constrain keeps to its bounds"
APART = "lanes do not mix"
RECORDS = "the engine can record it"
TRAINS = "it trains in a pack, the same with any neighbours"
COMPILES = "compiled, a lane equals itself alone and in a pack"

UNIT_RULES: tuple[Rule[UnitSubject], ...] = (
    Rule(DECLARES, declares),
    Rule(DOCUMENTED, documented),
    Rule(BUILDS, models.builds, (DECLARES,)),
    Rule(INITIALISES, models.initialises, (DECLARES,)),
    Rule(GLOBAL, models.global_generators, (DECLARES,)),
    Rule(PURE, models.pure, (GLOBAL,)),
    Rule(EVALUATES, models.evaluates, (PURE,)),
    Rule(SILENT, models.silent, (DECLARES,)),
    Rule(BLIND, models.blind, (DECLARES,)),
    Rule(ROWS, models.rows, (BUILDS, GLOBAL, PURE)),
    Rule(LEARNS, models.learns, (GLOBAL, PURE, BLIND)),
    Rule(CONSTRAINS, models.constrains, (DECLARES,)),
    Rule(APART, models.apart, (BUILDS, GLOBAL, PURE, BLIND)),
    Rule(RECORDS, engine.records, (BUILDS, GLOBAL, PURE, BLIND)),
    Rule(TRAINS, engine.trains, (RECORDS,)),
)
NETWORK_RULES: tuple[Rule[NetworkSubject], ...] = (
    Rule(DECLARES, declares),
    Rule(DOCUMENTED, documented),
    Rule(INITIALISES, models.initialises, (DECLARES,)),
    Rule(FITS, models.fits_task, (INITIALISES,)),
    Rule(GLOBAL, models.global_generators, (DECLARES,)),
    Rule(PURE, models.pure, (GLOBAL,)),
    Rule(EVALUATES, models.evaluates, (PURE,)),
    Rule(SILENT, models.silent, (DECLARES,)),
    Rule(BLIND, models.blind, (DECLARES,)),
    Rule(LEARNS, models.learns, (GLOBAL, PURE, BLIND)),
    Rule(CONSTRAINS, models.constrains, (DECLARES,)),
    Rule(RECORDS, engine.records, (FITS, GLOBAL, PURE, BLIND)),
    Rule(TRAINS, engine.trains, (RECORDS,)),
)
TASK_RULES: tuple[Rule[TaskSubject], ...] = (
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
    Rule("the threshold is a number, or None, within seconds", tasks.thresholds, (DECLARES,)),
    Rule(RECORDS, engine.records, (BUILDS, GLOBAL, BLIND)),
    Rule(TRAINS, engine.trains, (RECORDS,)),
)


def check_model(name: str, compiled: bool = False, last: str | None = None) -> Report:
    """Check a unit or a network, by its name, file or class, against every rule.

    `compiled` adds the rule that needs a compiler and half a minute; `last` is the name of the last rule to check.
    """
    title = f"model {name}"
    try:
        if registry.is_network(name):
            return _check(title, NETWORK_RULES, NetworkSubject(name), compiled, last)
        return _check(title, UNIT_RULES, UnitSubject(name), compiled, last)
    except registry.BrokenDefinition as error:
        return _unloadable(title, "model", error)


def check_task(name: str, compiled: bool = False, last: str | None = None) -> Report:
    """Check a task, by its name, file or class, against every rule. The options are those of `check_model`."""
    title = f"task {name}"
    try:
        return _check(title, TASK_RULES, TaskSubject(name), compiled, last)
    except registry.BrokenDefinition as error:
        return _unloadable(title, "task", error)


def _check(title: str, rules: Sequence[Rule[Any]], subject: Subject, compiled: bool, last: str | None) -> Report:
    chosen = [
        Rule(LOADS, lambda _: ()),
        *rules,
        *([Rule(COMPILES, engine.compiles, (TRAINS,))] if compiled else []),
    ]
    if last is not None:
        chosen = chosen[: [rule.name for rule in chosen].index(last) + 1]
    return run_rules(title, chosen, subject)


def _unloadable(title: str, kind: registry.Kind, error: registry.BrokenDefinition) -> Report:
    """Return the report on a definition whose file cannot be used."""
    location = Location(real_path(error.file), error.line) if error.file and error.line else None
    other = " (`sweeps new network NAME` for a whole network)" if kind == "model" else ""
    do = "repair this line" if error.__cause__ else f"`sweeps new {kind} NAME` writes a working one to compare with{other}"
    return Report(title, (Outcome(LOADS, "broken", (Fault(str(error), do, location),)),))
