"""MLflow's web server for a tracking URI, in a separate process. For `sweeps ui`."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from sweeps.errors import TrackingError, UserError
from sweeps.tracking.client import ENVIRONMENT, prepare, sqlite_file, without_password
from sweeps.tracking.database import Refill

STOP_TIMEOUT_S = 10.0


def serve(
    uri: str, host: str = "127.0.0.1", port: int = 5000, ready_timeout_s: float = 120.0, refill: Refill | None = None
) -> subprocess.Popen[bytes]:
    """Start the server and return when it responds. End it with `stop`: it does not receive Ctrl-C.

    One worker, on this machine only unless `host` is given: the pages have no password. Raises UserError
    if `uri` is a server already or the port is taken, and TrackingError if the server does not respond in time, or the
    database is not one that the installed MLflow can open. `refill` is as for `Tracker`.
    """
    if uri.startswith(("http://", "https://")):
        raise UserError(f"{without_password(uri)} is an MLflow server already: open it in a browser")
    _check_port(host, port)
    prepare(uri, refill)  # a server that is killed while it creates the database would leave it incomplete
    # The job runner is for hosted language-model evaluations, and starts further processes.
    environment = {**ENVIRONMENT, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **os.environ}
    environment["MLFLOW_BACKEND_STORE_URI"] = uri  # not in the command line, which every user can read: it may hold a password
    return _started("MLflow's server", _command(uri, host, port), environment, host, port, "/health", ready_timeout_s)


def serve_dashboard(file: Path, host: str = "127.0.0.1", port: int = 5000) -> subprocess.Popen[bytes]:
    """Start optuna-dashboard on a journal file of Optuna and return when it responds. End it with `stop`.

    Raises UserError where it is not installed or the port is taken, and TrackingError where it does not respond.
    """
    beside = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    program = shutil.which("optuna-dashboard", path=beside)
    if program is None:
        raise UserError(f"optuna-dashboard is not installed: {shlex.quote(sys.executable)} -m pip install optuna-dashboard")
    _check_port(host, port)
    command = [program, "--storage-class", "JournalFileStorage", "--host", host, "--port", str(port), "--quiet", str(file)]
    return _started("optuna-dashboard", command, {**os.environ}, host, port, "/", 60.0)


def _started(
    what: str, command: Sequence[str], environment: Mapping[str, str], host: str, port: int, path: str, ready_timeout_s: float
) -> subprocess.Popen[bytes]:
    """Start a server and return when it responds. Raises TrackingError if it does not in time."""
    with tempfile.TemporaryFile() as output:
        # A new session, so that `stop` ends the server's workers as well.
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            if _responds(process, f"{address(host, port)}{path}", ready_timeout_s):
                return process
        except BaseException:
            stop(process)
            raise
        status = process.poll()
        stop(process)
        output.seek(0)
        last = output.read().decode(errors="replace").strip().splitlines()[-5:]
    why = f"ended with status {status}" if status is not None else f"did not respond within {ready_timeout_s:g} s"
    raise TrackingError("\n".join([f"{what} on {host}:{port} {why}. Its last output:", *last]))


def address(host: str, port: int) -> str:
    """Return the server's URL. An IPv6 address has brackets in one."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _command(uri: str, host: str, port: int) -> list[str]:
    file = sqlite_file(uri)
    artifacts = (file.absolute().parent if file else Path.cwd()) / "mlartifacts"
    return [sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port),
            "--workers", "1", "--artifacts-destination", str(artifacts)]  # fmt: skip


def stop(process: subprocess.Popen[bytes]) -> None:
    """End the server and its workers; does nothing if it has ended."""
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal_number)
        try:
            process.wait(STOP_TIMEOUT_S)
            return
        except subprocess.TimeoutExpired:
            continue


def _check_port(host: str, port: int) -> None:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, UnicodeError) as error:
        raise UserError(f"there is no host {host!r} ({error}): --host is a name or an address of this machine") from error
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            remedy = f"Try --port {port + 1}"
            if error.errno == errno.EADDRNOTAVAIL:
                remedy = "--host is a name or an address of this machine"
            raise UserError(f"port {port} of {host} cannot be used: {error.strerror}. {remedy}") from error


def _responds(process: subprocess.Popen[bytes], url: str, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # it is on this machine, whatever its host's name
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with direct.open(url, timeout=2) as response:
                if response.status == 200:
                    return True
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    return False
