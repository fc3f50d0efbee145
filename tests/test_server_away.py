"""MLflow's server killed while a sweep is written: nothing is lost, nothing is there twice, and the sweep does not wait."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import sqlite3
import threading
import time
import urllib.request
from collections import Counter
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tracked import configuration, ranked, record, records_of, small_sweep

from sweeps.tracking import BackgroundTracker, Tracker, serve, stop
from sweeps.tracking import tracker as tracker_module
from sweeps.tracking.runs import key_of

pytestmark = pytest.mark.slow
CREATED = "2026-01-02T03:04:05+00:00"


def test_a_server_that_is_killed_and_started_again_has_every_run_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient

    monkeypatch.setattr(tracker_module, "LAST_PAUSE_S", 1.0)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    database, uri, sweep = f"sqlite:///{tmp_path}/served.db", f"http://127.0.0.1:{port}", small_sweep()
    one, other = (configuration(sweep, 0, number, state="complete", seeds=range(40)) for number in (0, 1))
    server = serve(database, port=port)
    try:
        background = BackgroundTracker(Tracker(uri, sweep, created=CREATED))
        background.begin()
        for write in (lambda tracker: tracker.begin(), lambda tracker: tracker.start(one)):
            background.write(write)
        while background.pending:
            time.sleep(0.05)
        for seed in range(40):
            background.write(lambda tracker, seed=seed: tracker.lanes(one, [record(one, seed)]))
        with closing(sqlite3.connect(tmp_path / "served.db")) as written:  # some are, when it is killed
            while written.execute("SELECT count(*) FROM tags WHERE key = 'level' AND value = 'seed'").fetchone() == (0,):
                time.sleep(0.01)
        os.killpg(server.pid, signal.SIGKILL)
        stop(server)
        began_s = time.monotonic()
        background.write(lambda tracker: tracker.complete(ranked(other, [record(other, seed) for seed in range(40)])))
        background.write(lambda tracker: tracker.complete(ranked(one, [record(one, seed) for seed in range(40)])))
        background.write(lambda tracker: tracker.finish("done", "", {(one.cell, 0): 1}))
        assert time.monotonic() - began_s < 1.0, "a write waits for nothing"
        while not any("tried again" in entry.getMessage() for entry in caplog.records):
            time.sleep(0.05)
        server = serve(database, port=port)
        assert background.flush()
        client = MlflowClient(uri)
        found = client.search_runs([str(client.get_experiment_by_name("small").experiment_id)], max_results=1000)  # type: ignore[union-attr]
        places = Counter(key_of(run.data.tags) for run in found)
        assert len(places) == 1 + 2 + 80 and set(places.values()) == {1}
        assert {run.info.status for run in found} == {"FINISHED"}
        assert all(run.data.metrics["solved"] for run in found if run.data.tags["level"] == "seed")
    finally:
        stop(server)


def test_a_server_has_the_runs_that_sqlite_has(tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    sweep = small_sweep()
    server = serve(f"sqlite:///{tmp_path}/served.db", port=port)
    try:
        contents = []
        for uri in (f"http://127.0.0.1:{port}", f"sqlite:///{tmp_path}/mlflow.db"):
            one = configuration(sweep, state="complete")
            tracker = Tracker(uri, sweep, created=CREATED)
            tracker.begin()
            tracker.complete(ranked(one, records_of(one)))
            tracker.finish("done", "| table |", {(one.cell, 1): 1})
            client = MlflowClient(uri)
            found = client.search_runs([str(client.get_experiment_by_name("small").experiment_id)])  # type: ignore[union-attr]
            contents.append(
                {
                    run.info.run_name: (
                        run.info.status, run.data.params, run.data.metrics,
                        {key: value for key, value in run.data.tags.items() if key != "mlflow.parentRunId"},
                    )
                    for run in found
                }
            )  # fmt: skip
        assert contents[0] == contents[1] and len(contents[0]) == 5
    finally:
        stop(server)


def losing_answers(server: str, lost: list[str]) -> ThreadingHTTPServer:
    """A proxy before a server. Of the first and of every fifth request for a new run it loses the answer."""
    created = itertools.count()

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            request = urllib.request.Request(
                server + self.path, body or None, {"Content-Type": "application/json"}, method=self.command
            )
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as response:
                status, content = response.status, response.read()
            if self.path.endswith("runs/create") and next(created) % 5 == 0:
                lost.append(self.path)
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = forward

        def log_message(self, *_: object) -> None:
            pass

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    return proxy


def test_a_run_whose_creation_was_not_answered_is_there_once(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    sweep, lost = small_sweep(), list[str]()
    one = configuration(sweep, state="complete", seeds=range(15))
    server = serve(f"sqlite:///{tmp_path}/served.db", port=port)
    proxy = losing_answers(f"http://127.0.0.1:{port}", lost)
    try:
        tracker = Tracker(f"http://127.0.0.1:{proxy.server_port}", sweep, created=CREATED)
        tracker.begin()
        tracker.complete(ranked(one, [record(one, seed) for seed in range(15)]))
        assert len(lost) >= 4
        with closing(sqlite3.connect(tmp_path / "served.db")) as written:
            stages = written.execute("SELECT lifecycle_stage, status, count(*) FROM runs GROUP BY 1, 2").fetchall()
        assert sorted(stages) == [("active", "FINISHED", 16), ("active", "RUNNING", 1)]
    finally:
        proxy.shutdown()
        proxy.server_close()
        stop(server)
