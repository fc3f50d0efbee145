"""Training and evaluation of networks that repeat a cell: the loop runs in Python, its pieces are compiled.

Legend of suffixes: K slots, T time, B batch, N rows, n positions.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
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

log = logging.getLogger(__name__)

ROWS = 1_000
"""Rows that are evaluated at once: the stacked states of a thousand fit a processor's cache."""
SYMBOLS = 8_192
"""Symbols of sequences that are evaluated at once, a sequence at least."""
LONG = 256
"""Sequences up to this are evaluated uncompiled: a compilation for every length takes longer than it would save."""


Capture = Callable[[Callable[[], None], Callable[[], None]], Callable[[], None]]
"""(what is to be repeated, the same on copies) -> what repeats it on the tensors that it was captured with"""


class CudaGraphs:
    """Captures as CUDA graphs. They share their memory, because one is replayed after another and leaves nothing in it."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, run: Callable[[], None], run_on_copies: Callable[[], None]) -> Callable[[], None]:
        # The first run makes what a capture cannot: programs, handles of libraries, their workspaces.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            run_on_copies()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            run()
        return graph.replay


CAPTURES: dict[str, Callable[[], Capture]] = {"cuda": CudaGraphs}
"""By type of device; steps on others are ordinary calls."""


class LoopedStep:
    """Steps of stacked lanes, in place. Has what `Recorded` has: `bind`, `why_uncompiled`.

    On a GPU a step is captured once for each bin that a curriculum chooses, and then replayed.
    """

    def __init__(self, functions: LaneFunctions, arguments: tuple[Any, ...], compiled: bool) -> None:
        self._functions, self._compiled = functions, compiled
        self._pieces = _Pieces(functions, compiled, training=True)
        state, floats, keys, _, instance, shared = arguments
        batches = LengthBatches if functions.built.network.has_curriculum else Batches
        self._batches = batches(functions, (state, floats, keys, instance, shared), compiled)
        self._update: Recorded | None = None
        device = state["step"].device
        self._products = partial(_products, functions.built.train.products, device)
        self._capture = CAPTURES[device.type]() if device.type in CAPTURES else None
        self._captured: tuple[tuple[int, ...], dict[int, Callable[[], None]]] = ((), {})
        """Addresses of the tensors that were bound last, and their captured steps by bin."""
        # Everything is compiled by one step on copies.
        with self._products():
            self._step(self._batches.bin(state, floats, keys), *_copies(arguments))

    @property
    def why_uncompiled(self) -> str | None:
        """Why a part of it is not compiled, or None."""
        update = [self._update] if self._update else []
        return _first_reason([*self._batches.recorded, *update, *self._pieces.recorded])

    def bind(self, *arguments: Any) -> Callable[[int], None]:
        """Return what trains these tensors, in place, a number of steps."""
        state, floats, keys = arguments[:3]
        addresses = tuple(t.data_ptr() for t in pytree.tree_leaves(arguments))
        if addresses != self._captured[0]:  # captures of other tensors are dropped: they hold memory
            self._captured = (addresses, {})
        captured = self._captured[1]

        def repeat(count: int) -> None:
            with self._products():
                for _ in range(count):
                    bin_ = self._batches.bin(state, floats, keys)
                    if self._capture is not None and bin_ not in captured:
                        self._try_to_capture(captured, bin_, arguments)
                    captured.get(bin_, partial(self._step, bin_, *arguments))()

        return repeat

    def _try_to_capture(self, captured: dict[int, Callable[[], None]], bin_: int, arguments: tuple[Any, ...]) -> None:
        assert self._capture is not None
        step = partial(self._step, bin_)
        try:
            captured[bin_] = self._capture(partial(step, *arguments), partial(step, *_copies(arguments)))
        except Exception as error:  # a network may do what no capture allows: it is slower, and its numbers are the same
            log.warning("steps are not captured, and take longer: %s: %s", type(error).__name__, error)
            self._capture = None

    def _step(
        self, bin_: int, state: LaneState, floats: Params, keys: Params, budget: Tensor, instance: Params, shared: Params
    ) -> None:
        """One step. No value is read from the device, so that it can be captured."""
        x, target, of_batch = self._batches(bin_, state, floats, keys, instance, shared)
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
        with torch.no_grad(), _products("float32", next(iter(params.values())).device):
            pieces = self._pieces.of(params, floats, {"memory": memory})
            for split, x in inputs.items():
                y = self.outputs(params, memory, floats, x, shared)
                result |= pieces.errors(split, y, targets[split])
            result[SPARSITY_ERROR] = pieces.sparsity_error()
        return result

    def outputs(self, params: Params, memory: dict[str, Params], floats: Params, x: Any, shared: Params | None = None) -> Any:
        """Return the lanes' outputs [K, B, ...], or a tuple of those of every bin where x is a tuple."""
        about = {"memory": memory}
        with torch.no_grad(), _products("float32", next(iter(params.values())).device):
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
    """Training batches of stacked lanes, called with a bin and state, floats, keys, instance, shared: (x, target, observed).

    x is [T, K, B, ...], or a tuple of bins [K, B, n].
    """

    def __init__(self, functions: LaneFunctions, arguments: tuple[Any, ...], compiled: bool) -> None:
        self._sample = Recorded(_over_slots(functions.sample), arguments, compiled)

    @property
    def recorded(self) -> Sequence[Recorded]:
        return [self._sample]

    def bin(self, state: LaneState, floats: Params, keys: Params) -> int:
        """Return the bin of the next batch, or 0 where it has all of them."""
        return 0

    def __call__(self, bin_: int, *arguments: Any) -> tuple[Any, Any, dict[str, Any]]:
        return *self._sample(*arguments), {}


class LengthBatches(Batches):
    """Batches of one length that a curriculum chooses, in the task's bin for it; each bin is compiled when first needed."""

    def __init__(self, functions: LaneFunctions, arguments: tuple[Any, ...], compiled: bool) -> None:
        self._functions, self._compiled = functions, compiled
        state, floats, keys, *_ = arguments
        self._length = Recorded(torch.vmap(functions.length), (state, floats, keys), compiled)
        self._by_bin: dict[int, Recorded] = {}

    @property
    def recorded(self) -> Sequence[Recorded]:
        return [self._length, *self._by_bin.values()]

    def bin(self, state: LaneState, floats: Params, keys: Params) -> int:
        """Raises ValueError where lanes are at different bins: such lanes must train apart."""
        lengths = self._length(state, floats, keys).tolist()
        bins: set[int] = {self._functions.built.task.bin_of(length) for length in lengths}
        if len(bins) > 1:
            raise ValueError(f"lanes of one pack are at lengths of the bins {sorted(bins)}: train them apart")
        return bins.pop()

    def __call__(self, bin_: int, *arguments: Any) -> tuple[Any, Any, dict[str, Any]]:
        state, floats, keys, *_ = arguments
        length_K = self._length(state, floats, keys)
        if bin_ not in self._by_bin:

            def sample(length: Tensor, *rest: Any) -> Any:
                return self._functions.sample_length(length, bin_, *rest)

            self._by_bin[bin_] = Recorded(_over_slots(sample), (length_K, *arguments), self._compiled)
        return *self._by_bin[bin_](length_K, *arguments), {"length": length_K}


def _over_slots(sample: Callable[..., Any]) -> Callable[..., Any]:
    """`sample(*lane arguments, data)` of one lane as a function of stacked lane arguments, instance and shared."""

    def lane(*arguments: Any) -> Any:
        *before, instance, shared = arguments
        return sample(*before, {**instance, **shared})

    def over_slots(*arguments: Any) -> Any:
        x, target = torch.vmap(lane, in_dims=(0,) * (len(arguments) - 1) + (None,))(*arguments)
        return (x if isinstance(x, tuple) else x.movedim(1, 0).contiguous()), target

    return over_slots


@contextmanager
def _products(precision: str, device: torch.device) -> Iterator[None]:
    """Set the precision of float32 products on a GPU; it is as before afterwards. torch's own default for convolutions is
    TF32."""
    if device.type != "cuda":
        yield
        return
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


class _Pieces:
    """A network's pieces over stacked lanes, and the functions around them, each recorded once by name and shapes."""

    def __init__(self, functions: LaneFunctions, compiled: bool, training: bool) -> None:
        self._functions, self._compiled, self._training = functions, compiled, training
        self._bfloat16 = training and functions.built.train.products == "bf16"
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
            # Casts are not kept from one call for the next: they would be those of another recording.
            bfloat16 = torch.autocast(first.device.type, torch.bfloat16, cache_enabled=False)
            with bfloat16 if self._bfloat16 else nullcontext():
                out = with_params(model, params, lambda model, *x: getattr(model, name)(*x, part), *arguments)
            return pytree.tree_map(lambda t: t.float() if t.dtype == torch.bfloat16 else t, out) if self._bfloat16 else out

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


def _copies(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    copies: tuple[Any, ...] = pytree.tree_map(lambda t: t.clone(), arguments)
    return copies


def _first_reason(parts: Sequence[Recorded]) -> str | None:
    return next((part.why_uncompiled for part in parts if part.why_uncompiled), None)
