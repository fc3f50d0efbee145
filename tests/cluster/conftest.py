"""A real Slurm, for the tests of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from own_slurm import Missing, OwnSlurm, own_slurm


@pytest.fixture(scope="module")
def slurm() -> Iterator[OwnSlurm]:
    """Its daemons on this machine, and its programs in the environment."""
    try:
        with own_slurm() as made, pytest.MonkeyPatch.context() as patch:
            for name, value in made.environment.items():
                patch.setenv(name, value)
            yield made
    except Missing as missing:
        pytest.skip(f"nothing but a real Slurm shows how it takes our jobs: {missing}")
