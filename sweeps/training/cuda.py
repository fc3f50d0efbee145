"""CUDA of a loop program: a lane is a thread block, and its values stay in shared memory for as many steps as a launch has.

How a step runs. Nests become phases with a barrier after each. A nest goes to the first phase in which everything that it
reads is there; nests of one phase that run over the same loops become one. Scalars are computed by one thread of a warp of its
own, beside the loops of the others. What is small goes to shared memory, the rest to the block's part of a scratch area in
global memory. No bit depends on where a value is.

The order of every sum is a property of the text, and independent of the number of lanes, their place and the device:
- Over all points of a nest: a thread adds its points (every `THREADS`th) in their order; the 32 sums of a warp are added in
  pairs of distance 16, 8, 4, 2, 1; the sums of warps are added as a balanced tree where the result is read.
- Over some loops of a nest (a product, for instance): the `_Tiles` of the nest have the number of copies, the threads of a
  group, and the elements of a chunk. A thread adds the chunks of its copy and place in the group, in their order. Threads of a
  group are added in pairs of distance group / 2, ..., 2, 1, and copies as a balanced tree where the result is read.
- Running products and sums: in their order, by one thread.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps.training.cpp import OPERATORS, OUTSIDE, SCALARS, header, literal, operation
from sweeps.training.loops import IDENTITY, Accumulator, Axis, Buffer, Index, LoopProgram, Nest, NotLowered, Store, Value

if TYPE_CHECKING:
    import torch

THREADS = 256
"""Threads of a block that run loops. One warp more computes scalars, so that its long chains of operations delay nobody."""
WARP = 32
WARPS = THREADS // WARP
BLOCK = THREADS + WARP
RESIDENT = 3
"""Blocks of a multiprocessor that get registers, where it has shared memory for so many."""
MULTIPROCESSOR_BYTES = 228 * 1024
"""Shared memory of a multiprocessor of compute capability 9.0; a block takes 1 KB more than it asks for."""
SCRATCH_BYTES = 2**31
"""Of global memory for a launch: more lanes have several launches, one after another."""
SHARED_LIMIT = 99 * 1024
"""Bytes of shared memory that a block may have on every device from compute capability 8.0 on."""
CARRIED_OVER = 12
"""Operations of a scalar that every thread computes again, rather than wait for the one thread that computes scalars."""
MOST_COPIES = 8
"""Threads that share the sum of one element without exchanging partial sums: readers add them."""
COPIED_BYTES = 24 * 1024
"""Of partial sums that readers add."""
REGISTERS = 32
"""Accumulators of a thread."""
AHEAD = 10
"""Elements of a running product that are read before the first of them is used."""
UNROLLED_VALUES = 48
"""Values of a loop body that is written several times, so that several points are under way at once."""
SIZES = {"f32": 4, "f64": 8, "i32": 4, "i64": 8, "bool": 4}
COSTS = {"div": 10, "sqrt": 10, "exp": 25, "log": 30, "log1p": 40, "expm1": 35, "tanh": 40, "sin": 60, "cos": 60, "pow": 200,
         "remainder": 25, "floor": 8, "threefry": 50, "const": 0, "first": 0, "second": 0}  # fmt: skip
"""Instructions of an operation; of the others: 1."""
OPTIONS: dict[str, Any] = {"std": "c++17", "fma": False}
"""Of the compiler. A multiply-add is fused only where the text has `fma_`."""
INSTALL = "Install it with: pip install 'sweeps[gpu]'"
COMBINED = {
    "add": "Add",
    "multiply_add": "Add",
    "mul": "Mul",
    "maximum": "Maximum",
    "minimum": "Minimum",
    "and": "And",
    "or": "Or",
}

PRELUDE = """
// ---- sums over threads

struct Add { template <class T> INLINE_MEMBER T of(T a, T b) { return a + b; } };
struct Mul { template <class T> INLINE_MEMBER T of(T a, T b) { return a * b; } };
struct And { template <class T> INLINE_MEMBER T of(T a, T b) { return a & b; } };
struct Or { template <class T> INLINE_MEMBER T of(T a, T b) { return a | b; } };
struct Maximum { template <class T> INLINE_MEMBER T of(T a, T b) { return maximum_(a, b); } };
struct Minimum { template <class T> INLINE_MEMBER T of(T a, T b) { return minimum_(a, b); } };
// Combine V values of G neighbouring threads each (powers of 2). Of V totals, thread k of the group has those from
// k * V / G on in a[0], a[1], ... (if V >= G), or number k * V / G in a[0]. All threads of the warp must take part.
template <class O, int G, int V, class T> INLINE void combine(T* a, int lane) {
  if constexpr (G > 1 && V > 1) {
    const bool upper = lane & (G / 2);
#pragma unroll
    for (int k = 0; k < V / 2; k++) {
      const T mine = upper ? a[k + V / 2] : a[k], other = upper ? a[k] : a[k + V / 2];
      a[k] = O::of(mine, __shfl_xor_sync(0xffffffffu, other, G / 2));
    }
    combine<O, G / 2, V / 2>(a, lane);
  } else if constexpr (G > 1) {
    a[0] = O::of(a[0], __shfl_xor_sync(0xffffffffu, a[0], G / 2));
    combine<O, G / 2, 1>(a, lane);
  }
}
"""


@dataclass(frozen=True)
class CudaText:
    text: str
    """A translation unit with `run(pointers, steps, scratch)`: one block a lane, `THREADS` threads a block."""
    threads: int
    shared_bytes: int
    """Of dynamic shared memory."""
    global_bytes: int
    """Of scratch for one block; its blocks follow each other, aligned to 16."""


class CudaError(RuntimeError):
    """A program for CUDA cannot be compiled or run. The message says what to do."""


class CudaProgram:
    """A compiled text. Compiling needs NVIDIA's packages, but no device."""

    def __init__(self, text: CudaText, arch: str, cache: Path | None = None) -> None:
        """`arch`: for instance sm_90. `cache`: a folder of compiled programs; that it is read-only or full is no error."""
        self._text, self._arch = text, arch
        self._kernels: dict[int, Any] = {}
        try:
            from cuda.bindings import nvrtc
            from cuda.core import Program, ProgramOptions

            status, *version = nvrtc.nvrtcVersion()
        except ImportError as error:
            raise CudaError(f"programs for a GPU need NVIDIA's cuda-core package: {error}. {INSTALL}") from error
        except Exception as error:  # the loader of libraries raises several kinds, and all have this one remedy
            raise CudaError(
                f"programs for a GPU need NVIDIA's run-time compiler NVRTC: {_first_line(error)}. {INSTALL}"
            ) from error
        if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            raise CudaError(f"NVIDIA's run-time compiler NVRTC does not work: {status}. {INSTALL}")
        identity = repr((text.text, arch, sorted(OPTIONS.items()), version))
        file = cache / f"{hashlib.sha256(identity.encode()).hexdigest()}.cubin" if cache is not None else None
        code = _read(file) if file is not None else None
        if code is None:
            try:
                code = Program(text.text, "c++", ProgramOptions(arch=arch, name="lane", **OPTIONS)).compile("cubin").code
            except Exception as error:  # NVRTC's errors, and those of options that it does not have
                raise CudaError(
                    f"NVRTC {'.'.join(map(str, version))} does not compile a program for {arch}: {_first_error(error)}. "
                    "Update nvidia-cuda-nvrtc, or train on the CPU"
                ) from error
            if file is not None:
                _write(file, code)
        self.code: bytes = code
        """The machine code: a cubin."""

    def run(self, pointers: torch.Tensor, steps: torch.Tensor) -> None:
        """Train lanes on the tensors' device, in torch's current stream: see `print_cuda`. Returns before they are trained.

        `pointers`: int64 [lanes, arguments]; `steps`: int64 [lanes]. What they point to must not be freed before.
        """
        import torch
        from cuda.core import LaunchConfig, launch

        count = len(steps)
        if not count:
            return
        with torch.cuda.device(pointers.device):
            kernel = self._kernel(pointers.device.index or 0)
            at_once = min(count, max(1, SCRATCH_BYTES // max(1, self._text.global_bytes)))
            scratch = torch.empty(at_once * self._text.global_bytes, dtype=torch.uint8, device=pointers.device)
            stream = torch.cuda.current_stream()
            for tensor in (pointers, steps):  # the launch does not pass through torch
                tensor.record_stream(stream)
            try:
                for first in range(0, count, at_once):
                    lanes = min(at_once, count - first)
                    config = LaunchConfig(grid=lanes, block=self._text.threads, shmem_size=self._text.shared_bytes)
                    addresses = (pointers[first:].data_ptr(), steps[first:].data_ptr(), scratch.data_ptr())
                    launch(_Stream(stream.cuda_stream), config, kernel, *addresses)
            except Exception as error:  # cuda-core raises its own kind
                raise CudaError(f"a program for {self._arch} does not start on the GPU: {_first_line(error)}") from error

    def _kernel(self, device: int) -> Any:
        """The program on a device, ready to run."""
        if device in self._kernels:
            return self._kernels[device]
        from cuda.bindings import driver
        from cuda.core import Device, ObjectCode

        try:
            Device(device).set_current()
            there = Device(device).properties.max_shared_memory_per_block_optin
            if self._text.shared_bytes > there:
                raise CudaError(
                    f"a program needs {self._text.shared_bytes:,} bytes of shared memory, and a block of device {device} has "
                    f"{there:,}. Print it with shared_limit={there}"
                )
            kernel = ObjectCode.from_cubin(self.code).get_kernel("run")
            known = driver.CUfunction_attribute
            # A multiprocessor divides its memory into cache and shared memory: all to the latter, so that it holds more blocks.
            wanted = {
                known.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES: self._text.shared_bytes,
                known.CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT: 100,
            }
            results = [driver.cuKernelSetAttribute(key, value, kernel.handle, device)[0] for key, value in wanted.items()]
        except CudaError:
            raise
        except Exception as error:  # cuda-core raises its own kind
            raise CudaError(
                f"a program for {self._arch} cannot be loaded on device {device}: {_first_line(error)}. "
                "Compile it for the device's own architecture"
            ) from error
        if any(status != driver.CUresult.CUDA_SUCCESS for status in results):
            raise CudaError(
                f"device {device} refuses {self._text.shared_bytes:,} bytes of shared memory for a block: {results}"
            )
        self._kernels[device] = kernel
        return kernel


def shared_limit(device: int) -> int:
    """Bytes of shared memory for `print_cuda` on a device: on large ones so much that a multiprocessor holds two blocks."""
    from cuda.core import Device

    properties = Device(device).properties
    half = properties.max_shared_memory_per_multiprocessor // 2 - 1024  # the system takes 1 KB of every block
    return min(properties.max_shared_memory_per_block_optin, max(SHARED_LIMIT, half))


class _Stream:
    """torch's stream, as cuda-core takes streams of other packages."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self._handle


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or repr(error)).splitlines()[0][:300]


def _first_error(error: BaseException) -> str:
    """The compiler's first error in its log, else the first line."""
    lines = str(error).splitlines()
    return next((line.strip()[:300] for line in lines if "error:" in line), _first_line(error))


def _read(file: Path) -> bytes | None:
    with contextlib.suppress(OSError):
        code = file.read_bytes()
        if code.startswith(b"\x7fELF"):
            return code
    return None


def _write(file: Path, code: bytes) -> None:
    """Write a file at once, or not at all: other processes read it."""
    part = file.with_suffix(f".{os.getpid()}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(code)
        part.replace(file)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink()


def print_cuda(program: LoopProgram, stops: int | None = None, shared_limit: int = SHARED_LIMIT) -> CudaText:
    """Print `run`: block k trains lane k for steps[k] steps. Argument j of lane k is at pointers[k * arguments + j], dense;
    inputs come first, then the outputs that are not carried. `stops` is the number of a carried whole number that ends a lane's
    steps where it is not 0. `shared_limit`: bytes of shared memory that a block may have. Raises NotLowered.
    """
    return _Printer(program, stops, shared_limit).printed()


# ---- loops over threads: which thread computes what -------------------------------------------------------------------


@dataclass(frozen=True)
class _Tiles:
    """How a nest with a reduction runs.

    A tile is `rows` neighbouring elements of `kept[-1]`; a chunk is `columns` neighbouring elements of `reduced[-1]`. Chunks
    are dealt out to `copies`, which have results of their own, and in each to the threads of a `group`. With group = 1,
    neighbouring threads have neighbouring tiles, else neighbouring chunks.
    """

    kept: tuple[Axis, ...]
    reduced: tuple[Axis, ...]
    rows: int
    columns: int
    group: int
    copies: int

    @property
    def tiles(self) -> int:
        return math.prod(a.size for a in self.kept) // self.rows

    @property
    def chunks(self) -> int:
        return math.prod(a.size for a in self.reduced) // self.columns


def _decoded(axes: Sequence[Axis], number: int, step: int = 1) -> dict[Axis, int]:
    """The loop variables at a point; `step` elements of the innermost loop are one."""
    found = {}
    for k, axis in enumerate(reversed(axes)):
        size = axis.size // step if k == 0 else axis.size
        found[axis] = number % size * (step if k == 0 else 1)
        number //= size
    return found


def _wavefronts(index: Index, lanes: Sequence[dict[Axis, int]], width: int) -> int:
    """Cycles that shared memory takes for one access of a warp: words in the same bank are read one after another."""
    total = 0
    at_once = WARP // width
    addresses = [sum(c * lane.get(axis, 0) for axis, c in index.terms) for lane in lanes]
    if len(set(addresses)) <= at_once:
        addresses = sorted(set(addresses))
    for first in range(0, len(addresses), at_once):
        words = {a + k for a in addresses[first : first + at_once] for k in range(width)}
        banks: dict[int, int] = {}
        for word in words:
            banks[word % WARP] = banks.get(word % WARP, 0) + 1
        total += max(banks.values())
    return total


def _point_order(nest: Nest) -> tuple[Axis, ...]:
    """Loops of a nest without reductions, outermost first: neighbouring threads have neighbouring elements of the last."""
    if len(nest.kept) < 2:
        return tuple(nest.kept)
    indices = [i for _, i in nest.loads() if i.terms] + [s.address for s in nest.stores]

    def order(last: Axis) -> tuple[Axis, ...]:
        rest = sorted(nest.kept - {last}, key=lambda a: (-sum(abs(i.factor(a)) for i in indices), a))
        return (*rest, last)

    def cost(last: Axis) -> tuple[float, Axis]:
        axes = order(last)
        lanes = [_decoded(axes, k) for k in range(min(WARP, math.prod(a.size for a in axes)))]
        return sum(_wavefronts(i, lanes, 1) for i in indices), last

    return order(min(nest.kept, key=cost))


def _divisors(size: int, candidates: Iterable[int]) -> list[int]:
    return [n for n in candidates if size % n == 0]


def _plan(nest: Nest) -> _Tiles:
    """Of all ways to run a reduction the one with the lowest estimate of cycles."""
    if any(a.prefixes for a in nest.accumulators):
        (running,) = nest.reduced
        columns = max(_divisors(running.size, range(1, AHEAD + 1)))
        return _Tiles(_innermost(nest, nest.kept), (running,), 1, columns, 1, 1)
    results = sum(SIZES[a.dtype] for a in nest.accumulators) * math.prod(a.size for a in nest.kept)
    found: list[tuple[float, int, _Tiles]] = []
    for last in sorted(nest.kept):
        kept = (*sorted(nest.kept - {last}), last)
        for inner in sorted(nest.reduced):
            reduced = (*sorted(nest.reduced - {inner}), inner)
            for rows in _divisors(last.size, (1, 2, 4, 8)):
                if rows * len(nest.accumulators) > REGISTERS:
                    continue
                for columns in _divisors(inner.size, (1, 2, 4)):
                    if rows * columns * len(nest.values) > 400 and rows * columns > 1:
                        continue
                    for group in (1, 4, 8, 16, 32):
                        copies = 1
                        while copies <= MOST_COPIES:
                            tiles = _Tiles(kept, reduced, rows, columns, group, copies)
                            if copies * results <= max(COPIED_BYTES, results) and copies * group <= tiles.chunks:
                                found.append((_estimate(nest, tiles), len(found), tiles))
                            copies *= 2
    return min(found)[2]


def _innermost(nest: Nest, axes: frozenset[Axis]) -> tuple[Axis, ...]:
    """Loops with the one along which most is contiguous last."""
    indices = [i for _, i in nest.loads()] + [a.address for a in nest.accumulators]
    return tuple(sorted(axes, key=lambda axis: (sum(abs(i.factor(axis)) == 1 for i in indices), axis)))


def _estimate(nest: Nest, p: _Tiles) -> float:
    """Cycles of a multiprocessor that has nothing else to do: four warps issue at a time, one reads shared memory."""
    row, column = p.kept[-1] if p.kept else None, p.reduced[-1]
    lanes = []
    for lane in range(WARP):
        tile, chunk = lane // p.group % p.tiles, lane % p.group % p.chunks
        lanes.append(_decoded(p.kept, tile, p.rows) | _decoded(p.reduced, chunk, p.columns))
    issued = memory = issued_once = memory_once = 0.0
    for value in nest.values:
        rows, columns = (p.rows if row in value.axes else 1), (p.columns if column in value.axes else 1)
        many = rows * columns
        if value.op == "load":
            index = value.args[1]
            width = 1
            if row is not None and index.factor(row) == 1:
                width = rows
            elif index.factor(column) == 1:
                width = columns
            width = min(4, width)
            if index.constant % width or any(c % width for a, c in index.terms if abs(c) != 1):
                width = 1
            cycles = _wavefronts(index, lanes, width) * many / width
            cost = many / width
        else:
            cost, cycles = COSTS.get(value.op, 1) * many, 0.0
        if value.axes & set(p.reduced):
            issued, memory = issued + cost, memory + cycles
        else:
            issued_once, memory_once = issued_once + cost, memory_once + cycles
    accumulators = len(nest.accumulators)
    issued += p.rows * p.columns * accumulators + 4
    values = p.rows * accumulators
    left, exchanged = p.group, 0.0
    while left > 1:
        exchanged += 4 * (values // 2) if values > 1 else 2
        values, left = max(1, values // 2), left // 2
    issued_once += exchanged + 10 + p.rows * accumulators
    memory_once += exchanged / 4 + p.rows * accumulators
    threads = p.group * p.copies * p.tiles
    rounds = -(-threads // THREADS)
    warps = min(WARPS, -(-threads // WARP))
    iterations = -(-p.chunks // (p.group * p.copies))
    share = 1 if warps >= 4 else 4 / warps
    busy = (issued * iterations + issued_once) * rounds * warps / 4 * share
    reading = (memory * iterations + memory_once) * rounds * warps
    latency = rounds * (iterations * (issued + 35) + issued_once) + 100
    read_later = 4.0 * accumulators * p.copies
    return max(busy, reading, latency) + 0.3 * (busy + reading) + read_later


# ---- nests to phases --------------------------------------------------------------------------------------------------


class _Builder:
    """The values of several nests as one; equal values are one."""

    def __init__(self) -> None:
        self.values: list[Value] = []
        self._known: dict[Any, Value] = {}

    def value(self, op: str, dtype: str, args: tuple[Any, ...], axes: frozenset[Axis]) -> Value:
        key = (op, dtype, *((id(a) if isinstance(a, Value | Buffer) else (type(a), repr(a))) for a in args))
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = Value(op, dtype, args, axes)
            self.values.append(found)
        return found


def _address_key(buffer: Buffer, index: Index) -> tuple[int, Index]:
    return id(buffer), index


@dataclass
class _Group:
    """A nest in a phase: of several nests of the program over the same loops."""

    phase: int
    order: tuple[Axis, ...]
    nest: Nest
    builder: _Builder = field(default_factory=_Builder)
    written: dict[tuple[int, Index], Value] = field(default_factory=dict)
    tiles: _Tiles | None = None
    """Of a reduction."""
    first_warp: int = 0

    def add(self, nest: Nest) -> None:
        new: dict[int, Value] = {}
        for value in nest.values:
            stored = self.written.get(_address_key(*value.args)) if value.op == "load" else None
            if stored is None:
                args = tuple(new[id(a)] if isinstance(a, Value) else a for a in value.args)
                stored = self.builder.value(value.op, value.dtype, args, value.axes)
            new[id(value)] = stored
        for s in nest.stores:
            value = new[id(s.value)]
            key = _address_key(s.buffer, s.address)
            if key in self.written:
                self.nest.stores = [o for o in self.nest.stores if _address_key(o.buffer, o.address) != key]
            self.written[key] = value
            self.nest.stores.append(Store(s.buffer, s.address, value, s.exact))
        for a in nest.accumulators:
            self.nest.accumulators.append(replace(a, values=tuple(new[id(v)] for v in a.values)))
        self.nest.values = self.builder.values
        self.nest.names += nest.names


class _CarriedOver:
    """Lets loops compute cheap scalars themselves, so that they need not wait for the thread that computes scalars."""

    def __init__(self, nests: list[Nest]) -> None:
        self._nests = nests
        self._defined: dict[tuple[int, Index], tuple[Value, int]] = {}
        """The last value of an element that a nest of scalars has stored, and the number of that nest."""
        self._reader = 0
        self._costs: dict[int, int] = {}
        self._new: dict[int, Value] = {}
        """Values of the reader, by the identity of those that they replace."""
        self._builder = _Builder()

    def nests(self) -> list[Nest]:
        result: list[Nest] = []
        for number, nest in enumerate(self._nests):
            if nest.kept or nest.reduced:
                result.append(self._rebuilt(number, nest))
                continue
            result.append(nest)
            for s in nest.stores:
                self._defined[_address_key(s.buffer, s.address)] = (s.value, number)
        return result

    def _rebuilt(self, number: int, nest: Nest) -> Nest:
        self._reader, self._costs, self._new, self._builder = number, {}, {}, _Builder()
        values = {id(v): self._value(v) for v in nest.values}
        stores = [s._replace(value=values[id(s.value)]) for s in nest.stores]
        accumulators = [replace(a, values=tuple(values[id(v)] for v in a.values)) for a in nest.accumulators]
        return Nest(nest.kept, nest.reduced, self._builder.values, stores, accumulators, list(nest.names))

    def _value(self, value: Value) -> Value:
        if id(value) not in self._new:
            definition = self._definition(value)
            if definition is not None:
                self._new[id(value)] = self._value(definition)
            else:
                args = tuple(self._value(a) if isinstance(a, Value) else a for a in value.args)
                self._new[id(value)] = self._builder.value(value.op, value.dtype, args, value.axes)
        return self._new[id(value)]

    def _definition(self, value: Value) -> Value | None:
        """What the reader computes instead of reading an element."""
        found = self._defined.get(_address_key(*value.args)) if value.op == "load" else None
        if found is None or not self._is_the_same_here(*found) or self._cost(found[0]) > CARRIED_OVER:
            return None
        return found[0]

    def _cost(self, value: Value) -> int:
        """Operations; those of a value that is needed several times count as often."""
        if id(value) not in self._costs:
            own = COSTS.get(value.op, 1)
            if value.op == "const":
                total = 0
            elif value.op == "load":
                definition = self._definition(value)
                total = 1 if definition is None else self._cost(definition)
            elif own != 1:
                total = CARRIED_OVER + 1
            else:
                total = own + sum(self._cost(a) for a in value.args if isinstance(a, Value))
            self._costs[id(value)] = total
        return self._costs[id(value)]

    def _is_the_same_here(self, definition: Value, number: int) -> bool:
        """Whether nothing that a definition reads is written from its nest on, until the reader has ended."""
        between = self._nests[number : self._reader + 1]
        seen, todo = {id(definition)}, [definition]
        while todo:
            value = todo.pop()
            if value.op == "load" and any(s.buffer is value.args[0] for nest in between for s in nest.stores):
                return False
            for a in value.args:
                if isinstance(a, Value) and id(a) not in seen:
                    seen.add(id(a))
                    todo.append(a)
        return True


def _apart(a: Index, b: Index) -> bool:
    """Whether two indices never meet."""
    (low_a, high_a), (low_b, high_b) = a.bounds(), b.bounds()
    if high_a < low_b or high_b < low_a:
        return True
    common = math.gcd(*(c for _, c in (*a.terms, *b.terms)))
    return (a.constant - b.constant) % common != 0 if common else a.constant != b.constant


def _one_to_one(index: Index, axes: Iterable[Axis]) -> bool:
    """Whether every point of the loops has an element of its own."""
    reach = 0
    if {a for a, _ in index.terms} != set(axes):
        return False
    for axis, factor in sorted(index.terms, key=lambda term: abs(term[1])):
        if abs(factor) <= reach:
            return False
        reach += abs(factor) * (axis.size - 1)
    return True


class _Accesses:
    """What a nest reads and writes, by buffer."""

    def __init__(self, nest: Nest, order: tuple[Axis, ...]) -> None:
        self.order = order
        self.kind = "scalar" if not nest.kept and not nest.reduced else "sums" if nest.reduced else "points"
        self.reads = [(b, i, True) for b, i in nest.loads()]
        self.writes = [(s.buffer, s.address, True) for s in nest.stores]
        self.writes += [(a.buffer, a.address, False) for a in nest.accumulators]

    def after(self, earlier: _Accesses) -> int | None:
        """Phases by which this nest must come later than an earlier one, None where they have nothing in common."""
        pairs = [(a, b) for a in earlier.writes for b in (*self.reads, *self.writes)]
        pairs += [(a, b) for a in earlier.reads for b in self.writes]
        met = [(a, b) for a, b in pairs if a[0] is b[0] and not _apart(a[1], b[1])]
        if not met:
            return None
        if self.kind != earlier.kind or self.kind == "sums" or self.order != earlier.order:
            return 1
        for a, b in met:
            plain = a[2] and b[2]
            same = a[1] == b[1] and (self.kind == "scalar" or _one_to_one(a[1], self.order))
            if not plain or not same:
                return 1
        return 0


def _phases(program: LoopProgram, stops: int | None) -> list[_Group]:
    nests = _CarriedOver(program.nests).nests()
    accesses = [_Accesses(nest, _point_order(nest) if not nest.reduced else ()) for nest in nests]
    checked = program.inputs[stops] if stops is not None else None
    phases: list[int] = []
    groups: list[_Group] = []
    for k, (nest, own) in enumerate(zip(nests, accesses, strict=True)):
        # All threads read the status before the first phase.
        phase = 1 if any(s.buffer is checked for s in nest.stores) else 0
        for earlier in range(k):
            later = own.after(accesses[earlier])
            if later is not None:
                phase = max(phase, phases[earlier] + later)
        phases.append(phase)
        running = any(a.prefixes for a in nest.accumulators)
        for group in groups:
            alike = (group.phase, group.nest.kept, group.nest.reduced, group.order) == (
                phase,
                nest.kept,
                nest.reduced,
                own.order,
            )
            if alike and not running and not any(a.prefixes for a in group.nest.accumulators) and _fits(group.nest, nest):
                group.add(nest)
                break
        else:
            groups.append(_Group(phase, own.order, Nest(nest.kept, nest.reduced)))
            groups[-1].add(nest)
    return sorted(groups, key=lambda group: group.phase)


def _fits(one: Nest, other: Nest) -> bool:
    """Whether two reductions are few enough accumulators for the registers of a thread."""
    return not one.reduced or len(one.accumulators) + len(other.accumulators) <= REGISTERS // 2


# ---- where values are -------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Array:
    """Memory of a block."""

    name: str
    dtype: str
    size: int
    first: int = 0
    """The phases in which it is used."""
    last: int = 10**9
    reads: int = 0
    offset: int = 0
    shared: bool = True

    @property
    def bytes(self) -> int:
        return -(-self.size * SIZES[self.dtype] // 16) * 16

    @property
    def kind(self) -> str:
        return SCALARS[self.dtype]


@dataclass(frozen=True)
class _Home:
    """Where elements of a buffer are: copy c of the element at an address is array[start + address + c * stride]."""

    array: _Array
    start: int = 0
    copies: int = 1
    stride: int = 0
    op: str = "add"
    divisor: float | None = None


def _place(arrays: Sequence[_Array], limit: int) -> tuple[int, int]:
    """Give the arrays offsets: what is small and read often in shared memory. Returns the bytes of both memories.

    Arrays that are used in different phases may lie in the same place.
    """
    placed: dict[bool, list[_Array]] = {True: [], False: []}
    ends = {True: 0, False: 0}
    for array in sorted(arrays, key=lambda a: (a.bytes / (1 + a.reads), a.name)):
        for shared in (True, False):
            offset = 0
            for other in sorted(placed[shared], key=lambda a: a.offset):
                if other.last < array.first or array.last < other.first:
                    continue
                if offset + array.bytes <= other.offset:
                    break
                offset = max(offset, other.offset + other.bytes)
            if shared and offset + array.bytes > limit:
                continue
            array.offset, array.shared = offset, shared
            placed[shared].append(array)
            ends[shared] = max(ends[shared], offset + array.bytes)
            break
    return ends[True], ends[False]


# ---- text -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Copy:
    """One of several copies of a loop body."""

    offsets: tuple[tuple[Axis, int], ...] = ()
    """How far it is along loops."""
    variables: str = ""
    """What the names of its own loop variables end in."""

    def offset(self, axis: Axis) -> int:
        return next((n for a, n in self.offsets if a == axis), 0)

    def of(self, value: Value) -> _Copy:
        """What matters of it to a value: copies that are the same to it share it."""
        offsets = tuple((a, n) for a, n in self.offsets if a in value.axes)
        return _Copy(offsets, self.variables if value.axes else "")

    @property
    def suffix(self) -> str:
        return "".join(f"_{n}" for _, n in self.offsets) + self.variables


def _next_power(n: int) -> int:
    return 1 << (n - 1).bit_length()


class _Printer:
    def __init__(self, program: LoopProgram, stops: int | None, shared_limit: int) -> None:
        self._program, self._stops, self._limit = program, stops, shared_limit
        self._lines: list[str] = []
        self._homes: dict[int, _Home] = {}
        """Of buffers."""
        self._totals: dict[tuple[int, Index], _Home] = {}
        """Of results over all points of a nest: one element each."""
        self._arrays: list[_Array] = []
        self._group_arrays: dict[int, dict[str, _Array]] = {}
        self._names: dict[int, str] = {}

    # -- memory

    def _divide_memory(self, groups: Sequence[_Group]) -> tuple[int, int]:
        program = self._program
        always = {id(b) for b in (*program.inputs, *program.outputs)}
        totals = {id(a.buffer) for g in groups for a in g.nest.accumulators if a.full}
        sums: dict[int, _Group] = {}
        for number, group in enumerate(groups):
            if group.nest.reduced and not any(a.prefixes for a in group.nest.accumulators):
                for a in group.nest.accumulators:
                    sums[id(a.buffer)] = group
            if group.nest.accumulators and not group.nest.reduced:
                self._place_totals(number, group)
        if (totals | set(sums)) & always:
            raise NotLowered("an output that is a sum itself")
        for number, group in enumerate(groups):
            if group.nest.reduced and group.tiles is not None and not any(a.prefixes for a in group.nest.accumulators):
                self._place_sums(number, group)
        for b in program.buffers:
            if id(b) not in totals and id(b) not in sums:
                self._homes[id(b)] = _Home(self._array(b.name, b.dtype, b.size))
        spans: dict[int, list[int]] = {}
        for group in groups:
            homes = [self._home(b, i) for b, i in group.nest.loads() if not b.outside]
            for home in homes:
                home.array.reads += home.copies
            homes += [self._home(s.buffer, s.address) for s in group.nest.stores]
            homes += [self._home(a.buffer, a.address) for a in group.nest.accumulators]
            for home in homes:
                spans.setdefault(id(home.array), []).append(group.phase)
        for b in program.buffers:
            if id(b) not in always:
                continue
            spans[id(self._homes[id(b)].array)] = [0, 10**9]
        for array in self._arrays:
            if id(array) in spans:
                array.first, array.last = min(spans[id(array)]), max(spans[id(array)])
        used = [a for a in self._arrays if id(a) in spans]
        self._arrays = used
        return _place(used, self._limit)

    def _array(self, name: str, dtype: str, size: int) -> _Array:
        self._arrays.append(_Array(name, dtype, max(1, size)))
        return self._arrays[-1]

    def _place_totals(self, number: int, group: _Group) -> None:
        warps = -(-min(THREADS, self._points(group)) // WARP)
        for kind, accumulators in _classes(group.nest.accumulators).items():
            width = _next_power(len(accumulators))
            array = self._array(f"totals_{number}_{kind}", accumulators[0].dtype, width * warps)
            for k, a in enumerate(accumulators):
                op = "add" if a.op == "multiply_add" else a.op
                home = _Home(array, k - a.address.constant, warps, width, op, a.divisor)
                self._totals[_address_key(a.buffer, a.address)] = home
            self._group_arrays.setdefault(number, {})[kind] = array

    def _place_sums(self, number: int, group: _Group) -> None:
        assert group.tiles is not None
        for kind, accumulators in _classes(group.nest.accumulators).items():
            size = 0
            starts: dict[int, int] = {}
            for a in accumulators:
                if id(a.buffer) not in starts:
                    starts[id(a.buffer)] = size
                    size += -(-a.buffer.size // 4) * 4
            array = self._array(f"sums_{number}_{kind}", accumulators[0].dtype, size * group.tiles.copies)
            for a in accumulators:
                op = "add" if a.op == "multiply_add" else a.op
                self._homes[id(a.buffer)] = _Home(array, starts[id(a.buffer)], group.tiles.copies, size, op, a.divisor)
            self._group_arrays.setdefault(number, {})[kind] = array

    def _home(self, buffer: Buffer, index: Index) -> _Home:
        found = self._totals.get(_address_key(buffer, index)) or self._homes.get(id(buffer))
        if found is None:
            raise NotLowered(f"a result over all points, read at an index that varies, in {buffer.name}")
        return found

    @staticmethod
    def _points(group: _Group) -> int:
        return math.prod(a.size for a in group.nest.kept)

    # -- program

    def printed(self) -> CudaText:
        program, add = self._program, self._lines.append
        groups = _phases(program, self._stops)
        for group in groups:
            if group.nest.reduced:
                group.tiles = _plan(group.nest)
        shared, scratch = self._divide_memory(groups)
        add(header())
        add("#ifdef __CUDACC__\n#define INLINE_MEMBER static __device__ __forceinline__")
        add("#else\n#define INLINE_MEMBER static inline\n#endif")
        add(PRELUDE)
        for name, numbers in program.constants.items():
            dtype = next(b.dtype for nest in program.nests for b, _ in nest.loads() if b.name == name)
            elements = ", ".join(literal(x, dtype) for x in numbers)
            add(f"static __device__ const {SCALARS[dtype]} {name}[{len(numbers)}] = {{{elements}}};")
        resident = max(1, min(RESIDENT, MULTIPROCESSOR_BYTES // (shared + 1024)))
        add("extern __shared__ __align__(16) char shared[];")
        add(f'extern "C" __global__ void __launch_bounds__({BLOCK}, {resident})')
        add("run(char* const* pointers, const long long* steps, char* scratch) {")
        add("const int thread = threadIdx.x;")
        arguments = len(program.inputs) + len(program.outputs) - program.carried
        add(f"pointers += (long long)blockIdx.x * {arguments};")
        add(f"scratch += (long long)blockIdx.x * {scratch};")
        for array in self._arrays:
            memory = "shared" if array.shared else "scratch"
            add(f"{array.kind}* const {array.name} = ({array.kind}*)({memory} + {array.offset});")
        used = {id(a) for a in self._arrays}
        for k, b in enumerate(program.inputs):
            if b.outside:
                add(f"const {OUTSIDE[b.dtype]}* const {b.name} = (const {OUTSIDE[b.dtype]}*)pointers[{k}];")
            elif id(self._homes[id(b)].array) in used:
                self._transfer(k, b, into=True)
        add("__syncthreads();")
        add("const long long count = steps[blockIdx.x];")
        add("for (long long step = 0; step < count; step++) {")
        if self._stops is not None:
            b = program.inputs[self._stops]
            add(f"if ({self._element(b, Index())} != 0) break;")
        last = groups[-1].phase if groups else 0
        for phase in range(last + 1):
            self._phase([(number, group) for number, group in enumerate(groups) if group.phase == phase])
            add("__syncthreads();")
        add("}")
        for k, b in enumerate(program.outputs):
            if k >= program.carried:
                self._transfer(len(program.inputs) + k - program.carried, b, into=False)
            elif any(b is s.buffer for nest in program.nests for s in nest.stores):
                self._transfer(k, b, into=False)
        add("}")
        return CudaText("\n".join(self._lines) + "\n", BLOCK, shared, scratch)

    def _transfer(self, k: int, b: Buffer, into: bool) -> None:
        """Between an argument in memory, dense, and its buffer."""
        axes = [Axis(f"d{d}", n) for d, n in enumerate(b.shape)]
        inside = Index.of(0, zip(axes, b.strides, strict=True))
        many = math.prod(b.shape)
        here = self._element(b, inside)
        if into:
            move = f"{here} = {'-(int32_t)(p[k] != 0)' if b.dtype == 'bool' else 'p[k]'};"
        else:
            move = f"p[k] = {f'(uint8_t)({here} != 0)' if b.dtype == 'bool' else here};"
        kind = f"{'const ' if into else ''}{OUTSIDE[b.dtype]}"
        # Single numbers are moved by different warps, so that they do not wait for each other.
        first = k % (BLOCK // WARP) * WARP if many <= WARP else 0
        self._lines.append(f"{{ {kind}* const p = ({kind}*)pointers[{k}];")
        if many <= WARP:
            self._lines.append(
                f"const int k = thread - {first};\nif (k >= 0 && k < {many}) {{"
                if first
                else f"const int k = thread;\nif (k < {many}) {{"
            )
        else:
            self._lines.append(f"#pragma unroll 1\nfor (int k = thread; k < {many}; k += {BLOCK}) {{")
        self._decode("k", axes)
        self._lines.append(f"{move} }} }}")

    def _phase(self, groups: Sequence[tuple[int, _Group]]) -> None:
        """Loops that do not need all threads get different ones."""
        next_warp = 0
        small = [g for _, g in groups if not g.nest.reduced and g.nest.kept and self._points(g) < THREADS]
        for group in small:
            warps = -(-self._points(group) // WARP)
            group.first_warp = next_warp if next_warp + warps <= WARPS else 0
            next_warp = group.first_warp + warps
        for number, group in groups:
            self._lines.append(f"// {', '.join(group.nest.names)}")
            self._names = {id(v): f"v{k}" for k, v in enumerate(group.nest.values)}
            if group.nest.reduced:
                self._sums(number, group)
            elif group.nest.kept:
                self._loop(number, group)
            else:
                self._lines.append(f"if (thread == {THREADS}) {{")
                self._values(group.nest.values, [_Copy()])
                self._stores(group.nest.stores, _Copy())
                self._lines.append("}")

    def _decode(self, number: str, axes: Sequence[Axis], step: int = 1) -> None:
        """Loop variables from the number of a point."""
        rest = number
        for k, axis in enumerate(reversed(axes)):
            size = axis.size // step if k == 0 else axis.size
            factor = f" * {step}" if k == 0 and step > 1 else ""
            if k == len(axes) - 1:
                self._lines.append(f"const int {axis.name} = {rest}{factor};")
            else:
                self._lines.append(f"const int {axis.name} = (int)((unsigned){rest} % {size}u){factor};")
                self._lines.append(f"const int rest_{number}_{k} = (int)((unsigned){rest} / {size}u);")
                rest = f"rest_{number}_{k}"

    # -- loops over points

    def _loop(self, number: int, group: _Group) -> None:
        nest, add = group.nest, self._lines.append
        points = self._points(group)
        warps = -(-min(THREADS, points) // WARP)
        threads = warps * WARP
        if any({a for a, _ in s.address.terms} != nest.kept for s in nest.stores):
            raise NotLowered("a loop that writes an element several times")
        first = group.first_warp * WARP
        add(f"if ({f'thread >= {first} && ' if first else ''}thread < {first + threads}) {{")
        classes = _classes(nest.accumulators)
        for kind, accumulators in classes.items():
            zero = literal(IDENTITY[accumulators[0].op], accumulators[0].dtype)
            width = _next_power(len(accumulators))
            add(f"{SCALARS[accumulators[0].dtype]} a_{kind}[{width}] = {{{', '.join([zero] * width)}}};")
        outside = [v for v in nest.values if not v.axes]
        inside = [v for v in nest.values if v.axes]
        self._values(outside, [_Copy()])
        start = f"thread - {first}" if first else "thread"
        together = self._together(nest, points)
        name = group.order[-1].name if len(group.order) == 1 else "point"
        if points <= threads:
            add(f"const int {name} = {start};\nif ({name} < {points}) {{")
            self._point(group, name, inside, classes, 1)
            add("}")
        else:
            whole = points // (threads * together) * together
            # Iterations that every thread has; the rest of the points have a loop of their own.
            if together > 1 and whole:
                add(f"for (int n = 0; n < {whole}; n += {together}) {{")
                self._point(group, name, inside, classes, together, f"n * {threads} + {start}")
                add("}")
            begin = whole * threads if together > 1 else 0
            if begin < points:
                begin_at = f"{begin} + {start}" if begin else start
                add(f"for (int {name} = {begin_at}; {name} < {points}; {name} += {threads}) {{")
                self._point(group, name, inside, classes, 1)
                add("}")
        for kind, accumulators in classes.items():
            width = _next_power(len(accumulators))
            array = self._group_arrays[number][kind].name
            add(f"combine<{COMBINED[accumulators[0].op]}, 32, {width}>(a_{kind}, thread);")
            warp = f"(thread / 32 - {group.first_warp})" if group.first_warp else "thread / 32"
            if width <= WARP:
                each = WARP // width
                test = f"if (thread % {each} == 0) " if each > 1 else ""
                at = f"{warp} * {width} + thread % 32 / {each}" if width > 1 else warp
                add(f"{test}{array}[{at}] = a_{kind}[0];")
            else:
                for k in range(width // WARP):
                    add(f"{array}[{warp} * {width} + thread % 32 * {width // WARP} + {k}] = a_{kind}[{k}];")
        add("}")

    @staticmethod
    def _together(nest: Nest, points: int) -> int:
        """Points of a thread that are under way at once: their reads come before all of their writes."""
        if len(nest.values) > UNROLLED_VALUES or not any(v.op == "load" and v.axes for v in nest.values):
            return 1
        return 4 if points >= 4 * THREADS else 1

    def _point(
        self, group: _Group, name: str, values: Sequence[Value], classes: dict[str, list[Accumulator]], together: int,
        start: str = "",
    ) -> None:  # fmt: skip
        """The body of a loop: `together` points, each `THREADS` further."""
        nest = group.nest
        if together == 1:
            if len(group.order) > 1:
                self._decode(name, group.order)
            self._values(values, [_Copy()])
            self._stores(nest.stores, _Copy())
            self._accumulate(classes, _Copy())
            return
        copies = [_Copy(variables=f"_{k}") for k in range(together)]
        for k in range(together):
            self._lines.append(f"const int {name}_{k} = {start} + {k * THREADS};")
            if len(group.order) > 1:
                self._decode(f"{name}_{k}", [Axis(f"{a.name}_{k}", a.size) for a in group.order])
        for value in values:
            for copy in copies:
                self._define(value, copy)
        for s in nest.stores:
            for copy in copies:
                self._store(s, copy)
        for copy in copies:
            self._accumulate(classes, copy)

    def _accumulate(self, classes: dict[str, list[Accumulator]], copy: _Copy) -> None:
        for kind, accumulators in classes.items():
            for k, a in enumerate(accumulators):
                self._lines.append(f"a_{kind}[{k}] = {self._updated(a, f'a_{kind}[{k}]', copy)};")

    # -- reductions

    def _sums(self, number: int, group: _Group) -> None:
        nest, p, add = group.nest, group.tiles, self._lines.append
        assert p is not None
        running = [a for a in nest.accumulators if a.prefixes]
        classes = _classes(nest.accumulators)
        add(f"// {p.rows} x {p.columns} elements a thread, groups of {p.group} threads, {p.copies} copies of the result")
        add(f"if (thread < {THREADS}) {{")
        self._values([v for v in nest.values if not v.axes], [_Copy()])
        units = p.tiles * p.copies
        if p.group == 1:
            spread = -(-p.tiles // WARP) * WARP
            if p.copies > 1 and spread * p.copies > THREADS:
                spread = p.tiles
            if p.copies > 1:
                add(f"for (int unit = thread; unit < {spread * p.copies}; unit += {THREADS}) {{")
                add(f"const int tile = unit % {spread}, copy = unit / {spread};")
                if spread != p.tiles:
                    add(f"if (tile >= {p.tiles}) continue;")
            else:
                add(f"for (int tile = thread; tile < {p.tiles}; tile += {THREADS}) {{")
            begin, step = ("copy" if p.copies > 1 else "0"), p.copies
        else:
            at_once = THREADS // p.group
            add(f"const int place = thread % {p.group};")
            add(f"for (int first = thread / 32 * {WARP // p.group}; first < {units}; first += {at_once}) {{")
            add(f"const int unit = first + thread % 32 / {p.group};")
            partly = units % (WARP // p.group) != 0
            add(f"const int mine = {f'unit < {units} ? unit : {units - 1}' if partly else 'unit'};")
            add(f"const int tile = mine / {p.copies}, copy = mine % {p.copies};")
            begin, step = (f"place + {p.group} * copy" if p.copies > 1 else "place"), p.group * p.copies
        self._decode("tile", p.kept, p.rows)
        row_axis, column_axis = p.kept[-1] if p.kept else None, p.reduced[-1]
        rows = [_Copy(((row_axis, r),)) if row_axis and p.rows > 1 else _Copy() for r in range(p.rows)]
        kept_values = [v for v in nest.values if v.axes and not v.axes & set(p.reduced)]
        self._values(kept_values, rows)
        for kind, accumulators in classes.items():
            zero = literal(IDENTITY[accumulators[0].op], accumulators[0].dtype)
            width = len(accumulators) * p.rows if p.group == 1 else _next_power(len(accumulators) * p.rows)
            add(f"{SCALARS[accumulators[0].dtype]} a_{kind}[{width}] = {{{', '.join([zero] * width)}}};")
        add(f"for (int chunk = {begin}; chunk < {p.chunks}; chunk += {step}) {{")
        self._decode("chunk", p.reduced, p.columns)
        copies = []
        for column in range(p.columns):
            for row in rows:
                copies.append(_Copy((*row.offsets, *(((column_axis, column),) if p.columns > 1 else ()))))
        self._values([v for v in nest.values if v.axes & set(p.reduced)], copies)
        for copy in copies:
            r = copy.offset(row_axis) if row_axis else 0
            for kind, accumulators in classes.items():
                for k, a in enumerate(accumulators):
                    name = f"a_{kind}[{k * p.rows + r}]"
                    add(f"{name} = {self._updated(a, name, copy)};")
                    if a in running:
                        add(f"{self._element(a.buffer, a.address, copy)} = {name};")
        add("}")
        if not running:
            self._write_sums(number, group, rows)
        add("}\n}")

    def _write_sums(self, number: int, group: _Group, rows: Sequence[_Copy]) -> None:
        nest, p, add = group.nest, group.tiles, self._lines.append
        assert p is not None
        row_axis = p.kept[-1]
        for kind, accumulators in _classes(nest.accumulators).items():
            array = self._group_arrays[number][kind].name
            stride = self._homes[id(accumulators[0].buffer)].stride
            starts = [self._homes[id(a.buffer)].start for a in accumulators]
            of_copy = f" + copy * {stride}" if p.copies > 1 else ""
            if p.group == 1:
                for k, a in enumerate(accumulators):
                    for r, row in enumerate(rows):
                        at = _address(a.address.plus(starts[k]), row)
                        add(f"{array}[{at}{of_copy}] = a_{kind}[{k * p.rows + r}];")
                continue
            real = len(accumulators) * p.rows
            width = _next_power(real)
            add(f"combine<{COMBINED[accumulators[0].op]}, {p.group}, {width}>(a_{kind}, thread);")
            held = max(1, width // p.group)
            each = max(1, p.group // width)
            conditions = [f"unit < {p.tiles * p.copies}"] * (p.tiles * p.copies % (WARP // p.group) != 0)
            conditions += [f"place % {each} == 0"] * (each > 1)
            if conditions:
                add(f"if ({' && '.join(conditions)}) {{")
            for h in range(held):
                add(f"{{ const int total = place / {each} * {held} + {h};")
                if real < width:
                    add(f"if (total < {real}) {{")
                add(f"const int row = total % {p.rows};")
                # The address of each accumulator, with the row of this total as the innermost loop variable.
                texts = []
                for k, a in enumerate(accumulators):
                    factor = a.address.factor(row_axis)
                    texts.append(_address(a.address.plus(starts[k])) + (f" + row * {factor}" if factor and p.rows > 1 else ""))
                text = texts[-1]
                for k in reversed(range(len(texts) - 1)):
                    text = f"total < {(k + 1) * p.rows} ? {texts[k]} : {text}"
                add(f"{array}[({text}){of_copy}] = a_{kind}[{h}];")
                if real < width:
                    add("}")
                add("}")
            if conditions:
                add("}")

    # -- values

    def _values(self, values: Sequence[Value], copies: Sequence[_Copy]) -> None:
        for value in values:
            for copy in dict.fromkeys(c.of(value) for c in copies):
                self._define(value, copy)

    def _define(self, value: Value, copy: _Copy) -> None:
        if value.op != "const":
            self._lines.append(f"const {SCALARS[value.dtype]} {self._name(value, copy)} = {self._expression(value, copy)};")

    def _name(self, value: Value, copy: _Copy) -> str:
        return self._names[id(value)] + copy.of(value).suffix

    def _text(self, value: Value, copy: _Copy) -> str:
        return literal(value.args[0], value.dtype) if value.op == "const" else self._name(value, copy)

    def _updated(self, a: Accumulator, name: str, copy: _Copy) -> str:
        texts = [self._text(v, copy) for v in a.values]
        if a.op == "multiply_add":
            floats = a.dtype in ("f32", "f64")
            return f"fma_({texts[0]}, {texts[1]}, {name})" if floats else f"{texts[0]} * {texts[1]} + {name}"
        return _combined(a.op, name, texts[0])

    def _stores(self, stores: Sequence[Store], copy: _Copy) -> None:
        for s in stores:
            self._store(s, copy)

    def _store(self, s: Store, copy: _Copy) -> None:
        self._lines.append(f"{self._element(s.buffer, s.address, copy)} = {self._text(s.value, copy)};")

    def _element(self, buffer: Buffer, index: Index, copy: _Copy | None = None) -> str:
        if buffer.outside:
            return f"{buffer.name}[{_address(index, copy)}]"
        home = self._home(buffer, index)
        return f"{home.array.name}[{_address(index.plus(home.start), copy)}]"

    def _load(self, buffer: Buffer, index: Index, copy: _Copy) -> str:
        if buffer.outside:
            return self._element(buffer, index, copy)
        home = self._home(buffer, index)
        at = index.plus(home.start)
        texts = [f"{home.array.name}[{_address(at.plus(c * home.stride), copy)}]" for c in range(home.copies)]
        while len(texts) > 1:
            texts = [_combined(home.op, *texts[k : k + 2]) if k + 1 < len(texts) else texts[k] for k in range(0, len(texts), 2)]
        return texts[0] if home.divisor is None else f"{texts[0]} / {literal(home.divisor, buffer.dtype)}"

    def _expression(self, value: Value, copy: _Copy) -> str:
        op, args = value.op, value.args
        if op == "index":
            return f"(int32_t)({_address(args[0], copy)})"
        if op == "load":
            return self._load(args[0], args[1], copy)
        return operation(value, [self._text(a, copy) for a in args])


def _classes(accumulators: Iterable[Accumulator]) -> dict[str, list[Accumulator]]:
    """Accumulators that threads combine in the same way."""
    found: dict[str, list[Accumulator]] = {}
    for a in accumulators:
        found.setdefault(f"{COMBINED[a.op].lower()}_{a.dtype}", []).append(a)
    return found


def _combined(op: str, one: str, other: str) -> str:
    op = "add" if op == "multiply_add" else op
    return f"({one} {OPERATORS[op]} {other})" if op in OPERATORS else f"{op}_({one}, {other})"


def _address(index: Index, copy: _Copy | None = None) -> str:
    constant = index.constant
    terms = []
    for axis, factor in index.terms:
        name = axis.name + (copy.variables if copy is not None else "")
        constant += factor * copy.offset(axis) if copy is not None else 0
        terms.append(name if factor == 1 else f"{name} * {factor}")
    return " + ".join([*terms, *([str(constant)] if constant or not terms else [])])
