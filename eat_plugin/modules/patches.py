"""Patches of a spectrogram or an image: embedding, positions, pixel values, picking by index.

Tokens are in time-major order: token ``t * (F / p) + f`` is the patch at time step t, mel band f.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn


class PatchEmbedding(nn.Module):
    """Linear embedding of non-overlapping patches by a strided convolution.

    Args:
        in_channels: channels of the input (1 for a spectrogram).
        patch_size: side p of a patch, in pixels (frames and mel bins).
        dim: width D of a token.
    """

    def __init__(self, in_channels: int, patch_size: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, dim, kernel_size=patch_size, stride=patch_size)
        nn.init.xavier_uniform_(self.proj.weight.view(dim, -1))

    def forward(self, source: Tensor) -> Tensor:
        """Embed [B, channels, T, F] as tokens [B, L, D]."""
        return self.proj(source).flatten(2).transpose(1, 2)


class FixedPositions(nn.Module):
    """Fixed sine-cosine table of positions over a (time, mel) grid.

    The table is a parameter without gradient, since published checkpoints store it as one.

    Args:
        num_rows: largest number of time steps, in patches.
        num_columns: number of mel bands, in patches.
        dim: width D of a token, divisible by 4.
    """

    def __init__(self, num_rows: int, num_columns: int, dim: int) -> None:
        super().__init__()
        table = sincos_positions(num_rows, num_columns, dim)
        self.positions = nn.Parameter(table.unsqueeze(0), requires_grad=False)

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


def sincos_positions(num_rows: int, num_columns: int, dim: int) -> Tensor:
    """Two-dimensional sine-cosine table (Vaswani et al. 2017, one half of the width an axis).

    The first half of the width encodes the column (mel band), the second the row (time step);
    within a half, sines come first, then cosines, with frequencies 10000^(-i / (D/4)).

    Args:
        num_rows: time steps.
        num_columns: mel bands.
        dim: width D, divisible by 4.

    Returns:
        float32 table of shape [num_rows * num_columns, D], row-major.
    """
    # In float32 all along, and by NumPy: published checkpoints hold this table bit for bit.
    rates = 1 / 10000 ** (np.arange(dim // 4, dtype=np.float32) / np.float32(dim / 4))
    rows = np.repeat(np.arange(num_rows, dtype=np.float32), num_columns)
    columns = np.tile(np.arange(num_columns, dtype=np.float32), num_rows)
    angles = [np.outer(axis, rates) for axis in (columns, rows)]
    table = np.concatenate([f(angle) for angle in angles for f in (np.sin, np.cos)], axis=1)
    return torch.from_numpy(table)


def patchify(source: Tensor, patch_size: int) -> Tensor:
    """Cut [B, C, T, F] into the values of its patches.

    Returns:
        [B, L, p*p*C], the values of a patch in the order (row, column, channel).
    """
    batch, channels, height, width = source.shape
    p = patch_size
    patches = source.reshape(batch, channels, height // p, p, width // p, p)
    return patches.permute(0, 2, 4, 3, 5, 1).reshape(batch, -1, p * p * channels)


def split_mask(mask: Tensor, num_visible: int | None = None) -> tuple[Tensor, Tensor]:
    """Turn masks into indices of their visible and their hidden patches, both ascending.

    Args:
        mask: [N, L], 1 = hidden, the same number of ones in every row.
        num_visible: number of zeros of a row, V. Where it is None it is counted, which makes a GPU
            wait for the host.

    Returns:
        Two int64 tensors of shapes [N, V] and [N, L - V].

    Raises:
        ValueError: if the rows were counted and do not all hide the same number of patches.
    """
    if num_visible is None:
        counts = (mask == 0).sum(dim=1)
        num_visible = int(counts[0])
        if bool((counts != num_visible).any()):
            raise ValueError(
                f"masks keep between {int(counts.min())} and {int(counts.max())} patches; every "
                "mask of a batch must keep the same number"
            )
    order = mask.to(torch.uint8).argsort(dim=1, stable=True)
    return order[:, :num_visible], order[:, num_visible:]


def flat_indices(indices: Tensor, num_tokens: int, clones: int = 1) -> Tensor:
    """Turn token indices into rows of a flattened token tensor.

    Args:
        indices: [N, M] token indices, where row n belongs to sequence ``n // clones``.
        num_tokens: tokens of a sequence, L.
        clones: how many consecutive rows of ``indices`` share a sequence.

    Returns:
        [N * M] indices into a tensor of shape [N / clones * L, ...].
    """
    sequences = torch.arange(indices.size(0), device=indices.device)
    if clones > 1:
        sequences = sequences.div(clones, rounding_mode="floor")
    return (indices + (sequences * num_tokens).unsqueeze(1)).flatten()


def pick_tokens(tokens: Tensor, indices: Tensor, clones: int = 1) -> Tensor:
    """Gather tokens once by index, without repeating sequences that clones share.

    Args:
        tokens: [N / clones, L, D].
        indices: [N, M] token indices.
        clones: how many consecutive rows of ``indices`` share a sequence.

    Returns:
        [N, M, D].
    """
    rows = flat_indices(indices, tokens.size(1), clones)
    picked = tokens.reshape(-1, tokens.size(2)).index_select(0, rows)
    return picked.view(*indices.shape, -1)
