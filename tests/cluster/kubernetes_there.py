"""A stand-in for Kubernetes: kubectl on PATH, and the folder of its objects, in which a test plays the operator."""

from __future__ import annotations

import base64
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from schemas import NoSchemas, pod_schema, schema

CLUSTER = "{kind: kubernetes, image: 'sweeps:1', namespace: research, workers: 2, resources: {cpus: 4, memory_gb: 8}"
STORE_URL = "postgresql://sweeps:hunter2@db/sweeps"
RUNNING = {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING", "rayClusterName": "ray-1", "jobId": "job-1"}
DONE = {**RUNNING, "jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}
SUBMITTER = "Waiting for Ray Dashboard GCS to become healthy ...\nJob submission server address: http://ray-1\n"
"""What a submitter's pod prints before the driver does."""
DRIVER = (
    "2026-01-01 10:00:00,000\tINFO job_manager.py:581 -- Runtime env is setting up.\n"
    "Running entrypoint for job job-1: env --chdir=/etc/sweeps python -m sweeps.cli run long.yaml\n"
    "3 workers\n"
    "progress| 0:00:15  lanes 0/6, 0 solved\n"
    "progress|   best so far: none\n"
    "progress| 0:00:30  lanes 4/6, 3 solved\n"
    "progress|   best so far: é\n"
)


class Kubernetes:
    """Objects by kind and name, logs by pod, and the calls that were made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for part in ("logs", "schemas", "image", "bin", "claims"):
            (folder / part).mkdir(parents=True)
        program = Path(__file__).with_name("kubectl_stand_in.py")
        for path, words in (
            ("bin/kubectl", f'"{sys.executable}" "{program}"'),
            ("image/ray", f'"{sys.executable}" "{program}" ray'),
            ("image/python", f'env PYTHONPATH="{Path(__file__).parents[2]}" "{sys.executable}"'),
        ):
            (folder / path).write_text(f'#!/bin/sh\nexec {words} "$@"\n')
            (folder / path).chmod(0o755)
        self.plan()
        url = base64.b64encode(STORE_URL.encode()).decode()
        self.save("Secret", "records", {"data": {"url": url}})
        try:
            rayjob = schema("RayJob")
        except NoSchemas:
            return
        (folder / "schemas/RayJob.json").write_text(json.dumps(rayjob))
        (folder / "schemas/Pod.json").write_text(json.dumps(pod_schema(rayjob)))

    def plan(self, **what: Any) -> None:
        """Set how the next calls go: `fault` for all, `refuse` by kind, `tails` of followed logs."""
        (self.folder / "plan.json").write_text(json.dumps(what))

    def save(self, kind: str, name: str, values: dict[str, Any]) -> None:
        path = self.folder / kind / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"kind": kind, **values}))

    def objects(self, kind: str) -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in sorted((self.folder / kind).glob("*.json"))]

    def job(self, **status: Any) -> dict[str, Any]:
        """Return the only RayJob, or the one that has no status yet, and give it this status."""
        found = self.objects("RayJob")
        if len(found) > 1:
            found = [job for job in found if "status" not in job]
        (job,) = found
        if status:
            job["status"] = status
            self.save("RayJob", job["metadata"]["name"], job)
        return job

    def starts(self, log: str = SUBMITTER + DRIVER) -> str:
        """Let the operator start the job: a head, a submitter's pod, a driver. Return the submitter's pod."""
        job = self.job(**RUNNING)
        head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
        self.pod("ray-1-head", {"ray.io/cluster": "ray-1", "ray.io/node-type": "head"}, head)
        return self.submitter("1", log)

    def submitter(self, suffix: str, log: str) -> str:
        job = next(j for j in self.objects("RayJob") if j.get("status", {}).get("rayClusterName"))
        name = f"submitter-{suffix}"
        self.pod(name, {"job-name": job["metadata"]["name"]}, {}, f"2026-01-01T10:00:0{suffix}Z")
        (self.folder / f"logs/{name}.txt").write_text(log)
        return name

    def pod(self, name: str, labels: dict[str, str], spec: dict[str, Any], created: str = "") -> None:
        metadata = {"name": name, "labels": labels, "creationTimestamp": created}
        self.save("Pod", name, {"metadata": metadata, "spec": spec, "status": {"phase": "Running"}})

    def calls(self, *verbs: str) -> list[list[str]]:
        path = self.folder / "calls.jsonl"
        every = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [call for call in every if not verbs or set(verbs) & set(call)]


def installed(folder: Path, patch: pytest.MonkeyPatch) -> Kubernetes:
    """Put the stand-in on PATH, as kubectl alone."""
    made = Kubernetes(folder)
    patch.setenv("KUBE", str(folder))
    patch.setenv("PATH", f"{folder / 'bin'}:/usr/bin:/bin")
    assert shutil.which("kubectl") == str(folder / "bin/kubectl")
    return made
