"""Units and networks under check, and the rules for their numbers.

A unit is built in small networks of two layers, a network for the inputs and outputs of a task that it can learn. Both receive
the arguments that the engine would pass to them.
"""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, grad_and_value

from arith_models import base
from sweeps.checking.declaration import SILENCE, draws_nothing_global, outputs_nothing
from sweeps.checking.engine import SMALL, SMALL_TASKS, EngineSubject, translated
from sweeps.checking.side_effects import Event, generators, variables, watched
from sweeps.checking.source import Fault, Location
from sweeps.checking.tasks import leaves, same, sampled
from sweeps.config import registry
from sweeps.config.settings import build, validated
from sweeps.training.random import Stream, seed_key
from sweeps.training.settings import Built
from sweeps.training.step import Context

SHAPES = ((10, 2, 1), (4, 3, 2), (1, 1, 1))
"""(inputs, hidden, outputs) of the networks that a unit is built in."""
BATCH = 5
LATE = 1_500_000.0
"""A step at which schedules of penalties have begun."""
PENALTIES = {"sparsity_penalty": {"weight": 0.1}, "out_of_bound_penalty": 0.1, "input_penalty": 0.1}
STARTS = range(5)
"""Seeds of the starts that are tried: a rectifier may have no gradient in one of them."""
SHAPES_DOCUMENTED = (r"Shapes:", "shapes", "write a line such as: Shapes: x [B, I] -> y [B, O]; W [O, I]")
PAPER_DOCUMENTED = (
    r"\((?:[A-Z][A-Za-z]+ )?(?:19|20)\d\d[,)]", "paper with its year", "name paper and section",
)  # fmt: skip


class ModelSubject(EngineSubject):
    """A unit or a network under check. Rules build it as a network, whose `forward` they call."""

    instead_of_random = (
        "draw from the stream that is passed in: stream.uniform(shape, low, high) or stream.normal(shape) in "
        "initialise, ctx.stream in forward"
    )

    @abstractmethod
    def uninitialised(self, config: Any, penalties: bool = True) -> base.Network:
        """Return the network; `penalties` switches on those that are off by default."""

    @abstractmethod
    def batch(self, seed: int = 9) -> Any:
        """Return the inputs of a training batch."""

    def starts(self, config: Any) -> Iterator[tuple[base.Network, Any, int, bool]]:
        """Yield networks, batches, seeds and whether gradients must be finite there, without optional penalties."""
        for seed in STARTS:
            yield self.model(seed, config, penalties=False), self.batch(9 + seed), seed, True

    def model(self, seed: int = 1, config: Any = None, penalties: bool = True) -> base.Network:
        """Return the network with parameters drawn from a seed."""
        return initialised(self.uninitialised(config, penalties), seed)

    @cached_property
    def events(self) -> list[Event]:
        """Side effects of forward, constrain and effective_weights."""
        found: list[Event] = []
        for variant in self.variants:
            model = self.model(config=variant.config)
            for _, ctx in contexts(model):
                with watched(self.sources) as seen:
                    model(self.batch(), ctx)
                    with torch.no_grad():
                        model.constrain()
                        model.effective_weights()
                found += seen
        return found


class UnitSubject(ModelSubject):
    """A unit under check."""

    kind = "model"
    documentation = (
        SHAPES_DOCUMENTED, (r"\b(y(_o)?|h') = ", "equation", "write it as: y = ..."), PAPER_DOCUMENTED,
    )  # fmt: skip
    cls: type[base.Unit]

    def settings(self) -> dict[str, Any]:
        task = "recurrent" if self.cls.is_cell else "static"
        return {"model": self.name, "task": {"name": task, **SMALL_TASKS[task]}, "train": SMALL}

    def uninitialised(self, config: Any, penalties: bool = True, shape: tuple[int, int, int] = SHAPES[0]) -> base.Network:
        """Return two layers of the unit."""
        inputs, hidden, outputs = shape
        two_layer: Any = registry.find("network", "two_layer")
        settings = {"hidden": hidden, **(PENALTIES if penalties else {})}
        factory = partial(self.layer, config=config)
        model: base.Network = two_layer(validated(two_layer.Config, settings), [factory] * 2, inputs, outputs)
        return model

    def layer(self, inputs: int, outputs: int, config: Any = None) -> base.Unit:
        """Return the unit alone, not initialised."""
        cls: Any = self.cls
        config = cls.Config() if config is None else config
        if self.cls.is_cell:
            return OneStep(cls(config, inputs + outputs, outputs), outputs)
        unit: base.Unit = cls(config, inputs, outputs)
        return unit

    def batch(self, seed: int = 9, inputs: int = SHAPES[0][0], low: float = 1.0) -> Tensor:
        """Return rows of x in [1, 2], where every unit of the literature has a value."""
        return Stream(seed_key(seed, "batch")).uniform((BATCH, inputs), low, 2.0)

    def starts(self, config: Any) -> Iterator[tuple[base.Network, Any, int, bool]]:
        """As above. Inputs are negative in some: an imaginary weight needs them."""
        for shape, seed, low in itertools.product(SHAPES[:2], STARTS, (1.0, -2.0)):
            model = initialised(self.uninitialised(config, False, shape), seed)
            yield model, self.batch(9 + seed, shape[0], low), seed, low > 0


class NetworkSubject(ModelSubject):
    """A network under check, on a task that it can learn; one that arranges units has `linear` ones."""

    kind = "network"
    documentation = (SHAPES_DOCUMENTED, PAPER_DOCUMENTED)
    cls: type[base.Network]

    def settings(self) -> dict[str, Any]:
        task = registry.learnable_task(self.name)
        model = {"name": "linear", "network": self.name} if self.cls.num_units else {"name": self.name}
        small = SMALL_TASKS.get(task, registry.find("task", task).small)
        return {"model": {**model, **self.cls.small}, "task": {"name": task, **small}, "train": SMALL}

    @cached_property
    def built(self) -> Built:
        """The network and its task. Raises ValueError where the settings have faults."""
        settings, faults = self.resolved()
        if settings is None:
            raise ValueError("; ".join(faults))
        return build(settings)

    def uninitialised(self, config: Any, penalties: bool = True) -> base.Network:
        model: base.Network = self.built.model(config)
        return model

    def batch(self, seed: int = 9) -> Any:
        return sampled(self.built.task, seed, BATCH)[0]


class OneStep(base.Unit):
    """A recurrent cell as a layer: y is the first part of the new state, after one step from a state of one half."""

    def __init__(self, cell: base.Unit, outputs: int) -> None:
        super().__init__()
        self.cell, self._outputs = cell, outputs

    def initialise(self, stream: base.Stream) -> None:
        self.cell.initialise(stream)

    def effective_weight(self) -> Tensor:
        return self.cell.effective_weight()

    def forward(self, x_BI: Tensor, ctx: base.Context) -> tuple[Tensor, base.Penalties]:
        state_BS = x_BI.new_full((len(x_BI), self._outputs * self.cell.state_parts), 0.5)
        new_BS, penalties = self.cell(torch.cat([x_BI, state_BS], 1), ctx)
        return new_BS[:, : self._outputs], penalties

    def constrain(self) -> None:
        self.cell.constrain()


def initialised(model: Any, seed: int) -> Any:
    """Return the module with parameters drawn from a seed. They are NaN before, so that one left out is found."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(torch.nan)
        model.initialise(Stream(seed_key(seed, "initialise")))
    return model


def context(
    step: float = 0.0, training: bool = True, seed: int = 1, last_error: float = torch.inf,
    memory: base.Memory | None = None,
) -> Context:  # fmt: skip
    """Return what the engine passes to `forward`."""
    stream = Stream(seed_key(seed, "model"), int(step))
    return Context(torch.tensor(step), training, stream, torch.tensor(last_error), memory)


def contexts(model: Any = None) -> list[tuple[str, Context]]:
    """Return contexts of the first step, a late one and an evaluation; made anew, since a stream counts its draws."""
    memory = model.initial_memory() if isinstance(model, base.Network) else {}
    return [
        ("in the first step", context(memory=memory)),
        ("in a late step", context(LATE, last_error=0.1, memory=memory)),
        ("in evaluation", context(training=False, last_error=0.0, memory=memory)),
    ]


def builds(unit: UnitSubject) -> Iterator[Fault]:
    """y is [B, O] and finite for x in [1, 2], penalties are finite numbers, effective weights [O, I]; all float32.

    First one layer alone, whose faults are the clearest, then two in a network.
    """
    for variant in unit.variants:
        for shape in SHAPES if variant is unit.variants[0] else SHAPES[1:2]:
            inputs, hidden, outputs = shape
            which = f" for {inputs} inputs, {outputs} outputs{variant.label}"
            alone: base.Unit = initialised(unit.layer(inputs, outputs, variant.config), 1)
            faults = [*_shaped(unit, alone, inputs, outputs, which)]
            yield from faults or [*_weighs(unit, alone.effective_weight(), (outputs, inputs), which)]
            if not faults:
                which = f" in two layers for (inputs, hidden, outputs) = {shape}{variant.label}"
                network = initialised(unit.uninitialised(variant.config, shape=shape), 1)
                yield from _shaped(unit, network, inputs, outputs, which)
                for value, expected in zip(network.effective_weights(), ((hidden, inputs), (outputs, hidden)), strict=True):
                    yield from _weighs(unit, value, expected, which)


def fits_task(network: NetworkSubject) -> Iterator[Fault]:
    """The output has the shape that the task's loss takes, and is finite; penalties are finite numbers; all float32."""
    settings, faults = network.resolved()
    if settings is None:
        yield Fault("; ".join(faults), "let the defaults fit each other", network.sources.of_class())
        return
    forward, task = network.sources.of_method("forward"), network.built.task
    x, target = sampled(task, 9, BATCH)
    shapes = [(*t.shape, task.num_outputs) if task.reads_symbols else tuple(t.shape) for t in leaves(target)]
    on_task = f" on task {settings['task']['name']}"
    for variant in network.variants:
        model = network.model(config=variant.config)
        for when, ctx in contexts(model):
            y, penalties = model(x, ctx)
            where = f"{on_task}{variant.label} {when}"
            if isinstance(y, tuple) != task.reads_symbols or len(leaves(y)) != len(shapes):
                found = f"y is {_kind(y)}, but {_kind(target)} is the target"
                do = "return y [B, O], or, of symbols, a tuple of logits [B, n, O], one for each of x"
                yield Fault(found + where, do, forward)
                continue
            for part, shape in zip(leaves(y), shapes, strict=True):
                for found in _wrong("y", part, shape):
                    yield Fault(found + where, "forward returns finite float32 outputs of this shape", forward)
            yield from _wrong_penalties(penalties, where, forward)
        for value in model.effective_weights():
            if not isinstance(value, Tensor) or value.dim() != 2 or not value.isfinite().all():
                found = f"effective_weights() has {_kind(value)} that is no finite matrix{variant.label}"
                do = "return the weights [O, I] of its units; [] if they have no reason to be -1, 0 or 1"
                yield Fault(found, do, network.sources.of_method("effective_weights"))


def _kind(value: Any) -> str:
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    return f"a tensor {list(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"


def _shaped(unit: UnitSubject, model: nn.Module, inputs: int, outputs: int, which: str) -> Iterator[Fault]:
    forward = unit.sources.of_method("forward")
    for when, ctx in contexts(model):
        y_BO, penalties = model(unit.batch(inputs=inputs), ctx)
        for found in _wrong("y", y_BO, (BATCH, outputs)):
            yield Fault(f"{found}{which} {when}", "forward maps x [B, I] to finite float32 y [B, O]", forward)
        yield from _wrong_penalties(penalties, f"{which} {when}", forward)


def _wrong_penalties(penalties: base.Penalties, where: str, forward: Location) -> Iterator[Fault]:
    for name, value in penalties.items():
        if name == "observed":  # not a penalty: see `NetworkTerms`
            continue
        for found in _wrong(f"penalty {name!r}", value, ()):
            do = "a penalty is one finite float32 number: take the mean or the sum"
            yield Fault(found + where, do, forward)


def _weighs(unit: UnitSubject, value: Any, shape: tuple[int, int], which: str) -> Iterator[Fault]:
    """The effective weights are [O, I], or several such matrices along the first axis."""
    stacked = isinstance(value, Tensor) and value.dim() == 2 and len(value) % shape[0] == 0
    if stacked and value.shape[1] == shape[1]:
        shape = (len(value), shape[1])
    for found in _wrong("effective_weight()", value, shape):
        do = "return the weights [O, I] of the sparsity error; concatenate several matrices along the first axis"
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


def initialises(subject: ModelSubject) -> Iterator[Fault]:
    """Every parameter is float32 and filled, the same from the same stream, others from another."""
    location = subject.sources.of_method("initialise")
    for variant in subject.variants:
        one, again, other = (subject.model(seed=s, config=variant.config) for s in (1, 1, 2))
        for (name, p), q in zip(one.named_parameters(), again.parameters(), strict=True):
            if p.dtype != torch.float32:
                yield Fault(f"parameter {name} is {p.dtype}", "make it float32", _parameter(subject, name))
            if not p.isfinite().all():
                do = f"fill it in initialise: self.{name.rpartition('.')[2]}.copy_(stream.uniform(shape, low, high))"
                yield Fault(f"initialise leaves {name} as it was{variant.label}", do, _parameter(subject, name))
            elif not torch.equal(p, q):
                yield Fault(f"{name} differs between two equal streams", subject.instead_of_random, location)
        alike = all(torch.equal(p, q) for p, q in zip(one.parameters(), other.parameters(), strict=True))
        memory = one.initial_memory()
        drawn = [one(subject.batch(), context(seed=s, memory=memory))[0] for s in (1, 2)] if alike else []
        if alike and same(*drawn):
            found = f"two seeds start with the same weights, and draw nothing in training{variant.label}"
            yield Fault(found, subject.instead_of_random, location)


def _parameter(subject: ModelSubject, path: str) -> Location:
    """Return the line that makes a parameter of the network, or that of the class."""
    name = path.rpartition(".")[2]
    return subject.sources.of_parameter(name) or subject.sources.of_class()


def global_generators(subject: ModelSubject) -> Iterator[Fault]:
    """Neither initialise nor forward touches the generators of torch, NumPy or Python."""
    for variant in subject.variants:
        model = subject.model(config=variant.config)
        events: list[Event] = []
        with watched(subject.sources, snapshot=generators) as seen, torch.no_grad():
            model.initialise(Stream(seed_key(1, "initialise")))
        events += seen
        for _, ctx in contexts(model):
            with watched(subject.sources, snapshot=generators) as seen:
                model(subject.batch(), ctx)
            events += seen
        for event in events:
            if event.kind in ("random", "change"):
                yield Fault(f"draws from {event.what}", subject.instead_of_random, event.location)
    yield from draws_nothing_global(subject)


KEEP = "compute a new tensor instead; what a lane must keep is a parameter, and only the engine changes these"


def pure(subject: ModelSubject) -> Iterator[Fault]:
    """The same input gives the same output, and a call changes neither x nor a parameter nor any variable."""
    forward = subject.sources.of_method("forward")
    for variant in subject.variants:
        model = subject.model(config=variant.config)
        snapshot = partial(variables, model, subject.sources)
        for when, ctx in contexts(model):
            x = subject.batch()
            given: dict[str, Tensor] = {"x": x} if isinstance(x, Tensor) else {f"x[{i}]": part for i, part in enumerate(x)}
            given |= {f"parameter {name}": p for name, p in model.named_parameters()}
            with torch.no_grad(), watched(subject.sources, given, snapshot) as seen:
                first = model(x, ctx)[0]
            changes = [event for event in seen if event.kind in ("write", "change")]
            for event in changes:
                how = " in place" if event.kind == "write" else ""
                yield Fault(f"forward changes {event.what}{how}", KEEP, event.location)
            if not changes and not same(first, model(subject.batch(), dict(contexts(model))[when])[0]):
                found = f"two calls with the same input differ{variant.label} {when}"
                yield Fault(found, "let y depend on x, the parameters and ctx only", forward)


def evaluates(subject: ModelSubject) -> Iterator[Fault]:
    """In evaluation the output does not depend on the stream."""
    for variant in subject.variants:
        model = subject.model(config=variant.config)
        resting = (context(training=False, seed=seed, last_error=0.0, memory=model.initial_memory()) for seed in (1, 2))
        first, second = (model(subject.batch(), ctx)[0] for ctx in resting)
        if not same(first, second):
            do = "draw only `if ctx.training`: evaluation takes the mean, or the likeliest"
            found = f"y in evaluation depends on what is drawn{variant.label}"
            yield Fault(found, do, subject.sources.of_method("forward"))


def silent(subject: ModelSubject) -> Iterator[Fault]:
    """Forward neither prints, logs, warns nor opens files."""
    for event in subject.events:
        if event.kind == "output":
            yield Fault(f"forward calls {event.what}", SILENCE, event.location)
    yield from outputs_nothing(subject)


def blind(subject: ModelSubject) -> Iterator[Fault]:
    """Forward and constrain run the same operations for all values: lanes are computed together."""
    do = "use torch.where, clamp or a product with a mask instead: all lanes run the same operations"
    for event in subject.events:
        if event.kind == "value":
            yield Fault(f"{event.what} reads a value", do, event.location)


def rows(unit: UnitSubject) -> Iterator[Fault]:
    """A row's y depends on this row only, unless the class has `mixes_rows = True`."""
    if unit.cls.mixes_rows:
        return
    for variant in unit.variants:
        model, x = unit.model(config=variant.config), unit.batch()
        for when in ("in a late step", "in evaluation"):
            whole = model(x, dict(contexts(model))[when])[0]
            if not torch.equal(whole, model(x, context(LATE, when != "in evaluation", 2, last_error=0.1))[0]):
                continue  # noise drawn for a whole batch differs from that drawn for a row
            for row in range(BATCH):
                alone = model(x[row : row + 1], dict(contexts(model))[when])[0]
                if not torch.allclose(alone, whole[row : row + 1], rtol=1e-5, atol=1e-5):
                    found = f"row {row} alone gives another y than among {BATCH} rows{variant.label} {when}"
                    do = "compute each row by itself, or write `mixes_rows = True` in the class, with the reason"
                    yield Fault(found, do, unit.sources.of_method("forward"))
                    break


def learns(subject: ModelSubject) -> Iterator[Fault]:
    """In at least one of several starts a gradient reaches every parameter; for x in [1, 2] all gradients are finite.

    Several starts, since a rectifier may have no gradient in one, an imaginary weight needs negative inputs, and the share of
    a single output is always 1.
    """
    for variant in subject.variants:
        names, reached, infinite = set[str](), set[str](), set[str]()
        for model, x, seed, must_be_finite in subject.starts(variant.config):
            if names and names == reached:
                break
            for name, value in _gradients(model, x, seed).items():
                names.add(name)
                finite = bool(value.isfinite().all())
                if finite and value.any():
                    reached.add(name)
                if not finite and must_be_finite:
                    infinite.add(name)
        for name in sorted(infinite):
            do = "keep roots, logarithms and divisions away from 0 (also in the branch that torch.where drops)"
            found = f"the gradient of {name} is not finite{variant.label}"
            yield Fault(found, do, subject.sources.of_method("forward"))
        for name in sorted(names - reached - infinite):
            found = f"{name} never receives a gradient{variant.label}, so it never learns"
            do = "let forward compute with it in every call; what the constructor computes from it never changes"
            yield Fault(found, do, _parameter(subject, name))


def _gradients(model: base.Network, x: Any, seed: int) -> dict[str, Tensor]:
    """Return gradients as the engine computes them: of a function of the parameters."""
    ctx = context(LATE, seed=seed, last_error=0.1, memory=model.initial_memory())

    def loss(params: dict[str, Tensor]) -> Tensor:
        y, penalties = functional_call(model, params, (x, ctx))
        terms = [value for name, value in penalties.items() if name != "observed"]
        squares = [(part - 3).square().mean() for part in leaves(y)]
        return torch.stack([*squares, *terms]).sum()

    params = {name: p.detach() for name, p in model.named_parameters()}
    found: dict[str, Tensor] = grad(loss)(params)
    return found


def constrains(subject: ModelSubject) -> Iterator[Fault]:
    """Constrain leaves initialised parameters alone, is idempotent, and keeps them and the effective weights finite."""
    location = subject.sources.of_method("constrain")
    for variant in subject.variants:
        model = subject.model(config=variant.config)
        fresh = _constrained(model)
        for name, before, after in zip(dict(model.named_parameters()), fresh[0], fresh[1], strict=True):
            if not torch.equal(before, after):
                do = "let initialise draw within the bounds that constrain sets"
                yield Fault(f"constrain changes a fresh {name}{variant.label}", do, location)
        with torch.no_grad():
            for i, parameter in enumerate(model.parameters()):
                parameter.copy_(3 * Stream(seed_key(i, "model")).normal(parameter.shape))
        _, once = _constrained(model)
        _, twice = _constrained(model)
        for name, p, q in zip(dict(model.named_parameters()), once, twice, strict=True):
            if not p.isfinite().all():
                yield Fault(f"constrain makes {name} infinite or NaN{variant.label}", "clamp it", location)
            elif not torch.equal(p, q):
                found = f"a second constrain changes {name} again{variant.label}"
                yield Fault(found, "clamp to fixed bounds", location)
        if not all(w.isfinite().all() for w in model.effective_weights()):
            method = "effective_weight" if subject.kind == "model" else "effective_weights"
            found, do = f"{method}() is not finite{variant.label}", "make it finite for any finite parameter"
            yield Fault(found, do, subject.sources.of_method(method))


def _constrained(model: base.Network) -> tuple[list[Tensor], list[Tensor]]:
    """Return the parameters before and after `constrain`."""
    before = [p.detach().clone() for p in model.parameters()]
    with torch.no_grad():
        model.constrain()
    return before, [p.detach().clone() for p in model.parameters()]


Values = dict[str, Tensor]
LANES, MIDDLE = 3, 1


def apart(unit: UnitSubject) -> Iterator[Fault]:
    """Outputs, penalties and gradients of a lane do not depend on the lanes beside it."""
    location = unit.sources.of_function("vmap", "setup_context") or unit.sources.of_method("forward")
    do = "compute with this lane's own tensors only: no module variables, no rule of vmap's that reduces over lanes"
    for variant in unit.variants:
        lane = _lane(unit, variant.config)
        arguments = [_arguments(unit, variant.config, seed) for seed in range(LANES)]
        try:
            together = _together(lane, arguments)
        except (Exception, SystemExit) as error:  # an operation that vmap does not support is a fault of the unit
            yield translated(error, unit.sources)
            continue
        for name, value in lane(*arguments[0]).items():
            scale = float(value.abs().max()) if value.numel() else 0.0
            if not torch.allclose(together[name][0], value, rtol=1e-4, atol=1e-5 * max(1.0, scale)):
                found = f"{name} of a lane among {LANES} differs from that of the lane alone{variant.label}"
                yield Fault(found, do, location)
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
                        yield Fault(f"{what} changes {name} of a lane{variant.label}", do, location)


def _lane(unit: UnitSubject, config: Any) -> Callable[..., Values]:
    """Return a function of a lane's parameters, batch and stream key that returns the lane's numbers."""
    model = unit.model(config=config)

    def lane(params: Values, x_BI: Tensor, key: Tensor) -> Values:
        def loss(params: Values) -> tuple[Tensor, Values]:
            stream = Stream((key[0], key[1]), key[0])
            ctx = Context(torch.tensor(LATE), True, stream, torch.tensor(0.1))
            y_BO, penalties = functional_call(model, params, (x_BI, ctx))
            values = {"y": y_BO} | {f"penalty {name!r}": value for name, value in penalties.items()}
            return (y_BO - 3).square().mean() + sum(penalties.values()), values

        grads, (_, values) = grad_and_value(loss, has_aux=True)(params)
        return values | {f"the gradient of {name}": value for name, value in grads.items()}

    return lane


def _arguments(unit: UnitSubject, config: Any, seed: int) -> tuple[Values, Tensor, Tensor]:
    model = unit.model(seed=seed, config=config)
    params = {name: p.detach() for name, p in model.named_parameters()}
    return params, unit.batch(seed), torch.tensor([seed, seed + 1], dtype=torch.int32)


def _together(lane: Callable[..., Values], arguments: list[tuple[Values, Tensor, Tensor]]) -> Values:
    params = {name: torch.stack([a[0][name] for a in arguments]) for name in arguments[0][0]}
    found: Values = torch.vmap(lane)(params, torch.stack([a[1] for a in arguments]), torch.stack([a[2] for a in arguments]))
    return found
