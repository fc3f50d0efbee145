"""A Ray cluster on this machine, kind `local`: several real nodes, its own token, its job server on loopback.

`up` starts a keeper (`python -m cluster.local NODES CPUS FOLDER`), a process that holds the nodes and outlives the command.
One small state file describes the cluster, and each of its processes has the cluster's mark in its environment: `down` ends
exactly these, and no other Ray on this machine.
"""

from __future__ import annotations

import json
import os
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import filelock
import psutil

from cluster.backend import Submission, Submitted
from cluster.description import Cluster
from cluster.job import absolute_store
from cluster.ray_jobs import JobServer, RayJobsBackend, read_token
from sweeps.errors import ClusterError, UserError
from sweeps.machine import folder_for_sockets, private_folder, user_folder, writable
from sweeps.results.numbers import counted
from sweeps.store.origins import origin_of, record_origin

NOT_UP = "no local cluster is up: `sweeps cluster up --nodes 3` starts one"
RAY_SOCKET_BYTES = len("/ray-100/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store.1")
START_S = 240.0
"""How long a start may take: Ray's own processes import for many seconds where cores are shared."""
ORDERLY_S = 15.0
MARK = "SWEEPS_LOCAL_CLUSTER"
NODE_ATTEMPTS = 3
OBJECT_STORE_BYTES = 100 * 1024**2  # records and checkpoints of a pack are a few hundred KB
# A raylet that is not given the ports of its agents waits 15 s for them and gives up: too short on a busy machine.
AGENT_PORTS = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port", "runtime_env_agent_port")


@dataclass(frozen=True)
class RunningCluster:
    """The contents of the state file."""

    mark: str
    keeper: int
    started_s: float
    """When the keeper started, seconds since 1970: a process id may be used again by another process."""
    job_server: str
    ray_address: str
    token_file: str
    ray_folder: str
    nodes: list[dict[str, int]]
    """For each node, the head first, the process id of its raylet and its CPUs."""


class LocalBackend(RayJobsBackend[Cluster]):
    """Ray nodes on this machine, which `up` starts."""

    kind = "local"

    @cached_property
    def server(self) -> JobServer:
        running = current()
        if running is None:
            raise UserError(NOT_UP)
        token, advice = read_token(running.token_file), "`sweeps cluster status` shows the local one"
        return JobServer(self.name, running.job_server, token, running.token_file, advice=advice)

    @property
    def where(self) -> str:
        running = current()
        if running is None:
            return f"{super().where} (not up)"
        counts = sorted({node["cpus"] for node in running.nodes})
        cpus = counted(counts[0], "CPU") if len(counts) == 1 else f"{counts[0]} to {counts[-1]} CPUs"
        return f"{self.kind}: {counted(len(running.nodes), 'node')} of {cpus}, up"

    @property
    def store_here(self) -> str:
        return absolute_store(self.cluster.store)

    def submit(self, submission: Submission) -> Submitted:
        done = super().submit(submission)
        if done.fresh and submission.origin is not None:
            record_origin(self.store_here, submission.name, "file", str(submission.origin))
        return done

    def submitted_from(self, name: str) -> Path | None:
        found = origin_of(self.store_here, name, "file")
        return None if found is None else Path(found)

    @property
    def call_heading(self) -> str:
        running = current()
        up = f"Ray's {counted(len(running.nodes), 'node')}" if running is not None else "Ray's nodes, once they are up"
        return f"# on this machine, on {up}:"

    @property
    def store_of_driver(self) -> str:
        return self.store_here


def state_folder() -> Path:
    """Return the folder of the state file, the token and the keeper's log: a temporary one where the usual is read-only."""
    usual = user_folder("XDG_STATE_HOME", ".local/state") / "sweeps" / "local-cluster"
    return usual if writable(usual) else private_folder("local-cluster")


def current() -> RunningCluster | None:
    """Return the cluster that `up` started and that is still running, or None."""
    state = _read_state()
    return state if state is not None and _keeper(state) is not None else None


def up(num_nodes: int, cpus_per_node: int = 1) -> RunningCluster:
    """Start the nodes and wait until all are there.

    Raises UserError if a cluster is running already, ClusterError if Ray does not start.
    """
    with _exclusive():
        running = current()
        if running is not None:
            raise UserError(
                f"a local cluster of {len(running.nodes)} nodes is up already, its job server at "
                f"{running.job_server}. `sweeps cluster status` shows it, `sweeps cluster down` ends it"
            )
        _remove(_read_state())
        try:
            return _start(num_nodes, cpus_per_node)
        except ClusterError:
            # Ray gives its own processes 15 s, which may be too short on a busy machine; now their files are cached.
            return _start(num_nodes, cpus_per_node)


def down() -> int:
    """End the cluster's processes, remove its files, and return how many nodes it had.

    Raises UserError if no cluster is up.
    """
    with _exclusive():
        state = _read_state()
        if state is None:
            raise UserError(NOT_UP)
        _remove(state)
        return len(state.nodes)


def alive(node: dict[str, int], state: RunningCluster) -> bool:
    """Return whether a node's raylet is still running."""
    return any(p.pid == node["raylet"] for p in processes(state) if _is_running(p))


def processes(state: RunningCluster) -> list[psutil.Process]:
    """Return every process of the cluster: in the keeper's session, marked, or a child of one of those (jobs' drivers)."""
    found: dict[int, psutil.Process] = {}
    mine = os.getpid()
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError, OSError):
            if process.pid == mine or not _is_running(process):
                continue
            if _in_session(process, state) or process.environ().get(MARK) == state.mark:
                found[process.pid] = process
    for process in list(found.values()):
        with suppress(psutil.Error):
            found |= {child.pid: child for child in process.children(recursive=True) if child.pid != mine}
    return list(found.values())


def _is_running(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _in_session(process: psutil.Process, state: RunningCluster) -> bool:
    """Return whether a process is in the keeper's session."""
    # A session outlives its first process, and its number is not used again while a member lives. After a boot, or if
    # another process has the keeper's number, it is another session.
    if psutil.boot_time() > state.started_s + 1.0:
        return False
    with suppress(psutil.NoSuchProcess):
        if abs(psutil.Process(state.keeper).create_time() - state.started_s) >= 1.0:
            return False
    return os.getsid(process.pid) == state.keeper and process.create_time() >= state.started_s - 1.0


def _start(num_nodes: int, cpus_per_node: int) -> RunningCluster:
    home = state_folder()
    home.mkdir(parents=True, exist_ok=True)
    token_file = home / "token"
    token_file.unlink(missing_ok=True)
    with open(os.open(token_file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        file.write(secrets.token_hex(32))
    ray_folder = str(folder_for_sockets("sweeps-ray-", RAY_SOCKET_BYTES))
    (Path(ray_folder) / "ray").mkdir()  # below RAY_TMPDIR Ray uses this name
    mark = uuid.uuid4().hex
    with (home / "keeper.log").open("wb") as log:
        keeper = subprocess.Popen(
            [sys.executable, "-m", "cluster.local", str(num_nodes), str(cpus_per_node),
             f"{ray_folder}/ray"],
            env=_environment(mark, token_file, ray_folder), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=log, start_new_session=True, text=True,
        )  # fmt: skip
    started_s = psutil.Process(keeper.pid).create_time()
    blank = RunningCluster(mark, keeper.pid, started_s, "", "", str(token_file), ray_folder, [])
    _write_state(blank)  # so that `down` finds the processes of an interrupted start
    try:
        started = _first_line(keeper)
    except BaseException:
        _remove(blank)
        raise
    if started is None:
        lines = (home / "keeper.log").read_text(errors="replace").strip().splitlines()
        _remove(blank)
        raise ClusterError(f"the local cluster did not start: {lines[-1] if lines else 'its keeper printed nothing'}")
    state = RunningCluster(**asdict(blank) | started)
    _write_state(state)
    return state


def _first_line(keeper: subprocess.Popen[str]) -> dict[str, object] | None:
    """Return what the keeper prints once all nodes are up, or None if it ended or took too long."""
    assert keeper.stdout is not None
    if not select.select([keeper.stdout], [], [], START_S)[0]:
        return None
    line = keeper.stdout.readline()
    return dict(json.loads(line)) if line.strip() else None


def _environment(mark: str, token_file: Path, ray_folder: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "RAY_AUTH_TOKEN")}
    return kept | {
        MARK: mark,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", "")]),  # jobs call `python`
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_file),
        "TMPDIR": str(Path(ray_folder).parent),  # the dashboard's sockets are below it, and need a short path too
        "RAY_TMPDIR": ray_folder,  # otherwise every `ray.init("auto")` on this machine would join it
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # as on macOS: all nodes have the address 127.0.0.1, and no other
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_health_check_period_ms": "2000",  # a lost node is noticed in about 10 s
    }


def _remove(state: RunningCluster | None) -> None:
    """End the processes of a cluster, in order where possible, and remove its files."""
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
        (state_folder() / name).unlink(missing_ok=True)


def _keeper(state: RunningCluster) -> psutil.Process | None:
    try:
        process = psutil.Process(state.keeper)
        same = abs(process.create_time() - state.started_s) < 1.0
        return process if same and _is_running(process) else None
    except psutil.NoSuchProcess:
        return None


def _read_state() -> RunningCluster | None:
    try:
        return RunningCluster(**json.loads((state_folder() / "state.json").read_text(encoding="utf-8")))
    except (FileNotFoundError, json.JSONDecodeError, TypeError):
        return None


def _write_state(state: RunningCluster) -> None:
    path = state_folder() / "state.json"
    new = path.with_suffix(".new")
    new.write_text(json.dumps(asdict(state), indent=1), encoding="utf-8")
    new.replace(path)


@contextmanager
def _exclusive() -> Iterator[None]:
    state_folder().mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(state_folder() / "lock", timeout=1.0):
            yield
    except filelock.Timeout as busy:
        raise UserError("another `sweeps cluster` command is running here: wait for it") from busy


def keep_nodes(num_nodes: int, cpus_per_node: int, folder: str) -> None:
    """Start the nodes, print one line of JSON (fields of `RunningCluster`), and hold them until SIGTERM.

    This is the keeper's program. One process holds all nodes, because each `ray start` would import Ray anew; if it is
    killed, Ray's reaper ends the nodes.
    """
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    from ray.cluster_utils import Cluster as RayCluster

    node = {"num_cpus": cpus_per_node, "object_store_memory": OBJECT_STORE_BYTES}
    dashboard_port, *ports = free_ports(1 + len(AGENT_PORTS) * num_nodes)
    nodes = RayCluster()
    try:
        for i in range(num_nodes):
            agents = dict(zip(AGENT_PORTS, ports[i * len(AGENT_PORTS) :], strict=False))
            # One folder a node, as on separate machines: a node deletes the files of jobs that it does not need any more.
            temp_dir = Path(folder if i == 0 else f"{folder}-{i}")
            temp_dir.mkdir(exist_ok=True)
            head = {
                "include_dashboard": True, "dashboard_host": "127.0.0.1", "dashboard_port": dashboard_port,
                "no_monitor": True, "include_log_monitor": False,
            }  # fmt: skip
            _add_node(nodes, **node, **agents, temp_dir=str(temp_dir), **(head if i == 0 else {}))
        raylets = [n.all_processes["raylet"][0].process.pid for n in nodes.list_all_nodes()]
        started = {
            "job_server": f"http://127.0.0.1:{dashboard_port}",
            "ray_address": nodes.address,
            "nodes": [{"raylet": pid, "cpus": cpus_per_node} for pid in raylets],
        }
        print(json.dumps(started), flush=True)
        while not over.wait(2.0):
            for one in nodes.list_all_nodes():
                one.dead_processes()  # polls each, so that a dead one does not stay a zombie
    finally:
        nodes.shutdown()


def _add_node(nodes: Any, **settings: Any) -> None:
    """Add a node; a worker node is tried again where its processes were too slow, a head cannot be."""
    for attempt in range(NODE_ATTEMPTS):
        try:
            nodes.add_node(**settings)
            return
        except Exception:  # Ray raises nothing more specific
            if nodes.head_node is None or attempt + 1 == NODE_ATTEMPTS:
                raise


def free_ports(count: int) -> list[int]:
    """Return ports on which nothing listens now."""
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in held]
    finally:
        for one in held:
            one.close()


if __name__ == "__main__":
    keep_nodes(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
    os._exit(0)  # without Ray's exit hooks: everything is down
