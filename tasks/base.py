"""The contract of a task, and of the random numbers that the engine passes to it.

A task defines what is learnt: how a training batch is drawn, on which fixed inputs a model is evaluated, the exact targets
(by an oracle that shares no code with the batches), the loss, and when a model counts as solved. Every hook that the engine
calls is a method or an attribute here, with its default.

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
        """Return float32 numbers, uniform on [low, high)."""

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Return float32 numbers of mean 0 and variance 1."""

    def integers(self, shape: Sequence[int], low: int, high: int) -> Tensor:
        """Return int64 numbers, uniform on [low, high); high - low is at most 2**24."""

    def bernoulli(self, shape: Sequence[int], p: float | Tensor) -> Tensor:
        """Return bools that are True with probability p."""

    def child(self, name: str) -> Stream:
        """Return an independent stream at the same step. The same name gives the same stream."""

    @property
    def step(self) -> Tensor:
        """The number of updates before this batch, 0-dim int32."""

    def at(self, step: Tensor) -> Stream:
        """Return the same stream at another step, from its first number."""


@dataclass(frozen=True, kw_only=True)
class NoSettings:
    """The Config of a task that has no settings."""


class Task(ABC):
    """A task. The engine builds it as `cls(config)`; inside the engine the config's floats are a lane's tensors.

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
    """Evaluation sets. A lane is solved by its error on "extrapolation", or else on the first split, at the step with the
    lowest error on "interpolation"."""
    reads_symbols: ClassVar[bool] = False
    """Whether inputs and targets are symbols: see the class."""
    full_batch: ClassVar[bool] = False
    """Whether every batch is the whole training set, regardless of `train.batch`."""
    inputs_are_indices: ClassVar[bool] = False
    """Whether `evaluation_inputs` returns indices into `shared()`, which `present` replaces by the data."""
    score_names: ClassVar[tuple[str, ...]] = ()
    """Names of the values that `scores` returns: an objective may be `<score>.<split>.median`."""
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
        """Return what varies with the seed, such as a subset of the inputs; names, shapes and types are those of every seed.

        Called when a lane starts.
        """
        return {}

    def shared(self) -> Arrays:
        """Return what all lanes share, such as images; it is in memory once. Called when a pack is made."""
        return {}

    @abstractmethod
    def sample(self, stream: Stream, data: Mapping[str, Tensor], batch: int) -> tuple[Any, Any]:
        """Return (x, target) of a training batch, drawn from the stream alone. Called in every step.

        `data` holds `instance` and `shared` as tensors. Like `loss`, `error` and `scores` it is recorded and run for many
        lanes at once: no branch on a tensor's value.
        """

    def bin_of(self, length: int) -> int:
        """Return the bin that examples of a length are in. Called only with a network that has a curriculum."""
        raise NotImplementedError(f"{type(self).__name__} has no lengths to choose from")

    def sample_exact(self, stream: Stream, data: Mapping[str, Tensor], batch: int, n: int, length: Tensor) -> tuple[Any, Any]:
        """Return a batch of the bin n with examples of one length, a 0-dim int64 tensor.

        Called in place of `sample` with a network that has a curriculum.
        """
        raise NotImplementedError(f"{type(self).__name__} has no lengths to choose from")

    @abstractmethod
    def evaluation_inputs(self, split: str) -> Any:
        """Return the fixed inputs of a split as NumPy arrays, the same for all lanes and in every call."""

    def present(self, x: Tensor, shared: Mapping[str, Tensor]) -> Tensor:
        """Return the network's inputs for evaluation inputs. Default: the same; overridden with `inputs_are_indices`."""
        return x

    @abstractmethod
    def truth(self, x: Any, seed: int) -> Any:
        """Return the exact targets of evaluation inputs, float64 (symbols: int64).

        An oracle, which shares no code with `sample`. Called when a lane starts.
        """

    @abstractmethod
    def loss(self, y: Any, target: Any) -> Tensor:
        """Return the training loss, 0-dim: smallest where y is the target."""

    def error(self, y: Any, target: Any) -> Tensor:
        """Return the error of an evaluation, 0-dim, by which a lane is solved or not. Default: the loss."""
        return self.loss(y, target)

    def scores(self, split: str, y: Any, target: Any) -> dict[str, Tensor]:
        """Return further figures of an evaluation, each 0-dim, by the names in `score_names`.

        `split` is "train" for a training batch, whose scores a network's `remember` receives, and "at" for one length.
        """
        return {}

    def has_threshold(self) -> bool:
        """Return whether `threshold` returns a number, without computing it. Default: whether it is overridden."""
        return type(self).threshold is not Task.threshold

    def threshold(self) -> float | None:
        """Return the extrapolation error below which a lane is solved; None: nothing is published. Called once a lane; may take
        seconds.
        """
        return None

    def curve_inputs(self, length: int) -> Any:
        """Return evaluation inputs of one length, for `curve_lengths` and ensembles. Raises ValueError if it is too short."""
        raise ValueError(f"{type(self).__name__} has no inputs of several lengths")

    def read(self, text: str) -> Sequence[int]:
        """Return the input symbols of an example that a person wrote, for tasks on symbols and words.

        Called by `sweeps predict`. Raises ValueError for a text that is none. Default: the symbols have no notation.
        """
        raise ValueError(f"{text!r} is not made of whole numbers")

    def write(self, symbols: Sequence[int]) -> str:
        """Return output symbols in the notation of `read`. Default: their numbers with spaces."""
        return " ".join(map(str, symbols))

    def warnings(self) -> Sequence[str]:
        """Return sentences about settings that are allowed and unusual; `sweeps check` prints them."""
        return ()

    @classmethod
    def identity(cls, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the settings as they enter a lane's content address: of files that a task reads the content, not the path."""
        return settings
