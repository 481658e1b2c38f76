"""The front end: a waveform at any rate becomes a normalised log-mel spectrogram.

In this file:
    resample      windowed-sinc change of sampling rate
    log_mel       Kaldi-style log-mel energies of a 16 kHz waveform
    fit_length    cut or pad a spectrogram to a fixed number of frames
    FrontEnd      all of these in order, as a model's input needs them

Tables are computed once and cached. They and the order of operations are those of published EAT
features, in float32: bins that hold hardly any energy amplify a rounding error a million times.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

SAMPLE_RATE = 16_000  # Hz, of every waveform that log_mel sees
FRAME_LENGTH = 400  # samples: 25 ms
FRAME_SHIFT = 160  # samples: 10 ms
FFT_SIZE = 512  # samples
MEL_BINS = 128
LOW_HZ, HIGH_HZ = 20.0, 8_000.0  # outer edges of the lowest and of the highest mel filter
BAND = 16  # mel filters that are computed at once
PREEMPHASIS = 0.97
ENERGY_FLOOR = 1.1920928955078125e-07  # 2**-23: keeps the logarithm of silence finite
# What a clip shorter than the window is padded with, as log-mel energies. The published 0 lies 16
# above silence, and a standard deviation above the mean of AudioSet.
PAD_VALUES = {"zero": 0.0, "silence": math.log(ENERGY_FLOOR)}

ZERO_CROSSINGS = 6  # of the sinc, on either side of its centre
ROLLOFF = 0.99  # cut-off, as a fraction of the lower of the two Nyquist frequencies
CHANNELS = 16  # outputs of a convolution that processors compute at once
DENSE_KERNEL_LIMIT = 1 << 22  # weights (16 MiB); rate pairs that need more are resampled tap by tap


def resample(waveform: Tensor, orig_hz: int, new_hz: int = SAMPLE_RATE) -> Tensor:
    """Change the sampling rate by band-limited interpolation.

    Every output sample is a sum of the inputs around it, weighted by a sinc under a Hann window
    (6 zero crossings, roll-off 0.99). The signal counts as 0 outside of its ends. The pattern of
    weights repeats after ``new_hz / gcd`` outputs, so one strided convolution serves them all.

    Args:
        waveform: `[..., n]` float32.
        orig_hz: Rate of ``waveform`` in Hz.
        new_hz: Rate of the result in Hz.

    Returns:
        `[..., ceil(n * new_hz / orig_hz)]`; ``waveform`` itself where the rates are equal.

    Raises:
        ValueError: A rate is not positive.
    """
    period_in, period_out, width = _rate_pair(orig_hz, new_hz)
    if period_in == period_out:
        return waveform
    length = waveform.shape[-1]
    dense = period_out * (period_in + 2 * width) <= DENSE_KERNEL_LIMIT
    together = max(1, CHANNELS // period_out) if dense else 1  # periods in one stride
    stride = together * period_in
    strides = max(1, math.ceil(length / stride))
    missing = strides * stride - length
    whole = F.pad(waveform, (0, missing)) if missing else waveform
    if dense:
        place = (whole.device, whole.dtype)
        kernel = _repeated_kernel(period_in, period_out, together, *place)
        rows = whole.reshape(-1, 1, 1, strides * stride)
        # In two dimensions there is a layout in which the outputs come out in their order.
        resampled = F.conv2d(rows, kernel, stride=(1, stride), padding=(0, width))
        resampled = resampled.permute(0, 2, 3, 1)  # [rows, 1, strides, out]
    else:
        padded = F.pad(whole, (width, width))
        resampled = _resample_by_taps(padded, strides, period_in, period_out)
    resampled = resampled.reshape(*waveform.shape[:-1], strides * together * period_out)
    return resampled[..., : -(-length * period_out // period_in)]


@lru_cache(maxsize=16)
def _repeated_kernel(
    period_in: int, period_out: int, times: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Return the weights of several periods at once.

    Returns:
        `[times * out, 1, 1, times * in + 2 * width]`, channels last.
    """
    kernel = resampling_kernel(period_in, period_out)
    end = (times - 1) * period_in
    shifted = [
        F.pad(kernel, (number * period_in, end - number * period_in)) for number in range(times)
    ]
    kernels = torch.cat(shifted)[:, None, None].to(device, dtype)
    return kernels.contiguous(memory_format=torch.channels_last)


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
    period_in, period_out, width = _rate_pair(orig_hz, new_hz)
    inputs = torch.arange(-width, period_in + width, dtype=torch.float32) / period_in
    centres = torch.arange(period_out, dtype=torch.float32) / period_out
    return _sinc_weights(inputs - centres[:, None], period_in, period_out)


def _rate_pair(orig_hz: int, new_hz: int) -> tuple[int, int, int]:
    """Return the period in input and in output samples, and the sinc's half-width in inputs."""
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
    width = _rate_pair(period_in, period_out)[2]
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


def log_mel(waveform: Tensor) -> Tensor:
    """Compute Kaldi-style log-mel energies, without dither and without padding at the ends.

    Frames of 25 ms every 10 ms; each loses its mean, is pre-emphasised (0.97, the first sample
    against itself) and windowed (symmetric Hann); then the logarithm of the energies of 128
    triangular filters over its 512-point power spectrum.

    Args:
        waveform: `[..., n]` float32 at 16 kHz.

    Returns:
        `[..., 1 + (n - 400) // 160, 128]` float32; `[..., 0, 128]` where n < 400.
    """
    if waveform.shape[-1] < FRAME_LENGTH:
        return waveform.new_zeros(*waveform.shape[:-1], 0, MEL_BINS)
    frames = waveform.unfold(-1, FRAME_LENGTH, FRAME_SHIFT)  # [..., frames, 400]
    shape = frames.shape[:-1]
    frames = (frames - frames.mean(dim=-1, keepdim=True)).view(-1, FRAME_LENGTH)
    padded = frames.new_empty(len(frames), FFT_SIZE)
    padded[:, FRAME_LENGTH:] = 0
    emphasised = padded[:, :FRAME_LENGTH]
    # In this order, each product rounded: see the head of this file.
    torch.mul(frames[:, :-1], PREEMPHASIS, out=emphasised[:, 1:])
    torch.mul(frames[:, :1], PREEMPHASIS, out=emphasised[:, :1])
    torch.sub(frames, emphasised, out=emphasised)
    window, bands = _frame_tables(waveform.device, waveform.dtype)
    emphasised *= window
    spectrum = torch.view_as_real(torch.fft.rfft(padded))  # [frames, 257, 2]
    squares = spectrum.square_().flatten(1)
    energies = squares.new_empty(len(squares), MEL_BINS)
    for (values, weights), band in zip(bands, energies.split(BAND, dim=1)):
        torch.mm(squares[:, values], weights, out=band)
    return energies.clamp_(min=ENERGY_FLOOR).log_().view(*shape, MEL_BINS)


@lru_cache(maxsize=8)
def _frame_tables(
    device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, list[tuple[slice, Tensor]]]:
    """Return the window and the bands of filters, in a copy for each place where they are used."""
    bands = [(values, weights.to(device, dtype)) for values, weights in _bands()]
    return frame_window().to(device, dtype), bands


@lru_cache(maxsize=1)
def _bands() -> list[tuple[slice, Tensor]]:
    """Part the mel filters into bands of neighbours, each with the few bins that it covers.

    Returns:
        Of each band which of the 2 * 257 squares, of real and imaginary parts in turn, it takes,
        and the weights `[squares, BAND]` of its filters.
    """
    bands = []
    for filters in mel_filters().split(BAND):
        covered = filters.any(dim=0).nonzero().flatten().tolist()
        first, last = covered[0], covered[-1] + 1
        weights = filters[:, first:last].T.repeat_interleave(2, dim=0)
        bands.append((slice(2 * first, 2 * last), weights.contiguous()))
    return bands


@lru_cache(maxsize=1)
def frame_window() -> Tensor:
    """Return the symmetric Hann window of a frame, `[400]` float32."""
    return torch.hann_window(FRAME_LENGTH, periodic=False, dtype=torch.float32)


@lru_cache(maxsize=1)
def mel_filters() -> Tensor:
    """Return the mel filters over the bins of the power spectrum, `[128, 257]` float32.

    The filters are triangles on the scale mel(f) = 1127 ln(1 + f / 700), spaced evenly from
    20 Hz to 8 kHz; each rises from its left neighbour's centre and falls to its right one's.
    """
    bin_hz = torch.arange(FFT_SIZE // 2 + 1, dtype=torch.float32) * (SAMPLE_RATE / FFT_SIZE)
    bins = 1127.0 * torch.log(1.0 + bin_hz / 700.0)  # [257], mel
    low, high = (1127.0 * math.log(1.0 + hz / 700.0) for hz in (LOW_HZ, HIGH_HZ))
    step = (high - low) / (MEL_BINS + 1)
    edges = low + step * torch.arange(MEL_BINS + 2, dtype=torch.float32)[:, None]  # [130, 1]
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]  # [128, 1] each
    rising, falling = (bins - left) / (centre - left), (right - bins) / (right - centre)
    return torch.minimum(rising, falling).clamp(min=0)


def fit_length(
    spectrogram: Tensor, target_length: int, start: int = 0, value: float = 0.0
) -> Tensor:
    """Cut a spectrogram to a number of frames, or pad it at its end.

    Args:
        spectrogram: `[..., n, bins]`, log-mel energies.
        target_length: Frames wanted.
        start: First frame to keep.
        value: What to pad with.

    Returns:
        `[..., target_length, bins]`.
    """
    kept = spectrogram[..., start : start + target_length, :]
    return F.pad(kept, (0, 0, 0, target_length - kept.shape[-2]), value=value)


@dataclass(frozen=True)
class FrontEnd:
    """Turn a waveform into a model's input: the first ``target_length`` frames, normalised.

    Attributes:
        target_length: Frames T of the result, 10 ms each.
        mean: Mean of the data set's log-mel energies.
        std: Their standard deviation; the result is ``(x - mean) / (2 * std)``.
        pad_value: What a clip shorter than T frames is padded with: ``zero``, log-mel energies of
            0, as published; or ``silence``, those of digital silence.
        patch: Frames of a patch, where a clip shorter than T frames keeps its own length: it is
            padded to whole patches. 0 pads it to T frames.

    Raises:
        ValueError: ``target_length`` or ``std`` is not positive, a value is not finite,
            ``pad_value`` is unknown, or T frames are not whole patches.
    """

    target_length: int
    mean: float
    std: float
    pad_value: str = "zero"
    patch: int = 0

    def __post_init__(self) -> None:
        """Refuse values that cannot normalise anything."""
        if self.target_length < 1:
            raise ValueError(f"target_length must be at least 1 frame, got {self.target_length}")
        if not math.isfinite(self.mean):
            raise ValueError(f"mean must be finite, got {self.mean}")
        if not (math.isfinite(self.std) and self.std > 0):
            raise ValueError(f"std must be positive and finite, got {self.std}")
        if self.pad_value not in PAD_VALUES:
            raise ValueError(
                f"pad_value is {self.pad_value!r}; choose one of {', '.join(PAD_VALUES)}"
            )
        if self.patch and self.target_length % self.patch:
            raise ValueError(
                f"target_length is {self.target_length}; it must be divisible by "
                f"patch_size={self.patch}"
            )

    def needed_samples(self, sample_rate: int) -> int:
        """Count the samples at the start of a clip that determine its first T frames.

        Args:
            sample_rate: The clip's own rate in Hz.

        Returns:
            A number of samples at ``sample_rate``, the resampler's margin included.
        """
        period_in, period_out, width = _rate_pair(sample_rate, SAMPLE_RATE)
        last = FRAME_LENGTH + (self.target_length - 1) * FRAME_SHIFT - 1  # at 16 kHz
        return last * period_in // period_out + width + 1

    def __call__(self, waveform: Tensor, sample_rate: int) -> Tensor:
        """Compute the normalised spectrogram of the beginning of a clip.

        Args:
            waveform: `[n]` float32, one channel; samples after ``needed_samples`` have no effect.
            sample_rate: Its rate in Hz.

        Returns:
            `[1, T, 128]` float32, time x mel.

        Raises:
            ValueError: ``waveform`` has more than one dimension (average the channels first).
        """
        return self.finish(self.energies(waveform, sample_rate))

    def energies(self, waveform: Tensor, sample_rate: int) -> Tensor:
        """Compute the log-mel energies of the beginning of a clip, as `__call__` does at first.

        Returns:
            `[n, 128]` float32: T frames, or fewer of a short clip.
        """
        if waveform.dim() != 1:
            raise ValueError(f"waveform must have one dimension, got {list(waveform.shape)}")
        return self.batch_energies(waveform, sample_rate)

    def batch_energies(self, waveforms: Tensor, sample_rate: int) -> Tensor:
        """Compute what `energies` does, of many clips of one length at once.

        Args:
            waveforms: `[..., n]`.
            sample_rate: Their rate in Hz.

        Returns:
            `[..., frames, 128]`, frames up to T.
        """
        waveforms = resample(waveforms[..., : self.needed_samples(sample_rate)], sample_rate)
        # Two rows: PyTorch divides one long sum among its threads, and their number would show.
        mean = waveforms.expand(2, *waveforms.shape).mean(dim=-1, keepdim=True)[0]
        return log_mel(waveforms - mean)[..., : self.target_length, :]

    def finish(self, energies: Tensor) -> Tensor:
        """Cut or pad log-mel energies to T frames, then normalise them.

        Args:
            energies: `[..., n, 128]`.

        Returns:
            `[..., 1, T, 128]`; of a clip that keeps its own length
            `[..., 1, ceil(n / patch) * patch, 128]`, if this is less.
        """
        length = self.target_length
        if self.patch:
            length = min(length, math.ceil(energies.shape[-2] / self.patch) * self.patch)
        padded = fit_length(energies, length, value=PAD_VALUES[self.pad_value])
        return (padded - self.mean).div_(2 * self.std).unsqueeze(-3)
