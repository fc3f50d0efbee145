"""CUDA texts of lane programs: they compile for real architectures, and run on an emulated thread block.

Their results are compared with those of the recorded operations, and with those of threads that run in another order.
"""

from __future__ import annotations

import ctypes
import functools
import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._decomp import get_decompositions
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from sweeps.config.settings import build, resolve
from sweeps.training.cpp import print_cpp
from sweeps.training.cuda import BLOCK, CudaError, CudaProgram, CudaText, print_cuda
from sweeps.training.loops import DECOMPOSED, LoopProgram, lower
from sweeps.training.optimizers import DOUBLE
from sweeps.training.random import seed_key, signed
from sweeps.training.settings import float_leaves
from sweeps.training.state import initial_state, tensors_of
from sweeps.training.step import LaneFunctions

ORDERS = {"ascending": 0, "descending": 1, "random": 2}
CASES: dict[str, dict[str, Any]] = {
    "nmu": {"model": "nmu"},
    "nalu": {"model": "nalu"},
    "inalu": {"model": "inalu"},
    "npu": {"model": "npu"},
    # Products of 100 inputs above 1 are not finite, and a step that is refused would show nothing.
    "gated": {"model": "gated_nau_nmu", "task": {"name": "static", "interpolation": [0.9, 1.0]}},
    "gumbel": {"model": "gumbel_nac"},
    "single module": {"model": "nmu", "task": "single_module", "train": {"optimizer": "adamax"}},
    "identity": {"model": "tanh", "task": "identity"},
    "identity nalu": {"model": "nalu", "task": "identity"},
    "pair functions": {"model": "nalu", "task": "pair_functions"},
    "odd sizes": {
        "model": {"name": "nmu", "hidden": 5},
        "task": {"name": "static", "input_size": 17},
        "train": {"batch": 33},
    },
    "noise": {
        "model": {"name": "nmu", "dropout": 0.1},
        "train": {"optimizer": "sgd", "momentum": 0.9, "gradient_noise": 0.01, "clip_norm": 0.5},
    },
}
"""Structures that use different parts of the printer. The task is `static`, where none is given."""
LARGEST = ("inalu", "npu", "gated")
"""Compiled for one architecture only."""


@dataclass(frozen=True)
class Case:
    graph: GraphModule
    arguments: list[Tensor]
    program: LoopProgram
    status: int
    """The number of the lane's status among the arguments."""
    text: CudaText


@functools.cache
def case(name: str) -> Case:
    """A training step, recorded and printed."""
    settings, faults, _ = resolve({"task": "static", **CASES[name], "train": {"steps": 1000, **CASES[name].get("train", {})}})
    assert settings is not None, faults
    built, device = build(settings), torch.device("cpu")
    task = built.task
    floats = {
        path: torch.tensor(value, dtype=torch.float64 if path in DOUBLE else torch.float32)
        for path, value in float_leaves(settings, task.evaluation_only).items()
    }
    optional = ("train.gradient_noise", "train.clip_norm", "train.clip_value", "train.momentum")
    zeros = frozenset(path for path, value in floats.items() if path in optional and float(value) == 0.0)
    floats = {path: value for path, value in floats.items() if path not in zeros}
    keys = {p: torch.tensor([signed(w) for w in seed_key(0, p)], dtype=torch.int32) for p in ("batch", "model", "noise")}
    instance = {key: torch.from_numpy(array) for key, array in task.instance(0).items()}
    state = initial_state(built, 0, device)
    example = (state, floats, keys, torch.tensor(10**6), instance, tensors_of(task.shared(), device))
    flat, spec = pytree.tree_flatten(example)
    functions = LaneFunctions(built, zeros)

    def step(*tensors: Tensor) -> list[Tensor]:
        return pytree.tree_leaves(functions.step(*pytree.tree_unflatten(list(tensors), spec)))

    with torch.no_grad():
        graph = make_fx(torch.func.functionalize(step, remove="mutations"), get_decompositions(DECOMPOSED))(
            *(t.clone() for t in flat)
        )
    graph.graph.eliminate_dead_code()
    carried = len(pytree.tree_leaves(state))
    paths = [".".join(str(key) for key in path) for path, _ in pytree.tree_flatten_with_path(state)[0]]
    status = next(k for k, path in enumerate(paths) if "status" in path)
    program = lower(graph, carried)
    return Case(graph, flat, program, status, print_cuda(program, status))


class Emulation:
    """A text, compiled for this machine, with a fibre for every thread (cuda_emulation.h)."""

    def __init__(self, text: CudaText, folder: Path) -> None:
        here = Path(__file__).parent
        parts = [(here / "cuda_emulation.h").read_text(), text.text, (here / "cuda_emulation_run.h").read_text()]
        source, library = folder / "text.cpp", folder / "text.so"
        source.write_text("\n".join(parts))
        flags = ["-std=c++17", "-O1", "-shared", "-fPIC", "-w", "-ffp-contract=off", f"-DEMULATED_THREADS={text.threads}"]
        subprocess.run([os.environ.get("CXX", "g++"), *flags, str(source), "-o", str(library)], check=True)
        self._emulate, self._text = ctypes.CDLL(str(library)).emulate, text
        pointer, whole = ctypes.c_void_p, ctypes.c_int64
        self._emulate.argtypes = (pointer, pointer, whole, pointer, whole, whole, ctypes.c_int, whole)

    def run(self, lanes: list[list[Tensor]], steps: list[int], order: str) -> None:
        """Train lanes in place."""
        pointers = torch.tensor([[t.data_ptr() for t in lane] for lane in lanes])
        counts = torch.tensor(steps)
        scratch = torch.zeros(len(lanes) * self._text.global_bytes + 64, dtype=torch.uint8)
        status = self._emulate(
            pointers.data_ptr(), counts.data_ptr(), len(lanes), scratch.data_ptr(), self._text.global_bytes,
            self._text.shared_bytes, ORDERS[order], 1,
        )  # fmt: skip
        assert status == 0, {1: "threads wait for each other", 2: "it writes beyond its memory"}[status]


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def lane(arguments: list[Tensor]) -> list[Tensor]:
    return [t.clone(memory_format=torch.contiguous_format) for t in arguments]


def bits(tensors: list[Tensor]) -> list[bytes]:
    return [t.numpy().tobytes() for t in tensors]


def assert_alike(ours: Tensor, recorded: Tensor, jittered: Tensor, what: str) -> None:
    """Equal up to rounding: by so much as the result moves where the arguments are changed by 3e-7."""
    value, want, other = ours.double(), recorded.double(), jittered.double()
    settled = want.isfinite() == other.isfinite()
    assert (value.isfinite() == want.isfinite())[settled].all(), f"{what}: other elements are not finite"
    both = settled & want.isfinite()
    if both.any():
        apart, scale = (other - want)[both].abs().max(), want[both].abs().max()
        found = (value - want)[both].abs().max()
        assert found <= 1e-5 * scale + 30 * apart, f"{what}: {found:.3g} apart, of {scale:.3g}"


@pytest.mark.parametrize("name", CASES)
def test_a_text_run_on_an_emulated_block_agrees_with_the_recorded_operations_in_any_order_of_threads(
    name: str, folder: Path
) -> None:
    made = case(name)
    emulation = Emulation(made.text, folder)
    generator = torch.Generator().manual_seed(0)
    carried, started, changed, jittered = made.program.carried, 0, lane(made.arguments), lane(made.arguments)
    reference = lane(made.arguments)
    for t in jittered:
        if t.is_floating_point():
            t.mul_(1.0 + 3e-7 * torch.randn(t.shape, generator=generator, dtype=t.dtype))
    for steps in (1, 2):
        lanes = {order: lane(changed) for order in ORDERS}
        for order, tensors in lanes.items():
            emulation.run([tensors], [steps], order)
        one, *others = [bits(tensors) for tensors in lanes.values()]
        assert all(one == other for other in others), "the order of threads matters: a barrier is missing"
        for _ in range(steps):
            with torch.no_grad():
                reference[:carried] = made.graph(*reference)
                jittered[:carried] = made.graph(*jittered)
        changed = lanes["ascending"]
        started += steps
        for k in range(carried):
            assert_alike(changed[k], reference[k], jittered[k], f"output {k} after {started} steps")
    assert bits(changed[:carried]) != bits(made.arguments[:carried])
    assert int(changed[made.status]) == 0, "a step was refused, so this case shows nothing"
    assert bits(changed[carried:]) == bits(made.arguments[carried:])


@pytest.mark.parametrize("name", ["nmu", "single module", "noise"])
def test_a_text_agrees_with_the_program_in_cpp_and_draws_the_same_random_numbers(name: str, folder: Path) -> None:
    pytest.importorskip("sweeps.training.lane_program", reason="programs in C++ have an older form here")
    made = case(name)
    source, library = folder / "lane.cpp", folder / "lane.so"
    source.write_text(print_cpp(made.program, made.status))
    flags = ["-std=c++17", "-O1", "-shared", "-fPIC", "-w", "-ffp-contract=off"]
    subprocess.run([os.environ.get("CXX", "g++"), *flags, str(source), "-o", str(library)], check=True)
    loaded = ctypes.CDLL(str(library))
    loaded.workspace.restype = ctypes.c_int64
    work = torch.zeros(loaded.workspace() + 64, dtype=torch.uint8)
    by_cpp, by_cuda = lane(made.arguments), lane(made.arguments)
    pointers, steps = torch.tensor([t.data_ptr() for t in by_cpp]), torch.ones(1, dtype=torch.int64)
    aligned = -(-work.data_ptr() // 64) * 64
    loaded.run(*(ctypes.c_void_p(p) for p in (pointers.data_ptr(), steps.data_ptr(), 1, aligned)))
    Emulation(made.text, folder).run([by_cuda], [1], "ascending")
    for k in range(made.program.carried):
        assert torch.allclose(by_cuda[k], by_cpp[k], rtol=1e-4, atol=1e-6, equal_nan=True), f"output {k}"


def test_the_emulation_finds_every_barrier_that_is_missing(tmp_path: Path) -> None:
    made = case("single module")
    parts = made.text.text.split("__syncthreads();")
    # The first barrier follows the copies of arguments; the last one is between two steps.
    for number in range(1, len(parts)):
        joined = "__syncthreads();".join([*parts[: number - 1], parts[number - 1] + parts[number], *parts[number + 1 :]])
        folder = tmp_path / str(number)
        folder.mkdir()
        emulation = Emulation(CudaText(joined, made.text.threads, made.text.shared_bytes, made.text.global_bytes), folder)
        results = set()
        for order in ORDERS:
            tensors = lane(made.arguments)
            try:
                emulation.run([tensors], [3], order)
                results.add(tuple(bits(tensors)))
            except AssertionError:  # some threads have read another number of steps or status, and have left
                results.add(())
        assert len(results) > 1 or results == {()}, f"barrier {number} of {len(parts) - 1} is not needed"


def test_lanes_make_their_own_number_of_steps_and_none_where_they_have_ended(folder: Path) -> None:
    made = case("single module")
    emulation = Emulation(made.text, folder)
    lanes = [lane(made.arguments) for _ in range(4)]
    lanes[3][made.status].fill_(2)
    emulation.run(lanes, [0, 2, 5, 5], "ascending")
    assert bits(lanes[0]) == bits(made.arguments)
    assert bits(lanes[3][: made.status]) == bits(made.arguments[: made.status])
    emulation.run(lanes[:2], [5, 3], "random")
    assert bits(lanes[0]) == bits(lanes[1]) == bits(lanes[2])


def test_bits_do_not_depend_on_what_fits_into_shared_memory(folder: Path) -> None:
    made = case("single module")
    small = print_cuda(made.program, made.status, shared_limit=1024)
    assert small.shared_bytes <= 1024 < made.text.shared_bytes
    assert small.global_bytes > 0 == made.text.global_bytes
    results = []
    for number, text in enumerate((made.text, small)):
        part = folder / str(number)
        part.mkdir()
        tensors = lane(made.arguments)
        Emulation(text, part).run([tensors], [3], "random")
        results.append(bits(tensors))
    assert results[0] == results[1]


def test_the_shared_memory_of_every_text_is_within_its_limit() -> None:
    for name in CASES:
        text = case(name).text
        assert text.threads == BLOCK and text.shared_bytes <= 99 * 1024


# ---- the compiler


@pytest.fixture
def nvrtc() -> None:
    """The compiler, which needs no device."""
    pytest.importorskip("cuda.core", reason="cuda-core is not installed")
    pytest.importorskip("cuda.bindings", reason="cuda-bindings is not installed")
    from cuda.bindings import nvrtc
    from cuda.pathfinder import DynamicLibNotFoundError

    try:
        nvrtc.nvrtcVersion()
    except DynamicLibNotFoundError:
        pytest.skip("nvidia-cuda-nvrtc is not installed")


@pytest.mark.parametrize("name", CASES)
def test_a_text_compiles_for_real_architectures(nvrtc: None, name: str) -> None:
    for arch in ("sm_90",) if name in LARGEST else ("sm_80", "sm_90"):
        assert CudaProgram(case(name).text, arch).code.startswith(b"\x7fELF")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("name", CASES)
def test_a_gpu_gives_the_bits_of_the_emulated_block(nvrtc: None, folder: Path, name: str) -> None:
    made = case(name)
    major, minor = torch.cuda.get_device_capability()
    program = CudaProgram(made.text, f"sm_{major}{minor}")
    emulated, on_device = lane(made.arguments), [[t.cuda() for t in made.arguments] for _ in range(3)]
    Emulation(made.text, folder).run([emulated], [3], "ascending")
    pointers = torch.tensor([[t.data_ptr() for t in tensors] for tensors in on_device], device="cuda")
    program.run(pointers, torch.full((3,), 3, device="cuda"))
    for tensors in on_device:
        for k, (ours, expected) in enumerate(zip(tensors, emulated, strict=True)):
            assert ours.cpu().nan_to_num(nan=7.0).equal(expected.nan_to_num(nan=7.0)), f"argument {k}"


def test_a_compiled_program_is_read_from_the_cache(nvrtc: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import cuda.core

    text = case("single module").text
    compiled = CudaProgram(text, "sm_90", tmp_path / "new folder").code
    (file,) = (tmp_path / "new folder").iterdir()
    assert file.read_bytes() == compiled

    def refuse(*arguments: Any, **options: Any) -> None:
        raise AssertionError("compiled again")

    with monkeypatch.context() as patch:
        patch.setattr(cuda.core, "Program", refuse)
        assert CudaProgram(text, "sm_90", tmp_path / "new folder").code == compiled
    file.write_bytes(b"")  # for instance of a machine that lost power
    assert CudaProgram(text, "sm_90", tmp_path / "new folder").code == compiled


def test_a_cache_that_cannot_be_written_is_no_error(nvrtc: None, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    assert CudaProgram(case("single module").text, "sm_90", tmp_path / "file").code


def test_what_does_not_compile_is_one_kind_of_error_with_the_compilers_message(nvrtc: None) -> None:
    with pytest.raises(CudaError, match=r"does not compile a program for sm_90: .*error: .*nothing.* is undefined"):
        CudaProgram(CudaText('extern "C" __global__ void run() { nothing(); }', BLOCK, 0, 0), "sm_90")


def test_without_nvidias_packages_the_error_names_the_extra_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "cuda.core", None)
    with pytest.raises(CudaError, match=r"pip install 'sweeps\[gpu\]'"):
        CudaProgram(CudaText("", BLOCK, 0, 0), "sm_90")
