"""Training and evaluation of networks that repeat a cell: the loop runs in Python, its pieces are compiled.

Legend of suffixes: K slots, T time, B batch, N rows, n positions.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from sweeps.training.compile import Recorded, in_place
from sweeps.training.lane import SPARSITY_ERROR
from sweeps.training.optimizers import Params
from sweeps.training.state import LaneState
from sweeps.training.step import Context, LaneFunctions, with_params

ROWS = 1_000
"""Rows that are evaluated at once: the stacked states of a thousand fit a processor's cache."""
SYMBOLS = 8_192
"""Symbols of sequences that are evaluated at once, a sequence at least."""
LONG = 256
"""Sequences up to this are evaluated uncompiled: a compilation for every length takes longer than it would save."""


class LoopedStep:
    """Steps of stacked lanes, in place. Has what `Recorded` has: `bind`, `why_uncompiled`."""

    def __init__(self, functions: LaneFunctions, arguments: tuple[Any, ...], compiled: bool) -> None:
        self._functions, self._compiled = functions, compiled
        self._pieces = _Pieces(functions, compiled, training=True)
        state, floats, keys, _, instance, shared = arguments
        batches = LengthBatches if functions.built.network.has_curriculum else Batches
        self._batches = batches(functions, (state, floats, keys, instance, shared), compiled)
        self._update: Recorded | None = None
        # Everything is compiled by one step on copies.
        self._step(*pytree.tree_map(lambda t: t.clone(), arguments))

    @property
    def why_uncompiled(self) -> str | None:
        """Why a part of it is not compiled, or None."""
        update = [self._update] if self._update else []
        return _first_reason([*self._batches.recorded, *update, *self._pieces.recorded])

    def bind(self, *arguments: Any) -> Callable[[int], None]:
        """Return what trains these tensors, in place, a number of steps."""

        def repeat(count: int) -> None:
            for _ in range(count):
                self._step(*arguments)

        return repeat

    def _step(self, state: LaneState, floats: Params, keys: Params, budget: Tensor, instance: Params, shared: Params) -> None:
        x, target, of_batch = self._batches(state, floats, keys, instance, shared)
        leaves = {name: p.detach().requires_grad_() for name, p in state["params"].items()}
        about = {n: state[n] for n in ("step", "last_error", "mean_loss", "memory")} | {"keys": keys}
        pieces = self._pieces.of(leaves, floats, about)
        y, penalties = self._functions.built.network.loop(pieces, x if isinstance(x, tuple) else x.unbind(0))
        loss_K, observed = pieces.total(y, target, penalties)
        observed = pytree.tree_map(torch.detach, observed) | of_batch
        found = torch.autograd.grad(loss_K.sum(), list(leaves.values()), allow_unused=True)
        grads = {
            name: torch.zeros_like(p) if g is None else g.contiguous()
            for (name, p), g in zip(leaves.items(), found, strict=True)
        }
        rest = (grads, loss_K.detach(), observed, floats, keys, budget)
        if self._update is None:
            update = in_place(torch.vmap(self._functions.update))
            self._update = Recorded(update, (state, *rest), self._compiled)
        self._update(state, *rest)


class LoopedEvaluation:
    """The errors of every split, and the sparsity error, of stacked lanes; splits may differ in length."""

    def __init__(self, functions: LaneFunctions, compiled: bool, inputs_shared: bool) -> None:
        """`inputs_shared`: inputs are the same for all lanes, and have no slot axis."""
        self._network, self._task = functions.built.network, functions.built.task
        self._inputs_shared = inputs_shared
        self._pieces = _Pieces(functions, compiled, training=False)
        self._uncompiled_pieces = _Pieces(functions, False, training=False)

    @property
    def why_uncompiled(self) -> str | None:
        """Why a part of it is not compiled, or None."""
        return _first_reason(self._pieces.recorded)

    def __call__(
        self,
        params: Params,
        memory: dict[str, Params],
        floats: Params,
        inputs: dict[str, Any],
        targets: dict[str, Any],
        shared: Params,
    ) -> dict[str, Tensor]:
        result: dict[str, Tensor] = {}
        with torch.no_grad():
            pieces = self._pieces.of(params, floats, {"memory": memory})
            for split, x in inputs.items():
                y = self.outputs(params, memory, floats, x, shared)
                result |= pieces.errors(split, y, targets[split])
            result[SPARSITY_ERROR] = pieces.sparsity_error()
        return result

    def outputs(self, params: Params, memory: dict[str, Params], floats: Params, x: Any, shared: Params | None = None) -> Any:
        """Return the lanes' outputs [K, B, ...], or a tuple of those of every bin where x is a tuple."""
        about = {"memory": memory}
        with torch.no_grad():
            pieces = self._pieces.of(params, floats, about)
            uncompiled = self._uncompiled_pieces.of(params, floats, about)
            num_slots = len(next(iter(params.values())))
            if isinstance(x, tuple):
                return tuple(self._of_symbols(pieces if b.shape[-1] > LONG else uncompiled, b, num_slots) for b in x)
            return self._of_sequence(pieces, x, shared or {}, num_slots)

    def _of_sequence(self, pieces: SimpleNamespace, x: Tensor, shared: Params, num_slots: int) -> Tensor:
        """Outputs for inputs [T, N, ...], or [K, T, N, ...] where each lane has its own."""
        outputs = []
        for rows in x.split(ROWS, dim=1 if self._inputs_shared else 2):
            presented = self._task.present(rows, shared)
            if self._inputs_shared:  # one copy in memory
                at_times = [x_t.expand(num_slots, *x_t.shape) for x_t in presented.unbind(0)]
            else:
                at_times = list(presented.unbind(1))
            outputs.append(self._network.loop(pieces, at_times)[0])
        return torch.cat(outputs, dim=1)

    def _of_symbols(self, pieces: SimpleNamespace, x: Tensor, num_slots: int) -> Tensor:
        """Outputs for symbols [N, n], or [K, N, n] where each lane has its own, in parts of equal size."""
        x_KNn = x.expand(num_slots, *x.shape) if self._inputs_shared else x
        num_rows, length = x_KNn.shape[1:]
        size = min(num_rows, max(1, SYMBOLS // length))
        missing = -num_rows % size  # the last part is filled up, so that all have one shape
        whole = torch.cat([x_KNn, *[x_KNn[:, -1:]] * missing], dim=1)
        parts = [self._network.loop(pieces, [part.contiguous()])[0][0] for part in whole.split(size, dim=1)]
        return torch.cat(parts, dim=1)[:, :num_rows].contiguous()


class Batches:
    """Training batches of stacked lanes, called with state, floats, keys, instance, shared: (x, target, observed).

    x is [T, K, B, ...], or a tuple of bins [K, B, n].
    """

    def __init__(self, functions: LaneFunctions, arguments: tuple[Any, ...], compiled: bool) -> None:
        self._sample = Recorded(_over_slots(functions.sample, 3), arguments, compiled)

    @property
    def recorded(self) -> Sequence[Recorded]:
        return [self._sample]

    def __call__(self, *arguments: Any) -> tuple[Any, Any, dict[str, Any]]:
        return *self._sample(*arguments), {}


class LengthBatches(Batches):
    """Batches of one length that a curriculum chooses, in the task's bin for it; each bin is compiled when first needed.

    Raises ValueError where lanes are at different bins: such lanes must train apart.
    """

    def __init__(self, functions: LaneFunctions, arguments: tuple[Any, ...], compiled: bool) -> None:
        self._functions, self._compiled = functions, compiled
        state, floats, keys, *_ = arguments
        self._length = Recorded(torch.vmap(functions.length), (state, floats, keys), compiled)
        self._by_bin: dict[int, Recorded] = {}

    @property
    def recorded(self) -> Sequence[Recorded]:
        return [self._length, *self._by_bin.values()]

    def __call__(self, *arguments: Any) -> tuple[Any, Any, dict[str, Any]]:
        state, floats, keys, *_ = arguments
        length_K = self._length(state, floats, keys)
        bins = {self._functions.built.task.bin_of(length) for length in length_K.tolist()}
        if len(bins) > 1:
            raise ValueError(f"lanes of one pack are at lengths of the bins {sorted(bins)}: train them apart")
        bin_ = bins.pop()
        if bin_ not in self._by_bin:

            def sample(length: Tensor, *rest: Any) -> Any:
                return self._functions.sample_length(length, bin_, *rest)

            self._by_bin[bin_] = Recorded(_over_slots(sample, 4), (length_K, *arguments), self._compiled)
        return *self._by_bin[bin_](length_K, *arguments), {"length": length_K}


def _over_slots(sample: Callable[..., Any], num_lane_arguments: int) -> Callable[..., Any]:
    """`sample(*lane arguments, data)` of one lane as a function of stacked lane arguments, instance and shared."""

    def lane(*arguments: Any) -> Any:
        *before, instance, shared = arguments
        return sample(*before, {**instance, **shared})

    def over_slots(*arguments: Any) -> Any:
        x, target = torch.vmap(lane, in_dims=(0,) * (num_lane_arguments + 1) + (None,))(*arguments)
        return (x if isinstance(x, tuple) else x.movedim(1, 0).contiguous()), target

    return over_slots


class _Pieces:
    """A network's pieces over stacked lanes, and the functions around them, each recorded once by name and shapes."""

    def __init__(self, functions: LaneFunctions, compiled: bool, training: bool) -> None:
        self._functions, self._compiled, self._training = functions, compiled, training
        self._recorded: dict[Any, Recorded] = {}

    @property
    def recorded(self) -> Sequence[Recorded]:
        return list(self._recorded.values())

    def of(self, params: Params, floats: Params, about: LaneState) -> SimpleNamespace:
        """The pieces of these lanes, called with stacked tensors; and `total`, `errors`, `sparsity_error` of the lanes.

        `about` is the part of their state that a context is made of: in an evaluation, `memory`.
        """
        functions, calls = self._functions, itertools.count()
        return SimpleNamespace(
            **{name: self._piece(name, params, floats, about, calls) for name in functions.built.network.pieces},
            total=lambda *rest: self._call("total", functions.total, about, floats, *rest),
            errors=lambda split, *rest: self._call(f"errors {split}", partial(functions.errors, split), floats, *rest),
            sparsity_error=lambda: self._call("sparsity", functions.sparsity_error, params, floats),
        )

    def _piece(self, name: str, params: Params, floats: Params, about: LaneState, calls: Iterator[int]) -> Callable[..., Any]:
        first = next(iter(params.values()))

        def run(params: Params, floats: Params, about: LaneState, number: Tensor, *arguments: Any) -> Any:
            model = self._functions.model(floats)
            if self._training:
                ctx = self._functions.context(about, about["keys"])
            else:
                ctx = Context.of_evaluation(first.device, about["memory"].get("model", {}))
            part = ctx.part(number)
            return with_params(model, params, lambda model, *x: getattr(model, name)(*x, part), *arguments)

        def call(*arguments: Any) -> Any:
            number = torch.full((len(first),), next(calls), dtype=torch.int32, device=first.device)
            return self._call(name, run, params, floats, about, number, *arguments)

        return call

    def _call(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        flat, spec = pytree.tree_flatten(arguments)
        key = (name, spec, tuple((t.shape, t.stride(), t.dtype, t.requires_grad) for t in flat))
        if key not in self._recorded:
            self._recorded[key] = Recorded(torch.vmap(function), arguments, self._compiled, self._training)
        out = self._recorded[key](*arguments)

        def requiring_gradient(t: Tensor) -> Tensor:
            return t if t.requires_grad or not t.is_floating_point() else t.detach().requires_grad_()

        # A state that is a constant requires a gradient too, or the first time step would be compiled separately.
        return pytree.tree_map(requiring_gradient, out) if self._training else out


def _first_reason(parts: Sequence[Recorded]) -> str | None:
    return next((part.why_uncompiled for part in parts if part.why_uncompiled), None)
