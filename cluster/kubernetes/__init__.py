"""Kind `kubernetes`: `jobs` (the backend), `manifests` (its fields, RayJobs and pods), `kubectl`."""

from cluster.kubernetes.jobs import KubernetesBackend

__all__ = ["KubernetesBackend"]
