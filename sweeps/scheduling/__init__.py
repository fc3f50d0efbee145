"""Runs a driver's packs on Ray Tune. The only folder that imports Ray Tune.

One Ray Tune trial is one pack. Ray Tune's own checkpoints and searchers are not used: what a worker reports is durable in
the store before anything else, a lost worker's lanes are given out again from there, and so is a killed sweep's.
"""

import os

os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "3600")  # Ray Tune's own state is never used again
os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")
os.environ.setdefault("TUNE_RESULT_BUFFER_LENGTH", "1")
os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", "100000")  # how many may be begun is ours: see `Room`
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # Ctrl-C is ours: see `interruptible`
os.environ.setdefault(
    "RAY_CHDIR_TO_TRIAL_DIR", "0"
)  # a file of the user's own is found from where they stand
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault(
    "RAY_AIR_NEW_OUTPUT", "0"
)  # the new reporter prints a box a lost trial though told to be silent

# Ray reads the environment when it is imported.
from sweeps.scheduling.interrupting import interruptible
from sweeps.scheduling.packs import run
from sweeps.scheduling.room import ClusterError, cluster

__all__ = ["ClusterError", "cluster", "interruptible", "run"]
