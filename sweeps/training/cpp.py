"""C++ of a loop program for one core: a lane's values stay in its workspace, which fits the processor's cache.

One loop of a nest runs in vectors of as many elements as the processor has (`STEP` in lane.h). A sum over that loop has 16
partial sums whatever that number is, combined in pairs of distance 8, 4, 2, 1; a sum over other loops is taken in their order.
So the order of every sum is a property of the program's text, and bits do not depend on the instruction set or the compiler.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from sweeps.training.loops import IDENTITY, VECTOR, Accumulator, Axis, Buffer, Index, LoopProgram, Nest, NotLowered, Value

SCALARS = {"f32": "float", "f64": "double", "i32": "int32_t", "i64": "int64_t", "bool": "int32_t", "pair": "Words"}
VECTORS = {"f32": "vf", "f64": "vd", "i32": "vi", "i64": "vl", "bool": "vi", "pair": "WordsOfVector"}
OUTSIDE = {"f32": "float", "f64": "double", "i32": "int32_t", "i64": "int64_t", "bool": "uint8_t"}
"""Types of tensors in memory. A truth value in a program is 0 or -1, of the width of a number, so that it selects."""
OPERATORS = {"add": "+", "sub": "-", "mul": "*", "div": "/", "and": "&", "or": "|", "xor": "^"}
UNARY = {"neg": "-", "not": "~"}
OF_BOTH = ("exp", "log", "pow", "floor")
OF_SINGLE = ("sin", "cos", "tanh", "log1p", "expm1")
SLACK = 2 * VECTOR
"""Elements after the last one of a buffer that may be read or written, and mean nothing."""
ACCUMULATORS = 4
"""Accumulators that are kept in registers side by side."""
DRAWN = 4
"""Vectors of random numbers that are drawn side by side, since every operation on one waits for the one before."""
LIGHT = 40
"""Values of a loop body that is repeated for several accumulators side by side."""
GATHERED = 12.0
"""Cost of reading elements at a distance, relative to a vector."""


def print_cpp(program: LoopProgram, stops: int | None = None) -> str:
    """Return a translation unit with two functions:

    `workspace` returns the bytes that a call needs, aligned to 64. `run(pointers, steps, count, work)` runs `count` lanes,
    lane i for steps[i] steps: its argument k is at pointers[i * arguments + k], without padding; inputs come first, then
    the outputs that are not carried. After an input that is read where it is, 128 bytes must be readable. `stops` is the
    number of a carried whole number (the lane's status) that ends a lane's steps where it is not 0.
    """
    return _Printer(program, stops).text()


def header() -> str:
    """Return the text that every program begins with."""
    return (files("sweeps.training") / "lane.h").read_text()


def literal(number: float | int | bool, dtype: str) -> str:
    if dtype == "bool":
        return "-1" if number else "0"
    if dtype in ("i32", "i64"):
        return f"({SCALARS[dtype]}){int(number)}ll"
    if math.isnan(number):
        return f"({SCALARS[dtype]})NAN_"
    if math.isinf(number):
        return f"({SCALARS[dtype]}){'-' if number < 0 else ''}INF_"
    return f"({float(number).hex()}{'f' if dtype == 'f32' else ''})"


def operation(value: Value, texts: Sequence[str], wide: bool = False) -> str:
    """Return an operation on the texts of its operands; `wide`: they are vectors."""
    op, args = value.op, value.args

    def number(x: float, dtype: str) -> str:
        return f"V({literal(x, dtype)})" if wide else literal(x, dtype)

    if op in ("shl", "shr"):
        if args[1].op != "const":
            raise NotLowered("a shift by a number that is computed")
        return f"{op}_({texts[0]}, {int(args[1].args[0])})"
    if op == "convert":
        source = args[0].dtype
        if value.dtype == "bool":
            return f"ne_({texts[0]}, {number(0, source)})"
        if source == "bool":
            return f"select_({texts[0]}, {number(1, value.dtype)}, {number(0, value.dtype)})"
        return f"to_{value.dtype}({texts[0]})"
    if op in UNARY:
        return f"({UNARY[op]}{texts[0]})"
    if op in OPERATORS:
        return f"({texts[0]} {OPERATORS[op]} {texts[1]})"
    if op in OF_BOTH or op in OF_SINGLE:
        if value.dtype != "f32" and not (value.dtype == "f64" and op in OF_BOTH):
            raise NotLowered(f"{op} of {value.dtype}")
        return f"{op}_{value.dtype}({', '.join(texts)})"
    return f"{op}{'' if op == 'threefry' else '_'}({', '.join(texts)})"


@dataclass(frozen=True)
class _Instance:
    """One of several copies of a loop body: the block axis is `number` iterations further, names end in `suffix`."""

    suffix: str = ""
    number: int = 0


@dataclass(frozen=True)
class _Plan:
    """How a nest runs: loops from the outermost on, the one in vectors, and the one that is repeated `block` times."""

    order: list[Axis]
    vector: Axis | None
    block_axis: Axis | None
    block: int


def plan(nest: Nest) -> _Plan:
    prefixes = any(a.prefixes for a in nest.accumulators)
    candidates: list[Axis] = [*sorted(nest.kept), *([] if prefixes else sorted(nest.reduced))]
    if not candidates:
        return _Plan(_by_stride(nest, nest.kept) + _by_stride(nest, nest.reduced), None, None, 1)
    vector = min(candidates, key=lambda axis: _cost(nest, axis))
    kept, reduced = _by_stride(nest, nest.kept - {vector}), _by_stride(nest, nest.reduced - {vector})
    block_axis: Axis | None = None
    block = 1
    partial = [a for a in nest.accumulators if not a.full]
    if vector in nest.kept:
        order = [*kept, vector, *reduced]
        if not nest.accumulators and any(v.op == "threefry" for v in nest.values):
            block_axis, block = vector, DRAWN
        if partial and len(partial) == len(nest.accumulators) and len(nest.values) <= LIGHT:
            block_axis, block = vector, min(4, max(1, ACCUMULATORS // len(partial)), -(-vector.size // VECTOR))
    else:
        order = [*kept, *reduced, vector]
        if partial and kept and len(nest.values) <= LIGHT:
            block_axis, block = kept[-1], min(4, max(1, ACCUMULATORS // len(partial)))
    return _Plan(order, vector, block_axis, block)


def _by_stride(nest: Nest, axes: frozenset[Axis]) -> list[Axis]:
    """Loops whose steps are far apart in memory first."""
    addresses = [index for _, index in nest.loads()] + [s.address for s in nest.stores]
    return sorted(axes, key=lambda axis: (-sum(abs(i.factor(axis)) for i in addresses), axis))


def _cost(nest: Nest, axis: Axis) -> float:
    """Of running a nest in vectors along an axis."""

    def of(index: Index, strided: float) -> float:
        factor = index.factor(axis)
        return 0.3 if factor == 0 else 1.0 if factor == 1 else strided

    total = 1.0 + sum(of(index, GATHERED) for _, index in nest.loads())
    total += sum(of(s.address, GATHERED + 2) for s in nest.stores)
    others = math.prod(a.size for a in nest.reduced)
    for accumulator in nest.accumulators:
        if accumulator.full:
            continue
        if accumulator.prefixes:
            total += of(accumulator.address, GATHERED + 2)
        elif axis in nest.kept:
            total += of(accumulator.address, GATHERED + 2) / others
        else:
            total += 8.0 * VECTOR / others
    return total * (-(-axis.size // VECTOR) * VECTOR / axis.size)


class _Printer:
    def __init__(self, program: LoopProgram, stops: int | None) -> None:
        self._program, self._stops = program, stops
        self._lines: list[str] = []

    def text(self) -> str:
        program = self._program
        add = self._lines.append
        add(header())
        add("struct Work {")
        for b in program.buffers:
            add(f"  alignas(64) {SCALARS[b.dtype]} {b.name}[{b.size + SLACK}];")
        add("  int nothing;\n};")
        for name, numbers in program.constants.items():
            dtype = next(b.dtype for nest in program.nests for b, _ in nest.loads() if b.name == name)
            elements = ", ".join(literal(x, dtype) for x in numbers)
            add(f"static const {SCALARS[dtype]} {name}[{len(numbers) + SLACK}] = {{{elements}}};")
        add('extern "C" int64_t workspace() { return sizeof(Work); }')
        outside = [(k, b) for k, b in enumerate(program.inputs) if b.outside]
        parameters = "".join(f", const {OUTSIDE[b.dtype]}* __restrict {b.name}" for _, b in outside)
        add(f"static void step(Work* __restrict w{parameters}) {{")
        for nest in program.nests:
            self._nest(nest)
        add("}")
        add('extern "C" void run(char* const* pointers, const int64_t* steps, int64_t count, char* work) {')
        add("  Work* w = (Work*)work;")
        num_arguments = len(program.inputs) + len(program.outputs) - program.carried
        add(f"  for (int64_t n = 0; n < count; n++) {{\n    char* const* at = pointers + n * {num_arguments};")
        for k, b in enumerate(program.inputs):
            if not b.outside:
                self._copy(k, b, into=True)
        arguments = "".join(f", (const {OUTSIDE[b.dtype]}*)at[{k}]" for k, b in outside)
        stop = f" if (w->{program.inputs[self._stops].name}[0] != 0) break;" if self._stops is not None else ""
        add(f"    for (int64_t s = 0; s < steps[n]; s++) {{{stop} step(w{arguments}); }}")
        for k, b in enumerate(program.outputs):
            if k >= program.carried:
                self._copy(len(program.inputs) + k - program.carried, b, into=False)
            elif any(b is s.buffer for nest in program.nests for s in nest.stores):
                self._copy(k, b, into=False)
        add("  }\n}")
        return "\n".join(self._lines) + "\n"

    def _copy(self, k: int, b: Buffer, into: bool) -> None:
        """Between an argument in memory and its buffer."""
        loops, inside, dense = "", Index(), Index()
        stride = math.prod(b.shape)
        for d, n in enumerate(b.shape):
            stride //= max(n, 1)
            axis = Axis(f"d{d}", n)
            loops += f"for (int d{d} = 0; d{d} < {n}; d{d}++) "
            inside = inside.plus(Index(0, ((axis, b.strides[d]),)))
            dense = dense.plus(Index(0, ((axis, stride),)))
        here, there = f"w->{b.name}[{_address(inside)}]", f"p[{_address(dense)}]"
        if into:
            move = f"{here} = {f'-(int32_t)({there} != 0)' if b.dtype == 'bool' else there};"
        else:
            move = f"{there} = {f'(uint8_t)({here} != 0)' if b.dtype == 'bool' else here};"
        const = "const " if into else ""
        kind = OUTSIDE[b.dtype]
        self._lines.append(f"    {{ {const}{kind}* p = ({const}{kind}*)at[{k}]; {loops}{move} }}")

    # -- nests

    def _nest(self, nest: Nest) -> None:
        p = plan(nest)
        self._lines.append(f"  // {', '.join(nest.names)}")
        _NestPrinter(nest, p, self._lines).print()


class _NestPrinter:
    def __init__(self, nest: Nest, plan: _Plan, lines: list[str]) -> None:
        self._nest, self._plan, self._lines = nest, plan, lines
        self._position = {axis: k + 1 for k, axis in enumerate(plan.order)}
        self._names = {id(v): f"v{k}" for k, v in enumerate(nest.values)}
        self._kept_level = len(nest.kept)
        self._mask: str | None = None
        """Name of the truth values of elements that exist, in the last vector of a loop."""

    def print(self) -> None:
        add = self._lines.append
        add("  {")
        full = [a for a in self._nest.accumulators if a.full]
        for a in full:
            self._declare(a, _Instance())
        self._level(0, [_Instance()])
        for a in full:
            self._finish(a, _Instance())
        add("  }")

    def _level(self, level: int, instances: Sequence[_Instance]) -> None:
        """What is computed inside of the first `level` loops and outside of the next."""
        add = self._lines.append
        for value in self._nest.values:
            if max((self._position[a] for a in value.axes), default=0) == level and value.op != "const":
                for instance in self._own(value.axes, instances):
                    add(f"const {self._type(value)} {self._name(value, instance)} = {self._expression(value, instance)};")
        partial = [a for a in self._nest.accumulators if not a.full]
        if level == self._kept_level and self._nest.reduced:
            for a in partial:
                for instance in instances:
                    self._declare(a, instance)
        if level < len(self._plan.order):
            self._loop(level, instances)
        else:
            for a in self._nest.accumulators:
                for instance in instances:
                    self._update(a, instance)
        for s in self._nest.stores:
            if max((self._position[a] for a in (*s.value.axes, *(a for a, _ in s.address.terms))), default=0) == level:
                for instance in instances:
                    self._store(s.buffer, s.address, self._as_vector(s.value, instance, s.address), s.exact, instance)
        if level == self._kept_level and self._nest.reduced:
            for a in partial:
                if not a.prefixes:
                    for instance in instances:
                        self._finish(a, instance)

    def _loop(self, level: int, instances: Sequence[_Instance]) -> None:
        axis, add = self._plan.order[level], self._lines.append
        if self._is_summed(axis):
            self._sixteens(level, axis, instances)
            return
        step = "STEP" if axis is self._plan.vector else "1"
        blocks = self._plan.block if axis is self._plan.block_axis else 1
        start = "0"
        if blocks > 1:
            start = f"{axis.name}_rest"
            add(f"const int {start} = ({axis.size} + {step} - 1) / {step} / {blocks} * {blocks} * {step};")
            add(f"for (int {axis.name} = 0; {axis.name} < {start}; {axis.name} += {blocks} * {step}) {{")
            self._level(level + 1, [_Instance(f"_{u}", u) for u in range(blocks)])
            add("}")
        add(f"for (int {axis.name} = {start}; {axis.name} < {axis.size}; {axis.name} += {step}) {{")
        self._level(level + 1, instances)
        add("}")

    def _is_summed(self, axis: Axis) -> bool:
        """Whether sums over a loop in vectors are taken: it has 16 partial sums, and only elements that exist count."""
        return axis is self._plan.vector and (axis in self._nest.reduced or any(a.full for a in self._nest.accumulators))

    def _sixteens(self, level: int, axis: Axis, instances: Sequence[_Instance]) -> None:
        """The loop with sums: its body is a function of the first element and of the vectors of partial sums."""
        add, whole = self._lines.append, axis.size // VECTOR * VECTOR
        sums = [
            (VECTORS[a.dtype], self._accumulator(a, instance))
            for a in self._nest.accumulators if a.full or axis in self._nest.reduced for instance in instances
        ]  # fmt: skip
        parameters = "".join(f", {kind}& {name}" for kind, name in sums)
        arguments = "".join(f", {name}" for _, name in sums)
        for start, masked in ((0, False), (whole, True)):
            if start == (axis.size if masked else whole):
                continue
            add(f"{{ auto body = [&](const int {axis.name}{parameters}) BODY {{")
            if masked:
                add(f"const vi exists = lt_(iota_(), V((int32_t){axis.size} - {axis.name}));")
                self._mask = "exists"
            self._level(level + 1, instances)
            self._mask = None
            add("};")
            loop = "" if masked else f"for (int {axis.name} = 0; {axis.name} < {whole}; {axis.name} += {VECTOR}) "
            place = f"{whole}, {axis.size - whole}" if masked else f"{axis.name}, {VECTOR}"
            add(f"{loop}sixteen({place}, body{arguments}); }}")

    def _own(self, axes: frozenset[Axis], instances: Sequence[_Instance]) -> Sequence[_Instance]:
        """The copies that a value differs between."""
        if self._plan.block_axis in axes or len(instances) == 1:
            return instances
        return [_Instance()]

    def _name(self, value: Value, instance: _Instance) -> str:
        return self._names[id(value)] + (instance.suffix if self._plan.block_axis in value.axes else "")

    def _is_vector(self, value: Value) -> bool:
        return self._plan.vector in value.axes

    def _type(self, value: Value) -> str:
        return (VECTORS if self._is_vector(value) else SCALARS)[value.dtype]

    def _text(self, value: Value, instance: _Instance) -> str:
        return literal(value.args[0], value.dtype) if value.op == "const" else self._name(value, instance)

    def _address(self, index: Index, instance: _Instance) -> str:
        block, text = self._plan.block_axis, _address(index)
        further = 0 if block is None else index.factor(block) * instance.number
        return text if further == 0 else f"{text} + {further}" + (" * STEP" if block is self._plan.vector else "")

    def _expression(self, value: Value, instance: _Instance) -> str:
        op, args, wide = value.op, value.args, self._is_vector(value)
        vector = self._plan.vector
        if op == "index":
            text = f"(int32_t)({self._address(args[0], instance)})"
            return text if not wide else f"V({text}) + iota_() * V({args[0].factor(vector)})"
        if op == "load":
            return self._load(args[0], args[1], instance)
        texts = [self._text(a, instance) for a in args]
        if wide:
            texts = [t if self._is_vector(a) else f"V({t})" for a, t in zip(args, texts, strict=True)]
        return operation(value, texts, wide)

    def _load(self, buffer: Buffer, address: Index, instance: _Instance) -> str:
        vector = self._plan.vector
        place = buffer.name if buffer.outside else f"w->{buffer.name}"
        at = self._address(address, instance)
        factor = address.factor(vector) if vector is not None else 0
        if factor == 0:
            return f"{place}[{at}]"
        if factor == 1:
            return f"load({place} + {at})"
        assert vector is not None
        if vector.size % VECTOR:
            return f"gather_first({place} + {at}, {factor}, {self._left(instance)})"
        return f"gather({place} + {at}, {factor})"

    def _left(self, instance: _Instance) -> str:
        """Elements from here to the end of the loop in vectors."""
        vector = self._plan.vector
        assert vector is not None
        further = f" - {instance.number} * STEP" if vector is self._plan.block_axis and instance.number else ""
        return f"{vector.size} - {vector.name}{further}"

    def _as_vector(self, value: Value, instance: _Instance, address: Index) -> str:
        text = self._text(value, instance)
        vector = self._plan.vector
        wide = vector is not None and address.factor(vector) != 0
        return f"V({text})" if wide and not self._is_vector(value) else text

    def _store(self, buffer: Buffer, address: Index, text: str, exact: bool, instance: _Instance) -> None:
        vector = self._plan.vector
        at = f"w->{buffer.name} + {self._address(address, instance)}"
        factor = address.factor(vector) if vector is not None else 0
        if factor == 0:
            self._lines.append(f"*({at}) = {text};")
        elif factor != 1:
            self._lines.append(f"scatter({at}, {factor}, {text}, {self._left(instance)});")
        elif exact and vector is not None and vector.size % VECTOR:
            self._lines.append(f"store_first({at}, {text}, {self._left(instance)});")
        else:
            self._lines.append(f"store({at}, {text});")

    # -- accumulators

    def _wide(self, a: Accumulator) -> bool:
        """Whether its steps are vectors: it sums over the loop in vectors, or has a result for every element of it."""
        return self._plan.vector is not None

    def _accumulator(self, a: Accumulator, instance: _Instance) -> str:
        return f"a{self._nest.accumulators.index(a)}{instance.suffix}"

    def _declare(self, a: Accumulator, instance: _Instance) -> None:
        vector, kind, start = self._plan.vector, SCALARS[a.dtype], literal(IDENTITY[a.op], a.dtype)
        if vector is not None:
            kind, start = VECTORS[a.dtype], f"V({start})"
            if a.full or vector in self._nest.reduced:
                kind, start = f"Sums<{kind}>", f"sums({start})"
        self._lines.append(f"{kind} {self._accumulator(a, instance)} = {start};")

    def _update(self, a: Accumulator, instance: _Instance) -> None:
        name, wide = self._accumulator(a, instance), self._wide(a)
        texts = []
        for value in a.values:
            text = self._text(value, instance)
            texts.append(f"V({text})" if wide and not self._is_vector(value) else text)
        if self._mask and (a.full or self._plan.vector in self._nest.reduced):
            neutral = literal(IDENTITY[a.op], a.dtype)
            texts = [f"select_({self._mask}, {t}, V({neutral}))" for t in texts]
        if a.op == "multiply_add":
            product = f"{texts[0]} * {texts[1]} + {name}"
            new = f"fma_({texts[0]}, {texts[1]}, {name})" if a.dtype in ("f32", "f64") else product
        elif a.op in OPERATORS:
            new = f"{name} {OPERATORS[a.op]} {texts[0]}"
        else:
            new = f"{a.op}_({name}, {texts[0]})"
        self._lines.append(f"{name} = {new};")
        if a.prefixes:
            self._store(a.buffer, a.address, name, a.buffer.dense, instance)

    def _finish(self, a: Accumulator, instance: _Instance) -> None:
        text, vector = self._accumulator(a, instance), self._plan.vector
        summed = vector is not None and (a.full or vector in self._nest.reduced)
        if summed:
            text = f"total_{'add' if a.op == 'multiply_add' else a.op}<{SCALARS[a.dtype]}>({text})"
        if a.divisor is not None:
            divisor = literal(a.divisor, a.dtype)
            text = f"{text} / {divisor if summed or vector is None else f'V({divisor})'}"
        if summed and vector is not None and a.address.factor(vector):
            raise AssertionError("the result of a sum over a loop varies with that loop")
        self._store(a.buffer, a.address, text, a.buffer.dense, instance)


def _address(index: Index) -> str:
    """An index as C++."""
    terms = [axis.name if factor == 1 else f"{axis.name} * {factor}" for axis, factor in index.terms]
    return " + ".join([*terms, *([str(index.constant)] if index.constant or not terms else [])])
