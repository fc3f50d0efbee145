"""A Ray cluster on this machine: several real nodes, a token of its own, its job server on loopback.

`up` starts a keeper (cluster/node_keeper.py), a process of its own that holds the nodes and outlives the command. What `down`
ends stands in one small file, and every process of the cluster carries the cluster's mark in its environment: `down` ends
exactly these, whoever else runs Ray here.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import filelock
import psutil

from sweeps.errors import ClusterError, UserError

START_S = 240.0
"""How long a start may take: Ray's own processes import for many seconds where cores are shared."""
ORDERLY_S = 15.0
MARK = "SWEEPS_LOCAL_CLUSTER"


@dataclass(frozen=True)
class RunningCluster:
    """What the state file holds."""

    mark: str
    keeper: int
    started_s: float
    """When the keeper started, seconds since 1970: process ids are used again."""
    job_server: str
    ray_address: str
    token_file: str
    ray_folder: str
    nodes: list[dict[str, int]]
    """For each node, the head first, the process id of its raylet and its CPUs."""


def folder() -> Path:
    """Where the state file, the token and the keeper's log lie."""
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "sweeps" / "local-cluster"


def current() -> RunningCluster | None:
    """The cluster that `up` started and that still runs, or None."""
    state = _read_state()
    return state if state is not None and _keeper(state) is not None else None


def up(num_nodes: int, cpus_per_node: int = 1) -> RunningCluster:
    """Starts the nodes and waits until all are there. Raises UserError if a cluster runs already."""
    with _alone():
        running = current()
        if running is not None:
            raise UserError(
                f"a local cluster of {len(running.nodes)} nodes is up already, its job server at "
                f"{running.job_server}. `sweeps cluster status` shows it, `sweeps cluster down` ends it"
            )
        _clear_away(_read_state())
        try:
            return _start(num_nodes, cpus_per_node)
        except (
            ClusterError
        ):  # Ray gives its own processes 15 s, which a busy machine may not keep; they are cached now
            return _start(num_nodes, cpus_per_node)


def down() -> int:
    """Ends the cluster's processes and removes its files; how many nodes it had. Raises UserError."""
    with _alone():
        state = _read_state()
        if state is None:
            raise UserError("no local cluster is up: `sweeps cluster up --nodes 3` starts one")
        _clear_away(state)
        return len(state.nodes)


def alive(node: dict[str, int], state: RunningCluster) -> bool:
    """Whether a node's raylet still runs."""
    return any(p.pid == node["raylet"] for p in processes(state) if _lives(p))


def processes(state: RunningCluster) -> list[psutil.Process]:
    """Every process of the cluster: in the keeper's session, marked, or begun by one of those (jobs' drivers)."""
    found: dict[int, psutil.Process] = {}
    mine = os.getpid()
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError, OSError):
            if process.pid == mine or not _lives(process):
                continue
            if _of_keeper(process, state) or process.environ().get(MARK) == state.mark:
                found[process.pid] = process
    for process in list(found.values()):
        with suppress(psutil.Error):
            found |= {child.pid: child for child in process.children(recursive=True) if child.pid != mine}
    return list(found.values())


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _of_keeper(process: psutil.Process, state: RunningCluster) -> bool:
    # A session outlives its first process, and its number is not given to another while a member lives. After a boot, or
    # where another process has the keeper's number, it is another session.
    if psutil.boot_time() > state.started_s + 1.0:
        return False
    with suppress(psutil.NoSuchProcess):
        if abs(psutil.Process(state.keeper).create_time() - state.started_s) >= 1.0:
            return False
    return os.getsid(process.pid) == state.keeper and process.create_time() >= state.started_s - 1.0


def _start(num_nodes: int, cpus_per_node: int) -> RunningCluster:
    home = folder()
    home.mkdir(parents=True, exist_ok=True)
    token_file = home / "token"
    token_file.unlink(missing_ok=True)
    with open(os.open(token_file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        file.write(secrets.token_hex(32))
    # Short, because sockets live below it, and a socket's path may have about 100 letters.
    ray_folder = tempfile.mkdtemp(prefix="sweeps-ray-")
    (Path(ray_folder) / "ray").mkdir()  # below RAY_TMPDIR Ray uses this name
    mark = uuid.uuid4().hex
    with (home / "keeper.log").open("wb") as log:
        keeper = subprocess.Popen(
            [sys.executable, "-m", "cluster.node_keeper", str(num_nodes), str(cpus_per_node),
             f"{ray_folder}/ray"],
            env=_environment(mark, token_file, ray_folder), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=log, start_new_session=True, text=True,
        )  # fmt: skip
    started_s = psutil.Process(keeper.pid).create_time()
    blank = RunningCluster(mark, keeper.pid, started_s, "", "", str(token_file), ray_folder, [])
    _write_state(blank)  # so that `down` finds what an interrupted start has left
    try:
        told = _first_line(keeper)
    except BaseException:
        _clear_away(blank)
        raise
    if told is None:
        words = (home / "keeper.log").read_text(errors="replace").strip().splitlines()
        _clear_away(blank)
        raise ClusterError(
            f"the local cluster did not start: {words[-1] if words else 'its keeper said nothing'}"
        )
    state = RunningCluster(**asdict(blank) | told)
    _write_state(state)
    return state


def _first_line(keeper: subprocess.Popen[str]) -> dict[str, object] | None:
    """What the keeper says once all nodes are there, or None if it ended or took too long."""
    import select

    assert keeper.stdout is not None
    if not select.select([keeper.stdout], [], [], START_S)[0]:
        return None
    line = keeper.stdout.readline()
    return dict(json.loads(line)) if line.strip() else None


def _environment(mark: str, token_file: Path, ray_folder: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "RAY_AUTH_TOKEN")}
    return kept | {
        MARK: mark,
        "PATH": os.pathsep.join(
            [str(Path(sys.executable).parent), kept.get("PATH", "")]
        ),  # jobs say `python`
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_file),
        "RAY_TMPDIR": ray_folder,  # or this would become the cluster that everybody's `ray.init("auto")` joins
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_health_check_period_ms": "2000",  # a lost node is noticed in about 10 s
    }


def _clear_away(state: RunningCluster | None) -> None:
    """Ends what there is of a cluster, in order where it can be, and removes its files."""
    if state is None:
        return
    keeper = _keeper(state)
    if keeper is not None:
        with suppress(psutil.Error):
            keeper.terminate()
            keeper.wait(ORDERLY_S)
    deadline = time.monotonic() + ORDERLY_S
    while (left := processes(state)) and time.monotonic() < deadline:
        for process in left:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, timeout=1.0)
    shutil.rmtree(state.ray_folder, ignore_errors=True)
    for name in ("state.json", "token", "keeper.log"):
        (folder() / name).unlink(missing_ok=True)


def _keeper(state: RunningCluster) -> psutil.Process | None:
    try:
        process = psutil.Process(state.keeper)
        same = abs(process.create_time() - state.started_s) < 1.0
        return process if same and _lives(process) else None
    except psutil.NoSuchProcess:
        return None


def _read_state() -> RunningCluster | None:
    try:
        return RunningCluster(**json.loads((folder() / "state.json").read_text(encoding="utf-8")))
    except (FileNotFoundError, json.JSONDecodeError, TypeError):
        return None


def _write_state(state: RunningCluster) -> None:
    path = folder() / "state.json"
    new = path.with_suffix(".new")
    new.write_text(json.dumps(asdict(state), indent=1), encoding="utf-8")
    new.replace(path)


@contextmanager
def _alone() -> Iterator[None]:
    folder().mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(folder() / "lock", timeout=1.0):
            yield
    except filelock.Timeout as busy:
        raise UserError("another `sweeps cluster` is at work here: wait for it") from busy
