"""Sweeps on a real Ray cluster of three nodes on this machine, with a token: everything that `--on` does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import proxy as proxies
import psutil
import pytest
import requests
from commands import Commands, call
from kept import steps_saved
from proxy import CuttingProxy
from remote import assert_reports_as_here, lanes_done, stop, until
from sample_sweeps import HOSTILE, LONG, UNIT, many

from cluster import local
from cluster.clusters_file import find_cluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

LANES = 2 * 4 * 25
MANY = many(seeds=25, configurations=4, slots=13, steps=60)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The submitter's folder; the cluster's own records, token and state are elsewhere."""
    made = tmp_path_factory.mktemp("submitter")
    for name, text in (("many.yaml", MANY), ("long.yaml", LONG), ("my_unit.py", UNIT)):
        (made / name).write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWEEPS_COMPILE", "0")  # the nodes inherit it
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        patch.chdir(made)
        yield made


@pytest.fixture(scope="module")
def cluster(folder: Path) -> Iterator[local.RunningCluster]:
    assert call("cluster", "status").status == 1
    answer = call("cluster", "up", "--nodes", "3", "--cpus-per-node", "1")
    try:
        assert answer.status == 0, answer.err
        found = local.current()
        assert found is not None
        yield found
    finally:
        if local.state_folder().joinpath("state.json").exists():
            ended = call("cluster", "down")
    assert ended.out == "3 nodes are down\n"
    assert local.processes(found) == []
    assert not Path(found.ray_folder).exists()
    assert {path.name for path in local.state_folder().iterdir()} <= {"lock"}


def jobs() -> list[str]:
    return sorted(job.submission_id for job in find_cluster("local").client.list_jobs() if job.submission_id)


def test_all_nodes_live_a_second_cluster_is_refused_and_the_token_is_private(cluster: local.RunningCluster) -> None:
    answer = call("cluster", "status")
    assert (answer.status, answer.out.count("alive")) == (0, 3)
    again = call("cluster", "up", "--nodes", "2")
    assert again.status == 2
    assert "a local cluster of 3 nodes is up already" in again.err
    token = Path(cluster.token_file)
    assert token.stat().st_mode & 0o777 == 0o600
    assert token.read_text() not in answer.out + again.err
    assert cluster.job_server.startswith("http://127.0.0.1:")


def test_without_the_token_every_call_is_refused(cluster: local.RunningCluster, folder: Path) -> None:
    calls = [("GET", "/api/version"), ("GET", "/api/jobs/"), ("GET", "/api/jobs/any/logs"), ("GET", "/api/v0/nodes")]
    calls += [("POST", "/api/jobs/"), ("POST", "/api/jobs/any/stop"), ("DELETE", "/api/jobs/any")]
    calls += [("PUT", "/api/packages/gcs/a.zip"), ("GET", "/nodes?view=summary")]
    for method, path in calls:
        for headers, status in (({}, 401), ({"Authorization": "Bearer wrong"}, 403)):
            answer = requests.request(method, cluster.job_server + path, headers=headers, json={}, timeout=30)
            assert answer.status_code == status, (method, path)
    (folder / "clusters.yaml").write_text(f"lab: {{kind: ray, address: '{cluster.job_server}'}}\n")
    (folder / "wrong").write_text("f00d" * 16)
    for verb in (("submit", "long.yaml"), ("status", "long"), ("logs", "long"), ("stop", "long"), ("fetch", "long")):
        answer = call(*verb, "--on", "lab")
        assert (answer.status, "requires a token" in answer.err) == (2, True), answer
    (folder / "clusters.yaml").write_text(f"lab: {{kind: ray, address: '{cluster.job_server}', token_file: wrong}}\n")
    assert "refuses the token of wrong" in call("submit", "long.yaml", "--on", "lab").err
    assert jobs() == []


def test_hostile_names_are_refused_before_anything_starts(cluster: local.RunningCluster, folder: Path) -> None:
    for name in HOSTILE:
        assert call("submit", "long.yaml", "--on", "local", f"--name={name}").status == 2, name
        for verb in ("status", "logs", "stop", "fetch"):
            assert call(verb, "--on", "local", "--", name).status == 2, (verb, name)
    assert jobs() == []
    assert not list(folder.rglob("owned"))


def test_too_large_workers_and_unknown_clusters_are_refused(cluster: local.RunningCluster) -> None:
    answer = call("submit", "long.yaml", "--on", "local", "resources.cpus=64")
    assert answer.status == 2
    assert "one worker needs 64 CPUs, 0 GPUs, and no node of 'local' has that" in answer.err
    assert "the largest have 1 CPUs" in answer.err
    assert call("submit", "long.yaml", "--on", "nowhere").status == 2
    assert call("status", "long", "--on", "local").status == 2
    assert jobs() == []


def test_submit_twice_is_one_job_a_stop_keeps_checkpoints_and_a_submit_then_goes_on(
    cluster: local.RunningCluster, folder: Path
) -> None:
    first = call("submit", "long.yaml", "--on", "local")
    assert first.status == 0, first.err
    again = call("submit", "long.yaml", "--on", "local")
    assert again.status == 0
    assert "on local already" in again.out
    assert "nothing to submit" in again.out
    other = call("submit", "long.yaml", "--on", "local", "seeds=7")
    assert other.status == 2
    assert "runs on 'local' already, with other settings, other files" in other.err
    assert len(jobs()) == 1
    stop("long", "local")
    assert call("fetch", "long", "--on", "local", "--store", "home").status == 0
    assert steps_saved(folder / "home") > 0
    more = call("submit", "long.yaml", "--on", "local")
    assert "attempt 2" in more.out
    until(lambda: find_cluster("local").status("long").state == "running", "second attempt")
    assert call("stop", "long", "--on", "local").status == 0
    assert len([job for job in jobs() if "-fetch-" not in job]) == 2


def test_a_lost_node_and_a_torn_connection_change_nothing_in_the_report(
    cluster: local.RunningCluster, folder: Path, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxies, "LIFE_S", 2.0)
    with CuttingProxy(cluster.job_server) as proxy:
        (folder / "clusters.yaml").write_text(
            f"lab: {{kind: ray, address: 'http://127.0.0.1:{proxy.port}', token_file: '{cluster.token_file}'}}\n"
        )
        answer = call("submit", "many.yaml", "--on", "local")
        assert answer.status == 0, answer.err
        until(lambda: lanes_done("many", "local") > 20, "twenty lanes")
        kill_a_worker_node(cluster)
        done = lanes_done("many", "local")
        assert done < LANES, "nothing was left to be lost"
        watched = call("watch", "many", "--on", "lab")
    assert watched.status == 0, watched
    assert proxy.cuts > 0
    assert "many is done on lab" in watched.out
    assert watched.out.count("3 workers, packs of 13 slots") == 1
    assert call("cluster", "status").out.count("alive") == 2
    assert_reports_as_here("many", "local", LANES, folder, commands)


def kill_a_worker_node(cluster: local.RunningCluster) -> None:
    """SIGKILL to a raylet and its children, not to the head's, which holds the job."""
    raylets = [psutil.Process(node["raylet"]) for node in cluster.nodes]
    headless = [p for p in raylets if not any("JobSupervisor" in " ".join(c.cmdline()) for c in p.children())]
    for process in (*headless[0].children(recursive=True), headless[0]):
        with suppress(psutil.NoSuchProcess):  # a child may end by itself, as a fetch's does
            process.kill()
