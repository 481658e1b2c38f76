"""The front end ``kaldi``: log-mel energies as published EAT has them.

Tables and the order of operations follow published EAT features, in float32: bins with almost no
energy amplify a rounding error a million times.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from .frames import (
    FRAME_LENGTH,
    FRAME_SHIFT,
    HIGH_HZ,
    KALDI,
    MEL_BINS,
    SAMPLE_RATE,
    Count,
    Pair,
)
from .mel import Scale, Tables, in_blocks, log_, sum_bands, triangles

FFT_SIZE = 512  # samples
LOW_HZ = 20.0  # outer edge of the lowest mel filter
CPU_FRAMES = 512  # computed at once on a CPU
PREEMPHASIS = 0.97
ENERGY_FLOOR = 1.1920928955078125e-07  # 2**-23: keeps the logarithm of silence finite
# Log-mel energies of padding. The published 0 lies 16 above silence, and one standard deviation
# above the mean of AudioSet.
PAD_VALUES = {"zero": 0.0, "silence": math.log(ENERGY_FLOOR)}


class Kaldi:
    """Log-mel energies of frames of 25 ms, normalised by the numbers of a data set."""

    name: ClassVar[str] = KALDI
    low_hz: ClassVar[float] = LOW_HZ
    norm: ClassVar[Pair | None] = None

    def settings(self) -> dict[str, Any]:
        """Return what the values depend on, for a cache."""
        return {
            "sample_rate": SAMPLE_RATE, "frame_length": FRAME_LENGTH, "frame_shift": FRAME_SHIFT,
            "fft_size": FFT_SIZE, "mel_bins": MEL_BINS, "low_hz": LOW_HZ, "high_hz": HIGH_HZ,
            "preemphasis": PREEMPHASIS, "energy_floor": ENERGY_FLOOR,
        }  # fmt: skip

    def count_frames(self, samples: Count) -> Count:
        """Return the number of frames for a number of samples at 16 kHz."""
        frames = 1 + (samples - FRAME_LENGTH) // FRAME_SHIFT
        return frames * (frames > 0)

    def least_samples(self, frames: int) -> int:
        """Return the least number of samples that has so many frames."""
        return FRAME_LENGTH + (frames - 1) * FRAME_SHIFT if frames else 0

    def span(self, frames: int) -> int:
        """Return the number of samples from the start on that determine so many frames."""
        return self.least_samples(frames)

    def compute(self, waveforms: Tensor) -> Tensor:
        """Compute the log-mel energies of waveforms `[..., n]`, without their mean."""
        # Two rows: PyTorch splits one long sum among threads, so their number would matter.
        mean = waveforms.expand(2, *waveforms.shape).mean(dim=-1, keepdim=True)[0]
        return log_mel(waveforms - mean)

    def check_padding(self, pad_value: str) -> None:
        """Raise ValueError for a value of ``task.pad_value`` that this front end does not have."""
        if pad_value not in PAD_VALUES:
            raise ValueError(f"pad_value is {pad_value!r}; choose one of {', '.join(PAD_VALUES)}")

    def finish(self, values: Tensor, out: Tensor, pad_value: str, scale: Scale) -> None:
        """Write normalised frames `[..., n, 128]`, and padding after them, to `[..., T, 128]`."""
        count = values.shape[-2]
        mean, divisor = scale(values)
        torch.sub(values, mean, out=out[..., :count, :])
        out[..., count:, :].fill_(PAD_VALUES[pad_value]).sub_(mean)
        out.div_(divisor)


def log_mel(waveform: Tensor) -> Tensor:
    """Compute Kaldi-style log-mel energies, without dither or padding.

    Frames of 25 ms every 10 ms: subtract the mean, pre-emphasise (0.97, the first sample against
    itself), apply a symmetric Hann window, take the logarithm of the energies of 128 triangular
    filters over the 512-point power spectrum.

    Args:
        waveform: `[..., n]` float32 at 16 kHz.

    Returns:
        `[..., 1 + (n - 400) // 160, 128]` float32; `[..., 0, 128]` where n < 400.
    """
    if waveform.shape[-1] < FRAME_LENGTH:
        return waveform.new_zeros(*waveform.shape[:-1], 0, MEL_BINS)
    frames = waveform.unfold(-1, FRAME_LENGTH, FRAME_SHIFT)  # [..., frames, 400]
    return in_blocks(frames, CPU_FRAMES, _energies)


def _energies(frames: Tensor) -> Tensor:
    """Compute the log-mel energies of frames: `[..., 400]` to `[..., 128]`."""
    shape = frames.shape[:-1]
    frames = (frames - frames.mean(dim=-1, keepdim=True)).view(-1, FRAME_LENGTH)
    padded = frames.new_empty(len(frames), FFT_SIZE)
    padded[:, FRAME_LENGTH:] = 0
    emphasised = padded[:, :FRAME_LENGTH]
    # The order and the rounding of each product matter: see the module docstring.
    torch.mul(frames[:, :-1], PREEMPHASIS, out=emphasised[:, 1:])
    torch.mul(frames[:, :1], PREEMPHASIS, out=emphasised[:, :1])
    torch.sub(frames, emphasised, out=emphasised)
    tables = _tables(frames.device, frames.dtype)
    emphasised *= tables.window
    energies = sum_bands(padded, tables)
    return log_(energies.clamp_(min=ENERGY_FLOOR)).view(*shape, MEL_BINS)


@lru_cache(maxsize=8)
def _tables(device: torch.device, dtype: torch.dtype) -> Tables:
    return Tables.make(frame_window(), mel_filters(), device, dtype)


@lru_cache(maxsize=1)
def frame_window() -> Tensor:
    """Return the symmetric Hann window of a frame, `[400]` float32."""
    return torch.hann_window(FRAME_LENGTH, periodic=False, dtype=torch.float32)


@lru_cache(maxsize=1)
def mel_filters() -> Tensor:
    """Return the mel filters over the bins of the power spectrum, `[128, 257]` float32.

    Triangles on the scale mel(f) = 1127 ln(1 + f / 700), spaced evenly from 20 Hz to 8 kHz.
    """
    bin_hz = torch.arange(FFT_SIZE // 2 + 1, dtype=torch.float32) * (SAMPLE_RATE / FFT_SIZE)
    # The logarithm of float32 depends on the processor, in its last bit.
    bins = 1127.0 * torch.log((1.0 + bin_hz / 700.0).double()).float()  # [257], mel
    low, high = (1127.0 * math.log(1.0 + hz / 700.0) for hz in (LOW_HZ, HIGH_HZ))
    step = (high - low) / (MEL_BINS + 1)
    return triangles(bins, low + step * torch.arange(MEL_BINS + 2, dtype=torch.float32))
