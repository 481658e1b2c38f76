"""Statistics over the items of all processes; small values of one of them tell of a collapse.

In this file:
    channel_deviation     how different items are
    sum_over_processes    a sum over all processes
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


@torch.no_grad()
def channel_deviation(values: Tensor) -> Tensor:
    """Mean over channels of the standard deviation over items, of all processes together.

    Args:
        values: [N, D].

    Returns:
        Scalar; near 0 where all items are alike, which tells of a collapse. In float32 it is off by
        about 1/3000 of a channel's mean at most.
    """
    dtype = torch.promote_types(values.dtype, torch.float32)
    # Read twice and never copied, not even to float32: this runs in every update.
    total = values.sum(dim=0, dtype=dtype)
    squares = torch.linalg.vector_norm(values, dim=0, dtype=dtype).square()
    count = total.new_full((1,), values.size(0))  # filled where it lies: nothing waits for it
    sums = sum_over_processes(torch.cat([total, squares, count]))
    total, squares = sums[:-1].chunk(2)
    n = sums[-1]
    variance = (squares - total.square() / n).clamp_min(0) / (n - 1)
    return (variance + 1e-6).sqrt().mean()


def sum_over_processes(values: Tensor) -> Tensor:
    """Add up a tensor of all processes, in place; return it."""
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(values)
    return values
