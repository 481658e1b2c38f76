"""The front end ``db`` of BAT (arXiv 2602.16305): decibels, from 0 to 1 in each clip.

With ``task.norm=whole`` it needs no statistics of the data. A clip is the part that a model sees:
the window that is cut out of a longer recording has its own loudest and quietest bin.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from .frames import (
    DB,
    FRAME_LENGTH,
    FRAME_SHIFT,
    HIGH_HZ,
    MEL_BINS,
    SAMPLE_RATE,
    UNCHANGED,
    Count,
    Pair,
)
from .mel import Scale, Tables, in_blocks, log_, sum_bands, triangles

FFT_SIZE = 1024  # samples of a frame
HALF = FFT_SIZE // 2
LOW_HZ = 0.0  # outer edge of the lowest mel filter
CPU_FRAMES = 128  # computed at once on a CPU
ENERGY_FLOOR = 1e-10  # -100 dB
RANGE_DB = 80.0  # at most, from the loudest to the quietest bin of a clip


class Decibels:
    """Decibels of centred frames of 64 ms, from 0 to 1 in each clip."""

    name: ClassVar[str] = DB
    low_hz: ClassVar[float] = LOW_HZ
    norm: ClassVar[Pair | None] = UNCHANGED

    def settings(self) -> dict[str, Any]:
        """Return what the values depend on, for a cache."""
        return {
            "sample_rate": SAMPLE_RATE, "frame_length": FFT_SIZE, "frame_shift": FRAME_SHIFT,
            "fft_size": FFT_SIZE, "mel_bins": MEL_BINS, "low_hz": LOW_HZ, "high_hz": HIGH_HZ,
            "energy_floor": ENERGY_FLOOR,
        }  # fmt: skip

    def count_frames(self, samples: Count) -> Count:
        """Return the number of frames for a number of samples at 16 kHz; 0 for less than 25 ms."""
        return (1 + samples // FRAME_SHIFT) * (samples >= FRAME_LENGTH)

    def least_samples(self, frames: int) -> int:
        """Return the least number of samples that has so many frames."""
        return max(FRAME_LENGTH, (frames - 1) * FRAME_SHIFT) if frames else 0

    def span(self, frames: int) -> int:
        """Return the number of samples from the start on that determine so many frames."""
        return (frames - 1) * FRAME_SHIFT + HALF

    def compute(self, waveforms: Tensor) -> Tensor:
        """Compute the decibels of waveforms `[..., n]`: `[..., 1 + n // 160, 128]`.

        Frames of 1024 samples around every 160th one, reflected at the ends; periodic Hann window,
        power spectrum, 128 triangular filters from 0 to 8000 Hz; 10 log10, at least -100. None
        where n < 400.
        """
        count = waveforms.shape[-1]
        if count < FRAME_LENGTH:
            return waveforms.new_zeros(*waveforms.shape[:-1], 0, MEL_BINS)
        before, after = _reflect(count, waveforms.device)
        padded = torch.cat([waveforms[..., before], waveforms, waveforms[..., after]], dim=-1)
        return in_blocks(padded.unfold(-1, FFT_SIZE, FRAME_SHIFT), CPU_FRAMES, _decibels)

    def check_padding(self, pad_value: str) -> None:
        """Raise ValueError for a value of ``task.pad_value`` that this front end does not have."""
        if pad_value != "zero":
            raise ValueError(
                f"pad_value is {pad_value!r}; the front end {DB} has zero, which is the quietest "
                "bin of a clip"
            )

    def finish(self, values: Tensor, out: Tensor, pad_value: str, scale: Scale) -> None:
        """Write frames `[..., n, 128]` from 0 to 1, and 0 after them, to `[..., T, 128]`.

        0 is the quietest bin of all n frames, or 80 dB below the loudest one; 1 is the loudest one.
        A clip whose bins are all alike is 0. Then each mel bin is normalised, if ``scale`` has
        its mean and deviation.
        """
        count = values.shape[-2]
        out[..., count:, :] = 0
        if count == 0:
            return
        low, high = torch.aminmax(values.flatten(-2), dim=-1)
        low = torch.maximum(low, high - RANGE_DB)
        extent = (high - low).clamp_(min=torch.finfo(values.dtype).tiny)
        low, extent = low[..., None, None], extent[..., None, None]
        torch.sub(values, low, out=out[..., :count, :])
        out[..., :count, :].div_(extent).clamp_(min=0)
        mean, divisor = scale(values)
        if isinstance(mean, Tensor):
            out.sub_(mean).div_(divisor)


def _reflect(count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the samples before the first and after the last of ``count``, `[512]` indices each.

    A clip shorter than half a frame is reflected at its other end again.
    """
    near = torch.arange(HALF, 0, -1, device=device)
    sides = torch.stack([near, near + (count - 2 - HALF)])
    period = 2 * (count - 1)
    sides = sides.remainder(period)
    before, after = torch.minimum(sides, period - sides)
    return before, after


def _decibels(frames: Tensor) -> Tensor:
    """Compute the decibels of frames: `[..., 1024]` to `[..., 128]`."""
    shape = frames.shape[:-1]
    tables = _tables(frames.device, frames.dtype)
    windowed = (frames * tables.window).view(-1, FFT_SIZE)
    energies = sum_bands(windowed, tables).clamp_(min=ENERGY_FLOOR)
    return log_(energies).mul_(10 / math.log(10)).view(*shape, MEL_BINS)


@lru_cache(maxsize=8)
def _tables(device: torch.device, dtype: torch.dtype) -> Tables:
    return Tables.make(frame_window(), mel_filters(), device, dtype)


@lru_cache(maxsize=1)
def frame_window() -> Tensor:
    """Return the periodic Hann window of a frame, `[1024]` float64."""
    return torch.hann_window(FFT_SIZE, dtype=torch.float64)


@lru_cache(maxsize=1)
def mel_filters() -> Tensor:
    """Return the mel filters over the bins of the power spectrum, `[128, 513]` float64.

    Triangles over hertz between frequencies that are evenly spaced on the HTK scale,
    2595 log10(1 + f / 700), from 0 to 8 kHz; their height is 1.
    """
    bins = torch.arange(HALF + 1, dtype=torch.float64) * (SAMPLE_RATE / FFT_SIZE)
    low, high = (2595 * math.log10(1 + hz / 700) for hz in (LOW_HZ, HIGH_HZ))
    mel = torch.linspace(low, high, MEL_BINS + 2, dtype=torch.float64)
    return triangles(bins, 700 * (10 ** (mel / 2595) - 1))
