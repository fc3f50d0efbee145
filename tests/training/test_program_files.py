"""Compiled programs on disk: loaded instead of traced, and made anew where they are no use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from torch import Tensor

from sweeps.training import program_files
from sweeps.training.compiled import Recorded, in_place
from sweeps.training.threefry import threefry2x32

pytestmark = pytest.mark.slow
X = torch.linspace(0.0, 1.0, 7)


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[Path]]:
    """What lies in a cache of the test's own."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    return lambda: sorted((tmp_path / "sweeps-programs").glob("*.compiled"))


@pytest.fixture
def no_tracing(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From here on, whatever is traced is a fault."""

    def refuse(*arguments: Any, **options: Any) -> None:
        raise AssertionError("traced again")

    return lambda: monkeypatch.setattr(torch, "compile", refuse)


def tripled_sine(x: Tensor) -> Tensor:
    return torch.sin(x) * 3.0


def test_what_was_compiled_before_is_loaded_and_gives_the_same_bits(no_tracing: Callable[[], None]) -> None:
    def step(state: dict[str, Tensor], key: Tensor) -> dict[str, Tensor]:
        first, second = threefry2x32(key[0], key[1], state["counter"], state["counter"] + 1)
        return {
            "counter": state["counter"] + 1,
            "value": (state["value"] + first * 1e-9 - second * 1e-9).tanh(),
        }

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


def test_what_was_compiled_before_waits_for_no_other_worker(files: Callable[[], list[Path]]) -> None:
    Recorded(tripled_sine, (X,))
    (compiled,) = files()
    with FileLock(compiled.with_suffix("")):  # as another worker that loads the same
        again = Recorded(tripled_sine, (X,))
    assert again.why_uncompiled is None
    torch.testing.assert_close(again(X), tripled_sine(X))


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


def test_programs_that_differ_in_a_tensor_of_their_own_alone_are_one(files: Callable[[], list[Path]]) -> None:
    for factor in (2.0, 3.0):
        table = torch.full((7,), factor)
        recorded = Recorded(lambda x, table=table, factor=factor: x * table + torch.tensor(factor), (X,))
        assert recorded.why_uncompiled is None
        assert recorded(X).tolist() == (X * factor + factor).tolist()
    assert len(files()) == 1


def test_a_disk_that_takes_no_file_is_no_reason_not_to_train(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Any, found: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(program_files.ProgramFile, "_save", full)
    recorded = Recorded(tripled_sine, (X,))
    assert recorded.why_uncompiled is None
    torch.testing.assert_close(recorded(X), tripled_sine(X))
