"""Compiled programs on disk: a process that needs one that another has compiled loads it, and traces nothing again.

The files lie in the folder of torch's own cache of kernels. Like those they are code: a folder that others may write to is
neither read nor written. What nobody has used for KEPT_DAYS is removed.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor
from torch.fx import GraphModule

from sweeps.settings import NUMERICS

log = logging.getLogger(__name__)

KEPT_DAYS = 60.0


class ProgramFile:
    """Where a recorded graph's compiled form lies, by all that it depends on."""

    def __init__(self, graph: GraphModule, example: Sequence[Tensor]) -> None:
        from torch._inductor.runtime.cache_dir_utils import cache_dir

        self._folder = Path(cache_dir()) / "sweeps-programs"
        self._folder.mkdir(0o700, parents=True, exist_ok=True)
        name = _name_of(graph, example)
        self._program, self._traced, self._lock = (
            self._folder / f"{name}.{suffix}" for suffix in ("program", "traced", "lock")
        )

    def load_or(self, compile_it: Callable[[], Any]) -> Any:
        """A function compiled ahead of time, from its file or by `compile_it`, which then leaves one.

        Two processes that need one cold program: the second waits, then loads what the first compiled.
        """
        found = self._load()
        if found is not None:
            return found
        with FileLock(self._lock):
            found = self._load()
            if found is None:
                found = compile_it()
                self._keep(found)
        return found

    @contextmanager
    def one_tracer_at_a_time(self) -> Iterator[None]:
        """For what is compiled when it is first called, and then comes from torch's cache of kernels.

        Who finds it there already waits for nobody: to trace it takes seconds too, and a node has many workers.
        """
        with nullcontext() if self._traced.exists() else FileLock(self._lock):
            yield
        with suppress(OSError):  # as where a disk is full: it was compiled all the same
            self._traced.touch()

    def _load(self) -> Any:
        try:
            if not self._is_ours():
                return None
            with self._program.open("rb") as file:
                found = torch.compiler.load_compiled_function(file)
            self._program.touch()  # it is in use
            return found
        except FileNotFoundError:
            return None
        except Exception as error:  # cut off, or of another torch: it is made anew
            log.debug("a compiled program could not be loaded: %s", error)
            return None

    def _keep(self, program: Any) -> None:
        try:
            if self._is_ours():
                program.save_compiled_function(str(self._program))
                self._remove_unused()
        except Exception as error:  # the file saves time and is no part of any result
            log.debug("a compiled program was not kept: %s", error)

    def _is_ours(self) -> bool:
        """Nobody else may put code here."""
        found = self._folder.stat()
        return found.st_uid == os.getuid() and not found.st_mode & 0o022

    def _remove_unused(self) -> None:
        oldest = time.time() - KEPT_DAYS * 24 * 3600
        for path in self._folder.iterdir():
            with suppress(FileNotFoundError):  # another process is as tidy
                if path.stat().st_mtime < oldest:
                    path.unlink()


def _name_of(graph: GraphModule, example: Sequence[Tensor]) -> str:
    import torch._functorch.config as functorch
    import torch._inductor.config as inductor

    here = Path(__file__).parent
    made_of = [
        *(torch.__version__, platform.python_version(), NUMERICS),
        *((here / name).read_bytes() for name in ("threefry.py", "threefry_kernel.py")),
        torch.backends.cpu.get_cpu_capability(),
        torch.get_num_threads(),  # their number stands in the kernels
        torch.get_float32_matmul_precision(),
        # Portable: without folders that torch finds from the working directory, which is another for every job of Ray's.
        *(sorted(config.save_config_portable().items()) for config in (inductor, functorch)),
        *sorted({torch.cuda.get_device_name(t.device) for t in example if t.is_cuda}),
        graph.code,
        *((t.shape, t.stride(), t.dtype, t.device, t.requires_grad) for t in example),
    ]
    return hashlib.sha256(repr(made_of).encode()).hexdigest()[:32]
