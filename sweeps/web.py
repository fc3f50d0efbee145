"""A web server on this machine, in a separate process: started, awaited and ended."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence

from sweeps.errors import TrackingError, UserError

STOP_TIMEOUT_S = 10.0


def started(
    what: str, command: Sequence[str], environment: Mapping[str, str], host: str, port: int, path: str, ready_timeout_s: float
) -> subprocess.Popen[bytes]:
    """Start a server and return when it responds at `path`. End it with `stop`: it does not receive Ctrl-C.

    Raises TrackingError if it does not respond in time.
    """
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


@contextlib.contextmanager
def serving(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """End the server when the block ends, however it does."""
    try:
        yield
    finally:
        stop(process)


def address(host: str, port: int) -> str:
    """Return the server's URL. An IPv6 address has brackets in one."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


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


def check_port(host: str, port: int) -> None:
    """Raise UserError where no server can listen there."""
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
