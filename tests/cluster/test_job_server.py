"""What is found out about a job server before anything is sent: reach, token, versions. A small server plays Ray's."""

from __future__ import annotations

import json
import platform
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from typing import Any

import pytest

from cluster.job_server import JobServer, read_token
from sweeps.errors import UserError

TOKEN = "f00d" * 16
Play = Callable[..., JobServer]


@pytest.fixture
def play() -> Iterator[Play]:
    """Starts a server with these versions and returns how to reach it."""
    started: list[ThreadingHTTPServer] = []

    def start(
        ray: str = version("ray"),
        python: str = platform.python_version(),
        token: str | None = TOKEN,
        page: str = "",
    ) -> JobServer:
        answers: dict[str, Any] = {
            "/api/version": {"ray_version": ray},
            "/api/v0/cluster_metadata": {"data": {"pythonVersion": python}},
        }

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                given = self.headers.get("Authorization")
                status = 401 if not given else 200 if given == f"Bearer {TOKEN}" else 403
                self.send_response(status)
                self.end_headers()
                self.wfile.write((page or json.dumps(answers.get(self.path, {}))).encode())

            def log_message(self, *arguments: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        started.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return JobServer("lab", f"http://127.0.0.1:{server.server_port}", token, "~/lab.token")

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


def test_a_server_of_the_same_versions_that_takes_the_token_is_fine(play: Play) -> None:
    play().check()


def test_another_ray_or_python_is_refused_with_both_versions(play: Play) -> None:
    with pytest.raises(UserError, match=r"'lab' runs Ray 2\.1\.0, but here is Ray 2\.\d+"):
        play(ray="2.1.0").check()
    with pytest.raises(UserError, match=r"'lab' runs Python 3\.9\.1, but here is Python 3\.\d+"):
        play(python="3.9.1").check()


def test_another_patch_release_of_python_is_fine(play: Play) -> None:
    play(python=".".join([*platform.python_version().split(".")[:2], "999"])).check()


def test_a_missing_and_a_wrong_token_are_refused_and_neither_is_printed(play: Play) -> None:
    with pytest.raises(UserError, match=r"asks for a token, and none is given: .*token_file"):
        play(token=None).check()
    with pytest.raises(UserError, match=r"refuses the token of ~/lab.token") as refused:
        play(token="beef" * 16).check()
    assert "beef" not in str(refused.value)
    assert TOKEN not in repr(play())


def test_what_is_not_rays_dashboard_is_said_to_be_something_else(play: Play) -> None:
    for page in ("<html>Welcome to nginx</html>", "[1, 2]"):
        with pytest.raises(UserError, match="is not Ray's dashboard"):
            play(page=page).check()


def test_an_address_that_nobody_listens_at_is_refused() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    for address in (f"http://127.0.0.1:{port}", "http://no-such-host.invalid:8265"):
        with pytest.raises(UserError, match=r"cannot be reached at http://"):
            JobServer("lab", address).check()


def test_a_token_file_holds_one_word(tmp_path: Any) -> None:
    (tmp_path / "good").write_text(f"{TOKEN}\n")
    assert read_token(str(tmp_path / "good")) == TOKEN
    for name, text in (("empty", "\n"), ("two", "a b"), ("foreign", "schlüssel")):
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match="must hold the token alone"):
            read_token(str(tmp_path / name))
    with pytest.raises(UserError, match="cannot be read: No such file"):
        read_token(str(tmp_path / "absent"))
