"""The `sweeps` command for tests: run in this process, or started as one of its own that can be killed."""

from __future__ import annotations

import dataclasses
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import psutil

from sweeps.cli import main
from sweeps.runner.driver import Driver, PackRequest
from sweeps.runner.worker import PackRun

PATIENCE_S = 200.0  # cores are shared, and Ray's workers have a low priority


class Answer(NamedTuple):
    status: int
    out: str
    err: str


def call(*arguments: str, bug: bool = False) -> Answer:
    """Run the command in this process; return exit status, output and errors. A `bug` is expected to print a traceback."""
    status, out, err = 0, io.StringIO(), io.StringIO()
    with mock.patch.object(sys, "argv", ["sweeps", *arguments]), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as ended:
            status = int(ended.code or 0)
    assert ("Traceback" in out.getvalue() + err.getvalue()) is bug, err.getvalue()
    return Answer(status, out.getvalue(), err.getvalue())


def plain(request: PackRequest) -> PackRequest:
    """Return the request of a pack that is not compiled, whatever the sweep's numerics are."""
    return dataclasses.replace(request, numerics=dataclasses.replace(request.numerics, compiled=False))


def reports(name: str, store: str) -> list[str]:
    """Return the reports that must be equal byte for byte, however a sweep was run."""
    answers = [
        call("report", name, "--no-timing", *form, "--store", store) for form in ([], ["--format", "json"], ["--format", "csv"])
    ]
    assert all(answer.status == 0 for answer in answers)
    return [answer.out for answer in answers]


def train_in_process(driver: Driver) -> None:
    """Train the packs of a driver one after another in this process, uncompiled, without Ray."""
    packs = 0
    while (request := driver.next_pack(f"pack {packs}")) is not None:
        pack = PackRun(plain(request))
        while not pack.done:
            driver.receive(request.pack_id, pack.work())
        driver.pack_ended(request.pack_id)
        packs += 1


Process = subprocess.Popen[str]
Start = Callable[..., Process]


def proceed(process: Process) -> None:
    """Write the line that a process of the fixture `python` waits for."""
    assert process.stdin is not None
    process.stdin.write("go on\n")
    process.stdin.flush()


def output_line(process: Process) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


class Started:
    """A command in a session of its own, so that the processes that it starts can be found and ended.

    `environment` is added to this process's own.
    """

    def __init__(self, folder: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        self._output = folder / f"{arguments[0]}-{time.monotonic_ns()}.txt"
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "sweeps.cli", *arguments],  # -P: as the command `sweeps`
                cwd=folder, env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
                # In the background of a shell SIGINT is ignored, which the command would inherit.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )  # fmt: skip

    @property
    def output(self) -> str:
        return self._output.read_text(errors="replace")

    def until(self, happened: Callable[[], object], what: str) -> None:
        """Wait until `happened()`; fail if the command ends before."""
        deadline = time.monotonic() + PATIENCE_S
        while not happened():
            assert self.process.poll() is None, f"it ended before {what}:\n{self.output}"
            assert time.monotonic() < deadline, f"no {what} within {PATIENCE_S:g} s:\n{self.output}"
            time.sleep(0.1)

    def ended(self) -> int:
        """Wait for its end and return its exit status."""
        status = self.process.wait(PATIENCE_S)
        assert "Traceback" not in self.output, self.output
        return status

    def interrupt(self) -> None:
        """Press Ctrl-C in its terminal: every process of the group receives SIGINT."""
        os.killpg(self.process.pid, signal.SIGINT)

    def family(self) -> list[psutil.Process]:
        """Return the processes that it started and that are still alive."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, ProcessLookupError):
                alive = process.status() != psutil.STATUS_ZOMBIE
                if alive and process.pid != self.process.pid and os.getsid(process.pid) == self.process.pid:
                    found.append(process)
        return found

    def workers(self) -> list[psutil.Process]:
        """Return Ray's processes that train."""
        found = []
        for process in self.family():
            with suppress(psutil.Error):
                if " ".join(process.cmdline()).startswith(("ray::PackTrial", "ray::ResourceTrainable")):
                    found.append(process)
        return found

    def clear_away(self, patience_s: float = 0.0) -> list[str]:
        """Kill the processes that are left of it after a while, and return their command lines."""
        deadline = time.monotonic() + patience_s
        while self.family() and time.monotonic() < deadline:
            time.sleep(0.2)
        left = []
        if self.process.poll() is None:
            self.process.kill()
        for process in self.family():
            with suppress(psutil.Error):
                left.append(" ".join(process.cmdline())[:100])
                process.kill()
        self.process.wait(10)
        return left


class Commands:
    """Starts commands; iterating over it returns them, so that the fixture can end them."""

    def __init__(self) -> None:
        self._all: list[Started] = []

    def start(self, folder: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> Started:
        self._all.append(Started(folder, *arguments, environment=environment))
        return self._all[-1]

    def __iter__(self) -> Iterator[Started]:
        return iter(self._all)
