"""The front end: a waveform of any rate becomes a normalised log-mel spectrogram.

Tables are computed once and cached. They and the order of operations follow published EAT features,
in float32: bins with almost no energy amplify a rounding error a million times.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .channels import MEAN, check_channels
from .frames import (
    FRAME_LENGTH,
    FRAME_SHIFT,
    HIGH_HZ,
    LOW_HZ,
    MEL_BINS,
    SAMPLE_RATE,
    Numbers,
)
from .resampling import rate_pair, resample

FFT_SIZE = 512  # samples
BAND = 16  # mel filters computed at once
CPU_FRAMES = 512  # computed at once on a CPU: they fit into the cache of a core
PREEMPHASIS = 0.97
ENERGY_FLOOR = 1.1920928955078125e-07  # 2**-23: keeps the logarithm of silence finite
# Log-mel energies of padding. The published 0 lies 16 above silence, and one standard deviation
# above the mean of AudioSet.
PAD_VALUES = {"zero": 0.0, "silence": math.log(ENERGY_FLOOR)}


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
    if not waveform.is_cpu:
        return _energies(frames)
    return torch.cat([_energies(part) for part in frames.split(CPU_FRAMES, dim=-2)], dim=-2)


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
    window, bands = _frame_tables(frames.device, frames.dtype)
    emphasised *= window
    power = _power(torch.fft.rfft(padded))  # [frames, 257]
    energies = power.new_empty(len(power), MEL_BINS)
    for (bins, weights), band in zip(bands, energies.split(BAND, dim=1)):
        torch.mm(power[:, bins], weights, out=band)
    return _log_(energies.clamp_(min=ENERGY_FLOOR)).view(*shape, MEL_BINS)


def _power(spectrum: Tensor) -> Tensor:
    """Square the magnitudes of a complex spectrum."""
    if spectrum.is_cpu:  # NumPy takes half as long with strided values
        values = spectrum.numpy()
        power = np.square(values.real)
        power += np.square(values.imag)
        return torch.from_numpy(power)
    return spectrum.real.square() + spectrum.imag.square()


def _log_(values: Tensor) -> Tensor:
    """Take the logarithm of values in place."""
    if values.is_cpu:  # NumPy is faster
        np.log(values.numpy(), out=values.numpy())
        return values
    return values.log_()


@lru_cache(maxsize=8)
def _frame_tables(
    device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, list[tuple[slice, Tensor]]]:
    """Return the window and the bands of filters on a device."""
    bands = [(bins, weights.to(device, dtype)) for bins, weights in _bands()]
    return frame_window().to(device, dtype), bands


@lru_cache(maxsize=1)
def _bands() -> list[tuple[slice, Tensor]]:
    """Split the mel filters into bands: the bins that each covers, and weights `[bins, BAND]`."""
    bands = []
    for filters in mel_filters().split(BAND):
        covered = filters.any(dim=0).nonzero().flatten().tolist()
        bins = slice(covered[0], covered[-1] + 1)
        bands.append((bins, filters[:, bins].T.contiguous()))
    return bands


@lru_cache(maxsize=1)
def frame_window() -> Tensor:
    """Return the symmetric Hann window of a frame, `[400]` float32."""
    return torch.hann_window(FRAME_LENGTH, periodic=False, dtype=torch.float32)


@lru_cache(maxsize=1)
def mel_filters() -> Tensor:
    """Return the mel filters over the bins of the power spectrum, `[128, 257]` float32.

    Triangles on the scale mel(f) = 1127 ln(1 + f / 700), spaced evenly from 20 Hz to 8 kHz; each
    rises from its left neighbour's centre and falls to its right neighbour's.
    """
    bin_hz = torch.arange(FFT_SIZE // 2 + 1, dtype=torch.float32) * (SAMPLE_RATE / FFT_SIZE)
    # The logarithm of float32 depends on the processor, in its last bit.
    bins = 1127.0 * torch.log((1.0 + bin_hz / 700.0).double()).float()  # [257], mel
    low, high = (1127.0 * math.log(1.0 + hz / 700.0) for hz in (LOW_HZ, HIGH_HZ))
    step = (high - low) / (MEL_BINS + 1)
    edges = low + step * torch.arange(MEL_BINS + 2, dtype=torch.float32)[:, None]  # [130, 1]
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]  # [128, 1] each
    rising, falling = (bins - left) / (centre - left), (right - bins) / (right - centre)
    return torch.minimum(rising, falling).clamp(min=0)


@dataclass(frozen=True)
class FrontEnd:
    """Computes the input of a model: the first ``target_length`` frames, normalised.

    Attributes:
        target_length: frames T of the result, 10 ms each.
        mean: mean of the data set's log-mel energies; or a tuple, that of each mel bin.
        std: their standard deviation; the result is ``(x - mean) / (2 * std)``.
        pad_value: padding of shorter clips: ``zero``, log-mel energies of 0, as published; or
            ``silence``, energies of digital silence.
        patch: if not 0, a shorter clip keeps its own length, padded to whole patches of so many
            frames.
        patch_bins: with ``patch``, the mel bins of a patch; 0 for as many as frames.
        channels: how the channels of a clip are mixed, see the module ``channels``.

    Raises:
        ValueError: ``target_length`` or ``std`` is not positive, a value is not finite, the mel
            bins are not 128, ``pad_value`` or ``channels`` is unknown, or T is not a multiple of
            ``patch``.
    """

    target_length: int
    mean: Numbers
    std: Numbers
    pad_value: str = "zero"
    patch: int = 0
    channels: str = MEAN
    patch_bins: int = 0

    def __post_init__(self) -> None:
        if self.target_length < 1:
            raise ValueError(f"target_length must be at least 1 frame, got {self.target_length}")
        means, stds = (n if isinstance(n, tuple) else (n,) for n in (self.mean, self.std))
        if len(means) != len(stds) or len(stds) not in (1, MEL_BINS):
            raise ValueError(
                f"mean and std must be one number or {MEL_BINS} each, got {len(means)} and "
                f"{len(stds)}"
            )
        for mean, std in zip(means, stds):
            if not math.isfinite(mean):
                raise ValueError(f"mean must be finite, got {mean}")
            if not (math.isfinite(std) and std > 0):
                raise ValueError(f"std must be positive and finite, got {std}")
        if self.pad_value not in PAD_VALUES:
            raise ValueError(
                f"pad_value is {self.pad_value!r}; choose one of {', '.join(PAD_VALUES)}"
            )
        if self.patch and self.target_length % self.patch:
            raise ValueError(
                f"target_length is {self.target_length}; it must be divisible by "
                f"patch_size={self.patch}"
            )
        check_channels(self.channels)

    def needed_samples(self, sample_rate: int) -> int:
        """Return the number of samples at ``sample_rate`` that determine T frames."""
        period_in, period_out, width = rate_pair(sample_rate, SAMPLE_RATE)
        last = FRAME_LENGTH + (self.target_length - 1) * FRAME_SHIFT - 1  # at 16 kHz
        return last * period_in // period_out + width + 1

    def __call__(self, waveform: Tensor, sample_rate: int) -> Tensor:
        """Compute the normalised spectrogram of the start of a clip.

        Args:
            waveform: `[n]` float32, one channel; samples after ``needed_samples`` have no effect.
            sample_rate: in Hz.

        Returns:
            `[1, T, 128]` float32, time x mel.

        Raises:
            ValueError: ``waveform`` has more than one dimension.
        """
        return self.finish(self.energies(waveform, sample_rate))

    def energies(self, waveform: Tensor, sample_rate: int) -> Tensor:
        """Compute the log-mel energies of the start of a clip: `[n, 128]`, n <= T."""
        if waveform.dim() != 1:
            raise ValueError(f"waveform must have one dimension, got {list(waveform.shape)}")
        return self.batch_energies(waveform, sample_rate)

    def batch_energies(self, waveforms: Tensor, sample_rate: int) -> Tensor:
        """Compute the energies of clips of one length: `[..., n]` to `[..., frames, 128]`."""
        given = waveforms[..., : self.needed_samples(sample_rate)]
        resampled = resample(given, sample_rate)
        # Two rows: PyTorch splits one long sum among threads, so their number would matter.
        mean = resampled.expand(2, *resampled.shape).mean(dim=-1, keepdim=True)[0]
        centred = resampled - mean if resampled is given else resampled.sub_(mean)
        return log_mel(centred)[..., : self.target_length, :]

    def finish(self, energies: Tensor) -> Tensor:
        """Cut or pad log-mel energies `[..., n, 128]` to T frames, and normalise them.

        Returns:
            `[..., 1, T, 128]`; with ``patch``, `[..., 1, ceil(n / patch) * patch, 128]` if less.
        """
        length = self.target_length
        if self.patch:
            length = min(length, math.ceil(energies.shape[-2] / self.patch) * self.patch)
        kept = energies[..., :length, :]
        count = kept.shape[-2]
        finished = energies.new_empty(*kept.shape[:-2], length, MEL_BINS)
        mean, divisor = self.scale(energies)
        torch.sub(kept, mean, out=finished[..., :count, :])
        finished[..., count:, :].fill_(PAD_VALUES[self.pad_value]).sub_(mean)
        return finished.div_(divisor).unsqueeze(-3)

    def scale(self, like: Tensor) -> tuple[Any, Any]:
        """Return ``mean`` and ``2 * std``: numbers, or `[128]` on the device of another tensor."""
        if isinstance(self.mean, tuple) and isinstance(self.std, tuple):
            return _bin_tables(self.mean, self.std, like.device, like.dtype)
        return self.mean, 2 * self.std  # type: ignore[operator]


@lru_cache(maxsize=8)
def _bin_tables(
    means: tuple[float, ...], stds: tuple[float, ...], device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return the means and twice the deviations of the mel bins on a device."""
    tables = torch.tensor([means, [2 * std for std in stds]], dtype=torch.float64)
    mean, divisor = tables.to(device, dtype)
    return mean, divisor
