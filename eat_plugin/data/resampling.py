"""Band-limited resampling of waveforms."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

ZERO_CROSSINGS = 6  # of the sinc, on each side
ROLLOFF = 0.99  # cut-off over the lower Nyquist frequency
CHANNELS = 16  # outputs computed at once
NEGLIGIBLE = 1e-12  # a weight below it is a rounding error of the window's end
DENSE_KERNEL_LIMIT = 1 << 22  # weights (16 MiB); larger kernels are applied tap by tap


def resample(waveform: Tensor, orig_hz: int, new_hz: int = 16_000) -> Tensor:
    """Resample by a sinc under a Hann window (6 zero crossings, roll-off 0.99).

    The signal is 0 beyond its ends. The weights repeat after ``new_hz / gcd`` outputs: one strided
    convolution applies them; for many outputs, a matrix product per band of them; for too many for
    a table, sums tap by tap.

    Args:
        waveform: `[..., n]` float32.
        orig_hz: rate of ``waveform`` in Hz.
        new_hz: rate of the result in Hz.

    Returns:
        `[..., ceil(n * new_hz / orig_hz)]`; ``waveform`` itself if the rates are equal.

    Raises:
        ValueError: a rate is not positive.
    """
    period_in, period_out, width = rate_pair(orig_hz, new_hz)
    if period_in == period_out:
        return waveform
    length = waveform.shape[-1]
    together = max(1, CHANNELS // period_out)  # periods per stride
    strides = max(1, math.ceil(length / (together * period_in)))
    missing = strides * together * period_in - length
    if period_out <= CHANNELS:
        whole = F.pad(waveform, (0, missing)) if missing else waveform
        resampled = _resample_by_convolution(whole, together, period_in, period_out)
    else:
        padded = F.pad(waveform, (width, width + missing))
        dense = period_out * (period_in + 2 * width) <= DENSE_KERNEL_LIMIT
        method = _resample_by_bands if dense else _resample_by_taps
        resampled = method(padded, strides, period_in, period_out)
    resampled = resampled.reshape(*waveform.shape[:-1], strides * together * period_out)
    return resampled[..., : -(-length * period_out // period_in)]


def _resample_by_convolution(
    whole: Tensor, together: int, period_in: int, period_out: int
) -> Tensor:
    """Resample periods of few outputs, ``together`` of them per stride.

    Maps `[..., strides * together * period_in]` to `[rows, strides, together * period_out]`.
    """
    width = rate_pair(period_in, period_out)[2]
    kernel = _repeated_kernel(period_in, period_out, together, whole.device, whole.dtype)
    rows = whole.reshape(-1, 1, whole.shape[-1])
    return F.conv1d(rows, kernel, stride=together * period_in, padding=width).transpose(1, 2)


@lru_cache(maxsize=16)
def _repeated_kernel(
    period_in: int, period_out: int, times: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Return the weights of several periods, `[times * out, 1, times * in + 2 * width]`."""
    kernel = resampling_kernel(period_in, period_out)
    end = (times - 1) * period_in
    shifted = [
        F.pad(kernel, (number * period_in, end - number * period_in)) for number in range(times)
    ]
    return torch.cat(shifted)[:, None].to(device, dtype)


def _resample_by_bands(padded: Tensor, periods: int, period_in: int, period_out: int) -> Tensor:
    """Resample periods of many outputs, by a matrix product per band of neighbouring outputs.

    Maps `[..., periods * period_in + 2 * width]` to `[..., periods, period_out]`.
    """
    outputs = []
    for first, weights in _band_weights(period_in, period_out, padded.device, padded.dtype):
        last = first + (periods - 1) * period_in + len(weights)
        windows = padded[..., first:last].unfold(-1, len(weights), period_in)
        outputs.append(windows @ weights)
    return torch.cat(outputs, dim=-1)


@lru_cache(maxsize=16)
def _band_weights(
    period_in: int, period_out: int, device: torch.device, dtype: torch.dtype
) -> list[tuple[int, Tensor]]:
    """Split a period's outputs into bands: first input in a padded period, `[inputs, CHANNELS]`."""
    bands = []
    for rows in resampling_kernel(period_in, period_out).split(CHANNELS):
        taken = (rows.abs() > NEGLIGIBLE).any(dim=0).nonzero().flatten().tolist()
        weights = rows[:, taken[0] : taken[-1] + 1].T.to(device, dtype)
        bands.append((taken[0], weights.contiguous()))
    return bands


@lru_cache(maxsize=16)
def resampling_kernel(orig_hz: int, new_hz: int) -> Tensor:
    """Compute the resampling weights of one period.

    Returns:
        `[new, orig + 2 * width]` float32, the rates divided by their greatest common divisor: row i
        has the weights of output i of a period, column ``width`` is its first input sample.
    """
    period_in, period_out, width = rate_pair(orig_hz, new_hz)
    inputs = torch.arange(-width, period_in + width, dtype=torch.float32) / period_in
    centres = torch.arange(period_out, dtype=torch.float32) / period_out
    return _sinc_weights(inputs - centres[:, None], period_in, period_out)


def rate_pair(orig_hz: int, new_hz: int) -> tuple[int, int, int]:
    """Return the period in input and output samples, and the half-width of the sinc in inputs.

    Raises:
        ValueError: a rate is not positive.
    """
    if orig_hz < 1 or new_hz < 1:
        raise ValueError(f"sampling rates must be positive, got {orig_hz} Hz and {new_hz} Hz")
    divisor = math.gcd(orig_hz, new_hz)
    period_in, period_out = orig_hz // divisor, new_hz // divisor
    cutoff = ROLLOFF * min(period_in, period_out)  # zero crossings a period
    return period_in, period_out, math.ceil(ZERO_CROSSINGS * period_in / cutoff)


def _sinc_weights(offsets: Tensor, period_in: int, period_out: int) -> Tensor:
    """Evaluate the windowed sinc at ``offsets``, in periods."""
    cutoff = ROLLOFF * min(period_in, period_out)
    phase = (offsets * cutoff).clamp(-ZERO_CROSSINGS, ZERO_CROSSINGS)
    window = torch.cos(phase * math.pi / ZERO_CROSSINGS / 2) ** 2  # Hann, 0 at its ends
    angle = phase * math.pi
    sinc = torch.where(angle == 0, 1.0, angle.sin() / angle)  # torch.sinc rounds otherwise
    return sinc * (window * (cutoff / period_in))


@lru_cache(maxsize=4)
def _tap_weights(
    period_in: int, period_out: int, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return positions in a padded period and weights of each output's taps.

    Both are `[period_out, 2 * width + 1]`.
    """
    width = rate_pair(period_in, period_out)[2]
    centres = torch.arange(period_out) * period_in  # in inputs, times period_out: exact
    taps = (centres // period_out)[:, None] + torch.arange(-width, width + 1)
    offsets = (taps * period_out - centres[:, None]).double() / (period_in * period_out)
    weights = _sinc_weights(offsets, period_in, period_out).float()
    return (taps + width).to(device), weights.to(device, dtype)


def _resample_by_taps(padded: Tensor, periods: int, period_in: int, period_out: int) -> Tensor:
    """Resample between rates with a small common divisor (such as 22,254 Hz), per period.

    Maps `[..., periods * period_in + 2 * width]` to `[..., periods, period_out]`.
    """
    positions, weights = _tap_weights(period_in, period_out, padded.device, padded.dtype)
    outputs = [
        (padded[..., positions + period * period_in] * weights).sum(-1) for period in range(periods)
    ]
    return torch.stack(outputs, dim=-2)
