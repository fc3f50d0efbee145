"""What every unit keeps to, as `sweeps check model` checks it. A new file in arith_models/units is tested by existing."""

from __future__ import annotations

import os

import pytest

from sweeps.checking import check_model
from sweeps.config.registry import names

FAMILIES = ["linear", "nac", "mcfc"]  # nau, nmu and nalu: tests/training/test_pack_compiled.py


@pytest.mark.parametrize("unit", names("model"))
def test_a_unit_keeps_every_rule(unit: str) -> None:
    report = check_model(unit)
    assert report.sound, report.text()
    assert not report.warnings, report.text()


@pytest.mark.slow
@pytest.mark.parametrize("unit", FAMILIES)
def test_a_unit_of_each_family_compiled_is_itself_alone_and_in_a_pack(unit: str) -> None:
    report = check_model(unit, compiled=True)
    assert report.sound, report.text()


@pytest.mark.slow
@pytest.mark.skipif(
    "SWEEPS_TEST_ALL" not in os.environ,
    reason="half an hour: make test-all; above, one unit of every family is compiled, and every unit is checked uncompiled",
)
@pytest.mark.parametrize("unit", [name for name in names("model") if name not in FAMILIES])
def test_every_other_unit_compiled_is_itself_alone_and_in_a_pack(unit: str) -> None:
    report = check_model(unit, compiled=True)
    assert report.sound, report.text()
