"""Lane programs: a function of one lane's tensors, recorded, compiled for the device, and run over many lanes.

A recorded function is lowered (`sweeps.training.loops`), printed as C++ (`sweeps.training.cpp`) and compiled by the
system's compiler. One call runs many steps of a lane, whose values stay in the processor's cache; a lane's bits depend on
nothing but its own arguments. What has no lowering runs its recorded operations through torch's compiler, lane by lane.

When a program is compiled for the first time on a machine it runs beside the recorded operations on trial arguments; one
that disagrees beyond rounding is not used. Compiled programs are kept in the compile cache, by a digest of their text.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from filelock import FileLock
from torch import Tensor
from torch._decomp import get_decompositions
from torch._guards import TracingContext, tracing
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from sweeps.machine import use_compile_cache
from sweeps.training.compile import ProgramFolder, Recorded, in_place
from sweeps.training.cpp import header, print_cpp
from sweeps.training.cuda import CudaError, CudaProgram, CudaText, print_cuda, shared_limit
from sweeps.training.loops import DECOMPOSED, NotLowered, lower
from sweeps.training.numerics import NUMERICS

log = logging.getLogger(__name__)

Addresses = npt.NDArray[np.int64]
FLAGS = (
    "-std=c++17", "-O2", "-shared", "-fPIC", "-w",
    # Bits: products and sums are fused only where the text says so, and nothing is reordered (no -ffast-math).
    "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fwrapv",
)  # fmt: skip
WIDE = {"AVX512": ("avx2", "fma", "avx512f", "avx512vl", "avx512dq", "avx512bw"), "AVX2": ("avx2", "fma")}
"""torch's name of an instruction set -> what the compiler may use of it. No bit depends on it, see `cpp`."""
KEPT = {"source", "num_arguments", "outputs", "out_spec", "not_lowered"}
"""What is kept about a function besides its program."""
COMPILE_S = 120.0
"""Seconds after which a compiler that has not ended is stopped."""
SLACK_BYTES = 128
"""After every tensor that a program reads where it is."""
ROUNDING = 1e-4
"""Largest difference to the recorded operations, relative to the largest element, that is always taken for rounding."""
SENSITIVITY = 30.0
"""Otherwise at most so many times what the recorded operations differ after changes of the arguments of 3e-7."""


Trials = Callable[[], Sequence[tuple[Any, ...]]]
"""Returns arguments of a function, to compare its program with the recorded operations on."""


_ONE_RECORDING = threading.RLock()
"""Held while a function is recorded, and run as recorded. While the compiler works on one program another thread may record the
next."""


class CompilationFailed(Exception):
    """No program could be compiled here. The message says why and what to do."""


class Disagreement(Exception):
    """A program differs from the recorded operations. The message says where and by how much."""


class LaneProgram:
    """A function of one lane's tensors in nested containers, to be run over many lanes.

    `function(*example)` is recorded. `carried`: its first argument is a state, of which it returns the next one; a run
    makes many steps. `stops` is the name of a whole number in the state: a lane whose number is not 0 makes no step.
    `compiled`: False runs the recorded operations one by one. `identity` names what the function was made from (settings
    and source); a program that was compiled before is then loaded without a recording. `trials` returns the arguments
    on which a new program is compared with the recorded operations (none: the example). `before_recording` is called before
    a recording, and what it raises leaves the constructor. `lowered_only`: a function that has no lowering is not compiled
    otherwise, and cannot be run (`not_lowered`).
    """

    def __init__(
        self,
        function: Callable[..., Any],
        example: tuple[Any, ...],
        *,
        carried: bool,
        compiled: bool = True,
        stops: str | None = None,
        identity: str | None = None,
        trials: Trials = tuple,
        before_recording: Callable[[], None] | None = None,
        threads: int = 1,
        lowered_only: bool = False,
    ) -> None:
        self.arguments, self._spec = pytree.tree_flatten(example)
        """One lane's tensors, in the order of a program's arguments."""
        self._function, self._carried, self._before_recording = function, carried, before_recording
        self._printed_graph: GraphModule | None = None
        self.device = self.arguments[0].device
        self.num_carried = len(pytree.tree_leaves(example[0])) if carried else 0
        self.why_uncompiled: str | None = None if compiled else "compilation is switched off"
        self.not_lowered: str | None = None
        """The operation that has no lowering, where the recorded operations are compiled by torch."""
        self._native: Program | None = None
        self._recorded: Recorded | None = None
        self.outputs: list[Tensor]
        """Of a function that is not carried: one lane's results, as tensors of the right shape; their values mean nothing."""
        if compiled:
            self._compile(example, stops, identity, trials, threads)
            if self.not_lowered is not None and not lowered_only:
                log.warning(
                    "no lane program is used for %s: lanes are trained by torch's compiler one by one, many times slower",
                    self.not_lowered,
                )
        self._printed_graph = None
        if self._native is None and not (lowered_only and self.not_lowered is not None):
            with _ONE_RECORDING:
                self._record(example, compiled and self.not_lowered is not None)

    def _compile(self, example: tuple[Any, ...], stops: str | None, identity: str | None, trials: Trials, threads: int) -> None:
        files = ProgramFiles()
        name = None if identity is None else files.name_of(identity, self.arguments, self.num_carried)
        found = None if name is None else files.known(name)
        try:
            if found is None:
                if self._before_recording is not None:
                    self._before_recording()
                with _ONE_RECORDING:
                    found = self._printed(example, stops)
            source = found["source"]
            if source is not None:
                if self.device.type == "cpu":
                    self._native = self._loaded(files, source, found["num_arguments"], threads, example, trials)
                else:
                    self._native = self._loaded_on_gpu(files, CudaText(source, **found["cuda"]), example, trials)
            if name is not None and not found.pop("holds_tensors", False):
                files.remember(name, found)
            self.not_lowered = found["not_lowered"]
            self.outputs = [
                torch.zeros(shape, dtype=_dtype_named(dtype), device=self.device) for shape, dtype in found["outputs"]
            ]
            self._out_spec = None if self._carried else pytree.treespec_loads(found["out_spec"])
        except Disagreement as found_out:
            self._native, self.not_lowered = None, str(found_out)
        except CompilationFailed as failed:
            self._native, self.why_uncompiled = None, str(failed)
            log.warning("training runs uncompiled, hundreds of times slower: %s", failed)

    def _loaded(
        self, files: ProgramFiles, source: str, num_arguments: int, threads: int, example: tuple[Any, ...], trials: Trials
    ) -> NativeProgram:
        """The program of a text: one that was kept, or a new one, which is compared with the recorded operations."""
        with files.library(source) as (path, is_new):
            try:
                program = NativeProgram(path, num_arguments, threads)
            except (OSError, AttributeError) as error:  # damaged, or of another machine
                if is_new:
                    raise CompilationFailed(f"a compiled lane program cannot be loaded: {error}") from error
                program = None
            if program is not None and is_new:
                with _ONE_RECORDING:
                    self._check(program, trials() or [example])
        if program is None:
            files.forget(source)
            return self._loaded(files, source, num_arguments, threads, example, trials)
        return program

    def _loaded_on_gpu(self, files: ProgramFiles, text: CudaText, example: tuple[Any, ...], trials: Trials) -> GpuProgram:
        """The program of a text, compiled for this device; when it is new here, compared with the recorded operations."""
        major, minor = torch.cuda.get_device_capability(self.device)
        try:
            program = GpuProgram(CudaProgram(text, f"sm_{major}{minor}", files.folder), self.device)
            checked = hashlib.sha256(repr((program.code, torch.cuda.get_device_name(self.device))).encode()).hexdigest()
            if files.known(checked) is None:
                with _ONE_RECORDING:
                    self._check(program, trials() or [example])
                files.remember(checked, {"checked": True})
        except CudaError as error:
            raise CompilationFailed(str(error)) from error
        return program

    def _printed(self, example: tuple[Any, ...], stops: str | None) -> dict[str, Any]:
        """The function as C++ (None where it has no lowering), and what a process needs besides to run it."""
        graph, out_spec, outputs = self._graph(example)
        self._printed_graph = graph
        found = {
            "num_arguments": len(self.arguments) + len(outputs),
            "outputs": [[list(t.shape), str(t.dtype).removeprefix("torch.")] for t in outputs],
            "out_spec": None if self._carried else pytree.treespec_dumps(out_spec),
            "source": None, "not_lowered": None,
            # Its numbers may come from a file, which is no part of an identity.
            "holds_tensors": bool(graph.graph.find_nodes(op="get_attr")),
        }  # fmt: skip
        header()  # raises where the file is missing: an incomplete installation must not train slowly, with other numbers
        try:
            form, place = lower(graph, self.num_carried), self._place(example, stops)
            if self.device.type == "cpu":
                found["source"] = print_cpp(form, place)
            else:
                text = print_cuda(form, place, shared_limit(self.device.index or 0))
                found["source"], about = text.text, asdict(text)
                found["cuda"] = {name: value for name, value in about.items() if name != "text"}
        except NotLowered as operation:
            found["not_lowered"] = str(operation)
        except Exception as error:  # of a use of an operation that the lowering has not foreseen
            log.debug("a recorded function could not be lowered", exc_info=True)
            found["not_lowered"] = f"an operation ({type(error).__name__}: {error})"
        return found

    def _place(self, example: tuple[Any, ...], stops: str | None) -> int | None:
        if stops is None:
            return None
        paths = [path for path, _ in pytree.tree_flatten_with_path(example[0])[0]]
        return paths.index((pytree.MappingKey(stops),))

    def _graph(self, example: tuple[Any, ...]) -> tuple[GraphModule, Any, list[Tensor]]:
        """The recorded operations without changes in place, the outputs' containers, and the outputs not carried."""
        out_spec: Any = None

        def flat_function(*tensors: Tensor) -> list[Tensor]:
            nonlocal out_spec
            leaves, out_spec = pytree.tree_flatten(self._function(*pytree.tree_unflatten(list(tensors), self._spec)))
            return leaves

        # One mode for the shapes of all operations: without it make_fx makes one for each, which takes most of its time.
        shapes = TracingContext(FakeTensorMode(allow_fallback_kernels=True))
        with torch.no_grad(), tracing(shapes):
            functional = torch.func.functionalize(flat_function, remove="mutations")
            graph = make_fx(functional, _decompositions())(*(t.detach().clone() for t in self.arguments))
        graph.graph.eliminate_dead_code()
        values = [node.meta["val"] for node in list(graph.graph.nodes)[-1].args[0]]
        outputs = [] if self._carried else [torch.zeros(tuple(v.shape), dtype=v.dtype, device=v.device) for v in values]
        return graph, out_spec, outputs

    def _check(self, program: Program, trials: Sequence[tuple[Any, ...]]) -> None:
        """Raise Disagreement where the program disagrees with the recorded operations on one of the trials."""
        generator = torch.Generator().manual_seed(0)
        graph = self._printed_graph or self._graph(trials[0])[0]
        names = [str(k) for k in range(len(list(graph.graph.nodes)[-1].args[0]))]
        jittered: dict[int, list[Tensor]] = {}  # the tensors that all trials share are changed once
        for number, trial in enumerate(trials):
            arguments = pytree.tree_leaves(trial)
            with torch.no_grad():
                expected = graph(*(t.clone() for t in arguments))
            ours = run_once(program, arguments, self.num_carried, expected)
            if all(difference(value, want, [want]) is None for value, want in zip(ours, expected, strict=True)):
                continue  # no need to see what small changes do
            for t in arguments:
                if id(t) not in jittered:
                    jittered[id(t)] = [_jittered(t, generator) for _ in range(4)]
            with torch.no_grad():
                changed = [graph(*(jittered[id(t)][k].clone() for t in arguments)) for k in range(4)]
            for name, value, want, *others in zip(names, ours, expected, *changed, strict=True):
                wrong = difference(value, want, others)
                if wrong is not None:
                    raise Disagreement(
                        f"a program that disagrees with the recorded operations (result {name} of trial {number}: {wrong}; "
                        "please report it with the sweep file)"
                    )

    def _record(self, example: tuple[Any, ...], compiled: bool) -> None:
        function = in_place(self._function) if self._carried else self._function
        self._own = pytree.tree_map(lambda t: t.detach().clone(), example)
        self._recorded = Recorded(function, self._own, compiled)
        if compiled:
            self.why_uncompiled = self._recorded.why_uncompiled
        if not self._carried:
            leaves, self._out_spec = pytree.tree_flatten(self._recorded(*self._own))
            self.outputs = [torch.zeros_like(t) for t in leaves]
        else:
            self.outputs, self._out_spec = [], None

    @property
    def is_native(self) -> bool:
        """Whether one call runs many steps of a lane in compiled code."""
        return self._native is not None

    def new_outputs(self, count: int) -> Any:
        """Return stacked tensors for the results of so many lanes, in the function's containers."""
        stacked = [torch.zeros((count, *t.shape), dtype=t.dtype, device=t.device) for t in self.outputs]
        assert self._out_spec is not None, "a carried state is its own result"
        return pytree.tree_unflatten(stacked, self._out_spec)

    def run(self, lanes: Lanes, which: npt.NDArray[np.int64], steps: npt.NDArray[np.int64]) -> None:
        """Run the lanes `which`, each so many steps: carried state is changed in place, other results are written."""
        if self._native is not None:
            self._native.run(lanes.addresses[which], steps)
            return
        assert self._recorded is not None
        own = pytree.tree_leaves(self._own)
        for k, count in zip(which.tolist(), steps.tolist(), strict=True):
            mine = lanes.of(k)
            for target, value in zip(own, mine, strict=False):
                target.copy_(value)
            if self._carried:
                self._recorded.bind(*self._own)(count)
                for value, new in zip(mine[: self.num_carried], own[: self.num_carried], strict=True):
                    value.copy_(new)
            else:
                results = pytree.tree_leaves(self._recorded(*self._own))
                for value, new in zip(mine[len(own) :], results, strict=True):
                    value.copy_(new)


@dataclass
class Lanes:
    """Where the arguments of many lanes are: stacked tensors, a row a lane, and rows that several lanes share.

    `leaves` has the tensors in the order of a program's arguments, then those of its results; `rows` the row of every lane
    in each (None: the lane's own number).
    """

    leaves: list[Tensor]
    rows: list[npt.NDArray[np.int64] | None]
    count: int

    def __post_init__(self) -> None:
        own = np.arange(self.count, dtype=np.int64)
        columns = []
        for leaf, rows in zip(self.leaves, self.rows, strict=True):
            assert leaf.is_contiguous(), "a program reads contiguous tensors"
            stride = leaf.element_size() * (leaf[0].numel() if len(leaf) else 0)
            columns.append(leaf.data_ptr() + stride * (own if rows is None else rows))
        self.addresses: Addresses = np.stack(columns, axis=1) if columns else np.zeros((self.count, 0), np.int64)

    def of(self, k: int) -> list[Tensor]:
        """One lane's tensors."""
        return [leaf[k if rows is None else int(rows[k])] for leaf, rows in zip(self.leaves, self.rows, strict=True)]


def with_slack(tensor: Tensor) -> Tensor:
    """Return the same numbers in memory of which the bytes after the last one can be read, as programs need it."""
    extra = -(-SLACK_BYTES // tensor.element_size())
    memory = torch.zeros(tensor.numel() + extra, dtype=tensor.dtype, device=tensor.device)
    result = memory[: tensor.numel()].view(tensor.shape)
    result.copy_(tensor)
    return result


class Program(ABC):
    """A compiled program."""

    @abstractmethod
    def run(self, addresses: Addresses, steps: npt.NDArray[np.int64]) -> None:
        """Run a lane for every row of addresses, each so many steps. On a GPU they may still be running on return."""


class GpuProgram(Program):
    """A compiled program for a GPU: a lane is a thread block."""

    def __init__(self, program: CudaProgram, device: torch.device) -> None:
        self._program, self._device = program, device
        self.code = program.code

    def run(self, addresses: Addresses, steps: npt.NDArray[np.int64]) -> None:
        on_device = [torch.from_numpy(np.ascontiguousarray(x, np.int64)).to(self._device) for x in (addresses, steps)]
        self._program.run(*on_device)


class NativeProgram(Program):
    """A compiled program for the CPU. Several threads take lanes in turn, each with a workspace of its own."""

    def __init__(self, path: Path, num_arguments: int, threads: int = 1) -> None:
        """Raises OSError where the file is no library."""
        library = ctypes.CDLL(str(path))
        library.workspace.restype = ctypes.c_int64
        self._run = library.run
        self._run.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p)
        self._run.restype = None
        self._num_arguments = num_arguments
        # Every byte set is a NaN: what a program reads before it has written it is seen.
        self._memory = [np.full(library.workspace() + 64, 0xFF, np.uint8) for _ in range(threads)]
        self._workspaces = [-(-m.ctypes.data // 64) * 64 for m in self._memory]

    def run(self, addresses: Addresses, steps: npt.NDArray[np.int64]) -> None:
        """Run a lane for every row of addresses."""
        addresses, steps = np.ascontiguousarray(addresses, np.int64), np.ascontiguousarray(steps, np.int64)
        assert addresses.shape == (len(steps), self._num_arguments)
        if len(self._workspaces) == 1 or len(steps) == 1:
            self._part(addresses, steps, self._workspaces[0])
            return
        waiting = iter(range(len(steps)))  # next() is one operation of the interpreter: no lane is taken twice

        def worker(workspace: int) -> None:
            for k in waiting:
                self._part(addresses[k : k + 1], steps[k : k + 1], workspace)

        for done in [_pool(len(self._workspaces)).submit(worker, w) for w in self._workspaces]:
            done.result()

    def _part(self, addresses: Addresses, steps: npt.NDArray[np.int64], workspace: int) -> None:
        self._run(addresses.ctypes.data, steps.ctypes.data, len(steps), workspace)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="lanes")


def run_once(program: Program, arguments: Sequence[Tensor], num_carried: int, like: Sequence[Tensor]) -> list[Tensor]:
    """Return the results of one step of one lane; `like` are tensors of their shapes."""
    own = [with_slack(t) for t in arguments]
    outputs = [with_slack(torch.full_like(t, 77)) for t in like[num_carried:]]
    addresses = np.array([[t.data_ptr() for t in (*own, *outputs)]], np.int64)
    program.run(addresses, np.ones(1, np.int64))
    return [*own[:num_carried], *outputs]


def difference(value: Tensor, want: Tensor, others: Sequence[Tensor]) -> str | None:
    """Return how a result differs from the recorded operations' beyond rounding, or None.

    `others` are those of slightly changed arguments: a result may differ as much as they do, and in numbers that they
    leave open.
    """
    value, want, others = value.double(), want.double(), [o.double() for o in others]
    settled = torch.stack([o.isfinite() == want.isfinite() for o in others]).all(0)
    if not (value.isfinite() == want.isfinite())[settled].all():
        return "other elements are not finite"
    both = settled & want.isfinite() & value.isfinite()
    if not both.any():
        return None
    scale = want[both].abs().max()
    apart = max((float((o - want)[both].abs().max()) for o in others), default=0.0)
    found = float((value - want)[both].abs().max())
    if found <= ROUNDING * float(scale) + SENSITIVITY * apart:
        return None
    return f"{found:.3g} apart, of {float(scale):.3g}; small changes of the arguments move it by {apart:.3g}"


@cache
def _decompositions() -> dict[Any, Callable[..., Any]]:
    """Operations that are recorded as several simpler ones."""
    return get_decompositions(DECOMPOSED)


def _jittered(t: Tensor, generator: torch.Generator) -> Tensor:
    if not t.is_floating_point():
        return t.clone()
    noise = torch.randn(t.shape, generator=generator).to(t.device)
    return (t.double() * (1.0 + 3e-7 * noise.double())).to(t.dtype)


def _dtype_named(name: str) -> torch.dtype:
    found = {str(t).removeprefix("torch."): t for t in (torch.float32, torch.float64, torch.int32, torch.int64, torch.bool)}
    return found[name]


# ---- files ------------------------------------------------------------------------------------------------------------


class ProgramFiles:
    """Compiled programs in the compile cache, named by digests of their text, the compiler and its options."""

    def __init__(self) -> None:
        if why := use_compile_cache():
            log.warning("%s", why)
        self._folder = ProgramFolder(Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]))
        self.folder = self._folder.path

    def name_of(self, identity: str, arguments: Sequence[Tensor], num_carried: int) -> str:
        """Return the name of what `remember` keeps about a function."""
        shapes = [(tuple(t.shape), str(t.dtype)) for t in arguments]
        devices = {torch.cuda.get_device_name(t.device) for t in arguments if t.is_cuda}
        depends_on = [identity, shapes, num_carried, NUMERICS, torch.__version__, _engine_digest(), sorted(devices)]
        return hashlib.sha256(repr(depends_on).encode()).hexdigest()[:32]

    def known(self, name: str) -> dict[str, Any] | None:
        """Return what was kept under a name, None where there is nothing that can be used."""
        with suppress(OSError, ValueError):
            if self._folder.is_private():
                path = self._folder.path / f"{name}.json"
                found = json.loads(path.read_text())
                path.touch()  # its last use
                if isinstance(found, dict) and ("checked" in found or KEPT <= found.keys()):
                    return found
        return None

    def remember(self, name: str, found: dict[str, Any]) -> None:
        self._write(self._folder.path / f"{name}.json", json.dumps(found).encode())

    @contextmanager
    def library(self, source: str) -> Iterator[tuple[Path, bool]]:
        """The library of a text, and whether it is compiled now: then it is kept if the block raises nothing.

        Of two processes that need one missing program the second waits, then loads what the first compiled. Raises
        CompilationFailed.
        """
        path = self._path(source)
        if self._is_kept(path):
            with suppress(OSError):
                path.touch()  # its last use
            yield path, False
            return
        with self._lock(path.with_suffix(".lock")):
            if self._is_kept(path):
                yield path, False
                return
            with _room_for_compilation(self._folder.path) as folder:
                library = compile_cpp(source, folder)
                yield library, True
                self._write(path, library.read_bytes())
                self._folder.remove_unused()

    def forget(self, source: str) -> None:
        """Remove the library of a text. Where that cannot be done, nothing of this folder is used any more."""
        try:
            self._path(source).unlink()
        except OSError:
            self._folder = ProgramFolder(Path(os.devnull))

    def _is_kept(self, path: Path) -> bool:
        return self._folder.is_private() and path.is_file()

    @contextmanager
    def _lock(self, path: Path) -> Iterator[None]:
        try:
            lock = FileLock(path)
            lock.acquire(timeout=2 * COMPILE_S)
        except (OSError, TimeoutError):  # a full or read-only disk: both compile
            yield
            return
        try:
            yield
        finally:
            lock.release()

    def _path(self, source: str) -> Path:
        digest = hashlib.sha256("\0".join([source, *command()]).encode())
        digest.update(_version_of(command()[0]).encode())
        return self._folder.path / f"{digest.hexdigest()[:32]}.so"

    def _write(self, path: Path, data: bytes) -> None:
        """Write a file whole or not at all; where that cannot be done, nothing is kept."""
        temporary: Path | None = None
        try:
            if self._folder.is_private():
                descriptor, name = tempfile.mkstemp(prefix="new-", dir=self._folder.path)
                temporary = Path(name)
                with os.fdopen(descriptor, "wb") as file:
                    file.write(data)
                temporary.replace(path)
        except OSError as error:  # the file saves time and is no part of any result
            log.debug("a compiled program was not kept: %s", error)
            if temporary is not None:
                with suppress(OSError):
                    temporary.unlink()


@cache
def _engine_digest() -> str:
    here = Path(__file__).parent
    text = b"".join(path.read_bytes() for path in sorted((*here.glob("*.py"), *here.glob("*.h"))))
    return hashlib.sha256(text).hexdigest()


@contextmanager
def _room_for_compilation(cache: Path) -> Iterator[Path]:
    """A folder for the compiler's files: in the cache, whose libraries can be loaded, a temporary one, or one in memory."""
    for parent in (cache, tempfile.gettempdir(), "/dev/shm"):
        with suppress(OSError):
            folder = Path(tempfile.mkdtemp(prefix="sweeps-compile-", dir=parent))
            break
    else:
        raise CompilationFailed(f"there is no room to compile in {tempfile.gettempdir()}: free some, or set TMPDIR")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def compile_cpp(source: str, folder: Path, extra: Sequence[str] = ()) -> Path:
    """Compile a text into a library in a folder. Raises CompilationFailed with the compiler's first error."""
    text, library = folder / "lane.cpp", folder / "lane.so"
    words = [*command(), *extra]
    try:
        text.write_text(source)
        done = subprocess.run(
            [*words, "-o", str(library), str(text)], capture_output=True, text=True, timeout=COMPILE_S, check=False,
            env={**os.environ, "TMPDIR": str(folder), "LC_ALL": "C"},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CompilationFailed(f"{words[0]} could not compile a lane program: {error}") from error
    if done.returncode or not library.is_file():
        errors = [line for line in done.stderr.splitlines() if "error" in line.lower()] or [f"exit status {done.returncode}"]
        raise CompilationFailed(
            f"{words[0]} could not compile a lane program ({errors[0].strip()[:300]}): g++ from version 9 or clang++ from 12 "
            "can; CXX names another compiler"
        )
    return library


@cache
def command() -> tuple[str, ...]:
    """Return the compiler and its options for this machine."""
    words = os.environ.get("CXX", "").split() or ["clang++" if sys.platform == "darwin" else "g++"]
    wide: tuple[str, ...] = ()
    if platform.machine() in ("x86_64", "AMD64"):
        names = WIDE.get(torch.backends.cpu.get_cpu_capability(), ())
        wide = (*(f"-m{name}" for name in names), *(["-mprefer-vector-width=512"] if "avx512f" in names else []))
    return (*words, *FLAGS, *wide)


@cache
def _version_of(compiler: str) -> str:
    try:
        return subprocess.run([compiler, "--version"], capture_output=True, text=True, timeout=20, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
