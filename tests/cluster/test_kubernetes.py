"""Sweeps on Kubernetes, through the command line, with a stand-in for kubectl and not with a real Kubernetes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import call
from kubernetes_there import CLUSTER, DONE, DRIVER, RUNNING, SUBMITTER, Kubernetes, installed
from made_sweep import made_sweep
from sample_sweeps import LONG, UNIT

from cluster import following
from cluster.clusters_file import find_cluster
from cluster.kubernetes import jobs as kubernetes_jobs
from cluster.kubernetes.jobs import STOPPED, KubernetesBackend
from sweeps.store import Store

pytestmark = pytest.mark.cluster
FILE = f"""
kube: {CLUSTER}, store_secret: records/url}}
claim: {CLUSTER}, storage_claim: records, context: there, setup: ["export WORDS='a  b'; echo $WORDS"]}}
elsewhere: {CLUSTER}, storage_claim: records, context: elsewhere}}
stays: {CLUSTER}, storage_claim: records, job: RayCluster}}
east: {{kind: aws, region: us-east-1, instance_type: m5.large, head_instance_type: m5.large}}
"""


@pytest.fixture
def kube(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kubernetes:
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path / "home")
    Path("clusters.yaml").write_text(FILE)
    Path("long.yaml").write_text(LONG)
    monkeypatch.setattr(following, "PAUSE_S", 0.0)
    monkeypatch.setattr(kubernetes_jobs, "PAUSE_S", 0.0)
    return installed(tmp_path / "kube", monkeypatch)


def submitted(*overrides: str, on: str = "kube") -> str:
    answer = call("submit", "long.yaml", "--on", on, *overrides)
    assert answer.status == 0, answer
    return answer.out


def test_the_submitted_objects_are_those_shown_and_the_same_again_is_the_same_job(kube: Kubernetes) -> None:
    assert "long is submitted to kube as job long-" in submitted()
    shown = list(yaml.safe_load_all(call("cluster", "show", "kube", "--sweep", "long.yaml").out))
    (file,), (job,) = kube.objects("ConfigMap"), kube.objects("RayJob")
    for made in (file, job):
        made["metadata"].pop("creationTimestamp")
    assert [file, job] == shown
    assert "long is waiting on kube already" in submitted()
    kube.starts()
    assert "long is running on kube already" in submitted()
    kube.job(**DONE)
    again = submitted()
    assert "nothing to submit" in again and "sweeps fetch long --on kube" in again
    assert len(kube.objects("RayJob")) == len(kube.objects("ConfigMap")) == 1


def test_other_content_under_a_running_name_is_refused_and_a_stopped_one_goes_on(kube: Kubernetes) -> None:
    submitted()
    kube.starts()
    other = call("submit", "long.yaml", "--on", "kube", "seeds=7")
    assert other.status == 2
    assert "long' runs on 'kube' already, with other settings, other files" in other.err
    stopped = call("stop", "long", "--on", "kube")
    assert (stopped.status, "long on kube: stopped" in stopped.out) == (0, True), stopped
    assert "SIGTERM was received" in call("logs", "long", "--on", "kube").out
    assert "attempt 2" in submitted()
    first, second = sorted(job["metadata"]["name"] for job in kube.objects("RayJob"))
    assert second == f"{first}-2"
    kube.job(jobDeploymentStatus="Failed", jobStatus="FAILED", reason="AppFailed", message="boom\n\n")
    answer = call("status", "long", "--on", "kube")
    assert f"long on kube: failed (job {second}, attempt 2, since " in answer.out
    assert "AppFailed: boom" in answer.out
    assert "attempt 3" in submitted()


def test_stop_forbids_a_retry_and_then_ends_the_driver(kube: Kubernetes) -> None:
    submitted(on="claim")
    kube.starts()
    assert call("stop", "long", "--on", "claim").status == 0
    before, after = (i for i, c in enumerate(kube.calls()) if {"patch", "exec"} & set(c))
    assert "backoffLimit" in kube.calls()[before][-1] and "exec" in kube.calls()[after]
    (job,) = kube.objects("RayJob")
    assert (job["spec"]["backoffLimit"], job["spec"].get("suspend")) == (0, None)
    assert job["metadata"]["annotations"][STOPPED] == "true"


def test_a_job_without_a_driver_is_suspended(kube: Kubernetes) -> None:
    submitted()
    assert "long on kube: stopped" in call("stop", "long", "--on", "kube").out
    assert kube.objects("RayJob")[0]["spec"]["suspend"] is True
    assert kube.calls("exec") == []
    assert "attempt 2" in submitted()


def test_a_stop_that_does_not_end_is_reported(kube: Kubernetes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes_jobs, "SUSPENDED_WITHIN_S", -1.0)
    submitted()
    monkeypatch.setattr(KubernetesBackend, "_patch", lambda *_: None)
    answer = call("stop", "long", "--on", "kube")
    assert (answer.status, "is KubeRay's operator running?" in answer.err) == (1, True)


def test_a_driver_whose_time_was_up_is_ended_before_the_next_one_begins(kube: Kubernetes) -> None:
    submitted()
    kube.starts()
    kube.job(**{**RUNNING, "jobDeploymentStatus": "Failed", "reason": "DeadlineExceeded"})
    assert "attempt 2" in submitted()
    assert [call[-3:] for call in kube.calls("exec")] == [["stop", "--address=http://127.0.0.1:8265", "job-1"]]


def test_a_user_s_own_unit_travels_and_one_from_elsewhere_is_refused(kube: Kubernetes) -> None:
    Path("my_unit.py").write_text(UNIT)
    Path("../outside.py").write_text(UNIT)
    submitted("model=./my_unit.py")
    (file,), (job,) = kube.objects("ConfigMap"), kube.objects("RayJob")
    volume = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["volumes"][1]
    there = {item["path"]: file["data"][item["key"]] for item in volume["configMap"]["items"]}
    assert set(there) == {"long.yaml", "my_unit.py"}
    assert there["my_unit.py"] == UNIT
    assert "env --chdir=/etc/sweeps python -m sweeps.cli run long.yaml" in job["spec"]["entrypoint"]
    Path("my_unit.py").write_text(UNIT + "# changed\n")
    assert call("submit", "long.yaml", "--on", "kube", "model=./my_unit.py").status == 2
    outside = call("submit", "long.yaml", "--on", "kube", "--name=other", "model=../outside.py")
    assert (outside.status, "is outside the folder" in outside.err) == (2, True)


def test_status_has_the_last_block_of_progress_and_why_pods_do_not_start(kube: Kubernetes) -> None:
    submitted()
    assert "has not accepted it yet" in call("status", "long", "--on", "kube").out
    kube.starts()
    output = call("status", "long", "--on", "kube").out
    assert "running" in output and "0:00:30  lanes 4/6, 3 solved\n  best so far: é" in output
    assert "0:00:15" not in output
    kube.job(jobDeploymentStatus="Initializing", rayClusterName="ray-1")
    head = next(pod for pod in kube.objects("Pod") if pod["metadata"]["name"] == "ray-1-head")
    waiting = {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "sweeps:1"'}
    head["status"] = {"phase": "Pending", "containerStatuses": [{"state": {"waiting": waiting}}]}
    kube.save("Pod", "ray-1-head", head)
    output = call("status", "long", "--on", "kube").out
    assert 'pod ray-1-head: ImagePullBackOff: Back-off pulling image "sweeps:1"' in output


def lines_of(answer: Any) -> list[str]:
    assert answer.status == 0, answer
    return [line for line in answer.out.splitlines() if not line.startswith("long is done")]


def test_a_log_is_followed_to_its_end_each_line_once_whatever_breaks(kube: Kubernetes) -> None:
    submitted()
    pod = kube.starts(SUBMITTER + DRIVER + "one\ntwo\nthree\n")
    job = kube.job()["metadata"]["name"]
    log = len(SUBMITTER + DRIVER)
    ended = [["RayJob", job, {"status": DONE}]]
    tails = [
        {"letters": 10},
        {"letters": log + 6, "complaint": "error: unexpected EOF"},
        {"letters": log + 2, "complaint": "Unable to connect to the server: net/http: TLS handshake timeout"},
        {"letters": log + 9, "then": ended},
    ]
    kube.plan(tails=tails)
    answer = call("watch", "long", "--on", "kube")
    assert lines_of(answer) == ["3 workers", "0:00:30  lanes 4/6, 3 solved", "one", "two", "three"]
    assert "connection was lost" in answer.err and "connected again" in answer.err
    assert "long is done on kube" in answer.out
    assert pod in kube.calls("--follow")[-1]


def test_a_second_pod_of_the_submitter_prints_all_again_and_we_do_not(kube: Kubernetes) -> None:
    submitted()
    kube.starts(SUBMITTER + DRIVER + "one\n")
    job = kube.job()["metadata"]["name"]
    name = kube.submitter("2", "Waiting ...\n" + DRIVER + "one\ntwo\n")
    second = next(pod for pod in kube.objects("Pod") if pod["metadata"]["name"] == name)
    (kube.folder / f"Pod/{name}.json").unlink()
    tails = [
        {"letters": len(SUBMITTER + DRIVER) + 4, "then": [["Pod", name, second]]},
        {"letters": 9999, "then": [["RayJob", job, {"status": DONE}]]},
    ]
    kube.plan(tails=tails)
    assert lines_of(call("watch", "long", "--on", "kube"))[-2:] == ["one", "two"]


def test_a_job_that_is_begun_anew_has_another_log(kube: Kubernetes) -> None:
    submitted()
    pod = kube.starts(SUBMITTER + DRIVER + "first\n")
    job = kube.job()["metadata"]["name"]
    anew = {"status": {**DONE, "jobId": "job-2"}}
    kube.plan(tails=[{"letters": 9999, "then": [["RayJob", job, anew]]}])
    output = lines_of(call("logs", "long", "--on", "kube"))
    assert output.count("first") == 2 and output.count("3 workers") == 2
    (kube.folder / f"logs/{pod}.txt").write_text(SUBMITTER + "Error: no such image\n")
    assert lines_of(call("logs", "long", "--on", "kube"))[-1] == "Error: no such image"


def test_watching_a_sweep_that_fails_ends_with_1(kube: Kubernetes) -> None:
    submitted()
    kube.starts()
    kube.job(**{**RUNNING, "jobDeploymentStatus": "Failed", "jobStatus": "FAILED"})
    answer = call("watch", "long", "--on", "kube")
    assert (answer.status, "long on kube: failed" in answer.err) == (1, True)


def test_records_are_fetched_from_the_head_and_later_from_a_pod_of_their_own(kube: Kubernetes) -> None:
    with Store(kube.folder / "claims/records") as there:
        made_sweep(there)
    Path("small.yaml").write_text(LONG.replace("long", "small"))
    assert call("submit", "small.yaml", "--on", "claim").status == 0
    kube.starts()
    answer = call("fetch", "small", "--on", "claim", "--store", "home")
    assert (answer.status, answer.out.startswith("small: 12 new records in home")) == (0, True), answer
    assert len(kube.calls("exec")) == 1 and kube.calls("create")[2:] == []
    (kube.folder / "Pod/ray-1-head.json").unlink()
    with Store("second") as store:
        assert find_cluster("claim").fetch("small", store) == 12
    assert [pod["metadata"]["name"] for pod in kube.objects("Pod")] == ["submitter-1"]
    arguments = ("report", "small", "--format", "json", "--no-timing", "--store")
    reports = [call(*arguments, store).out for store in ("home", "second")]
    assert reports[0].count('"seed"') == 12
    assert reports[0] == reports[1]


def test_a_fetch_that_fails_is_reported_and_the_secret_is_never_printed(kube: Kubernetes) -> None:
    (kube.folder / "claims/records").mkdir()
    answer = call("fetch", "small", "--on", "claim", "--store", "home")
    assert (answer.status, "has nothing in it yet" in answer.err) == (1, True), answer
    print_store = '#!/bin/sh\necho "no server at ${SWEEPS_STORE##*@}"; exit 2\n'
    (kube.folder / "image/python").write_text(print_store)
    answer = call("fetch", "small", "--on", "kube", "--store", "home")
    assert (answer.status, "did not send 'small': no server at db/sweeps" in answer.err) == (1, True)
    assert kube.objects("Pod") == []
    output = (kube.folder / "calls.jsonl").read_text() + answer.err
    assert "hunter2" not in output and "hunter2" not in json.dumps(kube.objects("RayJob"))


FAULTS = {
    "The connection to the server localhost:8080 was refused - did you specify the right host or port?": "your VPN",
    "Unable to connect to the server: getting credentials: exec: executable aws not found": "Sign in again",
    "error: You must be logged in to the server (Unauthorized)": "Sign in again",
    'error: the server doesn\'t have a resource type "rayjobs"': "operator is not installed",
    'Error from server (Forbidden): rayjobs.ray.io is forbidden: User "me" cannot list resource "rayjobs"': "the rights",
    'Error from server (NotFound): namespaces "research" not found': "names one that exists",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_refusal_of_kubectl_is_passed_on_with_a_remedy(kube: Kubernetes, fault: str) -> None:
    kube.plan(fault=f"E0101 memcache.go:265] a warning\n{fault}")
    for verb in ("submit", "status", "watch", "logs", "stop", "fetch"):
        answer = call(verb, "long.yaml" if verb == "submit" else "long", "--on", "kube")
        assert answer.status == 2, (verb, answer)
        assert f"cluster 'kube': kubectl reports: {fault}" in answer.err, (verb, answer)
        assert FAULTS[fault] in answer.err
        assert "memcache" not in answer.err


def test_a_context_that_is_not_known_and_a_missing_kubectl_are_refused(kube: Kubernetes) -> None:
    answer = call("submit", "long.yaml", "--on", "elsewhere")
    assert (answer.status, "kubectl config get-contexts" in answer.err) == (2, True), answer
    os.environ["PATH"] = str(kube.folder / "image")
    answer = call("status", "long", "--on", "kube")
    assert (answer.status, "kubectl cannot be called (No such file or directory)" in answer.err) == (2, True)


def test_a_job_that_is_not_taken_leaves_nothing_behind(kube: Kubernetes) -> None:
    for refused in (
        'Error from server (Forbidden): admission webhook "quota" denied the request: too much',
        'error: resource mapping not found: no matches for kind "RayJob" in version "ray.io/v1"\nensure CRDs are installed',
    ):
        kube.plan(refuse={"RayJob": refused})
        answer = call("submit", "long.yaml", "--on", "kube")
        assert (answer.status, refused.splitlines()[-1] in answer.err) == (2, True), answer
        assert kube.objects("ConfigMap") == []


def test_too_large_workers_and_unsuitable_clusters_are_refused(kube: Kubernetes) -> None:
    answer = call("submit", "long.yaml", "--on", "kube", "resources.cpus=8")
    assert answer.status == 2
    assert "one worker needs 8 CPUs, 0 GPUs, and no worker node of 'kube' has that" in answer.err
    assert "describe it as kind ray" in call("submit", "long.yaml", "--on", "stays").err
    east = call("submit", "long.yaml", "--on", "east")
    assert (east.status, "sweeps cluster show east > east.yaml && ray up east.yaml" in east.err) == (2, True)
    assert kube.calls() == []
