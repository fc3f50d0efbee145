"""Faults that a sweep survives, with real programs: the same command ends it with the report of an undisturbed one.

`make test-faults` runs them one after another and prints a table at the end. One sweep is hit again and again, at random
moments: SWEEPS_FAULTS_SEED (1) changes them, SWEEPS_FAULTS_HITS (20) how many there are.
"""

from __future__ import annotations

import ctypes
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from commands import PATIENCE_S, Commands, Started, call, reports
from kept import lanes_in, records_of, runs_of, steps_saved

from sweeps.config.faults import SweepFileError
from sweeps.config.sweep_file import Sweep, load
from sweeps.store import Store
from sweeps.tracking import serve, stop

pytestmark = [pytest.mark.usefixtures("uncompiled"), pytest.mark.faults, pytest.mark.timeout(2400)]

SEED = int(os.environ.get("SWEEPS_FAULTS_SEED", "1"))
HITS = int(os.environ.get("SWEEPS_FAULTS_HITS", "20"))
SERVER_DOWN_S = 60.0
CLONE_NEWNS = 0x00020000  # of <linux/sched.h>
# A parallel search in two cells, in many short packs, so that there is something to lose at every moment, with every decision
# that depends on results: suggestions, a rung, a race, and the choice of what is confirmed.
HIT = """\
name: hit
question: Which unit has the smaller error?
task: {name: static, operation: sub, input_size: 10}
train: {steps: 900, batch: 16, evaluate_every: 100}
compare: {model: [linear, nac]}
seeds: 6
resources: {slots: 10, checkpoint_s: 0.2}
search:
  sampler: {name: tpe, seed: 0, n_startup_trials: 2}
  configurations: 6
  parallel: 2
  objective: error.extrapolation.median
  space:
    train.lr: {log_uniform: [1e-4, 1e-1]}
    train.gradient_noise: {log_uniform: [1e-5, 0.1], or: 0}
early_stopping:
  seeds: {race: [5], confidence: 0.8}
  steps: {halving: [300], keep: 1/2, metric: error.extrapolation.median}
confirm: {top: 1, seeds: {first: 100, count: 3}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = tmp_path_factory.mktemp("faults")
    (made / "hit.yaml").write_text(HIT)
    return made


@dataclass(frozen=True)
class Calm:
    """The sweep when nothing disturbs it."""

    store: str
    start_s: float
    """Seconds from the start of the command to the first checkpoint."""
    train_s: float
    """Seconds from there to the end."""


@pytest.fixture(scope="module")
def calm(commands: Commands, folder: Path) -> Calm:
    started_s, store = time.monotonic(), str(folder / "calm")
    command = commands.start(folder, "run", "hit.yaml", "--store", store, "--workers", "2")
    command.until(lambda: steps_saved(store) > 0, "checkpoint")
    trained_s = time.monotonic()
    assert command.ended() == 0, command.output
    with Store(store) as opened:
        assert {one.state for one in opened.configurations("hit")} == {"complete", "pruned"}
    assert command.clear_away(60.0) == []
    return Calm(store, trained_s - started_s, time.monotonic() - trained_s)


@dataclass
class Hit:
    """The sweep in a store of its own, and the faults that it has had."""

    fault: str
    commands: Commands
    folder: Path
    calm: Calm
    store: str
    random: random.Random
    record: Callable[[str, object], None]
    """pytest's `record_property`: the row of the table."""
    uri: str | None = None
    """MLflow's, where it is not in the store."""
    environment: Mapping[str, str] = field(default_factory=dict)
    runs: list[Started] = field(default_factory=list)
    moments: list[str] = field(default_factory=list)
    began_s: float = field(default_factory=time.monotonic)

    def run(self) -> Started:
        # One worker and two in turn: their number changes nothing.
        arguments = ("run", "hit.yaml", "--store", self.store, "--workers", str(2 - len(self.runs) % 2))
        self.runs.append(self.commands.start(self.folder, *arguments, environment=self.environment))
        self._launched_s = time.monotonic()
        self._progress = self._progress_now()
        return self.runs[-1]

    def _progress_now(self) -> tuple[int, int]:
        return lanes_in(self.store), steps_saved(self.store)

    def progressed(self) -> bool:
        """Whether the latest run has trained and written something since it began, or since its last such moment."""
        return self._progress_now() != self._progress

    def wait(self, hits: int, early: bool | None = None) -> None:
        """Wait for a random moment of the latest run: early, before it trains, or while it trains; by default either.

        While it trains it is short, such that the sweep does not end before it was hit `hits` times.
        """
        run = self.runs[-1]
        if early if early is not None else self.random.random() < 0.5:
            until_s = self._launched_s + self.random.random() * self.calm.start_s
            run.until(lambda: time.monotonic() > until_s or self.progressed(), "moment before it trains")
        else:
            run.until(self.progressed, "progress")
            until_s = time.monotonic() + self.random.random() * self.calm.train_s / hits
            run.until(lambda: time.monotonic() > until_s, "moment while it trains")
            self._progress = self._progress_now()

    def note(self, what: str = "") -> None:
        """Add this moment to the row of the table."""
        self.moments.append(f"{what}{time.monotonic() - self._launched_s:.1f}")
        print(f"{self.fault}: {self.moments[-1]} s after the start of run {len(self.runs)}", flush=True)

    def end(self, synced: bool = False) -> None:
        """Run the same command to its end, compare everything with the undisturbed sweep, and fill in the table's row."""
        if not synced:
            command = self.run()
            assert command.ended() == 0, command.output
        same = reports("hit", self.store) == reports("hit", self.calm.store)
        row = {
            "fault": self.fault, "times": len(self.moments), "moments": ", ".join(self.moments),
            "continued": len(self.runs) - 1, "report equal": "yes" if same else "NO",
            "seconds": round(time.monotonic() - self.began_s),
        }  # fmt: skip
        for name, value in row.items():
            self.record(name, value)
        assert same
        assert lanes(self.store) == lanes(self.calm.store)
        assert steps_saved(self.store) == 0, "no checkpoint is kept of a lane that has ended"
        with Store(self.store) as opened:
            row_of = opened.sweep("hit")
            assert row_of is not None and row_of.state == "done" and opened.holder("hit") is None
            # Optuna's trials are made from the configurations at every suggestion: one that runs would be a trial that runs.
            assert {one.state for one in opened.configurations("hit")} == {"complete", "pruned"}
        assert in_mlflow(self.store, self.uri) == in_mlflow(self.calm.store)
        deadline = time.monotonic() + PATIENCE_S  # Ray's agents look for their parent from time to time
        while left := [process for run in self.runs for process in run.family()]:
            assert time.monotonic() < deadline, [process.name() for process in left]
            time.sleep(0.5)


def lanes(store: str) -> dict[tuple[str, int], tuple[Any, ...]]:
    """Return what every record says, timing and provenance aside."""
    found = records_of(store)
    by_id = {(r.key, r.budget): (r.seed, r.steps, r.outcome, r.error, r.converged_at, r.curve) for r in found}
    assert len(by_id) == len(found)
    return by_id


def in_mlflow(store: str, uri: str | None = None) -> dict[tuple[str, ...], tuple[Any, ...]]:
    """Return status, tags and metrics of every run by its level, cell, configuration and seed; none is there twice."""
    runs = runs_of(store, "hit", uri)
    found = {}
    for run in runs:
        tags = {name: value for name, value in run.data.tags.items() if not name.startswith("mlflow.") and name != "sweep"}
        metrics = {name: value for name, value in run.data.metrics.items() if "time" not in name and "second" not in name}
        key = tuple(tags.get(name, "") for name in ("level", "cell", "configuration", "seed"))
        found[key] = (run.info.status, tags, metrics)
    assert len(found) == len(runs)
    return found


@pytest.fixture
def hit(
    request: pytest.FixtureRequest, commands: Commands, folder: Path, calm: Calm, record_property: Callable[..., None]
) -> Iterator[Hit]:
    name = request.node.name.removeprefix("test_")
    made = Hit(name.replace("_", " "), commands, folder, calm, str(folder / name[:20]), random.Random(SEED), record_property)
    yield made
    for run in made.runs:
        run.clear_away()


# ------------------------------------------------------------------------------------------------- killed processes


def test_driver_sigkill(hit: Hit) -> None:
    for _ in range(HITS):
        command = hit.run()
        hit.wait(HITS)
        hit.note()
        os.kill(command.process.pid, signal.SIGKILL)
        command.process.wait(10)
    hit.end()


def raylets(command: Started) -> list[psutil.Process]:
    found = []
    for process in command.family():
        with suppress(psutil.Error):
            if Path(process.cmdline()[0]).name == "raylet":
                found.append(process)
    return found


def test_worker_and_raylet_sigkill(hit: Hit) -> None:
    """In turn: a worker, after which the sweep goes on, and Ray's own process, after which it ends with a message."""
    for _ in range(max(1, HITS // 2)):
        command = hit.run()
        hit.wait(HITS)
        command.until(command.workers, "worker")
        with suppress(psutil.Error, IndexError):  # a worker may end by itself in between
            hit.random.choice(command.workers()).kill()
            hit.note("worker ")
        hit.wait(HITS)
        hit.note("raylet ")
        # With its workers, as when a node is lost: alone they train on for up to half a minute, and would end the sweep.
        for process in [*raylets(command), *command.workers()]:
            with suppress(psutil.Error):
                process.kill()
        assert command.ended() == 1, command.output
        assert "the same command continues" in command.output
    hit.end()


# ------------------------------------------------------------------------------------------------- signals


def test_sigterm_sighup_and_ctrl_c_once_and_twice(hit: Hit) -> None:
    """SIGTERM goes to the driver, as from `kill`; the others to its process group, as from a terminal."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        for times in (1, 2):
            command = hit.run()
            hit.wait(10, early=False)
            hit.note(f"{number.name} {times}x ")
            for _ in range(times):
                if number == signal.SIGTERM:
                    command.process.send_signal(number)
                else:
                    os.killpg(command.process.pid, number)
                with suppress(subprocess.TimeoutExpired):
                    command.process.wait(hit.random.random())
            assert command.ended() == 1, command.output
            assert "What is done stays; the same command continues." in command.output
            assert call("list", "--store", hit.store).out.split() == ["hit", "stopped"]
    hit.end()


# ------------------------------------------------------------------------------------------------- MLflow's server


def test_mlflow_server_killed_for_a_minute(hit: Hit) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    database = f"sqlite:///{hit.folder}/served.db"
    hit.uri = f"http://127.0.0.1:{port}"
    hit.environment = {"MLFLOW_TRACKING_URI": hit.uri}
    server = serve(database, "127.0.0.1", port)
    try:
        command = hit.run()
        hit.wait(3, early=False)
        hit.note()
        os.killpg(server.pid, signal.SIGKILL)
        down_until_s = time.monotonic() + SERVER_DOWN_S
        stop(server)
        status = command.ended()
        assert status == 0, command.output
        assert "sweeps sync hit" in command.output
        time.sleep(max(0.0, down_until_s - time.monotonic()))
        server = serve(database, "127.0.0.1", port)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MLFLOW_TRACKING_URI", hit.uri)
            assert call("sync", "hit", "--store", hit.store).status == 0
        hit.end(synced=True)
    finally:
        stop(server)


# ------------------------------------------------------------------------------------------------- a full disk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system in memory of 64 MB, which only this process and its children see: they get mounts of their own."""
    place, why = tmp_path / "disk", ""
    place.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "unshare") or libc.unshare(CLONE_NEWNS) != 0:
        why = os.strerror(ctypes.get_errno())
    for arguments in (["--make-rprivate", "/"], ["-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)]):
        if not why:
            why = subprocess.run(["mount", *arguments], capture_output=True, text=True).stderr.strip()
    if why:
        pytest.skip(f"a file system cannot be mounted here, which needs root on Linux: {why}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(folder: Path) -> None:
    """Write a file until the file system is full."""
    with (folder / "ballast").open("ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


def size_mb(folder: Path) -> int:
    return shutil.disk_usage(folder).total // 1024**2


def test_disk_full(hit: Hit, disk: Path) -> None:
    """While MLflow's database is made, and twice while lanes are written; each time the disk is made larger afterwards."""
    hit.store = str(disk / "store")
    moments: list[tuple[str, Callable[[], bool]]] = [
        ("at MLflow's first write ", (disk / "store" / "mlflow.db").is_file),
        ("at the first lanes ", lambda: lanes_in(hit.store) > 0),
        ("after half of the lanes ", lambda: lanes_in(hit.store) > lanes_in(hit.calm.store) // 2),
    ]
    for what, happened in moments:
        command = hit.run()
        command.until(happened, what)
        hit.note(what)
        fill(disk)
        if command.ended() == 0:  # SQLite had room enough in its log of before
            hit.moments[-1] += " (ended)"
        else:
            assert command.process.returncode == 1, command.output
            assert "disk is full" in command.output or "No space left" in command.output, command.output
        assert call("list", "--store", hit.store).status == 0, "reading works while the disk is full"
        larger = f"remount,size={size_mb(disk) + 64}m"
        subprocess.run(["mount", "-o", larger, str(disk)], check=True)
    assert len([moment for moment in hit.moments if "ended" not in moment]) >= 2
    hit.end()


# ------------------------------------------------------------------------------------------------- the clock set back

# libfaketime 0.9.10 has two faults that Python and Ray meet: time.sleep raises EINVAL where the monotonic clock is left alone,
# as setting a clock does; and it calls getenv at every look at the clock, while other threads set variables.
MENDED = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
extern char **environ;

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *until, struct timespec *left) {
    return syscall(SYS_clock_nanosleep, clock, flags, until, left) ? errno : 0;
}

char *getenv(const char *name) {
    static char *(*original)(const char *);
    static char *kept[32];
    if (!original) { /* at the first call, while the libraries are loaded: there is one thread */
        int count = 0;
        for (char **entry = environ; entry && *entry && count < 32; entry++)
            if (strstr(*entry, "FAKE")) kept[count++] = strdup(*entry);
        original = (char *(*)(const char *))dlsym(RTLD_NEXT, "getenv");
    }
    if (!strstr(name, "FAKE")) return original(name);
    size_t length = strlen(name);
    for (int i = 0; i < 32 && kept[i]; i++)
        if (!strncmp(kept[i], name, length) && kept[i][length] == '=') return kept[i] + length + 1;
    return NULL;
}
"""


@pytest.fixture
def clock(tmp_path: Path) -> tuple[dict[str, str], Path]:
    """Environment variables with which a command has a clock of its own, and the file with what is added to it."""
    libraries = sorted(Path("/usr/lib").glob("**/faketime/libfaketimeMT.so.1"))
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not libraries or compiler is None:
        pytest.skip("needs libfaketime and a C compiler (Debian, Ubuntu: apt-get install faketime gcc)")
    (tmp_path / "mended.c").write_text(MENDED)
    own, offset = tmp_path / "mended.so", tmp_path / "offset"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(own), str(tmp_path / "mended.c"), "-ldl"], check=True)
    offset.write_text("+0")
    environment = {
        "LD_PRELOAD": f"{own}:{libraries[0]}", "FAKETIME_TIMESTAMP_FILE": str(offset), "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1",
    }  # fmt: skip
    return environment, offset


def test_clock_set_back_an_hour(hit: Hit, clock: tuple[dict[str, str], Path]) -> None:
    """While it trains, after which it goes on and Ctrl-C stops it in order, and by another hour before it is continued."""
    hit.environment, offset = clock
    command = hit.run()
    hit.wait(10, early=False)
    hit.note()
    offset.write_text("-1h")
    hit.wait(10, early=False)
    command.interrupt()
    assert command.ended() == 1, command.output
    assert "What is done stays; the same command continues." in command.output
    offset.write_text("-2h")
    hit.end()


# ------------------------------------------------------------------------------------------------- sweep files with faults

NUM_FILES, NUM_RUN = 100, 10
FILES = (
    """\
name: small
question: Which?
task: {name: static, operation: add, input_size: 10}
train: {steps: 40, batch: 8, evaluate_every: 10, lr: 1e-3, optimizer: adam, stop: never}
model: {name: nau, dropout: 0}
seeds: [0, 1, 2]
resources: {slots: 4}
""",
    """\
name: searched
task:
  name: static
  operation: sub
  input_size: 10
train:
  steps: 30
  batch: 4
  evaluate_every: 10
compare:
  model: [nau, linear]
  range:
    - {label: near, task: {interpolation: [1, 2], extrapolation: [2, 6]}}
    - {label: far, task: {interpolation: [10, 20], extrapolation: [20, 40]}}
seeds: {first: 3, count: 2}
search:
  sampler: {name: tpe, seed: 0, n_startup_trials: 1}
  configurations: 2
  parallel: 2
  objective: par2
  space:
    train.lr: {log_uniform: [1e-4, 1e-1]}
    train.gradient_noise: {log_uniform: [1e-5, 0.1], or: 0}
""",
)
VALUES = (
    "0", "1", "2", "-1", "3", "7", "0.5", "1e23", "1e-320", "99999999999999999999", ".nan", ".inf", "true", "null", "~", '""',
    "[]", "{}", "[1, 2]", "[2, 1]", "{a: 1}", "é", "nau", "nac", "linear", "tpe", "random", "grid", "mul", "sgd", "solved",
    "auto", "2026-11-27", "0x10", "1_0", "'1'", "*a", "&a 1", "!!python/object:os.system x",
)  # fmt: skip


def mutated(text: str, chance: random.Random) -> str:
    """Return the text with one or two random changes: a value, a line, a character, the letters of a word."""
    for _ in range(chance.choice((1, 1, 2))):
        rows = text.splitlines(keepends=True)
        row, position = chance.randrange(len(rows)), chance.randrange(len(text))
        match chance.choice(("value", "value", "value", "value", "drop", "double", "swap", "remove", "insert", "word")):
            case "value":
                found = chance.choice(list(re.finditer(r"(?<=[\[{:,] )[^\s,:{}\[\]]+(?=[,\]}\n])", text)))
                text = text[: found.start()] + chance.choice(VALUES) + text[found.end() :]
            case "drop":
                text = "".join(rows[:row] + rows[row + 1 :])
            case "double":
                text = "".join(rows[: row + 1] + rows[row:])
            case "swap":
                rows[row], rows[-1] = rows[-1], rows[row]
                text = "".join(rows)
            case "remove":
                text = text[:position] + text[position + 1 :]
            case "insert":
                text = text[:position] + chance.choice(":{}[],&*#'\"\t- \n\0é") + text[position:]
            case "word":
                found = chance.choice(list(re.finditer(r"[a-z_]{3,}", text)))
                letters = list(found[0])
                letters.insert(chance.randrange(len(letters)), letters.pop(chance.randrange(len(letters))))
                text = text[: found.start()] + "".join(letters) + text[found.end() :]
    return text


def numbers(document: Any) -> list[float]:
    if isinstance(document, Mapping):
        document = list(document.values())
    if isinstance(document, list):
        return [number for entry in document for number in numbers(entry)]
    return [abs(document)] if isinstance(document, int | float) else []


def test_mutations_of_sweep_files(folder: Path, commands: Commands, record_property: Callable[..., None]) -> None:
    """`check` refuses with a message or calls them sound, never with a traceback; ten of the sound ones train."""
    chance, began_s = random.Random(SEED), time.monotonic()
    place = folder / "mutations"
    place.mkdir()
    sound: list[tuple[Path, Sweep]] = []
    for number in range(NUM_FILES):
        path = place / f"file{number}.yaml"
        path.write_text(mutated(FILES[number % len(FILES)], chance))
        answer = call("check", str(path))  # fails on a traceback
        if answer.status == 0:
            assert f"{path.name} is sound" in answer.out.replace("\n", ""), path.read_text()
            sound.append((path, load(path)))
        else:
            assert answer.status == 2 and answer.err.strip(), path.read_text()
            with pytest.raises(SweepFileError):
                load(path)
    small = [
        path
        for path, sweep in sound
        if max(numbers(sweep.document)) <= 100
        and sum(sweep.configurations(cell) for cell in sweep.cells) * len(sweep.seeds) <= 100
    ]
    chosen = chance.sample(small, min(NUM_RUN, HITS // 2, len(small)))
    for path in chosen:
        command = commands.start(place, "run", path.name, "--store", str(place / path.stem), "--workers", "2")
        assert command.ended() == 0, path.read_text() + command.output
        assert command.clear_away(60.0) == []
    row = {
        "fault": "mutations of sweep files", "times": NUM_FILES,
        "moments": f"{len(sound)} sound, {NUM_FILES - len(sound)} refused",
        "continued": f"{len(chosen)} trained", "report equal": "–", "seconds": round(time.monotonic() - began_s),
    }  # fmt: skip
    for name, value in row.items():
        record_property(name, value)
    assert len(small) >= NUM_RUN
