"""Records are fetched through a job's log: complete, or with an error."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from made_sweep import BUDGET, configuration, lane, made_sweep

from cluster.records import assemble, pieces, receive
from sweeps.errors import ClusterError, StoreError
from sweeps.results import as_json, report
from sweeps.store import Store, copy_sweep
from sweeps.store.database import FILE_NAME
from sweeps.training.lane import Checkpoint

DATA = random.Random(0).randbytes(50_000)


def test_pieces_add_up_in_any_order_among_other_lines_and_twice() -> None:
    lines = [*pieces(DATA), "Running entrypoint", "sweeps-record nonsense"]
    random.Random(1).shuffle(lines)
    assert len(lines) > 5
    assert assemble(lines * 2) == DATA
    assert assemble(pieces(b"")) == b""


def test_a_missing_or_damaged_piece_is_noticed() -> None:
    first, *rest = pieces(DATA)
    for lines in (rest, [first[:-8] + "AAAAAAA=", *rest], [first[:-3], *rest]):
        with pytest.raises(ClusterError, match="1 pieces of the records did not arrive: fetch again"):
            assemble(lines)
    with pytest.raises(ClusterError, match="all pieces"):
        assemble(["Traceback"])
    mixed = [first, *list(pieces(DATA[::-1]))[1:]]
    with pytest.raises(ClusterError, match="do not add up"):
        assemble(mixed)


def sent(folder: Path) -> list[str]:
    return list(pieces((folder / FILE_NAME).read_bytes()))


def test_a_fetched_sweep_has_the_same_report(tmp_path: Path) -> None:
    with Store(tmp_path / "there") as there:
        made_sweep(there)
        wanted = as_json(report(there, "small"))
    with Store(tmp_path / "here") as here:
        assert receive(sent(tmp_path / "there"), "small", here) == 12
        assert receive(sent(tmp_path / "there"), "small", here) == 0
        assert as_json(report(here, "small")) == wanted


def test_fetching_while_it_runs_adds_what_is_new_and_keeps_checkpoints(tmp_path: Path) -> None:
    entry = configuration("nau", 0)
    with Store(tmp_path / "there") as there, Store(tmp_path / "here") as here:
        there.begin_sweep("small", "name: small\n", {"name": "small"})
        there.add_configuration("small", entry)
        there.add_records([lane(entry, 0, 5000, 1e-9)])
        there.save_checkpoints({entry.keys[1]: Checkpoint(700, b"blob")})
        assert copy_sweep(there, here, "small") == 1
        assert here.checkpoints([entry.keys[1]], BUDGET)[entry.keys[1]].steps == 700
        there.add_records([lane(entry, 1, None, 0.5)])
        there.set_state("small", "done")
        assert copy_sweep(there, here, "small") == 1
        found = here.sweep("small")
        assert found is not None
        assert found.state == "done"


def test_another_sweep_of_that_name_is_not_mixed_with_it(tmp_path: Path) -> None:
    with Store(tmp_path / "there") as there, Store(tmp_path / "here") as here:
        for store, model in ((there, "nau"), (here, "linear")):
            store.begin_sweep("small", "name: small\n", {"name": "small"})
            entry = configuration(model, 0)
            store.add_configuration("small", type(entry)(**{**vars(entry), "cell": "all", "labels": {}}))
        with pytest.raises(StoreError, match=r"has another sweep named 'small'.* Give another --store"):
            copy_sweep(there, here, "small")
        with pytest.raises(StoreError, match="has no sweep named 'smal'"):
            copy_sweep(there, here, "smal")
