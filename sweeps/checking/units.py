"""A unit made ready for a check: built in small networks of two layers, with what the engine would hand it."""

from __future__ import annotations

from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from sweeps import catalog
from sweeps.checking.declaration import UNIT_DOCSTRING
from sweeps.checking.places import Sources
from sweeps.checking.variants import Variant, variants
from sweeps.checking.watching import Event, watched
from sweeps.configs import validated
from sweeps.training import Context, Stream, seed_key

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
        self.cls = catalog.find("model", name)
        self.shipped = name in catalog.names("model")
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
        two_layer: Any = catalog.find("network", "two_layer")
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
        if getattr(cls, "is_cell", False):
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


class OneStep(nn.Module):
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
        state_BS = x_BI.new_full((len(x_BI), self._outputs * getattr(self.cell, "state_parts", 1)), 0.5)
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
