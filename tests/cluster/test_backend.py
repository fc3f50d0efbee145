"""The contract of backends: what every backend does alike, and what they share."""

from __future__ import annotations

import inspect
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kinds import CLOUDS, KUBERNETES, SLURM, SWEEP

import cluster
from cluster import local
from cluster.backend import (
    Backend,
    EarlierJob,
    State,
    Submission,
    Submitted,
    backends,
    check_fits,
    check_sweep_name,
    digest_of,
    next_attempt,
)
from cluster.clusters_file import parse_clusters
from cluster.description import Cluster, NodeResources
from cluster.ray_jobs import JobServer
from sweeps.config.faults import SweepFileError
from sweeps.errors import SweepsError, UserError
from sweeps.store import Store

CLUSTERS = f"""
lab: {{kind: ray, address: "http://127.0.0.1:1", token_variable: LAB_TOKEN}}
{KUBERNETES}{SLURM}{CLOUDS}"""
ONE_OF_EACH = {"local": "local", "ray": "lab", "kubernetes": "kube", "slurm": "hpc", "aws": "east", "gcp": "west"}
every_kind = pytest.mark.parametrize("kind", ONE_OF_EACH)
SMALL = Submission("small", "name: small\n")


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine from which no cluster can be reached."""
    (tmp_path / "programs").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "programs"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("LAB_TOKEN", "f00d" * 16)
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def one(kind: str) -> Backend[Any]:
    return parse_clusters(CLUSTERS, "clusters.yaml")[ONE_OF_EACH[kind]]


def verbs(backend: Backend[Any], name: str, store: Store) -> dict[str, Callable[[], object]]:
    """Every verb of the command that goes to the cluster."""
    return {
        "submit": lambda: backend.submit(Submission(name)),
        "status": lambda: backend.status(name),
        "logs": lambda: list(backend.logs(name, False, print)),
        "watch": lambda: list(backend.logs(name, True, print)),
        "stop": lambda: backend.stop(name),
        "fetch": lambda: backend.fetch(name, store),
    }


# ------------------------------------------------------------------------------------- every backend alike


def test_the_registry_has_every_backend_and_each_is_complete() -> None:
    assert set(backends()) == set(ONE_OF_EACH)
    assert list(backends()) == sorted(backends())
    for kind, backend in backends().items():
        assert backend.kind == kind
        assert not inspect.isabstract(backend)
        assert issubclass(backend.schema, Cluster)


@every_kind
def test_a_description_is_read_shown_and_explained_without_a_connection_or_a_secret(
    kind: str, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("nothing may be reached")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(subprocess, "Popen", refuse)
    backend = one(kind)
    assert backend.name == ONE_OF_EACH[kind]
    assert re.match(rf"{kind}: .*\d+ worker node", backend.where)
    for submission in (None, SWEEP):
        text, advice = backend.show(submission), backend.advice(submission)
        assert text.strip() and text.endswith("\n")
        assert all(line and "\n" not in line for line in advice)
        assert "hunter2" not in "".join([text, backend.where, repr(backend), *advice])


@every_kind
def test_a_wrong_field_is_refused_with_the_nearest_name_or_its_kind(kind: str) -> None:
    other = "namespace" if kind != "kubernetes" else "partition"
    text = re.sub(rf"(\b{ONE_OF_EACH[kind]}:[\s{{]+)kind", r"\1setp: [x]\n  kind", "local: {kind: local}\n" + CLUSTERS)
    text = text.replace("{setp: [x]\n  kind", "{setp: [x], kind")
    with pytest.raises(SweepFileError, match=r"setp: unknown key 'setp'\. Did you mean 'setup'\?"):
        parse_clusters(text, "clusters.yaml")
    with pytest.raises(SweepFileError, match=f"is a setting of kind .*, not of {kind}"):
        parse_clusters(text.replace("setp: [x]", f"{other}: x"), "clusters.yaml")


@every_kind
def test_a_cluster_out_of_reach_is_an_error_of_ours_with_advice(kind: str, alone: Path) -> None:
    with Store(alone / "store") as store:
        for verb, do in verbs(one(kind), "small", store).items():
            with pytest.raises(SweepsError) as raised:
                do()
            assert re.search(r"local cluster|127\.0\.0\.1|sbatch|kubectl|ray up", str(raised.value)), verb


@every_kind
@pytest.mark.parametrize("name", ["a b", "$(touch owned)", "../up", "-rf", "", "a;b", "a\nb"])
def test_a_name_that_is_not_allowed_reaches_no_command_and_no_folder(name: str, kind: str, alone: Path) -> None:
    with Store(alone / "store") as store:
        before = sorted(alone.rglob("*"))
        for verb, do in verbs(one(kind), name, store).items():
            with pytest.raises(UserError) as raised:
                do()
            cloud = kind in ("aws", "gcp") and verb != "submit"
            wanted = "is started first" if cloud else "cannot be the name of a sweep on a cluster"
            assert wanted in str(raised.value), verb
        assert sorted(alone.rglob("*")) == before


@pytest.fixture
def empty(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clusters that answer and have no job."""
    token = alone / "token"
    token.write_text("f00d" * 16)
    running = local.RunningCluster("m", 1, 0.0, "http://127.0.0.1:1", "", str(token), "", [])
    monkeypatch.setattr(local, "current", lambda: running)
    monkeypatch.setattr(JobServer, "check", lambda self: None)
    monkeypatch.setattr(JobServer, "client", lambda self: SimpleNamespace(list_jobs=list))
    for program in ("sbatch", "scancel", "scontrol", "squeue", "srun", "kubectl"):
        path = alone / "programs" / program
        path.write_text("#!/bin/sh\n" + ("echo '{\"items\": []}'\n" if program == "kubectl" else ""))
        path.chmod(0o755)


@pytest.mark.parametrize("kind", sorted(set(ONE_OF_EACH) - {"aws", "gcp"}))
def test_a_sweep_that_was_never_submitted_is_refused_by_its_name(kind: str, empty: None, tmp_path: Path) -> None:
    with Store(tmp_path / "store") as store:
        calls = verbs(one(kind), "small", store)
        for verb in ("status", "logs", "watch", "stop", *(["fetch"] if kind != "kubernetes" else [])):
            with pytest.raises(UserError, match=f"no sweep named 'small' was submitted to '{ONE_OF_EACH[kind]}'"):
                calls[verb]()


# -------------------------------------------------------------------------------------- the registry


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "modules").mkdir()
    monkeypatch.setattr(cluster, "__path__", [*cluster.__path__, str(tmp_path / "modules")])
    yield
    sys.modules.pop("cluster.toy", None)


def test_a_backend_may_build_on_another_and_a_kind_that_exists_is_refused(toy: None, tmp_path: Path) -> None:
    path = tmp_path / "modules" / "toy.py"
    path.write_text("from cluster.slurm import SlurmBackend\n\n\nclass PbsBackend(SlurmBackend):\n    kind = 'pbs'\n")
    assert set(backends()) == {*ONE_OF_EACH, "pbs"}
    sys.modules.pop("cluster.toy")
    path.write_text(path.read_text().replace("'pbs'", "'slurm'"))
    with pytest.raises(TypeError, match="two backends are of kind 'slurm'"):
        backends()


# -------------------------------------------------------------- whether a submission is a new job


def after(*earlier: tuple[str, str, int, State], digest: str = "same") -> int | Submitted:
    states = {job: state for job, _, _, state in earlier}
    looked: list[str] = []

    def state_of(job: str) -> State:
        looked.append(job)
        return states[job]

    found = next_attempt([EarlierJob(*job[:3]) for job in earlier], digest, SMALL, "lab", state_of)
    assert len(looked) <= 2
    return found


def test_the_first_submission_is_attempt_one() -> None:
    assert after() == 1


@pytest.mark.parametrize("state", ["waiting", "running", "done"])
def test_the_same_content_that_runs_or_is_done_is_not_submitted_again(state: State) -> None:
    assert after(("7", "same", 3, state)) == Submitted("7", state, False, 3)


@pytest.mark.parametrize("state", ["stopped", "failed"])
def test_the_same_content_that_ended_early_is_begun_again(state: State) -> None:
    assert after(("6", "same", 1, "failed"), ("7", "same", 1, "stopped"), ("8", "same", 2, state)) == 3


@pytest.mark.parametrize("state", ["waiting", "running"])
def test_other_content_under_a_name_that_runs_is_refused(state: State) -> None:
    with pytest.raises(UserError, match=r"'small' runs on 'lab' already.*job 8.*stop small --on lab.*--name"):
        after(("7", "same", 1, "done"), ("8", "other", 1, state))


def test_attempts_at_other_content_are_not_counted() -> None:
    assert after(("7", "other", 5, "done")) == 1
    assert after(("7", "same", 1, "failed"), ("8", "other", 5, "stopped")) == 2


def test_content_that_was_done_is_not_begun_again_after_other_content_was_stopped() -> None:
    assert after(("7", "same", 1, "done"), ("8", "other", 1, "stopped")) == Submitted("7", "done", False, 1)


def test_a_digest_distinguishes_names_contents_and_their_borders() -> None:
    made = [
        digest_of({"a": b"bc"}),
        digest_of({"ab": b"c"}),
        digest_of({"a": b"b", "c": b""}),
        digest_of({"a": b"bc"}, b"more"),
    ]
    assert len(set(made)) == len(made)
    assert digest_of({"a": b"1", "b": b"2"}) == digest_of({"b": b"2", "a": b"1"})


# ------------------------------------------------------------------- whether a worker fits on a node

NODES = [NodeResources(cpus=8, memory_gb=16.0), NodeResources(cpus=2, gpus=4, memory_gb=64.0)]


def wants(cpus: float, gpus: float = 0.0, memory_gb: float | None = None) -> Submission:
    return Submission("small", "", {}, cpus, gpus, memory_gb)


@pytest.mark.parametrize("fits", [wants(8), wants(2, 4, 64.0), wants(0.5, 0.25), wants(1, memory_gb=64.0)])
def test_a_worker_that_fits_on_one_node_is_accepted(fits: Submission) -> None:
    check_fits(fits, NODES, "node of 'lab'")


@pytest.mark.parametrize("short", [wants(9), wants(8, 1), wants(1, 5), wants(1, 0, 65.0), wants(8, 0, 17.0)])
def test_a_worker_that_fits_only_on_several_nodes_together_is_refused(short: Submission) -> None:
    with pytest.raises(UserError, match=r"no node of 'lab' has that: the largest have 8 CPUs, 4 GPUs and 64 GB"):
        check_fits(short, NODES, "node of 'lab'")


def test_a_node_without_memory_gb_has_enough_and_no_node_at_all_is_not_checked() -> None:
    check_fits(wants(1, memory_gb=999.0), [NodeResources(cpus=1)], "node")
    check_fits(wants(999), [], "node")


# -------------------------------------------------------------------------------------------- names


@settings(deadline=None)  # a busy machine is slow
@given(st.text(max_size=60))
def test_only_a_sweep_s_own_kind_of_name_travels_to_ray_and_slurm(name: str) -> None:
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        assert check_sweep_name(name) == name
    else:
        with pytest.raises(UserError, match="cannot be the name of a sweep on a cluster"):
            check_sweep_name(name)
