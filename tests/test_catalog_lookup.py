"""The registry: models, networks and tasks by name, also a user's own, and the messages for broken ones."""

from __future__ import annotations

import dataclasses
import inspect
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from lanes import PLAIN, resolved

from sweeps.config import registry
from sweeps.config.registry import BrokenDefinition, UnknownName, clear_cache, find, names, nearest, source_hash, version_key
from sweeps.config.settings import build, lane_key, resolve
from sweeps.config.source import imported_files

MINE = '''"""y = scale x W. Shapes: x [B, I] -> y [B, O]."""



from dataclasses import dataclass

import torch
from torch import nn

from arith_models.base import Unit
from arith_models.penalties import Steps


class Mine(Unit):
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
'''


@pytest.mark.parametrize(
    ("kind", "some"),
    [("model", ["linear", "nac", "nac_mul", "nalu", "nau", "nmu"]), ("network", ["two_layer"]), ("task", ["static"])],
)  # fmt: skip
def test_a_files_existence_is_its_registration(kind, some) -> None:
    assert set(some) <= set(names(kind)) and names(kind) == sorted(names(kind))
    for name in names(kind):
        cls = find(kind, name)
        listed = vars(inspect.getmodule(cls)).get({"model": "UNITS", "network": "NETWORKS", "task": "TASKS"}[kind])
        assert listed[name] is cls if listed else Path(inspect.getfile(cls)).stem == name


def test_a_file_may_list_several_definitions(folder, monkeypatch) -> None:
    package = folder / "shipped"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "base.py").write_text("raise AssertionError('no definition')")
    (package / "_helpers.py").write_text("raise AssertionError('no definition')")
    (package / "alone.py").write_text(MINE)
    (package / "broken.py").write_text("1 / 0\n")
    family = MINE + MINE.replace("Mine", "Other").replace("version = 1", "version = 3")
    family = family.replace("from __future__", "# from __future__")
    (package / "family.py").write_text(family + "UNITS = {'first': Mine, 'second': Other, 'wrong': Steps, 'number': 3}\n")
    monkeypatch.syspath_prepend(folder)
    source = dataclasses.replace(registry.SOURCES["model"], package="shipped")
    monkeypatch.setitem(registry.SOURCES, "model", source)
    try:
        assert names("model") == ["alone", "broken", "first", "number", "second", "wrong"]
        assert find("model", "alone").__name__ == "Mine"
        assert (find("model", "first").version, find("model", "second").version) == (1, 3)
        assert registry.version_key("model", "second") == 3
        with pytest.raises(BrokenDefinition, match=r"shipped.broken cannot be imported: ZeroDivisionError"):
            find("model", "broken")
        for name in ("wrong", "number"):
            with pytest.raises(BrokenDefinition, match=f"UNITS of shipped.family: {name} is no class"):
                find("model", name)
        with pytest.raises(UnknownName, match="no model named 'family'"):
            find("model", "family")
    finally:
        registry.clear_cache()


def test_an_unknown_name_offers_the_nearest_and_how_to_add_one() -> None:
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
    found = resolved(model, steps=100)
    assert found["model"]["units"] == [{"name": "./my_unit.py", "scale": 3.0, "start": 50.0}] * 2
    built = build(found)
    assert [cls.__name__ for cls, _ in built.units] == ["Mine", "Mine"]
    assert [tuple(p.shape) for p in built.model().parameters()] == [(2, 100), (1, 2)]
    assert len(lane_key(found, 0, PLAIN)) == 64


def test_two_files_of_one_name_in_two_folders_are_two_models(folder) -> None:
    for name, version in (("a", 1), ("b", 2)):
        (folder / name).mkdir()
        (folder / name / "my_unit.py").write_text(MINE.replace("version = 1", f"version = {version}"))
    first, second = find("model", "./a/my_unit.py"), find("model", "./b/my_unit.py")
    assert (first.version, second.version) == (1, 2)
    assert first.__module__ != second.__module__


def test_a_syntax_error_in_a_users_file_is_reported_with_its_line(folder) -> None:
    (folder / "my_unit.py").write_text(MINE.replace("version = 1", "version = = 1"))
    line = MINE.splitlines().index("    version = 1") + 1
    with pytest.raises(BrokenDefinition, match=rf"^my_unit\.py \(line {line}\): SyntaxError: invalid syntax: `version = = 1`$"):
        find("model", "./my_unit.py")
    _, faults, _ = resolve({"model": "./my_unit.py", "task": "static", "train": {"steps": 100}})
    assert f"my_unit.py (line {line})" in str(faults[0]) and faults[0].path == "model"


def test_a_file_whose_name_is_given_without_its_ending_is_found(folder) -> None:
    (folder / "my_gate.py").touch()
    with pytest.raises(UnknownName, match="there is a file of that name here: write ./my_gate.py"):
        find("model", "my_gate")


def test_a_missing_file_is_reported_with_the_folder(folder) -> None:
    with pytest.raises(UnknownName, match=f"no file my_unit.py \\(looked in {folder}\\)"):
        find("model", "./my_unit.py")


def test_a_missing_file_offers_the_nearest_that_is_there(folder) -> None:
    (folder / "my_unit.py").write_text(MINE)
    with pytest.raises(UnknownName, match=r"Did you mean \./my_unit\.py\?"):
        find("model", "./my_unti.py")


@pytest.mark.parametrize(("source", "count"), [("x = 1\n", 0), (MINE + MINE.replace("Mine", "Other"), "2: Mine, Other")])
def test_a_file_must_define_one_class(folder, source, count) -> None:
    (folder / "my_unit.py").write_text(source)
    with pytest.raises(BrokenDefinition, match=f"must define exactly one model class, .* but defines {count}"):
        find("model", "./my_unit.py")


def test_helpers_whose_name_begins_with_an_underscore_are_no_definitions(folder) -> None:
    (folder / "my_unit.py").write_text(MINE.replace("class Mine(", "class _Base(") + "\n\nclass Mine(_Base):\n    pass\n")
    assert find("model", "./my_unit.py").__name__ == "Mine"


def test_networks_are_distinguished_from_units(folder) -> None:
    (folder / "my_unit.py").write_text(MINE)
    (folder / "my_network.py").write_text(Path(inspect.getfile(find("network", "two_layer"))).read_text())
    kinds = {"nau": False, "dngpu": True, "two_layer": True, "./my_unit.py": False, "./my_network.py": True,
             "arith_models.networks.dngpu:DNGPU": True, "no_such_thing": False}  # fmt: skip
    assert {name: registry.is_network(name) for name in kinds} == kinds
    assert registry.standalone_networks() == ["dngpu", "lstm_attention", "neural_gpu", "transformer"]


@pytest.mark.parametrize(
    ("model", "task"),
    [("nau", "static"), ("gru", "recurrent"), ("dngpu", "algorithm"), ("one_layer", "single_module"), ("two_layer", "static")],
)  # fmt: skip
def test_a_task_that_a_model_can_learn(model, task) -> None:
    assert registry.learnable_task(model) == task


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("num_units = 2", 'num_units = "a"'), "has num_units = 'a': it must be a whole number"),
        (
            ("class TwoLayer", "class Other(Network):\n    pass\n\n\nclass TwoLayer"),
            "one network class, .* but defines 2",
        ),
    ],
)
def test_a_broken_network_of_a_user_is_reported_as_a_network(folder, change, message) -> None:
    text = Path(inspect.getfile(find("network", "two_layer"))).read_text()
    (folder / "my_network.py").write_text(text.replace(*change))
    assert registry.is_network("./my_network.py")
    with pytest.raises(registry.BrokenDefinition, match=message):
        find("network", "./my_network.py")


def test_a_class_in_a_file_is_named_by_the_file_alone() -> None:
    with pytest.raises(registry.UnknownName, match=r"write \./my_network.py alone"):
        find("network", "./my_network.py:Mine")


@pytest.mark.parametrize(
    ("name", "said"),
    [("dngpu", "dngpu is a whole network, and no unit"), ("two_layer", "two_layer is a network that arranges units")],
)  # fmt: skip
def test_a_network_where_a_unit_belongs_is_named_as_one(name, said) -> None:
    with pytest.raises(UnknownName, match=said):
        find("model", name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_package.units:Mine", "no_such_package.units cannot be imported: .* Install its package in this"),
        ("arith_models.units.nau_nmu:Nau", "arith_models.units.nau_nmu has no class 'Nau'. Did you mean 'NAU'"),
        ("arith_models.units.nau_nmu:nn", "arith_models.units.nau_nmu:nn is not a class"),
        ("arith_models.units.nau_nmu:Tensor", "class Tensor must subclass arith_models.base.Unit"),
    ],
)
def test_a_broken_reference_to_a_module_is_reported(name, message) -> None:
    with pytest.raises(ValueError, match=message):
        find("model", name)


def test_the_source_hash_ignores_comments_and_docstrings_and_changes_with_code(folder) -> None:
    mine = folder / "my_unit.py"
    mine.write_text(MINE)
    before = source_hash("model", "./my_unit.py")

    def after(text: str) -> str:
        mine.write_text(text)
        clear_cache()
        return source_hash("model", "./my_unit.py")

    assert after('"""Another description."""\n# and a comment\n' + MINE.replace("\n", "\n\n")) == before
    assert after(MINE + "\nHALF = 0.5\n") != before


@pytest.mark.parametrize("way", ["beside", "elsewhere on the path", "beside a link", "by import_module"])
def test_a_key_of_a_users_unit_changes_with_a_file_that_it_imports(folder, tmp_path_factory, monkeypatch, way) -> None:
    place = tmp_path_factory.mktemp("lib") if way == "elsewhere on the path" else folder
    monkeypatch.syspath_prepend(place)
    name = "constants_" + way.replace(" ", "_")
    text = f"import importlib\nSTART = importlib.import_module('{name}').START\n"
    text = (text if "module" in way else f"from {name} import START\n") + MINE
    unit = folder / "my_unit.py"
    if way == "beside a link":
        monkeypatch.setattr("sys.path", [entry for entry in sys.path if entry != str(place)])
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(START=0.3))
        target = tmp_path_factory.mktemp("real") / "my_unit.py"
        unit.symlink_to(target)
        unit = target
    unit.write_text(text)
    (place / f"{name}.py").write_text("START = 0.3\n")
    before = version_key("model", "./my_unit.py"), source_hash("model", "./my_unit.py")
    (place / f"{name}.py").write_text("START = 0.4\n")
    clear_cache()
    after = version_key("model", "./my_unit.py"), source_hash("model", "./my_unit.py")
    assert after[0] != before[0] and after[1] != before[1]


def test_the_source_of_a_lane_is_that_of_its_own_definitions() -> None:
    """Editing NPU's file is no reason to doubt the records of NAU; what both use is in both digests."""
    root = Path(__file__).parent.parent
    files = {
        name: set(imported_files(module, root / f"{module.replace('.', '/')}.py", {"arith_models": [root]}))
        for name, module in ((name, find("model", name).__module__) for name in ("nau", "npu"))
    }
    assert "arith_models.units.npu" in files["npu"] and "arith_models.units.npu" not in files["nau"]
    assert "arith_models.base" in files["nau"] & files["npu"]


def test_an_environment_beside_a_users_unit_is_no_part_of_its_source(folder) -> None:
    """In a checkout with its .venv, `import torch` is no import of the user's own files."""
    (folder / "my_unit.py").write_text(MINE)
    before = source_hash("model", "./my_unit.py")
    package = folder / ".venv/lib/python3.11/site-packages/torch"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("not Python \0")
    clear_cache()
    assert source_hash("model", "./my_unit.py") == before


@pytest.mark.parametrize("beside", ["def broken(:\n", "x = " + "+".join(["1"] * 20_000), "\0"])
def test_a_file_that_cannot_be_parsed_is_digested_as_it_is(folder, beside) -> None:
    (folder / "legacy.py").write_text(beside)
    (folder / "my_unit.py").write_text(
        MINE + "\n\ndef later():\n    import legacy\n    import package_that_is_not_there.part\n"
    )
    before = version_key("model", "./my_unit.py")
    (folder / "legacy.py").write_text(beside + "\n")
    clear_cache()
    assert version_key("model", "./my_unit.py") != before


def test_a_key_of_a_users_unit_is_the_same_where_our_code_lies_beside_the_file_as_on_a_cluster(folder) -> None:
    (folder / "my_unit.py").write_text(MINE)
    before = version_key("model", "./my_unit.py"), source_hash("model", "./my_unit.py")
    shutil.copytree(Path(registry.__file__).parents[2] / "arith_models", folder / "arith_models")
    clear_cache()
    assert (version_key("model", "./my_unit.py"), source_hash("model", "./my_unit.py")) == before
