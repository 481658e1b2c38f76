"""Augmentations of one clip, in the data workers.

All randomness comes from the generator that is given, so that a clip's augmentation follows from
(seed, epoch, clip) and neither from the number of workers nor from that of processes.

In this file:
    roll_and_gain   of a waveform: where it starts, how loud it is
    add_noise       to a spectrogram, and a small shift in time
"""

from __future__ import annotations

import torch
from torch import Tensor

GAIN_SHAPE = 10  # a and b of the Beta distribution of a gain
LEAST_GAIN = 0.5
LARGEST_NOISE = 0.1  # in units of the normalised spectrogram
LARGEST_SHIFT = 10  # frames


def roll_and_gain(waveform: Tensor, generator: torch.Generator) -> Tensor:
    """Rotate a waveform by any number of samples and scale it by 0.5 + Beta(10, 10).

    Args:
        waveform: [n] floating point.
        generator: source of all randomness.

    Returns:
        [n]; the mean gain is 1, its standard deviation 0.109.
    """
    shift = torch.randint(max(len(waveform), 1), (), generator=generator)
    gain = LEAST_GAIN + _draw_beta(GAIN_SHAPE, generator)
    return waveform.roll(int(shift)) * gain


def add_noise(spectrogram: Tensor, generator: torch.Generator) -> Tensor:
    """Add uniform noise of a random level to a spectrogram, then rotate it along time.

    The noise of a bin is U(0, 1) times a level of U(0, 1) / 10 that the clip shares; the shift is
    one of -10, ..., 9 frames.

    Args:
        spectrogram: [1, T, F], normalised.
        generator: source of all randomness.

    Returns:
        [1, T, F].
    """
    noise = torch.rand(spectrogram.shape, dtype=spectrogram.dtype, generator=generator)
    level = LARGEST_NOISE * torch.rand((), generator=generator)
    shift = torch.randint(-LARGEST_SHIFT, LARGEST_SHIFT, (), generator=generator)
    return (spectrogram + level * noise).roll(int(shift), dims=-2)


def _draw_beta(shape: int, generator: torch.Generator) -> float:
    """Draw from Beta(shape, shape), which torch.distributions cannot do from a generator.

    With G and H sums of ``shape`` exponential variables each, G / (G + H) has this distribution.
    """
    uniform = torch.rand(2, shape, dtype=torch.float64, generator=generator)
    first, second = -torch.log1p(-uniform).sum(dim=1)  # 1 - U, as U may be 0
    return float(first / (first + second))
