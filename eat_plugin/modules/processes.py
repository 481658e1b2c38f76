"""Sums and rows over all processes of a run; without several processes, those of this one."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def sum_over_processes(values: Tensor) -> Tensor:
    """Add up a tensor over all ranks, in place; return it."""
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(values)
    return values


def add_processes(values: Tensor) -> Tensor:
    """Add up a tensor over all ranks; gradients flow to the values of every process.

    They add up: each process has a loss of its own, and the sum of all is what is trained.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return values
    added: Tensor = _Sum.apply(values)
    return added


def gather_rows(rows: Tensor) -> tuple[Tensor, int]:
    """Join the rows of all processes, whose numbers may differ, in the order of ranks.

    Gradients flow to the rows of every process, and add up. The numbers of rows are exchanged: with
    several processes a GPU waits for the host once.

    Args:
        rows: [n, ...], the same shape but for n in all processes.

    Returns:
        [N, ...], and the index of this process's first row there.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return rows, 0
    count = torch.tensor([rows.size(0)], device=rows.device)
    counts = [torch.empty_like(count) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, count)
    sizes = torch.cat(counts).tolist()
    return _Gather.apply(rows, sizes), sum(sizes[: dist.get_rank()])


class _Sum(torch.autograd.Function):
    """Sum over all processes, of values and of gradients."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return sum_over_processes(values.clone())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return sum_over_processes(gradient.clone(memory_format=torch.contiguous_format))


class _Gather(torch.autograd.Function):
    """Rows of all processes; backward sums the gradients of all processes."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, sizes: list[int]) -> Tensor:
        first = sum(sizes[: dist.get_rank()])
        ctx.own = slice(first, first + rows.size(0))
        padded = rows.new_zeros(max(sizes), *rows.shape[1:])  # collectives take equal shapes
        padded[: rows.size(0)] = rows
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        return sum_over_processes(gradient)[ctx.own], None
