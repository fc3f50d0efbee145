"""Adds the slot axis to a lane's functions and compiles them, once a structure and process.

The vmapped function is first recorded as plain tensor operations (so models may use any Python that does not look at
tensor values), then compiled. Without a working compiler the recorded operations run as they are, and the reason is told.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

log = logging.getLogger(__name__)


class Recorded:
    """A function of tensors in nested containers, recorded for fixed shapes, compiled where that works.

    `differentiable`: gradients flow through calls, to those arguments that ask for them here. `why_uncompiled` says why
    it is not compiled, else None. `warm_up_s` is what recording and compiling cost.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        compiled: bool = True,
        differentiable: bool = False,
    ) -> None:
        started = time.perf_counter()
        flat, self._spec = pytree.tree_flatten(arguments)
        self._out_spec: Any = None

        def flat_function(*tensors: Tensor) -> list[Tensor]:
            out = function(*pytree.tree_unflatten(list(tensors), self._spec))
            leaves, self._out_spec = pytree.tree_flatten(out)
            return _apart(leaves, tensors)

        with torch.no_grad():
            graph = make_fx(flat_function)(*map(_copy, flat))
        graph.graph.eliminate_dead_code()
        graph.recompile()
        self.graph = graph
        self.why_uncompiled = None if compiled else "compilation is switched off"
        self._run: Callable[..., Any] = graph
        self._mode: Callable[[], Any] = torch.enable_grad if differentiable else torch.no_grad
        if compiled:
            self._compile([_copy(t).requires_grad_(t.requires_grad) for t in flat])
        self.warm_up_s = time.perf_counter() - started

    def _compile(self, example: list[Tensor]) -> None:
        # Here, because torch's compiler takes seconds to import, and what does not compile need not wait.
        from sweeps.training import threefry_kernel

        threefry_kernel.register()
        candidate = torch.compile(self.graph, fullgraph=True, dynamic=False)
        try:
            with self._mode(), self._one_compiler_at_a_time(example):
                out = [t for t in candidate(*example) if isinstance(t, Tensor) and t.requires_grad]
                if out:  # the way back is compiled when it is first gone
                    torch.autograd.backward(out, [torch.ones_like(t) for t in out])
            self._run = candidate
        except (
            Exception
        ) as error:  # any failure of the compiler, of which there are many kinds, has one remedy
            self.why_uncompiled = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:300]}"
            log.warning("training runs uncompiled, several times slower: %s", self.why_uncompiled)

    @contextmanager
    def _one_compiler_at_a_time(self, example: list[Tensor]) -> Iterator[None]:
        """Two workers that meet one cold structure: the second waits, then loads what the first compiled.

        Who finds it compiled already waits for nobody: to load it takes seconds too, and a node has many workers.
        """
        from torch._inductor.runtime.cache_dir_utils import cache_dir

        folder = Path(cache_dir()) / "sweeps-locks"
        folder.mkdir(parents=True, exist_ok=True)
        made_of = [
            torch.__version__,
            self.graph.code,
            *((t.shape, t.stride(), t.dtype, t.device) for t in example),
        ]
        name = hashlib.sha256(repr(made_of).encode()).hexdigest()[:24]
        compiled = folder / f"{name}.compiled"
        with nullcontext() if compiled.exists() else FileLock(folder / name):
            yield
        with suppress(OSError):  # as where a disk is full: it was compiled all the same
            compiled.touch()

    def __call__(self, *arguments: Any) -> Any:
        """Raises where the arguments would need another compilation: shapes, strides and types are fixed."""
        flat, _ = pytree.tree_flatten(arguments)
        with self._mode(), torch.compiler.set_stance("fail_on_recompile"):
            out = self._run(*flat)
        return pytree.tree_unflatten(out, self._out_spec) if self._out_spec is not None else None

    def bind(self, *arguments: Any) -> Callable[[int], None]:
        """A quick way to run again and again on the same tensors, for functions that change them in place."""
        flat, _ = pytree.tree_flatten(arguments)
        run = self._run

        def repeat(count: int) -> None:
            with self._mode(), torch.compiler.set_stance("fail_on_recompile"):
                for _ in range(count):
                    run(*flat)

        return repeat


def _apart(leaves: list[Any], inputs: tuple[Tensor, ...]) -> list[Any]:
    """Copies of outputs that share memory with another one or with an input.

    torch makes such outputs anew from their common base, and a function that comes out of its disk cache (2.13) does so
    with sizes that it has freed: an error or a dead process. The compiler leaves out the copies that it can do without.
    """
    owners = Counter(_memory(t) for t in (*leaves, *inputs) if isinstance(t, Tensor))
    # All of those that share, so that outputs alike stay alike: strides are part of what is compiled for.
    return [t.clone() if isinstance(t, Tensor) and owners[_memory(t)] > 1 else t for t in leaves]


def _memory(t: Tensor) -> int:
    return t.untyped_storage()._cdata


def _copy(t: Tensor) -> Tensor:
    """A copy with the same strides, for which functions are compiled; one row that stands for many stays as it is."""
    t = t.detach()
    return (
        t
        if 0 in t.stride()
        else torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device=t.device).copy_(t)
    )


def in_place(function: Callable[..., Any]) -> Callable[..., None]:
    """Wraps f(state, ...) -> new state so that the state's own tensors take the new values: fixed addresses and strides."""

    def changed(state: Any, *rest: Any) -> None:
        new = function(state, *rest)
        for target, value in zip(pytree.tree_leaves(state), pytree.tree_leaves(new), strict=True):
            target.copy_(value)

    return changed
