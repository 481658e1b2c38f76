"""The front end as operations of an ONNX graph, for samples at 16 kHz."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data import decibels, kaldi
from ..data.frames import DB, FRAME_LENGTH, FRAME_SHIFT, KALDI, MEL_BINS, SAMPLE_RATE
from ..data.frontend import FrontEnd


class GraphFrontEnd(nn.Module):
    """Computes what ``FrontEnd`` computes, up to rounding: in float64, each frame by one matrix.

    Args:
        front_end: the front end.
        spectrum: of each sample of a frame alone, `[n, bins]` complex128.
        filters: mel filters, `[128, bins]`.

    Attributes:
        least: samples that the graph needs.

    Raises:
        ValueError: clips keep their own length (``task.length=mask``).
    """

    least = FRAME_LENGTH
    dft: Tensor
    filters: Tensor
    picks: Tensor
    mean: Tensor
    divisor: Tensor

    def __init__(self, front_end: FrontEnd, spectrum: Tensor, filters: Tensor) -> None:
        super().__init__()
        if front_end.patch:
            raise ValueError("--waveform needs task.length=pad or crop, and this model has mask")
        self.front_end = front_end
        self.register_buffer("dft", torch.cat([spectrum.real, spectrum.imag], dim=1))
        self.register_buffer("filters", filters.double().T)
        self.register_buffer("picks", torch.eye(len(spectrum)).unsqueeze(1))
        mean, divisor = front_end.scale(self.filters)
        self.register_buffer("mean", torch.as_tensor(mean).double().expand(MEL_BINS).clone())
        self.register_buffer("divisor", torch.as_tensor(divisor).double().expand(MEL_BINS).clone())

    def mel_energies(self, waveform: Tensor) -> Tensor:
        """Compute mel energies of samples `[B, n]`, a frame every 160: `[B, frames, 128]`."""
        # Exact: each weight is 0 or 1.
        frames = F.conv1d(waveform.unsqueeze(1), self.picks, stride=FRAME_SHIFT)  # [B, n, frames]
        real, imaginary = (frames.transpose(1, 2).double() @ self.dft).chunk(2, dim=2)
        return (real.square() + imaginary.square()) @ self.filters

    def cut(self, waveform: Tensor) -> Tensor:
        """Cut samples `[B, n]` to those that determine the window."""
        return waveform[:, : self.front_end.needed_samples(SAMPLE_RATE)]

    def finish(self, frames: Tensor, padding: Tensor) -> Tensor:
        """Cut frames `[B, frames, 128]` to the window, or pad them with `[128]`; normalise them.

        Returns:
            `[B, 1, T, 128]` float32.
        """
        length = self.front_end.target_length
        rows = padding.expand(frames.size(0), length, MEL_BINS)
        kept = torch.cat([frames, rows], dim=1)[:, :length]
        return ((kept - self.mean) / self.divisor).float().unsqueeze(1)


class KaldiGraph(GraphFrontEnd):
    """The front end ``kaldi``, for 400 samples or more.

    The rounding of float32 in ``FrontEnd`` differs by up to 2e-3 of log-mel energy in bins with
    almost no energy.
    """

    def __init__(self, front_end: FrontEnd) -> None:
        unit = torch.eye(FRAME_LENGTH, dtype=torch.float64)  # one frame a row
        centred = unit - unit.mean(dim=1, keepdim=True)
        previous = torch.cat([centred[:, :1], centred[:, :-1]], dim=1)
        frames = (centred - kaldi.PREEMPHASIS * previous) * kaldi.frame_window().double()
        spectrum = torch.fft.rfft(frames, n=kaldi.FFT_SIZE)  # [400, 257]
        super().__init__(front_end, spectrum, kaldi.mel_filters())

    def forward(self, waveform: Tensor) -> Tensor:
        """Map samples [B, n], float32, 400 or more, to the spectrogram [B, 1, T, 128]."""
        used = self.cut(waveform)
        used = used - used.double().mean(dim=1, keepdim=True).to(used.dtype)
        energies = self.mel_energies(used).clamp(min=kaldi.ENERGY_FLOOR).log()
        padding = torch.full_like(self.mean, kaldi.PAD_VALUES[self.front_end.pad_value])
        return self.finish(energies, padding)


class DecibelGraph(GraphFrontEnd):
    """The front end ``db``, for 513 samples or more: a graph reflects a clip at its ends once."""

    least = decibels.HALF + 1

    def __init__(self, front_end: FrontEnd) -> None:
        frames = torch.diag(decibels.frame_window())
        super().__init__(front_end, torch.fft.rfft(frames), decibels.mel_filters())

    def forward(self, waveform: Tensor) -> Tensor:
        """Map samples [B, n], float32, 513 or more, to the spectrogram [B, 1, T, 128]."""
        used = F.pad(self.cut(waveform), (decibels.HALF, decibels.HALF), mode="reflect")
        energies = self.mel_energies(used)[:, : self.front_end.target_length]
        values = 10 * energies.clamp(min=decibels.ENERGY_FLOOR).log10()
        high = values.amax(dim=(1, 2), keepdim=True)
        low = torch.maximum(values.amin(dim=(1, 2), keepdim=True), high - decibels.RANGE_DB)
        extent = (high - low).clamp(min=torch.finfo(torch.float32).tiny)
        scaled = ((values - low) / extent).clamp(min=0)
        return self.finish(scaled, torch.zeros_like(self.filters[0]))


GRAPHS: dict[str, type[KaldiGraph] | type[DecibelGraph]] = {KALDI: KaldiGraph, DB: DecibelGraph}
