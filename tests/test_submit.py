"""`sweeps submit` refuses at once what the cluster would refuse later, all faults together, and starts nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from commands import call, train_in_process
from made_sweep import made_sweep

from cluster import clusters_file
from cluster.backend import Backend, JobStatus, State, Submission, Submitted, all_at_once
from cluster.description import Cluster, NodeResources
from cluster.local import LocalBackend
from cluster.ray_jobs import RayJobsBackend
from sweeps.errors import ClusterError, UserError
from sweeps.runner import run
from sweeps.store import Store, copy_sweep

SMALL = """\
name: small
task: {name: static, operation: sub, input_size: 10}
train: {steps: 20, batch: 8, evaluate_every: 10}
model: linear
seeds: 2
"""


class Lab(Backend[Cluster]):
    """A cluster of one node whose store is a folder here."""

    kind = "lab"

    def __init__(self, cluster: Cluster, store: str | None) -> None:
        super().__init__(cluster)
        self.store, self.state, self.submitted = store, None, list[Submission]()
        self.answers, self.checks = True, 0

    state: State | None

    @property
    def store_here(self) -> str | None:
        return self.store

    def check(self, submission: Submission) -> None:
        if not self.answers:
            raise ClusterError("lab does not answer")
        self.checks += 1
        super().check(submission)

    def submit(self, submission: Submission) -> Submitted:
        self.check_once(submission)
        self.submitted.append(submission)
        return Submitted("job-1", "waiting", True)

    def status(self, name: str) -> JobStatus:
        if self.state is None:
            raise UserError("never submitted")
        return JobStatus("job-1", self.state, 1, "today")

    def logs(self, name: str, follow: bool, on_message: Callable[[str], None]) -> Iterator[str]:
        yield from ()

    def stop(self, name: str) -> JobStatus:
        return self.status(name)

    def fetch(self, name: str, store: Store) -> int:
        return 0

    def show(self, submission: Submission | None) -> str:
        return ""


@pytest.fixture
def lab(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """The cluster `lab`, in whose store the sweep `small` was run to its end."""
    monkeypatch.setenv("SWEEPS_STORE", str(folder / "results"))
    monkeypatch.setattr(run, "_train", lambda driver, console, workers: train_in_process(driver))
    (folder / "small.yaml").write_text(SMALL)
    described = Cluster(name="lab", resources=NodeResources(cpus=4, gpus=0, memory_gb=8))
    made = Lab(described, str(folder / "results"))
    monkeypatch.setattr(clusters_file, "find_cluster", lambda name: made)
    return made


def submit(*more: str) -> Any:
    return call("submit", "small.yaml", *more, "--on", "lab")


def test_a_sweep_that_the_store_does_not_have_is_submitted_and_no_store_is_made(lab: Lab, folder: Path) -> None:
    assert submit().status == 0
    assert [one.name for one in lab.submitted] == ["small"]
    assert lab.checks == 1
    assert not (folder / "results").exists()


def test_a_file_that_contradicts_the_sweep_in_the_clusters_store_is_refused(lab: Lab) -> None:
    assert call("run", "small.yaml", "--no-mlflow").status == 0
    assert submit().status == 0
    assert submit("seeds=3").status == 0  # an extension
    refused = submit("train.lr=0.5")
    assert refused.status == 2
    assert "sweep 'small' in " in refused.err and " has begun, and " in refused.err and "train.lr" in refused.err
    assert submit("train.lr=0.5", "--name", "other").status == 0
    assert [one.name for one in lab.submitted] == ["small", "small", "other"]


def test_another_file_of_the_same_name_from_another_folder_is_refused_as_long_as_the_first_one_is_there(
    lab: Lab, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local, started = LocalBackend(Cluster(name="local", store=str(folder / "results"))), list[str]()

    def start(self: object, submission: Submission) -> Submitted:
        started.append(submission.text)
        fresh = started.count(submission.text) == 1
        return Submitted("job-1", "waiting" if fresh else "done", fresh)

    monkeypatch.setattr(RayJobsBackend, "submit", start)
    monkeypatch.setattr(LocalBackend, "check", lambda *_: None)
    monkeypatch.setattr(clusters_file, "find_cluster", lambda name: local)
    assert submit().status == 0
    assert call("run", "small.yaml", "--no-mlflow").status == 0  # as its driver does
    (other := tmp_path / "other").mkdir()
    (other / "small.yaml").write_text(SMALL)
    assert call("submit", str(other / "small.yaml"), "--on", "local").status == 0  # the same sweep
    assert submit("seeds=3").status == 0  # an extension, from the same folder as the first
    refused = call("submit", str(other / "small.yaml"), "seeds=4", "--on", "local")
    assert refused.status == 2
    assert f"submitted from another folder, with {folder / 'small.yaml'}, and {other / 'small.yaml'} differs" in refused.err
    monkeypatch.setattr(RayJobsBackend, "stop", lambda self, name: JobStatus("job-1", "stopped", 1, "today"))
    assert call("stop", "small", "--on", "local").err == ""
    monkeypatch.chdir(other)
    assert call("stop", "small", "--on", "local").err == f"note: small was submitted to local with {folder / 'small.yaml'}\n"
    (folder / "small.yaml").rename(folder / "moved.yaml")
    assert call("submit", str(other / "small.yaml"), "seeds=4", "--on", "local").status == 0
    assert len(started) == 4


def test_a_sweep_that_was_fetched_while_it_ran_is_listed_with_the_verb_of_its_cluster(
    lab: Lab, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(folder / "there") as there:
        made_sweep(there)
        there.set_state("small", "running")
    monkeypatch.setattr(lab, "fetch", lambda name, store: copy_sweep(Store(folder / "there"), store, name))
    monkeypatch.setattr(run, "sync", lambda *_: None)
    assert call("fetch", "small", "--on", "lab").status == 0
    listed = call("list").out
    assert "small  running on lab when it was fetched: `sweeps fetch small --on lab`" in listed
    assert "sweeps run" not in listed


def test_all_faults_are_reported_together_and_nothing_is_submitted(lab: Lab, folder: Path, tmp_path: Path) -> None:
    assert call("run", "small.yaml", "--no-mlflow").status == 0
    outside = tmp_path.parent / f"{tmp_path.name}-outside.py"
    outside.write_text((Path(__file__).parent / "sample_sweeps.py").read_text().split("'''")[1].removeprefix("\\\n"))
    refused = submit(f"model={outside}", "resources.cpus=64", "resources.gpus=1", "budget.cost_usd=3")
    assert refused.status == 2
    for part in (
        "4 faults:",
        "is outside the folder that the sweep is submitted from",
        "the price of cluster 'lab' is not known",
        " has begun, and ",
        "one worker needs 64 CPUs, 1 GPUs, and no node of 'lab' has that: the largest have 4 CPUs, 0 GPUs and 8 GB",
    ):
        assert part in refused.err, refused.err
    assert lab.submitted == []


def test_memory_that_no_node_has_is_refused(lab: Lab) -> None:
    refused = submit("resources.memory_gb=9")
    assert (refused.status, lab.submitted) == (2, [])
    assert "and 9 GB, and no node of 'lab' has that" in refused.err


def test_a_sweep_that_another_driver_runs_is_refused_but_not_that_of_the_job_itself(lab: Lab, folder: Path) -> None:
    assert call("run", "small.yaml", "--no-mlflow").status == 0
    with Store(folder / "results") as store, store.hold("small"):
        refused = submit()
        assert refused.status == 2
        assert "sweep 'small' is being driven by process" in refused.err
        lab.state = "stopped"
        assert submit().status == 2
        lab.state = "running"  # then it is the job's own driver, and the backend says so
        assert submit().status == 0
    assert len(lab.submitted) == 1


def test_a_sweep_of_a_newer_engine_is_refused(lab: Lab, folder: Path) -> None:
    assert call("run", "small.yaml", "--no-mlflow").status == 0
    with closing(sqlite3.connect(folder / "results" / "sweeps.db")) as connection:
        connection.execute("UPDATE sweeps SET numerics = '99 cpu-x86-64-v3 compiled'")
        connection.commit()
    refused = submit()
    assert refused.status == 2
    assert "of a newer engine than this" in refused.err


def test_a_sweep_that_began_on_cpus_is_not_continued_on_gpus(lab: Lab, folder: Path) -> None:
    lab.cluster = Cluster(name="lab", resources=NodeResources(cpus=4, gpus=1, memory_gb=8))
    assert call("run", "small.yaml", "--no-mlflow").status == 0
    assert submit("resources.gpus=1").status == 0  # it is done: nothing is trained
    with Store(folder / "results") as store:
        store.set_state("small", "stopped")
    refused = submit("resources.gpus=1")
    assert refused.status == 2
    assert "and the file's workers train on cuda, whose numbers differ" in refused.err


def test_a_file_of_the_users_own_that_has_changed_since_is_refused(lab: Lab, folder: Path) -> None:
    from sample_sweeps import UNIT

    from sweeps.config import registry

    (folder / "my_unit.py").write_text(UNIT)
    (folder / "small.yaml").write_text(SMALL.replace("linear", "./my_unit.py"))
    assert call("run", "small.yaml", "--no-mlflow").status == 0
    assert submit().status == 0
    (folder / "my_unit.py").write_text(UNIT.replace("return x\n", "return 2 * x\n"))
    registry.clear_cache()
    refused = submit()
    assert refused.status == 2
    assert "a file of yours has changed" in refused.err


def test_a_store_that_is_out_of_reach_or_damaged_here_keeps_nobody_from_submitting(lab: Lab, folder: Path) -> None:
    for store in (None, "postgresql://127.0.0.1:9/none", str(folder / "small.yaml" / "below")):
        lab.store = store
        assert submit().status == 0
    (folder / "results").mkdir()
    (folder / "results" / "sweeps.db").write_bytes(b"no database" * 100)
    lab.store = str(folder / "results")
    assert submit().status == 0


def test_faults_of_the_request_go_before_a_cluster_that_does_not_answer(lab: Lab) -> None:
    lab.answers = False
    refused = submit("budget.cost_usd=3")
    assert (refused.status, "the price of cluster 'lab' is not known" in refused.err) == (2, True)
    assert submit().status == 1
    assert lab.submitted == []


def test_faults_that_were_found_together_are_listed_with_the_others_one_by_one() -> None:
    def fail(message: str) -> None:
        raise UserError(message)

    with pytest.raises(UserError) as raised:
        all_at_once(partial(fail, "one"), partial(all_at_once, partial(fail, "two"), partial(fail, "three\nof two lines")))
    assert str(raised.value) == "3 faults:\n  - one\n  - two\n  - three\n    of two lines"
