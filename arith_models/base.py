"""The contracts of a unit and a network, and of what the engine passes to them.

A unit is a layer: it maps a batch of inputs to a batch of outputs. A network arranges units, or is a whole model by
itself. Both are ordinary `torch.nn.Module`s, written for ONE seed; the engine trains many seeds of them. Every hook that
the engine calls is a method or a class attribute here, with its default, so that a subclass states what differs and the
engine never has to look for attributes.

Legend of suffixes: B rows of a batch, I inputs, O outputs, H hidden values, S recurrent state, n symbols of a sequence.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypedDict

from torch import Tensor, nn

Scalar = float | Tensor
"""A setting that is a float: a number where one seed runs alone, a 0-dim tensor inside the engine, where it is a lane's."""
Penalties = dict[str, Any]
"""Penalty terms by name, each a 0-dim float32 tensor; the engine adds them to the loss.

Names with a meaning: "sparsity", "out_of_bound" and "input" come from units unweighted, and networks weight them (see
`penalties.py`). "score" is the log-probability of weights that were drawn; the engine makes REINFORCE's surrogate loss of
it. "observed" is no term: it holds what the network passes on to its own `remember`, for instance batch statistics."""
Memory = dict[str, Tensor]
"""What a network keeps from step to step besides its parameters, by name. It is part of a lane's checkpoint."""


class Stream(Protocol):
    """A source of random numbers: a pure function of a lane's seed, a purpose, the step and the position in the stream.

    Successive draws never share numbers. Models draw from a stream and from nothing else.
    """

    def uniform(self, shape: Sequence[int], low: Scalar = 0.0, high: Scalar = 1.0) -> Tensor:
        """float32 in [low, high)."""

    def normal(self, shape: Sequence[int]) -> Tensor:
        """float32, mean 0 and variance 1."""

    def integers(self, shape: Sequence[int], low: int, high: int) -> Tensor:
        """int64 in [low, high); high - low is at most 2**24."""

    def bernoulli(self, shape: Sequence[int], p: Scalar) -> Tensor:
        """bool, True with probability p."""

    def child(self, name: str) -> Stream:
        """An independent stream at the same step."""


class Context(Protocol):
    """What the engine passes to `forward`."""

    @property
    def step(self) -> Tensor:
        """Number of updates made before this one, a 0-dim float32 tensor; 0 in an evaluation."""

    @property
    def training(self) -> bool:
        """False in an evaluation, where nothing may be drawn."""

    @property
    def stream(self) -> Stream:
        """Random numbers of this step."""

    @property
    def last_error(self) -> Tensor:
        """Interpolation error at the lane's last evaluation, 0-dim float32; infinite before the first."""

    @property
    def memory(self) -> Memory:
        """The network's memory; empty for most."""

    def part(self, number: Any) -> Context:
        """The context of one of several parts of a computation, by its number from 0: what it draws is its own."""

    def dropout(self, x: Tensor, rate: Scalar | Tensor) -> Tensor:
        """Inverted dropout with a rate in [0, 1): kept values are divided by 1 - rate. The identity in an evaluation."""


class Observation(TypedDict, total=False):
    """What `Network.remember` is given about a step."""

    loss: Tensor
    """The task's loss without penalties, 0-dim."""
    penalties: dict[str, Tensor]
    noted: dict[str, Any]
    """What `forward` returned under "observed"."""
    scores: dict[str, Tensor]
    """The task's scores of the training batch."""
    lr: Scalar
    """The learning rate of this update."""
    length: Tensor
    """Length of the batch's examples, 0-dim int64; only with `has_curriculum`."""
    shortest: int
    """The task's shortest length; only with `has_curriculum`."""


@dataclass(frozen=True, kw_only=True)
class NoSettings:
    """The Config of a unit or network that has no settings."""


class Unit(nn.Module, ABC):
    """A layer. Shapes: x [B, I] -> y [B, O].

    The engine builds a unit as `cls(config, num_inputs, num_outputs)`, without storage where it only needs the code, so
    that the constructor may create parameters and sub-modules but must not compute with them.
    """

    version: ClassVar[int]
    """Raise it when any number that the unit computes changes: it is part of a lane's content address."""
    Config: ClassVar[type[Any]] = NoSettings
    """A frozen keyword-only dataclass: every field has a default and a docstring below it.

    Its `__post_init__` raises a ValueError with one argument for each fault, which begins with the name of the setting:
    `raise ValueError("hidden = 0 must be at least 1", "dropout = 1.0 must lie in [0, 1)")`."""
    is_cell: ClassVar[bool] = False
    """A recurrent cell: x is [x_t, state] [B, I + S], y the new state [B, S], and num_outputs is H = S / state_parts."""
    state_parts: ClassVar[int] = 1
    """Of a cell: number of blocks of H values in its state (an LSTM has 2)."""
    mixes_rows: ClassVar[bool] = False
    """Whether the rows of a batch influence each other on purpose, as batch normalisation does."""
    small: ClassVar[Mapping[str, Any]] = {}
    """Settings for `sweeps check`, where the defaults would take long."""

    @abstractmethod
    def initialise(self, stream: Stream) -> None:
        """Fill every parameter in place, from the stream alone. Called under `torch.no_grad`, once a lane."""

    def initialise_as_torch(self, stream: Stream) -> None:
        """As `initialise`, with torch's default distributions where the unit has such a variant (network mlp, init: torch)."""
        self.initialise(stream)

    @abstractmethod
    def forward(self, x: Tensor, ctx: Context) -> tuple[Tensor, Penalties]:
        """(y, penalties). A pure function of parameters, x and ctx: no branch on a tensor's value, no `.item()`."""

    @abstractmethod
    def effective_weight(self) -> Tensor:
        """The weights [O, I] that the sparsity error looks at; several matrices are concatenated along the first axis."""

    def weights(self, ctx: Context) -> tuple[Tensor, Penalties]:
        """The weights [O, I] as one forward uses them, and their penalties, for units that other units build upon.

        Called by NALU and NAC•, so that one draw serves both branches. Units that draw their weights override it.
        """
        return self.effective_weight(), {}

    def input_penalty(self, mean_I: Tensor) -> Tensor | None:
        """R_z, the penalty on the mean input [I] of a layer, unweighted, 0-dim; None: the unit has none."""
        return None

    def constrain(self) -> None:
        """Clamp the parameters in place. Called under `torch.no_grad` after every update."""

    @staticmethod
    def restarts(config: Any, errors: Sequence[float], interval: int) -> bool:
        """Whether a lane starts again with new weights. Called at every evaluation, in Python.

        `errors` are the interpolation errors of the evaluations since the last start, `interval` the steps between two.
        """
        return False


UnitFactory = Callable[[int, int], Unit]
"""(num_inputs, num_outputs) -> a unit with its settings filled in."""


class Network(nn.Module, ABC):
    """An arrangement of units, or a whole model (`num_units` is 0). Shapes: x [B, I] -> y [B, O], or see `reads_symbols`.

    The engine builds it as `cls(config, unit_factories, num_inputs, num_outputs)`.
    """

    version: ClassVar[int]
    """As of a unit."""
    Config: ClassVar[type[Any]] = NoSettings
    """As of a unit."""
    num_units: ClassVar[int]
    """How many units it arranges; 0: it is a model by itself, which a sweep file names as `model: NAME`."""
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Published settings by the model's name: `model: nmu` in this network means these `units` and settings."""
    reads_symbols: ClassVar[bool] = False
    """Input is a tuple of int64 tensors [B, n], one a bin, -1 outside of an example; output a tuple of logits [B, n, O]."""
    small: ClassVar[Mapping[str, Any]] = {}
    """As of a unit."""
    reported_memory: ClassVar[tuple[str, ...]] = ()
    """Names of the memory that is recorded in a lane's curve as `memory.NAME`."""

    min_slots: ClassVar[int | None] = None
    """The fewest lanes that are trained side by side; None: the engine's own minimum."""
    max_slots: ClassVar[int | None] = None
    """The most lanes that `resources.slots: auto` trains side by side; None: the engine's own maximum."""
    lanes_apart: ClassVar[bool] = False
    """Every lane is trained by itself, because the lengths of lanes' batches differ."""

    pieces: ClassVar[tuple[str, ...]] = ()
    """Of a network that repeats a cell: names of the methods that `loop` calls, each compiled once. Empty: no loop."""
    has_curriculum: ClassVar[bool] = False
    """Whether `next_length` chooses the length of every training batch."""

    @abstractmethod
    def initialise(self, stream: Stream) -> None:
        """As of a unit."""

    @abstractmethod
    def forward(self, x: Any, ctx: Context) -> tuple[Any, Penalties]:
        """As of a unit; the penalties are weighted."""

    def effective_weights(self) -> list[Tensor]:
        """The effective weights of its units; empty where nothing says that weights should be -1, 0 or 1."""
        return []

    def constrain(self) -> None:
        """As of a unit."""

    @classmethod
    def loop(cls, pieces: Any, x: Sequence[Tensor]) -> tuple[Any, Penalties]:
        """The loop over `pieces`: (y, penalties). `x` is the input at every time step, or, with `reads_symbols`, the bins.

        `pieces` has each method named in `pieces` as a callable without `ctx`. Called by the engine in Python, with every
        tensor stacked over lanes, so it may only pass tensors on; and by `forward`, for one lane.
        """
        raise NotImplementedError(f"{cls.__name__} names pieces, and so must define loop")

    def initial_memory(self) -> Memory:
        """The memory before the first step; empty: the network has none, and `remember` is not called."""
        return {}

    def remember(self, memory: Memory, observed: Observation, step: Tensor) -> Memory:
        """The memory after an update: new tensors under the same names. `step` counts the updates before, 0-dim int64."""
        return memory

    def settle(self, memory: Memory) -> None:
        """Change parameters in place according to the new memory. Called after `constrain`, under `torch.no_grad`."""

    def lr_factor(self, memory: Memory) -> Tensor | None:
        """What the learning rate of this update is multiplied by, 0-dim; None: nothing."""
        return None

    def noise_deviation(self, step: Tensor, memory: Memory, lr: Scalar) -> Tensor | None:
        """Standard deviation of the network's own gradient noise, 0-dim; None: it has none."""
        return None

    def next_length(self, memory: Memory, stream: Stream, shortest: int, longest: int) -> Tensor:
        """Length of the next batch, 0-dim float32, a whole number in [shortest, longest]; only with `has_curriculum`."""
        raise NotImplementedError(f"{type(self).__name__} has a curriculum, and so must define next_length")
