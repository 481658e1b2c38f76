"""Precision of many tensors at once, in one operation for all of them.

In this file:
    HALF          the half precisions
    in_float32    half precision tensors as float32
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

HALF = frozenset({torch.float16, torch.bfloat16})
# Elements. Kernels over many tensors are fast where each starts at a multiple of 16 bytes.
ALIGNMENT = 4


def in_float32(tensors: Sequence[Tensor], like: Sequence[Tensor] | None = None) -> list[Tensor]:
    """Copy those in half precision to float32; the others are returned themselves.

    The copies share one new buffer, and one operation fills them all.

    Args:
        tensors: the tensors, of one device.
        like: tensors of the same shapes, with no gaps in memory. Each copy takes the memory layout
            of the one in its place: fused kernels go through several tensors in order of memory.
            None: the tensors themselves.

    Returns:
        As many tensors.
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
