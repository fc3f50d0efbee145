"""A sweep's folder on the disk that nodes share: nobody else may read it, or put scripts into it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cluster.descriptions import SlurmCluster
from cluster.slurm_folder import SweepFolder
from sweeps.errors import UserError


def folder(base: Path) -> SweepFolder:
    return SweepFolder(SlurmCluster(name="hpc", folder=str(base)), "small")


def test_a_folder_that_others_may_write_is_closed_to_them(tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    (tmp_path / "small").chmod(0o777)
    with folder(tmp_path).locked():
        assert (tmp_path / "small").stat().st_mode & 0o777 == 0o700


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "small").mkdir()
    monkeypatch.setattr(os, "getuid", lambda: (tmp_path / "small").stat().st_uid + 1)
    with pytest.raises(UserError, match="belongs to somebody else"), folder(tmp_path).locked():
        pass
