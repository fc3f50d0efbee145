"""`make gpu-check` on a processor: the same checks as on a GPU, with few lanes, on a machine that has torch and little else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BARE = """
import sys
for name in ("ray", "optuna", "mlflow", "pydantic", "ruamel", "ruamel.yaml", "sqlalchemy", "typer"):
    sys.modules[name] = None  # importing it raises
from sweeps.bench import gpu_check
checks = {"random numbers", "a lane equals itself"}
gpu_check.CHECKS = {name: check for name, check in gpu_check.CHECKS.items() if name in checks}
sys.exit(gpu_check.main(["--device", "cpu", "--json", sys.argv[1]]))
"""


def test_the_checks_run_without_ray_optuna_and_mlflow(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BARE, str(tmp_path / "found.json")], cwd=ROOT, capture_output=True, text=True, timeout=240
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| a lane equals itself | passed | seed 0 has the same bits alone and among 7, 100, 300 lanes" in done.stdout
    assert '"outcome": "passed"' in (tmp_path / "found.json").read_text()


def test_without_a_gpu_the_command_says_so() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sweeps.bench.gpu_check"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )  # fmt: skip
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU: `make gpu-check` makes the checks on it")
    assert done.returncode == 2 and "finds no GPU here; --device cpu makes the checks on the processor" in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_check_passes_on_a_processor(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sweeps.bench.gpu_check", "--device", "cpu", "--json", str(tmp_path / "found.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0 and done.stdout.count("passed   ") == 5, done.stdout + done.stderr
