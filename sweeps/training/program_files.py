"""Compiled programs on disk: a process that needs one that another has compiled loads it, and traces nothing again.

To load takes about a second less for every hundred operations than to find the same kernels through `torch.compile`.
The files lie in the folder of torch's own cache of kernels, whose owner alone writes there: like those they are code.
"""

from __future__ import annotations

import hashlib
import logging
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


class ProgramFile:
    """Where a recorded graph's compiled form lies, by all that it depends on."""

    def __init__(self, graph: GraphModule, example: Sequence[Tensor]) -> None:
        from torch._inductor.runtime.cache_dir_utils import cache_dir

        folder = Path(cache_dir()) / "sweeps-programs"
        folder.mkdir(0o700, parents=True, exist_ok=True)
        self._name = folder / _name_of(graph, example)
        self._compiled = self._name.with_suffix(".compiled")

    @contextmanager
    def one_compiler_at_a_time(self) -> Iterator[None]:
        """Two workers that meet one cold structure: the second waits, then loads what the first compiled.

        Who finds it compiled already waits for nobody: to load it takes time too, and a node has many workers.
        """
        with nullcontext() if self._compiled.exists() else FileLock(self._name):
            yield
        with suppress(OSError):  # as where a disk is full: it was compiled all the same
            self._compiled.touch()

    def load_or(self, compile_it: Callable[[], Any]) -> Any:
        """A function compiled ahead of time, from its file or by `compile_it`, which then leaves one."""
        with self.one_compiler_at_a_time():
            found = self._load()
            if found is None:
                found = compile_it()
                try:
                    self._save(found)
                except Exception as error:  # the file saves time and is no part of any result
                    log.debug("a compiled program was not kept: %s", error)
        return found

    def _save(self, program: Any) -> None:
        program.save_compiled_function(str(self._compiled))

    def _load(self) -> Any:
        try:
            with self._compiled.open("rb") as file:
                return torch.compiler.load_compiled_function(file)
        except FileNotFoundError:
            return None
        except Exception as error:  # cut off, or of another torch: it is made anew
            log.debug("a compiled program could not be loaded: %s", error)
            return None


def _name_of(graph: GraphModule, example: Sequence[Tensor]) -> str:
    import torch._inductor.config as inductor

    made_of = [
        torch.__version__,
        torch.backends.cpu.get_cpu_capability(),
        torch.get_num_threads(),  # their number stands in the kernels
        inductor.get_hash().hex(),
        NUMERICS,
        graph.code,
        *((t.shape, t.stride(), t.dtype, t.device, t.requires_grad) for t in example),
    ]
    return hashlib.sha256(repr(made_of).encode()).hexdigest()[:32]
