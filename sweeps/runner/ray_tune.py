"""Runs a driver's packs on Ray Tune. The only folder that imports Ray Tune.

One Ray Tune trial is one pack. Ray Tune's own checkpoints and searchers are not used: what a worker reports is durable in
the store before anything else, a lost worker's lanes are given out again from there, and so is a killed sweep's.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # Ray Tune's own state is never used again
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_RESULT_BUFFER_LENGTH": "1",
    "TUNE_MAX_PENDING_TRIALS_PG": "100000",  # this module limits the number of trials itself
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # `interruptible` handles Ctrl-C
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # a user's own file is found from the working directory
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # the new reporter prints a box for each lost trial, even with verbose=0
}
for _name, _value in ENVIRONMENT.items():  # before the import: Ray reads the environment then
    os.environ.setdefault(_name, _value)

import ray
from ray import tune
from ray.tune.search import Searcher
from ray.tune.stopper import Stopper

from sweeps.config.sweep_file import Resources
from sweeps.config.user_files import own_files
from sweeps.errors import ClusterError
from sweeps.runner.driver import Driver, PackOrder
from sweeps.runner.worker import PackRun, prepare_process

GRACE_S = 25.0
"""How long Ray has to end after SIGTERM. Batch systems send it to every process of a job, Ray's own too, and Ray then
waits a minute for itself; Slurm kills after 30 s."""


@contextmanager
def interruptible(driver: Driver, abandon: Callable[[], None]) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the sweep in order; a second one ends it at once.

    `abandon` is called from another thread, right before the process ends, where Ray does not end after SIGTERM.
    """
    signalled: list[int] = []

    def give_up() -> None:
        try:
            abandon()
        finally:
            os._exit(1)  # the main thread waits inside Ray, where no exception reaches it

    timer = threading.Timer(GRACE_S, give_up)
    timer.daemon = True

    def stop(number: int, frame: Any) -> None:
        signalled.append(number)
        if len(signalled) > 1:
            raise KeyboardInterrupt
        driver.stopping = f"{signal.Signals(number).name} was received"
        if number == signal.SIGTERM:
            timer.start()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def own_signals() -> Iterator[None]:
    """Joining a cluster puts Ray's handler of SIGTERM, which ends the process at once, in place of ours."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


log = logging.getLogger(__name__)

STARTS = 4
"""How often Ray is started before giving up: it gives its processes half a minute, which a busy machine exceeds."""
ROOM_PERIOD_S = 2.0
"""How often Ray is asked which nodes there are."""
IN_A_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Set by Ray for what it runs as a job."""


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


LAST_WORD_S = 8.0
"""How long a stop waits for checkpoints: longer than the usual 5 s between two."""


class PackTrial(tune.Trainable):
    """A worker's side of one pack. Actors are reused, so compiled functions stay."""

    def setup(self, config: dict[str, Any]) -> None:
        prepare_process()
        self.run = PackRun(config["order"].value)

    def step(self) -> dict[str, Any]:
        result = self.run.work()
        return {"payload": result, tune.result.DONE: self.run.done}

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        """Nothing to save: checkpoints travel in the reports."""
        return {}

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing to load: a checkpoint comes with the order."""

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.run = PackRun(new_config["order"].value)
        return True


class _Order:
    """Holds a pack's order in a trial's configuration, opaque to Ray Tune, which would print and copy every leaf."""

    def __init__(self, value: PackOrder) -> None:
        self.value = value

    def __repr__(self) -> str:
        return self.value.pack_id

    def __deepcopy__(self, memo: dict[int, Any]) -> _Order:
        return self


class _PackSearcher(Searcher):
    """Ray Tune asks here what to run next."""

    def __init__(self, driver: Driver, room: Room) -> None:
        super().__init__(metric=None, mode=None)
        self._driver: Driver | None = driver
        self._room: Room | None = room
        self._begun: set[str] = set()

    def suggest(self, trial_id: str) -> Any:
        assert self._driver is not None and self._room is not None
        if self._driver.done or self._driver.stopping:
            return Searcher.FINISHED
        if len(self._begun) >= self._room.now():
            return None
        order = self._driver.next_pack(trial_id)
        if order is None:
            return None
        self._begun.add(trial_id)
        return {"order": _Order(order)}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        assert self._driver is not None
        self._begun.discard(trial_id)
        self._driver.pack_ended(trial_id, "its process died or raised" if error else None)

    def __getstate__(self) -> dict[str, Any]:
        return {
            **self.__dict__,
            "_driver": None,
            "_room": None,
        }  # Ray Tune pickles searchers; the driver holds connections

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the store is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, as above."""


class _Receiver(tune.Callback):
    """Takes each report's payload out of Ray Tune's hands, which would keep it."""

    def __init__(self, driver: Driver, watch: Callable[[], None]) -> None:
        self._driver: Driver | None = driver
        self._watch: Callable[[], None] | None = watch

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        assert self._driver is not None and self._watch is not None
        payload = result.pop("payload", None)
        if payload is not None:
            self._driver.receive(trial.trial_id, payload)
        self._watch()

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        assert self._watch is not None
        self._watch()

    def __getstate__(self) -> dict[str, Any]:
        return {"_driver": None, "_watch": None}


class _Stop(Stopper):
    """Ends everything when the driver says so, but lets the packs send a last checkpoint."""

    def __init__(self, driver: Driver) -> None:
        self._driver: Driver | None = driver
        self._reported: set[str] = set()
        self._awaited: set[str] | None = None
        self._since_s = 0.0

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        (self._reported.discard if result.get(tune.result.DONE) else self._reported.add)(trial_id)
        if self._awaited is not None:
            self._awaited.discard(trial_id)
        return False

    def stop_all(self) -> bool:
        if self._driver is None or not (self._driver.out_of_time() or self._driver.stopping is not None):
            return False
        if self._awaited is None:  # those that never reported have no more to tell: they are being compiled
            self._awaited, self._since_s = set(self._reported), time.monotonic()
        self._awaited &= self._driver.packs_running
        return not self._awaited or time.monotonic() - self._since_s > LAST_WORD_S

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_driver": None}


def run(
    driver: Driver,
    resources: Resources,
    room: Room,
    watch: Callable[[], None],
) -> None:
    """Trains until the driver has all it asked for, or is told to stop. `watch` is called at every event."""
    folder = tempfile.mkdtemp(prefix="sweeps-tune-")
    needed: dict[str, float] = {"cpu": resources.cpus, "gpu": resources.gpus}
    if resources.memory_gb is not None:
        needed["memory"] = resources.memory_gb * 1024**3
    tuner = tune.Tuner(
        tune.with_resources(PackTrial, needed),
        tune_config=tune.TuneConfig(
            search_alg=_PackSearcher(driver, room),
            num_samples=-1,
            reuse_actors=True,
            trial_name_creator=lambda trial: trial.trial_id,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="packs",
            storage_path=folder,
            callbacks=[_Receiver(driver, watch)],
            stop=_Stop(driver),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            failure_config=tune.FailureConfig(max_failures=0),
            verbose=0,
        ),
    )
    try:
        with _quiet():
            tuner.fit()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Ray Tune prints a traceback a lost trial and a summary at the end; the driver tells both in its own words."""
    loggers = [logging.getLogger(name) for name in ("ray.tune", "ray", "ray.air", "ray.train")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
