"""How much each parameter of a search matters: by itself, and in the report of a sweep."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_sweep import DOCUMENT, configuration, lane

from sweeps.config.space import Dimension
from sweeps.results import as_markdown, report
from sweeps.search.importance import Importance, importance
from sweeps.store import Store
from sweeps.store.records import Stopped

LR = Dimension("log_uniform", 1e-4, 1e-1)
NOISE = Dimension("log_uniform", 1e-5, 1e-1, off=0, has_off=True)
WIDTH = Dimension("integer", 1, 8)
UNIT = Dimension("choice", choices=("nau", "nac"))
SPACE = {"train.lr": LR, "train.gradient_noise": NOISE, "model.hidden": WIDTH, "model.name": UNIT}


def drawn(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Random points of SPACE, the noise off in every second one."""
    draws = np.random.default_rng(seed)
    return [
        {
            "train.lr": float(10 ** draws.uniform(-4, -1)),
            "train.gradient_noise": 0 if number % 2 else float(10 ** draws.uniform(-5, -1)),
            "model.hidden": int(draws.integers(1, 9)),
            "model.name": str(draws.choice(["nau", "nac"])),
        }
        for number in range(count)
    ]


def ranks(values: list[float]) -> list[int]:
    """Position of each value among the different ones, 0 the lowest."""
    return [sorted(set(values)).index(value) for value in values]


def test_the_parameter_that_decides_has_the_largest_share() -> None:
    points = drawn(100)
    found = importance(SPACE, points, ranks([abs(np.log10(point["train.lr"]) + 2) for point in points]))
    assert found is not None and next(iter(found.shares)) == "train.lr"
    assert found.shares["train.lr"] > 0.7 and sum(found.shares.values()) == pytest.approx(1.0)
    assert set(found.shares) == {*SPACE, "train.gradient_noise is on"}


def test_whether_a_dimension_is_on_is_a_parameter_of_its_own() -> None:
    points = drawn(100)
    bad_if_on = ranks([float(point["train.gradient_noise"] != 0) for point in points])
    found = importance(SPACE, points, bad_if_on)
    assert found is not None and next(iter(found.shares)) == "train.gradient_noise is on"
    assert found.best == 50  # all that are off, since they are equal
    # None of the best has the noise on, so its value cannot matter for them.
    assert found.shares["train.gradient_noise"] == 0.0


def test_a_parameter_that_some_configurations_lack_is_compared_among_the_others() -> None:
    points = [
        {name: value for name, value in point.items() if name != "model.hidden" or k % 4} for k, point in enumerate(drawn(80))
    ]
    wide_is_good = ranks([-float(point.get("model.hidden", 0)) for point in points])
    found = importance(SPACE, points, wide_is_good)
    assert found is not None and found.configurations == 80 and next(iter(found.shares)) == "model.hidden"


def test_only_parameters_that_vary_are_listed_and_there_must_be_two() -> None:
    points = [{**point, "model.hidden": 2, "train.gradient_noise": 0} for point in drawn(12)]
    found = importance(SPACE, points, list(range(12)))
    assert found is not None and set(found.shares) == {"train.lr", "model.name"}
    one = [{**point, "model.name": "nau"} for point in points]
    assert importance(SPACE, one, list(range(12))) is None


def test_equal_configurations_have_no_importance() -> None:
    assert importance(SPACE, drawn(12), [0] * 12) is None
    assert importance(SPACE, [], []) is None


def test_a_configuration_outside_of_the_space_is_left_out() -> None:
    found = importance(SPACE, [{**drawn(1)[0], "train.lr": 1.0}, *drawn(12)], list(range(13)))
    assert found is not None and found.configurations == 12


@pytest.mark.parametrize(("count", "best"), [(4, 2), (6, 3), (20, 10), (40, 10), (100, 25)])
def test_a_quarter_counts_as_the_best_but_ten_at_least_and_half_at_most(count: int, best: int) -> None:
    found = importance(SPACE, drawn(count), list(range(count)))
    assert found is not None and (found.best, found.configurations) == (best, count)


def test_the_order_of_the_configurations_changes_nothing_but_rounding() -> None:
    points, order = drawn(40), list(range(40))
    one, other = importance(SPACE, points, order), importance(SPACE, points[::-1], order[::-1])
    assert one is not None and other is not None and one.shares == pytest.approx(other.shares)
    assert importance(SPACE, points, order) == one


def test_few_configurations_need_a_caution() -> None:
    two = {"a": 0.5, "b": 0.5}
    assert Importance(two, best=10, configurations=20).caution is None
    assert "19 configurations are few for 2 parameters" in str(Importance(two, best=9, configurations=19).caution)
    assert Importance({**two, "c": 0.0}, best=10, configurations=29).caution is not None


def test_importance_does_without_scikit_learn_and_leaves_it_importable() -> None:
    program = (
        "import sys\n"
        "from sweeps.config.space import Dimension\n"
        "from sweeps.search.importance import importance\n"
        "space = {name: Dimension('uniform', 0.0, 9.0) for name in 'ab'}\n"
        "assert importance(space, [{'a': k, 'b': 9 - k} for k in range(9)], list(range(9)))\n"
        "assert 'sklearn' not in sys.modules\n"
        "import sklearn\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def stored(store: Store, rates: dict[int, float], stopped: tuple[int, ...] = ()) -> None:
    """A sweep of one cell: number of a configuration -> its learning rate, smaller ones being solved sooner."""
    store.begin_sweep("small", "name: small\n", DOCUMENT)
    for number, lr in rates.items():
        values = {"train.lr": lr, "train.gradient_noise": 1e-3 / (1 + number), "model.dropout": 0}
        entry = configuration("nau", number, values)
        if number in stopped:
            entry = dataclasses.replace(entry, state="pruned", stopped=Stopped(2, 15_000, "worse"))
        store.add_configuration("small", entry)
        if number in stopped:
            store.finish_configuration("small", entry.cell, number, "pruned", None, entry.stopped)
        store.add_records([lane(entry, seed, int(1e6 * lr), 1e-9) for seed in range(2 if number in stopped else 3)])


def test_the_report_has_it_from_four_complete_configurations_on(tmp_path: Path) -> None:
    rates = {1: 1e-3, 2: 2e-3, 3: 3e-3, 4: 4e-3, 5: 5e-3}
    with Store(tmp_path / "three") as store:
        stored(store, {number: rates[number] for number in (1, 2, 3)})
        assert "importance" not in report(store, "small").as_dict()
    with Store(tmp_path / "five") as store:
        stored(store, rates)
        found = report(store, "small")
    [entry] = found.as_dict()["importance"]
    assert entry["cell"] == {"model": "nau"} and (entry["best"], entry["configurations"]) == (2, 5)
    assert set(entry["shares"]) == {"train.lr", "train.gradient_noise"} and entry["caution"].startswith("Caution: 5 config")
    shown = " ".join(as_markdown(found).split())
    assert "Importance of parameters (what sets the best 2 of 5 configurations apart; PED-ANOVA): " in shown
    assert "lr" in shown.split("PED-ANOVA): ")[1] and "Caution: 5 configurations are few for 2 parameters" in shown


def test_configurations_that_were_stopped_early_count_as_worse(tmp_path: Path) -> None:
    rates = {number: number * 1e-3 for number in range(1, 9)}
    with Store(tmp_path) as store:
        stored(store, rates, stopped=(1, 2))  # they have the smallest rates, so the best par2
        found = report(store, "small")
    one = found.importance_of(found.cells()[0])
    assert one is not None and (one.best, one.configurations) == (4, 8)
    again = importance(
        {path: found.search.space[path] for path in ("model.dropout", "train.gradient_noise", "train.lr")},
        [{"train.lr": rates[n], "train.gradient_noise": 1e-3 / (1 + n), "model.dropout": 0} for n in (3, 4, 5, 6, 7, 8, 1, 2)],
        [0, 1, 2, 3, 4, 5, 6, 6],
    )
    assert one == again
