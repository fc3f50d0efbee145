"""`sweeps list clusters` and `sweeps cluster show`: clean text on stdout, advice on stderr, nothing started."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from commands import call
from kinds import CLOUDS, KUBERNETES, SLURM

from cluster import local

FILE = f"""
lab: {{kind: ray, address: "http://head:8265", token_variable: LAB_TOKEN}}
{KUBERNETES}{SLURM}{CLOUDS}"""


@pytest.fixture(autouse=True)
def described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "clusters.yaml").write_text(FILE)
    monkeypatch.chdir(tmp_path)


def test_clusters_are_listed_with_what_they_are() -> None:
    listed = call("list", "clusters")
    assert listed.status == 0
    assert [line.split()[0] for line in listed.out.splitlines()] == ["local", "lab", "kube", "hpc", "flat", "east", "west"]
    assert "slurm: 2 worker nodes of 8 CPUs and 1 GPU" in listed.out
    assert "hunter2" not in listed.out


@pytest.mark.parametrize("name", ["kube", "east", "west"])
def test_stdout_is_yaml_and_nothing_else(name: str) -> None:
    shown = call("cluster", "show", name)
    assert all(isinstance(document, dict) for document in yaml.safe_load_all(shown.out))
    assert shown.status == 0 and "start it with: sweeps cluster show" in shown.err


def test_a_sweep_file_becomes_a_rayjob() -> None:
    shown = call("cluster", "show", "kube", "--sweep", "quickstart").out
    assert [document["kind"] for document in yaml.safe_load_all(shown)] == ["ConfigMap", "RayJob"]


def test_batch_scripts_and_calls_are_shown_without_secrets() -> None:
    shown = call("cluster", "show", "hpc", "--sweep", "nau-addition")
    assert "#### head.sh" in shown.out and "#### worker.sh" in shown.out
    assert "sbatch --parsable --dependency=after:$head_job" in shown.out
    assert "hunter2" not in shown.out + shown.err
    assert "submitted to http://head:8265, with the token in $LAB_TOKEN" in call("cluster", "show", "lab").out
    assert "sweeps run my-sweep.yaml" in call("cluster", "show", "local").out


def test_the_local_cluster_is_listed_as_it_is_up_and_shown_with_the_store_that_it_uses(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr(local, "current", lambda: None)
    assert "local: 1 worker node of 1 CPU (not up)" in call("list", "clusters").out
    nodes = [{"pid": pid, "cpus": 2} for pid in range(3)]
    monkeypatch.setattr(local, "current", lambda: local.RunningCluster("m", 1, 0.0, "", "", "", "", nodes))
    assert "local: 3 nodes of 2 CPUs, up" in call("list", "clusters").out
    shown = call("cluster", "show", "local", "--sweep", "quickstart").out
    assert "on Ray's 3 nodes:" in shown and f"SWEEPS_STORE={tmp_path}/data/sweeps/results " in shown


def test_an_unknown_cluster_and_a_broken_file_end_with_2() -> None:
    unknown = call("cluster", "show", "kubr")
    assert (unknown.status, "Did you mean 'kube'?" in unknown.err) == (2, True)
    Path("clusters.yaml").write_text("a: {kind: ray}\nb: {kind: slum}\n")
    broken = call("list", "clusters")
    assert broken.status == 2
    assert "clusters.yaml: 2 faults" in broken.err and "line 2: b.kind: unknown kind 'slum'" in broken.err


def test_the_program_that_waits_for_workers_is_there_for_batch_scripts() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cluster.slurm.wait_for_workers", "--help"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and "--timeout-s" in done.stdout
