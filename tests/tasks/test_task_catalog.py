"""What every task keeps to, as `sweeps check task` checks it. A new file in tasks is tested by existing."""

from __future__ import annotations

import pytest

from sweeps.checking import check_task
from sweeps.config.registry import names


@pytest.mark.parametrize("task", names("task"))
def test_a_task_keeps_every_rule(task: str) -> None:
    report = check_task(task)
    assert report.sound, report.text()
