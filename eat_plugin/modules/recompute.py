"""Memory for time: inner results that are computed again in backward rather than kept.

In this file:
    CHOICES       what may be computed again: values of the option ``model.recompute``
    recomputes    whether a module is to do so now
    recompute     call a function so
"""

from __future__ import annotations

from typing import Any, Callable

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

# none: keep all. gelu: compute GELU again, and the LayerNorm right before it in the decoder; that
# takes no matrix product. blocks: keep the input of each block and decoder layer alone.
CHOICES = ("none", "gelu", "blocks")


def recomputes(module: nn.Module) -> bool:
    """Whether a module is to compute again: in training, where there is a backward to come."""
    return module.training and torch.is_grad_enabled()


def recompute(function: Callable[..., Any], *args: Any, is_random: bool) -> Any:
    """Call a function; its inner results are not kept for backward but computed again.

    Only as far as backward needs them: what comes last is not.

    Args:
        function: gives the same for the same arguments.
        *args: its arguments, which are kept.
        is_random: it draws random numbers, the same again in backward.

    Returns:
        What the function returns.
    """
    return checkpoint(function, *args, use_reentrant=False, preserve_rng_state=is_random)
