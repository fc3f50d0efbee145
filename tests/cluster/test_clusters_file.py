"""`clusters.yaml`: where it is searched, what is valid, and that every fault is reported at once without a secret."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kinds import CLOUDS, KUBERNETES

from cluster.backend import backends
from cluster.clusters_file import UnknownCluster, cluster_name_fault, find_cluster, load_clusters, parse_clusters
from cluster.description import Workers
from cluster.kubernetes.manifests import KubernetesCluster
from cluster.ray_jobs import RayCluster
from cluster.slurm.scripts import SlurmCluster
from sweeps.config.faults import SweepFileError

ONE_OF_EACH = f"""
here: {{kind: local, workers: 3}}
lab:
  kind: ray
  address: https://head.lab:8265/
  token_variable: LAB_TOKEN
  verify: certs/lab.pem
hpc:
  kind: slurm
  workers: {{max: 8}}
  resources: {{cpus: 8, gpus: 1, memory_gb: 31.5}}
  setup: ["module load python # 3.12", 'echo "$(hostname)"']
  environment: {{OMP_NUM_THREADS: 1}}
  time_limit: 1d12h
  worker_time_limit: 01:30:00
  extra: [--constraint=a100, --mail-type=END]
{KUBERNETES}{CLOUDS}"""


def faults(text: str) -> str:
    with pytest.raises(SweepFileError) as caught:
        parse_clusters(text, "clusters.yaml")
    return str(caught.value)


def test_one_of_each_kind_is_read_with_its_types() -> None:
    clusters = parse_clusters(ONE_OF_EACH, "clusters.yaml")
    assert list(clusters) == ["local", "here", "lab", "hpc", "kube", "east", "west"]
    assert {cluster.kind for cluster in clusters.values()} == set(backends())
    lab, hpc, kube = (clusters[name].cluster for name in ("lab", "hpc", "kube"))
    assert isinstance(lab, RayCluster) and lab.address == "https://head.lab:8265"
    assert lab.verify == "certs/lab.pem"
    assert isinstance(hpc, SlurmCluster) and hpc.workers == Workers(min=0, max=8)
    assert (hpc.time_limit, hpc.worker_time_limit) == (129_600, 5_400)
    assert hpc.environment == {"OMP_NUM_THREADS": "1"}
    assert isinstance(kube, KubernetesCluster) and kube.tolerations[0].operator == "Exists"
    assert clusters["hpc"].where == "slurm: 0 to 8 worker nodes of 8 CPUs and 1 GPU"


def test_every_fault_is_reported_at_once_with_its_line_and_the_nearest_name() -> None:
    message = faults(
        "lab: {kind: ray, adress: x, partition: gpu}\n"
        "hpc:\n  kind: slurm\n  time_limit: 90\n  mode: elastc\n  resources: {cpu: 1}\n  extra: [--time=3]\n"
        "kube: {kind: kubernets}\n"
        "bare: 3\n"
        "empty: {workers: 2}\n"
    )
    for wanted in (
        "line 1: lab.adress: unknown key 'adress'. Did you mean 'address'?",
        "line 1: lab.partition: is a setting of kind slurm, not of ray",
        "line 1: lab.address: is missing",
        "line 4: hpc.time_limit: needs a unit: 12h",
        "line 5: hpc.mode: must be 'elastic' or 'symmetric', but got 'elastc'. Did you mean 'elastic'?",
        "line 6: hpc.resources.cpu: is not a setting here. Did you mean 'cpus'?",
        "line 8: kube.kind: unknown kind 'kubernets'. Did you mean 'kubernetes'?",
        "line 9: bare: must be a mapping with a `kind`",
        "line 10: empty: needs a `kind`: aws, gcp, kubernetes, local, ray, slurm",
    ):
        assert wanted in message
    assert len(message.splitlines()) == 10


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{kind: slurm, extra: [--time=3]}", "extra: --time is set from the other fields"),
        ("{kind: slurm, environment: {URL: 'postgresql://u:pw@h/d'}}", "URL is a URL with a user name or password"),
        ("{kind: slurm, mode: symmetric, workers: {max: 4}}", "must be one count in mode symmetric"),
        ("{kind: slurm, mode: symmetric, worker_time_limit: 1h}", "worker_time_limit: has no effect"),
        ("{kind: slurm, worker_time_limit: 60s, grace_s: 45}", "grace_s: must be at most half"),
        ("{kind: slurm, partition: 'gpu; reboot'}", "partition: must be a word"),
        ('{kind: slurm, extra: ["--comment=a\\nrm -rf /"]}', "extra.0: must be an option of sbatch"),
        ('{kind: local, setup: ["a\\nb"]}', "setup.0: must be one line of shell"),
        ("{kind: local, setup: module load x}", "setup: must be a list with one line in each item"),
        ("{kind: local, workers: 0}", "workers: must be at least 1"),
        ("{kind: local, workers: {min: 3, max: 2}}", "0 <= min <= max"),
        ("{kind: local, workers: {max: 2, most: 3}}", "unknown key 'most'"),
        ("{kind: local, environment: {'A B': x}}", "cannot be a variable's name"),
        ("{kind: local, time_limit: 12 parsecs}", "must be a time such as 12h"),
        ("{kind: local, name: other}", "the word above its settings"),
        ("{kind: kubernetes, image: a}", "storage_claim: is missing"),
        ("{kind: kubernetes, image: a, storage_claim: c, store_secret: a/b}", "give one of storage_claim"),
        ("{kind: kubernetes, image: 'a b', storage_claim: c}", "image: must be a container image"),
        ("{kind: kubernetes, image: a, storage_claim: c, tolerations: [{oper: x}]}", "unknown key 'oper'"),
        ("{kind: gcp, project: p, region: r, instance_type: i, head_instance_type: h}", "zones: is missing"),
        ("{kind: ray, address: 'ftp://h'}", "must be an address such as http://host:8265"),
        ("{kind: slurm, store: 'results?mode=ro'}", "store: must be a folder, or a postgresql:// URL"),
    ],
)  # fmt: skip
def test_an_impossible_value_is_refused_with_the_possible_ones(entry: str, message: str) -> None:
    assert message in faults(f"x: {entry}")


@pytest.mark.parametrize(
    "entry",
    [
        "{kind: ray, address: 'http://me:hunter2@head:8265'}",
        "{kind: ray, address: 'http://head:8265', token: hunter2}",
        "{kind: ray, address: 'http://head:8265', token_file: hunter2hunter2hunter2hunter2hunter2}",
        "{kind: ray, address: 'http://head:8265', token_variable: hunter2}",
        "{kind: ray, address: 'http://head:8265', environment: {RAY_AUTH_TOKEN: hunter2}}",
        "{kind: local, mlflow: 'http://me:hunter2@host'}",
        "{kind: local, store: 'mysql://me:hunter2@host/db'}",
        "{kind: local, store: 'mysql://me:hunt@hunter2@host/db'}",
        "{kind: kubernetes, image: a, store: 'postgresql://me:hunter2@host/db'}",
        "{kind: slurm, partition: 'postgresql://me:hunter2@host/db'}",
        "'postgresql://me:hunter2@a-host-with-a-very-long-name-so-that-the-text-is-cut.example/db'",
    ],
)
def test_a_secret_is_refused_and_not_repeated(entry: str) -> None:
    message = faults(f"x: {entry}")
    if "token_variable: hunter2" not in entry:  # might be a name after all, so it is shown
        assert "hunter2" not in message


def test_a_store_may_be_a_folder_with_a_space_in_its_name() -> None:
    found = parse_clusters("x: {kind: slurm, store: /scratch/my results}", "c")["x"]
    assert found.cluster.store == "/scratch/my results"


def test_a_password_in_the_store_s_url_is_not_printed() -> None:
    found = parse_clusters("x: {kind: slurm, store: 'postgresql://me:hunter2@db/sweeps'}", "c")["x"]
    assert "hunter2" in found.cluster.store
    assert "hunter2" not in repr(found) + repr(found.cluster) + found.where


HOSTILE = [
    "a b", "a'b", 'a"b', "a\nb", "$(reboot)", "`reboot`", "../up", "a/b", "-a", "a;b", "A", "ä", "a" * 41,
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_cluster_name_is_refused(name: str) -> None:
    message = faults(f"{json.dumps(name)}: {{kind: local}}")
    assert cluster_name_fault(name)
    assert "cannot be a cluster's name" in message
    assert "\n" not in message


@settings(deadline=None)  # a busy machine is slow
@given(st.text(max_size=60))
def test_a_text_of_any_kind_gives_clusters_or_faults_and_nothing_else(text: str) -> None:
    with contextlib.suppress(SweepFileError):
        assert "local" in parse_clusters(text, "clusters.yaml")


def test_the_file_is_looked_for_in_three_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert list(load_clusters()) == ["local"]
    home = tmp_path / "home" / ".config" / "sweeps"
    home.mkdir(parents=True)
    for path, name in ((home / "clusters.yaml", "home"), (tmp_path / "clusters.yaml", "here"),
                       (tmp_path / "other.yaml", "named")):  # fmt: skip
        path.write_text(f"{name}: {{kind: local}}\n")
        if name == "named":
            monkeypatch.setenv("SWEEPS_CLUSTERS", str(path))
        assert list(load_clusters()) == ["local", name]
    monkeypatch.setenv("SWEEPS_CLUSTERS", "nowhere.yaml")
    with pytest.raises(SweepFileError, match="no such file, but SWEEPS_CLUSTERS names it"):
        load_clusters()


def test_an_unknown_cluster_is_reported_with_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "clusters.yaml"
    path.write_text(ONE_OF_EACH)
    monkeypatch.setenv("SWEEPS_CLUSTERS", str(path))
    assert find_cluster("hpc").kind == "slurm"
    with pytest.raises(UnknownCluster, match="no cluster 'hcp'. Did you mean 'hpc'[?] Known: local, here"):
        find_cluster("hcp")


def test_local_is_this_machine_and_may_be_described() -> None:
    assert parse_clusters("local: {kind: local, workers: 3}", "c")["local"].cluster.workers.max == 3
    assert "is always this machine" in faults("local: {kind: ray, address: 'http://h:1'}")


DOCUMENT = (Path(__file__).parents[2] / "docs" / "clusters.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("example", re.findall(r"^```yaml\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL))
def test_the_examples_of_the_documentation_are_sound(example: str) -> None:
    assert len(parse_clusters(example, "docs/clusters.md")) >= 2


def test_the_documentation_names_every_kind_and_every_field() -> None:
    kinds = backends()
    fields = {f.name for kind in kinds.values() for f in dataclasses.fields(kind.schema)} - {"name"}
    assert {word for word in [*kinds, *fields] if f"`{word}`" not in DOCUMENT} == set()
