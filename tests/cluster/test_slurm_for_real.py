"""A sweep on a real Slurm with real Ray in its jobs: what a user of `--on hpc` does, on one machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import Commands, call
from kept import steps_saved
from own_slurm import OwnSlurm, described
from remote import assert_reports_as_here, lanes_done, stop, trains, until
from sample_sweeps import HOSTILE, LONG, UNIT, many

from cluster.clusters_file import find_cluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]

LANES = 2 * 3 * 15
MANY = many(seeds=15, configurations=3, slots=5, steps=60)
UNUSABLE = """\
lost: {{kind: slurm, partition: nowhere, python: {python}, folder: {shared}/jobs, store: {shared}/store}}
shut: {{kind: slurm, python: {python}, folder: {shared}/clusters.yaml/jobs, store: {shared}/store}}
"""


@pytest.fixture(scope="module")
def folder(slurm: OwnSlurm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The submitter's folder; the folder of the nodes is elsewhere."""
    made, shared = tmp_path_factory.mktemp("submitter"), tmp_path_factory.mktemp("shared")
    files = {"many.yaml": MANY, "long.yaml": LONG, "my_unit.py": UNIT}
    unusable = UNUSABLE.format(python=sys.executable, shared=shared)
    files["clusters.yaml"] = described("hpc", shared, workers="2", head="{cpus: 1}") + unusable
    for name, text in files.items():
        (made / name).write_text(text)
    (shared / "clusters.yaml").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWEEPS_COMPILE", "0")
        patch.chdir(made)
        yield made


def test_impossible_requests_are_refused_and_nothing_is_started(slurm: OwnSlurm, folder: Path) -> None:
    answer = call("submit", "long.yaml", "--on", "lost")
    assert answer.status == 2
    assert "Slurm of 'lost' refuses sbatch: invalid partition specified: nowhere" in answer.err
    answer = call("submit", "long.yaml", "--on", "shut")
    assert answer.status == 2
    assert "cannot be read and written: Not a directory. `folder` of 'shut' in clusters.yaml" in answer.err
    assert call("submit", "long.yaml", "--on", "hpc", "resources.cpus=64").status == 2
    for name in HOSTILE:
        assert call("submit", "long.yaml", "--on", "hpc", f"--name={name}").status == 2, name
        for verb in ("status", "logs", "stop", "fetch"):
            assert call(verb, "--on", "hpc", "--", name).status == 2, (verb, name)
    assert not list(folder.rglob("owned"))
    assert slurm.call("squeue", "--noheader", "--states=all") == ""


def test_a_requeued_worker_changes_nothing_in_the_report(slurm: OwnSlurm, folder: Path, commands: Commands) -> None:
    answer = call("submit", "many.yaml", "--on", "hpc")
    assert answer.status == 0, answer.err
    assert "many is submitted to hpc as job" in answer.out
    assert "nothing to submit" in call("submit", "many.yaml", "--on", "hpc").out
    until(lambda: lanes_done("many", "hpc") > 0, "lane")
    workers = slurm.call("squeue", "--noheader", "--name=sweeps-many-worker", "--format=%F").split()[0]
    slurm.call("scontrol", "requeue", f"{workers}_1")
    assert lanes_done("many", "hpc") < LANES, "nothing was left to be lost"
    watched = call("watch", "many", "--on", "hpc")
    assert watched.status == 0, watched
    assert "many is done on hpc" in watched.out
    assert_reports_as_here("many", "hpc", LANES, folder, commands)


def test_a_stop_keeps_checkpoints_and_a_submit_goes_on_from_them(slurm: OwnSlurm, folder: Path) -> None:
    assert call("submit", "long.yaml", "--on", "hpc").status == 0
    until(lambda: trains("long", "hpc"), "step")
    other = call("submit", "long.yaml", "--on", "hpc", "seeds=7")
    assert other.status == 2
    assert "runs on 'hpc' already, with other settings" in other.err
    assert call("fetch", "long", "--on", "hpc", "--store", "running").status == 0  # while it runs
    stop("long", "hpc")
    assert call("fetch", "long", "--on", "hpc", "--store", "first").status == 0
    more = call("submit", "long.yaml", "--on", "hpc")
    assert "attempt 2" in more.out
    until(lambda: trains("long", "hpc"), "second attempt")
    assert call("stop", "long", "--on", "hpc").status == 0
    assert call("watch", "long", "--on", "hpc").status == 1
    assert call("fetch", "long", "--on", "hpc", "--store", "second").status == 0
    assert 0 < steps_saved(folder / "first") < steps_saved(folder / "second")
    assert not list(Path("/tmp").glob(f"ray-{os.getuid()}-{find_cluster('hpc').status('long').job}"))
