"""Recording of functions as plain tensor operations, their compilation, and the compile cache on disk.

A function is first recorded (so models may use any Python that does not depend on tensor values), then compiled. Without a
working compiler the recorded operations run as they are, and the reason is logged and returned with results.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from sweeps.machine import use_compile_cache
from sweeps.training.numerics import NUMERICS

log = logging.getLogger(__name__)


class Recorded:
    """A function of tensors in nested containers, recorded for fixed shapes, compiled where that works.

    `differentiable`: gradients flow through calls, to those arguments that require them here. `why_uncompiled` is the
    reason why it is not compiled, else None.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        compiled: bool = True,
        differentiable: bool = False,
    ) -> None:
        flat, self._spec = pytree.tree_flatten(arguments)
        self._out_spec: Any = None

        def flat_function(*tensors: Tensor) -> list[Tensor]:
            out = function(*pytree.tree_unflatten(list(tensors), self._spec))
            leaves, self._out_spec = pytree.tree_flatten(out)
            return _without_aliases(leaves, tensors)

        with torch.no_grad():
            graph = make_fx(flat_function)(*map(_copy, flat))
        graph.graph.eliminate_dead_code()
        self._constants = _lift_constants(graph)
        self.graph = graph
        self.why_uncompiled = None if compiled else "compilation is switched off"
        self._run: Callable[..., Any] = graph
        self._repeat: Callable[..., Any] = graph
        self._accepts: Callable[..., bool] = lambda *tensors: True
        self._differentiable = differentiable
        self._mode: Callable[[], Any] = torch.enable_grad if differentiable else torch.no_grad
        if compiled:
            example = [_copy(t).requires_grad_(t.requires_grad) for t in flat]
            self._compile([*example, *map(_copy, self._constants)])

    def _compile(self, example: list[Tensor]) -> None:
        if why := use_compile_cache():
            log.warning("%s", why)
        for method in (self._ahead_of_time, self._traced):
            try:
                with self._mode():
                    method(example)
                self.why_uncompiled = None
                return
            except Exception as error:  # the compiler raises many exceptions, and all have this one remedy
                message = (str(error).strip() or repr(error)).splitlines()[0]
                self.why_uncompiled = f"{type(error).__name__}: {message[:300]}"
                log.debug("not compiled (%s): %s", method.__name__, self.why_uncompiled)
        log.warning("training runs uncompiled, several times slower: %s", self.why_uncompiled)

    def _ahead_of_time(self, example: list[Tensor]) -> None:
        """Compile into a program that other processes load, its backward pass in the same file.

        Experimental in torch: a function that it refuses is traced.
        """

        def compile_it() -> Any:
            _register_lowerings()
            compiler: Any = torch.compile(self.graph.forward, fullgraph=True, dynamic=False)
            return compiler.aot_compile((tuple(example), {}))

        program = ProgramFile(self.graph, example).load_or_compile(compile_it)
        self._try_out(partial(program, self.graph), example)
        self._run, self._repeat = partial(program, self.graph), partial(program.fn, self.graph)
        self._accepts = partial(program.guard_check, self.graph)

    def _traced(self, example: list[Tensor]) -> None:
        """Compile at the first call, and the backward pass at the first gradient."""
        _register_lowerings()
        candidate = torch.compile(self.graph, fullgraph=True, dynamic=False)
        with ProgramFile(self.graph, example).one_tracer_at_a_time():
            self._try_out(candidate, example)
        self._run = self._repeat = candidate

    def _try_out(self, candidate: Callable[..., Any], example: list[Tensor]) -> None:
        """Call it, and its backward pass: what does not run fails here, and not in the middle of a pack."""
        out = _with_gradients(candidate(*example))
        if self._differentiable and len(out) < len(_with_gradients(self.graph(*example))):
            raise RuntimeError("the compiled function loses gradients")
        if out:
            torch.autograd.backward(out, [torch.ones_like(t) for t in out])

    def __call__(self, *arguments: Any) -> Any:
        """Raises where the arguments would need another compilation: shapes, strides and types are fixed."""
        flat, _ = pytree.tree_flatten(arguments)
        with self._mode(), torch.compiler.set_stance("fail_on_recompile"):
            out = self._run(*flat, *self._constants)
        return pytree.tree_unflatten(out, self._out_spec) if self._out_spec is not None else None

    def bind(self, *arguments: Any) -> Callable[[int], None]:
        """Return a function that runs it a number of times on the same tensors, for functions that change them in place.

        Raises RuntimeError where the tensors would need another compilation.
        """
        flat, run = [*pytree.tree_flatten(arguments)[0], *self._constants], self._repeat
        with self._mode():
            if not self._accepts(*flat):
                raise RuntimeError("these tensors would need another compilation: their shapes, types or memory differ")

        def repeat(count: int) -> None:
            with self._mode(), torch.compiler.set_stance("fail_on_recompile"):
                for _ in range(count):
                    run(*flat)

        return repeat


def _register_lowerings() -> None:
    # Imported here: torch's compiler takes seconds, which an uncompiled process saves.
    from sweeps.training import threefry_inductor

    threefry_inductor.register()


def _lift_constants(graph: GraphModule) -> list[Tensor]:
    """Turn tensors that the recorded function holds itself into last arguments, and return them.

    Programs that differ only in them are one, and torch (2.13) saves no function that looks up tensors in its module.
    Other modules inside, as `torch.cond` makes, stay where they are.
    """
    held = [node for node in graph.graph.find_nodes(op="get_attr") if isinstance(getattr(graph, node.target), Tensor)]
    last = next((node for node in reversed(graph.graph.nodes) if node.op == "placeholder"), None)
    constants: list[Tensor] = []
    for node in held if last is not None else ():
        constants.append(getattr(graph, node.target))
        with graph.graph.inserting_after(last):
            last = graph.graph.placeholder(f"constant_{len(constants)}")
        node.replace_all_uses_with(last)
        graph.graph.erase_node(node)
    graph.recompile()
    return constants


def _without_aliases(leaves: list[Any], inputs: tuple[Tensor, ...]) -> list[Any]:
    """Return outputs, copied where they share memory with another one or with an input.

    torch recreates such outputs from their common base, and a function from its disk cache (2.13) does so with sizes that
    it has freed: an error or a dead process. The compiler leaves out the copies that are not needed.
    """
    owners = Counter(_storage(t) for t in (*leaves, *inputs) if isinstance(t, Tensor))
    # All of those that share memory are copied, so that equal outputs keep equal strides, for which functions are compiled.
    return [t.clone() if isinstance(t, Tensor) and owners[_storage(t)] > 1 else t for t in leaves]


def _with_gradients(out: Sequence[Any]) -> list[Tensor]:
    return [t for t in out if isinstance(t, Tensor) and t.requires_grad]


def _storage(t: Tensor) -> int:
    return t.untyped_storage()._cdata


def _copy(t: Tensor) -> Tensor:
    """A copy with the same strides, for which functions are compiled; an expanded tensor stays as it is."""
    t = t.detach()
    return t if 0 in t.stride() else torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device=t.device).copy_(t)


def in_place(function: Callable[..., Any]) -> Callable[..., None]:
    """Wrap f(state, ...) -> new state so that the state's own tensors take the new values: fixed addresses and strides."""

    def changed(state: Any, *rest: Any) -> None:
        new = function(state, *rest)
        for target, value in zip(pytree.tree_leaves(state), pytree.tree_leaves(new), strict=True):
            target.copy_(value)

    return changed


KEPT_DAYS = 60.0
"""Programs that no process has used for so long are removed."""


class ProgramFolder:
    """Where compiled programs are kept from one process to the next."""

    def __init__(self, cache: Path) -> None:
        self.path = cache / "sweeps-programs"
        with suppress(OSError):
            self.path.mkdir(0o700, parents=True, exist_ok=True)

    def is_private(self) -> bool:
        """Return whether it exists, and nobody else can write code into it."""
        try:
            found = self.path.stat()
        except OSError:
            return False
        return found.st_uid == os.getuid() and not found.st_mode & 0o022

    def remove_unused(self) -> None:
        """Remove what no process has used for `KEPT_DAYS`."""
        oldest = time.time() - KEPT_DAYS * 24 * 3600
        with suppress(OSError):
            for path in self.path.iterdir():
                with suppress(OSError):  # another process removes them too
                    if path.stat().st_mtime < oldest:
                        shutil.rmtree(path) if path.is_dir() else path.unlink()


class ProgramFile:
    """The compiled form of a recorded graph in the compile cache, named by a digest of all that it depends on."""

    def __init__(self, graph: GraphModule, example: Sequence[Tensor]) -> None:
        from torch._inductor.runtime.cache_dir_utils import cache_dir

        self._folder = ProgramFolder(Path(cache_dir()))
        name = _digest(graph, example)
        self._program, self._traced, self._lock = (
            self._folder.path / f"{name}.{suffix}" for suffix in ("program", "traced", "lock")
        )

    def load_or_compile(self, compile_it: Callable[[], Any]) -> Any:
        """Return a function compiled ahead of time, from its file or by `compile_it`, whose result is then saved.

        Of two processes that need one missing program the second waits, then loads what the first compiled.
        """
        found = self._load()
        if found is not None:
            return found
        with FileLock(self._lock):
            found = self._load()
            if found is None:
                found = compile_it()
                self._save(found)
        return found

    @contextmanager
    def one_tracer_at_a_time(self) -> Iterator[None]:
        """Hold the lock while a function is traced that is not yet in torch's cache of kernels.

        A function in the cache is traced without waiting: that takes seconds too, and a node has many workers.
        """
        with nullcontext() if self._traced.exists() else FileLock(self._lock):
            yield
        with suppress(OSError):  # a full disk: it is compiled all the same
            self._traced.touch()

    def _load(self) -> Any:
        try:
            if not self._folder.is_private():
                return None
            with self._program.open("rb") as file:
                found = torch.compiler.load_compiled_function(file)
            self._program.touch()  # its last use
            return found
        except FileNotFoundError:
            return None
        except Exception as error:  # truncated, or of another torch: it is compiled again
            log.debug("a compiled program could not be loaded: %s", error)
            return None

    def _save(self, program: Any) -> None:
        try:
            if self._folder.is_private():
                program.save_compiled_function(str(self._program))
                self._folder.remove_unused()
        except Exception as error:  # the file saves time and is no part of any result
            log.debug("a compiled program was not saved: %s", error)


def _digest(graph: GraphModule, example: Sequence[Tensor]) -> str:
    import torch._functorch.config as functorch
    import torch._inductor.config as inductor

    here = Path(__file__).parent
    depends_on = [
        *(torch.__version__, platform.python_version(), NUMERICS),
        *((here / name).read_bytes() for name in ("random.py", "threefry_inductor.py")),
        torch.backends.cpu.get_cpu_capability(),
        torch.get_num_threads(),  # their number is part of the kernels
        torch.get_float32_matmul_precision(),
        torch.is_grad_enabled(),  # with a backward pass or without
        # Portable: without folders that torch derives from the working directory, which differs between Ray's jobs.
        *(sorted(config.save_config_portable().items()) for config in (inductor, functorch)),
        *sorted({torch.cuda.get_device_name(t.device) for t in example if t.is_cuda}),
        graph.code,
        *((t.shape, t.stride(), t.dtype, t.device, t.requires_grad) for t in example),
    ]
    return hashlib.sha256(repr(depends_on).encode()).hexdigest()[:32]
