"""What a check found: rules kept and rules broken, each fault with its file and line, and the text that says so."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sweeps.checking.places import Place, place_of_error

State = Literal["kept", "broken", "skipped"]


@dataclass(frozen=True)
class Fault:
    """What was found against a rule, where, and what to do. A warning does not break the rule."""

    found: str
    do: str
    place: Place | None = None
    warning: bool = False


@dataclass(frozen=True)
class Rule:
    """A sentence that a definition must keep to. `check` yields what speaks against it.

    `needs` names rules without which this one cannot be looked at.
    """

    name: str
    check: Callable[[Any], Iterable[Fault]]
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """How one rule fared."""

    rule: str
    state: State
    faults: tuple[Fault, ...] = ()
    why_skipped: str = ""

    def lines(self) -> Iterator[str]:
        broken = [f for f in self.faults if not f.warning]
        if self.state == "skipped":
            yield f"-      {self.rule}: not looked at, because of {self.why_skipped!r}"
        elif not broken:
            yield f"ok     {self.rule}"
        else:
            yield f"FAULT  {self.rule}"
        for fault in [*broken, *(f for f in self.faults if f.warning)]:
            told = [f"{fault.place}: {fault.place.text}"] if fault.place else []
            told += [f"found: {fault.found}", f"do: {fault.do}"]
            for first, line in zip([True] + [False] * len(told), told, strict=False):
                yield f"{'warn' if fault.warning and first else '':6} {line}"


@dataclass(frozen=True)
class Report:
    """All rules of one definition."""

    title: str
    outcomes: tuple[Outcome, ...]

    @property
    def broken(self) -> dict[str, tuple[Fault, ...]]:
        """Rule -> its faults, warnings apart."""
        return {
            o.rule: tuple(f for f in o.faults if not f.warning)
            for o in self.outcomes
            if any(not f.warning for f in o.faults)
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
        counts += [f"{skipped} not looked at"] if skipped else []
        counts += [f"{len(self.warnings)} to be warned of"] if self.warnings else []
        verdict = "is sound" if self.sound else "is not sound"
        return "\n".join([*lines, f"{self.title} {verdict}: {', '.join(counts)}"])


def apply(title: str, rules: Sequence[Rule], subject: Any) -> Report:
    """Looks at each rule in turn; one that needs a broken rule is skipped.

    An exception inside a rule is a fault, at the line of the definition that raised it.
    """
    outcomes: list[Outcome] = []
    exceptions: dict[Fault, str] = {}
    lost: dict[str, str] = {}  # rule that cannot be relied on -> the rule that is to blame
    for rule in rules:
        blamed = next((lost[need] for need in rule.needs if need in lost), None)
        if blamed is not None:
            outcomes.append(Outcome(rule.name, "skipped", why_skipped=blamed))
            lost[rule.name] = blamed
            continue
        faults: list[Fault] = []
        try:
            faults.extend(rule.check(subject))
        except Exception as error:  # whatever a definition raises is what was found
            fault = raised(error, subject)
            if fault in exceptions and not faults:  # told already, and this rule cannot be looked at
                lost[rule.name] = exceptions[fault]
                outcomes.append(Outcome(rule.name, "skipped", why_skipped=exceptions[fault]))
                continue
            exceptions[fault] = rule.name
            faults.append(fault)
        state: State = "broken" if any(not f.warning for f in faults) else "kept"
        outcomes.append(Outcome(rule.name, state, tuple(_told_once(faults))))
        if state == "broken":
            lost[rule.name] = rule.name
    return Report(title, tuple(outcomes))


def raised(error: Exception, subject: Any, do: str = "") -> Fault:
    """The fault that an exception is."""
    first = next(iter(str(error).strip().splitlines()), "")
    found = f"{type(error).__name__}: {first}"
    return Fault(found, do or "repair what raises", place_of_error(error, subject.sources))


def _told_once(faults: Iterable[Fault]) -> Iterator[Fault]:
    """The first fault of a line; settings that vary often meet one fault again and again."""
    seen: set[Any] = set()
    for fault in faults:
        key = (fault.place, fault.warning) if fault.place else (fault.found, fault.warning)
        if key not in seen:
            seen.add(key)
            yield fault
