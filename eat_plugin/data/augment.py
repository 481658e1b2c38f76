"""Augmentations of one clip, in the data workers.

All randomness comes from a given generator, so it depends on (seed, epoch, clip) alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

GAIN_SHAPE = 10  # a and b of the gain's Beta distribution
LEAST_GAIN = 0.5
LARGEST_NOISE = 0.1  # in units of the normalised spectrogram
LARGEST_SHIFT = 10  # frames


def roll(values: Tensor, generator: torch.Generator) -> Tensor:
    """Rotate a waveform [n], or frames [n, F], along time by any number of places."""
    return values.roll(draw_shift(len(values), generator), dims=0)


def draw_shift(places: int, generator: torch.Generator) -> int:
    """Draw the shift of a rotation."""
    return int(torch.randint(max(places, 1), (), generator=generator))


def roll_and_gain(waveform: Tensor, generator: torch.Generator) -> Tensor:
    """Rotate a waveform [n] by any number of samples, and scale it by 0.5 + Beta(10, 10).

    The gain has mean 1 and standard deviation 0.109.
    """
    shift, gain = draw_roll_and_gain(len(waveform), generator)
    return waveform.roll(shift) * gain


def draw_roll_and_gain(samples: int, generator: torch.Generator) -> tuple[int, float]:
    """Draw the shift and the gain of ``roll_and_gain``."""
    return draw_shift(samples, generator), LEAST_GAIN + _draw_beta(GAIN_SHAPE, generator)


def add_noise(spectrogram: Tensor, generator: torch.Generator) -> Tensor:
    """Add noise to a normalised spectrogram [1, T, F], then rotate it along time.

    The noise of a bin is U(0, 1) times the clip's level U(0, 1) / 10; the shift is -10 to 9 frames.
    """
    noise = torch.rand(spectrogram.shape, dtype=spectrogram.dtype, generator=generator)
    level = LARGEST_NOISE * torch.rand((), generator=generator)
    shift = torch.randint(-LARGEST_SHIFT, LARGEST_SHIFT, (), generator=generator)
    return (spectrogram + level * noise).roll(int(shift), dims=-2)


def _draw_beta(shape: int, generator: torch.Generator) -> float:
    """Draw from Beta(shape, shape), which torch.distributions cannot do from a generator.

    G / (G + H) has this distribution, for sums G and H of ``shape`` exponential variables each.
    """
    uniform = torch.rand(2, shape, dtype=torch.float64, generator=generator)
    first, second = -torch.log1p(-uniform).sum(dim=1)  # 1 - U, as U may be 0
    return float(first / (first + second))
