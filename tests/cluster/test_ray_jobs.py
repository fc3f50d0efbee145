"""A job server is checked before anything is sent (reach, token, versions; a small server plays Ray's), and what is sent."""

from __future__ import annotations

import json
import platform
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster import ray_jobs
from cluster.backend import Submission
from cluster.job import ORDER as ORDER_FILE
from cluster.ray_jobs import JobServer, RayBackend, RayCluster, parcel, read_token
from sweeps.config.user_files import PACKAGES, OutOfReach, own_files
from sweeps.errors import UserError

TOKEN = "f00d" * 16
Play = Callable[..., JobServer]


@pytest.fixture
def play() -> Iterator[Play]:
    """Starts a server with these versions and returns how to reach it."""
    started: list[ThreadingHTTPServer] = []

    def start(
        ray: str = version("ray"), python: str = platform.python_version(), token: str | None = TOKEN, page: str = ""
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
    with pytest.raises(UserError, match=r"requires a token, and none is given: .*token_file"):
        play(token=None).check()
    with pytest.raises(UserError, match=r"refuses the token of ~/lab.token") as refused:
        play(token="beef" * 16).check()
    assert "beef" not in str(refused.value)
    assert TOKEN not in repr(play())


def test_a_server_that_is_not_rays_dashboard_is_refused(play: Play) -> None:
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


@pytest.mark.parametrize(
    ("state", "message", "expected"),
    [
        ("PENDING", "Job has not started yet.", ("waiting", "the cluster prepares its environment")),
        ("RUNNING", "Job is running.", ("running", "")),
        ("FAILED", "Job failed:\nno such file", ("failed", "no such file")),
    ],
)
def test_the_status_of_a_job_says_what_it_waits_for_and_why_it_failed(
    state: str, message: str, expected: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = SimpleNamespace(submission_id="mine-1", status=state, message=message, start_time=0, metadata={})
    backend = RayBackend(RayCluster(name="lab", address="http://head:8265"))
    monkeypatch.setattr(backend, "_latest", lambda name: job)
    monkeypatch.setitem(vars(backend), "client", SimpleNamespace(get_job_logs=lambda name: ""))
    found = backend.status("mine")
    assert (found.state, found.message) == expected


# --------------------------------------------------------------------------------------- what is sent along

ORDER: dict[str, Any] = {"kind": "run", "name": "mine", "store": "results"}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    work = tmp_path / "work"
    (work / "units").mkdir(parents=True)
    (work / "my_unit.py").write_text("a = 1")
    (work / "units" / "other.py").write_text("b = 2")
    (work / "data.bin").write_bytes(b"0" * 1000)
    (tmp_path / "outside.py").write_text("c = 3")
    package = work / "my_pkg_for_shipping"
    (package / "__pycache__").mkdir(parents=True)
    for name in ("__init__.py", "units.py", "__pycache__/units.pyc"):
        (package / name).write_text("")
    monkeypatch.chdir(work)
    monkeypatch.syspath_prepend(str(work))
    return work


def mine(home: Path, text: str = "name: mine\n") -> Submission:
    return Submission("mine", text, own_files({"model": "./my_unit.py"}, home))


def test_files_and_packages_that_a_sweep_names_travel_and_nothing_else(home: Path) -> None:
    document = {
        "model": {"units": ["nau", "./my_unit.py"]},
        "compare": {"model": [{"name": "units/other.py"}, "my_pkg_for_shipping.units:Mine", "numpy:Thing"]},
        "question": "is it: so? ./absent.py",
    }
    assert sorted(own_files(document, home)) == [
        "my_pkg_for_shipping/__init__.py", "my_pkg_for_shipping/units.py", "my_unit.py", "units/other.py",
    ]  # fmt: skip


def test_a_package_of_the_user_s_travels_without_its_results_unless_they_are_code(home: Path) -> None:
    package = home / "my_pkg_for_shipping"
    for folder, file in (("results", "sweeps.db"), ("models/results", "__init__.py")):
        (package / folder).mkdir(parents=True)
        (package / folder / file).write_text("")
    assert sorted(own_files({"model": "my_pkg_for_shipping.units:Mine"}, home)) == [
        "my_pkg_for_shipping/__init__.py", "my_pkg_for_shipping/models/results/__init__.py", "my_pkg_for_shipping/units.py",
    ]  # fmt: skip


def test_every_file_of_ours_is_in_a_parcel_but_recordings() -> None:
    root = Path(ray_jobs.__file__).parents[1]
    with parcel(ORDER) as made:
        sent = {path.relative_to(made.folder).as_posix() for path in made.folder.rglob("*") if path.is_file()}
    ours = {path.relative_to(root) for name in PACKAGES for path in (root / name).rglob("*") if path.is_file()}
    needed = {path.as_posix() for path in ours if "__pycache__" not in path.parts and path.suffix != ".npz"}
    assert sent - {ORDER_FILE} == needed
    assert "sweeps/training/lane.h" in sent  # without it workers would train with other code than this machine


def test_what_a_named_file_imports_of_the_user_s_travels_with_it(home: Path) -> None:
    (home / "my_unit.py").write_text("import numpy\nimport tasks\nfrom helper import f\nimport my_pkg_for_shipping.units\n")
    (home / "helper.py").write_text("import deeper\nimport my_unit\n")
    (home / "tasks.py").write_text("")
    for name in ("deeper.py", "unused.py"):
        (home / name).write_text("a = 1")
    assert sorted(own_files({"model": "./my_unit.py"}, home)) == [
        "deeper.py", "helper.py", "my_pkg_for_shipping/__init__.py", "my_pkg_for_shipping/units.py", "my_unit.py",
    ]  # fmt: skip


def test_a_package_is_found_where_kubernetes_puts_it_behind_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "..2026_01_01" / "my_pkg_behind_links"
    package.mkdir(parents=True)
    for name in ("__init__.py", "units.py"):
        (package / name).write_text("")
    (tmp_path / "..data").symlink_to("..2026_01_01")
    (tmp_path / "my_pkg_behind_links").symlink_to("..data/my_pkg_behind_links")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = own_files({"model": "my_pkg_behind_links.units:Mine"}, tmp_path)
    assert sorted(found) == ["my_pkg_behind_links/__init__.py", "my_pkg_behind_links/units.py"]


@pytest.mark.parametrize("word", ["../outside.py", "units/../../outside.py", "ABSOLUTE"])
def test_a_file_outside_the_folder_is_refused_with_what_to_do(home: Path, word: str) -> None:
    word = str(home.parent / "outside.py") if word == "ABSOLUTE" else word
    with pytest.raises(OutOfReach, match=r"is outside the folder .* write \./outside.py"):
        own_files({"model": word}, home)


def test_a_parcel_has_order_sweep_file_own_files_and_our_code(home: Path) -> None:
    with parcel(ORDER, mine(home)) as made:
        assert json.loads((made.folder / "order.json").read_text()) == ORDER
        assert (made.folder / "mine.yaml").read_text() == "name: mine\n"
        assert (made.folder / "my_unit.py").read_text() == "a = 1"
        assert (made.folder / "sweeps" / "definitions" / "quickstart.yaml").is_file()
        assert not list(made.folder.rglob("*.npz"))
    assert not made.folder.exists()


def test_an_order_may_name_a_password_and_is_for_nobody_else_s_eyes(home: Path) -> None:
    with parcel(ORDER) as made:
        assert (made.folder / ORDER_FILE).stat().st_mode & 0o777 == 0o600


def test_the_digest_follows_from_content_alone(home: Path) -> None:
    def digest(text: str = "name: mine\n", **order: Any) -> str:
        with parcel(ORDER | order, mine(home, text)) as made:
            return made.digest

    first = digest()
    assert digest() == first
    changed = {digest("name: mine\nseeds: 2\n"), digest(store="other")}
    (home / "my_unit.py").write_text("a = 2")
    changed.add(digest())
    assert len(changed | {first}) == 4


def test_more_than_ray_takes_is_refused_before_it_is_sent(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "my_pkg_for_shipping" / "weights.bin").write_bytes(b"0" * 3 * 1024**2)
    monkeypatch.setenv("RAY_max_grpc_message_size", str(2 * 1024**2))
    assert ray_jobs.limit_bytes() == 2 * 1024**2
    large = Submission("mine", files=own_files({"model": "my_pkg_for_shipping.units:Mine"}, home))
    with (
        pytest.raises(UserError, match=r"takes 2.0 MiB at most. Largest: my_pkg_for_shipping/weights.bin \(3.0 MiB\)"),
        parcel(ORDER, large),
    ):
        raise AssertionError("it was made")
