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
        Scalar; near 0 where all items are alike, which tells of a collapse.
    """
    values = values.float()
    if not (dist.is_available() and dist.is_initialized()):
        return (values.var(dim=0) + 1e-6).sqrt().mean()
    count = values.new_tensor([float(values.size(0))])
    sums = sum_over_processes(torch.cat([values.sum(0), values.square().sum(0), count]))
    total, squares = sums[:-1].chunk(2)
    n = sums[-1]
    variance = (squares - total.square() / n).clamp_min(0) / (n - 1)
    return (variance + 1e-6).sqrt().mean()


def sum_over_processes(values: Tensor) -> Tensor:
    """Add up a tensor of all processes, in place; return it."""
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(values)
    return values
