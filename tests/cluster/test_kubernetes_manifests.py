"""KubeRay manifests, which the operator's own schemas accept, and what the status of a RayJob means."""

from __future__ import annotations

import base64
import copy
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from kinds import KUBERNETES, ONE_LINE, SWEEP, SWEEP_NAMES, described
from schemas import NoSchemas
from schemas import faults as found_faults

from cluster.backend import Submission, as_yaml
from cluster.kubernetes import KubernetesBackend
from cluster.kubernetes.jobs import STOPPED, message_of, state_of
from cluster.kubernetes.manifests import MAX_JOB_NAME, KubernetesCluster, kubernetes_name, manifests

KUBE = described(KUBERNETES, "kube", KubernetesBackend).cluster
LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


def faults(manifest: dict[str, Any]) -> list[str]:
    try:
        return found_faults(manifest)
    except NoSchemas as missing:
        pytest.skip(
            f"{missing}; they come with KubeRay's releases and are not copied here; the other tests of manifests need none"
        )


def ray_job(cluster: KubernetesCluster = KUBE, sweep: Submission = SWEEP) -> dict[str, Any]:
    return manifests(cluster, sweep)[-1]


@pytest.mark.cluster
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"resources": replace(KUBE.resources, gpus=0, memory_gb=None)},
        {"storage_claim": None, "store_secret": "records/url"},
        {"gpu_resource": "amd.com/gpu", "node_selector": {}, "tolerations": (), "setup": ()},
        {"job": "RayCluster"},
        {"workers": replace(KUBE.workers, min=4)},
    ],
)
def test_the_operator_s_schema_accepts_the_manifest(changes: dict[str, Any]) -> None:
    for manifest in manifests(replace(KUBE, **changes), SWEEP):
        if manifest["kind"] != "ConfigMap":
            assert faults(manifest) == []


@pytest.mark.cluster
def test_the_operator_s_schema_accepts_a_user_s_own_files(tmp_path: Path) -> None:
    own = written(tmp_path, {"my_unit.py": b"x = 1\n", "data.bin": b"\xff\x00"})
    assert faults(ray_job(sweep=Submission("s", "seeds: 3\n", own))) == []


BREAK: list[Callable[[dict[str, Any]], Any]] = [
    lambda spec: spec.update(backofLimit=3),
    lambda spec: spec.update(backoffLimit="three"),
    lambda spec: spec["rayClusterSpec"].pop("headGroupSpec"),
    lambda spec: spec["rayClusterSpec"]["authOptions"].update(mode="tokens"),
    lambda spec: spec["rayClusterSpec"]["headGroupSpec"]["rayStartParams"].update({"num-cpus": 0}),
    lambda spec: spec["rayClusterSpec"]["workerGroupSpecs"][0].update(replicas="1"),
    lambda spec: spec["rayClusterSpec"]["workerGroupSpecs"][0].pop("groupName"),
    lambda spec: container(spec)["resources"]["limits"].update(cpu="eight"),
    lambda spec: container(spec)["env"].append({"value": "x"}),
    lambda spec: container(spec)["env"].append({"name": "ANSWER", "value": "yes"}),
    lambda spec: container(spec)["env"].append({"name": "FLAG", "value": True}),
    lambda spec: container(spec).update(volumeMount=[]),
]  # fmt: skip


def container(spec: dict[str, Any], group: str = "head") -> dict[str, Any]:
    cluster = spec.get("rayClusterSpec", spec)
    found = cluster["headGroupSpec"] if group == "head" else cluster["workerGroupSpecs"][0]
    result: dict[str, Any] = found["template"]["spec"]["containers"][0]
    return result


@pytest.mark.cluster
@pytest.mark.parametrize("index", range(len(BREAK)))
def test_a_broken_manifest_is_not_accepted(index: int) -> None:
    manifest = copy.deepcopy(ray_job())
    BREAK[index](manifest["spec"])
    assert faults(manifest) != []


def test_printed_yaml_reads_back_as_built_also_as_yaml_1_1() -> None:
    built = manifests(KUBE, SWEEP)
    assert list(yaml.safe_load_all(as_yaml(built))) == built


def test_ray_requires_a_token_and_the_head_trains_nothing() -> None:
    spec = ray_job()["spec"]["rayClusterSpec"]
    assert spec["authOptions"] == {"mode": "token"}
    assert tuple(int(part) for part in spec["rayVersion"].split(".")) >= (2, 52, 0)
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert "nvidia.com/gpu" not in container(spec)["resources"]["limits"]
    assert container(spec, "worker")["resources"]["limits"] == {
        "cpu": "8", "memory": "32256Mi", "nvidia.com/gpu": "1",
    }  # fmt: skip


def test_records_outlive_the_cluster() -> None:
    def store_of(cluster: KubernetesCluster) -> dict[str, Any]:
        variables = container(ray_job(cluster)["spec"])["env"]
        return next(v for v in variables if v["name"] == "SWEEPS_STORE")

    assert store_of(KUBE)["value"] == "/var/lib/sweeps"
    mounts = container(ray_job()["spec"])["volumeMounts"]
    assert {"name": "store", "mountPath": "/var/lib/sweeps"} in mounts
    secret = store_of(replace(KUBE, storage_claim=None, store_secret="records/url"))
    assert secret["valueFrom"] == {"secretKeyRef": {"name": "records", "key": "url"}}
    url = "postgresql://db.research/sweeps"
    assert store_of(replace(KUBE, storage_claim=None, store=url))["value"] == url


def test_the_sweep_file_travels_and_is_what_the_driver_runs() -> None:
    file, job = manifests(KUBE, SWEEP)
    assert file["data"] == {"nau-addition.yaml": SWEEP.text}
    assert job["spec"]["entrypoint"] == "env --chdir=/etc/sweeps python -m sweeps.cli run nau-addition.yaml"
    assert job["spec"]["activeDeadlineSeconds"] == 12 * 3600
    with pytest.raises(ValueError, match="carries at most 900,000"):
        manifests(KUBE, Submission("large", "x" * 900_001))


def written(folder: Path, files: dict[str, bytes]) -> dict[str, Path]:
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    return {name: folder / name for name in files}


def test_a_user_s_own_files_travel_below_the_folder_that_the_driver_runs_in(tmp_path: Path) -> None:
    own = {"my_unit.py": b"x = 1\n", "my_pkg/units.py": "é = 2\n".encode(), "my_pkg/data.bin": b"\xff\x00"}
    file, job = manifests(KUBE, Submission("s", "seeds: 3\n", written(tmp_path, own)))
    volume = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["volumes"][1]
    assert volume["configMap"]["name"] == file["metadata"]["name"]
    there = {item["path"]: item["key"] for item in volume["configMap"]["items"]}
    assert set(there) == {"s.yaml", *own}
    assert all(re.fullmatch(r"[A-Za-z0-9._-]{1,253}", key) for key in there.values())
    binary = {key: base64.b64decode(value) for key, value in file["binaryData"].items()}
    content = {key: value.encode() for key, value in file["data"].items()} | binary
    assert {path: content[key] for path, key in there.items()} == {"s.yaml": b"seeds: 3\n", **own}


def test_a_name_depends_on_content_and_attempt_alone(tmp_path: Path) -> None:
    unit = written(tmp_path, {"my_unit.py": b""})
    names = [
        manifests(KUBE, SWEEP)[1]["metadata"]["name"],
        manifests(KUBE, SWEEP, attempt=2)[1]["metadata"]["name"],
        manifests(KUBE, Submission(SWEEP.name, SWEEP.text + "# more\n"))[1]["metadata"]["name"],
        manifests(KUBE, Submission(SWEEP.name, SWEEP.text, unit))[1]["metadata"]["name"],
        manifests(replace(KUBE, image="other:2"), SWEEP)[1]["metadata"]["name"],
    ]
    assert len(set(names)) == len(names)
    assert names[1] == f"{names[0]}-2"
    assert manifests(KUBE, SWEEP)[1]["metadata"]["name"] == names[0]


@settings(deadline=None)  # a busy machine is slow
@given(SWEEP_NAMES)
def test_a_sweep_of_any_name_is_a_name_that_the_operator_takes(name: str) -> None:
    file, job = manifests(KUBE, Submission(name, "seeds: 3\n"))
    assert LABEL.fullmatch(job["metadata"]["name"]) and len(job["metadata"]["name"]) <= 47
    words = r"env --chdir=/etc/sweeps python -m sweeps\.cli run [A-Za-z0-9][A-Za-z0-9._-]*\.yaml"
    assert re.fullmatch(words, job["spec"]["entrypoint"])
    assert file["metadata"]["name"] == job["metadata"]["name"]


def test_a_variable_s_value_is_what_it_is_and_no_other_variable_s() -> None:
    job = manifests(replace(KUBE, environment={"A": "x", "B": "$(A)"}), Submission("s", "seeds: 3\n"))[1]
    given = {v["name"]: v.get("value") for v in container(job["spec"])["env"]}
    assert (given["A"], given["B"]) == ("x", "$$(A)")  # as Kubernetes spells a literal $(A)


@settings(max_examples=30, deadline=None)  # a busy machine is slow
@given(value=ONE_LINE, line=ONE_LINE, text=st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=80))
def test_nothing_that_a_user_wrote_becomes_another_key(value: str, line: str, text: str) -> None:
    built = manifests(replace(KUBE, environment={"GIVEN": value}, setup=(line,)), Submission("s", text))
    file, job = yaml.safe_load_all(as_yaml(built))
    assert [file, job] == built
    assert file["data"] == {"s.yaml": text}
    given_value = next(v["value"] for v in container(job["spec"])["env"] if v["name"] == "GIVEN")
    assert given_value.replace("$$(", "$(") == value.replace("$$(", "$(")


@settings(deadline=None)  # a busy machine is slow
@given(st.text(max_size=120))
def test_the_kubernetes_name_of_any_sweep_is_a_valid_label(name: str) -> None:
    mapped = kubernetes_name(name)
    assert LABEL.fullmatch(mapped)
    assert len(mapped) <= MAX_JOB_NAME


@settings(deadline=None)  # a busy machine is slow
@given(SWEEP_NAMES, SWEEP_NAMES)
def test_two_sweeps_are_never_one_job(one: str, other: str) -> None:
    assert (kubernetes_name(one) == kubernetes_name(other)) == (one == other)


def test_a_name_that_fits_stays_and_others_carry_a_digest() -> None:
    assert kubernetes_name("nau-addition") == "nau-addition"
    assert re.fullmatch(r"nau-addition-[0-9a-f]{8}", kubernetes_name("NAU_addition"))
    assert re.fullmatch(r"sweep-2026-[0-9a-f]{8}", kubernetes_name("2026"))
    assert kubernetes_name("A.b") != kubernetes_name("a-b") == "a-b"
    assert len(kubernetes_name("x" * 100)) == MAX_JOB_NAME


@pytest.mark.parametrize(
    ("status", "stopped", "state"),
    [
        ({}, False, "waiting"),
        ({"jobDeploymentStatus": "Initializing"}, False, "waiting"),
        ({"jobDeploymentStatus": "Running", "jobStatus": "PENDING"}, False, "waiting"),
        ({"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}, True, "running"),
        ({"jobDeploymentStatus": "Running", "jobStatus": "SUCCEEDED"}, False, "running"),
        ({"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}, True, "done"),
        ({"jobDeploymentStatus": "Complete", "jobStatus": "STOPPED"}, False, "stopped"),
        ({"jobDeploymentStatus": "Failed", "jobStatus": "STOPPED"}, False, "stopped"),
        ({"jobDeploymentStatus": "Failed", "jobStatus": "FAILED"}, False, "failed"),
        ({"jobDeploymentStatus": "Failed", "jobStatus": "FAILED"}, True, "stopped"),
        ({"jobDeploymentStatus": "Retrying", "failed": 1}, False, "waiting"),
        ({"jobDeploymentStatus": "Suspending"}, True, "running"),
        ({"jobDeploymentStatus": "Suspended"}, True, "stopped"),
        ({"jobDeploymentStatus": "Suspended"}, False, "waiting"),
    ],
)
def test_a_rayjob_s_status_has_one_meaning(status: dict[str, Any], stopped: bool, state: str) -> None:
    annotations = {STOPPED: "true"} if stopped else {}
    job = {"metadata": {"name": "long", "annotations": annotations}, "status": status}
    assert state_of(job) == state
    explained = state == "waiting" and status.get("jobDeploymentStatus") not in ("Initializing", "Running")
    assert bool(message_of(job)) == explained
