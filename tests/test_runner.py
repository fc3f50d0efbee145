"""Sweeps whose packs are trained in this process instead of on Ray: extended, reproduced, with own units; their progress."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import socket
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from commands import call, train_in_process
from kept import records_of, states
from rich.console import Console
from sample_sweeps import UNIT

from sweeps.config import registry
from sweeps.config.sweep_file import parse
from sweeps.config.yaml import dump, read
from sweeps.runner import run
from sweeps.runner.driver import Driver
from sweeps.runner.progress import Progress
from sweeps.runner.progress_log import MARK, is_first, last_block, plain
from sweeps.runner.worker import PackRun
from sweeps.store import Store
from sweeps.training.lane_program import CompilationFailed, ProgramFiles
from sweeps.training.numerics import NUMERICS

SMALL = """\
name: small
task: {name: static, operation: sub, input_size: 10}
train: {steps: 20, batch: 8, evaluate_every: 10}
compare: {model: [nau, linear]}
seeds: 2
resources: {slots: 4}
"""
OWN = """\
name: own
task: {name: static, operation: sub, input_size: 10}
train: {steps: 40, batch: 16, evaluate_every: 20}
compare: {model: [./my_unit.py, {name: ./my_broken_unit.py, label: broken}]}
seeds: 3
search:
  sampler: {name: tpe, seed: 0, n_startup_trials: 1}
  configurations: 3
  objective: {error.extrapolation.median: minimize}
  space: {train.lr: {log_uniform: [1e28, 1e30]}}
"""
BROKEN = UNIT.replace("return x\n", 'raise ArithmeticError("it has never worked")\n', 1)


@pytest.fixture(autouse=True)
def _in_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SWEEPS_STORE", str(tmp_path / "results"))  # absolute: MLflow caches stores by URI
    monkeypatch.setattr(run, "_train", lambda driver, console, workers: train_in_process(driver))
    files = {"small.yaml": SMALL, "own.yaml": OWN, "my_unit.py": UNIT, "my_broken_unit.py": BROKEN}
    for name, text in files.items():
        (tmp_path / name).write_text(text)


def test_more_seeds_train_what_is_missing_and_leave_the_rest() -> None:
    assert call("run", "small.yaml", "--no-mlflow").status == 0
    before = records_of("results")
    answer = call("run", "small.yaml", "seeds=3", "--no-mlflow")
    assert answer.status == 0
    assert "seeds: 2 -> 3" in answer.out and "4 lanes are in the store already" in answer.out
    after = records_of("results")
    assert len(after) == 6
    assert [record for record in after if record.seed < 2] == before, "their wall times too"


def test_a_sweep_of_an_older_engine_keeps_its_results_under_another_name_and_is_trained_anew() -> None:
    assert call("run", "small.yaml", "--no-mlflow").status == 0
    before = call("report", "small", "--format", "csv", "--no-timing").out
    with sqlite3.connect("results/sweeps.db") as database:
        (numerics,) = database.execute("SELECT numerics FROM sweeps").fetchone()
        database.execute("UPDATE sweeps SET numerics = NULL")  # as in a store of schema 1
        database.execute("UPDATE lanes SET key = 'old ' || key")
        database.execute("UPDATE records SET key = 'old ' || key")
    database.close()
    answer = call("run", "small.yaml", "--no-mlflow")
    assert answer.status == 0
    assert f"trained with version 1 of the engine's numerics, and this is version {NUMERICS}" in " ".join(answer.out.split())
    assert "lanes are in the store already" not in answer.out and len(records_of("results")) == 8
    kept = call("report", "small-numerics-1", "--format", "csv", "--no-timing").out
    assert kept == before.replace("small", "small-numerics-1")
    assert call("sync", "small-numerics-1").status == 0  # its own runs, under its own name
    assert states("results", "small-numerics-1")[("seed", "FINISHED")] == 4
    assert call("report", "small", "--format", "csv", "--no-timing").out == before
    assert numerics.startswith(f"{NUMERICS} cpu-")


def test_a_file_that_does_not_continue_an_older_engines_sweep_is_refused_as_always() -> None:
    assert call("run", "small.yaml", "--no-mlflow").status == 0
    with sqlite3.connect("results/sweeps.db") as database:
        database.execute("UPDATE sweeps SET numerics = NULL")
    database.close()
    answer = call("run", "small.yaml", "train.batch=7", "--no-mlflow")
    assert answer.status == 2 and "--name NEW" in answer.err
    assert "small-numerics-1" not in call("list").out


def test_stored_lanes_that_other_code_trained_are_reused_with_one_warning_that_names_both() -> None:
    assert call("run", "small.yaml", "--no-mlflow").status == 0
    here = {record.provenance["source_hash"] for record in records_of("results")}
    with sqlite3.connect("results/sweeps.db") as database:
        database.execute("UPDATE records SET provenance = json_replace(provenance, '$.source_hash', 'ab12ab12ab12ab12')")
    database.close()
    answer = call("run", "small.yaml", "seeds=3", "--no-mlflow")
    assert answer.status == 0 and "4 lanes are in the store already" in answer.out
    (warning,) = [line for line in answer.out.splitlines() if line.startswith("warning")]
    assert "source ab12ab12ab12ab12 then" in warning and any(f"{one} here" in warning for one in here)
    assert "warning" not in call("run", "small.yaml", "seeds=3", "--name", "other", "--store", "new", "--no-mlflow").out


def test_a_sweep_keeps_the_numerics_with_which_it_began(monkeypatch) -> None:
    assert call("run", "small.yaml", "--numerics", "plain", "--no-mlflow").status == 0
    before = records_of("results")
    monkeypatch.delenv("SWEEPS_COMPILE", raising=False)
    answer = call("run", "small.yaml", "seeds=3", "--no-mlflow")
    assert answer.status == 0 and "4 lanes are in the store already" in answer.out
    assert {record.provenance["numerics"].split()[-1] for record in records_of("results")} == {"plain"}
    refused = call("run", "small.yaml", "seeds=3", "--numerics", "compiled", "--no-mlflow")
    assert refused.status == 2 and "Leave --numerics out, or start another sweep with --name" in refused.err
    assert len(records_of("results")) == 6 and records_of("results")[: len(before)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("compilled", "unknown numerics 'compilled'. Did you mean 'compiled'?"),
        ("plain,compiled", "--numerics has plain and compiled: a sweep has one of them"),
        ("cuda", "--numerics is cuda, and the file's workers train on cpu: that needs resources.gpus above 0"),
        ("cpu-of-another-kind", "--numerics is cpu-of-another-kind, and this machine is cpu-"),
    ],
)
def test_numerics_that_cannot_be_had_are_refused_before_anything_begins(words: str, message: str) -> None:
    answer = call("run", "small.yaml", "--numerics", words, "--no-mlflow")
    assert answer.status == 2 and message in " ".join(answer.err.split())
    with Store("results") as store:
        assert store.sweep("small") is None


@pytest.mark.parametrize("differs", ["source", "device", "compiler", "file"])
def test_a_worker_that_would_compute_other_numbers_trains_nothing_and_the_sweep_says_why(differs, monkeypatch) -> None:
    message = {
        "source": "its code is another (source ",
        "device": "and the sweep's numbers are those of cpu-of-another-kind. Use workers of that kind",
        "compiler": "it cannot compile the step: no such compiler. Install a C++ compiler there, or",
        "file": "no file my_unit.py",
    }[differs]

    def train(driver: Driver) -> None:
        request = driver.next_pack("pack")
        assert request is not None
        other = dataclasses.replace(request.numerics, device="cpu-of-another-kind")
        if differs == "source":
            request = dataclasses.replace(request, source="0123456789abcdef")
        elif differs == "device":
            request = dataclasses.replace(request, numerics=other)
        elif differs == "file":  # of the user's own, which this machine does not have
            Path("my_unit.py").unlink()
            registry.clear_cache()
        pack = PackRun(request)
        while not pack.done:
            driver.receive("pack", pack.work())
        driver.receive("pack", pack.work())

    def fail(*arguments: object) -> None:
        raise CompilationFailed("no such compiler")

    monkeypatch.setattr(run, "_train", lambda driver, console, workers: train(driver))
    if differs == "compiler":
        monkeypatch.setattr(ProgramFiles, "library", fail)
    Path("mine.yaml").write_text(SMALL.replace("[nau, linear]", "[./my_unit.py]").replace("small", "mine"))
    answer = call("run", "mine.yaml", "--no-mlflow", "--numerics", "compiled" if differs == "compiler" else "plain")
    assert answer.status == 1 and message in " ".join(answer.err.split()), answer.err
    assert socket.gethostname() in answer.err and records_of("results") == []
    assert "failed" in call("list").out


def test_a_unit_that_was_edited_since_the_sweep_began_is_refused_and_nothing_is_mixed() -> None:
    mine = SMALL.replace("[nau, linear]", "[./my_unit.py]")
    Path("mine.yaml").write_text(mine.replace("small", "mine"))
    assert call("run", "mine.yaml", "--no-mlflow").status == 0
    before = records_of("results")
    Path("my_unit.py").write_text(UNIT + "\nEDITED = True\n")
    registry.clear_cache()
    for more in ([], ["seeds=3"]):
        answer = call("run", "mine.yaml", *more, "--no-mlflow")
        assert answer.status == 2 and "a file of yours has changed" in answer.err
    assert records_of("results") == before
    with Store("results") as store:
        row = store.sweep("mine")
    assert row is not None and (row.state, row.document["seeds"]) == ("done", 2)


def test_the_best_configuration_is_reproduced_and_a_wrong_figure_is_found() -> None:
    assert call("run", "small.yaml", "--no-mlflow").status == 0
    assert call("export", "small", "--cell", "nau", "-o", "best.yaml").status == 0
    passed = call("reproduce", "best.yaml")
    assert passed.status == 0, passed.out + passed.err
    assert "PASS: every figure of every seed is the same (2 seeds)" in passed.out
    values = read(Path("best.yaml").read_text()).values
    values["exported"]["lanes"][1]["error"]["extrapolation"] *= 1 + 1e-12
    del values["exported"]["results_digest"]  # as of an earlier release: else the edit itself is refused
    Path("wrong.yaml").write_text(dump(values))
    failed = call("reproduce", "wrong.yaml")
    assert failed.status == 1
    assert "FAIL: the figures differ (2 seeds)" in failed.out
    assert failed.out.count("seed 1: error.extrapolation was") == failed.out.count("seed ") == 1


def exported_own_unit(folder: Path, unit: str = UNIT) -> Path:
    """Run a sweep of a unit of one's own, and return its best.yaml in another folder, where the unit is not."""
    (folder / "my_unit.py").write_bytes(unit.encode())
    registry.clear_cache()
    (folder / "mine.yaml").write_text(SMALL.replace("small", "mine").replace("[nau, linear]", "[./my_unit.py]"))
    assert call("run", "mine.yaml", "--no-mlflow").status == 0
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    answer = call("export", "mine", "-o", "elsewhere/best.yaml")
    assert (answer.status, answer.err) == (0, "")
    return elsewhere / "best.yaml"


# Spaces at a line's end, a tab, a carriage return and letters that are not ASCII: the code is the same to the last byte.
ODD = UNIT.replace("class Mine", "# é \t \r\nx = 'a'  \n\n\nclass Mine") + "\n\n  # the end"


@pytest.mark.parametrize("unit", [UNIT, ODD])
def test_a_best_configuration_has_the_code_of_its_own_unit_and_is_reproduced_without_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unit: str
) -> None:
    file = exported_own_unit(tmp_path, unit)
    text = file.read_text()
    assert "# It has the code of my_unit.py, which `sweeps reproduce --trust-code` executes." in text
    sources = read(text).values["exported"]["sources"]
    written = (tmp_path / "my_unit.py").read_bytes()
    assert sources["my_unit.py"]["text"].encode() == written
    assert sources["my_unit.py"]["sha256"] == hashlib.sha256(written).hexdigest()
    monkeypatch.chdir(file.parent)
    registry.clear_cache()
    refused = call("reproduce", "best.yaml")
    assert refused.status == 2
    assert "best.yaml has code of its own (my_unit.py, under `exported.sources`)" in refused.err
    assert "`sweeps reproduce best.yaml --trust-code` then executes it" in refused.err
    for how in ([], ["--fresh-seeds"]):
        passed = call("reproduce", "best.yaml", "--trust-code", *how)
        assert passed.status == 0, passed.out + passed.err
        assert "best.yaml has the code of my_unit.py: it is executed, from a folder of its own" in passed.out
        assert "PASS: " in passed.out
    assert Path.cwd() == file.parent
    assert [path.name for path in file.parent.iterdir()] == ["best.yaml"]
    Path("my_unit.py").write_bytes(written)  # the same code is executed where it is, as for any sweep file
    assert call("reproduce", "best.yaml").status == 0


def test_other_verbs_do_not_execute_the_code_of_an_exported_file_and_say_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = exported_own_unit(tmp_path, UNIT + "\nopen('executed', 'a').close()\n")
    (tmp_path / "executed").unlink()
    monkeypatch.chdir(file.parent)
    registry.clear_cache()
    for verb in ("check", "run", "show"):
        answer = call(verb, "best.yaml")
        assert answer.status == 2
        assert (
            "exported.sources: has the code of my_unit.py, which is not here: `sweeps reproduce --trust-code` trains with it"
            in answer.err
        )
    assert not list(tmp_path.rglob("executed"))


def test_code_that_was_edited_in_an_exported_file_is_refused_before_it_is_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = exported_own_unit(tmp_path)
    monkeypatch.chdir(file.parent)
    values = read(file.read_text()).values
    values["exported"]["sources"]["my_unit.py"]["text"] += "import os\nos.system('touch owned')\n"
    Path("edited.yaml").write_text(dump(values))
    refused = call("reproduce", "edited.yaml")
    assert refused.status == 2
    assert "edited.yaml: the code of my_unit.py is not what was exported" in refused.err
    for name in ("../my_unit.py", "/tmp/my_unit.py", "a/../../b.py", "c:\\x.py", "."):
        values["exported"]["sources"] = {name: {"text": "", "sha256": hashlib.sha256(b"").hexdigest()}}
        Path("edited.yaml").write_text(dump(values))
        refused = call("reproduce", "edited.yaml")
        assert refused.status == 2
        assert "`exported.sources` must be a mapping of paths below its folder" in refused.err
    assert sorted(path.name for path in file.parent.iterdir()) == ["best.yaml", "edited.yaml"]


def test_settings_that_were_edited_in_an_exported_file_are_refused_and_comments_are_not() -> None:
    assert call("run", "small.yaml", "--no-mlflow").status == 0
    assert call("export", "small", "--cell", "nau", "-o", "best.yaml").status == 0
    text = Path("best.yaml").read_text()
    Path("edited.yaml").write_text(text.replace("lr: 0.001", "lr: 0.002"))
    refused = call("reproduce", "edited.yaml")
    assert refused.status == 2
    assert "edited.yaml was edited after the export" in refused.err
    assert "`sweeps run edited.yaml --name NEW` trains it as it is now" in refused.err
    Path("edited.yaml").write_text(
        "# mine\n" + text.replace("lr: 0.001", "lr: 1e-3").replace("name: small-nau-best", "name: x")
    )
    assert call("reproduce", "edited.yaml").status == 0


def test_an_export_without_the_code_that_trained_says_so(tmp_path: Path) -> None:
    exported_own_unit(tmp_path)
    (tmp_path / "my_unit.py").write_text(UNIT.replace("return x\n", "return 2 * x\n"))
    registry.clear_cache()
    changed = call("export", "mine", "-o", "changed.yaml")
    assert changed.status == 0
    assert "note: the file does not have the code of ./my_unit.py, which it needs: my_unit.py: the code is not" in changed.err
    (tmp_path / "my_unit.py").unlink()
    registry.clear_cache()
    absent = call("export", "mine", "-o", "absent.yaml")
    assert absent.status == 0
    assert "which it needs: ./my_unit.py is not in " in absent.err
    for name in ("changed.yaml", "absent.yaml"):
        assert "sources" not in read(Path(name).read_text()).values["exported"]


def test_fresh_seeds_pass_or_fail_by_their_success_rate() -> None:
    assert call("run", "small.yaml", "--no-mlflow").status == 0
    assert call("export", "small", "--cell", "nau", "-o", "best.yaml").status == 0
    passed = call("reproduce", "best.yaml", "--fresh-seeds")
    assert passed.status == 0, passed.out + passed.err
    assert "PASS: the rates agree: exported 0/2" in passed.out and "fresh seeds 0/2" in passed.out
    values = read(Path("best.yaml").read_text()).values
    values["exported"]["lanes"] = [{"seed": seed, "solved": True} for seed in range(20)]
    del values["exported"]["results_digest"]  # as above
    Path("wrong.yaml").write_text(dump(values))
    failed = call("reproduce", "wrong.yaml", "--fresh-seeds")
    assert failed.status == 1
    assert "FAIL: the rates differ: exported 20/20" in failed.out


def test_own_units_are_trained_and_those_that_diverge_or_raise_are_reported() -> None:
    assert call("run", "own.yaml").status == 0
    text = call("report", "own", "--format", "json").out
    by_model: dict[str, list[dict[str, Any]]] = {}
    for entry in sorted(json.loads(text)["configurations"], key=lambda entry: entry["number"]):
        by_model.setdefault(entry["cell"]["model"], []).append(entry)
    first, *others = by_model["./my_unit.py"]
    assert first["state"] == "complete" and first["rank"] == 1
    assert [lane["steps"] for lane in first["lanes"]] == [40] * 3
    assert all(lane["error"]["extrapolation"] is not None for lane in first["lanes"])
    for entry in others:
        assert entry["state"] == "complete" and entry["diverged"] == 3 and entry["solved"] == 0
        for lane in entry["lanes"]:
            assert lane["outcome"] == "diverged" and "is not finite" in lane["reason"]
    assert [entry["state"] for entry in by_model["broken"]] == ["failed"] * 3
    lanes = [lane for entry in by_model["broken"] for lane in entry["lanes"]]
    assert {lane["reason"] for lane in lanes} == {"ArithmeticError: it has never worked (my_broken_unit.py:10)"}
    assert {status for _, status in states(Path("results").absolute(), "own")} == {"FINISHED", "FAILED"}


# ------------------------------------------------------------------------------------------- progress

SEARCH = "search: {sampler: {name: random, seed: 0}, configurations: 2, space: {train.lr: {log_uniform: [1e-4, 1e-1]}}}\n"
LOG = [
    "2026-11-21 15:16:00,020\tINFO job_manager.py:581 -- Runtime env is setting up.",
    "Running entrypoint for job small-1: exec python -m cluster.job",
    "3 workers",
    f"{MARK}0:00:05  configurations 0/9  lanes 0/36, 0 solved",
    f"{MARK}0:00:20  configurations 0/9  lanes 4/36, 0 solved",
    f"{MARK}  model=nau: best #0",
    f"{MARK}0:00:25  configurations 1/9  lanes 8/36, 0 solved",
    f"{MARK}0:00:30  configurations 1/9  lanes 8/36, 0 solved",
    f"{MARK}0:00:36  configurations 2/9  lanes 12/36, 0 solved",
    f"{MARK}0:00:38  configurations 9/9  lanes 36/36, 0 solved",
    f"{MARK}  model=nau: best #1",
    f"{MARK}  model=nac: best #0",
    "# small",
]


def test_a_plain_log_has_a_line_where_lanes_have_ended_and_the_last_one() -> None:
    assert [line[:45] for line in plain(iter(LOG))] == [
        "3 workers",
        "0:00:20  configurations 0/9  lanes 4/36, 0 so",
        "0:00:36  configurations 2/9  lanes 12/36, 0 s",
        "0:00:38  configurations 9/9  lanes 36/36, 0 s",
        "  model=nau: best #1",
        "  model=nac: best #0",
        "# small",
    ]


def test_the_last_block_is_the_whole_screen() -> None:
    assert [line[:20] for line in last_block(LOG)] == [
        "0:00:38  configurati", "  model=nau: best #1", "  model=nac: best #0",
    ]  # fmt: skip
    assert last_block([]) == []


def test_a_plain_log_has_a_table_every_few_minutes() -> None:
    log = [
        line
        for second in range(0, 1000, 20)
        for line in (f"{MARK}0:{second // 60:02}:{second % 60:02}  lanes {second}/1000", f"{MARK}  best at {second}")
    ]
    assert [line for line in plain(iter(log)) if "best" in line] == [f"  best at {n}" for n in (180, 360, 540, 720, 900)]


def test_a_plain_log_says_once_each_that_workers_start_compile_and_train_and_then_every_minute_that_they_do() -> None:
    doing = ["2 workers starting", "compiling or loading nau, 1 worker starting", "compiling or loading nau"]
    log = [f"{MARK}0:00:00  starting Ray", "2 workers"]
    log += [f"{MARK}0:00:{5 * n:02}  lanes 0/36  0 seed-steps/s  {doing[min(n // 3, 2)]}" for n in range(1, 10)]
    log += [f"{MARK}0:{s // 60:02}:{s % 60:02}  lanes 0/36  1.2k seed-steps/s  left at most 0:10:00" for s in range(50, 200, 5)]
    shown = [line.split("  ") for line in plain(iter([*log, "# small"]))]
    assert [(line[0], line[-1]) for line in shown] == [
        ("0:00:00", "starting Ray"), ("2 workers", "2 workers"), ("0:00:05", doing[0]), ("0:00:15", doing[1]),
        *[(at, "left at most 0:10:00") for at in ("0:00:50", "0:01:50", "0:02:50")], ("# small", "# small"),
    ]  # fmt: skip


def test_the_clock_of_a_continued_driver_starts_at_0() -> None:
    log = [f"{MARK}0:10:00  lanes 4/36", f"{MARK}0:00:20  lanes 8/36", f"{MARK}0:00:40  lanes 12/36"]
    assert len(list(plain(iter(log)))) == 3


def shown(folder: Path) -> list[str]:
    """Return the lines that are printed during a sweep of 8 lanes: one event before it, and the end."""
    sweep, output = parse(SMALL + SEARCH, "s"), io.StringIO()
    with Store(folder) as store, store.hold("small"):
        store.begin_sweep("small", sweep.text, sweep.document)
        driver = Driver(sweep, "small", store, None, 1)
        driver.begin()
        with Progress(driver, Console(file=output, width=200)) as progress:
            progress()
            train_in_process(driver)
    return output.getvalue().splitlines()


def test_a_sweep_prints_a_line_now_and_then_and_the_best_configurations_at_its_end(tmp_path: Path) -> None:
    first, last, header, *rows = shown(tmp_path)
    assert first.startswith("0:00:00  configurations 0/4  lanes 0/8, 0 solved  0 seed-steps/s")
    assert "configurations 4/4  lanes 8/8, 0 solved [0%, 32%]  " in last
    assert "seed-steps/s  left about 0:00:00" in last
    assert header.split() == ["cell", "#", "rank", "solved", "par2", "seeds", "parameters"]
    assert [row.split()[0] for row in rows] == ["nau", "nau", "linear", "linear"]


def test_a_log_has_the_best_configurations_in_every_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEEPS_PROGRESS", "lines")
    lines = shown(tmp_path)
    assert all(line.startswith(MARK) for line in lines) and [is_first(line) for line in lines[:2]] == [True] * 2
    head, _, *rows = last_block(lines)
    assert "lanes 8/8" in head
    assert all(row.startswith("  ") and " 0% [0, 66] " in row and " 2/2 " in row for row in rows)
