"""Names that travel: hostile ones are refused, others mapped to what Kubernetes takes, two never to one."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.names import MAX_JOB_NAME, cluster_name_fault, kubernetes_name, travelling_name

LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
SWEEP_NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", fullmatch=True)


@settings(deadline=None)  # a busy machine is slow
@given(st.text(max_size=120))
def test_whatever_a_sweep_is_called_its_kubernetes_name_is_a_label(name: str) -> None:
    mapped = kubernetes_name(name)
    assert LABEL.fullmatch(mapped)
    assert len(mapped) <= MAX_JOB_NAME


@settings(deadline=None)  # a busy machine is slow
@given(SWEEP_NAMES, SWEEP_NAMES)
def test_two_sweeps_are_never_one_job(one: str, other: str) -> None:
    assert (kubernetes_name(one) == kubernetes_name(other)) == (one == other)


def test_a_name_that_fits_stays_and_others_carry_a_digest() -> None:
    assert kubernetes_name("nau-addition") == "nau-addition"
    assert re.fullmatch(r"nau-addition-[0-9a-f]{8}", kubernetes_name("NAU_addition"))
    assert re.fullmatch(r"sweep-2026-[0-9a-f]{8}", kubernetes_name("2026"))
    assert kubernetes_name("A.b") != kubernetes_name("a-b") == "a-b"
    assert len(kubernetes_name("x" * 100)) == MAX_JOB_NAME


@settings(deadline=None)  # a busy machine is slow
@given(st.text(max_size=60))
def test_only_a_sweep_s_own_kind_of_name_travels_to_ray_and_slurm(name: str) -> None:
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        assert travelling_name(name) == name
    else:
        with pytest.raises(ValueError, match="cannot be the name of a sweep on a cluster"):
            travelling_name(name)


@pytest.mark.parametrize("name", ["a b", "a'b", 'a"b', "a\nb", "$(reboot)", "../up", "a/b", "-a", "a;b", ""])
def test_a_hostile_name_never_travels(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be the name"):
        travelling_name(name)
    assert cluster_name_fault(name)
