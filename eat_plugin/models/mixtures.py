"""Mixtures of the clips of a batch: which time steps are mixed, and how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..modules.patches import own_columns

if TYPE_CHECKING:
    from ..modules.decoders import Seeds

# Latest starts of the two unmixed regions, as shares of a clip. Published: frames 500 and 782 of
# 1024 at most, so that the last time step is always mixed.
LATEST_STARTS = (500 / 1024, 782 / 1024)
POSITIONS, NOISE = 1, 2  # streams of random numbers other than that of a batch's seed


@dataclass(frozen=True)
class Mixing:
    """Where each clip is mixed with the one before it in the batch.

    Attributes:
        columns: bool, True = mixed: [1, T/p], for all clips, or [B, T/p] if they differ in length.
        kept: int64 [M], indices of the mixed patches of every clip; None if clips differ in length.
    """

    columns: Tensor
    kept: Tensor | None


def draw_mixing(
    grid: tuple[int, int], clips: int, padding: Tensor | None, share: float, noise_seed: Seeds,
    device: torch.device,
) -> Mixing:  # fmt: skip
    """Draw the mixed time steps of a batch: all but two regions, the same in every clip.

    Of clips of different length the regions are the same shares. A clip is mixed where the one
    before it has sound, too. A single clip is not mixed. A GPU does not wait for the host.

    Args:
        grid: (time, mel) size of the patch grid.
        clips: number of clips, B.
        padding: bool [B, L], True = padding, or None.
        share: of a clip's time steps that are mixed.
        noise_seed: of the batch, see ``modules.decoders.draw_noise``.
        device: of the result.
    """
    draws = _draw(noise_seed)
    if padding is None or clips < 2:
        share = share if clips > 1 else 0.0
        columns = place_mixed(torch.tensor([grid[0]]), grid[0], share, draws)  # on the host
        kept = columns[0].repeat_interleave(grid[1]).nonzero().squeeze(1)
        return Mixing(*(part.to(device, non_blocking=True) for part in (columns, kept)))
    columns = place_mixed(own_columns(padding, grid[1]), grid[0], share, draws)
    return Mixing(columns & ~padding[:, :: grid[1]].roll(1, dims=0), None)


def place_mixed(
    lengths: Tensor, num_columns: int, share: float, draws: tuple[float, float]
) -> Tensor:
    """Place the two unmixed regions of clips, and return the rest.

    Args:
        lengths: int64 [B], time steps of each clip, in patches.
        num_columns: T/p, time steps of the result.
        share: of a clip's time steps that are mixed.
        draws: two numbers from 0 to 1 that decide where the regions start.

    Returns:
        Bool [B, T/p], True = mixed.
    """
    number = lengths.double().unsqueeze(1)  # float32 would round the draws to 1
    unmixed = number - (number * share).round()
    widths = ((unmixed / 2).floor(), (unmixed / 2).ceil())
    latest = [(number * part).floor() for part in LATEST_STARTS]
    latest[1] = torch.minimum(latest[1], number - widths[1])
    latest[0] = torch.minimum(latest[0], latest[1] - widths[0])
    steps = torch.arange(num_columns, device=lengths.device)
    is_mixed, earliest = steps < number, torch.zeros_like(number)
    for width, last, draw in zip(widths, latest, draws):
        start = earliest + (draw * (last - earliest + 1)).floor()
        earliest = start + width
        is_mixed = is_mixed & ((steps < start) | (steps >= earliest))
    return is_mixed


def mix(source: Tensor, columns: Tensor) -> Tensor:
    """Take the larger of each value of a clip and of the clip before it, at some time steps.

    Args:
        source: [B, C, T, F], normalised log-mel (or images).
        columns: bool [1 or B, T/p], True = mixed.

    Returns:
        [B, C, T, F], as the source where it is not mixed.
    """
    frames = columns.repeat_interleave(source.size(2) // columns.size(1), dim=1)
    larger = torch.maximum(source, source.roll(1, dims=0))
    return torch.where(frames[:, None, :, None], larger, source)


def seeds_of_mixtures(noise_seed: Seeds) -> Seeds:
    """Return seeds for clips and their mixtures, of the same form as those of the clips."""
    if noise_seed is None or isinstance(noise_seed, int):
        return noise_seed
    return [*noise_seed, *(seed ^ NOISE for seed in noise_seed)]


def _draw(noise_seed: Seeds) -> tuple[float, float]:
    seed = noise_seed if noise_seed is None or isinstance(noise_seed, int) else noise_seed[0]
    generator = None if seed is None else torch.Generator().manual_seed(seed ^ POSITIONS)
    first, second = torch.rand(2, dtype=torch.float64, generator=generator).tolist()
    return first, second
