"""A running Ray, and how many workers it has room for."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

from sweeps.own_files import own_files
from sweeps.scheduling.interrupting import own_signals
from sweeps.spec import Resources

log = logging.getLogger(__name__)

STARTS = 4
"""How often Ray is started before giving up: it gives its processes half a minute, which a busy machine exceeds."""
ROOM_PERIOD_S = 2.0
"""How often Ray is asked which nodes there are."""
IN_A_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Set by Ray for what it runs as a job."""


class ClusterError(RuntimeError):
    """Ray cannot run the sweep; the message says what is missing."""


class Room:
    """How many workers the cluster has room for now: nodes come late, and vanish."""

    def __init__(self, resources: Resources, most: int | None) -> None:
        self._resources, self._most = resources, most
        self._counted, self._asked_s = 0, -math.inf

    def now(self) -> int:
        """Asks Ray anew where the last answer is older than a moment."""
        if time.monotonic() - self._asked_s >= ROOM_PERIOD_S:
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            counted = sum(workers_on(node, self._resources) for node in nodes)
            self._counted = min(counted, self._most) if self._most else counted
            self._asked_s = time.monotonic()
        return self._counted

    def wait(self, patience_s: float) -> int:
        """As `now`, but waits for a first worker's room: worker jobs of a batch system come when they are scheduled."""
        deadline = time.monotonic() + patience_s
        while not self.now() and time.monotonic() < deadline:
            time.sleep(ROOM_PERIOD_S)
        return self.now()


def workers_on(node: Mapping[str, float], resources: Resources) -> int:
    """How many workers fit on a node that has this much."""
    needs = {"CPU": resources.cpus, "GPU": resources.gpus, "memory": (resources.memory_gb or 0) * 1024**3}
    return min(int((node.get(kind, 0) + 1e-6) / amount) for kind, amount in needs.items() if amount)


@contextmanager
def cluster(
    resources: Resources, num_workers: int | None = None, document: Mapping[str, Any] | None = None
) -> Iterator[Room]:
    """A running Ray, and its room for workers: the one at RAY_ADDRESS, or one of our own on this machine.

    The files of the user's own that a sweep's `document` names travel to the workers. Raises ClusterError where not even
    one worker fits, after SWEEPS_WAIT_S seconds.
    """
    address = os.environ.get("RAY_ADDRESS")
    own = {} if address else {
        "num_cpus": (num_workers or 0) * resources.cpus or None,
        "include_dashboard": False,
        "object_store_memory": 200 * 1024**2,
    }  # fmt: skip
    room = Room(resources, num_workers)
    try:
        with _travelling(document if address else None) as environment, own_signals():
            # "local": without it Ray joins whatever cluster `ray start` last began on this machine, whoever's it is.
            _init(
                address=address or "local", runtime_env=environment, log_to_driver=False,
                logging_level=logging.ERROR, **own,
            )  # fmt: skip
    except Exception as error:
        raise ClusterError(f"Ray does not start{f' at {address}' if address else ''}: {error}") from error
    try:
        if room.wait(float(os.environ.get("SWEEPS_WAIT_S", "0"))) < 1:
            total = ray.cluster_resources()
            raise ClusterError(
                f"a worker needs {resources.cpus} CPUs and {resources.gpus:g} GPUs"
                + (f" and {resources.memory_gb:g} GB" if resources.memory_gb else "")
                + f" of one node, but the cluster's nodes together have {total.get('CPU', 0):g} CPUs, "
                f"{total.get('GPU', 0):g} GPUs and {total.get('memory', 0) / 1024**3:.1f} GB: make `resources` smaller"
            )
        yield room
    finally:
        ray.shutdown()


def _init(**options: Any) -> None:
    """`ray.init`, again where a node of our own was not up in Ray's time. What was begun then ends with this process."""
    for start in range(1, STARTS + 1):
        try:
            ray.init(**options)
            return
        except Exception as error:
            if start == STARTS or "timed out during startup" not in str(error):
                raise
            log.warning(
                "Ray was not up within half a minute: it is started again (%d of %d)", start + 1, STARTS
            )


@contextmanager
def _travelling(document: Mapping[str, Any] | None) -> Iterator[dict[str, Any] | None]:
    """Ray's `runtime_env` with the user's own files in it, or None. A job with a working folder brought them along."""
    files = own_files(document, Path.cwd()) if document and not _has_folder(os.environ.get(IN_A_JOB)) else {}
    if not files:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="sweeps-own-") as folder:
        for name, path in files.items():
            target = Path(folder) / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        yield {"working_dir": folder}


def _has_folder(job: str | None) -> bool:
    """Whether a job of Ray's, told as JSON, was given a working folder, which its workers get too."""
    return "working_dir" in ((json.loads(job).get("runtime_env") or {}) if job else {})
