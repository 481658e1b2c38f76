"""Linear layers, by that library of PyTorch's which is the faster one on this processor.

In this file:
    Linear            a linear layer
    prefers_onednn    whether products of matrices take half the time in oneDNN here
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .compiled import is_traced

LEAST_PRODUCTS = 1 << 23  # multiply-adds, below which the way to oneDNN costs more than it gains


class Linear(nn.Linear):
    """A linear layer, with the parameters and (but for rounding) the results of PyTorch's.

    In float32 on a processor PyTorch multiplies matrices by MKL, which has its AVX-512 code for
    Intel's processors alone. On AMD's the same product takes oneDNN half the time, which PyTorch
    uses for convolutions: so the layer is a convolution of 1 x 1 there.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., in_features] to [..., out_features]."""
        if not self._is_for_onednn(x):
            return F.linear(x, self.weight, self.bias)
        # Channels last: what lies in memory is [rows, features] before and after.
        grid = x.reshape(1, -1, 1, self.in_features).permute(0, 3, 1, 2)
        y = F.conv2d(grid, self.weight[:, :, None, None], self.bias)
        return y.permute(0, 2, 3, 1).reshape(*x.shape[:-1], self.out_features)

    def _is_for_onednn(self, x: Tensor) -> bool:
        return (
            not is_traced()
            and x.is_cpu
            and x.dtype == self.weight.dtype == torch.float32
            and x.numel() * self.out_features >= LEAST_PRODUCTS
            and prefers_onednn()
        )


@lru_cache(maxsize=1)
def prefers_onednn() -> bool:
    """Whether products of matrices take half the time in oneDNN here: with AVX-512, by AMD."""
    backends = torch.backends
    if not (backends.mkldnn.is_available() and backends.mkl.is_available()):
        return False
    try:
        described = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # another system
        return False
    return "AuthenticAMD" in described and backends.cpu.get_cpu_capability().startswith("AVX512")
