"""best.yaml is a sweep file that trains the same lanes, and the comparison of its results with new ones."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from lanes import PLAIN
from made_sweep import DOCUMENT, configuration, made_sweep
from made_sweep import lane as made_lane

from sweeps.config.settings import lane_key, resolve
from sweeps.config.sweep_file import parse
from sweeps.errors import StoreError
from sweeps.results import report
from sweeps.results.export import ExportError, best, compare_seeds, exported_of
from sweeps.store import Store
from sweeps.training.lane import LaneResult


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def exported(store: Store, cell: str | None = None) -> dict[str, Any]:
    expected = parse(best(store, "small", cell), "best.yaml").expected
    assert expected is not None
    return expected


def changed(record: LaneResult, **fields: Any) -> LaneResult:
    return dataclasses.replace(record, **fields)


def test_the_file_is_a_sweep_of_exactly_the_lanes_that_were_trained(store: Store) -> None:
    lanes = made_sweep(store)
    sweep = parse(best(store, "small"), "best.yaml")
    assert (sweep.seeds, sweep.search, len(sweep.cells), sweep.warnings) == ((0, 1, 2), None, 1, ())
    settings, faults, _ = resolve(sweep.cells[0].settings)
    assert settings is not None and not faults
    assert [lane_key(settings, seed, PLAIN) for seed in sweep.seeds] == [record.key for record in lanes]


def test_the_best_of_all_cells_is_exported_unless_one_is_named(store: Store) -> None:
    made_sweep(store)
    assert exported(store)["cell"] == {"model": "nau"}
    assert exported(store, "model=linear") == exported(store, "linear")
    assert exported(store, "linear")["number"] == 1


def test_the_header_has_the_question_and_the_command(store: Store) -> None:
    made_sweep(store)
    text = best(store, "small")
    assert text.startswith("# Question: Which unit learns subtraction?\n")
    assert "sweeps reproduce best.yaml" in text
    assert parse(text, "best.yaml").name == "small-nau-best"


def test_the_export_holds_metrics_and_provenance_but_no_host(store: Store) -> None:
    made_sweep(store)
    expected = exported(store)
    assert expected["summary"]["par2"] == expected["summary"]["objective"] == 5000.0
    assert (expected["summary"]["converged_at"]["mean"], expected["summary"]["converged_at"]["median"]) == (5000, 4000)
    assert expected["summary"]["error"]["extrapolation"]["median"] == 1e-9
    assert expected["provenance"] == {"device": "cpu", "model_source": "ab12", "torch": "2.13.0"}
    assert "secret-node" not in best(store, "small")
    assert [lane["converged_at"] for lane in expected["lanes"]] == [3000, 4000, 8000]


def test_the_same_lanes_have_no_differences_in_any_order(store: Store) -> None:
    lanes = made_sweep(store)
    assert compare_seeds(exported(store), lanes) == compare_seeds(exported(store), lanes[::-1]) == []


def test_figures_survive_the_file_to_the_last_bit(store: Store) -> None:
    lanes = made_sweep(store)
    odd = [changed(lane, key=f"odd{lane.seed}", sparsity_error=0.1 + 0.2 + lane.seed * 1e-17) for lane in lanes]
    expected = exported(store)
    for lane, record in zip(expected["lanes"], odd, strict=True):
        lane["sparsity_error"] = record.sparsity_error
    again = parse(best(store, "small").replace("sparsity_error: 0.4\n", f"sparsity_error: {0.1 + 0.2!r}\n"), "f").expected
    assert again is not None
    assert compare_seeds(again, odd) == []


def test_differences_are_listed_by_seed_and_metric(store: Store) -> None:
    lanes = made_sweep(store)
    error = {"interpolation": 1e-9, "extrapolation": 1.0000000000000003e-9}
    again = [changed(lanes[0], converged_at=4000), changed(lanes[1], error=error), changed(lanes[2], seed=7)]
    assert compare_seeds(exported(store), again) == [
        "seed 0: converged_at was 3000, is 4000",
        "seed 1: error_lowest was 1e-09, is 1.0000000000000003e-09",
        "seed 1: error_at_end was 1e-09, is 1.0000000000000003e-09",
        "seed 1: threshold_ratio was 0.07142857142857144, is 0.07142857142857145",
        "seed 1: error.extrapolation was 1e-09, is 1.0000000000000003e-09",
        "seed 2: was exported, and was not trained again",
        "seed 7: was trained, and is not in the export",
    ]


def test_another_machine_is_named_as_a_reason_only_where_figures_differ(store: Store) -> None:
    lanes = made_sweep(store)
    elsewhere = [changed(lane, provenance=lane.provenance | {"torch": "2.14.0"}) for lane in lanes]
    assert compare_seeds(exported(store), elsewhere) == []
    differences = compare_seeds(exported(store), [changed(lane, steps=1) for lane in elsewhere])
    assert len(differences) == 4
    assert differences[-1].endswith("torch 2.13.0 then, 2.14.0 now")


def test_an_unknown_cell_is_reported_with_the_nearest(store: Store) -> None:
    made_sweep(store)
    with pytest.raises(ExportError, match=r"no cell 'model=nua'.* Did you mean 'model=nau'"):
        best(store, "small", "model=nua")
    with pytest.raises(ExportError, match="Did you mean 'model=linear'"):
        best(store, "small", "linaer")


def test_nothing_complete_is_nothing_to_export(store: Store) -> None:
    store.begin_sweep("empty", "", {"name": "empty"})
    with pytest.raises(ExportError, match="no complete configuration yet"):
        best(store, "empty")
    with pytest.raises(StoreError, match="no sweep named"):
        best(store, "nothing")


def test_the_best_across_cells_follows_a_maximised_objective(store: Store) -> None:
    made_sweep(store, document=DOCUMENT | {"search": DOCUMENT["search"] | {"objective": {"par2": "maximize"}}})
    assert exported(store)["cell"] == {"model": "linear"}


def test_the_first_on_the_front_is_exported_and_the_file_says_that_there_are_others(store: Store) -> None:
    made_sweep(
        store, document=DOCUMENT | {"search": DOCUMENT["search"] | {"objective": ["error.extrapolation.median", "seed_steps"]}}
    )
    expected = exported(store, "linear")
    assert (expected["number"], expected["objective"]) == (
        1, {"error.extrapolation.median": "minimize", "seed_steps": "minimize"},
    )  # fmt: skip
    text = best(store, "small", "linear")
    assert (
        "# It is the first on the Pareto front of error.extrapolation.median and seed_steps; others of its cell on it: #0."
        in text
    )
    assert "Pareto" not in best(store, "small", "nau")


def test_what_breaks_a_constraint_is_exported_only_where_nothing_meets_them_and_the_file_says_so(store: Store) -> None:
    limits = {"success_rate": {"at_most": 0.9}}
    made_sweep(store, document=DOCUMENT | {"search": DOCUMENT["search"] | {"constraints": limits}})
    assert exported(store, "nau")["number"] == 0 and "breaks" not in best(store, "small", "nau")
    other = Store(Path(store.location).parent / "other")
    made_sweep(other, document=DOCUMENT | {"search": DOCUMENT["search"] | {"constraints": {"success_rate": {"at_most": 0.1}}}})
    assert "# No configuration meets all constraints; this one breaks success_rate at most 0.1." in best(other, "small", "nau")
    limited = report(other, "small")
    nau = limited.cells()[0][0]
    assert exported_of(limited, nau) == "first configuration, none meeting all constraints,"
    assert exported(other)["cell"] == {"model": "linear"}  # of all cells the best of those that meet them


def test_a_task_without_a_threshold_has_no_success_rate_in_the_header(store: Store) -> None:
    entry = configuration("nau", 0)
    store.begin_sweep("open", "", DOCUMENT)
    store.add_configuration("open", entry)
    store.add_records([dataclasses.replace(made_lane(entry, seed, None, 0.25), threshold=None) for seed in range(3)])
    found, text = report(store, "open"), best(store, "open")
    assert exported_of(found) == "lowest error, the task having no threshold,"
    assert text.splitlines()[1:3] == [
        "# Lowest error, the task having no threshold, of sweep open: cell model=nau, configuration 0.",
        "# Lowest error 0.25 (median of 3 seeds); the task has no threshold.",
    ]
    assert "olved" not in text.partition("sweeps reproduce")[0]
