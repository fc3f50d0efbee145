"""A race of irace as a peer of racing: needs R and its package irace (Debian: r-cran-irace).

Seeds are irace's instances, in the order of the search. All configurations are in the first and only race: t-tests, since
the objective is a mean (with Friedman's test, irace's default, it chose worse here), otherwise irace's defaults: from the
fifth instance on, until two tests have dropped nothing. Nothing is sampled, so only its decisions are compared. López-Ibáñez et
al., "The irace package: Iterated racing for automatic algorithm configuration" (2016).
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sweeps.errors import SweepsError

TIMEOUT_S = 600.0
_SCRIPT = """\
arguments <- commandArgs(trailingOnly = TRUE)
folder <- arguments[1]
suppressPackageStartupMessages(library(irace))
costs <- as.matrix(read.csv(file.path(folder, "costs.csv"), header = FALSE))
count <- nrow(costs)
write.table(data.frame(number = seq_len(count)), file.path(folder, "numbers.txt"), row.names = FALSE)
scenario <- list(
  targetRunner = function(experiment, scenario) list(cost = costs[experiment$configuration$number, experiment$id.instance]),
  instances = as.character(seq_len(ncol(costs))), trainInstancesDir = "", sampleInstances = FALSE, deterministic = TRUE,
  configurationsFile = file.path(folder, "numbers.txt"), nbConfigurations = count, nbIterations = 1, testType = "t-test",
  maxExperiments = 100 * length(costs), firstTest = min(5, ncol(costs)), seed = as.integer(arguments[2]),
  logFile = file.path(folder, "log.Rdata")
)
winner <- irace(scenario, readParameters(text = sprintf('number "" i (1, %d)', count)))$number[1]
load(file.path(folder, "log.Rdata"))
tried <- iraceResults$allConfigurations$number
trained <- which(!is.na(iraceResults$experiments), arr.ind = TRUE)
rows <- rbind(c(winner, 0), cbind(tried[trained[, 2]], trained[, 1]))
write.table(rows, file.path(folder, "found.txt"), row.names = FALSE, col.names = FALSE)
"""


def why_no_irace() -> str | None:
    """Return why irace cannot be measured here; None where it can."""
    if shutil.which("Rscript") is None:
        return "R is not installed"
    known = _rscript("-e", "quit(status = !requireNamespace('irace', quietly = TRUE))")
    return None if known.returncode == 0 else "R has no package irace"


def race(costs: npt.NDArray[np.float64], seed: int) -> tuple[int, Sequence[tuple[int, int]]]:
    """Return the winner, and (configuration, seed) of every cost that irace looked up.

    `costs` is [configurations, seeds], lower being better, and `seed` that of irace's random numbers. Raises SweepsError
    with R's message where R fails.
    """
    with tempfile.TemporaryDirectory(prefix="sweeps-irace-") as folder:
        script, found = Path(folder, "race.R"), Path(folder, "found.txt")
        script.write_text(_SCRIPT, encoding="utf-8")
        np.savetxt(Path(folder, "costs.csv"), costs, delimiter=",", fmt="%.17g")
        done = _rscript(str(script), folder, str(seed))
        if done.returncode != 0 or not found.exists():
            raise SweepsError(f"irace failed: {done.stderr.strip()[-500:]}")
        rows = np.loadtxt(found, dtype=int, ndmin=2)
    return int(rows[0, 0]) - 1, [(int(number) - 1, int(instance) - 1) for number, instance in rows[1:]]


def _rscript(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["Rscript", *arguments], capture_output=True, text=True, timeout=TIMEOUT_S)
