"""Finding models, networks and tasks by name, also a user's own, and what is said of broken ones."""

from __future__ import annotations

import hashlib
import inspect
from pathlib import Path

import pytest

from sweeps.config.registry import BrokenDefinition, UnknownName, find, names, nearest, source_hash
from sweeps.config.settings import build, lane_key, resolve

MINE = '''"""y = scale x W. Shapes: x [B, I] -> y [B, O]."""



from dataclasses import dataclass

import torch
from torch import nn

from arith_models.penalties import Steps


class Mine(nn.Module):
    version = 1

    @dataclass(frozen=True, kw_only=True)
    class Config:
        scale: float = 2.0
        start: Steps = 5.0

    def __init__(self, config, num_inputs, num_outputs):
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.empty(num_outputs, num_inputs))

    def initialise(self, stream):
        self.weight.copy_(stream.uniform(self.weight.shape))

    def effective_weight(self):
        return self.weight

    def forward(self, x, ctx):
        return self.config.scale * (x @ self.weight.T), {}

    def constrain(self):
        pass
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    find.cache_clear()
    return tmp_path


@pytest.mark.parametrize(
    ("kind", "some"),
    [("model", ["linear", "nac", "nac_mul", "nalu", "nau", "nmu"]), ("network", ["two_layer"]), ("task", ["static"])],
)  # fmt: skip
def test_a_files_existence_is_its_registration(kind, some) -> None:
    assert set(some) <= set(names(kind)) and names(kind) == sorted(names(kind))
    for name in names(kind):
        assert Path(inspect.getfile(find(kind, name))).stem == name


def test_an_unknown_name_offers_the_nearest_and_says_how_to_add_one() -> None:
    with pytest.raises(UnknownName) as caught:
        find("model", "nalu2")
    message = str(caught.value)
    assert message.startswith("no model named 'nalu2'. Did you mean 'nalu'? ")
    assert message.endswith("Add one as arith_models/units/nalu2.py, or name your own file as ./my_model.py")


@pytest.mark.parametrize(
    ("word", "known", "expected"),
    [("nua", ["nau", "nmu"], "nau"), ("NMU", ["nau", "nmu"], "nmu"), ("operaton", ["operation"], "operation"),
     ("quux", ["nau", "nmu"], None), ("nau", [], None)],
)  # fmt: skip
def test_the_nearest_name_is_the_likeliest_slip(word, known, expected) -> None:
    assert nearest(word, known) == expected


def test_a_users_own_file_is_a_model_with_settings_like_any_other(folder) -> None:
    (folder / "my_unit.py").write_text(MINE)
    model = {"name": "./my_unit.py", "scale": 3, "start": "50%"}
    found, faults, _ = resolve({"model": model, "task": "static", "train": {"steps": 100}})
    assert found is not None, faults
    assert found["model"]["units"] == [{"name": "./my_unit.py", "scale": 3.0, "start": 50.0}] * 2
    built = build(found)
    assert [cls.__name__ for cls, _ in built.units] == ["Mine", "Mine"]
    assert [tuple(p.shape) for p in built.model().parameters()] == [(2, 100), (1, 2)]
    assert len(lane_key(found, 0)) == 64


def test_two_files_of_one_name_in_two_folders_are_two_models(folder) -> None:
    for name, version in (("a", 1), ("b", 2)):
        (folder / name).mkdir()
        (folder / name / "my_unit.py").write_text(MINE.replace("version = 1", f"version = {version}"))
    first, second = find("model", "./a/my_unit.py"), find("model", "./b/my_unit.py")
    assert (first.version, second.version) == (1, 2)
    assert first.__module__ != second.__module__


def test_a_users_own_network_may_be_a_file_too(folder) -> None:
    (folder / "my_network.py").write_text(Path(inspect.getfile(find("network", "two_layer"))).read_text())
    model = {"name": "nmu", "network": "./my_network.py"}
    found, faults, _ = resolve({"model": model, "task": "static", "train": {"steps": 100}})
    assert found is not None, faults
    assert [unit["name"] for unit in found["model"]["units"]] == ["nau", "nmu"]


def test_a_users_own_class_may_stand_in_an_installed_module() -> None:
    assert find("model", "arith_models.units.nau_nmu:NAU") is find("model", "nau")


def test_a_syntax_error_in_a_users_file_is_told_with_its_line(folder) -> None:
    (folder / "my_unit.py").write_text(MINE.replace("version = 1", "version = = 1"))
    line = MINE.splitlines().index("    version = 1") + 1
    with pytest.raises(
        BrokenDefinition,
        match=rf"^my_unit\.py \(line {line}\): SyntaxError: invalid syntax: `version = = 1`$",
    ):
        find("model", "./my_unit.py")
    _, faults, _ = resolve({"model": "./my_unit.py", "task": "static", "train": {"steps": 100}})
    assert f"my_unit.py (line {line})" in str(faults[0]) and faults[0].path == "model"


def test_an_exception_in_a_users_file_is_told_with_its_kind(folder) -> None:
    (folder / "my_unit.py").write_text("import no_such_library\n")
    with pytest.raises(
        BrokenDefinition,
        match=r"^my_unit.py \(line 1\): ModuleNotFoundError: No module named 'no_such_library'",
    ):
        find("model", "./my_unit.py")


def test_a_missing_file_says_where_it_was_looked_for(folder) -> None:
    with pytest.raises(UnknownName, match=f"no file my_unit.py \\(looked in {folder}\\)"):
        find("model", "./my_unit.py")


def test_a_missing_file_offers_the_nearest_that_is_there(folder) -> None:
    (folder / "my_unit.py").write_text(MINE)
    with pytest.raises(UnknownName, match=r"Did you mean \./my_unit\.py\?"):
        find("model", "./my_unti.py")


@pytest.mark.parametrize(("source", "count"), [("x = 1\n", 0), (MINE + MINE.replace("Mine", "Other"), 2)])
def test_a_file_must_define_one_class(folder, source, count) -> None:
    (folder / "my_unit.py").write_text(source.replace("\n", ""))
    with pytest.raises(BrokenDefinition, match=f"must define exactly one model class .* but defines {count}"):
        find("model", "./my_unit.py")


def test_a_class_that_lacks_a_method_is_told_which(folder) -> None:
    (folder / "my_unit.py").write_text(MINE.replace("def constrain", "def restrain"))
    with pytest.raises(BrokenDefinition, match="is not a model: it lacks constrain"):
        find("model", "./my_unit.py")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "no_such_package.units:Mine",
            "no_such_package.units cannot be imported: .* Install its package in this",
        ),
        (
            "arith_models.units.nau_nmu:Nau",
            "arith_models.units.nau_nmu has no class 'Nau'. Did you mean 'NAU'",
        ),
        (
            "arith_models.units.nau_nmu:nn",
            "arith_models.units.nau_nmu:nn is not a model: it lacks version, Config, ",
        ),
    ],
)
def test_a_broken_reference_to_a_module_is_told(name, message) -> None:
    with pytest.raises(ValueError, match=message):
        find("model", name)


def test_the_source_hash_is_that_of_the_file(folder) -> None:
    (folder / "my_unit.py").write_text(MINE)
    assert source_hash("model", "./my_unit.py") == hashlib.sha256(MINE.encode()).hexdigest()[:16]
