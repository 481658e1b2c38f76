"""Less memory: results that backward computes again instead of keeping them."""

from __future__ import annotations

from typing import Any, Callable

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

# Values of model.recompute, from most to least memory. gelu: GELU, the product with the gate, and
# LayerNorm in the decoder of convolutions (no matrix product). blocks: all but the input of each
# block and decoder layer.
BLOCKS = "blocks"
CHOICES = ("none", "gelu", BLOCKS)


def recomputes(module: nn.Module) -> bool:
    """Whether a backward will follow."""
    return module.training and torch.is_grad_enabled()


def recompute(function: Callable[..., Any], *args: Any, is_random: bool) -> Any:
    """Call a function whose inner results backward computes again.

    Args:
        function: deterministic but for random numbers.
        *args: its arguments, which are kept.
        is_random: it draws random numbers; backward draws the same.
    """
    return checkpoint(function, *args, use_reentrant=False, preserve_rng_state=is_random)
