"""Precision of many tensors at once, in one operation."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

HALF = frozenset({torch.float16, torch.bfloat16})
ALIGNMENT = 4  # elements; kernels over many tensors are fast if each starts at 16 bytes


def in_float32(tensors: Sequence[Tensor], like: Sequence[Tensor] | None = None) -> list[Tensor]:
    """Copy half-precision tensors to float32, in one new buffer; return the others unchanged.

    Args:
        tensors: on one device.
        like: tensors of the same shapes, dense in memory, whose memory layouts the copies take
            (fused kernels need equal layouts). None: the tensors themselves.
    """
    layouts = tensors if like is None else like
    half = [(t, layout) for t, layout in zip(tensors, layouts) if t.dtype in HALF]
    if not half:
        return list(tensors)
    ends = list(accumulate(-(-t.numel() // ALIGNMENT) * ALIGNMENT for t, _ in half))
    buffer = torch.empty(ends[-1], dtype=torch.float32, device=half[0][0].device)
    copies = [
        buffer.as_strided(layout.shape, layout.stride(), start)
        for (_, layout), start in zip(half, [0, *ends])
    ]
    torch._foreach_copy_(copies, [t for t, _ in half])
    given = iter(copies)
    return [next(given) if t.dtype in HALF else t for t in tensors]
