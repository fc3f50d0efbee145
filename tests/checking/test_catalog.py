"""Rules that every shipped unit, network and task keeps, as `sweeps check` checks them. A new file is tested by existing."""

from __future__ import annotations

import pytest

from sweeps.checking import check_model, check_task
from sweeps.config.registry import find, names

UNITS = names("model")
NETWORKS = [name for name in names("network") if name != "image_recurrent"]
"""Those that the checker can try in seconds: image_recurrent's ResNets take minutes. tests/tasks/test_sequential_svhn.py
tests each of its settings with narrow ones."""


def test_the_first_line_of_every_docstring_is_what_a_list_prints() -> None:
    """One line that ends with a full stop; of a unit with its equation."""
    faults = []
    for kind, known in (("model", UNITS), ("network", names("network"))):
        for name in known:
            first, *rest = (find(kind, name).__doc__ or "").splitlines()
            if not first.endswith(".") or (rest and rest[0]) or (kind == "model" and " = " not in first):
                faults.append(f"{name}: {first!r}")
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("name", [*UNITS, *NETWORKS])
def test_a_model_keeps_every_rule(name: str) -> None:
    report = check_model(name)
    assert report.sound and not report.warnings, report.text()
    assert name in UNITS or not [outcome for outcome in report.outcomes if outcome.state == "skipped"], report.text()


@pytest.mark.parametrize("name", names("task"))
def test_a_task_keeps_every_rule(name: str) -> None:
    report = check_task(name)
    assert report.sound, report.text()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", [*UNITS, *NETWORKS])
def test_compiled_a_definition_is_itself_alone_and_in_a_pack(name: str) -> None:
    report = check_model(name, compiled=True)
    assert report.sound, report.text()
