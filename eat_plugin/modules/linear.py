"""Linear layers, computed by the faster of PyTorch's CPU libraries."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..processor import prefers_onednn
from .compiled import is_traced

MIN_PRODUCTS = 1 << 23  # multiply-adds; below, oneDNN's overhead costs more than it gains


class Linear(nn.Linear):
    """``nn.Linear`` with the same parameters and, up to rounding, the same results.

    In float32 on a CPU, PyTorch multiplies matrices by MKL, which uses AVX-512 on Intel CPUs only.
    On AMD's, oneDNN, which PyTorch uses for convolutions, takes up to half the time: the layer is a
    1 x 1 convolution there.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., in_features] to [..., out_features]."""
        return self.compute(x, 0, self.out_features)

    def compute(self, x: Tensor, first: int, last: int) -> Tensor:
        """Map [..., in_features] to the outputs from ``first`` up to ``last``, without it."""
        weight: Tensor = self.weight
        bias: Tensor | None = self.bias
        if last - first < self.out_features:
            weight, bias = weight[first:last], bias if bias is None else bias[first:last]
        if not _uses_onednn(x, weight):
            return F.linear(x, weight, bias)
        # Channels last: memory holds [rows, features] before and after.
        grid = x.reshape(1, -1, 1, self.in_features).permute(0, 3, 1, 2)
        y = F.conv2d(grid, weight[:, :, None, None], bias)
        return y.permute(0, 2, 3, 1).reshape(*x.shape[:-1], last - first)


def _uses_onednn(x: Tensor, weight: Tensor) -> bool:
    return (
        not is_traced()
        and x.is_cpu
        and x.dtype == weight.dtype == torch.float32
        and x.numel() * len(weight) >= MIN_PRODUCTS
        and prefers_onednn()
    )


def is_half_on_cpu(x: Tensor) -> bool:
    """Whether PyTorch computes with x on a CPU in half precision, where some backwards are slow."""
    return x.is_cpu and x.dtype in (torch.bfloat16, torch.float16)
