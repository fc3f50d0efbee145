"""The contracts of units and networks, and of the objects that the engine passes to them.

A unit is a layer: it maps a batch of inputs to a batch of outputs. A network arranges units, or is a whole model by
itself. Both are ordinary `torch.nn.Module`s, written for ONE seed; the engine trains many seeds of them side by side with
`torch.vmap`. Every hook that the engine calls is a method or a class attribute here, with its default, so that a subclass
defines only what differs, and the engine never probes for attributes.

Legend of suffixes: B rows of a batch, I inputs, O outputs, H hidden values, S recurrent state, T time steps, n symbols of a
sequence.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar, Protocol, TypedDict

import torch
from torch import Tensor, nn

Scalar = float | Tensor
"""The value of a float setting: a float where one seed runs alone, a 0-dim tensor of the lane's inside the engine.

Config fields are annotated `float`. Code that computes with them in `forward` must work for both: `config.x ** 2` does,
`math.sqrt(config.x)` does not."""
Penalties = dict[str, Tensor]
"""Penalty terms by name, each a 0-dim float32 tensor; the engine adds a network's to the loss.

Reserved names: "sparsity", "out_of_bound" and "input" come from units unweighted, and networks weight them
(`arith_models/penalties.py`). "score" is the log-probability of weights that were sampled; the engine turns it into
REINFORCE's surrogate loss. A unit weights terms of any other name itself."""
NetworkTerms = dict[str, Any]
"""A network's weighted penalties and, optionally, under "observed", a dict of tensors that is not a penalty, such as batch
statistics: the engine passes it to `Network.remember` as `Observation["noted"]`."""
Memory = dict[str, Tensor]
"""Tensors that a network keeps from step to step besides its parameters, by name. They are part of a lane's checkpoint."""


class Stream(Protocol):
    """A source of random numbers: a pure function of a lane's seed, a purpose, the step and the position in the stream.

    Successive draws never share numbers. Models draw from a stream and from nothing else. Shapes are ints; the results are
    on the lane's device.
    """

    def uniform(self, shape: Sequence[int], low: Scalar = 0.0, high: Scalar = 1.0) -> Tensor:
        """Return float32 numbers, uniform on [low, high)."""

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Return float32 numbers of mean 0 and variance 1."""

    def integers(self, shape: Sequence[int], low: int, high: int) -> Tensor:
        """Return int64 numbers, uniform on [low, high); high - low is at most 2**24."""

    def bernoulli(self, shape: Sequence[int], p: Scalar) -> Tensor:
        """Return bools that are True with probability p."""

    def child(self, name: str) -> Stream:
        """Return an independent stream at the same step. The same name gives the same stream."""


class Context(Protocol):
    """The argument `ctx` of `forward`: the step, and everything else that is neither a parameter nor an input."""

    @property
    def step(self) -> Tensor:
        """Number of updates made before this one, 0-dim float32; 0 in an evaluation."""

    @property
    def training(self) -> bool:
        """False in an evaluation, where nothing may be drawn."""

    @property
    def stream(self) -> Stream:
        """Random numbers of this step. All layers of a network draw from it, one after another."""

    @property
    def last_error(self) -> Tensor:
        """Interpolation error at the lane's last evaluation, 0-dim float32; infinite before it, 0 in an evaluation."""

    @property
    def memory(self) -> Memory:
        """The network's memory; empty where `Network.initial_memory` is."""

    def part(self, number: int | Tensor) -> Context:
        """Return the context of one part of a computation, such as a time step, by its number from 0.

        Each part has its own random numbers.
        """

    def dropout(self, x: Tensor, rate: Scalar) -> Tensor:
        """Apply inverted dropout with a rate in [0, 1): kept values are divided by 1 - rate. The identity in an evaluation."""


class Observation(TypedDict, total=False):
    """The argument `observed` of `Network.remember`: results of the step, detached."""

    loss: Tensor
    """The task's loss without penalties, 0-dim."""
    penalties: Penalties
    """The network's weighted penalties, without "observed"."""
    mean_loss: Tensor
    """Running mean of the loss, 0-dim; used with "score"."""
    noted: dict[str, Tensor]
    """What `forward` returned under "observed"; empty without."""
    scores: dict[str, Tensor]
    """The task's scores of the training batch, 0-dim each; only for tasks that have scores."""
    lr: Scalar
    """The learning rate of this update."""
    length: Tensor
    """Length of the batch's examples, 0-dim int64; only with `has_curriculum`."""
    shortest: int
    """The task's shortest length; only with `has_curriculum`."""


@dataclass(frozen=True, kw_only=True)
class NoSettings:
    """The Config of a unit or network that has no settings."""


_OUTSIDE: Mapping[str, Callable[[float], bool]] = {
    "be at least 1": lambda value: value < 1,
    "be at least 0": lambda value: value < 0,
    "be above 0": lambda value: not value > 0,
    "lie in [0, 1)": lambda value: not 0 <= float32(value) < 1,
}


def float32(value: float) -> float:
    """Return the float32 number that is nearest to a value: lanes compute with it, and 0.99999999999 is 1."""
    return torch.tensor(value, dtype=torch.float32).item()


def check_ranges(config: object, ranges: Mapping[str, Sequence[str]], *found: str) -> None:
    """Raise a ValueError with the faults `found` already, and one for each setting outside of its range.

    `ranges` maps a range, such as "be at least 1", to the names of settings. For the `__post_init__` of a Config.
    """
    values = ((name, getattr(config, name), must) for must, names in ranges.items() for name in names)
    faults = [f"{name} = {value} must {must}" for name, value, must in values if _OUTSIDE[must](value)]
    if found or faults:
        raise ValueError(*found, *faults)


class Unit(nn.Module, ABC):
    """A layer. Shapes: x [B, I] -> y [B, O].

    The engine builds a unit as `cls(config, num_inputs, num_outputs)`, often on the meta device, where tensors have no
    storage: the constructor may create parameters and sub-modules, and must not compute with them.
    """

    version: ClassVar[int]
    """Part of a lane's content address: raise it when any number that the unit computes changes."""
    Config: ClassVar[type[Any]] = NoSettings
    """The settings: a frozen keyword-only dataclass, each field with a default and a docstring below it.

    A float field may differ between lanes that train side by side; fields of other types may not. `__post_init__` raises a
    ValueError with one argument for each fault, which begins with the name of the setting:
    `raise ValueError("hidden = 0 must be at least 1", "dropout = 1.0 must lie in [0, 1)")`. `check_ranges` does."""
    is_cell: ClassVar[bool] = False
    """Whether it is a recurrent cell: x is [x_t, state] [B, I + S], y the new state [B, S], and the unit is built with
    num_inputs = I + H and num_outputs = H = S / state_parts."""
    state_parts: ClassVar[int] = 1
    """Number of blocks of H values in a cell's state, the output first; an LSTM has 2."""
    mixes_rows: ClassVar[bool] = False
    """Whether rows of a batch influence each other on purpose, as in batch normalisation; `sweeps check` tests it."""
    small: ClassVar[Mapping[str, Any]] = {}
    """Settings that `sweeps check` uses where the defaults would take long."""

    @abstractmethod
    def initialise(self, stream: Stream) -> None:
        """Fill every parameter in place, from the stream alone. Called under `torch.no_grad` when a lane starts."""

    def initialise_as_torch(self, stream: Stream) -> None:
        """Fill every parameter with torch's default distributions. Network mlp calls it with `init: torch`.

        Default: `initialise`, for units that torch does not have.
        """
        self.initialise(stream)

    @abstractmethod
    def forward(self, x: Tensor, ctx: Context) -> tuple[Tensor, Penalties]:
        """Return (y, penalties); no penalties is {}. Called in every step and every evaluation.

        A pure function of the parameters, x and ctx that survives `torch.vmap` and `make_fx`: no branch on a tensor's
        value, no `.item()`, nothing stored on the module. Penalties are used in training only.
        """

    @abstractmethod
    def effective_weight(self) -> Tensor:
        """Return the weights [O, I] that the sparsity error is computed of; several matrices are concatenated along axis 0.

        Called at every evaluation.
        """

    def weights(self, ctx: Context) -> tuple[Tensor, Penalties]:
        """Return the weights [O, I] of one forward and their penalties. Called by units that are built on another one.

        NALU and NAC• call it once a forward, so that one draw serves both branches. Units that sample their weights, have
        penalties or change the gradient override it. Default: the effective weight, without penalties.
        """
        return self.effective_weight(), {}

    def input_penalty(self, mean_I: Tensor) -> Tensor | None:
        """Return R_z, the penalty on the mean input [I] of the layer, unweighted, 0-dim; None: the unit has none.

        Called by networks in training when their setting `input_penalty` is set.
        """
        return None

    def constrain(self) -> None:
        """Clamp the parameters in place. Called under `torch.no_grad` after every update. Default: they are free."""

    @staticmethod
    def restarts(config: Any, errors: Sequence[float], interval: int) -> bool:
        """Return whether the lane starts again with new weights. Called in Python at every evaluation.

        `config` is the unit's, `errors` are the interpolation errors of all evaluations since the last start, and
        `interval` is the number of steps between two evaluations.
        """
        return False


UnitFactory = Callable[[int, int], Unit]
"""(num_inputs, num_outputs) -> a unit with its settings filled in."""


class Network(nn.Module, ABC):
    """An arrangement of units, or a whole model (`num_units` is 0). Shapes: x [B, I] -> y [B, O], or [T, B, I] for tasks on
    sequences, or see `reads_symbols`.

    The engine builds it as `cls(config, unit_factories, num_inputs, num_outputs)`, like a unit often on the meta device.
    With `reads_symbols`, num_inputs and num_outputs are numbers of symbols.
    """

    version: ClassVar[int]
    """As `Unit.version`."""
    Config: ClassVar[type[Any]] = NoSettings
    """As `Unit.Config`."""
    num_units: ClassVar[int]
    """Number of units it arranges; 0: it is a model by itself, which a sweep file names as `model: NAME`."""
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Published settings by the model's name: `model: nmu` in this network selects these `units` and settings.

    Keys of a preset: `units` (default: the model's name, `num_units` times), settings of the network, settings of its units."""
    reads_symbols: ClassVar[bool] = False
    """Whether the input is a tuple of int64 tensors [B, n], one a bin of lengths, 0 for padding and -1 outside of an example,
    and the output a tuple of logits [B, n, O]."""
    small: ClassVar[Mapping[str, Any]] = {}
    """As `Unit.small`."""
    reported_memory: ClassVar[tuple[str, ...]] = ()
    """Names of the memory that is recorded in a lane's curve as `memory.NAME`."""

    min_slots: ClassVar[int | None] = None
    """The fewest lanes that are trained side by side; None: the engine's own minimum."""
    max_slots: ClassVar[int | None] = None
    """The most lanes that `resources.slots: auto` trains side by side; None: the engine's own maximum."""
    lanes_apart: ClassVar[bool] = False
    """Whether every lane is trained in its own pack, because the lengths of lanes' batches differ."""

    pieces: ClassVar[tuple[str, ...]] = ()
    """Names of the methods that `loop` calls, each compiled once for all steps. Empty: no loop, `forward` is compiled.

    A piece takes tensors, or nested dicts, lists and tuples of tensors, and as its last argument `ctx`; it returns the
    same kinds."""
    has_curriculum: ClassVar[bool] = False
    """Whether `next_length` chooses the length of every training batch."""

    @abstractmethod
    def initialise(self, stream: Stream) -> None:
        """Fill every parameter in place, as a unit does. Each part draws from its own child stream."""

    @abstractmethod
    def forward(self, x: Any, ctx: Context) -> tuple[Any, NetworkTerms]:
        """Return (y, weighted penalties), as `Unit.forward`; networks with `pieces` inherit it from `looped.Looped`."""

    def effective_weights(self) -> list[Tensor]:
        """Return the effective weights of the units. Empty: the sparsity error is not defined (NaN), as for whole models,
        whose weights have no reason to be -1, 0 or 1.
        """
        return []

    def constrain(self) -> None:
        """Clamp the parameters in place, as `Unit.constrain`; a network of units calls that of each. Default: they are free."""

    @classmethod
    def loop(cls, pieces: SimpleNamespace, x: Sequence[Tensor]) -> tuple[Any, NetworkTerms]:
        """Return (y, penalties) by calling pieces in a Python loop. Only with `pieces`.

        `pieces` has each piece as an attribute, a callable without `ctx`. `x` is the input at every time step, or, with
        `reads_symbols`, the bins. The engine calls `loop` with tensors that have a slot axis in front, `forward` with one
        lane's: it may only pass tensors on, add and stack them, and must count axes from the end.
        """
        raise NotImplementedError(f"{cls.__name__} has pieces, and therefore must define loop")

    def initial_memory(self) -> Memory:
        """Return the memory before the first step. Empty: the network has none, and `remember` is not called."""
        return {}

    def remember(self, memory: Memory, observed: Observation, step: Tensor) -> Memory:
        """Return the memory after an update: new tensors under the same names.

        Called in every step, before `constrain`. `step` is the number of updates before this one, 0-dim int64.
        """
        return memory

    def settle(self, memory: Memory) -> None:
        """Change parameters in place according to the new memory. Called under `torch.no_grad` after `constrain`."""

    def lr_factor(self, memory: Memory) -> Tensor | None:
        """Return a factor of the learning rate of this update, 0-dim; None: 1. Called before every update."""
        return None

    def noise_deviation(self, step: Tensor, memory: Memory, lr: Scalar) -> Tensor | None:
        """Return the standard deviation of the noise that the network adds to gradients, 0-dim; None: no noise.

        Called before every update. `step` is 0-dim int64, `lr` the learning rate of this update.
        """
        return None

    def next_length(self, memory: Memory, stream: Stream, shortest: int, longest: int) -> Tensor:
        """Return the length of the next batch, 0-dim float32, a whole number in [shortest, longest].

        Called before every batch, only with `has_curriculum`.
        """
        raise NotImplementedError(f"{type(self).__name__} has a curriculum, and therefore must define next_length")
