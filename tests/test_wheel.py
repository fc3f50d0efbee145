"""The wheel that `make wheel` builds has all of the package's files, and runs outside of the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[1]
PACKAGES = ("arith_models", "cluster", "sweeps", "tasks")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as by `make wheel`, from a copy, so that nothing that an earlier build left is in it."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    made = copy / "dist"
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--wheel-dir", str(made)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, "."], cwd=copy, check=True, timeout=200)
    (found,) = made.glob("*.whl")
    return found


def test_the_wheel_has_every_file_of_the_packages(wheel: Path) -> None:
    files = {
        path.relative_to(ROOT).as_posix()
        for name in PACKAGES
        for path in (ROOT / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as opened:
        packed = {name for name in opened.namelist() if ".dist-info/" not in name}
    assert packed == files


def test_the_quickstart_runs_from_the_installed_wheel_in_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    folder = tmp_path / "venv"
    venv.create(folder, with_pip=False, symlinks=True)
    bin_ = folder / "bin"
    purelib = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    target = [
        "--prefix",
        str(folder),
        "--quiet",
        "--no-deps",
        "--no-index",
        "--disable-pip-version-check",
        "--ignore-installed",
    ]
    subprocess.run([sys.executable, "-m", "pip", "install", *target, str(wheel)], check=True, timeout=200)
    # The libraries are those of this environment. A path in a .pth file is only added: the .pth file with which the checkout
    # is installed there has no effect.
    (purelib / "libraries.pth").write_text(f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n")
    empty = tmp_path / "empty"
    empty.mkdir()
    variables = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "SWEEPS_STORE", "VIRTUAL_ENV")}

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=empty, env=variables, capture_output=True, text=True, timeout=280)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    where = run(
        str(bin_ / "python"), "-c", "import sweeps, tasks, cluster, arith_models as a; print(sweeps.__file__, a.__file__)"
    )
    assert where.count(str(folder)) == 2
    few = ["seeds=2", "search.configurations=2", "train.steps=2000", "compare.model=[nau]"]
    out = run(str(bin_ / "sweeps"), "run", "quickstart", *few, "--workers", "1", "--no-mlflow")
    assert "State: done." in " ".join(out.split())
    assert "quickstart  done" in run(str(bin_ / "sweeps"), "list")
    assert "quickstart" in run(str(bin_ / "sweeps"), "list", "definitions")
    run(str(bin_ / "sweeps"), "new", "model", "my_unit")
