"""Cross-entropy, and shares of wrong symbols and of wrong sequences.

Legend of suffixes: B rows, n positions, S symbols. Targets are symbols, 0 is padding.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def cross_entropy(logits_BnS: Tensor, target_Bn: Tensor, padding: bool) -> Tensor:
    """The mean over positions: all of them, or those whose target is no padding."""
    each_BN = F.cross_entropy(logits_BnS.flatten(0, 1), target_Bn.flatten(), reduction="none")
    if padding:
        return each_BN.mean()
    counts = (target_Bn.flatten() > 0).to(each_BN.dtype)
    return (each_BN * counts).sum() / counts.sum().clamp(min=1.0)


def symbol_error(logits: Sequence[Tensor], targets: Sequence[Tensor], padding: bool) -> Tensor:
    """Wrong symbols / symbols, over all rows of all bins; padding counts or not."""
    wrong, counted = zip(*(_wrong(y, t, padding) for y, t in zip(logits, targets, strict=True)), strict=True)
    return _share(sum(w.sum() for w in wrong), sum(c.sum() for c in counted))


def sequence_error(logits: Sequence[Tensor], targets: Sequence[Tensor], padding: bool) -> Tensor:
    """Rows with a wrong symbol / rows; padding counts or not."""
    wrong = [_wrong(y, t, padding)[0].any(dim=1) for y, t in zip(logits, targets, strict=True)]
    return torch.cat(wrong).to(torch.float32).mean()


def _wrong(logits_BnS: Tensor, target_Bn: Tensor, padding: bool) -> tuple[Tensor, Tensor]:
    """Which positions are wrong, and which count, bool [B, n]."""
    counted_Bn = torch.ones_like(target_Bn, dtype=torch.bool) if padding else target_Bn > 0
    return (logits_BnS.argmax(dim=-1) != target_Bn) & counted_Bn, counted_Bn


def _share(part: Tensor | int, whole: Tensor | int) -> Tensor:
    return torch.as_tensor(part).to(torch.float32) / torch.as_tensor(whole).clamp(min=1).to(torch.float32)
