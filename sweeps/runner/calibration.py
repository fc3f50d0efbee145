"""What training costs on this machine: measured once, and kept beside the compiled programs.

`calibrate` starts two kinds of processes. Some, as many as a sweep's workers here and all at the same time, train lanes of
each structure through the engine (`Pack`) and measure a step, an evaluation, the loading of programs and, where they are new,
their compilation. One more runs a sweep of a few lanes on Ray, and measures what every sweep takes besides: the start of
Ray and of a worker, a pack's way to a worker, records and MLflow.

A measurement is kept by structure, kind of device, numerics and source: where one of these changes it is made again. It names
the device (`device_name`), so that it can be used for a plan of another machine.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import pickle
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from sweeps.config import registry
from sweeps.config.settings import build, resolve, source_of, structure
from sweeps.errors import SweepsError
from sweeps.runner.driver import Driver, PackReport, PackRequest
from sweeps.runner.worker import prepare_process
from sweeps.training.lane import Lane, LaneResult
from sweeps.training.lane_program import ProgramFiles
from sweeps.training.numerics import Numerics
from sweeps.training.pack import Pack
from sweeps.training.settings import REMOVABLE
from sweeps.training.trainers import forget_programs

CALIBRATION_S = 28.0
"""Seconds that a calibration may take. What is not measured then is estimated, and measured by the next one."""
START_S = 13.0
"""Of these, for the sweep on Ray, where it is not kept from before."""
MOST_LANES = 50
"""Lanes of a structure that are trained, of networks whose lanes do not make their steps together."""
WINDOW_S = 0.04
"""Seconds of training between two readings of the clock, about."""
ROUNDS = 10
LONG_ROUND_S = 0.5
"""Where a pack takes as long from one evaluation to the next, what it does between does not count."""
TINY = "name: calibration\ntask: {{name: static, operation: add}}\nmodel: linear\ntrain: {{steps: 1}}\nseeds: {seeds}\n"
ENDLESS = 10**12
"""Budget of lanes that are measured: they do not end."""


@dataclass(frozen=True)
class StructureCost:
    """Seconds that a worker takes for lanes of one structure, while the other workers of the machine train too."""

    load_s: float
    """To load its programs into a process, once."""
    compile_s: float | None
    """To compile them, once on a machine; None: they were there already."""
    setup_s: float
    """To begin a pack in a process that has the programs."""
    step_s: float
    """An update of one lane, with its share of what a pack does between two evaluations."""
    evaluate_s: float
    """An evaluation of one lane."""
    threshold_s: float
    """To compute a task's threshold, once in a process."""
    finish_s: float
    """To write the final state of one lane into its result."""


@dataclass(frozen=True)
class MachineCost:
    """Seconds that a sweep takes besides training."""

    start_s: float
    """From the command to a Ray that has workers."""
    worker_s: float
    """From the first pack to a worker that begins with it: a process, and its imports."""
    pack_s: float
    """For a further pack to reach a worker, and its result the driver."""
    end_s: float
    """To end Ray and the command."""
    record_s: float
    """The driver, to write one record."""
    mlflow_s: float
    """To begin with MLflow."""
    mlflow_lane_s: float
    """To write the run of one lane to MLflow, without its curve."""
    mlflow_point_s: float
    """To write one point of a curve."""


@dataclass(frozen=True)
class Sample:
    """Some lanes of one structure, as a worker would be sent them."""

    name: str
    """For people, such as `nau on static`."""
    request: PackRequest

    @classmethod
    def of(
        cls, settings: Mapping[str, Any], zeros: frozenset[str], numerics: Numerics, slots: int,
        device: str = "cpu", threads: int = 1, gpus: float = 0.0,
    ) -> Sample:  # fmt: skip
        """Return lanes of these explicit settings with an endless budget."""
        network = registry.find("network", settings["model"]["network"])
        endless = {**settings, "train": {**settings["train"], "steps": ENDLESS, "stop": "never"}}
        count = min(slots, MOST_LANES) if device == "cpu" and not network.pieces else slots
        lanes = [Lane(str(seed), endless, seed) for seed in range(max(1, count))]
        request = PackRequest(
            "calibration", lanes, slots, zeros & REMOVABLE, numerics, source_of(settings), "", device=device, gpus=gpus,
            threads=threads,
        )  # fmt: skip
        return cls(f"{settings['model']['name']} on {settings['task']['name']}", request)

    @property
    def key(self) -> str:
        """Digest of what the cost depends on, besides the machine."""
        request = self.request
        settings, network = request.lanes[0].settings, registry.find("network", request.lanes[0].settings["model"]["network"])
        # Lanes that make their steps together, and evaluations of several lengths, depend on more than the structure.
        more = [len(request.lanes), request.slots, settings["task"]] if network.pieces else []
        of = [structure(settings), sorted(request.zeros), str(request.numerics), request.source, request.threads, more]
        return hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Costs:
    """What was measured now, or before."""

    structures: dict[str, StructureCost]
    """By the key of a sample. Those that were not measured are not in it."""
    machine: MachineCost | None
    device: str
    """Name of the device of the structures."""
    measured: tuple[str, ...] = ()
    """Names of the samples that were measured just now."""
    seconds: float = 0.0
    """That it took."""


def device_name(device: str) -> str:
    """Return the name of this machine's `cpu` or `cuda`, with the number of cores of a CPU."""
    if device != "cpu":
        return torch.cuda.get_device_name() if torch.cuda.is_available() else device
    model = platform.processor() or platform.machine()
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    return f"{model}, {os.cpu_count()} cores"


def folder() -> Path:
    """Return where measurements are kept: with the compiled programs."""
    return ProgramFiles().folder


def kept(samples: Sequence[Sample], device: str, workers: int, any_machine: bool = False) -> Costs:
    """Return what is kept, for this machine; with `any_machine` also for another that has the same kind of device."""
    here = device_name(device)
    found: dict[str, StructureCost] = {}
    named = here
    for sample in samples:
        of_machines = _read(f"calibration-{sample.key}")
        name = here if here in of_machines else next(iter(of_machines), None) if any_machine else None
        if name is not None:
            with suppress(TypeError):  # of another version
                found[sample.key] = StructureCost(**of_machines[name])
                named = name
    machine = None
    with suppress(TypeError):
        if fixed := _read(_machine_file(workers)).get(device_name("cpu")):
            machine = MachineCost(**fixed)
    return Costs(found, machine, named)


def names_text(names: Iterable[str]) -> str:
    """Return `nalu on static, 2 x nmu on static`: structures of one model and task differ in settings that no name has."""
    return ", ".join(name if count == 1 else f"{count} x {name}" for name, count in Counter(names).items())


def calibrate(
    samples: Sequence[Sample], device: str, workers: int, again: bool = False,
    on_progress: Callable[[str], None] = lambda _: None,
) -> Costs:  # fmt: skip
    """Return the costs of the samples on this machine, those that are not kept measured now, the first samples first.

    `workers` is the number of workers that a sweep has here. `again` measures all of them.
    """
    began = time.monotonic()
    before = Costs({}, None, device_name(device)) if again else kept(samples, device, workers)
    missing = [sample for sample in samples if sample.key not in before.structures]
    if not missing and before.machine is not None:
        return before
    tiny = _tiny()
    of_tiny = {} if again else kept([tiny], "cpu", workers).structures
    if before.machine is None and tiny.key not in of_tiny:
        missing = [tiny, *(sample for sample in missing if sample.key != tiny.key)]
    on_progress(
        f"calibration: {names_text(sample.name for sample in missing) or 'the start of Ray'}, at most {CALIBRATION_S:g} s"
    )
    structures, machine = dict(before.structures), before.machine
    with tempfile.TemporaryDirectory(prefix="sweeps-calibration-", ignore_cleanup_errors=True) as name:
        until = began + CALIBRATION_S - (START_S if machine is None else 0)
        processes = min(workers, os.cpu_count() or 1) if device == "cpu" else 1
        new = _measure_structures(missing, processes, Path(name), until)
        new = _thresholds_shared(missing, new)
        structures |= new
        of_tiny |= new
        if machine is None and tiny.key in of_tiny:
            times = _measure_start(workers, Path(name), began + CALIBRATION_S)
            machine = None if times is None else _machine_cost(times, of_tiny[tiny.key])
    here = device_name(device)
    for key, cost in new.items():
        _write(f"calibration-{key}", _read(f"calibration-{key}") | {here: dataclasses.asdict(cost)})
    if machine is not None and before.machine is None:
        file = _machine_file(workers)
        _write(file, _read(file) | {device_name("cpu"): dataclasses.asdict(machine)})
    names = tuple(sample.name for sample in missing if sample.key in new)
    older = kept(samples, device, workers)  # of `again`, what was not ready in time
    of_samples = {s.key: structures[s.key] for s in samples if s.key in structures}
    return Costs(older.structures | of_samples, machine or older.machine, here, names, time.monotonic() - began)


# ------------------------------------------------------------------------------------------- files


def _machine_file(workers: int) -> str:
    version = importlib.metadata.version("sweeps")
    return "calibration-start-" + hashlib.sha256(f"{version} {workers}".encode()).hexdigest()[:32]


def _read(name: str) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        path = folder() / f"{name}.json"
        found = json.loads(path.read_text(encoding="utf-8"))
        with suppress(OSError):
            path.touch()  # its last use: what is not used for months is removed
        if isinstance(found, dict):
            return found
    return {}


def _write(name: str, values: Mapping[str, Any]) -> None:
    """Keep values; where that cannot be done they are measured again."""
    with suppress(OSError):
        path = folder() / f"{name}.json"
        temporary = path.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps(values), encoding="utf-8")
        temporary.replace(path)


# ------------------------------------------------------------------------------------------- processes


def _start(arguments: Sequence[str], folder: Path, number: int, given: bytes) -> subprocess.Popen[bytes]:
    """Start this module as a program that reads `given`, and writes lines of JSON to a file of the folder."""
    (folder / f"{number}.in").write_bytes(given)
    with (
        (folder / f"{number}.in").open("rb") as stdin,
        (folder / f"{number}.out").open("wb") as stdout,
        (folder / f"{number}.err").open("wb") as stderr,
    ):
        command = [sys.executable, "-P", "-m", __name__, *arguments]
        return subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=True)


def _lines(folder: Path, number: int) -> list[dict[str, Any]]:
    found = []
    for line in (folder / f"{number}.out").read_text(encoding="utf-8", errors="replace").splitlines():
        with suppress(ValueError):
            found.append(json.loads(line))
    return [one for one in found if isinstance(one, dict)]


def _wait(processes: Sequence[subprocess.Popen[bytes]], until: float) -> None:
    """Wait for processes to end, and end those that take too long, with all that they started."""
    for process in processes:
        try:
            process.wait(max(0.1, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            process.wait()


def _measure_structures(samples: Sequence[Sample], count: int, folder: Path, until: float) -> dict[str, StructureCost]:
    """Measure samples in so many processes at the same time; the mean of those that ended each. Raises SweepsError.

    One that fails or is not ready in time has no cost.
    """
    given = pickle.dumps([(sample.key, sample.request) for sample in samples])
    processes = [_start(["structures"], folder, number, given) for number in range(count)]
    _wait(processes, until)
    found: dict[str, list[StructureCost]] = {}
    for number in range(count):
        for line in _lines(folder, number):
            if (reason := line.get("failed")) is not None:
                raise SweepsError(f"the calibration could not train lanes: {reason}. `sweeps check` of the model may say more")
            found.setdefault(str(line.pop("key")), []).append(StructureCost(**line))
    return {key: _mean(costs) for key, costs in found.items()}


def _thresholds_shared(samples: Sequence[Sample], new: Mapping[str, StructureCost]) -> dict[str, StructureCost]:
    """Give structures of one task the same time for its threshold, which a process computes once and then remembers."""
    tasks = {sample.key: json.dumps(sample.request.lanes[0].settings["task"], sort_keys=True) for sample in samples}
    longest: dict[str, float] = {}
    for key, cost in new.items():
        longest[tasks[key]] = max(cost.threshold_s, longest.get(tasks[key], 0.0))
    return {key: dataclasses.replace(cost, threshold_s=longest[tasks[key]]) for key, cost in new.items()}


def _mean(costs: Sequence[StructureCost]) -> StructureCost:
    values = {}
    for field in dataclasses.fields(StructureCost):
        given = [value for cost in costs if (value := dataclasses.asdict(cost)[field.name]) is not None]
        # Of processes that need a program which is not there one compiles it while the others wait.
        values[field.name] = (max(given) if field.name == "compile_s" else sum(given) / len(given)) if given else None
    return StructureCost(**values)  # type: ignore[arg-type]


def _measure_start(workers: int, folder: Path, until: float) -> dict[str, float] | None:
    process = _start(["start", str(workers), repr(time.time())], folder, 1000, b"")
    _wait([process], until)
    lines = _lines(folder, 1000)
    return None if not lines else lines[-1] | {"end_s": lines[-1]["end_s"] + max(0.0, time.time() - lines[-1]["ended"])}


def _machine_cost(times: Mapping[str, float], tiny: StructureCost) -> MachineCost:
    """Return what is left of the times of a tiny sweep without the work of its lanes."""
    work_s = 2 * tiny.evaluate_s + tiny.finish_s
    pack_s = max(0.01, times["later_s"] - tiny.setup_s - work_s)
    worker_s = max(0.1, times["first_s"] - pack_s - tiny.load_s - tiny.threshold_s - work_s)
    names = ("start_s", "end_s", "record_s", "mlflow_s", "mlflow_lane_s", "mlflow_point_s")
    return MachineCost(worker_s=worker_s, pack_s=pack_s, **{name: times[name] for name in names})


def _tiny() -> Sample:
    """The lanes of the tiny sweep."""
    from sweeps.config.sweep_file import parse

    settings, _, _ = resolve(parse(TINY.format(seeds=1), "calibration").cells[0].settings)
    assert settings is not None
    zeros = frozenset(REMOVABLE)
    return Sample.of(settings, zeros, Numerics.here("cpu"), 1)


# ------------------------------------------------------------------------------------------- in a process of its own


def measure(request: PackRequest) -> StructureCost:
    """Train the lanes of a request in this process, and return what it costs. Raises SweepsError where they cannot be.

    One thread on a CPU only computes, so its processor time is what it would take if no other program delayed it; of several
    rounds the median counts. Otherwise wall time is measured, and the fastest round counts.
    """
    alone = request.device == "cpu" and request.threads == 1
    clock, typical = (time.process_time, statistics.median) if alone else (time.perf_counter, min)
    programs = _programs()
    began = time.perf_counter()  # the compiler is a process of its own
    pack, load_s = _begun(request, clock)
    first_s = time.perf_counter() - began
    compile_s = None
    if _programs() != programs:
        forget_programs()
        pack, load_s = _begun(request, clock)
        compile_s = max(0.0, first_s - load_s)
    pack, setup_s = _begun(request, clock)
    places = np.flatnonzero([place is not None for place in pack.places])
    run = pack.stepper()

    def steps() -> int:
        return int(pack.trainer.state["step"].sum())

    def train(count: int) -> tuple[float, float]:
        """Seconds of so many updates of every lane, and of one that a lane has made: one that diverged makes none."""
        before, began = steps(), clock()
        run(count)
        made = steps() - before  # waits for a GPU
        took_s = clock() - began
        return took_s, took_s / max(1, made)

    count, (took_s, one_s) = 1, train(1)
    while took_s < WINDOW_S / 4:
        count = min(8 * count, max(2 * count, int(count * WINDOW_S / max(took_s, 1e-6))))
        took_s, one_s = train(count)
    step_s = [one_s, *(train(count)[1] for _ in range(ROUNDS if took_s < 2 * WINDOW_S else 1))]
    evaluate_s = [_seconds(lambda: pack.trainer.evaluate(places), clock) / len(places)]
    for _ in range(ROUNDS if evaluate_s[0] * len(places) < 2 * WINDOW_S else 1):
        evaluate_s.append(_seconds(lambda: pack.trainer.evaluate(places), clock) / len(places))
    step, evaluation = typical(step_s), typical(evaluate_s)
    if (round_s := len(places) * (pack.interval * step + evaluation)) < LONG_ROUND_S:
        # From evaluation to evaluation lanes take turns, which counts where that is short.
        pack.advance()
        rounds = [_seconds(pack.advance, clock) for _ in range(max(3, min(30, int(LONG_ROUND_S / round_s))))]
        step = max(step, (typical(rounds) / len(places) - evaluation) / pack.interval)
    finish_s = _seconds(pack.checkpoints, clock) / len(places)
    threshold_s = _seconds(pack.built.task.threshold, clock)
    return StructureCost(
        load_s=max(0.0, load_s - setup_s), compile_s=compile_s, setup_s=max(0.0, setup_s - evaluation * len(places)),
        step_s=step, evaluate_s=evaluation, threshold_s=threshold_s, finish_s=finish_s,
    )  # fmt: skip


def _begun(request: PackRequest, clock: Callable[[], float]) -> tuple[Pack, float]:
    """A pack after its first evaluation and its first steps, and the seconds that took."""
    began = clock()
    pack = Pack(
        request.lanes, request.slots, build, request.zeros, request.device, request.numerics.compiled,
        threads=request.threads, source=request.source,
    )  # fmt: skip
    failed = pack.advance(time.monotonic())
    if failed:
        raise SweepsError(str(failed[0].reason))
    int(pack.trainer.state["step"].sum())  # waits for a GPU
    return pack, clock() - began


def _programs() -> set[str]:
    """Names of the programs that are in the compile cache."""
    with suppress(OSError):
        return {entry.name for entry in os.scandir(folder()) if entry.name.endswith((".so", ".program", ".cubin"))}
    return set()


def _seconds(work: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    began = clock()
    work()
    return clock() - began


class _TimedDriver(Driver):
    """A driver that notes how long packs take, from their dispatch to their results."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._sent: dict[str, float] = {}
        self.pack_seconds: list[float] = []

    def next_pack(self, pack_id: str, num_free: int = 1) -> PackRequest | None:
        request = super().next_pack(pack_id, num_free)
        if request is not None:
            self._sent[pack_id] = time.time()
        return request

    def receive(self, pack_id: str, report: PackReport) -> None:
        if report.results:
            self.pack_seconds.append(time.time() - self._sent[pack_id])
        super().receive(pack_id, report)


def _time_start(workers: int, began: float) -> dict[str, float]:
    """Run a tiny sweep on Ray in this process, which was started at `began` (seconds since 1970), and return its times."""
    import sweeps.cli  # noqa: F401  # as the command does
    from sweeps.config.sweep_file import parse
    from sweeps.runner import ray_tune
    from sweeps.store import Store

    sweep = parse(TINY.format(seeds=3 * workers), "calibration")
    sweep = dataclasses.replace(sweep, resources=dataclasses.replace(sweep.resources, slots=1))
    with tempfile.TemporaryDirectory(prefix="sweeps-calibration-") as name, Store(name) as store, store.hold(sweep.name):
        store.begin_sweep(sweep.name, sweep.text, sweep.document, str(Numerics.here("cpu")))
        driver = _TimedDriver(sweep, sweep.name, store, None, workers)
        driver.begin()
        with ray_tune.ray_cluster(sweep.resources, workers) as capacity:
            capacity.current()
            started = time.time()
            ray_tune.run(driver, sweep.resources, capacity, lambda: None)
            trained = time.time()
        ended = time.time()
        writing = _time_writing(driver, Path(name))
    seconds = driver.pack_seconds
    return {
        "start_s": started - began, "first_s": sum(seconds[:workers]) / workers, "later_s": min(seconds[workers:]),
        "end_s": ended - trained, **writing, "ended": time.time(),
    }  # fmt: skip


def _time_writing(driver: Driver, folder: Path) -> dict[str, float]:
    """Write records and MLflow runs of lanes with short and with long curves, and return the seconds of each."""
    from sweeps.results.summary import RankedConfiguration
    from sweeps.tracking import Tracker, default_uri

    row = driver.store.sweep(driver.name)
    assert row is not None
    configuration = next(iter(driver.cells[0].configurations.values())).configuration
    first = next(iter(driver.cells[0].configurations[0].results.values()))
    random, made, seconds = np.random.default_rng(0), 10, {}
    tracker = Tracker(default_uri(folder), driver.sweep, created=row.created)
    mlflow_s = _seconds(tracker.begin)
    everything: list[LaneResult] = []
    record_s = 0.0
    for points in (10, 100):
        curve: dict[str, list[Any]] = {"step": list(range(points))}
        curve |= {name: random.random(points).tolist() for name in first.curve if name != "step"}
        lanes = [
            dataclasses.replace(first, key=f"{points} {seed}", seed=1000 * points + seed, curve=curve)
            for seed in range(3 * made)
        ]
        everything += lanes
        of_lanes = dataclasses.replace(configuration, keys={lane.seed: lane.key for lane in lanes})
        record_s = _seconds(partial(driver.store.add_records, lanes)) / len(lanes)
        # Written together, as those of a pack. Other programs only delay: the fastest of three packs.
        packs = [lanes[first : first + made] for first in range(0, len(lanes), made)]
        seconds[points] = min(_seconds(partial(tracker.lanes, of_lanes, pack)) for pack in packs) / made
    whole = dataclasses.replace(configuration, keys={lane.seed: lane.key for lane in everything}, state="complete")
    rest_s = _seconds(lambda: tracker.complete(RankedConfiguration(configuration=whole, results=tuple(everything), rank=1)))
    rest_s += _seconds(lambda: tracker.finish("done", "", {(whole.cell, whole.number): 1}))
    columns = len(first.curve) - 1
    point_s = max(0.0, (seconds[100] - seconds[10]) / (90 * columns))
    lane_s = max(0.0, seconds[10] - 10 * columns * point_s) + rest_s / len(everything)
    return {"record_s": record_s, "mlflow_s": mlflow_s, "mlflow_lane_s": lane_s, "mlflow_point_s": point_s}


def _main(what: Literal["structures", "start"], arguments: Sequence[str]) -> None:
    if what == "start":
        print(json.dumps(_time_start(int(arguments[0]), float(arguments[1]))), flush=True)
        return
    given = pickle.load(sys.stdin.buffer)
    prepare_process()
    for key, request in given:
        try:
            found = dataclasses.asdict(measure(request)) | {"key": key}
        except Exception as error:  # whatever a model or task raises
            found = {"failed": f"{type(error).__name__}: {error}"}
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    _main("start" if sys.argv[1] == "start" else "structures", sys.argv[2:])
