"""What every test needs: one thread for torch, as a worker has, and the fast tests first."""

from __future__ import annotations

import os

# Before torch is imported. Two cores are shared, and a worker trains on one thread.
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One session, so one closing line; a mistake that a fast test finds is seen within seconds."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)
