"""The numerics of a lane: what its bits depend on besides its settings, its seed and the versions of its definitions."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import sysconfig
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import torch

NUMERICS = 4
"""Version of the engine's arithmetic. A change that moves any lane's bits raises it."""
CPU_KINDS = {"AVX512": "cpu-x86-64-v4", "AVX2": "cpu-x86-64-v3", "DEFAULT": "cpu-x86-64"}
"""torch's name of an instruction set -> kind of device. Sums are split by the width of a vector, and so round differently."""
LANE_PROGRAMS = {"cpu-x86-64-v4": "cpu-x86-64-v3"}
"""Kinds of CPU whose lane programs have the bits of another kind: their sums do not follow the width of its vectors."""
DEVICE_KINDS = (*CPU_KINDS.values(), "cpu-arm64", "cuda")
MODES = ("compiled", "plain")


@dataclass(frozen=True)
class Numerics:
    """Engine version, kind of device, and whether the step is compiled: part of every lane's key.

    A compiled function rounds otherwise than the same operations one by one.
    """

    device: str
    """One of `DEVICE_KINDS`, or another name that `device_kind` returns."""
    compiled: bool
    version: int = NUMERICS

    @classmethod
    def here(cls, device: str) -> Self:
        """Return the numerics of new lanes on this machine; `device` is torch's: cpu or cuda.

        They are compiled, unless SWEEPS_COMPILE is 0 or there is no compiler.
        """
        return cls(device_kind(device), os.environ.get("SWEEPS_COMPILE", "1") != "0" and why_no_compiler() is None)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the numerics of a text that `str` made. Raises ValueError."""
        version, device, mode = text.split()
        if mode not in MODES:
            raise ValueError(f"numerics end in {' or '.join(MODES)}, not {mode!r}")
        return cls(device, mode == "compiled", int(version))

    def of_lane_programs(self) -> Self:
        """Return what the bits of a lane depend on that is trained by a lane program, and not by torch's compiler."""
        return replace(self, device=LANE_PROGRAMS.get(self.device, self.device)) if self.compiled else self

    def __str__(self) -> str:
        return f"{self.version} {self.device} {self.mode}"

    @property
    def mode(self) -> str:
        """compiled or plain."""
        return "compiled" if self.compiled else "plain"


def is_device_kind(word: str) -> bool:
    """Whether a word may be a kind of device, of this machine or of another."""
    return word == "cuda" or re.fullmatch(r"cpu-[a-z0-9_-]+", word) is not None


def device_kind(device: str) -> str:
    """Return the kind of this machine's cpu or cuda.

    CPUs of one kind give a lane the same bits. Of GPUs that was seen on one model only.
    """
    if torch.device(device).type != "cpu":
        return torch.device(device).type
    capability, machine = torch.backends.cpu.get_cpu_capability(), platform.machine().lower()
    if machine in ("arm64", "aarch64"):
        return "cpu-arm64" if capability == "DEFAULT" else f"cpu-arm64-{capability.lower()}"
    return CPU_KINDS.get(capability, f"cpu-{machine}-{capability.lower()}")


def why_no_compiler() -> str | None:
    """Return why torch.compile cannot work on this machine, or None. It is looked for, not tried."""
    words = os.environ.get("CXX", "").split() or ["clang++" if sys.platform == "darwin" else "g++"]
    if shutil.which(words[0]) is None:
        return f"there is no C++ compiler ({words[0]})"
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        return "there is no Python.h (Debian, Ubuntu: apt-get install python3-dev)"
    return None
