"""Output and files on machines that are not UTF-8, output that cannot be written, and text that is made to deceive."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import call
from made_sweep import DOCUMENT, made_sweep

from sweeps.cli.app import writing
from sweeps.cli.output import printable
from sweeps.errors import SweepsError
from sweeps.store import Store

C_LOCALE = {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
FILE = """\
name: größer
question: Is a ± b ≤ √2 for 中?
task: {name: static, operation: sub, input_size: 10}
compare: {model: [{name: linear, label: "größer ±"}]}
train: {steps: 20, batch: 4, evaluate_every: 10}
seeds: 2
"""
TRAIN = """
import sys
from sweeps.cli import main
import tasks.base  # before the path, in which tests has another folder `tasks`
from sweeps.runner import run
sys.path.append(sys.argv.pop(1))
from commands import train_in_process
sys.path.pop()
run._train = lambda driver, console, workers: train_in_process(driver)
main()
"""


@pytest.fixture
def sweeps(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """Runs the command as its own process, which trains without Ray, in an empty folder."""

    def run(*arguments: str, stdout: Any = subprocess.PIPE, **variables: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-c", TRAIN, str(Path(__file__).parent), *arguments],
            cwd=tmp_path, env={**os.environ, **variables}, stdout=stdout, stderr=subprocess.PIPE, timeout=200,
        )  # fmt: skip

    return run


Command = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_trained_sweep_ends_with_0_on_a_terminal_of_any_encoding(sweeps: Command, tmp_path: Path, encoding: str) -> None:
    (tmp_path / "g.yaml").write_text(FILE.replace("name: größer", "name: g"), encoding="utf-8")
    done = sweeps("run", "g.yaml", "--no-mlflow", **C_LOCALE, PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode(encoding)
    shown = "größer ±" if encoding != "ascii" else "gro?er +-".replace("?", "ss")
    assert f"| {shown} |" in text and f"Is a {shown[-2:].strip()} b <= sqrt2 for ??" in text.replace("≤", "<=")


def test_a_name_of_a_file_that_is_not_utf_8_is_shown(sweeps: Command, tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"f\xe9.yaml")).write_text(FILE.replace("name: größer", "name: g"), encoding="utf-8")
    done = sweeps("check", os.fsdecode(b"f\xe9.yaml"), PYTHONIOENCODING="utf-8")
    assert done.returncode == 0 and done.stdout.startswith(rb"f\xe9.yaml is sound: 1 cell, 2 lanes, ")


def test_files_are_written_as_utf_8_in_any_locale(sweeps: Command, tmp_path: Path) -> None:
    with Store(tmp_path / "results") as store:
        made_sweep(store, document={**DOCUMENT, "question": "größer?"})
    for verb in (["init", "größer.yaml"], ["export", "small", "-o", "best.yaml"]):
        done = sweeps(*verb, **C_LOCALE)
        assert done.returncode == 0, done.stderr
    assert "größer?" in (tmp_path / "best.yaml").read_text(encoding="utf-8")
    assert len([path.read_text(encoding="utf-8") for path in tmp_path.glob("gr*.yaml")]) == 1


def fail_halfway(path: Path, failure: BaseException) -> None:
    with writing(path) as file:
        file.write_text("half")
        raise failure


def test_a_file_gets_its_name_when_it_is_complete(tmp_path: Path) -> None:
    before, whole = tmp_path / "before", tmp_path / "link"
    before.write_text("before")
    before.chmod(0o640)
    whole.symlink_to(before)
    for failure in (OSError(errno.ENOSPC, "full"), KeyboardInterrupt()):
        with pytest.raises((SweepsError, KeyboardInterrupt)):
            fail_halfway(whole, failure)
        assert before.read_text() == "before" and sorted(tmp_path.iterdir()) == [before, whole]
    with writing(whole) as file:
        file.write_text("after")
    assert (before.read_text(), before.stat().st_mode & 0o777) == ("after", 0o640)
    assert sorted(tmp_path.iterdir()) == [before, whole] and whole.is_symlink()
    with writing(Path("/dev/null")) as file:
        assert file == Path("/dev/null")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (FILE.encode("latin-1", "replace"), "is not UTF-8 text: byte 0xf6 on line 1. Save it as UTF-8"),
        (b"name: x\n# \x96\n", "is not UTF-8 text: byte 0x96 on line 2. Save it as UTF-8"),
        (FILE.encode("utf-16"), "is not UTF-8 text but UTF-16: save it as UTF-8"),
    ],
)
def test_a_file_that_is_not_utf_8_is_refused_with_the_line_and_the_byte(folder: Path, content: bytes, message: str) -> None:
    (folder / "mine.yaml").write_bytes(content)
    for verb in ("check", "run", "reproduce"):
        answer = call(verb, "mine.yaml")
        assert (answer.status, answer.err) == (2, f"mine.yaml: {message}\n")
    (folder / "clusters.yaml").write_bytes(content)
    answer = call("list", "clusters")
    assert (answer.status, answer.err) == (2, f"clusters.yaml: {message}\n")


def test_a_model_of_the_user_s_is_read_in_the_encoding_that_it_names(folder: Path) -> None:
    assert call("new", "model", "mine").status == 0
    text = (folder / "mine.py").read_text(encoding="utf-8").replace("import torch", "import torch  # größer", 1)
    assert "größer" in text
    (folder / "named.py").write_text("# -*- coding: latin-1 -*-\n" + text, "latin-1", "replace")
    (folder / "marked.py").write_text(text, encoding="utf-8-sig")
    for name in ("named", "marked"):
        assert call("check", "model", f"./{name}.py").status == 0
    (folder / "wrong.py").write_text(text, "latin-1", "replace")
    answer = call("check", "model", "./wrong.py")
    assert answer.status == 2 and "wrong.py (line 11): byte 0xf6 is not UTF-8: save the file as UTF-8" in answer.out


# Output that cannot be written

needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")


def state(folder: Path) -> str:
    with Store(folder / "results", read_only=True) as store:
        row = store.sweep("g")
        assert row is not None
        return row.state


@needs_full
def test_a_full_disk_below_the_log_of_a_sweep_does_not_end_it_and_is_said(sweeps: Command, tmp_path: Path) -> None:
    (tmp_path / "g.yaml").write_text(FILE.replace("name: größer", "name: g"), encoding="utf-8")
    said = b"the output could not be written to the end: the disk is full. Free some space, and run again\n"
    with Path("/dev/full").open("wb") as full:
        done = sweeps("run", "g.yaml", "--no-mlflow", stdout=full)
        assert (done.returncode, done.stderr.splitlines(keepends=True)[-1]) == (1, said)
        assert b"Traceback" not in done.stderr and state(tmp_path) == "done"
        done = sweeps("report", "g", stdout=full)
        assert (done.returncode, done.stderr) == (1, said)


def test_a_sweep_outlives_the_reader_of_its_output(sweeps: Command, tmp_path: Path) -> None:
    (tmp_path / "g.yaml").write_text(FILE.replace("name: größer", "name: g"), encoding="utf-8")
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as closed:
        done = sweeps("run", "g.yaml", "--no-mlflow", stdout=closed)
        assert (done.returncode, state(tmp_path)) == (0, "done")
        done = sweeps("report", "g", stdout=closed)
        assert done.returncode in (0, 1) and done.stderr == b""


@pytest.mark.parametrize("closed", [0, 1, 2])
def test_a_sweep_is_trained_where_the_shell_has_closed_a_standard_stream(tmp_path: Path, closed: int) -> None:
    (tmp_path / "g.yaml").write_text(FILE.replace("name: größer", "name: g"), encoding="utf-8")
    command = [sys.executable, "-c", TRAIN, str(Path(__file__).parent), "run", "g.yaml", "--no-mlflow"]
    script = f'exec {closed}>&-; exec "$@"'
    done = subprocess.run(["sh", "-c", script, "-", *command], cwd=tmp_path, capture_output=True, timeout=200)
    assert (done.returncode, state(tmp_path)) == (0, "done"), done.stderr


# Text that is made to deceive


def test_control_characters_are_shown_and_not_sent_to_the_terminal() -> None:
    assert printable("\x1b[33m(raylet)\x1b[0m a") == "(raylet) a"
    assert printable("a\x1b]0;title\x07b\tc\nd\x9bm\r") == "a\\x1b]0;title\\x07b\tc\nd\\x9bm\\x0d"


def test_a_store_s_names_cannot_command_the_terminal(folder: Path) -> None:
    hostile = "\x1b]0;owned\x07\x1b[2J"
    with Store("results") as store:
        made_sweep(store, document={**DOCUMENT, "question": hostile})
        store.begin_sweep(hostile, "", {})
    for verb in (["list"], ["report", "small"], ["status", "small"], ["report", hostile], ["report", "x"], ["export", "small"]):
        answer = call(*verb)
        assert "\x1b" not in answer.out + answer.err, verb
    assert "\\x1b]0;owned" in call("list").out
