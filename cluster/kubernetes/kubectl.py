"""Calls of `kubectl`, with lists of arguments and never through a shell. It uses the user's contexts and credentials.

The last line of its error messages is passed on, with advice.
"""

from __future__ import annotations

import codecs
import json
import os
import select
import subprocess
import tempfile
from collections.abc import Iterator
from typing import Any

from sweeps.errors import ClusterError, UserError
from sweeps.store.location import masked

Values = dict[str, Any]
REQUEST_S = 30
PATIENCE_S = 120.0
"""Time limit of a call. Signing in may take long: kubectl calls the cloud's program for credentials."""


class ServerUnreachable(UserError):
    """The cluster's server cannot be reached."""


class AlreadyExists(ClusterError):
    """An object of that name exists."""


class NotFound(ClusterError):
    """No such object exists (any more), or it has no log yet."""


# Parts of kubectl's messages, in lower case; the first that matches counts.
_SIGN_IN = ("unauthorized", "must be logged in", "getting credentials", "x509:")
_NOT_YET = ("is waiting to start", "previous terminated container")
_AWAY = (
    "connection to the server", "unable to connect to the server", "connection refused", "no such host", "i/o timeout",
    "tls handshake timeout", "network is unreachable", "no route to host", "unexpected eof", "connection reset",
    "http2: client connection lost", "context deadline exceeded", "client.timeout exceeded", "(serviceunavailable)",
    "server is currently unable", "(toomanyrequests)", "error dialing backend", "etcdserver:",
)  # fmt: skip
_REFUSALS = (
    (("context was not found", "context \"", "no context exists", "invalid configuration"),
     "`kubectl config get-contexts` lists the contexts of this machine; `context` in clusters.yaml names one"),
    (("exceeded quota",), "The namespace's quota is full: wait for other jobs, or make `workers` and `resources` smaller"),
    (("(forbidden)", "is forbidden"),
     "Ask the cluster's administrator for the rights to get, create and patch rayjobs, to get, create and delete pods and "
     "configmaps, to get pods/log and to create pods/exec in that namespace"),
    (("doesn't have a resource type", "no matches for kind"),
     "KubeRay's operator is not installed there (docs/clusters.md names the version): ask the cluster's administrator"),
    (("namespaces \"",), "`namespace` in clusters.yaml names one that exists"),
    (("is invalid", "strict decoding error", "denied the request", "(badrequest)", "unknown field"),
     "The manifest is made from clusters.yaml; `sweeps cluster show` prints it. Is the operator too old?"),
)  # fmt: skip


class Kubectl:
    """Calls of kubectl for one context and namespace. Methods raise UserError and ClusterError."""

    def __init__(self, cluster: str, context: str | None, namespace: str) -> None:
        self.cluster = cluster
        self._command = ["kubectl", *([f"--context={context}"] if context else []), f"--namespace={namespace}"]

    def call(self, *arguments: str, stdin: str | None = None) -> str:
        """Return what the command prints."""
        command = [*self._command, f"--request-timeout={REQUEST_S}s", *arguments]
        try:
            done = subprocess.run(command, input=(stdin or "").encode(), capture_output=True, timeout=PATIENCE_S, check=False)
        except OSError as error:
            raise _missing(error) from error
        except subprocess.TimeoutExpired as error:
            raise ServerUnreachable(f"cluster {self.cluster!r}: kubectl did not answer within {PATIENCE_S:g} s") from error
        if done.returncode:
            raise self._failure(done.stderr.decode(errors="replace"))
        return done.stdout.decode(errors="replace")

    def objects(self, kind: str, selector: str) -> list[Values]:
        """Return the objects of a kind with these labels."""
        found = json.loads(self.call("get", kind, f"--selector={selector}", "--output=json"))
        return list(found.get("items", []))

    def stream(self, *arguments: str, silence_s: float | None = None) -> Iterator[str]:
        """Yield pieces of what the command prints, until it ends or prints nothing for `silence_s`."""
        letters = codecs.getincrementaldecoder("utf-8")(errors="replace")
        with tempfile.TemporaryFile() as errors:
            try:
                process = subprocess.Popen(
                    [*self._command, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors
                )
            except OSError as error:
                raise _missing(error) from error
            assert process.stdout is not None
            try:
                while select.select([process.stdout], [], [], silence_s)[0]:
                    piece = os.read(process.stdout.fileno(), 65_536)
                    yield letters.decode(piece)
                    if not piece:
                        break
                else:
                    return
                if process.wait():
                    errors.seek(0)
                    raise self._failure(errors.read().decode(errors="replace"))
            finally:
                if process.poll() is None:
                    process.kill()
                process.wait()
                process.stdout.close()

    def _failure(self, stderr: str) -> UserError | ClusterError:
        lines = [line.strip() for line in stderr.splitlines() if line.strip()] or ["it failed without a message"]
        message = f"cluster {self.cluster!r}: kubectl reports: {masked(lines[-1]).rstrip('.')}"
        message += "" if message.endswith("?") else "."
        found = _known_failure(lines[-1].lower(), message) or _known_failure(stderr.lower(), message)
        return found or ClusterError(message)


def _known_failure(text: str, message: str) -> UserError | ClusterError | None:
    def has(parts: tuple[str, ...]) -> bool:
        return any(part in text for part in parts)

    if "(alreadyexists)" in text:
        return AlreadyExists(message)
    if has(_NOT_YET):
        return NotFound(message)
    if has(_SIGN_IN):
        return UserError(f"{message} Sign in again, as for any use of kubectl")
    if has(_AWAY):
        return ServerUnreachable(f"{message} Is the cluster up, and your VPN or tunnel to it? {_REFUSALS[0][1]}")
    for parts, advice in _REFUSALS:
        if has(parts):
            return UserError(f"{message} {advice}")
    return NotFound(message) if "(notfound)" in text else None


def _missing(error: OSError) -> UserError:
    return UserError(
        f"kubectl cannot be called ({error.strerror or error}): clusters of kind kubernetes are reached through it. "
        "Install it (https://kubernetes.io/docs/tasks/tools) and see that `kubectl get pods` works"
    )
