"""MLflow's web server for a tracking URI, in a separate process. For `sweeps ui`."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

from sweeps.errors import UserError
from sweeps.tracking.client import ENVIRONMENT, prepare, sqlite_file, without_password
from sweeps.tracking.database import Refill
from sweeps.web import address, check_port, started, stop

WARM_UP_S = 5.0
"""Most seconds of each request before the first page is opened."""


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
    check_port(host, port)
    prepare(uri, refill)  # a server that is killed while it creates the database would leave it incomplete
    # The job runner is for hosted language-model evaluations, and starts further processes.
    environment = {**ENVIRONMENT, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **os.environ}
    environment["MLFLOW_BACKEND_STORE_URI"] = uri  # not in the command line, which every user can read: it may hold a password
    process = started("MLflow's server", _command(uri, host, port), environment, host, port, "/health", ready_timeout_s)
    try:
        _warm_up(address(host, port))
    except BaseException:  # Ctrl-C
        stop(process)
        raise
    return process


def _warm_up(server: str) -> None:
    """Make the first requests of MLflow's pages: the server imports what answers them only then, while a page would wait."""
    # On this machine whatever its host's name, so without a proxy.
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    question = (
        "query MlflowGetExperimentQuery($input: MlflowGetExperimentInput!) {mlflowGetExperiment(input: $input) {__typename}}"
    )
    body = {"operationName": "MlflowGetExperimentQuery", "variables": {"input": {"experimentId": "0"}}, "query": question}
    for path, data in (("/ajax-api/3.0/mlflow/server-info", None), ("/graphql", json.dumps(body).encode())):
        request = urllib.request.Request(server + path, data, {"Content-Type": "application/json"})
        with contextlib.suppress(OSError, http.client.HTTPException), direct.open(request, timeout=WARM_UP_S) as answer:
            answer.read()


def _command(uri: str, host: str, port: int) -> list[str]:
    file = sqlite_file(uri)
    artifacts = (file.absolute().parent if file else Path.cwd()) / "mlartifacts"
    return [sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port),
            "--workers", "1", "--artifacts-destination", str(artifacts)]  # fmt: skip
