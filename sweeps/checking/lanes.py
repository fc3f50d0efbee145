"""Lanes side by side under vmap: each is as if alone, and neither another neighbour nor a NaN one moves a bit of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, grad_and_value

from sweeps.checking.engine import translated
from sweeps.checking.findings import Fault
from sweeps.checking.units import LATE, Unit, batch
from sweeps.training import Context, Stream

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
