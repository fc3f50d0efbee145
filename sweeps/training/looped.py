"""The batches of stacked lanes for networks that are looped: of all lengths at once, or of one that a curriculum chooses.

Legend of suffixes: K slots, T time, B batch.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.utils import _pytree as pytree

from sweeps.training.compile import Recorded, in_place
from sweeps.training.step import LaneFunctions, LaneState, resting


class Batches:
    """Called with state, floats, keys, instance, shared: (x, target, what else is known of the batch).

    x is [T, K, B, ...], or a tuple of bins [K, B, n].
    """

    def __init__(self, functions: LaneFunctions, arguments: tuple[Any, ...], compiled: bool) -> None:
        self._sample = Recorded(_stacked(functions.sample), arguments, compiled)

    @property
    def recorded(self) -> Sequence[Recorded]:
        return [self._sample]

    def __call__(self, *arguments: Any) -> tuple[Any, Any, dict[str, Any]]:
        return *self._sample(*arguments), {}


class LengthBatches(Batches):
    """Batches of one length, in the task's bin for it. Each bin is compiled when it is first met.

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
            sample = _stacked(partial(_of_bin, self._functions, bin_), 1)
            self._by_bin[bin_] = Recorded(sample, (length_K, *arguments), self._compiled)
        return *self._by_bin[bin_](length_K, *arguments), {"length": length_K}


def _of_bin(
    functions: LaneFunctions, bin_: int, length: Any, state: Any, floats: Any, keys: Any, data: Any
) -> Any:
    return functions.sample_length(length, bin_, state, floats, keys, data)


def _stacked(sample: Callable[..., Any], leading: int = 0) -> Callable[..., Any]:
    """`sample(..., instance and shared)` of one lane, over slots; the last two arguments are instance and shared."""

    def lane(*arguments: Any) -> Any:
        *before, instance, shared = arguments
        return sample(*before, {**instance, **shared})

    def over_slots(*arguments: Any) -> Any:
        x, target = torch.vmap(lane, in_dims=(0,) * (leading + 4) + (None,))(*arguments)
        return (x if isinstance(x, tuple) else x.movedim(1, 0).contiguous()), target

    return over_slots


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
        batch: type[Batches] = LengthBatches if functions.built.network.has_curriculum else Batches
        self._batch = batch(functions, (state, floats, keys, instance, shared), compiled)
        self._update: Recorded | None = None
        self._step(
            *pytree.tree_map(lambda t: t.clone(), arguments)
        )  # everything is compiled by one step on copies

    @property
    def why_uncompiled(self) -> str | None:
        """Why a part of it is not compiled, or None."""
        parts = [*self._batch.recorded, *([self._update] if self._update else []), *self._pieces.recorded]
        return next((part.why_uncompiled for part in parts if part.why_uncompiled), None)

    def bind(self, *arguments: Any) -> Callable[[int], None]:
        """What trains these tensors, in place, a number of steps."""

        def repeat(count: int) -> None:
            for _ in range(count):
                self._step(*arguments)

        return repeat

    def _step(
        self, state: LaneState, floats: Any, keys: Any, budget: Tensor, instance: Any, shared: Any
    ) -> None:
        x, target, about_batch = self._batch(state, floats, keys, instance, shared)
        leaves = {name: p.detach().requires_grad_() for name, p in state["params"].items()}
        about = {n: state[n] for n in ("step", "last_error", "mean_loss", "memory")} | {"keys": keys}
        pieces = self._pieces.of(leaves, floats, about)
        y, penalties = self._functions.built.network.loop(pieces, x if isinstance(x, tuple) else x.unbind(0))
        loss_K, observed = pieces.total(y, target, penalties)
        observed = pytree.tree_map(torch.detach, observed) | about_batch
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
    """The errors of every split, and the sparsity error, of stacked lanes; a split's length is its own."""

    def __init__(self, functions: LaneFunctions, compiled: bool, inputs_shared: bool) -> None:
        self._functions, self._inputs_shared = functions, inputs_shared
        self._pieces = _Pieces(functions, compiled, training=False)
        self._short = _Pieces(functions, False, training=False)

    @property
    def why_uncompiled(self) -> str | None:
        """Why a part of it is not compiled, or None."""
        return next((part.why_uncompiled for part in self._pieces.recorded if part.why_uncompiled), None)

    def __call__(
        self,
        params: Any,
        memory: Any,
        floats: Any,
        inputs: dict[str, Any],
        targets: dict[str, Any],
        shared: Any,
    ) -> dict[str, Tensor]:
        result: dict[str, Tensor] = {}
        with torch.no_grad():
            pieces = self._pieces.of(params, floats, {"memory": memory})
            for split, x in inputs.items():
                y = self.outputs(params, memory, floats, x, shared)
                result |= pieces.errors(split, y, targets[split])
            result["sparsity_error"] = pieces.sparsity_error()
        return result

    def outputs(self, params: Any, memory: Any, floats: Any, x: Any, shared: Any = None) -> Any:
        """What the lanes make of inputs: [K, B, ...], or of every bin."""
        about = {"memory": memory}
        with torch.no_grad():
            pieces, short = (p.of(params, floats, about) for p in (self._pieces, self._short))
            num_slots = len(next(iter(params.values())))
            if isinstance(x, tuple):
                return tuple(self._of_bin(pieces if b.shape[-1] > LONG else short, b, num_slots) for b in x)
            return self._of_time(pieces, x, shared, num_slots)

    def _of_time(self, pieces: Any, x: Tensor, shared: Any, num_slots: int) -> Tensor:
        rows, loop = x.split(ROWS, dim=1 if self._inputs_shared else 2), self._functions.built.network.loop
        return torch.cat([loop(pieces, self._shown(part, shared, num_slots))[0] for part in rows], dim=1)

    def _of_bin(self, pieces: Any, x: Tensor, num_slots: int) -> Tensor:
        """The outputs [K, B, ...] for symbols [B, n], or [K, B, n] where each lane has its own, in parts of equal size."""
        x_KBN = x.expand(num_slots, *x.shape) if self._inputs_shared else x
        num_rows, length = x_KBN.shape[1:]
        size = min(num_rows, max(1, SYMBOLS // length))
        missing = -num_rows % size  # the last part is filled up, so that all have one shape
        whole = torch.cat([x_KBN, *[x_KBN[:, -1:]] * missing], dim=1)
        loop = self._functions.built.network.loop
        parts = [loop(pieces, [part.contiguous()])[0][0] for part in whole.split(size, dim=1)]
        return torch.cat(parts, dim=1)[:, :num_rows].contiguous()

    def _shown(self, rows: Tensor, shared: Any, num_slots: int) -> Sequence[Tensor]:
        """What the network sees at each time, [K, B, ...]; what lanes share is one copy in memory."""
        task = self._functions.built.task
        shown = task.present(rows, shared)
        if not self._inputs_shared:
            return shown.unbind(1)
        return [x.expand(num_slots, *x.shape) for x in shown.unbind(0)]


class _Pieces:
    """Compiled pieces by name and shapes."""

    def __init__(self, functions: LaneFunctions, compiled: bool, training: bool) -> None:
        self._functions, self._compiled, self._training = functions, compiled, training
        self._kept: dict[Any, Recorded] = {}

    @property
    def recorded(self) -> Sequence[Recorded]:
        return list(self._kept.values())

    def of(self, params: Any, floats: Any, about: Any) -> Any:
        """The pieces of these lanes, to be called with stacked tensors; with them `total`, `errors`, `sparsity_error`."""
        names, calls = self._functions.built.network.pieces, itertools.count()
        found = {name: self._piece(name, params, floats, about, calls) for name in names}
        return SimpleNamespace(
            **found,
            total=lambda *a: self._call("total", self._functions.total, about, floats, *a),
            errors=lambda split, *a: self._call(
                f"errors {split}", partial(self._functions.errors, split), floats, *a
            ),
            sparsity_error=lambda: self._call("sparsity", self._functions.sparsity_error, params, floats),
        )

    def _piece(
        self, name: str, params: Any, floats: Any, about: Any, calls: Iterator[int]
    ) -> Callable[..., Any]:
        some = next(iter(params.values()))

        def run(params: Any, floats: Any, about: Any, number: Tensor, *arguments: Any) -> Any:
            model = self._functions.model(floats)
            if self._training:
                ctx = self._functions.context(about, about["keys"])
            else:
                ctx = resting(some.device, about["memory"].get("model", {}))
            prefixed = {f"model.{n}": p for n, p in params.items()}
            return functional_call(_Part(model, name), prefixed, (*arguments, ctx.part(number)))

        def call(*arguments: Any) -> Any:
            number = torch.full((len(some),), next(calls), dtype=torch.int32, device=some.device)
            return self._call(name, run, params, floats, about, number, *arguments)

        return call

    def _call(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        flat, spec = pytree.tree_flatten(arguments)
        key = (name, spec, tuple((t.shape, t.stride(), t.dtype, t.requires_grad) for t in flat))
        if key not in self._kept:
            self._kept[key] = Recorded(torch.vmap(function), arguments, self._compiled, self._training)
        out = self._kept[key](*arguments)
        # A state that is a constant asks for a gradient too, or the first time step would be compiled apart.
        return pytree.tree_map(_asking, out) if self._training else out


def _asking(t: Tensor) -> Tensor:
    return t if t.requires_grad or not t.is_floating_point() else t.detach().requires_grad_()


class _Part(torch.nn.Module):
    """Lets functional_call reach one of a network's pieces."""

    def __init__(self, model: torch.nn.Module, name: str) -> None:
        super().__init__()
        self.model: Any = model
        self._name = name

    def forward(self, *arguments: Any) -> Any:
        return getattr(self.model, self._name)(*arguments)
