"""The contract of a task, and of the random numbers that the engine passes to it.

A task defines what is learnt: how a training batch is drawn, on which fixed inputs a model is evaluated, what the right
answers are (by an oracle that shares no code with the batches), the loss, and when a model counts as solved. Every hook
that the engine calls is a method or an attribute here, with its default.

Legend of suffixes: B rows of a batch, I inputs, O outputs, T time steps, n symbols of a sequence.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from numpy.typing import NDArray
from torch import Tensor

Arrays = dict[str, NDArray[Any]]
"""NumPy arrays by name; the engine turns them into tensors (float64 into float32)."""


class Stream(Protocol):
    """A source of random numbers: a pure function of a lane's seed, the purpose "batch", the step and the position."""

    def uniform(self, shape: Sequence[int], low: float | Tensor = 0.0, high: float | Tensor = 1.0) -> Tensor:
        """float32 in [low, high)."""

    def normal(self, shape: Sequence[int]) -> Tensor:
        """float32, mean 0 and variance 1."""

    def integers(self, shape: Sequence[int], low: int, high: int) -> Tensor:
        """int64 in [low, high); high - low is at most 2**24."""

    def bernoulli(self, shape: Sequence[int], p: float | Tensor) -> Tensor:
        """bool, True with probability p."""

    def child(self, name: str) -> Stream:
        """An independent stream at the same step."""

    @property
    def step(self) -> Tensor:
        """The number of updates before this batch, 0-dim int32."""

    def at(self, step: Tensor) -> Stream:
        """The same stream at another step, from its first number."""


@dataclass(frozen=True, kw_only=True)
class NoSettings:
    """The Config of a task that has no settings."""


class Task(ABC):
    """What is learnt. The engine builds it as `cls(config)`; inside the engine the config's floats are a lane's tensors.

    Shapes: x [B, num_inputs] -> target [B, num_outputs], both float32. A sequence (`time_steps` is set) has x
    [T, B, ...]. With `reads_symbols`, x and target are tuples of int64 tensors [B, n], one a bin of `bins` in ascending
    order, and a model's output is a tuple of logits [B, n, num_outputs]; x is -1 exactly where input and target are both
    padding.
    """

    version: ClassVar[int]
    """Raise it when any number that the task computes changes: it is part of a lane's content address."""
    Config: ClassVar[type[Any]] = NoSettings
    """A frozen keyword-only dataclass: every field has a default and a docstring below it.

    Its `__post_init__` raises a ValueError with one argument for each fault, which begins with the name of the setting:
    `raise ValueError("input_size = 0 must be at least 1", "overlap_ratio = 2.0 must lie in [0, 1]")`."""
    network: ClassVar[str] = "two_layer"
    """Name of the network that arranges units for this task; with `reads_symbols`, of the whole model used in checks."""
    splits: tuple[str, ...] = ("interpolation", "extrapolation")
    """Evaluation sets. `solved` looks at "extrapolation", or else the first, at the best step by "interpolation"."""
    reads_symbols: ClassVar[bool] = False
    """Whether inputs and targets are symbols, see above."""
    full_batch: ClassVar[bool] = False
    """Whether every batch is all the data there is, whatever `train.batch` says."""
    inputs_are_indices: ClassVar[bool] = False
    """Whether `evaluation_inputs` gives indices into `shared()`, which `present` looks up."""
    score_names: ClassVar[tuple[str, ...]] = ()
    """Names of what `scores` returns: an objective may be `<score>.<split>.median`."""
    evaluation_only: ClassVar[tuple[str, ...]] = ()
    """Settings that `sample` and `loss` never use, so that lanes which differ in them share a training step."""
    small: ClassVar[Mapping[str, Any]] = {}
    """Settings for `sweeps check`, where the defaults would take long."""

    num_inputs: int
    num_outputs: int
    time_steps: int | None = None
    """Length of a training sequence; None: no sequence."""
    bins: tuple[int, ...] = ()
    """With `reads_symbols`: widths of the training batches, ascending."""
    lengths: tuple[int, ...] = ()
    """Lengths that training examples have, ascending; only for networks with a curriculum."""
    curve_lengths: tuple[int, ...] = ()
    """Lengths at which a finished lane is evaluated; empty for most tasks."""

    def __init__(self, config: Any) -> None:
        self.config = config

    def instance(self, seed: int) -> Arrays:
        """What varies with the seed, such as a subset of the inputs; every seed gives the same names, shapes and types."""
        return {}

    def shared(self) -> Arrays:
        """What all lanes share, such as images; one copy in memory."""
        return {}

    @abstractmethod
    def sample(self, stream: Stream, data: Mapping[str, Tensor], batch: int) -> tuple[Any, Any]:
        """(x, target) of a training batch, drawn from the stream alone. `data` holds `instance` and `shared` as tensors."""

    def bin_of(self, length: int) -> int:
        """The bin that examples of a length are in; only for networks with a curriculum."""
        raise NotImplementedError(f"{type(self).__name__} has no lengths to choose from")

    def sample_exact(self, stream: Stream, data: Mapping[str, Tensor], batch: int, n: int, length: Tensor) -> tuple[Any, Any]:
        """A batch of the bin n with examples of one length, a 0-dim int64 tensor; only for networks with a curriculum."""
        raise NotImplementedError(f"{type(self).__name__} has no lengths to choose from")

    @abstractmethod
    def evaluation_inputs(self, split: str) -> Any:
        """The fixed inputs of a split as NumPy arrays, the same for all lanes and in every call."""

    def present(self, x: Tensor, shared: Mapping[str, Tensor]) -> Tensor:
        """The evaluation inputs as the network sees them; the identity unless `inputs_are_indices`."""
        return x

    @abstractmethod
    def truth(self, x: Any, seed: int) -> Any:
        """The right answers to evaluation inputs, float64 (symbols: int64), by an oracle that shares no code with `sample`."""

    @abstractmethod
    def loss(self, y: Any, target: Any) -> Tensor:
        """What training minimises, 0-dim: smallest where y is the target."""

    def error(self, y: Any, target: Any) -> Tensor:
        """What a lane is judged by on every split, 0-dim; the loss unless overridden."""
        return self.loss(y, target)

    def scores(self, split: str, y: Any, target: Any) -> dict[str, Tensor]:
        """What the task reports besides the error, each 0-dim, under the names of `score_names`."""
        return {}

    def has_threshold(self) -> bool:
        """Whether `threshold` returns a number, found out without computing it."""
        return type(self).threshold is not Task.threshold

    def threshold(self) -> float | None:
        """Solved is an extrapolation error below this; None: nothing is published. May take seconds: called once a lane."""
        return None

    def curve_inputs(self, length: int) -> Any:
        """Evaluation inputs of one length, for `curve_lengths` and ensembles. Raises ValueError for a length too short."""
        raise ValueError(f"{type(self).__name__} has no inputs of several lengths")

    def warnings(self) -> Sequence[str]:
        """Sentences about settings that are allowed and unusual; `sweeps check` prints them."""
        return ()

    @classmethod
    def identity(cls, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        """The settings as they enter a lane's content address: a task that reads files names their contents, not paths."""
        return settings
