"""Machines that lack or forbid something: no home, a long temporary path, proxies, a cluster where nobody answers."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import requests
from commands import Commands, call
from sample_sweeps import LONG, UNIT

from sweeps import machine
from sweeps.errors import ClusterError
from sweeps.runner.ray_tune import why_lost

# ------------------------------------------------------------------------------------------------------- proxies


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, None),
        ({"no_proxy": "corp"}, None),
        ({"http_proxy": "http://p:1"}, ""),
        ({"ALL_PROXY": "http://p:1"}, ""),
        ({"http_proxy": "http://p:1", "no_proxy": "corp, .lab"}, "corp,.lab,"),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "corp"}, "corp,"),
        ({"http_proxy": "http://p:1", "no_proxy": "*"}, "*"),
    ],
)
def test_loopback_is_excepted_from_proxies_and_the_user_s_exceptions_stay(given: dict[str, str], expected: str | None) -> None:
    environment = dict(given)
    machine.call_loopback_directly(environment)
    if expected is None:
        assert environment == given
        return
    listed = expected if expected == "*" else expected + "localhost,127.0.0.1,127.0.0.0/8,::1,[::1]"
    assert environment == given | {"no_proxy": listed, "NO_PROXY": listed}
    again = dict(environment)
    machine.call_loopback_directly(again)
    assert again == environment


def test_with_a_proxy_loopback_is_called_directly_and_other_hosts_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("NO_PROXY", "")
    machine.call_loopback_directly()
    for url in ("http://127.0.0.1:5000/", "http://localhost:5000/", "http://[::1]:5000/"):
        assert requests.utils.get_environ_proxies(url) == {}, url
        assert urllib.request.proxy_bypass(url.split("/")[2]), url
    assert requests.utils.get_environ_proxies("http://lab.example:5000/")["http"] == "http://127.0.0.1:1"
    assert not urllib.request.proxy_bypass("lab.example:5000")


# ------------------------------------------------------------------------------------------------------- folders


def test_a_folder_for_sockets_is_in_the_usual_place_or_in_a_shorter_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    deep = tmp_path / ("x" * 120)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    made = machine.folder_for_sockets("sweeps-ray-", 70)
    try:
        assert made.stat().st_mode & 0o777 == 0o700
        assert len(str(made)) + 70 <= machine.SOCKET_PATH_BYTES
        assert not made.is_relative_to(deep)
    finally:
        made.rmdir()
    with pytest.raises(ClusterError, match="set TMPDIR to a folder with a path of at most"):
        machine.folder_for_sockets("sweeps-ray-", 107)


def test_a_private_folder_is_the_same_again_and_never_somebody_else_s(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    made = machine.private_folder("cache")
    assert made.stat().st_mode & 0o777 == 0o700
    assert machine.private_folder("cache") == made
    made.chmod(0o755)
    other = machine.private_folder("cache")
    assert other != made and other.stat().st_mode & 0o777 == 0o700
    made.rmdir()
    made.symlink_to(tmp_path / "nowhere")
    assert machine.private_folder("cache") not in (made, other)


def test_temporary_folders_of_killed_processes_are_removed_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from sweeps import machine; folder = pathlib.Path(sys.argv[1]); folder.mkdir()\n"
        "machine.mark_as_ours(folder, 'sweeps-x-'); print('marked', flush=True); sys.stdin.read()"
    )
    (tmp_path / "sweeps-x-unmarked").mkdir()
    processes = []
    for name in ("sweeps-x-killed", "sweeps-x-alive"):
        command = [sys.executable, "-c", program, str(tmp_path / name)]
        processes.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        assert processes[-1].stdout is not None and processes[-1].stdout.readline() == "marked\n"
    processes[0].kill()
    processes[0].communicate()
    mine = tmp_path / "sweeps-x-mine"
    mine.mkdir()
    machine.mark_as_ours(mine, "sweeps-x-")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sweeps-x-alive", "sweeps-x-mine", "sweeps-x-unmarked"]
    processes[1].communicate()


def test_a_temporary_folder_of_a_living_process_is_never_removed_while_others_start(tmp_path: Path) -> None:
    program = (
        "import sys, tempfile, pathlib; from sweeps import machine\n"
        "for _ in range(300):\n"
        "    folder = pathlib.Path(tempfile.mkdtemp(prefix='sweeps-x-', dir=sys.argv[1]))\n"
        "    machine.mark_as_ours(folder, 'sweeps-x-')\n"
        "    assert (folder / machine.MARK).is_file()\n"
        "    (folder / machine.MARK).unlink(); folder.rmdir()\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], errors


def test_compiled_code_has_a_private_folder_where_the_cache_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    monkeypatch.setenv("HOME", "/dev/null")
    folder, note = machine.compile_cache()
    assert folder == tmp_path / f"sweeps-cache-{os.getuid()}"
    assert note is not None and note.startswith("/dev/null/.cache/sweeps/compiled on ")
    assert note.endswith(f"compiled code is kept in {folder}; XDG_CACHE_HOME names another place")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "mine"))
    assert machine.compile_cache() == (tmp_path / "mine" / "sweeps" / "compiled", None)


def test_a_user_without_a_home_folder_gets_a_private_one_and_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv("MPLCONFIGDIR", raising=False)
    monkeypatch.setenv("HOME", "")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", _no_such_user)
    answer = call("list", "clusters")
    home = tmp_path / f"sweeps-home-{os.getuid()}"
    assert answer.status == 0 and answer.out.startswith("local")
    assert answer.err.startswith(f"note: HOME is not set, and this user has no home folder: {home} is used.")
    assert Path.home() == home and home.stat().st_mode & 0o777 == 0o700
    assert "MPLCONFIGDIR" not in os.environ
    monkeypatch.setenv("HOME", "/dev/null")
    monkeypatch.setenv("MPLCONFIGDIR", "")
    monkeypatch.delenv("MPLCONFIGDIR")
    assert machine.ensure_folders() is None
    assert os.environ["MPLCONFIGDIR"] == str(tmp_path / f"sweeps-matplotlib-{os.getuid()}")


def test_a_path_of_an_unknown_user_is_refused(folder: Path) -> None:
    answer = call("list", "--store", "~no-such-user/results")
    assert answer.status == 2 and "names no home folder that is known here" in answer.err


def _no_such_user(number: int) -> None:
    raise KeyError(f"getpwuid(): uid not found: {number}")


# ------------------------------------------------------------------------------------------------------- addresses


def test_a_port_where_nothing_listens_and_one_where_nothing_answers_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        machine.check_answers(address, lambda address: None)
        with pytest.raises(ClusterError, match=r"does not answer as a Ray cluster.*: wrong token\. Give the port"):
            machine.check_answers(address, _refuse)
        monkeypatch.setattr(machine, "ANSWER_S", 0.5)
        with pytest.raises(ClusterError, match=r"does not answer as a Ray cluster.*: no answer in 0.5 s"):
            machine.check_answers(address, lambda address: time.sleep(30))
    with pytest.raises(ClusterError, match=r"nothing answers at RAY_ADDRESS 127.0.0.1:\d+ \(Connection refused\)") as found:
        machine.check_answers(address, lambda address: None)
    assert "`unset RAY_ADDRESS` runs the sweep on this machine" in str(found.value)


def _refuse(address: str) -> None:
    raise RuntimeError("wrong token. See https://a.page about tokens.")


# ------------------------------------------------------------------------------------------------------- lost workers


def test_why_a_worker_was_lost_is_its_exception_or_how_its_process_died() -> None:
    raised = """\
Failure # 1 (occurred at 2026-01-01_00-00-00)
The actor died because of an error raised in its creation task, ray::ResourceTrainable.__init__() (pid=1)
           ^^^^^^^^^^^
  File "/venv/trainable.py", line 151, in __init__
    self.setup(copy.deepcopy(self.config))
  File "/code/worker.py", line 31, in prepare_process
    import torch._inductor.config as inductor
    ^^^^^^^^^^^
ImportError: libfoo.so.1: cannot open shared object file
"""
    assert why_lost(raised) == (
        'ImportError: libfoo.so.1: cannot open shared object file (raised in "/code/worker.py", line 31, in prepare_process)',
        True,
    )
    died = """\
Failure # 1 (occurred at 2026-01-01_00-00-00)
The actor died unexpectedly before finishing this task.
\tclass_name: with_resources.<locals>.ResourceTrainable
\tpid: 30345
The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker \
unexpectedly exits with a connection error code 2. End of file. Some common causes include: (1) the process was killed
"""
    assert why_lost(died) == (
        "its process died: Worker unexpectedly exits with a connection error code 2. End of file",
        False,
    )
    assert why_lost("Failure # 1\nOut of memory: killed.\n") == ("its process died: Out of memory: killed.", False)
    assert why_lost("") == ("its process died: Ray does not say why", False)


# ------------------------------------------------------------------------------------------------------- whole sweeps


@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_a_sweep_is_closed_to_other_users_and_needs_no_home_short_tmpdir_or_proxy(
    commands: Commands, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token_of_theirs = folder / "home" / ".ray" / "auth_token"
    token_of_theirs.parent.mkdir(parents=True)
    token_of_theirs.write_text("of another cluster")
    long = folder / ("x" * 120)
    long.mkdir()
    (folder / "long.yaml").write_text(LONG)
    for name, value in {
        "HOME": str(folder / "home"), "XDG_CACHE_HOME": "/dev/null", "TMPDIR": str(long), "SWEEPS_COMPILE": "0",
        "http_proxy": "http://127.0.0.1:1", "all_proxy": "http://127.0.0.1:1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    command = commands.start(folder, "run", "long.yaml", "--workers", "1", "--no-mlflow")
    command.until(lambda: "lanes 0/6" in command.output and bool(command.workers()), "progress")
    everything = [psutil.Process(command.process.pid), *command.family()]
    tokens, addresses = set(), set()
    for process in everything:
        with suppress(psutil.Error):
            tokens |= {process.environ().get("RAY_AUTH_TOKEN")} - {None}
            addresses |= {c.laddr.ip for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN}
    assert len(tokens) == 1
    (token,) = tokens
    assert len(token) == 64
    assert not [process for process in everything if process.is_running() and token in " ".join(process.cmdline())]
    assert addresses and addresses <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}, addresses
    command.process.send_signal(signal.SIGTERM)
    assert command.ended() == 1
    assert [path.name for path in token_of_theirs.parent.iterdir()] == ["auth_token"]
    assert token_of_theirs.read_text() == "of another cluster"
    assert command.clear_away(20.0) == []


@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_the_last_words_of_a_worker_that_dies_are_shown(
    commands: Commands, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWEEPS_COMPILE", "0")
    dies = "import os, sys; print('no such device', file=sys.stderr); os.abort()\n        return x\n"
    (folder / "my_unit.py").write_text(UNIT.replace("return x\n", dies, 1))
    (folder / "dies.yaml").write_text(
        "name: dies\ntask: {name: static, operation: sub, input_size: 10}\nmodel: ./my_unit.py\n"
        "train: {steps: 20, batch: 4, evaluate_every: 10}\nseeds: 2\n"
    )
    command = commands.start(folder, "run", "dies.yaml", "--workers", "1", "--no-mlflow")
    assert command.ended() == 1
    reason = "no such device; Fatal Python error: Aborted"
    assert command.output.count("a worker was lost, and its lanes are queued again: its process died: Worker") == 1
    assert "the sweep failed: every seed ended in an error, such as its worker was lost 3 times" in command.output
    assert command.output.replace("\n", " ").count(reason) >= 2
