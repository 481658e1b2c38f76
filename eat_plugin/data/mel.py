"""What all front ends share: mel energies of windowed frames, by few and fast operations."""

from __future__ import annotations

from typing import Any, Callable, NamedTuple

import numpy as np
import torch
from torch import Tensor

BAND = 16  # mel filters computed at once


class Tables(NamedTuple):
    """Constants of a front end on a device.

    Attributes:
        window: of a frame, `[n]`.
        bands: the bins of the power spectrum that a band of filters covers, and its weights
            `[bins, BAND]`.
    """

    window: Tensor
    bands: list[tuple[slice, Tensor]]

    @classmethod
    def make(
        cls, window: Tensor, filters: Tensor, device: torch.device, dtype: torch.dtype
    ) -> Tables:
        """Make the tables of a window `[n]` and of filters `[mel bins, bins]`."""
        bands = []
        for part in filters.split(BAND):
            covered = part.any(dim=0).nonzero().flatten().tolist()
            bins = slice(covered[0], covered[-1] + 1)
            bands.append((bins, part[:, bins].T.contiguous().to(device, dtype)))
        return cls(window.to(device, dtype), bands)


def triangles(bins: Tensor, edges: Tensor) -> Tensor:
    """Return triangular filters over the bins of a spectrum, `[edges - 2, bins]`.

    Each rises from its left neighbour's centre and falls to its right neighbour's.

    Args:
        bins: position of each bin, `[bins]`.
        edges: the centres, and both ends, in the same unit.
    """
    left, centre, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (bins - left) / (centre - left), (right - bins) / (right - centre)
    return torch.minimum(rising, falling).clamp(min=0)


def sum_bands(frames: Tensor, tables: Tables) -> Tensor:
    """Return the mel energies of windowed frames: `[frames, n]` to `[frames, mel bins]`."""
    power = _power(torch.fft.rfft(frames))
    energies = power.new_empty(len(power), BAND * len(tables.bands))
    for (bins, weights), band in zip(tables.bands, energies.split(BAND, dim=1)):
        torch.mm(power[:, bins], weights, out=band)
    return energies


def _power(spectrum: Tensor) -> Tensor:
    """Square the magnitudes of a complex spectrum."""
    if spectrum.is_cpu:  # NumPy takes half as long with strided values
        values = spectrum.numpy()
        power = np.square(values.real)
        power += np.square(values.imag)
        return torch.from_numpy(power)
    return spectrum.real.square() + spectrum.imag.square()


def log_(values: Tensor) -> Tensor:
    """Take the logarithm of values in place."""
    if values.is_cpu:  # NumPy is faster
        np.log(values.numpy(), out=values.numpy())
        return values
    return values.log_()


def in_blocks(frames: Tensor, most: int, compute: Callable[[Tensor], Tensor]) -> Tensor:
    """Compute a function of frames `[..., frames, n]`; on a CPU by ``most`` frames at a time.

    They fit into the cache of a core then.
    """
    if not frames.is_cpu:
        return compute(frames)
    return torch.cat([compute(part) for part in frames.split(most, dim=-2)], dim=-2)


Scale = Callable[[Tensor], "tuple[Any, Any]"]
"""A tensor -> mean and divisor of inputs: numbers, or `[mel bins]` on the tensor's device."""
