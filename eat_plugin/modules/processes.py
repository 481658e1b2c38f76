"""Sums over all processes of a run; without several processes, those of this one."""

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


class _Sum(torch.autograd.Function):
    """Sum over all processes, of values and of gradients."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return sum_over_processes(values.clone())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return sum_over_processes(gradient.clone(memory_format=torch.contiguous_format))
