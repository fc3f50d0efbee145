"""`sweeps list clusters` and `sweeps cluster show`: clean text on stdout, advice on stderr, nothing started."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from kinds import CLOUDS, KUBERNETES, SLURM

from sweeps.cli import main

FILE = f"""
lab: {{kind: ray, address: "http://head:8265", token_variable: LAB_TOKEN}}
{KUBERNETES}{SLURM}{CLOUDS}"""


@pytest.fixture(autouse=True)
def described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "clusters.yaml").write_text(FILE)
    monkeypatch.delenv("SWEEPS_CLUSTERS", raising=False)
    monkeypatch.chdir(tmp_path)


def sweeps(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["sweeps", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_clusters_are_listed_with_what_they_are(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweeps(monkeypatch, "list", "clusters") == 0
    listed = capsys.readouterr().out
    assert [line.split()[0] for line in listed.splitlines()] == [
        "local", "lab", "kube", "hpc", "flat", "east", "west",
    ]  # fmt: skip
    assert "slurm: 2 worker nodes of 8 CPUs and 1 GPU" in listed
    assert "hunter2" not in listed


@pytest.mark.parametrize("name", ["kube", "east", "west"])
def test_stdout_is_yaml_and_nothing_else(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweeps(monkeypatch, "cluster", "show", name) == 0
    printed = capsys.readouterr()
    assert all(isinstance(document, dict) for document in yaml.safe_load_all(printed.out))
    assert "start it with: sweeps cluster show" in printed.err


def test_a_sweep_file_becomes_a_rayjob(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweeps(monkeypatch, "cluster", "show", "kube", "--sweep", "quickstart") == 0
    kinds = [document["kind"] for document in yaml.safe_load_all(capsys.readouterr().out)]
    assert kinds == ["ConfigMap", "RayJob"]


def test_batch_scripts_and_calls_are_shown_without_secrets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweeps(monkeypatch, "cluster", "show", "hpc", "--sweep", "nau-addition") == 0
    printed = capsys.readouterr()
    assert "#### head.sh" in printed.out and "#### worker.sh" in printed.out
    assert "sbatch --parsable --dependency=after:$head_job" in printed.out
    assert "hunter2" not in printed.out + printed.err
    assert sweeps(monkeypatch, "cluster", "show", "lab") == 0
    assert "submitted to http://head:8265, with the token in $LAB_TOKEN" in capsys.readouterr().out
    assert sweeps(monkeypatch, "cluster", "show", "local") == 0
    assert "sweeps run my-sweep.yaml" in capsys.readouterr().out


def test_an_unknown_cluster_and_a_broken_file_end_with_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert sweeps(monkeypatch, "cluster", "show", "kubr") == 2
    assert "Did you mean 'kube'?" in capsys.readouterr().err
    (tmp_path / "clusters.yaml").write_text("a: {kind: ray}\nb: {kind: slum}\n")
    assert sweeps(monkeypatch, "list", "clusters") == 2
    output = capsys.readouterr().err
    assert "clusters.yaml: 2 faults" in output and "line 2: b.kind: unknown kind 'slum'" in output


def test_the_program_that_waits_for_workers_is_there_for_batch_scripts() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cluster.slurm.wait_for_workers", "--help"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and "--timeout-s" in done.stdout
