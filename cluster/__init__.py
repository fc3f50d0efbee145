"""Clusters, which `clusters.yaml` describes by name, and one backend for each kind of cluster.

    backend         the contract of a backend, its types, the registry
    description     the fields of clusters.yaml that every kind has, and the types of values
    clusters_file   reads clusters.yaml
    local           kind local: Ray nodes on this machine
    ray_jobs        kind ray: a Ray cluster that is running, over its job API
    slurm           kind slurm: Ray inside jobs of Slurm
    kubernetes      kind kubernetes: RayJobs of the KubeRay operator
    clouds          kinds aws and gcp: files for Ray's cluster launcher
    following       follows a job's log to its end
    records         records as lines of a log, for `sweeps fetch`
    job             the entry point of a job on a Ray cluster
    templates       an image and a compose file

A sweep is sent to a cluster as the text of its sweep file; this package imports no models, tasks or training code.
"""
