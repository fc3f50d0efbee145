"""The progress display: plain lines, a log with marks, its last block, and the log as it is printed for reading."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from commands import train_in_process
from rich.console import Console

from sweeps.config.sweep_file import parse
from sweeps.runner.driver import Driver
from sweeps.runner.progress import Progress
from sweeps.runner.progress_log import MARK, is_first, last_block, plain
from sweeps.store import Store

SWEEP = """\
name: s
task: {name: static, operation: sub, input_size: 10}
train: {steps: 20, batch: 8, evaluate_every: 10}
compare: {model: [nau, linear]}
seeds: 2
search:
  sampler: {name: random, seed: 0}
  configurations: 2
  space: {train.lr: {log_uniform: [1e-4, 1e-1]}}
"""

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
        "# small",
    ]


def test_the_last_block_is_the_whole_screen() -> None:
    assert [line[:20] for line in last_block(LOG)] == [
        "0:00:38  configurati", "  model=nau: best #1", "  model=nac: best #0",
    ]  # fmt: skip
    assert last_block([]) == []


def test_the_clock_of_a_continued_driver_starts_at_0() -> None:
    log = [f"{MARK}0:10:00  lanes 4/36", f"{MARK}0:00:20  lanes 8/36", f"{MARK}0:00:40  lanes 12/36"]
    assert len(list(plain(iter(log)))) == 3


def shown(folder: Path) -> list[str]:
    """Return the lines that are printed during a sweep of 8 lanes: one event before it, and the end."""
    sweep, output = parse(SWEEP, "s"), io.StringIO()
    with Store(folder) as store, store.hold("s"):
        store.begin_sweep("s", sweep.text, sweep.document)
        driver = Driver(sweep, "s", store, None, 1)
        driver.begin()
        with Progress(driver, Console(file=output, width=200)) as progress:
            progress()
            train_in_process(driver)
    return output.getvalue().splitlines()


def test_a_sweep_prints_a_line_now_and_then_and_one_at_its_end(tmp_path: Path) -> None:
    first, last = shown(tmp_path)
    assert first.startswith("0:00:00  configurations 0/4  lanes 0/8, 0 solved  0 seed-steps/s")
    assert "configurations 4/4  lanes 8/8, 0 solved [0%, 32%]  " in last
    assert "seed-steps/s  left about 0:00:00" in last


def test_a_log_has_the_best_configuration_of_every_cell_in_every_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEEPS_PROGRESS", "lines")
    lines = shown(tmp_path)
    assert all(line.startswith(MARK) for line in lines) and [is_first(line) for line in lines[:2]] == [True] * 2
    head, nau, linear = last_block(lines)
    assert "lanes 8/8" in head
    for line, cell in ((nau, "model=nau"), (linear, "model=linear")):
        assert line.startswith(f"  {cell}: best #") and "0 of 2 solved, " in line
