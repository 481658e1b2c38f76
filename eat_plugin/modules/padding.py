"""Clips of different length in one batch: nothing depends on what their padding holds.

A batch is padded to its longest clip. ``padding`` says what was added: bool [B, L], True for each
patch of which a clip has nothing. None stands for clips of the same length.

In this file:
    blank_padding    a source of which the padding is 0
    mean_patches     the mean of each clip's own patches
    own_columns      how many time steps a clip has itself
    column_padding   the padding, given these numbers
"""

from __future__ import annotations

import torch
from torch import Tensor


def blank_padding(source: Tensor, padding: Tensor, patch_size: int) -> Tensor:
    """Fill the padding of a source with 0, whatever it holds, NaN included.

    Args:
        source: [B, C, T, F].
        padding: bool [B, L], in the order of tokens.
        patch_size: side p of a patch.

    Returns:
        The same shape. The argument keeps its values.
    """
    grid = padding.view(-1, 1, source.size(2) // patch_size, source.size(3) // patch_size)
    pixels = grid.repeat_interleave(patch_size, 2).repeat_interleave(patch_size, 3)
    return source.masked_fill(pixels, 0)


def mean_patches(tokens: Tensor, padding: Tensor | None) -> Tensor:
    """Average the patches [B, L, D] of each clip, without padding: [B, D]."""
    if padding is None:
        return tokens.mean(dim=1)
    own = ~padding.unsqueeze(-1)
    return tokens.masked_fill(~own, 0).sum(dim=1) / own.sum(dim=1)


def own_columns(padding: Tensor, num_bands: int) -> Tensor:
    """Count the time steps of each clip, in patches.

    Args:
        padding: bool [B, L], whole time steps at the end.
        num_bands: patches of a time step, F / p.

    Returns:
        int64 [B].
    """
    return torch.logical_not(padding).sum(dim=1) // num_bands


def column_padding(columns: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return the padding of clips that have so many time steps.

    Args:
        columns: int64 [B], in patches.
        grid: size of the patch grid, (time, mel).

    Returns:
        bool [B, L].
    """
    steps = torch.arange(grid[0], device=columns.device)
    return (steps >= columns.unsqueeze(1)).repeat_interleave(grid[1], dim=1)
