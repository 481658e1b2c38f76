"""Band-limited change of a waveform's sampling rate.

In this file:
    resample             from any rate to any other
    resampling_kernel    its weights
    rate_pair            what of two rates matters
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

ZERO_CROSSINGS = 6  # of the sinc, on either side of its centre
ROLLOFF = 0.99  # cut-off, as a fraction of the lower of the two Nyquist frequencies
CHANNELS = 16  # outputs that processors compute at once
NEGLIGIBLE = 1e-12  # a weight: the window ends in what rounding leaves of 0
DENSE_KERNEL_LIMIT = 1 << 22  # weights (16 MiB); rate pairs that need more are resampled tap by tap


def resample(waveform: Tensor, orig_hz: int, new_hz: int = 16_000) -> Tensor:
    """Change the sampling rate by band-limited interpolation.

    Every output sample is a sum of the inputs around it, weighted by a sinc under a Hann window
    (6 zero crossings, roll-off 0.99). The signal counts as 0 outside of its ends. The pattern of
    weights repeats after ``new_hz / gcd`` outputs, so one strided convolution serves them all;
    where these are many, a matrix product for each few of them; where they are too many for a
    table, sums tap by tap.

    Args:
        waveform: `[..., n]` float32.
        orig_hz: Rate of ``waveform`` in Hz.
        new_hz: Rate of the result in Hz.

    Returns:
        `[..., ceil(n * new_hz / orig_hz)]`; ``waveform`` itself where the rates are equal.

    Raises:
        ValueError: A rate is not positive.
    """
    period_in, period_out, width = rate_pair(orig_hz, new_hz)
    if period_in == period_out:
        return waveform
    length = waveform.shape[-1]
    together = max(1, CHANNELS // period_out)  # periods in one stride
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
    """Resample where a period has few outputs, several periods at once.

    Args:
        whole: `[..., strides * together * period_in]`.
        together: Periods of a stride.
        period_in: Input samples a period.
        period_out: Output samples a period.

    Returns:
        `[rows, strides, together * period_out]`.
    """
    width = rate_pair(period_in, period_out)[2]
    kernel = _repeated_kernel(period_in, period_out, together, whole.device, whole.dtype)
    rows = whole.reshape(-1, 1, whole.shape[-1])
    return F.conv1d(rows, kernel, stride=together * period_in, padding=width).transpose(1, 2)


@lru_cache(maxsize=16)
def _repeated_kernel(
    period_in: int, period_out: int, times: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Return the weights of several periods at once.

    Returns:
        `[times * out, 1, times * in + 2 * width]`.
    """
    kernel = resampling_kernel(period_in, period_out)
    end = (times - 1) * period_in
    shifted = [
        F.pad(kernel, (number * period_in, end - number * period_in)) for number in range(times)
    ]
    return torch.cat(shifted)[:, None].to(device, dtype)


def _resample_by_bands(padded: Tensor, periods: int, period_in: int, period_out: int) -> Tensor:
    """Resample where a period has many outputs: a matrix product for each few neighbours of them.

    Args:
        padded: `[..., periods * period_in + 2 * width]`.
        periods: Number of periods.
        period_in: Input samples a period.
        period_out: Output samples a period.

    Returns:
        `[..., periods, period_out]`.
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
    """Part a period's outputs into bands of neighbours, each with the few inputs that it takes.

    Returns:
        Of each band its first input in a padded period, and the weights `[inputs, CHANNELS]`.
    """
    bands = []
    for rows in resampling_kernel(period_in, period_out).split(CHANNELS):
        taken = (rows.abs() > NEGLIGIBLE).any(dim=0).nonzero().flatten().tolist()
        weights = rows[:, taken[0] : taken[-1] + 1].T.to(device, dtype)
        bands.append((taken[0], weights.contiguous()))
    return bands


@lru_cache(maxsize=16)
def resampling_kernel(orig_hz: int, new_hz: int) -> Tensor:
    """Compute the resampling weights of one period, for a pair of rates.

    Args:
        orig_hz: Rate before, in Hz.
        new_hz: Rate after, in Hz.

    Returns:
        `[new, orig + 2 * width]` float32, where ``new`` and ``orig`` are the rates over their
        greatest common divisor: row i holds the weights of output i of a period, column
        ``width`` stands for the period's first input sample.
    """
    period_in, period_out, width = rate_pair(orig_hz, new_hz)
    inputs = torch.arange(-width, period_in + width, dtype=torch.float32) / period_in
    centres = torch.arange(period_out, dtype=torch.float32) / period_out
    return _sinc_weights(inputs - centres[:, None], period_in, period_out)


def rate_pair(orig_hz: int, new_hz: int) -> tuple[int, int, int]:
    """Return the period in input and in output samples, and the sinc's half-width in inputs.

    Raises:
        ValueError: A rate is not positive.
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
    """Return each output's own taps only: where in a padded period, and how heavy.

    Returns:
        `[period_out, 2 * width + 1]` int64 and the same in ``dtype``.
    """
    width = rate_pair(period_in, period_out)[2]
    centres = torch.arange(period_out) * period_in  # in inputs, times period_out: exact
    taps = (centres // period_out)[:, None] + torch.arange(-width, width + 1)
    offsets = (taps * period_out - centres[:, None]).double() / (period_in * period_out)
    weights = _sinc_weights(offsets, period_in, period_out).float()
    return (taps + width).to(device), weights.to(device, dtype)


def _resample_by_taps(padded: Tensor, periods: int, period_in: int, period_out: int) -> Tensor:
    """Resample between rates with hardly a common divisor (22,254 Hz, say), period by period.

    Args:
        padded: `[..., periods * period_in + 2 * width]`.
        periods: Number of periods.
        period_in: Input samples a period.
        period_out: Output samples a period.

    Returns:
        `[..., periods, period_out]`.
    """
    positions, weights = _tap_weights(period_in, period_out, padded.device, padded.dtype)
    outputs = [
        (padded[..., positions + period * period_in] * weights).sum(-1) for period in range(periods)
    ]
    return torch.stack(outputs, dim=-2)
