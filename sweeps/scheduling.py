"""Runs a driver's packs on Ray Tune. The only file that imports ray.

One Ray Tune trial is one pack. Ray Tune's own checkpoints and searchers are not used: what a worker reports is durable in
the store before anything else, a lost worker's lanes are given out again from there, and so is a killed sweep's.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "3600")  # Ray Tune's own state is never used again
os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")
os.environ.setdefault("TUNE_RESULT_BUFFER_LENGTH", "1")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # Ctrl-C is ours: see `_interruptible`
os.environ.setdefault(
    "RAY_CHDIR_TO_TRIAL_DIR", "0"
)  # a file of the user's own is found from where they stand
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault(
    "RAY_AIR_NEW_OUTPUT", "0"
)  # the new reporter prints a box a lost trial even when told to be silent

import ray
from ray import tune
from ray.tune.search import Searcher
from ray.tune.stopper import Stopper

from sweeps.driver import Driver
from sweeps.packing import PackOrder
from sweeps.spec import Resources
from sweeps.worker import PackRun, prepare_process

log = logging.getLogger(__name__)


GRACE_S = 25.0
"""How long Ray has to end after SIGTERM. Batch systems send it to every process of a job, Ray's own too, and Ray then
waits a minute for itself; Slurm kills after 30 s."""


class ClusterError(RuntimeError):
    """Ray cannot run the sweep; the message says what is missing."""


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

    def __init__(self, driver: Driver) -> None:
        super().__init__(metric=None, mode=None)
        self._driver: Driver | None = driver

    def suggest(self, trial_id: str) -> Any:
        assert self._driver is not None
        if self._driver.done or self._driver.stopping:
            return Searcher.FINISHED
        order = self._driver.next_pack(trial_id)
        return {"order": _Order(order)} if order is not None else None

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        assert self._driver is not None
        self._driver.pack_ended(trial_id, "its process died or raised" if error else None)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_driver": None}  # Ray Tune pickles searchers; the driver holds connections

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
    """Ends everything when the driver says so."""

    def __init__(self, driver: Driver) -> None:
        self._driver: Driver | None = driver

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._driver is not None and (self._driver.out_of_time() or self._driver.stopping is not None)

    def __getstate__(self) -> dict[str, Any]:
        return {"_driver": None}


@contextmanager
def cluster(resources: Resources, num_workers: int | None = None) -> Iterator[int]:
    """A running Ray, and how many workers it has room for: the one at RAY_ADDRESS, or one of our own on this machine.

    Raises ClusterError where not even one worker fits.
    """
    address = os.environ.get("RAY_ADDRESS")
    own = {} if address else {
        "num_cpus": (num_workers or 0) * resources.cpus or None,
        "include_dashboard": False,
        "object_store_memory": 200 * 1024**2,
    }  # fmt: skip
    try:
        # "local": without it Ray joins whatever cluster `ray start` last began on this machine, whoever's it is.
        ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **own)
    except Exception as error:
        raise ClusterError(f"Ray does not start{f' at {address}' if address else ''}: {error}") from error
    try:
        total = ray.cluster_resources()
        room = int(total.get("CPU", 0) // resources.cpus)
        if resources.gpus:
            room = min(room, int(total.get("GPU", 0) / resources.gpus))
        if room < 1:
            raise ClusterError(
                f"a worker needs {resources.cpus} CPUs and {resources.gpus:g} GPUs, but the cluster has "
                f"{total.get('CPU', 0):g} CPUs and {total.get('GPU', 0):g} GPUs: make `resources` smaller"
            )
        yield min(room, num_workers) if num_workers else room
    finally:
        ray.shutdown()


def run(
    driver: Driver,
    resources: Resources,
    num_workers: int,
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
            search_alg=_PackSearcher(driver),
            num_samples=-1,
            max_concurrent_trials=num_workers,
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
