"""Which package may import which: read from the source, nothing is run."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("arith_models", "cluster", "sweeps", "tasks")
FILES = [path.relative_to(ROOT) for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]

# What a package may import besides the standard library, the longest prefix deciding; the others may import anything
# that no rule below takes away from them. A loader may import the one library that supplies outside data.
MAY_IMPORT = {
    "arith_models": {"arith_models", "torch"},
    "tasks": {"numpy", "tasks", "torch"},
    "tasks._digits.datasets": {"numpy", "pooch", "scipy", "sklearn", "tasks", "torch"},
    "tasks.number_words": {"num2words", "numpy", "tasks", "torch"},
    "sweeps.training": {
        "arith_models.base", "filelock", "numpy", "safetensors", "sweeps.machine", "sweeps.training", "tasks.base", "torch",
    },
    "sweeps.training.cuda": {"cuda.bindings", "cuda.core", "sweeps.training", "torch"},
}  # fmt: skip
# Abstract classes that hold no numbers: whatever is typed by them may import them.
CONTRACTS = ("arith_models.base", "tasks.base")
# Modules of the engine that other packages may import; the others are its own.
ENGINE = tuple(f"sweeps.training.{name}" for name in (
    "lane", "numerics", "settings", "pack", "ensemble", "random", "step", "trainers", "lane_program", "cpp", "cuda", "state",
))  # fmt: skip
# Where the only mention of a library may stand: a file, or the folder it has grown into.
ONLY_IN = {
    "cuda": ("sweeps.training.cuda",),
    "optuna": ("sweeps.search",),
    "mlflow": ("sweeps.tracking",),
    "ray": ("sweeps.runner", "cluster"),
    "ray.tune": ("sweeps.runner",),
    "ray.job_submission": ("cluster",),
    "ruamel": ("sweeps.config.yaml",),
    "num2words": ("tasks.number_words",),
    "pooch": ("tasks._digits.datasets",),
    "sklearn": ("tasks._digits.datasets",),
}


def module_of(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def inside(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def tree(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"), str(path))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, module) of every import, also those inside functions. `from sweeps import search` counts as
    `sweeps.search`, and a relative import as what it resolves to."""
    package = module_of(path) if path.name == "__init__.py" else module_of(path).rpartition(".")[0]
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            submodules = [f"{base}.{alias.name}" for alias in node.names]
            known = [name for name in submodules if name in MODULES or name in ONLY_IN]
            yield from ((node.lineno, name) for name in known or [base])


MODULES = {module_of(path) for path in FILES}


def broken(path: Path, imported: str) -> str | None:
    """The rule that this import breaks, or None."""
    module = module_of(path)
    for library, homes in ONLY_IN.items():
        if inside(imported, library) and not any(inside(module, home) for home in homes):
            return f"only {' and '.join(homes)} may import {library}"
    package = max((name for name in MAY_IMPORT if inside(module, name)), key=len, default=None)
    if package and imported.partition(".")[0] not in sys.stdlib_module_names:
        allowed = MAY_IMPORT[package]
        if not any(inside(imported, name) for name in allowed):
            return f"{package} may import only the standard library and {', '.join(sorted(allowed))}"
    if inside(module, "cluster") and any(inside(imported, p) for p in ("arith_models", "sweeps.training", "tasks")):
        return "cluster imports neither the engine nor models nor tasks"
    if inside(module, "sweeps") and not inside(module, "sweeps.training"):
        if inside(imported, "sweeps.training") and imported not in ENGINE:
            return f"of the engine, other packages import only {', '.join(ENGINE)}"
        # A bare machine has nothing of what sweeps.config needs.
        if (
            module != "sweeps.bench.gpu_check"
            and imported not in CONTRACTS
            and (inside(imported, "arith_models") or inside(imported, "tasks"))
        ):
            return "models and tasks are found by sweeps.config.registry"
    return None


def test_every_file_imports_only_what_its_package_may() -> None:
    faults = [
        f"{path}:{line}: import of {imported}: {rule}"
        for path in FILES
        for line, imported in imports(path)
        if (rule := broken(path, imported))
    ]
    assert not faults, "\n".join(faults)


def test_the_rules_catch_what_they_forbid() -> None:
    forbidden = [
        ("arith_models/units/nau.py", "tasks.static"),
        ("arith_models/units/nau.py", "numpy"),
        ("tasks/static.py", "sweeps.config.settings"),
        ("tasks/static.py", "scipy"),
        ("tasks/_digits/images.py", "pooch"),
        ("tasks/_digits/datasets.py", "sweeps.config.settings"),
        ("sweeps/training/pack.py", "ray"),
        ("sweeps/training/pack.py", "sweeps.config.settings"),
        ("sweeps/training/pack.py", "arith_models.units"),
        ("sweeps/results/report.py", "optuna"),
        ("sweeps/search/cell.py", "mlflow.tracking"),
        ("sweeps/cli/train.py", "ray.tune"),
        ("sweeps/cli/train.py", "sweeps.training.compile"),
        ("cluster/slurm.py", "sweeps.training"),
        ("cluster/jobs.py", "ray.tune"),
    ]
    for path, imported in forbidden:
        assert broken(Path(path), imported), (path, imported)
    allowed = [
        ("arith_models/units/nau.py", "torch.nn"),
        ("tasks/static.py", "numpy"),
        ("tasks/_digits/datasets.py", "pooch"),
        ("sweeps/training/pack.py", "arith_models.base"),
        ("sweeps/search/cell.py", "optuna.trial"),
        ("sweeps/cli/train.py", "sweeps.training.pack"),
        ("cluster/jobs.py", "ray.job_submission"),
    ]
    for path, imported in allowed:
        assert broken(Path(path), imported) is None, (path, imported)
