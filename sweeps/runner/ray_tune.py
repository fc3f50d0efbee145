"""Run a driver's packs on Ray Tune. This is the only module that imports Ray Tune.

One Ray Tune trial trains one pack. Ray Tune's own checkpoints and search algorithms are not used: a worker's reports
are written to the store by the driver, and lanes of a lost worker or a killed sweep are continued from there.
"""

from __future__ import annotations

import gc
import itertools
import json
import logging
import math
import os
import re
import secrets
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # Ray Tune's own state is never used again
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_RESULT_BUFFER_LENGTH": "1",
    "TUNE_MAX_PENDING_TRIALS_PG": "100000",  # this module limits the number of trials itself
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # `stop_on_signals` handles Ctrl-C
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # a user's own file is found from the working directory
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # the new reporter prints a box for each lost trial, even with verbose=0
    # As on macOS: a Ray that is started here listens on loopback only. Ray would replace a node address of 127.0.0.1.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}
for _name, _value in ENVIRONMENT.items():  # before the import: Ray reads the environment then
    os.environ.setdefault(_name, _value)

import psutil
import ray
from ray import tune
from ray._raylet import AuthenticationTokenLoader, Config, GcsClient  # type: ignore[attr-defined]
from ray.job_config import JobConfig
from ray.tune.search import Searcher
from ray.tune.stopper import Stopper

from sweeps.config.sweep_file import Resources
from sweeps.config.user_files import own_files
from sweeps.errors import ClusterError, UserError
from sweeps.machine import REMEDY, SOCKET_PATH_BYTES, check_answers, folder_for_sockets, mark_as_ours, number_in, ray_address
from sweeps.runner.driver import Driver, PackReport
from sweeps.runner.gpu import gpus_of_this_machine
from sweeps.runner.run import ignore_hang_up, in_main_thread
from sweeps.runner.trial import Opaque, PackTrial

log = logging.getLogger(__name__)

RAY_SHUTDOWN_S = 25.0
"""Seconds that Ray has to shut down after SIGTERM or SIGHUP. Batch systems send the signal to every process of a job, including
Ray's own, for which Ray then waits up to a minute; Slurm kills after 30 s."""
WORKER_SHUTDOWN_S = 3.0
"""Seconds that workers have to end by themselves after their raylet."""
START_ATTEMPTS = 4
"""How often Ray is started: it waits half a minute for its own processes, which is too short on a busy machine."""
CAPACITY_PERIOD_S = 2.0
"""Seconds between two requests of the cluster's nodes."""
LAST_REPORT_TIMEOUT_S = 8.0
"""Seconds that a stop waits for last checkpoints: longer than the 5 s that are usual between two."""
RAY_SOCKET_BYTES = len("/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store.1")
LOG_LINES = 3
"""Lines that are shown of the output of a worker that died."""
STACK_LINE = re.compile(r"\[|:|PC: @|\s+@|\s+File |Stack|Current thread|Thread 0x|Extension modules|\*\*\*|  <no Python")
JOB_CONFIG_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Ray sets it for the processes of a submitted job."""


@contextmanager
def stop_on_signals(driver: Driver, before_exit: Callable[[], None]) -> Iterator[None]:
    """Stop the sweep in order on SIGINT (Ctrl-C), SIGTERM or SIGHUP (unless it is ignored, as under nohup).

    A second signal stops it at once. Where Ray does not shut down in time after SIGTERM or SIGHUP, `before_exit` is
    called from another thread, and the process ends. Nothing is handled in another thread than the main one.
    """
    if not in_main_thread():
        yield
        return
    received: list[int] = []

    def exit_now() -> None:
        try:
            before_exit()
        finally:
            os._exit(1)  # the main thread waits inside Ray, where no exception reaches it

    timer = threading.Timer(RAY_SHUTDOWN_S, exit_now)
    timer.daemon = True

    def stop(number: int, frame: object) -> None:
        received.append(number)
        if len(received) > 1:
            raise KeyboardInterrupt
        driver.stop_reason = f"{signal.Signals(number).name} was received"
        if number == signal.SIGHUP:
            ignore_hang_up()
        if number != signal.SIGINT:
            timer.start()

    handled = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        handled.append(signal.SIGHUP)
    previous = {number: signal.signal(number, stop) for number in handled}
    try:
        yield
    finally:
        timer.cancel()
        for number, handler in previous.items():
            if number != signal.SIGHUP or number not in received:  # then it stays ignored
                signal.signal(number, handler)


class WorkerCapacity:
    """The number of workers that the cluster has resources for. Nodes are added and lost during a sweep.

    `own_node`: Ray was started for this sweep, on this machine only, so that a lost node is not replaced.
    """

    def __init__(self, resources: Resources, max_workers: int | None, own_node: bool = False) -> None:
        self._resources, self._max_workers, self._own_node = resources, max_workers, own_node
        self._workers, self._updated_s = 0, -math.inf
        self._nodes: list[Mapping[str, float]] = []

    def current(self) -> int:
        """Return the number of workers, which is requested from Ray every CAPACITY_PERIOD_S seconds.

        Raises ClusterError where Ray's process for this machine, the raylet, has died: Ray Tune would wait for ever.
        """
        if time.monotonic() - self._updated_s >= CAPACITY_PERIOD_S:
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            if self._own_node and not nodes:
                raise ClusterError(
                    "Ray's process for this machine (the raylet) has died: was it killed, or is the memory full? "
                    "What is done stays; the same command continues."
                )
            workers = sum(workers_on(node, self._resources) for node in nodes)
            self._workers = min(workers, self._max_workers) if self._max_workers else workers
            self._nodes = nodes
            self._updated_s = time.monotonic()
        return self._workers

    def num_nodes(self) -> int:
        """Return the number of nodes on which workers fit, as of the last request."""
        return sum(workers_on(node, self._resources) > 0 for node in self._nodes)

    def idle_gpus(self) -> str | None:
        """Return a sentence about the GPUs that no worker of `current` uses, with the remedy; None where there are none."""
        workers, per_gpu = self.current(), self._resources.workers_per_gpu
        gpus = [int(node.get("GPU", 0)) for node in self._nodes]
        if not per_gpu or workers >= sum(gpus) * per_gpu:
            return None
        here = f"the GPUs are for {sum(gpus) * per_gpu} workers of {self._resources.gpus:g}, and there are {workers}"
        if workers == self._max_workers:
            return f"{here}, as `--workers` says"
        return (
            f"{here}: the nodes have no more CPUs, or memory. Make `resources.cpus` or `resources.memory_gb` smaller, or give "
            "Ray's nodes more CPUs: a worker with a GPU uses at most one of them"
        )

    def wait_for_first(self, timeout_s: float) -> int:
        """Wait until a first worker fits, as for nodes that a batch system has yet to start; return `current`."""
        deadline = time.monotonic() + timeout_s
        while not self.current() and time.monotonic() < deadline:
            time.sleep(CAPACITY_PERIOD_S)
        return self.current()


def workers_on(node: Mapping[str, float], resources: Resources) -> int:
    """Return how many workers fit on a node with these resources (Ray's names). No worker has parts of two GPUs."""
    needs = {"CPU": resources.cpus, "memory": (resources.memory_gb or 0) * 1024**3}
    fits = [int((node.get(kind, 0) + 1e-6) / amount) for kind, amount in needs.items() if amount]
    return min([*fits, int(node.get("GPU", 0)) * resources.workers_per_gpu] if resources.gpus else fits)


@contextmanager
def ray_cluster(
    resources: Resources, max_workers: int | None = None, document: Mapping[str, Any] | None = None
) -> Iterator[WorkerCapacity]:
    """Connect to the cluster at RAY_ADDRESS, or start Ray on this machine, for as long as the block lasts.

    On this machine there are as many workers as its GPUs are for, where the sweep uses some, whatever its CPUs: a worker with
    a GPU uses a CPU for little else than starting programs.

    The user's own files that a sweep's `document` names are sent to the workers of a cluster. Raises ClusterError where
    Ray does not start, and where not even one worker fits after SWEEPS_WAIT_S seconds, and UserError where this machine has no
    GPU for a sweep that needs one.
    """
    address = ray_address()
    gpus = gpus_of_this_machine() if resources.gpus and not address else None
    workers = max_workers or (gpus or 0) * resources.workers_per_gpu
    with nullcontext() if address else _private_ray() as folder:
        options: dict[str, Any] = {} if address else {
            "num_cpus": workers * resources.cpus or None,
            "num_gpus": gpus,
            "include_dashboard": False,
            "object_store_memory": 200 * 1024**2,
            "_temp_dir": str(folder / "ray") if folder else None,
        }  # fmt: skip
        # Ray keeps a mode and a token that it has read once, such as those of an earlier Ray of this process.
        Config.initialize("")
        AuthenticationTokenLoader.instance().reset_cache()
        if address and address != "auto":
            check_answers(address, GcsClient)
        # Connecting to a cluster replaces the handler of SIGTERM by Ray's, which ends the process at once.
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        # A closed terminal sends SIGHUP to Ray's processes too. They inherit that it is blocked, and send last checkpoints.
        unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
        others = psutil.Process().children()
        try:
            with _runtime_env(document if address else None) as runtime_env:
                if runtime_env is None and JOB_CONFIG_VARIABLE not in os.environ:
                    # Ray would put this folder on the path of workers, first, where a file such as numpy.py is imported
                    # before `import_from` is called. Of a job of Ray Client's it does not, and has no other use for the mark.
                    options["job_config"] = JobConfig(_client_job=True)
                # "local": without it Ray connects to any cluster that `ray start` began on this machine.
                _init_ray(
                    address=address or "local", runtime_env=runtime_env, log_to_driver=False,
                    logging_level=logging.ERROR, **options,
                )  # fmt: skip
        except UserError:
            raise
        except Exception as error:
            if not address:
                raise ClusterError(f"Ray does not start: {error}") from error
            if address == "auto" and isinstance(error, ConnectionError):
                raise ClusterError(
                    "RAY_ADDRESS is auto, and no Ray runs on this machine: `ray start --head` starts one; or " + REMEDY
                ) from error
            why = (f"{error} ({error.__cause__})" if error.__cause__ else str(error)).rstrip(".")
            raise ClusterError(f"Ray does not start at RAY_ADDRESS {address}: {why}. {REMEDY}") from error
        finally:
            for number, handler in handlers.items() if in_main_thread() else ():
                signal.signal(number, handler)
            signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
        try:
            capacity = WorkerCapacity(resources, max_workers, own_node=not address)
            if capacity.wait_for_first(number_in("SWEEPS_WAIT_S")) < 1:
                total = ray.cluster_resources()
                raise ClusterError(
                    f"a worker needs {resources.cpus} CPUs and {resources.gpus:g} GPUs"
                    + (f" and {resources.memory_gb:g} GB" if resources.memory_gb else "")
                    + f" of one node, but the cluster's nodes together have {total.get('CPU', 0):g} CPUs, "
                    f"{total.get('GPU', 0):g} GPUs and {total.get('memory', 0) / 1024**3:.1f} GB: make `resources` smaller"
                )
            yield capacity
        finally:
            _shut_down([] if address else [child for child in psutil.Process().children() if child not in others])


def _shut_down(own: Sequence[psutil.Process]) -> None:
    """Call `ray.shutdown`, and end the workers of the processes `own`, a Ray of this sweep's, that remain after it.

    Workers look from time to time whether their raylet lives, by the wall clock: set back an hour, for an hour they do not.

    Without garbage collection meanwhile: it runs in any thread, such as the one that writes to MLflow, and where it releases an
    object of Ray's while the core worker ends, Ray ends this process.
    """
    workers: list[psutil.Process] = []
    for process in own:
        with suppress(psutil.Error):
            workers += process.children(recursive=True)
    collects = gc.isenabled()
    gc.disable()
    try:
        ray.shutdown()
    finally:
        if collects:
            gc.enable()
    for process in psutil.wait_procs(workers, WORKER_SHUTDOWN_S)[1]:
        with suppress(psutil.Error):
            process.kill()


@contextmanager
def _private_ray() -> Iterator[Path | None]:
    """Give a Ray that is started here a token that nobody else knows, and yield a closed folder for its files.

    Ray would write a token that every user can read to ~/.ray, and its files to /tmp/ray, which belongs to the first user
    of the machine. The token is in the environment, which only this user can read, and only while the block lasts.
    Files stay where RAY_TMPDIR names their place; then the folder is None.
    """
    given = os.environ.get("RAY_TMPDIR")
    if given and len(os.fsencode(given)) + RAY_SOCKET_BYTES > SOCKET_PATH_BYTES:
        raise ClusterError(
            f"RAY_TMPDIR is too long for the paths of Ray's sockets ({given}): unset it, or name a folder with a path of at "
            f"most {SOCKET_PATH_BYTES - RAY_SOCKET_BYTES} letters"
        )
    folder = None if given else folder_for_sockets("sweeps-ray-", RAY_SOCKET_BYTES)
    if folder is not None:
        mark_as_ours(folder, "sweeps-ray-")
    own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    before = {name: os.environ.get(name) for name in own}
    os.environ.update(own)
    try:
        yield folder
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def _init_ray(**options: Any) -> None:
    """Call `ray.init`, again where a node that it starts was not up in time. Left-over processes end with this one."""
    for attempt in range(1, START_ATTEMPTS + 1):
        try:
            ray.init(**options)
            return
        except Exception as error:
            if attempt == START_ATTEMPTS or "timed out during startup" not in str(error):
                raise
            log.warning(
                "Ray was not up within half a minute: it is started again (%d of %d)", attempt + 1, START_ATTEMPTS
            )  # fmt: skip


@contextmanager
def _runtime_env(document: Mapping[str, Any] | None) -> Iterator[dict[str, Any] | None]:
    """Yield Ray's `runtime_env` with the user's own files, or None where there are none to send."""
    files = {}
    if document and not _job_has_working_dir(os.environ.get(JOB_CONFIG_VARIABLE)):
        files = own_files(document, Path.cwd())
    if not files:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="sweeps-own-") as folder:
        for name, path in files.items():
            target = Path(folder) / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        yield {"working_dir": folder}


def _job_has_working_dir(job_config: str | None) -> bool:
    """Return whether a submitted job (its config as JSON) has a working directory, which its workers have too."""
    return "working_dir" in ((json.loads(job_config).get("runtime_env") or {}) if job_config else {})


class _Session:
    """What Ray Tune's searcher, callback and stopper share: the driver, and the first exception that it raised.

    Ray Tune pickles all three, but the driver holds connections: a pickled session is empty. Ray Tune also replaces an
    exception of a callback by a TuneError that contains only its text; `run` raises the original.
    """

    def __init__(self, driver: Driver | None, capacity: WorkerCapacity | None, on_event: Callable[[], None] | None) -> None:
        self._driver, self._capacity, self._on_event = driver, capacity, on_event
        self.error: Exception | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _Session, (None, None, None)

    @property
    def driver(self) -> Driver:
        assert self._driver is not None
        return self._driver

    @property
    def max_packs(self) -> int:
        """Packs that may run at the same time: one a worker."""
        assert self._capacity is not None
        return self._capacity.current()

    def check_capacity(self) -> None:
        """Raise ClusterError where Ray has no node any more. A sweep that stops has a reason already."""
        assert self._capacity is not None
        if self.driver.stop_reason is None:
            self._capacity.current()
            self.driver.spending.set_nodes(self._capacity.num_nodes())

    def on_event(self) -> None:
        assert self._on_event is not None
        self._on_event()

    @contextmanager
    def keep_error(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.error = self.error or error
            raise


class _PackSearcher(Searcher):
    """Ray Tune's source of trials: the driver's packs, one for each worker."""

    def __init__(self, session: _Session) -> None:
        super().__init__(metric=None, mode=None)
        self._session = session
        self._running: set[str] = set()

    def suggest(self, trial_id: str) -> Any:
        driver = self._session.driver
        with self._session.keep_error():
            if driver.done or driver.stop_reason:
                return Searcher.FINISHED
            num_free = self._session.max_packs - len(self._running)
            if num_free < 1:
                return None
            request = driver.next_pack(trial_id, num_free)
        if request is None:
            return None
        self._running.add(trial_id)
        return {"request": Opaque(trial_id, request.installation, request)}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self._running.discard(trial_id)
        if not error:  # otherwise the callback below gets the trial, which says why
            with self._session.keep_error():
                self._session.driver.pack_ended(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the state is in the store."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing, as in `save`."""


class _ReportCallback(tune.Callback):
    """Pass every report to the driver, and remove it from Ray Tune's result, which Ray Tune keeps."""

    def __init__(self, session: _Session) -> None:
        self._session = session
        self._reasons: set[str] = set()  # of lost workers; each is said once

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any) -> None:
        report: PackReport | None = result.pop("report", None)
        with self._session.keep_error():
            if report is not None:
                self._session.driver.receive(trial.trial_id, report)
            self._session.on_event()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        text = Path(trial.error_file).read_text(encoding="utf-8", errors="replace") if trial.error_file else ""
        reason, raised = why_lost(text)
        driver = self._session.driver
        if reason not in self._reasons and driver.stop_reason is None:
            self._reasons.add(reason)
            log.warning("a worker was lost, and its lanes are queued again: %s", reason)
        with self._session.keep_error():
            driver.pack_ended(trial.trial_id, reason, raised)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        with self._session.keep_error():
            self._session.check_capacity()
            self._session.on_event()


def why_lost(text: str) -> tuple[str, bool]:
    """Return why a worker was lost, from Ray's text about it, and whether it raised an exception.

    For an exception that is its own text, for a process that died Ray's detail and the end of the process's log.
    """
    lines = text.rstrip().splitlines()
    frames = [number for number, line in enumerate(lines) if line.startswith("  File ")]
    if frames:
        rest = itertools.dropwhile(lambda line: line.startswith("  "), lines[frames[-1] :])
        return f"{' '.join(rest).strip()} (raised in{lines[frames[-1]].removeprefix('  File')})", True
    detail = re.search(r"Worker exit detail: (.*?)\.?(?: Some common causes.*)?$", text, re.MULTILINE)
    what = detail[1] if detail else " ".join(lines[1:3])[:300] or "Ray does not say why"
    process = re.search(r"^\s*pid: (\d+)$", text, re.MULTILINE)
    logged = _end_of_log(int(process[1])) if process else ""
    return f"its process died: {what}" + (f". The end of its output: {logged}" if logged else ""), False


def _end_of_log(process: int) -> str:
    """Return the last lines that a worker of this machine wrote to stderr, without stack traces; empty if there are none."""
    node = ray._private.worker._global_node
    found = list(Path(node.get_logs_dir_path()).glob(f"worker-*-{process}.err")) if node else []
    if not found:
        return ""
    lines = found[0].read_text(encoding="utf-8", errors="replace").splitlines()
    said = [line.strip() for line in lines if line.strip() and not STACK_LINE.match(line)]
    return "; ".join(said[-LOG_LINES:])


class _DriverStopper(Stopper):
    """Stop all trials when the driver stops, after each running pack has sent a last checkpoint."""

    def __init__(self, session: _Session) -> None:
        self._session = session
        self._reporting: set[str] = set()
        self._awaited: set[str] | None = None
        self._since_s = 0.0

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        if result.get("preparing"):  # it has nothing to save
            return False
        (self._reporting.discard if result.get(tune.result.DONE) else self._reporting.add)(trial_id)
        if self._awaited is not None:
            self._awaited.discard(trial_id)
        return False

    def stop_all(self) -> bool:
        driver = self._session.driver
        if not (driver.out_of_budget() or driver.stop_reason is not None):
            return False
        if self._awaited is None:  # packs without a first report have nothing to save: they are being compiled
            self._awaited, self._since_s = set(self._reporting), time.monotonic()
        self._awaited &= driver.packs_running
        return not self._awaited or time.monotonic() - self._since_s > LAST_REPORT_TIMEOUT_S


def run(driver: Driver, resources: Resources, capacity: WorkerCapacity, on_event: Callable[[], None]) -> None:
    """Train until the driver is done, or stops. `on_event` is called at every event, several times a second.

    Raises what the driver raises, such as StoreError where the store cannot be written any more.
    """
    session = _Session(driver, capacity, on_event)
    folder = tempfile.mkdtemp(prefix="sweeps-tune-")
    mark_as_ours(Path(folder), "sweeps-tune-")
    needed: dict[str, float] = {"cpu": resources.cpus, "gpu": resources.gpus}
    if resources.memory_gb is not None:
        needed["memory"] = resources.memory_gb * 1024**3
    tuner = tune.Tuner(
        tune.with_resources(PackTrial, needed),
        tune_config=tune.TuneConfig(
            search_alg=_PackSearcher(session),
            num_samples=-1,
            reuse_actors=True,
            trial_name_creator=lambda trial: trial.trial_id,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="packs",
            storage_path=folder,
            callbacks=[_ReportCallback(session)],
            stop=_DriverStopper(session),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            failure_config=tune.FailureConfig(max_failures=0),
            verbose=0,
        ),
    )
    # Ray Tune logs a traceback for each lost trial and a summary at the end; the driver reports both itself.
    loggers = [logging.getLogger(name) for name in ("ray.tune", "ray", "ray.air", "ray.train")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        tuner.fit()
    except Exception:
        if session.error is not None:
            raise session.error from None
        raise
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        shutil.rmtree(folder, ignore_errors=True)
