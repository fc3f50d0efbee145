"""Kind `slurm`: `jobs` (the backend), `scripts` (its fields and batch scripts), `commands` (Slurm's own)."""

from cluster.slurm.jobs import SlurmBackend

__all__ = ["SlurmBackend"]
