"""The front end as operations of an ONNX graph, for samples at 16 kHz."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.frames import FRAME_LENGTH, FRAME_SHIFT, MEL_BINS, SAMPLE_RATE
from ..data.frontend import (
    ENERGY_FLOOR,
    FFT_SIZE,
    PAD_VALUES,
    PREEMPHASIS,
    FrontEnd,
    frame_window,
    mel_filters,
)


class GraphFrontEnd(nn.Module):
    """Computes what ``FrontEnd`` computes, up to rounding: in float64, each frame by one matrix.

    The rounding of float32 in ``FrontEnd`` differs by up to 2e-3 of log-mel energy in bins with
    almost no energy.

    Raises:
        ValueError: clips keep their own length (``task.length=mask``).
    """

    dft: Tensor
    filters: Tensor
    mean: Tensor
    divisor: Tensor
    picks: Tensor

    def __init__(self, front_end: FrontEnd) -> None:
        super().__init__()
        if front_end.patch:
            raise ValueError("--waveform needs task.length=pad or crop, and this model has mask")
        self.front_end = front_end
        unit = torch.eye(FRAME_LENGTH, dtype=torch.float64)  # one frame a row
        centred = unit - unit.mean(dim=1, keepdim=True)
        previous = torch.cat([centred[:, :1], centred[:, :-1]], dim=1)
        frames = (centred - PREEMPHASIS * previous) * frame_window().double()
        spectrum = torch.fft.rfft(frames, n=FFT_SIZE)  # [400, 257]
        mean, divisor = front_end.scale(unit)
        self.register_buffer("dft", torch.cat([spectrum.real, spectrum.imag], dim=1))
        self.register_buffer("filters", mel_filters().double().T)
        self.register_buffer("mean", torch.as_tensor(mean).double().expand(MEL_BINS).clone())
        self.register_buffer("divisor", torch.as_tensor(divisor).double().expand(MEL_BINS).clone())
        self.register_buffer("picks", torch.eye(FRAME_LENGTH).unsqueeze(1))

    def forward(self, waveform: Tensor) -> Tensor:
        """Map samples [B, n], float32, 400 or more, to the spectrogram [B, 1, T, 128]."""
        used = waveform[:, : self.front_end.needed_samples(SAMPLE_RATE)]
        used = used - used.double().mean(dim=1, keepdim=True).to(used.dtype)
        # Exact: each weight is 0 or 1.
        frames = F.conv1d(used.unsqueeze(1), self.picks, stride=FRAME_SHIFT)  # [B, 400, frames]
        real, imaginary = (frames.transpose(1, 2).double() @ self.dft).chunk(2, dim=2)
        power = real.square() + imaginary.square()
        energies = (power @ self.filters).clamp(min=ENERGY_FLOOR).log()  # [B, frames, 128]
        length = self.front_end.target_length
        padding = torch.full_like(self.mean, PAD_VALUES[self.front_end.pad_value])
        rows = padding.expand(energies.size(0), length, MEL_BINS)
        kept = torch.cat([energies, rows], dim=1)[:, :length]
        return ((kept - self.mean) / self.divisor).to(waveform.dtype).unsqueeze(1)
