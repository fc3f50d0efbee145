"""Signals to a sweep that trains, and a Ray that does not come up; the rest of scheduling is tested in test_end_to_end.py."""

from __future__ import annotations

import signal
import threading
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from sweeps.config.sweep_file import Resources
from sweeps.runner import ray_tune


def test_ctrl_c_asks_the_driver_to_stop_and_a_second_one_ends_at_once() -> None:
    driver: Any = SimpleNamespace(stopping=None)
    with ray_tune.interruptible(driver, lambda: None):
        signal.raise_signal(signal.SIGINT)
        assert driver.stop_reason == "SIGINT was received"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_first_ctrl_c_is_in_time_though_the_budget_of_hours_is_used_up() -> None:
    driver: Any = SimpleNamespace(stopping="the budget of 2 hours is used up")
    with ray_tune.interruptible(driver, lambda: None):
        signal.raise_signal(signal.SIGINT)
    assert driver.stop_reason == "SIGINT was received"


def test_a_ray_that_does_not_end_after_sigterm_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    told, left = [], threading.Event()
    monkeypatch.setattr(ray_tune, "GRACE_S", 0.05)
    monkeypatch.setattr(ray_tune.os, "_exit", lambda status: (told.append(status), left.set()))
    driver: Any = SimpleNamespace(stopping=None)
    with ray_tune.interruptible(driver, lambda: told.append("abandoned")):
        signal.raise_signal(signal.SIGTERM)
        assert left.wait(10)
    assert told == ["abandoned", 1]


def test_a_ray_that_ends_in_time_is_not_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(ray_tune, "GRACE_S", 0.05)
    driver: Any = SimpleNamespace(stopping=None)
    with ray_tune.interruptible(driver, lambda: told.append("abandoned")):
        signal.raise_signal(signal.SIGTERM)
    threading.Event().wait(0.2)
    assert told == []


def test_a_job_without_a_working_folder_did_not_bring_the_user_s_files_along() -> None:
    assert ray_tune._has_folder('{"runtime_env": {"working_dir": "gcs://a.zip"}}')
    for job in (None, "{}", '{"runtime_env": null}', '{"runtime_env": {"env_vars": {}}}'):
        assert not ray_tune._has_folder(job)


@pytest.mark.slow
@pytest.mark.parametrize("lost", [1, ray_tune.STARTS])
def test_a_ray_that_was_too_slow_to_come_up_is_started_again_and_not_for_ever(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, lost: int
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    init, tries = ray.init, []

    def busy(**options: Any) -> None:
        tries.append(options)
        if len(tries) <= lost:
            raise Exception("The current node timed out during startup. This could happen because")
        init(**options)

    monkeypatch.setattr(ray, "init", busy)
    refused = (
        nullcontext() if lost < ray_tune.STARTS else pytest.raises(ray_tune.ClusterError, match="timed out")
    )
    with refused, ray_tune.cluster(Resources(), 2) as found:
        assert found.now() == 2
    assert len(tries) == min(lost + 1, ray_tune.STARTS) and all(options == tries[0] for options in tries)
    assert f"it is started again (2 of {ray_tune.STARTS})" in caplog.text


def test_a_ray_that_is_refused_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []

    def refuse(**options: Any) -> None:
        tries.append(options)
        raise ConnectionError("wrong token")

    monkeypatch.setattr(ray, "init", refuse)
    monkeypatch.setenv("RAY_ADDRESS", "ray://there:10001")
    with pytest.raises(
        ray_tune.ClusterError, match=r"\ARay does not start at ray://there:10001: wrong token\Z"
    ):
        ray_tune.cluster(Resources()).__enter__()
    assert len(tries) == 1
