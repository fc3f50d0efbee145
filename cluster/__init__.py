"""Where sweeps run: nothing stands here yet.

One file for each way to reach machines will: Ray Jobs, local nodes, Slurm, Kubernetes, cloud launchers. Clusters will be
described once, in `clusters.yaml`, and a sweep file never names one. This package imports nothing of training: it
moves a sweep file to where Ray is, and brings records back. Until then `sweeps run` starts Ray on this machine, or
joins the one that Ray's own `RAY_ADDRESS` names.
"""
