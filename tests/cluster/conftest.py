"""A real Slurm, for the tests of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from own_slurm import Missing, OwnSlurm, own_slurm


@pytest.fixture(scope="module")
def slurm(request: pytest.FixtureRequest) -> Iterator[OwnSlurm]:
    """Its daemons on this machine, and its programs in the environment. A module may set JOBS_APART."""
    try:
        with own_slurm(getattr(request.module, "JOBS_APART", False)) as made, pytest.MonkeyPatch.context() as patch:
            for name, value in made.environment.items():
                patch.setenv(name, value)
            yield made
    except Missing as missing:
        pytest.skip(f"{missing}; test_slurm.py runs the same scripts with stand-ins for Slurm's programs")
