"""The engine depends on torch and on the contracts of models and tasks alone, and keeps its side of them."""

from __future__ import annotations

import inspect
import subprocess
import sys
from typing import Any

import pytest
import torch

import arith_models.base
import tasks.base
from sweeps.training.random import Stream, seed_key
from sweeps.training.step import Context

BLOCKED = ("mlflow", "optuna", "pydantic", "ray", "ruamel", "sqlalchemy", "sweeps.config")
IMPORT_ALL = f"""
import importlib, pkgutil, sys
sys.modules.update(dict.fromkeys({BLOCKED}))  # None makes Python raise ImportError, as if it were not installed
import sweeps.training
names = [m.name for m in pkgutil.iter_modules(sweeps.training.__path__, "sweeps.training.")]
for name in names:
    if name != "sweeps.training.threefry_inductor":  # torch's compiler takes seconds to import
        importlib.import_module(name)
print(len(names))
print(*[name for name in sys.modules if name.startswith(("arith_models.", "tasks."))])
"""


def test_every_module_of_the_engine_is_imported_with_torch_and_the_contracts_alone() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    number, ours = done.stdout.splitlines()
    assert int(number) > 8
    assert set(ours.split()) == {"arith_models.base", "tasks.base"}


@pytest.mark.parametrize(
    ("contract", "made"),
    [
        (arith_models.base.Stream, Stream(seed_key(0, "model"))),
        (tasks.base.Stream, Stream(seed_key(0, "batch"))),
        (arith_models.base.Context, Context.of_evaluation(torch.device("cpu"))),
    ],
)
def test_streams_and_contexts_have_all_that_the_contracts_name(contract: type[Any], made: Any) -> None:
    for name, member in vars(contract).items():
        if not name.startswith("_"):
            assert hasattr(made, name), name
        if inspect.isfunction(member) and not name.startswith("_"):
            assert [*inspect.signature(member).parameters][1:] == [*inspect.signature(getattr(made, name)).parameters], name
