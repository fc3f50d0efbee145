"""Recorded and compiled functions: programs on disk are loaded instead of traced, and compiled again where unusable."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from torch import Tensor
from torch._dynamo.aot_compile import AOTCompiledFunction

from sweeps.training.compile import Recorded, in_place
from sweeps.training.random import threefry2x32

pytestmark = pytest.mark.slow
X = torch.linspace(0.0, 1.0, 7)


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[Path]]:
    """The programs in a cache of the test's own."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    return lambda: sorted((tmp_path / "sweeps-programs").glob("*.program"))


@pytest.fixture
def no_tracing(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From here on, whatever is traced is a fault."""

    def refuse(*arguments: Any, **options: Any) -> None:
        raise AssertionError("traced again")

    return lambda: monkeypatch.setattr(torch, "compile", refuse)


def tripled_sine(x: Tensor) -> Tensor:
    return torch.sin(x) * 3.0


def test_compiled_code_is_loaded_and_gives_the_same_bits(no_tracing: Callable[[], None]) -> None:
    def step(state: dict[str, Tensor], key: Tensor) -> dict[str, Tensor]:
        first, second = threefry2x32(key[0], key[1], state["counter"], state["counter"] + 1)
        return {"counter": state["counter"] + 1, "value": (state["value"] + first * 1e-9 - second * 1e-9).tanh()}

    def start() -> dict[str, Tensor]:
        return {"counter": torch.arange(9, dtype=torch.int32), "value": torch.linspace(-1.0, 1.0, 9)}

    key = torch.tensor([7, -3], dtype=torch.int32)
    results = []
    for loaded in (False, True):
        if loaded:
            no_tracing()
        state = start()
        recorded = Recorded(in_place(step), (state, key))
        assert recorded.why_uncompiled is None
        recorded.bind(state, key)(5)
        recorded(state, key)
        results.append(state)
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])
    assert results[0]["counter"].tolist() == list(range(6, 15))


def test_a_function_with_gradients_is_loaded_with_its_backward_pass(no_tracing: Callable[[], None]) -> None:
    def dropped(w: Tensor, key: Tensor) -> dict[str, Tensor]:
        first, _ = threefry2x32(key[0], key[1], torch.arange(7, dtype=torch.int32), key[0])
        return {"y": torch.where(first > 0, torch.tanh(w * 3.0), 0.0), "drawn": first}

    w, key = X.clone().requires_grad_(), torch.tensor([7, -3], dtype=torch.int32)
    results = []
    for loaded in (False, True):
        if loaded:
            no_tracing()
        recorded = Recorded(dropped, (w, key), differentiable=True)
        assert recorded.why_uncompiled is None
        out = recorded(w, key)
        results.append((out["y"], out["drawn"], *torch.autograd.grad(out["y"].sum(), w)))
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))
    expected = torch.autograd.grad(dropped(w, key)["y"].sum(), w)
    torch.testing.assert_close(results[1][2], *expected)


def test_a_program_that_loses_gradients_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    call = AOTCompiledFunction.__call__

    def without_gradients(self: AOTCompiledFunction, *arguments: Any) -> Any:
        return [t.detach() for t in call(self, *arguments)]

    monkeypatch.setattr(AOTCompiledFunction, "__call__", without_gradients)
    w = X.clone().requires_grad_()
    recorded = Recorded(tripled_sine, (w,), differentiable=True)
    assert recorded.why_uncompiled is None
    (gradient,) = torch.autograd.grad(recorded(w).sum(), w)
    torch.testing.assert_close(gradient, 3.0 * torch.cos(X))


ELSEWHERE = """
import sys, torch
from sweeps.training.compile import Recorded
x = torch.linspace(0.0, 1.0, 7)
compile_it = torch.compile
torch.compile = lambda *given, **options: print("traced") or compile_it(*given, **options)
recorded = Recorded(lambda x: torch.sin(x) * 3.0, (x,))
print(recorded.why_uncompiled, recorded(x).tolist())
"""


def test_another_process_in_another_folder_loads_what_one_has_compiled(tmp_path: Path) -> None:
    printed = []
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        done = subprocess.run(
            [sys.executable, "-c", ELSEWHERE],
            cwd=tmp_path / name, capture_output=True, text=True, timeout=300, check=True,
        )  # fmt: skip
        printed.append(done.stdout.splitlines())
    assert printed[0] == ["traced", *printed[1]]
    assert printed[1] == [f"None {(torch.sin(X) * 3.0).tolist()}"]


@pytest.mark.parametrize("gradients", [False, True])
def test_loading_compiled_code_waits_for_no_other_worker(tmp_path: Path, gradients: bool) -> None:
    x = X.clone().requires_grad_(gradients)
    Recorded(tripled_sine, (x,), differentiable=gradients)
    (lock,) = (tmp_path / "sweeps-programs").glob("*.lock")
    with FileLock(lock):  # as another worker that compiles the same
        again = Recorded(tripled_sine, (x,), differentiable=gradients)
    assert again.why_uncompiled is None
    torch.testing.assert_close(again(x), tripled_sine(x))


@pytest.mark.parametrize("left", [b"", b"no program at all", None])
def test_a_file_that_is_cut_off_is_made_anew(files: Callable[[], list[Path]], left: bytes | None) -> None:
    Recorded(tripled_sine, (X,))
    (compiled,) = files()
    whole = compiled.read_bytes()
    compiled.write_bytes(whole[: len(whole) // 2] if left is None else left)
    again = Recorded(tripled_sine, (X,))
    assert again.why_uncompiled is None and len(compiled.read_bytes()) > len(whole) / 2 > 0
    torch.testing.assert_close(again(X), tripled_sine(X))


def test_a_loaded_program_refuses_other_shapes(no_tracing: Callable[[], None]) -> None:
    Recorded(tripled_sine, (X,))
    no_tracing()
    loaded = Recorded(tripled_sine, (X,))
    assert loaded.why_uncompiled is None
    with pytest.raises(RuntimeError, match="size mismatch"):
        loaded(torch.linspace(0.0, 1.0, 8))


def test_inputs_that_are_bound_must_be_those_that_were_compiled_for() -> None:
    def both(state: list[Tensor]) -> list[Tensor]:
        return [state[0] + 1.0, state[1] * 2.0]

    recorded = Recorded(in_place(both), ([X.clone(), X.clone()],))
    one = X.clone()
    for wrong in ([X.double(), X.double()], [X[:6].clone(), X[:6].clone()], [one, one]):
        with pytest.raises(RuntimeError, match="would need another compilation"):
            recorded.bind(wrong)
    right = [X.clone(), X.clone()]
    recorded.bind(right)(2)
    assert right[0].tolist() == (X + 1.0 + 1.0).tolist() and right[1].tolist() == (X * 4.0).tolist()


def test_programs_that_differ_in_a_tensor_of_their_own_alone_are_one(files: Callable[[], list[Path]]) -> None:
    for factor in (2.0, 3.0):
        table = torch.full((7,), factor)
        recorded = Recorded(lambda x, table=table, factor=factor: x * table + torch.tensor(factor), (X,))
        assert recorded.why_uncompiled is None
        assert recorded(X).tolist() == (X * factor + factor).tolist()
    assert len(files()) == 1


def test_a_disk_that_takes_no_file_is_no_reason_not_to_train(
    files: Callable[[], list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(program: Any, path: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torch._dynamo.aot_compile.AOTCompiledFunction.save_compiled_function", full)
    for _ in range(2):  # what could not be kept leaves nothing that a second one stumbles over
        recorded = Recorded(tripled_sine, (X,))
        assert recorded.why_uncompiled is None and files() == []
        torch.testing.assert_close(recorded(X), tripled_sine(X))


def test_code_is_neither_read_from_nor_put_where_others_may_write(
    files: Callable[[], list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Recorded(tripled_sine, (X,))
    (program,) = files()
    (tmp_path / "sweeps-programs").chmod(0o777)

    def refuse(file: Any) -> None:
        raise AssertionError("read")

    monkeypatch.setattr(torch.compiler, "load_compiled_function", refuse)
    program.unlink()
    assert Recorded(tripled_sine, (X,)).why_uncompiled is None
    assert files() == []


def test_compiled_code_unused_for_months_is_removed(files: Callable[[], list[Path]]) -> None:
    Recorded(tripled_sine, (X,))
    (old,) = files()
    os.utime(old, (0.0, 0.0))
    Recorded(tripled_sine, (X,))  # used
    Recorded(lambda x: x + 1.0, (X,))
    assert old in files() and len(files()) == 2
    os.utime(old, (0.0, 0.0))
    Recorded(lambda x: x + 2.0, (X,))
    assert old not in files() and len(files()) == 2


@pytest.mark.parametrize("broken", ["aot_compile", "load"])
def test_code_that_torch_cannot_compile_ahead_of_time_is_traced(monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    def refuse(*given: Any, **options: Any) -> None:
        raise RuntimeError

    name = "aot_compile_fullgraph" if broken == "aot_compile" else "AOTCompiledFunction.__call__"
    monkeypatch.setattr(f"torch._dynamo.aot_compile.{name}", refuse)
    recorded = Recorded(tripled_sine, (X,))
    assert recorded.why_uncompiled is None
    torch.testing.assert_close(recorded(X), tripled_sine(X))
    with pytest.raises(RuntimeError, match="recompile"):
        recorded(torch.linspace(0.0, 1.0, 8))


def test_a_function_with_a_branch_inside_or_without_arguments_is_recorded() -> None:
    def branch(x: Tensor) -> Tensor:
        return torch.cond(x.sum() > 0, lambda x: x + 1.0, lambda x: x - 1.0, (x,))

    recorded = Recorded(branch, (X,))
    assert recorded.why_uncompiled is None
    assert recorded(X).tolist() == (X + 1.0).tolist()
    assert Recorded(lambda: torch.ones(2) * 3.0, (), compiled=False)().tolist() == [3.0, 3.0]


def test_a_worker_s_programs_and_kernels_lie_in_the_user_s_own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    script = "from sweeps.runner.worker import prepare_process\nprepare_process()\n"
    script += "from torch._inductor.runtime.cache_dir_utils import cache_dir\nprint(cache_dir())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.strip() == str(tmp_path / "sweeps" / "compiled")


def test_outputs_that_are_views_of_one_tensor_are_right_from_the_disk_cache() -> None:
    """torch 2.13 makes such outputs out of freed memory when the compiled function is loaded from its disk cache."""

    def halves(w: torch.Tensor) -> dict[str, Any]:
        whole = (w * 2.0).view(2, 6)
        return {"first": whole[0], "second": whole[1], "again": whole[1], "nothing": None, "given": w}

    w = torch.arange(12.0).requires_grad_()
    for _ in range(2):
        torch._dynamo.reset()
        recorded = Recorded(halves, (w,), differentiable=True)
        assert recorded.why_uncompiled is None
        out = recorded(w)
        tensors = [out[name] for name in ("first", "second", "again", "given")]
        assert len({id(t) for t in (*tensors, w)}) == 5
        assert sum("clone" in str(node.target) for node in recorded.graph.graph.nodes) == 4
        torch.testing.assert_close(out["first"], 2.0 * w[:6])
        torch.testing.assert_close(out["again"], 2.0 * w[6:])
        (gradient,) = torch.autograd.grad(out["first"].sum() + out["given"].sum(), w)
        assert gradient.tolist() == [3.0] * 6 + [1.0] * 6
