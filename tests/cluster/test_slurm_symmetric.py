"""A sweep in one job on all of Slurm's nodes: `ray symmetric-run`, with a real Slurm and a real Ray.

That command ends every Ray process that it sees, also another's, so the jobs here see their own processes only.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import Commands, call
from own_slurm import OwnSlurm, described
from remote import assert_reports_as_here, stop, trains, until
from sample_sweeps import LONG, UNIT, many

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]

JOBS_APART = True
LANES = 2 * 2 * 5


@pytest.fixture(scope="module")
def folder(slurm: OwnSlurm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The submitter's folder; the folder of the nodes is elsewhere."""
    made, shared = tmp_path_factory.mktemp("submitter"), tmp_path_factory.mktemp("shared")
    files = {"many.yaml": many(seeds=5, configurations=2, slots=5, steps=20), "long.yaml": LONG, "my_unit.py": UNIT}
    files["clusters.yaml"] = described("flat", shared, mode="symmetric", workers="1", resources="{cpus: 2}")
    for name, text in files.items():
        (made / name).write_text(text)
    return made


@pytest.fixture(autouse=True)
def there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEEPS_COMPILE", "0")
    monkeypatch.chdir(folder)


def test_a_sweep_in_one_job_reports_like_a_local_one(slurm: OwnSlurm, folder: Path, commands: Commands) -> None:
    answer = call("submit", "many.yaml", "--on", "flat")
    assert answer.status == 0, answer.err
    watched = call("watch", "many", "--on", "flat")
    assert watched.status == 0, watched
    assert "many is done on flat" in watched.out
    assert_reports_as_here("many", "flat", LANES, folder, commands)


def test_a_stop_reaches_the_driver_and_a_submit_goes_on(slurm: OwnSlurm, folder: Path) -> None:
    assert call("submit", "long.yaml", "--on", "flat").status == 0
    stop("long", "flat")
    assert "attempt 2" in call("submit", "long.yaml", "--on", "flat").out
    until(lambda: trains("long", "flat"), "second attempt")
    assert call("stop", "long", "--on", "flat").status == 0
