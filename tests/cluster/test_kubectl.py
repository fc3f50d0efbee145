"""kubectl itself, where it is installed: it accepts our calls, and its messages are those that we recognise."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from kinds import described
from kubectl_api_server import ApiServer
from kubernetes_there import CLUSTER, RUNNING

from cluster.backend import Submission
from cluster.kubernetes import KubernetesBackend
from cluster.kubernetes import jobs as kubernetes_jobs
from cluster.kubernetes.kubectl import AlreadyExists, NotFound, ServerUnreachable
from sweeps.errors import ClusterError, UserError

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(
        shutil.which("kubectl") is None,
        reason="no kubectl on PATH (Debian: kubernetes-client); test_kubernetes.py makes the same calls to a stand-in",
    ),
]
KUBE = f"kube: {CLUSTER}, storage_claim: records, context: there}}"
SWEEP = Submission("long", "name: long\nquestion: 'yes'\n")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))  # its cache of what the server has
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    with ApiServer() as running:
        configure(tmp_path, running.address)
        yield running


def configure(folder: Path, address: str) -> None:
    context = {"name": "there", "context": {"cluster": "here", "user": "me"}}
    text = {
        "apiVersion": "v1", "kind": "Config", "contexts": [context], "users": [{"name": "me", "user": {}}],
        "clusters": [{"name": "here", "cluster": {"server": address}}],
    }  # fmt: skip
    (folder / "config").write_text(json.dumps(text))


def jobs(text: str = KUBE) -> KubernetesBackend:
    return described(text, "kube", KubernetesBackend)


def test_it_accepts_the_calls_of_submit_status_and_stop(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    done = jobs().submit(SWEEP)
    assert (done.fresh, jobs().submit(SWEEP).fresh) == (True, False)
    (job,) = server.objects["rayjobs"].values()
    (file,) = server.objects["configmaps"].values()
    assert file["data"] == {"long.yaml": SWEEP.text}
    job["status"] = {**RUNNING, "jobStatus": "STOPPED"}
    metadata = {"name": "p", "namespace": "research", "labels": {"job-name": done.job}}
    spec = {"containers": [{"name": "main", "image": "sweeps:1"}]}
    pod = {"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": spec}
    server.objects["pods"]["p"] = pod
    assert jobs().status("long").state == "running"
    assert list(jobs().logs("long", False, print)) == ["one", "two"]
    monkeypatch.setattr(kubernetes_jobs, "SUSPENDED_WITHIN_S", -1.0)
    with pytest.raises(ClusterError, match="is KubeRay's operator running?"):
        jobs().stop("long")
    (job,) = server.objects["rayjobs"].values()
    assert (job["spec"]["backoffLimit"], job["spec"]["suspend"]) == (0, True)
    assert job["spec"]["submissionMode"] == "K8sJobMode"


def test_its_messages_are_recognised(server: ApiServer, tmp_path: Path) -> None:
    kubectl = jobs().kubectl
    with pytest.raises(NotFound):
        kubectl.call("logs", "nothing")
    with pytest.raises(NotFound):
        list(kubectl.stream("logs", "nothing", "--follow"))
    assert kubectl.call("delete", "pod", "nothing", "--ignore-not-found", "--wait=false") == ""
    manifest = json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "labels": {}}})
    kubectl.call("create", "--filename=-", stdin=manifest)
    with pytest.raises(AlreadyExists):
        kubectl.call("create", "--filename=-", stdin=manifest)
    with pytest.raises(UserError, match="operator is not installed"):
        kubectl.objects("rayservices.ray.io", "a=b")
    with pytest.raises(UserError, match=r"kubectl config get-contexts"):
        jobs(KUBE.replace("there", "elsewhere")).status("long")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        configure(tmp_path, f"http://127.0.0.1:{closed.getsockname()[1]}")
        with pytest.raises(ServerUnreachable, match="Is the cluster up"):
            jobs().status("long")
