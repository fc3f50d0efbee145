"""Clusters that the tests of this folder share: one description of each kind, with all of its fields."""

from __future__ import annotations

from typing import Any, TypeVar

from hypothesis import strategies as st

from cluster.backend import Backend, Submission
from cluster.clusters_file import parse_clusters

SWEEP = Submission("nau-addition", "name: nau-addition\nquestion: 'does it: $(add)?'\nseeds: 3\n")
SWEEP_NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", fullmatch=True)
ONE_LINE = st.text(st.characters(min_codepoint=32, exclude_categories=("Cs", "Cc")), min_size=1, max_size=40).filter(str.strip)
"""What a user may write as a variable's value or a line of shell: quotes, $(...), ; and all the rest."""

KUBERNETES = """
kube:
  kind: kubernetes
  image: registry.example/sweeps:1.0
  namespace: research
  workers: {min: 0, max: 4}
  resources: {cpus: 8, gpus: 1, memory_gb: 31.5}
  storage_claim: records
  secrets: {MLFLOW_TRACKING_PASSWORD: mlflow/password}
  environment: {ANSWER: "no", HOME_OF: "$(HOME)"}
  mlflow: http://mlflow.research:5000
  setup: ["echo 'hello' # there", "ulimit -c 0"]
  node_selector: {cloud.google.com/gke-accelerator: nvidia-l4}
  tolerations: [{key: nvidia.com/gpu, operator: Exists, effect: NoSchedule}]
  service_account: sweeps
  time_limit: 12h
"""
SLURM = """
hpc:
  kind: slurm
  workers: 2
  partition: gpu
  account: physics
  resources: {cpus: 8, gpus: 1, memory_gb: 32}
  time_limit: 12h
  worker_time_limit: 2h
  python: /opt/my sweeps/bin/python
  setup: ["module load cuda"]
  environment: {GREETING: "it's $(reboot); `reboot`"}
  store: postgresql://me:hunter2@db.example/sweeps
  mlflow: http://mlflow.example:5000
  extra: ["--constraint=a100|h100"]
flat: {kind: slurm, mode: symmetric, workers: 4, resources: {cpus: 4, memory_gb: 8}, time_limit: 90m}
"""
CLOUDS = """
east:
  kind: aws
  region: us-east-1
  zones: [us-east-1a, us-east-1b]
  instance_type: g5.xlarge
  head_instance_type: m5.large
  workers: {min: 0, max: 8}
  resources: {cpus: 4, gpus: 1, memory_gb: 16}
  image: registry.example/sweeps:1.0
  environment: {GREETING: "it's $(reboot)"}
  setup: ["echo \\"hello\\""]
west:
  kind: gcp
  project: my-project
  region: us-west1
  zones: [us-west1-a]
  instance_type: g2-standard-4
  head_instance_type: e2-standard-2
  workers: {min: 0, max: 8}
  resources: {cpus: 4, gpus: 1}
  gpu_type: nvidia-l4
"""

Kind = TypeVar("Kind", bound=Backend[Any])


def described(text: str, name: str, backend: type[Kind]) -> Kind:
    """The cluster of that name in a text, which must be of this backend."""
    found = parse_clusters(text, "clusters.yaml")[name]
    assert isinstance(found, backend)
    return found
