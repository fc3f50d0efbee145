"""`sweeps predict`: rows of a file, sequences and symbols, and the errors on the task's own sets. Nothing is trained."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import call
from lanes import resolved
from made_sweep import made_sweep

from sweeps.config.settings import build
from sweeps.errors import UserError
from sweeps.models import TrainedModel, write_weights
from sweeps.predictions import Inputs, Predictions, summary
from sweeps.store import Store
from sweeps.training.state import initial_params

SUM = resolved("nau", {"name": "static", "simple": True}, steps=1)
"""y = (x0 + x1 + x2 + x3) + (x0 + x1), of 4 inputs."""
SEQUENCES = {"name": "recurrent", "input_size": 3, "subset_ratio": 0.7, "length": 2, "extrapolation_length": 3}
RECURRENT = resolved("gru", SEQUENCES, steps=1)
SYMBOLS = {"name": "algorithm", "operation": "reverse", "bins": [4, 6], "examples_per_length": 50, "test_rows": 20}
SYMBOLS |= {"test_length": 6, "extrapolation_rows": 10, "curve_lengths": [4]}
REVERSE = resolved({"name": "dngpu", "maps": 4}, SYMBOLS, steps=1)


def exact(seed: int = 0, **about: Any) -> TrainedModel:
    """The solution of SUM: the first layer sums both subsets, the second adds them."""
    given = {"seed": seed, "at": ["best", "end"], "step": 7, "error": {"interpolation": 0.0, "extrapolation": 0.0}}
    model = TrainedModel(SUM, {**given, **about})
    names = list(model.state_dict())
    first, second = torch.tensor([[1.0, 1, 1, 1], [1, 1, 0, 0]]), torch.ones(1, 2)
    model.load_state_dict(dict(zip(names, (first, second), strict=True)))
    return model


def drawn(settings: dict[str, Any], seed: int = 0) -> TrainedModel:
    """A model with its initial weights."""
    model = TrainedModel(settings, {"seed": seed, "at": ["best"], "step": 0})
    params = initial_params(build(settings), seed, torch.device("cpu"))
    model.load_state_dict({f"network.{name}": p for name, p in params.items()}, strict=False)
    return model


def test_rows_of_a_csv_file_give_a_prediction_and_the_exact_result_each() -> None:
    model = exact()
    x = Inputs(model.task).parse("a,b,c,d\n1,2,3,4\n0.5,0,0,1\n", "rows.csv")
    found = Predictions([model], x)
    assert found.columns == {"prediction": [13.0, 2.0], "truth": [13.0, 2.0]}
    assert found.csv() == "prediction,truth\n13.0,13.0\n2.0,2.0\n"


def test_several_seeds_have_a_column_each_and_a_truth_each_where_it_depends_on_the_seed() -> None:
    two = Predictions([exact(0), exact(5)], np.ones((1, 4)))
    assert two.columns == {"seed_0": [6.0], "seed_5": [6.0], "truth": [6.0]}
    settings = resolved("nau", {"name": "static", "input_size": 10}, steps=1)
    models = [drawn(settings, seed) for seed in (0, 1)]
    x = np.arange(1.0, 11.0)[None]
    columns = Predictions(models, x).columns
    assert list(columns) == ["seed_0", "seed_1", "truth_seed_0", "truth_seed_1"]
    assert columns["truth_seed_1"] == models[1].task.truth(x, 1)[0].tolist()
    assert columns["seed_1"] == pytest.approx(models[1](torch.tensor(x, dtype=torch.float32))[0].tolist())


def test_a_sequence_is_a_row_with_its_time_steps_one_after_another() -> None:
    model = drawn(RECURRENT)
    x = Inputs(model.task).parse("1 , 2,3,4,5,6,7,8,9\n" * 2, "sequences.csv")
    assert x.shape == (3, 2, 3) and x[1, 0].tolist() == [4, 5, 6]
    assert Predictions([model], x).columns["truth"] == model.task.truth(x, 0)[:, 0].tolist()


def test_symbols_are_whole_numbers_and_rows_may_differ_in_length() -> None:
    model = drawn(REVERSE)
    x = Inputs(model.task).parse("1 2 3 4\n2 1 1 3 3 5\n", "standard input")
    found = Predictions([model], x)
    assert found.columns["truth"] == ["4 3 2 1", "5 3 3 1 1 2"]
    assert [len(text.split()) for text in found.columns["prediction"]] == [4, 6]
    with pytest.raises(UserError, match="sequences of symbols differ in length"):
        found.array()
    with pytest.raises(UserError, match="has the symbol 9: a row is one sequence of symbols, whole numbers from 0 to 5"):
        Inputs(model.task).parse("1 9\n", "symbols.csv")


def test_numbers_and_words_may_be_written_as_people_write_them() -> None:
    model = drawn(
        resolved({"name": "dngpu", "maps": 4}, {**SYMBOLS, "operation": "multiply", "base": 2, "bins": [5, 7]}, steps=1)
    )
    inputs = Inputs(model.task)
    x = inputs.parse("110*101\n1 2 2 12 2 1 2\n", "products")
    assert x[0].tolist() == x[1].tolist() == [[1, 2, 2, 12, 2, 1, 2]]  # 6 * 5, lowest digit first
    assert inputs.as_text and Predictions([model], x, as_text=True).columns["truth"] == ["11110", "11110"]
    written = {(2, 2, 0, 0): "11", (1, 1, 0): "0", (2, 0, 2): "1?1"}
    assert {symbols: model.task.write(symbols) for symbols in written} == written
    with pytest.raises(
        UserError, match=r"line 1 of products: '2\*1' is no example of multiply: write its symbols .*, or 111\*11"
    ):
        Inputs(model.task).parse("2*1\n", "products")
    with pytest.raises(UserError, match="'a b' is no example of reverse: write its symbols as whole numbers"):
        Inputs(drawn(REVERSE).task).parse("a b\n", "symbols")


def test_a_number_in_words_is_a_sequence_of_tokens() -> None:
    from tasks.base import NoSettings
    from tasks.number_words import NumberWords

    task = NumberWords(NoSettings())
    x = Inputs(task).parse("twenty-one\none hundred and twenty three\n", "words")
    assert x.shape == (6, 2) and x[:, 0].tolist() == [22, 3, 0, 0, 0, 0]
    assert task.truth(x, 0).tolist() == [[21.0], [123.0]]
    with pytest.raises(UserError, match="'twenty onee' is not a number from 0 to 999 in words"):
        Inputs(task).parse("twenty onee\n", "words")


def test_inputs_without_an_exact_result_have_predictions_and_a_note() -> None:
    model = drawn(resolved({"name": "linear", "network": "tokens"}, "number_words", steps=1))
    x = Inputs(model.task).parse("22 22 22 22 22 0\n", "words")
    found = Predictions([model], x)
    assert list(found.columns) == ["prediction"] and found.note is not None
    assert found.note.startswith("the task has no exact result for these inputs (KeyError")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2,3\n", "line 1 of rows.csv has 3 columns: a row of this task has 4 numbers"),
        ("1,2,3,4\n\n1,2,3,4,5\n", "line 3 of rows.csv has 5 columns: a row of this task has 4 numbers"),
        ("1,2,3,4\n1,2,x,4\n", "line 2 of rows.csv: 'x' is no number"),
        ("1,2,,4\n", "line 1 of rows.csv: '' is no number"),
        ("a,b,c,d\n", "rows.csv has no rows after the header 'a,b,c,d'; columns are separated by commas: a row of this"),
        ("1;2;3;4\n", "after the header '1;2;3;4'; columns are separated by commas"),
        ("", "rows.csv has no rows"),
    ],
)
def test_rows_that_are_no_inputs_of_the_task_are_refused_by_line(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Inputs(exact().task).parse(text, "rows.csv")


def test_sequences_of_one_file_have_one_length() -> None:
    with pytest.raises(UserError, match="line 2 of s.csv has 3 columns, and the first row has 6: sequences of one file"):
        Inputs(drawn(RECURRENT).task).parse("1,2,3,4,5,6\n1,2,3\n", "s.csv")


def test_arrays_are_read_without_pickle_and_checked(tmp_path: Path) -> None:
    inputs, file = Inputs(exact().task), str(tmp_path / "x.npy")
    np.save(file, np.ones((2, 4), np.float32))
    assert inputs.read(file).tolist() == [[1.0] * 4] * 2
    np.save(file, np.ones((2, 5)))
    with pytest.raises(UserError, match=r"is float64 \[2, 5\]; the model takes numbers \[rows, 4\]"):
        inputs.read(file)
    np.save(file, np.array([{"a": 1}], object))
    with pytest.raises(UserError, match="cannot be read: Object arrays cannot be loaded"):
        inputs.read(file)
    with pytest.raises(UserError, match="cannot be read: No such file"):
        inputs.read(str(tmp_path / "none.csv"))


def test_the_summary_has_the_errors_of_the_record_beside_those_of_today() -> None:
    text = summary([exact()])
    assert "| 0    | best | 7" in text and "within float32's rounding" in text
    other = summary([exact(error={"interpolation": 0.5, "extrapolation": 0.0})])
    assert "beyond float32's rounding" in other and "seed 0, interpolation: 0.5 recorded" in other


def test_the_command_reads_a_file_of_weights_and_writes_tables(tmp_path: Path, monkeypatch) -> None:
    file, rows = tmp_path / "w.safetensors", tmp_path / "rows.csv"
    write_weights(file, [exact(3)], seed_given=True, at_given=True)
    rows.write_text("1,2,3,4\n")
    answer = call("predict", str(file), "--input", str(rows))
    assert (answer.status, answer.out) == (0, "prediction,truth\n13.0,13.0\n"), answer.err
    monkeypatch.setattr("sys.stdin", io.StringIO("\ufeff1,2,3,4\n"))  # with a byte order mark, as a file may have
    assert call("predict", str(file), "--input", "-", "--seed", "3").out == answer.out
    for name in ("out.csv", "out.npy"):
        assert call("predict", str(file), "--input", str(rows), "-o", str(tmp_path / name)).status == 0
    assert next(csv.DictReader((tmp_path / "out.csv").open())) == {"prediction": "13.0", "truth": "13.0"}
    assert np.load(tmp_path / "out.npy").tolist() == [[13.0]]
    assert "| 3    | best | 7" in call("predict", str(file)).out
    for options, message in (
        (["--seed", "4"], "has no finished seed 4. It has: 3"),
        (["--input", str(rows), "-o", str(tmp_path / "out.txt")], "predictions are written as .csv or .npy"),
        (["-o", str(tmp_path / "out.csv")], "--input FILE names the rows"),
        (["--configuration", "1"], "holds one configuration"),
        (["--at", "last"], "at is 'last'; it must be best or end"),
    ):
        answer = call("predict", str(file), *options)
        assert answer.status == 2 and message in answer.err


def test_a_sweep_without_weights_is_named(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        made_sweep(store)
    answer = call("predict", "small", "--store", str(tmp_path))
    assert answer.status == 2 and "configuration 1 of sweep 'small' has no seed with weights" in answer.err
