"""Calls that a definition must not make, read from its source: what no run happens to reach is found too."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Literal

from sweeps.checking.places import Place, Sources

TORCH_DRAWS = {
    f"torch.{name}"
    for name in ("rand", "rand_like", "randn", "randn_like", "randint", "randint_like", "randperm", "normal",
                 "bernoulli", "multinomial", "poisson", "dropout")
}  # fmt: skip
INIT_DRAWS = {
    "uniform_", "normal_", "trunc_normal_", "xavier_uniform_", "xavier_normal_", "kaiming_uniform_",
    "kaiming_normal_", "orthogonal_", "sparse_",
}  # fmt: skip
TENSOR_DRAWS = {
    "normal_", "uniform_", "bernoulli_", "random_", "exponential_", "cauchy_", "log_normal_", "geometric_",
}  # fmt: skip
SEEDED = {"RandomState", "default_rng", "Generator", "PCG64", "Philox", "SeedSequence", "Random"}
SPEAKS = {"print", "input", "open", "breakpoint", "warnings.warn"}


def scanned(sources: Sources, what: Literal["random", "speak"]) -> Iterator[tuple[Place, str]]:
    """Line and name of every such call in the classes of the definition and the functions that they call."""
    for file, tree in sources.trees.items():
        modules = _modules(tree)
        for call in _calls(tree):
            name = _full_name(call.func, modules)
            said = f"{ast.unparse(call.func)}()"
            if (what == "random" and _draws(call, name)) or (what == "speak" and _speaks(name, tree)):
                yield Place(file, call.lineno), said


def _calls(tree: ast.Module) -> Iterator[ast.Call]:
    """Calls inside classes, and inside the module's functions that these reach."""
    functions = {n.name: n for n in tree.body if isinstance(n, ast.FunctionDef)}
    reached: list[ast.AST] = [n for n in tree.body if isinstance(n, ast.ClassDef)]
    seen: set[str] = set()
    for node in reached:  # grows while it is walked
        for part in ast.walk(node):
            if isinstance(part, ast.Call):
                yield part
            if isinstance(part, ast.Name) and part.id in functions and part.id not in seen:
                seen.add(part.id)
                reached.append(functions[part.id])


def _modules(tree: ast.Module) -> dict[str, str]:
    """Local name -> what was imported under it."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {
                a.asname or a.name.split(".")[0]: a.name if a.asname else a.name.split(".")[0]
                for a in node.names
            }
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    return found


def _full_name(function: ast.expr, modules: dict[str, str]) -> str:
    """`np.random.rand` -> numpy.random.rand; "" for a method of something that is not imported."""
    parts: list[str] = []
    while isinstance(function, ast.Attribute):
        parts.append(function.attr)
        function = function.value
    if not isinstance(function, ast.Name):
        return "." + parts[0] if parts else ""
    root = modules.get(function.id)
    if root is None:
        return ".".join([function.id, *reversed(parts)]) if not parts else "." + parts[0]
    return ".".join([root, *reversed(parts)])


def _draws(call: ast.Call, name: str) -> bool:
    module, _, last = name.rpartition(".")
    if name in TORCH_DRAWS or (module == "torch.nn.init" and last in INIT_DRAWS):
        return True
    if name.startswith("torch.nn") and ("dropout" in last.lower()):
        return True
    if not module and name.startswith("."):
        return last in TENSOR_DRAWS
    if module in ("numpy.random", "random"):
        return last not in SEEDED or not (call.args or call.keywords)
    return False


def _speaks(name: str, tree: ast.Module) -> bool:
    if name in SPEAKS or name.startswith("logging."):
        return True
    return name.rpartition(".")[2] in {"debug", "info", "warning", "error", "exception", "critical"} and any(
        isinstance(n, ast.Call) and ast.unparse(n.func).endswith("getLogger") for n in ast.walk(tree)
    )
