"""A log is followed to its end, each line once, though the tail breaks off, falls silent or ends too early."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cluster import following
from cluster.following import file_lines, follow_file
from cluster.ray_jobs import follow_job
from sweeps.errors import ClusterError, UserError

LOG = "one\ntwo\nthree\n\nfive\nhalf"


class Status(str):
    def is_terminal(self) -> bool:
        return self == "SUCCEEDED"


class Client:
    """Ray's job client: every tail begins anew and yields the planned number of letters, then fails or ends."""

    def __init__(self, *plan: tuple[int, Exception | None], unreachable: int = 0) -> None:
        self.plan, self.unreachable = list(plan), unreachable

    def get_job_status(self, job: str) -> Status:
        if self.unreachable:
            self.unreachable -= 1
            raise ConnectionError("refused")
        return Status("RUNNING" if self.plan else "SUCCEEDED")

    def get_job_logs(self, job: str) -> str:
        return LOG

    async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
        letters, fault = self.plan.pop(0)
        for start in range(0, letters, 3):
            yield LOG[start : min(start + 3, letters)]
        if fault is not None:
            raise fault


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "PAUSE_S", 0.0)


@pytest.mark.parametrize(
    "plan",
    [
        [],
        [(len(LOG), None)],
        [(0, None), (5, None), (5, None), (len(LOG), None)],
        [(4, RuntimeError("1006")), (2, OSError("reset")), (5, ClusterError("no answer")), (11, None)],
    ],
)
def test_every_line_comes_once_however_the_tails_end(plan: list[Any]) -> None:
    assert list(follow_job(Client(*plan), "job")) == LOG.split("\n")


def test_a_server_that_is_away_for_a_while_is_waited_for_and_reported() -> None:
    messages: list[str] = []
    assert list(follow_job(Client((3, None), unreachable=2), "job", messages.append)) == LOG.split("\n")
    assert messages == ["the connection was lost (ConnectionError), trying again", "connected again"]


def test_a_request_that_is_wrong_is_not_repeated() -> None:
    with pytest.raises(UserError, match="was deleted"):
        list(follow_job(Client((4, UserError("the job was deleted")), (11, None)), "job"))


def test_ctrl_c_ends_the_following_of_a_log_that_is_silent() -> None:
    class Silent(Client):
        async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
            yield "one\n"
            asyncio.get_running_loop().call_later(0.01, signal.raise_signal, signal.SIGINT)
            await asyncio.sleep(20)

    lines = follow_job(Silent((0, None)), "job")  # type: ignore[arg-type]
    assert next(lines) == "one"
    with pytest.raises(KeyboardInterrupt):
        next(lines)


def test_a_server_that_stays_away_is_given_up_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "PATIENCE_S", -1.0)
    with pytest.raises(ClusterError, match="out of reach .* follow it again later"):
        list(follow_job(Client((3, None), unreachable=1), "job"))


def test_a_log_is_given_in_file_lines_while_it_grows_and_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "CHECK_S", 0.0)
    log, messages = tmp_path / "head.log", []
    growth = [b"", b"one\ntw", b"o \xff", "\nthré".encode()]

    def is_active() -> bool:
        with log.open("ab") as file:
            file.write(growth.pop(0))
        if len(growth) == 2:
            raise ClusterError("Slurm is away")
        return bool(growth)

    assert list(follow_file(log, is_active, messages.append)) == ["one", "two \ufffd", "thré"]
    assert messages == ["Slurm is away, trying again"]
    assert file_lines(log) == ["one", "two \ufffd", "thré"]
    assert file_lines(tmp_path / "none.log") == []


def test_a_file_whose_job_stays_out_of_reach_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "PATIENCE_S", -1.0)

    def is_active() -> bool:
        raise ClusterError("Slurm is away")

    with pytest.raises(ClusterError, match="Slurm is away"):
        list(follow_file(tmp_path / "none.log", is_active))
