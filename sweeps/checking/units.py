"""A unit made ready for a check: built in small networks of two layers, with what the engine would hand it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, grad_and_value

from arith_models import base
from sweeps.checking.declaration import (
    SILENCE,
    UNIT_DOCSTRING,
    Variant,
    draws_nothing_global,
    says_nothing,
    variants,
)
from sweeps.checking.engine import translated
from sweeps.checking.findings import Fault, Sources
from sweeps.checking.watching import Event, generators, traces, watched
from sweeps.config import registry
from sweeps.config.settings import validated
from sweeps.training.random import Stream, seed_key
from sweeps.training.step import Context

SHAPES = ((10, 2, 1), (4, 3, 2), (1, 1, 1))
"""(inputs, hidden, outputs) of the networks that a unit is built in."""
ROWS = 5
LATE = 1_500_000.0  # schedules of penalties have begun
PENALTIES = {"sparsity_penalty": {"weight": 0.1}, "out_of_bound_penalty": 0.1, "input_penalty": 0.1}


class Unit:
    """What the rules for models look at."""

    kind = "model"
    docstring_needs = UNIT_DOCSTRING
    instead_of_random = (
        "draw from the stream that is handed in: stream.uniform(shape, low, high) or stream.normal(shape) in "
        "initialise, ctx.stream in forward"
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.cls = registry.find("model", name)
        self.shipped = name in registry.names("model")
        self.sources = Sources(self.cls)
        self._events: list[Event] | None = None

    @cached_property
    def variants(self) -> list[Variant]:
        return variants(self.cls)

    def events(self) -> list[Event]:
        """What forward and constrain do besides their work."""
        if self._events is None:
            found: list[Event] = []
            for variant in self.variants:
                model: Any = self.network(config=variant.config)
                for _, ctx in contexts():
                    with watched(self.sources) as seen:
                        model(batch(), ctx)
                        with torch.no_grad():
                            model.constrain()
                            model.effective_weights()
                    found += seen
            self._events = found
        return self._events

    def network(
        self,
        shape: tuple[int, int, int] = SHAPES[0],
        seed: int = 1,
        config: Any = None,
        penalties: bool = True,
    ) -> nn.Module:
        """Two layers of the unit, drawn from a seed."""
        inputs, hidden, outputs = shape
        two_layer: Any = registry.find("network", "two_layer")
        settings = {"hidden": hidden, **(PENALTIES if penalties else {})}
        maker = partial(self.layer, config=config, seed=None)
        model: nn.Module = two_layer(validated(two_layer.Config, settings), [maker] * 2, inputs, outputs)
        self.initialise(model, seed)
        return model

    def layer(self, inputs: int, outputs: int, config: Any = None, seed: int | None = 1) -> nn.Module:
        """The unit alone; not initialised if the seed is None."""
        cls: Any = self.cls
        config = cls.Config() if config is None else config
        layer: nn.Module = cls(config, inputs, outputs)
        if cls.is_cell:
            layer = OneStep(cls(config, inputs + outputs, outputs), outputs)
        if seed is not None:
            self.initialise(layer, seed)
        return layer

    def initialise(self, model: Any, seed: int) -> None:
        """Parameters are NaN before, so that one left out is seen."""
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(torch.nan)
            model.initialise(Stream(seed_key(seed, "initialise")))


class OneStep(base.Unit):
    """A recurrent cell as a layer: what becomes of a state of one half. y is the first part of the new state."""

    def __init__(self, cell: Any, outputs: int) -> None:
        super().__init__()
        self.cell, self._outputs = cell, outputs

    def initialise(self, stream: Any) -> None:
        self.cell.initialise(stream)

    def effective_weight(self) -> Tensor:
        weight: Tensor = self.cell.effective_weight()
        return weight

    def forward(self, x_BI: Tensor, ctx: Any) -> tuple[Tensor, dict[str, Tensor]]:
        state_BS = x_BI.new_full((len(x_BI), self._outputs * self.cell.state_parts), 0.5)
        new_BS, penalties = self.cell(torch.cat([x_BI, state_BS], 1), ctx)
        return new_BS[:, : self._outputs], penalties

    def constrain(self) -> None:
        self.cell.constrain()


def context(
    step: float = 0.0, training: bool = True, seed: int = 1, last_error: float = torch.inf
) -> Context:
    """What the engine hands to forward."""
    stream = Stream(seed_key(seed, "model"), int(step))
    return Context(torch.tensor(step), training, stream, torch.tensor(last_error))


def contexts() -> list[tuple[str, Context]]:
    """The first step, a late one, and evaluation; made anew, since a stream remembers what was drawn."""
    return [
        ("in the first step", context()),
        ("in a late step", context(LATE, last_error=0.1)),
        ("in evaluation", context(training=False, last_error=0.0)),
    ]


def batch(inputs: int = SHAPES[0][0], seed: int = 9, low: float = 1.0, high: float = 2.0) -> Tensor:
    """Rows of x in [1, 2], where every unit of the literature has a value."""
    return Stream(seed_key(seed, "batch")).uniform((ROWS, inputs), low, high)


SEEDS = range(5)  # a rectifier may be silent in one of several starts


def builds(unit: Unit) -> Iterator[Fault]:
    """y is [B, O] and finite for x in [1, 2], penalties are finite numbers, effective weights [O, I]; all float32.

    First one layer alone, whose faults are the clearest, then two in a network.
    """
    for variant in unit.variants:
        for shape in SHAPES if variant is unit.variants[0] else SHAPES[1:2]:
            inputs, hidden, outputs = shape
            which = f" for {inputs} inputs, {outputs} outputs{variant.label}"
            alone: Any = unit.layer(inputs, outputs, config=variant.config)
            faults = [*_shaped(unit, alone, inputs, outputs, which)]
            yield from faults or [*_weighs(unit, alone.effective_weight(), (outputs, inputs), which)]
            if not faults:
                which = f" in two layers for (inputs, hidden, outputs) = {shape}{variant.label}"
                network: Any = unit.network(shape, config=variant.config)
                yield from _shaped(unit, network, inputs, outputs, which)
                for value, expected in zip(
                    network.effective_weights(), ((hidden, inputs), (outputs, hidden)), strict=True
                ):
                    yield from _weighs(unit, value, expected, which)


def _shaped(unit: Unit, model: Any, inputs: int, outputs: int, which: str) -> Iterator[Fault]:
    forward = unit.sources.of_method("forward")
    for when, ctx in contexts():
        y_BO, penalties = model(batch(inputs), ctx)
        for found in _wrong("y", y_BO, (ROWS, outputs)):
            yield Fault(f"{found}{which} {when}", "forward maps x [B, I] to finite float32 y [B, O]", forward)
        for name, value in penalties.items():
            for found in _wrong(f"penalty {name!r}", value, ()):
                do = "a penalty is one finite float32 number: take the mean or the sum"
                yield Fault(f"{found}{which} {when}", do, forward)


def _weighs(unit: Unit, value: Any, shape: tuple[int, int], which: str) -> Iterator[Fault]:
    """[O, I], or several matrices of that shape one above the other."""
    stacked = isinstance(value, Tensor) and value.dim() == 2 and len(value) % shape[0] == 0
    if stacked and value.shape[1] == shape[1]:
        shape = (len(value), shape[1])
    for found in _wrong("effective_weight()", value, shape):
        do = "return the weights [O, I] that the sparsity error looks at; several matrices stand one above the other"
        yield Fault(found + which, do, unit.sources.of_method("effective_weight"))


def _wrong(what: str, value: Any, shape: tuple[int, ...]) -> Iterator[str]:
    if not isinstance(value, Tensor):
        yield f"{what} is a {type(value).__name__}, not a tensor"
    elif tuple(value.shape) != shape:
        yield f"{what} has shape {list(value.shape)} instead of {list(shape)}"
    elif value.dtype != torch.float32:
        yield f"{what} is {value.dtype}"
    elif not value.isfinite().all():
        yield f"{what} is not finite"


def initialises(unit: Unit) -> Iterator[Fault]:
    """Every parameter is float32 and filled, the same from the same stream, others from another."""
    place = unit.sources.of_method("initialise")
    for variant in unit.variants:
        one, same, other = (unit.network(seed=s, config=variant.config) for s in (1, 1, 2))
        for (name, p), q in zip(one.named_parameters(), same.parameters(), strict=True):
            if p.dtype != torch.float32:
                yield Fault(f"parameter {name} is {p.dtype}", "make it float32", _parameter(unit, name))
            if not p.isfinite().all():
                do = f"fill it in initialise: self.{name.rpartition('.')[2]}.copy_(stream.uniform(shape, low, high))"
                yield Fault(f"initialise leaves {name} as it was{variant.label}", do, _parameter(unit, name))
            elif not torch.equal(p, q):
                yield Fault(f"{name} differs between two equal streams", unit.instead_of_random, place)
        alike = all(torch.equal(p, q) for p, q in zip(one.parameters(), other.parameters(), strict=True))
        if alike and torch.equal(one(batch(), context(seed=1))[0], one(batch(), context(seed=2))[0]):
            found = f"two seeds start with the same weights, and draw nothing in training{variant.label}"
            yield Fault(found, unit.instead_of_random, place)


def _parameter(unit: Unit, path: str) -> Any:
    """Where a parameter of the network is made, or the unit's class."""
    name = path.rpartition(".")[2]
    return unit.sources.of_parameter(name) or unit.sources.of_class()


def global_generators(unit: Unit) -> Iterator[Fault]:
    """Torch's, NumPy's and Python's own generators are left alone, by initialise and by forward."""
    for variant in unit.variants:
        model: Any = unit.network(config=variant.config)
        events: list[Event] = []
        with watched(unit.sources, snapshot=generators) as seen, torch.no_grad():
            model.initialise(Stream(seed_key(1, "initialise")))
        events += seen
        for _, ctx in contexts():
            with watched(unit.sources, snapshot=generators) as seen:
                model(batch(), ctx)
            events += seen
        for event in events:
            if event.kind in ("random", "trace"):
                yield Fault(f"draws from {event.what}", unit.instead_of_random, event.place)
    yield from draws_nothing_global(unit)


KEEP = "compute a new tensor instead; what a lane must remember is a parameter, and the engine alone changes these"


def pure(unit: Unit) -> Iterator[Fault]:
    """The same input gives the same output, and a call leaves no trace: not in x, the parameters or any variable."""
    forward = unit.sources.of_method("forward")
    for variant in unit.variants:
        model: Any = unit.network(config=variant.config)
        params = dict(model.named_parameters())
        for when, ctx in contexts():
            x = batch()
            given = {"x": x} | {f"parameter {name}": p for name, p in params.items()}
            with torch.no_grad(), watched(unit.sources, given, partial(traces, model, unit.sources)) as seen:
                first = model(x, ctx)[0]
            for event in seen:
                if event.kind in ("write", "trace"):
                    how = " in place" if event.kind == "write" else ""
                    yield Fault(f"forward changes {event.what}{how}", KEEP, event.place)
            left = any(event.kind in ("write", "trace") for event in seen)
            if not left and not torch.equal(first, model(batch(), dict(contexts())[when])[0]):
                found = f"two calls with the same input differ{variant.label} {when}"
                yield Fault(found, "let y depend on x, the parameters and ctx only", forward)


def evaluates(unit: Unit) -> Iterator[Fault]:
    """In evaluation the output is the same whatever the stream holds."""
    for variant in unit.variants:
        model: Any = unit.network(config=variant.config)
        first, second = (model(batch(), context(training=False, seed=s, last_error=0.0))[0] for s in (1, 2))
        if not torch.equal(first, second):
            do = "draw only `if ctx.training`: evaluation takes the mean, or the likeliest"
            found = f"y in evaluation depends on what is drawn{variant.label}"
            yield Fault(found, do, unit.sources.of_method("forward"))


def silent(unit: Unit) -> Iterator[Fault]:
    """Forward neither prints, logs, warns nor opens files."""
    for event in unit.events():
        if event.kind == "speak":
            yield Fault(f"forward calls {event.what}", SILENCE, event.place)
    yield from says_nothing(unit)


def blind(unit: Unit) -> Iterator[Fault]:
    """Forward and constrain do the same operations whatever the values: lanes are computed side by side."""
    do = "use torch.where, clamp or a product with a mask instead: all lanes run the same operations"
    for event in unit.events():
        if event.kind == "value":
            yield Fault(f"{event.what} looks at a value", do, event.place)


def rows(unit: Unit) -> Iterator[Fault]:
    """A row's y in evaluation depends on this row only, unless the class says `mixes_rows = True`."""
    if unit.cls.mixes_rows:
        return
    for variant in unit.variants:
        model, x = unit.network(config=variant.config), batch()
        for when in ("in a late step", "in evaluation"):
            whole = model(x, dict(contexts())[when])[0]
            if not torch.equal(whole, model(x, context(LATE, when != "in evaluation", 2, last_error=0.1))[0]):
                continue  # noise that was drawn for a whole batch is other noise for a row
            for row in range(ROWS):
                alone = model(x[row : row + 1], dict(contexts())[when])[0]
                if not torch.allclose(alone, whole[row : row + 1], rtol=1e-5, atol=1e-5):
                    found = f"row {row} alone gives another y than among {ROWS} rows{variant.label} {when}"
                    do = "compute each row by itself, or write `mixes_rows = True` in the class and say why"
                    yield Fault(found, do, unit.sources.of_method("forward"))
                    break


def learns(unit: Unit) -> Iterator[Fault]:
    """In at least one of several starts a gradient reaches every parameter; for x in [1, 2] all gradients are finite.

    Several, since a rectifier may be silent in one, an imaginary weight needs negative inputs, and a share of one output
    is always the whole.
    """
    for variant in unit.variants:
        names, reached, endless = set[str](), set[str](), set[str]()
        for shape, seed, low in itertools.product(SHAPES[:2], SEEDS, (1.0, -2.0)):
            if names and names == reached:
                break
            for name, value in _gradients(unit, variant.config, shape, seed, low).items():
                names.add(name)
                finite = bool(value.isfinite().all())
                if finite and value.any():
                    reached.add(name)
                if not finite and low > 0:
                    endless.add(name)
        for name in sorted(endless):
            do = (
                "keep roots, logarithms and divisions away from 0 (also in the branch that torch.where drops)"
            )
            yield Fault(
                f"the gradient of {name} is not finite{variant.label}", do, unit.sources.of_method("forward")
            )
        for name in sorted(names - reached - endless):
            found = f"{name} never receives a gradient{variant.label}, so it never learns"
            do = "let forward compute with it in every call; what the constructor computes from it stays as it is"
            yield Fault(found, do, _parameter(unit, name))


def _gradients(
    unit: Unit, config: Any, shape: tuple[int, int, int], seed: int, low: float
) -> dict[str, Tensor]:
    """As the engine takes them: of a function of the parameters."""
    model = unit.network(shape, seed, config, penalties=False)
    x, ctx = batch(shape[0], seed=9 + seed, low=low), context(LATE, seed=seed, last_error=0.1)

    def loss(params: dict[str, Tensor]) -> Tensor:
        y_BO, penalties = functional_call(model, params, (x, ctx))
        return (y_BO - 3).square().mean() + sum(penalties.values())

    params = {name: p.detach() for name, p in model.named_parameters()}
    found: dict[str, Tensor] = grad(loss)(params)
    return found


def constrains(unit: Unit) -> Iterator[Fault]:
    """Constrain leaves fresh parameters alone, is idempotent, and keeps them and the effective weights finite."""
    place = unit.sources.of_method("constrain")
    for variant in unit.variants:
        model: Any = unit.network(config=variant.config)
        fresh = _constrained(model)
        for name, before, after in zip(dict(model.named_parameters()), fresh[0], fresh[1], strict=True):
            if not torch.equal(before, after):
                do = "let initialise draw within the bounds that constrain sets"
                yield Fault(f"constrain changes a fresh {name}{variant.label}", do, place)
        with torch.no_grad():
            for i, parameter in enumerate(model.parameters()):
                parameter.copy_(3 * Stream(seed_key(i, "model")).normal(parameter.shape))
        _, once = _constrained(model)
        _, twice = _constrained(model)
        for name, p, q in zip(dict(model.named_parameters()), once, twice, strict=True):
            if not p.isfinite().all():
                yield Fault(f"constrain makes {name} infinite or NaN{variant.label}", "clamp it", place)
            elif not torch.equal(p, q):
                found = f"a second constrain changes {name} again{variant.label}"
                yield Fault(found, "clamp to fixed bounds", place)
        if not all(w.isfinite().all() for w in model.effective_weights()):
            do = "make it finite for any finite parameter"
            yield Fault(
                f"effective_weight() is not finite{variant.label}",
                do,
                unit.sources.of_method("effective_weight"),
            )


def _constrained(model: Any) -> tuple[list[Tensor], list[Tensor]]:
    """The parameters before and after."""
    before = [p.detach().clone() for p in model.parameters()]
    with torch.no_grad():
        model.constrain()
    return before, [p.detach().clone() for p in model.parameters()]


Values = dict[str, Tensor]
LANES, MIDDLE = 3, 1


def apart(unit: Unit) -> Iterator[Fault]:
    """Outputs, penalties and gradients of a lane among others."""
    place = unit.sources.of_function("vmap", "setup_context") or unit.sources.of_method("forward")
    do = "compute with this lane's own tensors only: no module variables, no rule of vmap's that reduces over lanes"
    for variant in unit.variants:
        lane = _lane(unit, variant.config)
        arguments = [_arguments(unit, variant.config, seed) for seed in range(LANES)]
        try:
            together = _together(lane, arguments)
        except Exception as error:  # what vmap cannot do is a fault of the unit's, and has a line
            yield translated(error, unit)
            continue
        for name, value in lane(*arguments[0]).items():
            scale = float(value.abs().max()) if value.numel() else 0.0
            if not torch.allclose(together[name][0], value, rtol=1e-4, atol=1e-5 * max(1.0, scale)):
                yield Fault(
                    f"{name} of a lane among {LANES} differs from that of the lane alone{variant.label}",
                    do,
                    place,
                )
        other = arguments.copy()
        other[MIDDLE] = _arguments(unit, variant.config, 9)
        nan = arguments.copy()
        nan[MIDDLE] = (
            {n: torch.full_like(p, torch.nan) for n, p in arguments[MIDDLE][0].items()},
            *arguments[MIDDLE][1:],
        )
        for changed, what in ((other, "another neighbour"), (nan, "a neighbour that is NaN")):
            for name, value in _together(lane, changed).items():
                for k in (0, 2):
                    if not torch.equal(value[k], together[name][k]):
                        yield Fault(f"{what} changes {name} of a lane{variant.label}", do, place)


def _lane(unit: Unit, config: Any) -> Callable[..., Values]:
    """One lane's numbers as a function of its parameters, its batch and the key of its stream."""
    model = unit.network(config=config)

    def lane(params: Values, x_BI: Tensor, key: Tensor) -> Values:
        def loss(params: Values) -> tuple[Tensor, Values]:
            stream = Stream((key[0], key[1]), key[0])
            ctx = Context(torch.tensor(LATE), True, stream, torch.tensor(0.1))
            y_BO, penalties = functional_call(model, params, (x_BI, ctx))
            told = {"y": y_BO} | {f"penalty {name!r}": value for name, value in penalties.items()}
            return (y_BO - 3).square().mean() + sum(penalties.values()), told

        grads, (_, told) = grad_and_value(loss, has_aux=True)(params)
        return told | {f"the gradient of {name}": value for name, value in grads.items()}

    return lane


def _arguments(unit: Unit, config: Any, seed: int) -> tuple[Values, Tensor, Tensor]:
    model = unit.network(seed=seed, config=config)
    params = {name: p.detach() for name, p in model.named_parameters()}
    return params, batch(seed=seed), torch.tensor([seed, seed + 1], dtype=torch.int32)


def _together(lane: Callable[..., Values], arguments: list[tuple[Values, Tensor, Tensor]]) -> Values:
    params = {name: torch.stack([a[0][name] for a in arguments]) for name in arguments[0][0]}
    found: Values = torch.vmap(lane)(
        params, torch.stack([a[1] for a in arguments]), torch.stack([a[2] for a in arguments])
    )
    return found
