"""Definitions to check: the ones that `sweeps new` writes, with one thing changed."""

from __future__ import annotations

from pathlib import Path

from sweeps.checking import Report, check_model, check_task
from sweeps.cli.define import write_template
from sweeps.config import registry


def written(folder: Path, kind: registry.Kind, *changes: tuple[str, str]) -> Path:
    """A new model, network or task in which each old text is replaced."""
    (folder / f"my_{kind}.py").unlink(missing_ok=True)
    registry.clear_cache()
    path = write_template(kind, f"my_{kind}", folder)
    text = path.read_text()
    for old, new in changes:
        assert old in text, f"{old!r} is not in the template"
        text = text.replace(old, new, 1)
    path.write_text(text)
    return path


def checked(path: Path, last: str | None = None, compiled: bool = False) -> Report:
    """The report on every rule, or on those up to one, since later ones take longer."""
    return (check_task if path.stem == "my_task" else check_model)(str(path), compiled, last)


def line_of(path: Path, fragment: str) -> int:
    """The one line that has the fragment."""
    lines = [i for i, line in enumerate(path.read_text().splitlines(), 1) if fragment in line]
    assert len(lines) == 1, (fragment, lines)
    return lines[0]


def before(what: str, line: str) -> tuple[str, str]:
    """Put a line of code in front of another, with the same indentation."""
    return what, f"{line}\n        {what}"


def assert_caught(path: Path, rule: str, fragment: str, said: str) -> Report:
    """Assert that a rule is broken, or warned of, with these words at the line with the fragment; return the report."""
    report = checked(path, last=rule)
    lines = [line for broken, line, found in faults_of(report) if broken == rule and said in found]
    lines += [fault.location.line for fault in report.warnings if fault.location and said in fault.found]
    assert line_of(path, fragment.rstrip("\n")) in lines, report.text()
    return report


def faults_of(report: Report) -> list[tuple[str, int | None, str]]:
    """(rule, line, what was found) of every fault."""
    return [
        (rule, fault.location.line if fault.location else None, fault.found)
        for rule, faults in report.broken.items()
        for fault in faults
    ]
