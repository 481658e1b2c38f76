"""Patches of a spectrogram or an image: embedding, positions, values, padding.

A patch has p frames and q mel bins. Token ``t * (F / q) + f`` is the patch at time step t and mel
band f. A batch is padded to its longest clip: ``padding`` is bool [B, L], True = padding, or None
if all clips have the same length.
"""

from __future__ import annotations

from typing import Any, Union

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..options import patch_sides
from .linear import is_half_on_cpu

MEL_BINS = 128  # of a spectrogram
PUBLISHED = "published"
ORDERS = ("grid", PUBLISHED)  # of a table of positions
Sides = Union[int, tuple[int, int]]  # of a patch: (frames, mel bins), one number for a square


def image_size_of(cfg: Any) -> tuple[int, int] | None:
    """Return height and width of a model's images; None for spectrograms.

    Args:
        cfg: the options of ``models.config.ImageConfig``.
    """
    if cfg.image_size is not None:
        height, width = cfg.image_size
        return height, width
    return None if cfg.in_chans == 1 else (cfg.input_size, cfg.input_size)


class PatchEmbedding(nn.Module):
    """Linear embedding of patches by a strided convolution."""

    def __init__(self, in_channels: int, patch_size: Sides, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, dim, kernel_size=patch_size, stride=patch_size)
        nn.init.xavier_uniform_(self.proj.weight.view(dim, -1))

    def forward(self, source: Tensor) -> Tensor:
        """Embed [B, channels, T, F] as tokens [B, L, D]."""
        if not is_half_on_cpu(source):
            return self.proj(source).flatten(2).transpose(1, 2)
        # PyTorch's backward of this convolution takes 5 times as long there as in float32.
        rows, columns = self.proj.kernel_size
        patches = source.unfold(2, rows, rows).unfold(3, columns, columns)  # [B, C, T', F', p, q]
        patches = patches.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
        return F.linear(patches, self.proj.weight.flatten(1), self.proj.bias)


class FixedPositions(nn.Module):
    """Fixed table of positions, see ``make_positions``.

    It is a parameter without gradient, because published checkpoints have it as one.
    """

    def __init__(self, num_rows: int, num_columns: int, dim: int, order: str) -> None:
        super().__init__()
        self.grid, self.order = (num_rows, num_columns), order
        table = torch.empty(1, num_rows * num_columns, dim)
        self.positions = nn.Parameter(table, requires_grad=False)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Compute the table."""
        self.positions.copy_(make_positions(*self.grid, self.positions.size(2), self.order))

    def forward(self, num_tokens: int) -> Tensor:
        """Return the first ``num_tokens`` rows, [1, L, D].

        Raises:
            ValueError: if the table is too short.
        """
        longest = self.positions.size(1)
        if num_tokens > longest:
            raise ValueError(
                f"the input has {num_tokens} patches, the table of positions has {longest}; "
                "raise model.modalities.image.max_length or lower task.target_length"
            )
        return self.positions[:, :num_tokens]


def make_positions(num_rows: int, num_columns: int, dim: int, order: str) -> Tensor:
    """Make a sine-cosine table in one of ``ORDERS``, [num_rows * num_columns, D].

    ``grid``: row i belongs to token i. ``published``: the transposed table of BAT's published code,
    over columns and rows, is laid over the same tokens, so that neighbours in time are far apart.
    """
    if order == PUBLISHED:
        num_rows, num_columns = num_columns, num_rows
    return sincos_positions(num_rows, num_columns, dim)


def sincos_positions(num_rows: int, num_columns: int, dim: int) -> Tensor:
    """Make a two-dimensional sine-cosine table (Vaswani et al. 2017).

    The first half of the width encodes the column (mel band), the second the row (time step). Each
    half has sines, then cosines, with frequencies 10000^(-i / (D/4)). D is divisible by 4.

    Returns:
        float32 [num_rows * num_columns, D], row-major.
    """
    # NumPy and float32 throughout, as in published code.
    rates = 1 / 10000 ** (np.arange(dim // 4, dtype=np.float32) / np.float32(dim / 4))
    rows = np.repeat(np.arange(num_rows, dtype=np.float32), num_columns)
    columns = np.tile(np.arange(num_columns, dtype=np.float32), num_rows)
    angles = [np.outer(axis, rates) for axis in (columns, rows)]
    table = np.concatenate([f(angle) for angle in angles for f in (np.sin, np.cos)], axis=1)
    return torch.from_numpy(table)


def patchify(source: Tensor, patch_size: Sides) -> Tensor:
    """Cut [B, C, T, F] into patch values [B, L, p*q*C], in the order (row, column, channel)."""
    batch, channels, height, width = source.shape
    p, q = patch_sides(patch_size)
    patches = source.reshape(batch, channels, height // p, p, width // q, q)
    return patches.permute(0, 2, 4, 3, 5, 1).reshape(batch, -1, p * q * channels)


def unpatchify(patches: Tensor, grid: tuple[int, int], patch_size: Sides) -> Tensor:
    """Join patch values [B, L, p*q*C] of a (time, mel) grid to [B, C, T, F]: undo ``patchify``."""
    values = patches.unflatten(2, (*patch_sides(patch_size), -1)).unflatten(1, grid)
    return values.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)


def blank_padding(source: Tensor, padding: Tensor, patch_size: Sides) -> Tensor:
    """Return [B, C, T, F] with 0 at padding, whatever is there (NaN included)."""
    p, q = patch_sides(patch_size)
    grid = padding.view(-1, 1, source.size(2) // p, source.size(3) // q)
    pixels = grid.repeat_interleave(p, 2).repeat_interleave(q, 3)
    return source.masked_fill(pixels, 0)


def mean_patches(tokens: Tensor, padding: Tensor | None) -> Tensor:
    """Average the patches [B, L, D] of each clip, without padding: [B, D]."""
    if padding is None:
        return tokens.mean(dim=1)
    own = ~padding.unsqueeze(-1)
    return tokens.masked_fill(~own, 0).sum(dim=1) / own.sum(dim=1)


def own_columns(padding: Tensor, num_bands: int) -> Tensor:
    """Count the time steps of each clip, in patches of F / q bands: int64 [B]."""
    return torch.logical_not(padding).sum(dim=1) // num_bands


def column_padding(columns: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return the padding, bool [B, L], of clips with so many time steps, int64 [B] (in patches)."""
    steps = torch.arange(grid[0], device=columns.device)
    return (steps >= columns.unsqueeze(1)).repeat_interleave(grid[1], dim=1)
