"""Where sweeps run. Clusters are described once, by name, in `clusters.yaml`; a sweep file never names one.

`clusters_file` reads descriptions (`descriptions`, one class a kind; `fields`, what each field may hold). `kuberay`,
`slurm` and `launcher` turn one into manifests, batch scripts and files for `ray up`; `showing` prints them. `remote` is what
the verbs see of a cluster that sweeps are submitted to: `ray_jobs` and `slurm_jobs` are it. This
package knows how a YAML file is read and how its faults are told, and nothing of training: what travels to a cluster
is the text of a sweep file (`sweep_file`).
"""
