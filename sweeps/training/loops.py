"""The loop-level form of a recorded function: loop nests over buffers, without any tensor operation left.

`lower` turns a recorded graph (torch.fx, ATen operations, static shapes) into a `LoopProgram`. Printers turn that into C++
(`sweeps.training.cpp`) and CUDA (`sweeps.training.cuda`); docs/engine.md follows one unit through all forms.

How it is lowered:
- A view is no operation, but another index. An index is affine: a constant plus loop variables times whole numbers.
- Elementwise values are computed where they are read. What is costly and read more than once, and the results of sums and
  products, are kept in a buffer.
- Dimensions of up to `UNROLLED` elements are no loops: their elements are separate values in one loop body.
- Nests over the same loops become one nest, where no value is read at another index than the one that is computed.

To add an operation, enter it in `DECOMPOSED` where torch can write it as simpler ones, in `ELEMENTWISE` where its result at
an index depends on its operands at that index, in
`REDUCTIONS` where it combines the elements of dimensions, or in `Lowering._view` where it only moves elements.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch.fx import GraphModule, Node

UNROLLED = 4
"""Dimensions of up to this size become separate values."""
VECTOR = 16
"""Elements that a sum takes side by side: innermost dimensions of buffers are padded to a multiple of it."""
MOST_UNROLLED = 256
"""Elements of one tensor that may be separate values."""
COPIED = 2**14
"""Inputs of up to so many elements are copied into the workspace when a call begins; larger ones are read where they are."""
CHEAP = 1
"""Operations of a value that is computed again rather than kept where it is read more than once."""

DTYPES = {
    torch.float32: "f32", torch.float64: "f64", torch.int32: "i32", torch.int64: "i64", torch.bool: "bool",
}  # fmt: skip


class NotLowered(Exception):
    """An operation, or a use of one, has no loop-level form. The message names it."""


class _Illegal(Exception):
    """A nest reads what it computes itself, at another index."""


class _NeedsDense(Exception):
    """A view reads this node by an index that only a buffer without padding has."""

    def __init__(self, node: Node) -> None:
        super().__init__(node.name)
        self.node = node


class Axis(NamedTuple):
    """A loop variable."""

    name: str
    size: int


class Index(NamedTuple):
    """constant + sum of coefficient * axis."""

    constant: int = 0
    terms: tuple[tuple[Axis, int], ...] = ()

    @staticmethod
    def of(constant: int, terms: Iterable[tuple[Axis, int]]) -> Index:
        total: dict[Axis, int] = {}
        for axis, factor in terms:
            total[axis] = total.get(axis, 0) + factor
        return Index(constant, tuple(sorted((axis, factor) for axis, factor in total.items() if factor)))

    def plus(self, other: Index | int) -> Index:
        other = Index(other) if isinstance(other, int) else other
        return Index.of(self.constant + other.constant, (*self.terms, *other.terms))

    def times(self, factor: int) -> Index:
        return Index.of(self.constant * factor, ((axis, c * factor) for axis, c in self.terms))

    def bounds(self) -> tuple[int, int]:
        """The smallest and the largest value."""
        spans = [c * (axis.size - 1) for axis, c in self.terms]
        return self.constant + sum(min(s, 0) for s in spans), self.constant + sum(max(s, 0) for s in spans)

    def factor(self, axis: Axis) -> int:
        return next((c for a, c in self.terms if a == axis), 0)


@dataclass(eq=False)
class Buffer:
    """Elements in the workspace of a lane, or an input outside of it."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dense: bool
    """Without padding: rows follow each other directly, in the order of the shape."""
    outside: bool = False

    @property
    def size(self) -> int:
        """Elements, with padding."""
        return 1 + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True)) if 0 not in self.shape else 0

    def address(self, index: Sequence[Index]) -> Index:
        total = Index()
        for i, stride in zip(index, self.strides, strict=True):
            total = total.plus(i.times(stride))
        return total


@dataclass(eq=False)
class Value:
    """A number that a loop body computes. `args` are values, except for the operations below.

    const: (number,); index: (Index,), the number itself; load: (Buffer, Index).
    """

    op: str
    dtype: str
    args: tuple[Any, ...]
    axes: frozenset[Axis]
    """The loops it varies with."""


class Store(NamedTuple):
    """Write a value, in every iteration of the loops that the value or the address varies with."""

    buffer: Buffer
    address: Index
    value: Value
    exact: bool
    """Only these elements may be written: what follows a row's last one is not padding."""


@dataclass(eq=False)
class Accumulator:
    """Combine values over loops: `op` is add, multiply_add (of two values), mul, maximum, minimum, and, or.

    The result is written to the address, which varies with the kept loops only. With `prefixes`, every step's result is
    written, and the address varies with all loops.
    """

    op: str
    dtype: str
    values: tuple[Value, ...]
    buffer: Buffer
    address: Index
    divisor: float | None = None
    prefixes: bool = False
    full: bool = True
    """Over all loops of the nest; else over its `reduced` loops."""


@dataclass
class Nest:
    """Loops, and what is computed in them. Values are in the order in which they can be computed."""

    kept: frozenset[Axis]
    reduced: frozenset[Axis]
    """Loops that only accumulators with full=False run over, inside of the kept ones."""
    values: list[Value] = field(default_factory=list)
    stores: list[Store] = field(default_factory=list)
    accumulators: list[Accumulator] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    """Of the nodes that it computes."""

    def loads(self) -> Iterator[tuple[Buffer, Index]]:
        for value in self.values:
            if value.op == "load":
                yield value.args


@dataclass
class LoopProgram:
    """Nests in the order in which they run; `inputs` and `outputs` in the order of the recorded function's."""

    inputs: list[Buffer]
    outputs: list[Buffer]
    """Of a carried output the buffer of its input: the nests change it in place."""
    carried: int
    """The first so many outputs are the next values of the first so many inputs."""
    buffers: list[Buffer]
    """Everything in the workspace."""
    nests: list[Nest]
    constants: dict[str, list[Any]]
    """Elements of constant buffers, by name."""


# ---- operations -------------------------------------------------------------------------------------------------------


class _Body:
    """Builds the values of one nest. Equal values are one."""

    def __init__(self) -> None:
        self.values: list[Value] = []
        self.stores: list[Store] = []
        self.accumulators: list[Accumulator] = []
        self.known: dict[Any, Any] = {}
        self.reads: set[Node] = set()
        self.names: list[str] = []

    def copy(self) -> _Body:
        other = _Body()
        other.values, other.stores, other.accumulators = list(self.values), list(self.stores), list(self.accumulators)
        other.known, other.reads, other.names = dict(self.known), set(self.reads), list(self.names)
        return other

    def value(self, op: str, dtype: str, *args: Any) -> Value:
        key = (op, dtype, *((id(a) if isinstance(a, Value | Buffer) else (type(a), repr(a))) for a in args))
        found: Value | None = self.known.get(key)
        if found is None:
            axes: set[Axis] = set()
            for a in args:
                if isinstance(a, Value):
                    axes |= a.axes
                elif isinstance(a, Index):
                    axes |= {axis for axis, _ in a.terms}
            found = self.known[key] = Value(op, dtype, args, frozenset(axes))
            self.values.append(found)
        return found

    def const(self, number: Any, dtype: str) -> Value:
        number = float(number) if dtype in ("f32", "f64") else bool(number) if dtype == "bool" else int(number)
        if dtype == "f32":
            number = torch.tensor(number, dtype=torch.float32).item()
        return self.value("const", dtype, number)

    def op(self, name: str, *args: Value) -> Value:
        return self.value(name, "bool" if name in COMPARISONS else args[-1].dtype, *args)

    def convert(self, value: Value, dtype: str) -> Value:
        if value.dtype == dtype:
            return value
        if value.op == "const":
            return self.const(value.args[0], dtype)
        return self.value("convert", dtype, value)


_aten = torch.ops.aten
DECOMPOSED = (
    _aten._softmax, _aten._log_softmax, _aten._softmax_backward_data, _aten._log_softmax_backward_data, _aten.elu,
    _aten.elu_backward, _aten.hardtanh, _aten.hardtanh_backward, _aten.hardshrink, _aten.softshrink, _aten.leaky_relu,
    _aten.leaky_relu_backward, _aten.softplus, _aten.softplus_backward, _aten.sigmoid_backward, _aten.tanh_backward,
    _aten.threshold_backward,
)  # fmt: skip
"""Operations that are recorded as several simpler ones (torch._decomp)."""
COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
Emit = Callable[..., Value]


def _plain(name: str) -> Emit:
    return lambda b, *args: b.op(name, *args)


def _select(b: _Body, condition: Value, one: Value, other: Value) -> Value:
    return b.value("select", one.dtype, condition, one, other)


def _like(b: _Body, number: float, value: Value) -> Value:
    return b.const(number, value.dtype)


def _sign(b: _Body, x: Value) -> Value:
    zero = _like(b, 0, x)
    return b.op("sub", b.convert(b.op("gt", x, zero), x.dtype), b.convert(b.op("lt", x, zero), x.dtype))


def _sigmoid(b: _Body, x: Value) -> Value:
    one = _like(b, 1, x)
    return b.op("div", one, b.op("add", one, b.op("exp", b.op("neg", x))))


def _relu(b: _Body, x: Value) -> Value:
    return _select(b, b.op("lt", x, _like(b, 0, x)), _like(b, 0, x), x)  # NaN stays NaN


def _lerp(b: _Body, start: Value, end: Value, weight: Value) -> Value:
    """As ATen: from the nearer end."""
    difference, one = b.op("sub", end, start), _like(b, 1, start)
    near = b.op("add", start, b.op("mul", weight, difference))
    far = b.op("sub", end, b.op("mul", difference, b.op("sub", one, weight)))
    return _select(b, b.op("lt", b.op("abs", weight), _like(b, 0.5, weight)), near, far)


def _pow(b: _Body, x: Value, exponent: Value) -> Value:
    if exponent.op == "const":
        n = exponent.args[0]
        if n in (1, 2, 3):
            return x if n == 1 else b.op("mul", b.op("mul", x, x), x) if n == 3 else b.op("mul", x, x)
        if n == 0:
            return _like(b, 1, x)
        if n == -1:
            return b.op("div", _like(b, 1, x), x)
        if n == 0.5:
            return b.op("sqrt", x)
    if x.dtype not in ("f32", "f64"):
        raise NotLowered("pow of whole numbers")
    return b.op("pow", x, exponent)


def _clamped(b: _Body, x: Value, low: Value | None, high: Value | None) -> Value:
    for compare, end in (("lt", low), ("gt", high)):
        if end is None:
            continue
        beyond = b.op(compare, x, end)
        if end.op != "const" or math.isnan(end.args[0]):  # an end that is not a number is the result, as in torch
            beyond = b.value("or", "bool", beyond, b.op("ne", end, end))
        x = _select(b, beyond, end, x)
    return x


def _shrink_backward(b: _Body, grad: Value, x: Value, width: Value) -> Value:
    inside = b.value("and", "bool", b.op("ge", x, b.op("neg", width)), b.op("le", x, width))
    return _select(b, inside, _like(b, 0, grad), grad)


def _not(b: _Body, x: Value) -> Value:
    return b.value("not", x.dtype, x)


def _bits(name: str) -> Emit:
    return lambda b, x, y: b.value(name, x.dtype, x, y)


def _square(b: _Body, x: Value) -> Value:
    return b.op("mul", x, x)


def _logical(name: str) -> Emit:
    return lambda b, x, y: b.value(name, "bool", b.convert(x, "bool"), b.convert(y, "bool"))


ELEMENTWISE: dict[str, Emit] = {
    **{name: _plain(name) for name in ("neg", "abs", "sqrt", "exp", "log", "log1p", "expm1", "tanh", "sin", "cos", "floor")},
    **{name: _plain(name) for name in ("add", "sub", "mul", "div", "minimum", "maximum", "remainder", *COMPARISONS)},
    "rsub": lambda b, x, y: b.op("sub", y, x),
    "reciprocal": lambda b, x: b.op("div", _like(b, 1, x), x),
    "rsqrt": lambda b, x: b.op("div", _like(b, 1, x), b.op("sqrt", x)),
    "square": _square, "sigmoid": _sigmoid, "relu": _relu, "sgn": _sign, "sign": _sign, "lerp": _lerp, "pow": _pow,
    "hardshrink_backward": _shrink_backward, "softshrink_backward": _shrink_backward,
    "bitwise_and": _bits("and"), "bitwise_or": _bits("or"), "bitwise_xor": _bits("xor"), "bitwise_not": _not,
    "__and__": _bits("and"), "__or__": _bits("or"), "__xor__": _bits("xor"),
    "__rshift__": _bits("shr"), "__lshift__": _bits("shl"), "bitwise_right_shift": _bits("shr"),
    "bitwise_left_shift": _bits("shl"),
    "isnan": lambda b, x: b.op("ne", x, x), "isinf": lambda b, x: b.op("eq", b.op("abs", x), _like(b, math.inf, x)),
    "logical_and": _logical("and"), "logical_or": _logical("or"), "logical_xor": _logical("xor"),
    "logical_not": lambda b, x: _not(b, b.convert(x, "bool")),
}  # fmt: skip
"""Operation -> its value at an index, from the operands' values there, which have the type that it computes in."""
REDUCTIONS = {
    "sum": "add", "mean": "add", "prod": "mul", "amax": "maximum", "amin": "minimum", "all": "and", "any": "or",
}  # fmt: skip
IDENTITY: dict[str, Any] = {
    "add": 0, "multiply_add": 0, "mul": 1, "maximum": -math.inf, "minimum": math.inf, "and": True, "or": False,
}  # fmt: skip
PRODUCTS = {"mm": ("mk", "kn"), "bmm": ("bmk", "bkn"), "mv": ("mk", "k"), "dot": ("k", "k")}
"""Matrix products: the letters of their operands' dimensions; k is summed over."""
FILLED = {"zeros": 0, "zeros_like": 0, "new_zeros": 0, "zero": 0, "ones": 1, "ones_like": 1, "new_ones": 1}
NUMBERS = (*FILLED, "full", "full_like", "fill", "scalar_tensor", "arange")
"""Operations whose result is known at every index."""
SAME = ("detach", "alias", "clone", "lift_fresh_copy", "lift_fresh", "contiguous")
RESHAPES = ("view", "_unsafe_view", "reshape", "squeeze", "flatten")
VIEWS = (*SAME, *RESHAPES, "diagonal", "select", "t", "permute", "transpose", "slice", "unsqueeze", "flip", "expand")
PIECES = ("unbind", "split", "split_with_sizes", "chunk")
PLACED = ("select_scatter", "slice_scatter", "select_backward", "slice_backward", "constant_pad_nd")
"""One tensor inside of another, or inside of zeros."""


# ---- lowering ---------------------------------------------------------------------------------------------------------


def lower(graph: GraphModule, carried: int = 0) -> LoopProgram:
    """Lower a recorded function of tensors, without changes in place, whose nodes have `meta["val"]`.

    `carried`: the first outputs are the next values of as many first inputs, of equal shapes and types; the program
    computes them in place, so that it can run many steps. Raises NotLowered.
    """
    dense: set[Node] = set()
    while True:
        try:
            return _Lowering(graph, carried, frozenset(dense)).program()
        except _NeedsDense as needed:
            if needed.node in dense:
                raise NotLowered(f"a view of {needed.node.name} ({_op(needed.node)})") from None
            dense.add(needed.node)


def _op(node: Node) -> str:
    if node.op != "call_function":
        return node.op
    if node.target is operator.getitem:
        return "getitem"
    if not isinstance(node.target, torch._ops.OpOverload) or node.target._overloadname == "dtype":
        raise NotLowered(str(node.target))
    return str(node.target.overloadpacket.__name__)


def _args(node: Node) -> tuple[Any, ...]:
    return node.args


def _shape(node: Node) -> tuple[int, ...]:
    return tuple(int(n) for n in node.meta["val"].shape)


def _dtype(node: Node) -> str:
    found = node.meta["val"].dtype
    if found not in DTYPES:
        raise NotLowered(f"numbers of type {found}, in {_op(node)}")
    return DTYPES[found]


def _dense_strides(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(math.prod(shape[d + 1 :]) for d in range(len(shape)))


def _axes(sizes: Iterable[int]) -> list[Axis | None]:
    """A loop variable for every size; None for those that are unrolled. Equal sizes get different names."""
    seen: dict[int, int] = {}
    found: list[Axis | None] = []
    for n in sizes:
        if n <= UNROLLED:
            found.append(None)
            continue
        seen[n] = seen.get(n, 0) + 1
        found.append(Axis(f"i{n}" if seen[n] == 1 else f"i{n}_{seen[n]}", n))
    return found


def _points(sizes: Sequence[int], axes: Sequence[Axis | None]) -> Iterator[tuple[Index, ...]]:
    """The indices of a loop body: loop variables, and every combination of unrolled indices."""
    small = [range(n) if axis is None else range(1) for n, axis in zip(sizes, axes, strict=True)]
    if math.prod(len(r) for r in small) > MOST_UNROLLED:
        raise NotLowered(f"a tensor of shape {list(sizes)}: it has too many elements in dimensions of up to {UNROLLED}")
    for point in itertools.product(*small):
        yield tuple(Index(k) if axis is None else Index(0, ((axis, 1),)) for k, axis in zip(point, axes, strict=True))


class _Lowering:
    def __init__(self, graph: GraphModule, carried: int, dense: frozenset[Node]) -> None:
        self._graph, self._carried, self._dense = graph, carried, dense
        nodes = list(graph.graph.nodes)
        self._inputs = [n for n in nodes if n.op == "placeholder"]
        self._outputs: list[Any] = list(nodes[-1].args[0])
        live = _live(self._outputs)
        self._nodes = [n for n in nodes if n in live and n.op == "call_function"]
        self._buffers: dict[Node, Buffer] = {}
        self._bodies: list[tuple[frozenset[Axis], frozenset[Axis], _Body]] = []
        self._place: dict[Node, int] = {}
        self._constants: dict[str, list[Any]] = {}
        self._defining: Node | None = None
        self._current = -1

    def program(self) -> LoopProgram:
        for n in self._inputs:
            self._buffers[n] = self._input(n)
        kept = self._choose()
        for n in self._nodes:
            if n in kept:
                self._compute(n)
        outputs = self._write_outputs()
        nests = [
            Nest(kept, reduced, body.values, body.stores, body.accumulators, body.names) for kept, reduced, body in self._bodies
        ]
        return self._finished(nests, outputs)

    # -- which values have buffers

    def _input(self, n: Node) -> Buffer:
        shape = _shape(n)
        outside = math.prod(shape) > COPIED
        if outside and _dtype(n) == "bool":
            raise NotLowered("a large input of truth values")
        dense = outside or n in self._dense
        return Buffer(n.name, _dtype(n), shape, self._strides(shape, None, dense), dense, outside)

    def _strides(self, shape: tuple[int, ...], innermost: int | None, dense: bool) -> tuple[int, ...]:
        """Unrolled dimensions outermost, so that the innermost is a long one; its rows are padded to whole vectors."""
        if dense:
            return _dense_strides(shape)
        large = [d for d in range(len(shape)) if shape[d] > UNROLLED]
        if innermost is not None:
            large = [d for d in large if d != innermost] + [innermost]
        order = [d for d in range(len(shape)) if shape[d] <= UNROLLED] + large
        strides, step = [0] * len(shape), 1
        for d in reversed(order):
            strides[d] = step
            step *= shape[d] if step != 1 or not large else -(-shape[d] // VECTOR) * VECTOR
        return tuple(strides)

    def _choose(self) -> set[Node]:
        """Nodes whose elements are kept in buffers."""
        readers: dict[Node, set[Node]] = {}
        kept: set[Node] = set()
        for n in self._nodes:
            if _op(n) in VIEWS or _op(n) in ("getitem", *PIECES):
                continue
            for a in n.all_input_nodes:
                source = _source(a)
                readers.setdefault(source, set()).add(n)
                grows = math.prod(_shape(n)) > math.prod(_shape(source)) if _is_tensor(n) and _is_tensor(source) else False
                if (_op(n) in PRODUCTS and not self._is_inlined_product(n)) or (grows and self._cost(source) > CHEAP):
                    kept.add(source)
        for n in self._nodes:
            op = _op(n)
            if not _is_tensor(n) or op in (*VIEWS, *PIECES, *NUMBERS, "getitem"):
                kept.discard(n)
                if n in self._dense:
                    kept.add(n)
                continue
            if (
                all(d <= UNROLLED for d in _shape(n))
                or (op in ("cumprod", "cumsum") and _shape(n)[int(_args(n)[1])] > UNROLLED)
                or (op in REDUCTIONS and self._reduces_loops(n))
                or (op in PRODUCTS and not self._is_inlined_product(n))
                or (op in ("cat", "stack") and _shape(n)[_cat_dim(n)] > UNROLLED)
                or (len(readers.get(n, ())) > 1 and op not in ("cat", "stack") and self._cost(n) > CHEAP)
            ):
                kept.add(n)
        return kept | {n for n in self._dense if n.op != "placeholder"}

    def _cost(self, n: Node) -> int:
        """Operations that computing an element again would take, up to a few."""
        if n.op != "call_function" or not _is_tensor(n):
            return 0 if n.op != "call_function" else 99
        op = _op(n)
        if op in NUMBERS:
            return 0
        if op in VIEWS:
            return self._cost(_args(n)[0])
        if op in ("exp", "log", "tanh", "sin", "cos", "pow", "sigmoid", "div", "sqrt", "cat", "stack", *PRODUCTS, *REDUCTIONS):
            return 99
        if op == "getitem":
            return 99
        return 1 + sum(self._cost(a) for a in n.all_input_nodes)

    def _reduces_loops(self, n: Node) -> bool:
        x, dims, _ = _reduction(n)
        return any(_shape(x)[d] > UNROLLED for d in dims)

    def _is_inlined_product(self, n: Node) -> bool:
        letters = PRODUCTS[_op(n)][0]
        return _shape(_args(n)[0])[letters.index("k")] <= UNROLLED

    # -- placing values in nests

    def _put(
        self, kept: frozenset[Axis], reduced: frozenset[Axis], emit: Callable[[_Body], None], after: Iterable[Node],
        n: Node | None, first: int = 0,
    ) -> int:  # fmt: skip
        """Let `emit` add to the first nest of these loops in which it can, or to a new one, and return its number."""
        start = max([first, *(self._place[a] for a in after)])
        for number in range(start, len(self._bodies) + 1):
            if number == len(self._bodies):
                self._bodies.append((kept, reduced, _Body()))
            if self._bodies[number][:2] != (kept, reduced):
                continue
            body = self._bodies[number][2].copy()
            self._current = number
            try:
                emit(body)
            except _Illegal:
                continue
            finally:
                self._current = -1
            if n is not None:
                body.names.append(n.name)
                self._place[n] = max(number, self._place.get(n, 0))
            self._bodies[number] = (kept, reduced, body)
            return number
        raise AssertionError("a new nest takes everything")

    def _sources(self, n: Node) -> set[Node]:
        """The kept nodes that computing a node reads."""
        found: set[Node] = set()
        seen: set[Node] = set()
        todo = list(n.all_input_nodes)
        while todo:
            a = todo.pop()
            if a in seen:
                continue
            seen.add(a)
            if a in self._buffers:
                if a in self._place:
                    found.add(a)
            else:
                todo += a.all_input_nodes
        return found

    def _new_buffer(self, n: Node, innermost: int | None = None) -> Buffer:
        shape, dense = _shape(n), n in self._dense
        return Buffer(n.name, _dtype(n), shape, self._strides(shape, innermost, dense), dense)

    def _compute(self, n: Node) -> None:
        op = _op(n)
        if op in ("cumprod", "cumsum") and _shape(n)[int(_args(n)[1])] > UNROLLED:
            self._running(n)
        elif op in REDUCTIONS and self._reduces_loops(n):
            x, dims, keepdim = _reduction(n)
            if op in ("amax", "amin") and _dtype(n) not in ("f32", "f64"):
                raise NotLowered(f"{op} of {_dtype(n)}")
            kept_dims = [d for d in range(len(_shape(x))) if d not in dims]
            sizes = [_shape(x)[d] for d in (*kept_dims, *dims)]
            order = [*kept_dims, *dims]

            def element(body: _Body, at: Sequence[Index]) -> tuple[Value, ...]:
                index = [at[order.index(d)] for d in range(len(order))]
                value = self._value(body, x, index)
                return (body.convert(value, "bool" if op in ("all", "any") else _dtype(n)),)

            def target(at: Sequence[Index]) -> list[Index]:
                if keepdim:
                    return [at[order.index(d)] if d in kept_dims else Index() for d in range(len(order))]
                return list(at[: len(kept_dims)])

            divisor = float(math.prod(_shape(x)[d] for d in dims)) if op == "mean" else None
            self._reduce(n, REDUCTIONS[op], sizes, len(kept_dims), element, target, divisor)
        elif op in PRODUCTS and not self._is_inlined_product(n):
            first, second = _args(n)[:2]
            letters_a, letters_b = PRODUCTS[op]
            letters = [c for c in dict.fromkeys(letters_a + letters_b) if c != "k"] + ["k"]
            sizes_of = dict(zip(letters_a, _shape(first), strict=True)) | dict(zip(letters_b, _shape(second), strict=True))

            def factors(body: _Body, at: Sequence[Index]) -> tuple[Value, ...]:
                where = dict(zip(letters, at, strict=True))
                return (
                    self._value(body, first, [where[c] for c in letters_a]),
                    self._value(body, second, [where[c] for c in letters_b]),
                )

            self._reduce(
                n, "multiply_add", [sizes_of[c] for c in letters], len(letters) - 1, factors, lambda at: list(at[:-1]), None
            )
        elif op in ("cat", "stack") and _shape(n)[_cat_dim(n)] > UNROLLED:
            self._joined(n)
        else:
            self._elementwise(n)

    def _elementwise(self, n: Node) -> None:
        shape = _shape(n)
        axes = _axes(shape)
        points = list(_points(shape, axes))
        innermost = None
        if sum(axis is not None for axis in axes) > 1 and n not in self._dense:
            trial = _Body()
            self._defining = n
            for at in points:
                self._value(trial, n, at)
            self._defining = None
            innermost = _contiguous(trial, axes)
        buffer = self._new_buffer(n, innermost)

        def emit(body: _Body) -> None:
            self._defining = n
            try:
                for at in points:
                    value = self._value(body, n, at)
                    body.stores.append(Store(buffer, buffer.address(at), value, buffer.dense))
            finally:
                self._defining = None

        self._put(_present(axes), frozenset(), emit, self._sources(n), n)
        self._buffers[n] = buffer

    def _joined(self, n: Node) -> None:
        """cat and stack along a loop: every piece is written by a nest of its own."""
        d, start, innermost = _cat_dim(n), 0, None
        if _op(n) == "cat" and n not in self._dense:
            largest = max(_args(n)[0], key=lambda piece: math.prod(_shape(piece)))
            axes = _axes(_shape(largest))
            trial = _Body()
            for at in _points(_shape(largest), axes):
                self._value(trial, largest, at)
            innermost = _contiguous(trial, axes)
        buffer = self._new_buffer(n, innermost)
        after = self._sources(n)
        for piece in _args(n)[0]:
            shape = _shape(piece)
            axes = _axes(shape)

            def emit(body: _Body, piece: Any = piece, shape: Any = shape, axes: Any = axes, start: int = start) -> None:
                for at in _points(shape, axes):
                    value = body.convert(self._value(body, piece, at), _dtype(n))
                    if _op(n) == "cat":
                        where = [i.plus(start) if k == d else i for k, i in enumerate(at)]
                    else:
                        where = [*at[:d], Index(start), *at[d:]]
                    body.stores.append(Store(buffer, buffer.address(where), value, exact=True))

            self._put(_present(axes), frozenset(), emit, after, n)
            start += shape[d] if _op(n) == "cat" else 1
        self._buffers[n] = buffer

    def _reduce(
        self, n: Node, op: str, sizes: Sequence[int], num_kept: int,
        element: Callable[[_Body, Sequence[Index]], tuple[Value, ...]], target: Callable[[Sequence[Index]], list[Index]],
        divisor: float | None,
    ) -> None:  # fmt: skip
        """A reduction over loops: `sizes` are those of the kept dimensions, then those of the reduced ones."""
        axes = _axes(sizes)
        kept, reduced = _present(axes[:num_kept]), _present(axes[num_kept:])
        points = list(_points(sizes, axes))
        innermost = None
        if len(kept) > 1 and n not in self._dense:
            trial = _Body()
            for at in points:
                element(trial, at)
            shape = _shape(n)
            position = _contiguous(trial, axes[:num_kept])
            if position is not None:
                candidates = [d for d in range(len(shape)) if shape[d] == sizes[position]]
                innermost = candidates[-1] if len(candidates) == 1 else None
        buffer = self._new_buffer(n, innermost)

        def emit(body: _Body) -> None:
            parts: dict[Index, list[tuple[Value, ...]]] = {}
            for at in points:
                parts.setdefault(buffer.address(target(at)), []).append(element(body, at))
            for address, values in parts.items():
                # Elements of unrolled reduced dimensions are combined before they are accumulated.
                if len(values) > 1:
                    terms = [body.op("mul", *v) if op == "multiply_add" else v[0] for v in values]
                    combined = terms[0]
                    for term in terms[1:]:
                        combined = _combine(body, op, combined, term)
                    one: tuple[Value, ...] = (combined,)
                    of = "add" if op == "multiply_add" else op
                else:
                    one, of = values[0], op
                body.accumulators.append(Accumulator(of, buffer.dtype, one, buffer, address, divisor, full=not kept))

        if kept:
            self._put(kept, reduced, emit, self._sources(n), n)
        else:
            self._put(reduced, frozenset(), emit, self._sources(n), n)
        self._buffers[n] = buffer

    def _running(self, n: Node) -> None:
        """cumprod and cumsum: the accumulator's value is written at every step."""
        x, d = _args(n)[0], int(_args(n)[1]) % len(_shape(n))
        shape = _shape(n)
        rest = [k for k in range(len(shape)) if k != d]
        axes_in_order = _axes([*(shape[k] for k in rest), shape[d]])
        axes: list[Axis | None] = [None] * len(shape)
        for k, axis in zip([*rest, d], axes_in_order, strict=True):
            axes[k] = axis
        large = [k for k in rest if shape[k] > UNROLLED]
        buffer = self._new_buffer(n, large[-1] if large else None)

        def emit(body: _Body) -> None:
            for at in _points(shape, axes):
                value = body.convert(self._value(body, x, at), buffer.dtype)
                op = "mul" if _op(n) == "cumprod" else "add"
                address = buffer.address(at)
                body.accumulators.append(Accumulator(op, buffer.dtype, (value,), buffer, address, None, True, False))

        self._put(_present(axes) - _present([axes[d]]), _present([axes[d]]), emit, self._sources(n), n)
        self._buffers[n] = buffer

    def _write_outputs(self) -> list[Buffer]:
        """Write the outputs after everything else is computed: a carried one may take the place of its input."""
        first = len(self._bodies)
        outputs: list[Buffer] = []
        for k, node in enumerate(self._outputs):
            if k < self._carried and node is self._inputs[k]:
                outputs.append(self._buffers[node])
                continue
            shape = _shape(node)
            like = self._buffers[self._inputs[k]] if k < self._carried else None
            if like is not None and like.outside:
                raise NotLowered("a large input that changes from step to step")
            strides = like.strides if like else self._strides(shape, None, dense=False)
            buffer = Buffer(f"next_{k}" if like else f"output_{k}", _dtype(node), shape, strides, bool(like and like.dense))
            if like is not None and (like.dtype, like.shape) != (buffer.dtype, buffer.shape):
                raise NotLowered(f"output {k} has another type or shape than its input")
            axes = _axes(shape)

            def emit(body: _Body, node: Any = node, axes: Any = axes, shape: Any = shape, buffer: Buffer = buffer) -> None:
                for at in _points(shape, axes):
                    value = self._value(body, node, at)
                    body.stores.append(Store(buffer, buffer.address(at), value, buffer.dense))
                body.names.append(buffer.name)

            after = {node} & set(self._place) or self._sources(node)
            self._put(_present(axes), frozenset(), emit, after, None, first)
            outputs.append(buffer)
        return outputs

    def _finished(self, nests: list[Nest], outputs: list[Buffer]) -> LoopProgram:
        """Write carried outputs in place where nobody reads the old value any more, else copy them at the end."""
        inputs = [self._buffers[n] for n in self._inputs]
        extra: list[Nest] = []
        for k in range(self._carried):
            new, old = outputs[k], inputs[k]
            if new is old:
                continue
            written = next(i for i, nest in enumerate(nests) if any(s.buffer is new for s in nest.stores))
            addresses = {s.address for s in nests[written].stores if s.buffer is new}
            read_later = any(b is old for nest in nests[written + 1 :] for b, _ in nest.loads())
            read_elsewhere = any(b is old and a not in addresses for b, a in nests[written].loads())
            if read_later or read_elsewhere:
                body, axes = _Body(), _axes(new.shape)
                for at in _points(new.shape, axes):
                    value = body.value("load", new.dtype, new, new.address(at))
                    body.stores.append(Store(old, old.address(at), value, old.dense))
                extra.append(Nest(_present(axes), frozenset(), body.values, body.stores, [], [f"copy of {new.name}"]))
            else:
                stores = nests[written].stores
                nests[written].stores = [s._replace(buffer=old) if s.buffer is new else s for s in stores]
            outputs[k] = old
        nests = _without_unread(nests + extra, outputs)
        used: dict[int, Buffer] = {}
        for nest in nests:
            for buffer in (
                *(b for b, _ in nest.loads()),
                *(s.buffer for s in nest.stores),
                *(a.buffer for a in nest.accumulators),
            ):
                used[id(buffer)] = buffer
        for buffer in (*inputs, *outputs):
            if not buffer.outside:
                used[id(buffer)] = buffer
        return LoopProgram(inputs, outputs, self._carried, [b for b in used.values() if not b.outside], nests, self._constants)

    # -- the value of a node at an index

    def _value(self, body: _Body, n: Node, at: Sequence[Index]) -> Value:
        at = tuple(at)
        key = (n, at)
        if key in body.known:
            found: Value = body.known[key]
            return found
        if n in self._buffers and n is not self._defining:
            if self._place.get(n) == self._current and n in self._place:
                raise _Illegal(n.name)
            body.reads.add(n)
            buffer = self._buffers[n]
            found = body.value("load", buffer.dtype, buffer, buffer.address(at))
        else:
            found = self._computed(body, n, at)
        body.known[key] = found
        return found

    def _computed(self, body: _Body, n: Node, at: tuple[Index, ...]) -> Value:
        if n.op == "get_attr":
            return self._constant(body, n, at)
        if n.op != "call_function":
            raise NotLowered(f"{n.op} {n.name}")
        op = _op(n)
        if op in VIEWS:
            return self._view(body, n, at)
        if op == "getitem":
            return self._piece(body, n, at)
        if op in NUMBERS:
            return self._filled(body, n, at)
        if op in ("cat", "stack"):
            return self._part(body, n, at)
        if op in PLACED:
            return self._placed(body, n, at)
        if op in PRODUCTS:
            return self._small_product(body, n, at)
        if op in REDUCTIONS:
            return self._small_reduction(body, n, at)
        if op in ("cumprod", "cumsum"):
            x, d = _args(n)[0], int(_args(n)[1]) % len(at)
            if at[d].terms:
                raise NotLowered(f"{op} over {_shape(n)[d]} elements")
            terms = [self._value(body, x, (*at[:d], Index(k), *at[d + 1 :])) for k in range(at[d].constant + 1)]
            terms = [body.convert(term, _dtype(n)) for term in terms]
            return _fold(body, "mul" if op == "cumprod" else "add", terms)
        return self._of_operands(body, n, at)

    def _constant(self, body: _Body, n: Node, at: tuple[Index, ...]) -> Value:
        """A tensor that the recorded function holds itself."""
        tensor = operator.attrgetter(str(n.target))(self._graph)
        if not isinstance(tensor, torch.Tensor):
            raise NotLowered(f"a held {type(tensor).__name__}")
        n.meta.setdefault("val", tensor)
        if all(not i.terms for i in at):
            return body.const(tensor[tuple(i.constant for i in at)].item(), _dtype(n))
        if tensor.numel() > COPIED:
            raise NotLowered(f"a held tensor of {tensor.numel():,} elements")
        name = f"constant_{n.name}"
        buffer = self._buffers.get(n)
        if buffer is None:
            strides = _dense_strides(_shape(n))
            buffer = self._buffers[n] = Buffer(name, _dtype(n), _shape(n), strides, dense=True, outside=True)
            self._constants[name] = tensor.flatten().tolist()
        return body.value("load", buffer.dtype, buffer, buffer.address(at))

    def _view(self, body: _Body, n: Node, at: tuple[Index, ...]) -> Value:
        op, args = _op(n), _args(n)
        source: Node = args[0]
        shape = _shape(source)
        if op in SAME:
            return self._value(body, source, at)
        if op == "select":
            d = int(args[1]) % len(shape)
            return self._value(body, source, (*at[:d], Index(int(args[2]) % shape[d]), *at[d:]))
        if op in ("t", "permute", "transpose"):
            order = list(range(len(shape)))
            if op == "permute":
                order = [int(d) % len(shape) for d in args[1]]
            elif op == "t":
                order.reverse()
            else:
                i, k = int(args[1]) % len(shape), int(args[2]) % len(shape)
                order[i], order[k] = order[k], order[i]
            return self._value(body, source, [at[order.index(d)] for d in range(len(shape))])
        if op == "slice":
            defaults: tuple[Any, ...] = (None, 0, None, None, 1)
            _, d, start, _, step = (*args, *defaults[len(args) :])
            d = int(d or 0) % len(shape)
            start = int(start or 0)
            start = max(start + shape[d], 0) if start < 0 else start
            return self._value(body, source, [i.times(int(step)).plus(start) if k == d else i for k, i in enumerate(at)])
        if op == "unsqueeze":
            d = int(args[1]) % len(at)
            return self._value(body, source, (*at[:d], *at[d + 1 :]))
        if op == "flip":
            dims = [int(d) % len(shape) for d in args[1]]
            return self._value(body, source, [i.times(-1).plus(shape[k] - 1) if k in dims else i for k, i in enumerate(at)])
        if op == "diagonal":
            offset, one, other = (*(int(a) for a in args[1:]), *(0, 0, 1)[len(args) - 1 :])
            one, other = one % len(shape), other % len(shape)
            rest = iter(at[:-1])
            here = {one: at[-1].plus(max(-offset, 0)), other: at[-1].plus(max(offset, 0))}
            return self._value(body, source, [here[d] if d in here else next(rest) for d in range(len(shape))])
        if op == "expand":
            at = at[len(at) - len(shape) :]
            return self._value(body, source, [Index() if shape[k] == 1 else i for k, i in enumerate(at)])
        linear = Index()
        for index_of_d, stride in zip(at, _dense_strides(_shape(n)), strict=True):
            linear = linear.plus(index_of_d.times(stride))
        index = _unflattened(linear, shape)
        if index is not None:
            return self._value(body, source, index)
        if source not in self._buffers or not self._buffers[source].dense:
            raise _NeedsDense(source)
        if self._place.get(source) == self._current and source in self._place:
            raise _Illegal(source.name)
        body.reads.add(source)
        return body.value("load", self._buffers[source].dtype, self._buffers[source], linear)

    def _piece(self, body: _Body, n: Node, at: tuple[Index, ...]) -> Value:
        """One of several results."""
        several: Node = _args(n)[0]
        k = int(_args(n)[1])
        op, args = _op(several), _args(several)
        if op == "threefry2x32":
            words = [self._operand(body, a, at, "i32") for a in args]
            pair = body.value("threefry", "pair", *words)
            return body.value("second" if k else "first", "i32", pair)
        if op not in PIECES:
            raise NotLowered(f"results of {op}")
        source: Node = args[0]
        shape = _shape(source)
        if op == "unbind":
            d = int(args[1] if len(args) > 1 else 0) % len(shape)
            return self._value(body, source, (*at[:d], Index(k), *at[d:]))
        d = int(args[2] if len(args) > 2 else 0) % len(shape)
        if op == "split_with_sizes":
            start = sum(int(size) for size in args[1][:k])
        else:
            size = int(args[1])
            start = k * (size if op == "split" else -(-shape[d] // size))
        return self._value(body, source, [i.plus(start) if j == d else i for j, i in enumerate(at)])

    def _filled(self, body: _Body, n: Node, at: tuple[Index, ...]) -> Value:
        op, args, dtype = _op(n), _args(n), _dtype(n)
        if op == "arange":
            overload = str(n.target).rpartition(".")[2]
            start, step = (args[0] if overload in ("start", "start_step") else 0), (args[2] if len(args) > 2 else 1)
            if not isinstance(start, int) or not isinstance(step, int):
                raise NotLowered("arange of fractions")
            index = at[0].times(step).plus(start)
            return body.convert(body.value("index", "i32", index), dtype) if index.terms else body.const(index.constant, dtype)
        number = FILLED.get(op)
        if number is None:
            number = args[0] if op == "scalar_tensor" else args[1]
        if isinstance(number, Node):
            return self._operand(body, number, at, dtype)
        return body.const(number, dtype)

    def _part(self, body: _Body, n: Node, at: tuple[Index, ...]) -> Value:
        """cat and stack: the piece that an index lies in, which is the same for all elements of a loop."""
        d, start = _cat_dim(n), 0
        low, high = at[d].bounds()
        for piece in _args(n)[0]:
            width = 1 if _op(n) == "stack" else _shape(piece)[d]
            if start <= low and high < start + width:
                if _op(n) == "stack":
                    where: tuple[Index, ...] = (*at[:d], *at[d + 1 :])
                else:
                    where = (*at[:d], at[d].plus(-start), *at[d + 1 :])
                return body.convert(self._value(body, piece, where), _dtype(n))
            start += width
        raise NotLowered(f"{_op(n)} of several pieces inside of one loop")

    def _placed(self, body: _Body, n: Node, at: tuple[Index, ...]) -> Value:
        """A tensor inside of another: of these two the one that an index lies in."""
        op, args, shape = _op(n), _args(n), _shape(n)
        if op == "constant_pad_nd":
            pads = [int(p) for p in args[1]]
            inner: Node = args[0]
            fill = body.const(args[2] if len(args) > 2 else 0, _dtype(n))
            where, inside = list(at), []
            for k in range(len(pads) // 2):
                d = len(shape) - 1 - k
                where[d] = at[d].plus(-pads[2 * k])
                inside.append((where[d], _shape(inner)[d]))
            return self._inside(body, inner, where, inside, fill, _dtype(n))
        if op in ("select_scatter", "slice_scatter"):
            around, inner, d, *rest = args
            outer = self._value(body, around, at)
        else:
            inner, _, d, *rest = args
            outer = body.const(0, _dtype(n))
        d = int(d) % len(shape)
        if op in ("select_scatter", "select_backward"):
            position = at[d].plus(-(int(rest[0]) % shape[d]))
            where = [*at[:d], *at[d + 1 :]]
            return self._inside(body, inner, where, [(position, 1)], outer, _dtype(n))
        start = int(rest[0] or 0) if rest else 0
        start = start + shape[d] if start < 0 else start
        if len(rest) > 2 and rest[2] not in (None, 1):
            raise NotLowered(f"{op} with a step")
        position = at[d].plus(-start)
        where = [*at[:d], position, *at[d + 1 :]]
        return self._inside(body, inner, where, [(position, _shape(inner)[d])], outer, _dtype(n))

    def _inside(
        self, body: _Body, inner: Node, where: Sequence[Index], inside: Sequence[tuple[Index, int]], outer: Value, dtype: str
    ) -> Value:
        """`inner` at `where` if every position lies in [0, width), else `outer`."""
        conditions = []
        for position, width in inside:
            low, high = position.bounds()
            if high < 0 or low >= width:
                return outer
            if low < 0 or high >= width:
                number = body.value("index", "i32", position)
                conditions.append(body.op("ge", number, body.const(0, "i32")))
                conditions.append(body.op("lt", number, body.const(width, "i32")))
        if conditions:
            shape = _shape(inner)
            if any(i.bounds()[0] < 0 or i.bounds()[1] >= shape[k] for k, i in enumerate(where)):
                raise NotLowered("a tensor placed inside of a loop of another size")
        value = body.convert(self._value(body, inner, where), dtype)
        for condition in conditions:
            value = _select(body, condition, value, outer)
        return value

    def _small_product(self, body: _Body, n: Node, at: tuple[Index, ...]) -> Value:
        first, second = _args(n)[:2]
        letters_a, letters_b = PRODUCTS[_op(n)]
        outer = [c for c in dict.fromkeys(letters_a + letters_b) if c != "k"]
        where = dict(zip(outer, at, strict=True))
        terms = []
        for k in range(_shape(first)[letters_a.index("k")]):
            where["k"] = Index(k)
            one = self._value(body, first, [where[c] for c in letters_a])
            other = self._value(body, second, [where[c] for c in letters_b])
            terms.append(body.op("mul", one, other))
        return _fold(body, "add", terms)

    def _small_reduction(self, body: _Body, n: Node, at: tuple[Index, ...]) -> Value:
        x, dims, keepdim = _reduction(n)
        shape, op = _shape(x), _op(n)
        rest = iter(at if not keepdim else [i for k, i in enumerate(at) if k not in dims])
        outer = {d: next(rest) for d in range(len(shape)) if d not in dims}
        terms = []
        for point in itertools.product(*(range(shape[d]) for d in dims)):
            inner = dict(zip(dims, point, strict=True))
            value = self._value(body, x, [outer[d] if d in outer else Index(inner[d]) for d in range(len(shape))])
            terms.append(body.convert(value, "bool" if op in ("all", "any") else _dtype(n)))
        total = _fold(body, REDUCTIONS[op], terms)
        return body.op("div", total, body.const(len(terms), total.dtype)) if op == "mean" else total

    def _operand(self, body: _Body, a: Any, at: tuple[Index, ...], dtype: str | None) -> Value:
        """An operand at the index of the result: broadcast and converted."""
        if not isinstance(a, Node):
            return body.const(a, dtype or "f32")
        shape = _shape(a)
        where = at[len(at) - len(shape) :] if shape else ()
        value = self._value(body, a, [Index() if shape[k] == 1 else i for k, i in enumerate(where)])
        return value if dtype is None else body.convert(value, dtype)

    def _of_operands(self, body: _Body, n: Node, at: tuple[Index, ...]) -> Value:
        op, args, dtype = _op(n), list(_args(n)), _dtype(n)
        if op in ("_to_copy", "to", "convert_element_type"):
            return self._operand(body, args[0], at, dtype)
        if op == "copy":
            return self._operand(body, args[1], at, dtype)
        if op == "where":
            condition = self._operand(body, args[0], at, "bool")
            return _select(body, condition, *(self._operand(body, a, at, dtype) for a in args[1:3]))
        if op == "masked_fill":
            condition = self._operand(body, args[1], at, "bool")
            return _select(body, condition, self._operand(body, args[2], at, dtype), self._operand(body, args[0], at, dtype))
        if op in ("clamp", "clamp_min", "clamp_max"):
            if op == "clamp_max":
                args = [args[0], None, args[1]]
            low, high = (*args[1:], n.kwargs.get("min"), n.kwargs.get("max"))[:2] if len(args) > 1 else (
                n.kwargs.get("min"), n.kwargs.get("max"),
            )  # fmt: skip
            x = self._operand(body, args[0], at, dtype)
            ends = [None if e is None else self._operand(body, e, at, dtype) for e in (low, high)]
            return _clamped(body, x, ends[0], ends[1])
        if dtype == "bool" and op in ("mul", "add"):  # of truth values
            op = "logical_and" if op == "mul" else "logical_or"
        emit = ELEMENTWISE.get(op)
        if emit is None:
            raise NotLowered(op)
        unknown = {k: v for k, v in n.kwargs.items() if k not in ("alpha",)}
        if unknown:
            raise NotLowered(f"{op} with {', '.join(unknown)}")
        if n.kwargs.get("alpha", 1) != 1:
            raise NotLowered(f"{op} with alpha")
        computed_in: str | None = dtype
        if (op == "remainder" and dtype in ("f32", "f64")) or (op in ("minimum", "maximum") and dtype == "bool"):
            raise NotLowered(f"{op} of {dtype}")
        if op in COMPARISONS:
            tensors = [a.meta["val"] if isinstance(a, Node) else a for a in args[:2]]
            computed_in = DTYPES[torch.result_type(*tensors)]
            if computed_in == "bool":  # a truth value is 0 or -1 here, and 0 or 1 in torch
                computed_in = "i32"
        elif op.startswith(("logical", "is")):
            computed_in = None
        return emit(body, *(self._operand(body, a, at, computed_in) for a in args))


def _live(outputs: Iterable[Any]) -> set[Node]:
    live: set[Node] = set()
    todo = [o for o in outputs if isinstance(o, Node)]
    while todo:
        n = todo.pop()
        if n not in live:
            live.add(n)
            todo += n.all_input_nodes
    return live


def _is_tensor(n: Node) -> bool:
    return isinstance(n.meta.get("val"), torch.Tensor)


def _source(n: Node) -> Node:
    """The node whose elements a view shows."""
    while _op(n) in (*VIEWS, *PIECES) or (_op(n) == "getitem" and _op(_args(n)[0]) in PIECES):
        n = _args(n)[0]
    return n


def _cat_dim(n: Node) -> int:
    d: Any = _args(n)[1] if len(_args(n)) > 1 else n.kwargs.get("dim", 0)
    return int(d) % len(_shape(n))


def _reduction(n: Node) -> tuple[Node, list[int], bool]:
    """Operand, reduced dimensions, and whether they stay with size 1."""
    x: Node = _args(n)[0]
    rank = len(_shape(x))
    dims: Any = _args(n)[1] if len(_args(n)) > 1 else n.kwargs.get("dim")
    keepdim = bool(_args(n)[2] if len(_args(n)) > 2 else n.kwargs.get("keepdim", False))
    if isinstance(dims, int):
        dims = [dims]
    found = sorted(int(d) % rank for d in dims) if dims else list(range(rank))
    return x, found, keepdim


def _present(axes: Iterable[Axis | None]) -> frozenset[Axis]:
    return frozenset(axis for axis in axes if axis is not None)


def _contiguous(trial: _Body, axes: Sequence[Axis | None]) -> int | None:
    """The position of the axis along which most of the buffers that are read are contiguous; the last one of several."""
    scores = {}
    for k, axis in enumerate(axes):
        if axis is None:
            continue
        several = [v.args[1] for v in trial.values if v.op == "load" and len(v.args[1].terms) > 1]
        scores[k] = sum(abs(index.factor(axis)) == 1 for index in several)
    return max(scores, key=lambda k: (scores[k], k)) if scores else None


def _unflattened(linear: Index, shape: Sequence[int]) -> list[Index] | None:
    """The index in a shape of a position in its flattened form, where it is affine."""
    found = []
    for n, stride in zip(shape, _dense_strides(shape), strict=True):
        if n == 1:
            found.append(Index())
            continue
        whole = Index.of(linear.constant // stride, ((a, c // stride) for a, c in linear.terms if c % stride == 0))
        rest = Index.of(linear.constant % stride, ((a, c) for a, c in linear.terms if c % stride))
        low, high = rest.bounds()
        if low < 0 or high >= stride:
            return None
        found.append(whole)
        linear = rest
    return found


def _combine(body: _Body, op: str, one: Value, other: Value) -> Value:
    return body.value("add" if op == "multiply_add" else op, one.dtype, one, other)


def _fold(body: _Body, op: str, terms: Sequence[Value]) -> Value:
    total = terms[0]
    for term in terms[1:]:
        total = _combine(body, op, total, term)
    return total


def _without_unread(nests: list[Nest], outputs: Sequence[Buffer]) -> list[Nest]:
    """Leave out what is written to buffers that nobody reads, and values that nothing needs."""
    while True:
        read = {id(b) for nest in nests for b, _ in nest.loads()} | {id(b) for b in outputs}
        changed = False
        for nest in nests:
            before = len(nest.stores) + len(nest.accumulators) + len(nest.values)
            nest.stores = [s for s in nest.stores if id(s.buffer) in read]
            nest.accumulators = [a for a in nest.accumulators if id(a.buffer) in read]
            needed: set[int] = set()
            todo = [s.value for s in nest.stores] + [v for a in nest.accumulators for v in a.values]
            while todo:
                value = todo.pop()
                if id(value) not in needed:
                    needed.add(id(value))
                    todo += [a for a in value.args if isinstance(a, Value)]
            nest.values = [v for v in nest.values if id(v) in needed]
            changed |= before != len(nest.stores) + len(nest.accumulators) + len(nest.values)
        nests = [nest for nest in nests if nest.stores or nest.accumulators]
        if not changed:
            return nests
