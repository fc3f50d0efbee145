"""`sweeps schema`: what editors complete and check a sweep file with, and the page of every key."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from commands import call
from jsonschema import Draft7Validator
from test_sweep_file_faults import SMALL

from sweeps.config import registry, schema
from sweeps.config.faults import SweepFileError
from sweeps.config.space import BOUNDS, KINDS
from sweeps.config.sweep_file import BUDGET_KEYS, DEFINITIONS, KEYS, RESOURCES_KEYS, SEARCH_KEYS, TARGET_KEYS, parse
from sweeps.config.yaml import read
from sweeps.search import SAMPLERS

PAGE = Path(__file__).parents[1] / "docs" / "sweep-file.md"


@pytest.fixture(scope="module")
def validator() -> Draft7Validator:
    found = schema.json_schema()
    Draft7Validator.check_schema(found)
    return Draft7Validator(found)


def accepted(validator: Draft7Validator, text: str) -> bool:
    document = read(text)
    assert not document.faults
    return validator.is_valid(document.values)


def sound(text: str) -> bool:
    try:
        parse(text, "small.yaml")
    except SweepFileError:
        return False
    return True


def test_the_page_is_what_the_command_writes() -> None:
    assert PAGE.read_text(encoding="utf-8") == call("schema", "--format", "md").out, (
        "run `sweeps schema --format md -o docs/sweep-file.md`"
    )


def test_the_command_writes_the_schema_and_the_line_that_an_editor_needs(tmp_path: Path, validator: Draft7Validator) -> None:
    file = tmp_path / "sweep.schema.json"
    answer = call("schema", "-o", str(file))
    assert answer.status == 0
    assert f"# yaml-language-server: $schema={file}" in answer.out
    assert json.loads(file.read_text()) == validator.schema


def test_the_tables_have_the_keys_that_the_parser_reads() -> None:
    assert tuple(schema.TOP) == ("name", "question", "task", "model", "train", *KEYS[5:])
    assert set(schema.TOP) == set(KEYS)
    assert set(schema.SEARCH) == set(SEARCH_KEYS)
    assert set(schema.BUDGET) == set(BUDGET_KEYS)
    assert set(schema.TARGET) == set(TARGET_KEYS)
    assert set(schema.RESOURCES) == set(RESOURCES_KEYS)
    assert set(schema.DIMENSION) == {*KINDS, "or", "when"}
    assert set(BOUNDS) == {"at_most", "at_least"}


def test_the_page_names_every_model_task_network_sampler_and_setting() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for kind, word in (("model", "unit"), ("network", "network"), ("task", "task")):
        for name in registry.names(kind):  # type: ignore[arg-type]
            assert f"#### {word} `{name}`" in page
            for doc in registry.field_docs(registry.find(kind, name).Config):  # type: ignore[call-overload]
                assert f"| `{doc.name}` |" in page
    for name, sampler in SAMPLERS.items():
        assert f"| `{name}` |" in page
        assert all(f"`{option}` (" in page for option in sampler.options)


def definitions() -> list[Path]:
    return sorted(DEFINITIONS.glob("*.yaml"))


@pytest.mark.parametrize("file", definitions(), ids=lambda file: file.stem)
def test_every_shipped_definition_is_accepted(file: Path, validator: Draft7Validator) -> None:
    assert accepted(validator, file.read_text(encoding="utf-8"))


def test_what_init_writes_is_accepted_and_so_is_what_export_writes(folder: Path, validator: Draft7Validator) -> None:
    call("init", "my.yaml")
    assert accepted(validator, (folder / "my.yaml").read_text())
    assert accepted(validator, SMALL + "exported: {sweep: x, lanes: [{seed: 0, solved: true}]}")


SOUND = [
    "", "seeds: [1, 2]", "seeds: {first: 3, count: 1_000}", "question:", "resources: {cpus: 2, gpus: 0.5, slots: auto}",
    "budget: {hours: 0.5, failures: 5%, target: {success_rate: 0.9}}", "compare: {train.lr: [1e-3, 0.01]}",
    "compare: {x: [{label: a, train: {lr: 0.1}}, {label: 3, task: {operation: sub}}]}", "x-own: &a {b: [1]}",
    "search: {configurations: 3, space: {train.lr: [1, 2], model.dropout: {uniform: [0, 0.5], or: 0, when: {train.lr: 1}}}}",
    "search: {sampler: {name: nsgaii, crossover: {name: sbx, eta: 2}}, configurations: 1e1, "
    "objective: [par2, {success_rate: maximize}], constraints: {diverged: {at_most: 0}}, space: {train.lr: [1, 2]}}",
    "search: {sampler: grid, objective: error.extrapolation.median, space: {train.lr: [1, 2]}}",
    "compare: {task.operation: [add, sub]}",
]  # fmt: skip


@pytest.mark.parametrize("more", SOUND)
def test_a_sound_file_is_accepted(more: str, validator: Draft7Validator) -> None:
    assert sound(SMALL + more)
    assert accepted(validator, SMALL + more)


REFUSED = [
    "tsk: 3", "name: a/b", "question: [a]", "exported: 3", "seeds: 0", "seeds: 2.5", "seeds: true", "seeds: []", "seeds: [-1]",
    "seeds: [1, 1]", "seeds: {frist: 1, count: 2}", "seeds: {first: 1}", "seeds: 1e12",
    "resources: {cpus: 0}", "resources: {gpus: 2}", "resources: {memory_gb: 0}", "resources: [1]", "resources: {cpu: 1}",
    "budget: {hours: soon}", "budget: {cost_usd: -5}", "budget: {target: {}}", "budget: {target: {success_rate: 1}}",
    "budget: {failures: 1.5}", "budget: {max_cost: 3}", "early_stopping: {}", "early_stopping: {seed: {race: [1]}}",
    "early_stopping: {seeds: {confidence: 0.9}}", "early_stopping: {seeds: {race: [0, 2]}}",
    "early_stopping: {steps: {halving: [10], keep: 3, metric: par2}}", "confirm: {top: 1}", "confirm: {sedes: 3}",
    "compare: [nau]", "compare: {train: [{label: a}]}", "compare: {a b: [{label: a}]}", "compare: {x: []}",
    "compare: {x: [add]}",
    "compare: {x: [{task: {operation: sub}}]}", "compare: {x: [{label: a, tain: {}}]}", "compare: {train.lr: [soon]}",
    "compare: {train.btch: [3]}", "compare: {x: [{label: a, train: {btch: 3}}]}",
    "search: 5", "search: {configurations: 3}", "search: {configurations: 0, space: {train.lr: [1, 2]}}",
    "search: {configurations: 3, order: arrival, space: {train.lr: [1, 2]}}",
    "search: {configurations: 3, smapler: tpe, space: {train.lr: [1, 2]}}",
    "search: {configurations: 3, sampler: tpee, space: {train.lr: [1, 2]}}",
    "search: {configurations: 3, sampler: {name: tpe, startup: 3}, space: {train.lr: [1, 2]}}",
    "search: {configurations: 3, sampler: {startup: 3}, space: {train.lr: [1, 2]}}",
    "search: {configurations: 3, objective: par3, space: {train.lr: [1, 2]}}",
    "search: {configurations: 3, objective: {par2: least}, space: {train.lr: [1, 2]}}",
    "search: {configurations: 3, constraints: {diverged: {most: 0}}, space: {train.lr: [1, 2]}}",
    "search: {configurations: 3, space: {train.lr: {log_unifrom: [1, 2]}}}",
    "search: {configurations: 3, space: {train.lr: {uniform: [1, 2], integer: [1, 2]}}}",
    "search: {configurations: 3, space: {train.lr: {uniform: [1, 2, 3]}}}",
    "search: {configurations: 3, space: {train.lr: {integer: [1, 2.5]}}}",
    "search: {configurations: 3, space: {train.learning: [1, 2]}}", "search: {configurations: 3, space: {train.lr: 3}}",
    "search: {configurations: 3, space: {}}",
]  # fmt: skip


@pytest.mark.parametrize("more", REFUSED)
def test_a_fault_that_a_schema_can_see_is_refused(more: str, validator: Draft7Validator) -> None:
    assert not sound(SMALL + more)
    assert not accepted(validator, SMALL + more)


@pytest.mark.parametrize(
    ("changed", "to"),
    [
        ("model: nau", "model: nua"), ("model: nau", "model: {name: nau, regularise: 1}"), ("model: nau", "model: 3"),
        ("model: nau", "model: {name: nmu, clamp: soon}"),
        ("model: nau", "model: {name: dngpu, hiden: 3}"), ("model: nau", "model: {units: [nau, {name: nmu, clam: true}]}"),
        ("name: static", "name: statc"), ("operation: add", "operation: adds"), ("operation: add", "operations: add"),
        ("operation: add", "interpolation: [1]"), ("steps: 1000", "steps: soon"), ("steps: 1000", "steps: 1000, btch: 3"),
        ("steps: 1000", "steps: 1000, optimizer: adan"), ("steps: 1000", "steps: 10.5"),
    ],
)  # fmt: skip
def test_a_fault_of_a_section_is_refused(changed: str, to: str, validator: Draft7Validator) -> None:
    text = SMALL.replace(changed, to)
    assert text != SMALL
    assert not sound(text)
    assert not accepted(validator, text)


@pytest.mark.parametrize(
    "model",
    ["./mine.py", "my_pkg.units:Mine", "{name: ./mine.py, anything: [1]}", "{name: nmu, clamp: false, hidden: 4}",
     "{units: [nau, {name: nmu, clamp: false}]}", "{name: nau, sparsity_penalty: {weight: 1, start: 40%}}"],
)  # fmt: skip
def test_models_of_the_users_own_and_settings_of_units_and_networks_are_accepted(
    model: str, validator: Draft7Validator
) -> None:
    assert accepted(validator, SMALL.replace("model: nau", f"model: {model}"))


def test_a_model_has_its_own_settings_and_those_of_the_networks_that_may_arrange_it(validator: Draft7Validator) -> None:
    definitions: dict[str, Any] = validator.schema["definitions"]
    for name in registry.models():
        listed = set(definitions[f"model {name}"]["properties"])
        config = registry.find("network" if name in registry.standalone_networks() else "model", name).Config
        assert {"name", "network", "units", "label"} | {doc.name for doc in registry.field_docs(config)} <= listed
    assert "clamp" in definitions["model nmu"]["properties"]
    assert "clamp" not in definitions["model linear"]["properties"]


def test_a_section_without_a_value_is_accepted_as_the_parser_does(validator: Draft7Validator) -> None:
    text = SMALL + "question:\ncompare:\nsearch:\nearly_stopping:\nconfirm:\nresources:\nbudget:\nexported:\n"
    assert sound(text)
    assert accepted(validator, text)


@pytest.mark.parametrize(
    ("changed", "to", "path", "unexpected"),
    [
        ("steps: 1000", "steps: 1000, btch: 3", "$.train", "btch"),
        ("model: nau", "model: {name: nmu, clam: false}", "$.model", "clam"),
        ("name: static", "name: static, operashun: add", "$.task", "operashun"),
        ("model: nau", "compare: {model: [nau, {name: nmu, clam: false}]}", "$.compare.model[1]", "clam"),
    ],
)
def test_the_message_of_a_fault_in_a_section_is_about_that_fault(
    changed: str, to: str, path: str, unexpected: str, validator: Draft7Validator
) -> None:
    (error,) = validator.iter_errors(read(SMALL.replace(changed, to)).values)
    assert error.json_path == path
    assert error.message == f"Additional properties are not allowed ({unexpected!r} was unexpected)"


def test_a_number_with_underscores_is_accepted_as_the_text_that_it_is_for_an_editor(validator: Draft7Validator) -> None:
    document = read(SMALL).values
    document["train"]["steps"] = "3_000_000"
    assert validator.is_valid(document)
    document["train"]["steps"] = "many"
    assert not validator.is_valid(document)


def test_every_description_is_one_line(validator: Draft7Validator) -> None:
    assert not re.search(r'"description": "[^"]*\\n', json.dumps(validator.schema))
