"""Packs as trials of Ray Tune: what asks for the next, what takes out their reports, what ends them."""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ray import tune
from ray.tune.search import Searcher
from ray.tune.stopper import Stopper

from sweeps.driver import Driver
from sweeps.packing import PackOrder
from sweeps.scheduling.room import Room
from sweeps.spec import Resources
from sweeps.worker import PackRun, prepare_process

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
