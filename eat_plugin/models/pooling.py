"""From the tokens of a clip to one vector, for the classifier."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

import torch
import torch.nn.functional as F
from torch import Tensor

from ..modules.patches import mean_patches, own_columns


class PredictionMode(Enum):
    """How tokens are pooled, by published names."""

    MEAN_POOLING = 1
    CLS_TOKEN = 2
    LIN_SOFTMAX = 3
    SEGMENT_POOLING = 4  # this one and the next ones are ours
    MEAN_MAX_POOLING = 5
    FRAMES = 6


def pool(
    x: Tensor,
    mode: PredictionMode,
    num_extra_tokens: int,
    grid: tuple[int, int],
    padding: Tensor | None = None,
    segments: int = 1,
) -> Tensor:
    """Pool tokens [B, E + L, D] without padding, bool [B, L], to ``pooled_width`` numbers a clip.

    ``LIN_SOFTMAX`` is the log-odds of sum(p^2) / sum(p) over patches, with p = sigmoid(x).

    Args:
        x: output of the encoder.
        mode: how patches are pooled.
        num_extra_tokens: E.
        grid: (time, mel) size of the patch grid.
        padding: of clips of different length.
        segments: with ``SEGMENT_POOLING``, see ``mean_segments``.

    Returns:
        [B, D]; [B, 2 D] with ``MEAN_MAX_POOLING``, [B, segments * D] with ``SEGMENT_POOLING``;
        [B, steps, D] with ``FRAMES``, the mean over mel.
    """
    if mode == PredictionMode.CLS_TOKEN:
        return x[:, num_extra_tokens - 1]  # the one that pre-training trains
    patches = x[:, num_extra_tokens:]
    if mode == PredictionMode.FRAMES:
        return patches.unflatten(1, grid).mean(dim=2)
    if mode == PredictionMode.MEAN_POOLING:
        return mean_patches(patches, padding)
    if mode == PredictionMode.MEAN_MAX_POOLING:
        own = patches if padding is None else patches.masked_fill(padding.unsqueeze(-1), -torch.inf)
        return torch.cat([mean_patches(patches, padding), own.amax(dim=1)], dim=1)
    if mode == PredictionMode.SEGMENT_POOLING:
        return mean_segments(patches, grid, segments, padding).flatten(1)
    log_p = F.logsigmoid(patches if patches.dtype == torch.float64 else patches.float())
    if padding is not None:
        log_p = log_p.masked_fill(padding.unsqueeze(-1), -torch.inf)
    pooled = torch.logsumexp(2 * log_p, dim=1) - torch.logsumexp(log_p + 1e-6, dim=1)
    pooled = pooled.clamp(max=0)
    odds = pooled - torch.log(-torch.expm1(pooled))
    return torch.nan_to_num(odds, nan=0, posinf=0, neginf=0).to(x.dtype)


def pooled_width(width: int, mode: PredictionMode | None, segments: int) -> int:
    """Return the numbers per clip after pooling tokens of a width."""
    parts = {PredictionMode.MEAN_MAX_POOLING: 2, PredictionMode.SEGMENT_POOLING: segments}
    return width * (1 if mode is None else parts.get(mode, 1))


def mean_segments(
    patches: Tensor, grid: tuple[int, int], segments: int, padding: Tensor | None = None
) -> Tensor:
    """Average patches [B, L, D] over mel and over segments of time, see ``segment_steps``.

    Returns:
        [B, segments, D].
    """
    frames = patches.unflatten(1, grid).mean(dim=2)  # [B, steps, D]
    columns = patches.new_full((1,), grid[0], dtype=torch.long)
    if padding is not None:
        columns = own_columns(padding, grid[1])
    inside = segment_steps(columns, segments, grid[0]).to(frames.dtype)  # [B, S, steps]
    return (inside @ frames) / inside.sum(dim=2, keepdim=True)


def segment_steps(columns: Tensor, segments: int, steps: int) -> Tensor:
    """Say which time steps of each clip belong to each of S equal segments of its own time.

    Segment k has the steps from floor(k n / S) to ceil((k + 1) n / S) of a clip with n: neighbours
    share a step where n is not divisible by S, and none is empty where n is less.

    Args:
        columns: n of each clip, int64 [B].
        segments: S.
        steps: the largest n.

    Returns:
        bool [B, S, steps].
    """
    first = torch.arange(segments, device=columns.device).view(1, -1, 1)
    step = torch.arange(steps, device=columns.device)
    starts = first * columns.view(-1, 1, 1) // segments
    ends = ((first + 1) * columns.view(-1, 1, 1) + segments - 1) // segments
    return (step >= starts) & (step < ends)


def mean_windows(values: Tensor, num_windows: Sequence[int] | None) -> Tensor:
    """Average rows [rows, ...] to [clips, ...]; ``num_windows`` is the number of rows per clip."""
    if num_windows is None:
        return values
    return torch.stack([part.mean(dim=0) for part in values.split(list(num_windows))])
