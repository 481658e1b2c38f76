"""Plain forms of the front end: they follow the definitions and cache nothing between calls."""

from __future__ import annotations

import math

import soundfile
import torch
from torch import Tensor
from torch.nn import functional as F


def resample(waveform: Tensor, orig_hz: int, new_hz: int = 16_000) -> Tensor:
    """Resample a waveform [n] with a sinc in a Hann window."""
    if orig_hz == new_hz:
        return waveform
    divisor = math.gcd(orig_hz, new_hz)
    orig, new = orig_hz // divisor, new_hz // divisor
    cutoff = 0.99 * min(orig, new)
    width = math.ceil(6 * orig / cutoff)
    inputs = torch.arange(-width, orig + width) / orig
    outputs = torch.arange(new) / new
    phase = ((inputs - outputs[:, None]) * cutoff).clamp(-6, 6)
    window = torch.cos(phase * math.pi / 12) ** 2
    angle = phase * math.pi
    sinc = torch.where(angle == 0, 1.0, angle.sin() / angle)
    kernel = sinc * (window * (cutoff / orig))
    padded = F.pad(waveform, (width, width + orig))
    resampled = F.conv1d(padded[None, None], kernel[:, None], stride=orig)
    return resampled[0].T.flatten()[: math.ceil(len(waveform) * new / orig)]


def log_mel(waveform: Tensor) -> Tensor:
    """Compute the log-mel energies [frames, 128] of a waveform [n] at 16 kHz."""
    frames = waveform.unfold(0, 400, 160)
    frames = frames - frames.mean(dim=1, keepdim=True)
    previous = torch.cat([frames[:, :1], frames[:, :-1]], dim=1)
    frames = (frames - 0.97 * previous) * torch.hann_window(400, periodic=False)
    power = torch.fft.rfft(F.pad(frames, (0, 112))).abs() ** 2
    low, high = (1127 * math.log(1 + hz / 700) for hz in (20, 8000))
    edges = low + (high - low) / 129 * torch.arange(130)[:, None]
    bins = 1127 * torch.log(1 + torch.arange(257) * (16_000 / 512) / 700)
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    filters = torch.minimum(rising, falling).clamp(min=0)
    return (power @ filters.T).clamp(min=2**-23).log()


def decibels(waveform: Tensor, target_length: int) -> Tensor:
    """Compute the decibels [1, T, 128] of a waveform [n] at 16 kHz, from 0 to 1."""
    window = torch.hann_window(1024)
    spectrum = torch.stft(waveform, 1024, 160, window=window, return_complex=True)  # [513, frames]
    edges = torch.linspace(0, 2595 * math.log10(1 + 8000 / 700), 130)
    edges = 700 * (10 ** (edges / 2595) - 1)[:, None]
    bins = torch.arange(513) * (16_000 / 1024)
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    filters = torch.minimum(rising, falling).clamp(min=0)
    values = 10 * (filters @ spectrum.abs() ** 2).T.clamp(min=1e-10).log10()
    values = values.clamp(min=values.max() - 80)
    values = (values - values.min()) / (values.max() - values.min())
    return F.pad(values, (0, 0, 0, target_length - len(values)))[None]


def draw_masks(
    grid: tuple[int, int], num_masks: int, mask_prob: float, adjust: float, length: int
) -> Tensor:
    """Draw inverse block masks [K, L], 1 = hidden, in loops over masks and blocks."""
    rows, columns = grid
    total = rows * columns
    wanted = int(total * (1 - mask_prob))
    num_blocks = int(total * ((1 - mask_prob + adjust) / length**2))
    offset = length // 2
    masks = []
    for _ in range(num_masks):
        kept = torch.zeros(rows, columns)
        for centre in torch.randint(total, (num_blocks,)).tolist():
            row, column = centre // columns - offset, centre % columns - offset
            kept[max(row, 0) : row + length, max(column, 0) : column + length] = 1
        kept = kept.flatten()
        inside, outside = kept.nonzero().flatten(), (kept == 0).nonzero().flatten()
        surplus = len(inside) - wanted
        if surplus > 0:
            kept[inside[torch.randperm(len(inside))[:surplus]]] = 0
        else:
            kept[outside[torch.randperm(len(outside))[:-surplus]]] = 1
        masks.append(1 - kept)
    return torch.stack(masks)


def read_audio(path: str) -> tuple[Tensor, int]:
    """Read a file and average its channels; return [n] and the rate in Hz."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return torch.from_numpy(samples.mean(axis=1)), rate


def load(path: str, target_length: int, mean: float, std: float) -> Tensor:
    """Read a file and compute its normalised spectrogram [1, T, 128]."""
    waveform, rate = read_audio(path)
    waveform = resample(waveform, rate)
    energies = log_mel(waveform - waveform.mean())[:target_length]
    energies = F.pad(energies, (0, 0, 0, target_length - len(energies)))
    return ((energies - mean) / (2 * std))[None]
