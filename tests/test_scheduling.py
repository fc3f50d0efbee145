"""Signals to a sweep that trains; the rest of scheduling is tested with real Ray in test_end_to_end.py."""

from __future__ import annotations

import signal
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from sweeps import scheduling


def test_ctrl_c_asks_the_driver_to_stop_and_a_second_one_ends_at_once() -> None:
    driver: Any = SimpleNamespace(stopping=None)
    with scheduling.interruptible(driver, lambda: None):
        signal.raise_signal(signal.SIGINT)
        assert driver.stopping == "SIGINT was received"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_first_ctrl_c_is_in_time_though_the_budget_of_hours_is_used_up() -> None:
    driver: Any = SimpleNamespace(stopping="the budget of 2 hours is used up")
    with scheduling.interruptible(driver, lambda: None):
        signal.raise_signal(signal.SIGINT)
    assert driver.stopping == "SIGINT was received"


def test_a_ray_that_does_not_end_after_sigterm_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    told, left = [], threading.Event()
    monkeypatch.setattr(scheduling, "GRACE_S", 0.05)
    monkeypatch.setattr(scheduling.os, "_exit", lambda status: (told.append(status), left.set()))
    driver: Any = SimpleNamespace(stopping=None)
    with scheduling.interruptible(driver, lambda: told.append("abandoned")):
        signal.raise_signal(signal.SIGTERM)
        assert left.wait(10)
    assert told == ["abandoned", 1]


def test_a_ray_that_ends_in_time_is_not_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(scheduling, "GRACE_S", 0.05)
    driver: Any = SimpleNamespace(stopping=None)
    with scheduling.interruptible(driver, lambda: told.append("abandoned")):
        signal.raise_signal(signal.SIGTERM)
    threading.Event().wait(0.2)
    assert told == []


def test_a_job_without_a_working_folder_did_not_bring_the_user_s_files_along() -> None:
    assert scheduling._has_folder('{"runtime_env": {"working_dir": "gcs://a.zip"}}')
    for job in (None, "{}", '{"runtime_env": null}', '{"runtime_env": {"env_vars": {}}}'):
        assert not scheduling._has_folder(job)
