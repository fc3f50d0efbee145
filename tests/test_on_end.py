"""A command or URL that is called when a sweep ends, and that never changes how it ended."""

from __future__ import annotations

import json
import shlex
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
from commands import call, train_in_process
from made_sweep import made_sweep

from sweeps.errors import ClusterError, StoreError, UserError
from sweeps.runner import on_end, run
from sweeps.runner.on_end import OnEnd, event, parse
from sweeps.store import HeldByAnother, Store

SMALL = """\
name: small
task: {name: static, operation: sub, input_size: 10}
train: {steps: 20, batch: 8, evaluate_every: 10}
model: linear
seeds: 2
"""
COPY = "import sys; open(sys.argv[1], 'w').write(sys.stdin.read())"


def python(code: str, *arguments: object) -> str:
    return shlex.join([sys.executable, "-c", code, *map(str, arguments)])


def called(given: str | None, warnings: list[str]) -> None:
    found = parse(given, warnings.append)
    assert found is not None
    found.call({"sweep": "é"}, warnings.append)


@contextmanager
def server(status: int = 200) -> Iterator[tuple[str, list[Any]]]:
    """A server on loopback that answers every POST with a status; yields its URL and what it received."""
    received: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            text = self.rfile.read(int(self.headers["Content-Length"]))
            received.append((self.path, self.headers["Content-Type"], self.headers.get("Authorization"), json.loads(text)))
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{serving.server_port}", received
        finally:
            serving.shutdown()
            thread.join()


def test_a_command_gets_the_event_on_its_standard_input_and_no_shell_sees_it(tmp_path: Path) -> None:
    warnings: list[str] = []
    target = tmp_path / "a b; $(touch owned)"
    called(python(COPY, target), warnings)
    assert json.loads(target.read_text()) == {"sweep": "é"}
    assert warnings == []
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


def test_a_url_receives_the_event_as_post() -> None:
    warnings: list[str] = []
    with server() as (host, received):
        called(f"http://{host}/hooks/x?token=1", warnings)
    assert received == [("/hooks/x?token=1", "application/json", None, {"sweep": "é"})]
    assert warnings == []


def test_failures_are_warnings_that_have_no_secret_in_them() -> None:
    warnings: list[str] = []
    with server(status=500) as (host, received):
        called(f"http://ann:s3cret@{host}/hooks/s3cret?token=s3cret", warnings)
    assert received[0][2].startswith("Basic ")
    called(f"http://ann:s3cret@{host}/s3cret", warnings)  # nobody listens any more
    assert warnings == [
        f"on end, http://{host} failed: status 500. The sweep is not affected",
        f"on end, http://{host} failed: ConnectionError. The sweep is not affected",
    ]


def test_a_redirect_is_a_failure_and_is_not_followed() -> None:
    warnings: list[str] = []
    with server(status=301) as (host, received):
        called(f"http://{host}/old", warnings)
    assert len(received) == 1
    assert warnings == [f"on end, http://{host} failed: status 301, redirected; give the final URL. The sweep is not affected"]


def test_a_server_that_sends_slowly_is_left_after_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_end, "URL_S", 0.5)
    warnings: list[str] = []
    ended = threading.Event()

    def send(connection: socket.socket) -> None:
        with suppress(OSError):
            while not ended.wait(0.05):
                connection.sendall(b"H")

    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with listening.accept()[0] as connection:
                connection.sendall(b"HTTP/1.1 200 ")
                send(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        port = listening.getsockname()[1]
        called(f"http://127.0.0.1:{port}/", warnings)
        ended.set()
        thread.join()
    assert warnings == [f"on end, http://127.0.0.1:{port} failed: no answer within 1 s. The sweep is not affected"]


def test_what_json_cannot_say_is_a_warning_and_an_address_of_ipv6_keeps_its_brackets() -> None:
    warnings: list[str] = []
    OnEnd(("true",)).call({"best": float("nan")}, warnings.append)
    assert "ValueError" in warnings[0]
    assert OnEnd(url="http://ann:s3cret@[::1]:80/x").shown == "http://[::1]:80"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import sys; print('first'); sys.exit('no disk')", "exit status 1, no disk"),
        ("import os; os.kill(os.getpid(), 9)", "exit status -9"),
        ("raise SystemExit('postgresql://ann:s3cret@host/db')", "exit status 1, postgresql://***@host/db"),
    ],
)
def test_a_command_that_fails_is_a_warning_with_the_last_line_of_its_output(code: str, reason: str) -> None:
    warnings: list[str] = []
    called(python(code), warnings)
    assert warnings == [f"on end, the command {sys.executable} failed: {reason}. The sweep is not affected"]


def test_a_command_that_hangs_is_ended_with_what_it_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(on_end, "COMMAND_S", 2.0)
    warnings: list[str] = []
    called(shlex.join(["sh", "-c", 'sleep 600 & echo $! >"$0"; wait', str(tmp_path / "pid")]), warnings)
    assert warnings == ["on end, the command sh failed: it took longer than 2 s. The sweep is not affected"]
    number = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if psutil.Process(number).status() == psutil.STATUS_ZOMBIE:
                return
        except psutil.NoSuchProcess:
            return
        time.sleep(0.01)
    pytest.fail("what the command started is still running")


def test_the_option_goes_before_the_variable_and_empty_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []
    assert parse(None, warnings.append) is None
    monkeypatch.setenv("SWEEPS_ON_END", "https://host/x")
    assert parse(None, warnings.append) == OnEnd(url="https://host/x")
    assert parse("true 'a b'", warnings.append) == OnEnd(("true", "a b"))
    assert parse("", warnings.append) is None
    assert warnings == []
    assert parse("no-such-program x", warnings.append) == OnEnd(("no-such-program", "x"))
    assert "--on-end: there is no program 'no-such-program' on this machine" in warnings[0]


@pytest.mark.parametrize(
    "given", ["ftp://host/x", "https://", "http://host:99999/", "https://host/ x", "echo 'a", "file:///etc"]
)
def test_what_is_neither_a_command_nor_a_url_is_refused(given: str) -> None:
    with pytest.raises(UserError, match="--on-end"):
        parse(given, lambda _: None)


def test_the_event_has_the_best_configuration_the_counts_and_the_command_of_the_report(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        made_sweep(store)
        found = event(store, "small", "stopped", "interrupted", " --store x")
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert (found["sweep"], found["state"], found["reason"]) == ("small", "stopped", "interrupted")
    assert found["report"] == "sweeps report small --store x"
    assert found["question"].startswith("Which unit")
    assert (found["best"]["cell"], found["best"]["number"]) == ({"model": "nau"}, 1)
    assert found["best"]["par2"] == 5000.0
    assert {"lanes": 12, "solved": 5, "diverged": 1, "errors": 1}.items() <= found["counts"].items()


@pytest.fixture
def _in_process(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEEPS_STORE", str(folder / "results"))
    monkeypatch.setattr(run, "_train", lambda driver, console, workers: train_in_process(driver))
    (folder / "small.yaml").write_text(SMALL)


@pytest.mark.usefixtures("_in_process")
def test_run_calls_it_once_the_report_is_printed_and_keeps_its_exit_status(folder: Path) -> None:
    answer = call("run", "small.yaml", "--no-mlflow", "--on-end", python(COPY, "event.json"))
    assert (answer.status, answer.err) == (0, "")
    received = json.loads((folder / "event.json").read_text())
    assert (received["sweep"], received["state"], received["counts"]["lanes"]) == ("small", "done", 2)
    answer = call("run", "small.yaml", "--no-mlflow", "--on-end", python("raise SystemExit(7)"))
    assert answer.status == 0
    assert "warning: on end, the command " in answer.err


@pytest.mark.usefixtures("_in_process")
def test_a_sweep_that_fails_calls_it_and_one_that_is_refused_does_not(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEEPS_ON_END", python(COPY, "event.json"))
    assert call("run", "small.yaml", "train.stepz=3", "--no-mlflow").status == 2
    assert not (folder / "event.json").exists()

    def fail(*_: object) -> None:
        raise ClusterError("no node is left")

    monkeypatch.setattr(run, "_train", fail)
    assert call("run", "small.yaml", "--no-mlflow").status == 1
    received = json.loads((folder / "event.json").read_text())
    assert (received["state"], received["reason"], received["best"]) == ("failed", "no node is left", None)


@pytest.mark.usefixtures("_in_process")
def test_any_error_after_the_start_calls_it_but_a_sweep_that_another_driver_took_over_has_not_ended(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWEEPS_ON_END", python(COPY, "event.json"))
    error: Exception = HeldByAnother("taken over", host="h", pid=1, since="x")

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(run, "_train", fail)
    assert call("run", "small.yaml", "--no-mlflow").status == 1
    assert not (folder / "event.json").exists()
    error = RuntimeError("a bug")
    assert call("run", "small.yaml", "--no-mlflow", bug=True).status != 0
    received = json.loads((folder / "event.json").read_text())
    assert (received["state"], received["reason"]) == ("failed", "RuntimeError: a bug")


@pytest.mark.usefixtures("_in_process")
@pytest.mark.parametrize(
    ("place", "error", "reason", "bug"),
    [
        ("sweeps.results.report", StoreError("the disk is gone"), "the report failed: the disk is gone\nThe sweep st", False),
        ("sweeps.results.as_markdown", KeyError("lr"), "the report failed: KeyError: 'lr'", True),
        ("sweeps.results.as_markdown", KeyboardInterrupt(), "the report failed: KeyboardInterrupt", False),
    ],
)
def test_a_report_that_fails_calls_it_with_the_state_and_the_failure(
    folder: Path, monkeypatch: pytest.MonkeyPatch, place: str, error: BaseException, reason: str, bug: bool
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(place, fail)
    answer = call("run", "small.yaml", "--no-mlflow", "--on-end", python(COPY, "event.json"), bug=bug)
    assert answer.status not in (0, 2)
    received = json.loads((folder / "event.json").read_text())
    assert (received["state"], received["counts"]["lanes"]) == ("done", 2)
    assert received["reason"].startswith(reason)


def test_the_event_of_a_store_that_cannot_be_read_has_the_state_and_the_reason(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        found = event(store, "small", "failed", "the disk is gone")
    assert (found["state"], found["reason"], found["counts"], found["best"]) == ("failed", "the disk is gone", {}, None)
    assert json.dumps(found, allow_nan=False)
