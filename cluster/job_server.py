"""A Ray cluster's job server: whether it can be reached, lets us in and fits, and the client to talk to it.

Ray's own client waits without end for an address that does not answer and tells faults as tracebacks, so what can be wrong
is looked for here first, with plain requests.
"""

from __future__ import annotations

import logging
import platform
import socket
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests

from cluster.fields import NodeResources
from sweeps.errors import ClusterError, UserError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

CONNECT_S = 10.0
ANSWER_S = 60.0


@dataclass(frozen=True)
class JobServer:
    """Where a cluster listens for jobs, and what opens it."""

    cluster: str
    """Its name in clusters.yaml."""
    address: str
    token: str | None = field(default=None, repr=False)
    token_from: str = "token_file"
    """Where the token came from, for people."""
    verify: bool | str = True

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def check(self) -> None:
        """Raises UserError unless it answers, takes the token, and runs the Ray and Python that run here."""
        self._knock()
        theirs, ours = str(self.get("/api/version").get("ray_version")), version("ray")
        if theirs != ours:
            raise UserError(
                f"cluster {self.cluster!r} runs Ray {theirs}, but here is Ray {ours}: "
                f"pip install 'ray[default,tune]=={theirs}' here, or start the cluster with {ours}"
            )
        theirs = str(self.get("/api/v0/cluster_metadata").get("data", {}).get("pythonVersion"))
        ours = platform.python_version()
        if theirs.split(".")[:2] != ours.split(".")[:2]:
            raise UserError(
                f"cluster {self.cluster!r} runs Python {theirs}, but here is Python {ours}: "
                f"make the environment here with Python {'.'.join(theirs.split('.')[:2])}, or start the cluster with {ours}"
            )

    def nodes(self) -> list[NodeResources]:
        """What each living node has in all."""
        found = self.get("/api/v0/nodes?detail=1&limit=10000").get("data", {}).get("result", {})
        totals = [n.get("resources_total", {}) for n in found.get("result", []) if n.get("state") == "ALIVE"]
        return [
            NodeResources(
                cpus=int(total.get("CPU", 0)),
                gpus=int(total.get("GPU", 0)),
                memory_gb=total.get("memory", 0) / 1024**3,
            )
            for total in totals
        ]

    def get(self, path: str) -> dict[str, Any]:
        """What it answers. Raises UserError for a wrong token or address, ClusterError for silence."""
        try:
            answer = requests.get(
                f"{self.address}{path}",
                headers=self.headers,
                verify=self.verify,
                timeout=(CONNECT_S, ANSWER_S),
            )
            self.refuse_stranger(answer.status_code)
            answer.raise_for_status()
            found = answer.json()
        except requests.exceptions.SSLError as error:
            raise UserError(
                f"cluster {self.cluster!r} at {self.address}: its certificate is not trusted. "
                "`verify: PATH` in clusters.yaml names the authority's"
            ) from error
        except requests.exceptions.JSONDecodeError as error:
            raise UserError(self._stranger()) from error
        except requests.exceptions.HTTPError as error:
            raise UserError(f"{self._stranger()} ({error})") from error
        except (requests.exceptions.RequestException, OSError) as error:
            raise ClusterError(
                f"cluster {self.cluster!r} at {self.address} does not answer any more"
            ) from error
        if not isinstance(found, dict):
            raise UserError(self._stranger())
        return found

    def refuse_stranger(self, status: int) -> None:
        """Raises UserError where the answer says that the token is missing or wrong."""
        if status == 401 or (status == 403 and not self.token):
            raise UserError(
                f"cluster {self.cluster!r} at {self.address} asks for a token, and none is given: name the file that holds "
                "it in clusters.yaml (token_file), or a variable (token_variable)"
            )
        if status == 403:
            raise UserError(
                f"cluster {self.cluster!r} at {self.address} refuses the token of {self.token_from}: "
                "`ray get-auth-token` on its head prints the right one"
            )

    def client(self) -> JobSubmissionClient:
        """Ray's client, each of whose requests ends in time. Call `check` first."""
        from ray.job_submission import JobSubmissionClient

        for name in ("ray", "ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk"):
            logging.getLogger(name).setLevel(logging.WARNING)
        found = JobSubmissionClient(self.address, headers=self.headers, verify=self.verify)
        found._do_request = partial(found._do_request, timeout=(CONNECT_S, ANSWER_S))
        return found

    def _knock(self) -> None:
        parts = urlsplit(self.address)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        try:
            socket.create_connection((parts.hostname or "", port), timeout=CONNECT_S).close()
        except OSError as error:
            do = "`sweeps cluster status` shows the local one" if self.cluster == "local" else (
                "is Ray up there, and the port open or tunnelled (ssh -L 8265:localhost:8265 HEAD)? "
                "The address stands in clusters.yaml"
            )  # fmt: skip
            raise UserError(
                f"cluster {self.cluster!r} cannot be reached at {self.address}: {error.strerror or error}. {do}"
            ) from error

    def _stranger(self) -> str:
        return (
            f"cluster {self.cluster!r}: what answers at {self.address} is not Ray's dashboard. "
            "The address in clusters.yaml must be the dashboard's, such as http://HEAD:8265"
        )


def read_token(path: str) -> str:
    """The token in a file. Raises UserError."""
    file = Path(path).expanduser()
    try:
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"token file {file} cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from error
    check_token(token, f"token file {file}")
    return token


def check_token(token: str, source: str) -> None:
    """Raises UserError for what no header of a request can carry."""
    if not token or not token.isascii() or any(c.isspace() for c in token):
        raise UserError(f"{source} must hold the token alone, in one word of plain letters")
