"""The progress display in a log: the last block, and the log as it is printed for reading."""

from __future__ import annotations

from sweeps.runner.progress_log import MARK, last_block, plain

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
