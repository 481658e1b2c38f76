"""Samples instead of spectrograms, sent from the data workers to the model's device.

With ``task.fbank.device=model`` a worker only reads. It sends the samples of a window in the fewest
bits that hold them exactly:

    int16      samples that are multiples of 1/32768, as in mono 16-bit sound
    int32      other samples: the bits of float32, since fairseq would round floats to half
    precision float16    log-mel energies of a cached clip, as the cache has them
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .frontend import FrontEnd
from .reader import SpectrogramReader

FULL_SCALE = 1 << 15  # of int16


class PackedClip(NamedTuple):
    """A clip on its way to the model's device.

    Attributes:
        values: samples, `[n]` int16 or int32; or log-mel energies, `[n, 128]` float16.
        sample_rate: in Hz; 0 for energies.
    """

    values: Tensor
    sample_rate: int


class PackedReader(SpectrogramReader):
    """Reads the windows of a ``SpectrogramReader``, with the same random draws, as samples."""

    def read(self, index: int, generator: torch.Generator) -> PackedClip:
        """Read the window of a clip."""
        values, sample_rate = self.read_unprocessed(index, generator)
        if sample_rate is None:
            return PackedClip(values.half(), 0)
        return PackedClip(pack_waveform(values), sample_rate)

    def collate(self, clips: list[PackedClip]) -> dict[str, Any]:
        """Join clips: ``source`` from ``join_clips``."""
        return {"source": join_clips(clips)}


def pack_waveform(waveform: Tensor) -> Tensor:
    """Pack samples `[n]` float32: int16 in units of 1/32768 where exact, else int32, their bits."""
    scaled = waveform.numpy() * np.float32(FULL_SCALE)  # exact; NumPy is twice as fast here
    with np.errstate(invalid="ignore"):  # too loud for 16 bits: differs
        values = scaled.astype(np.int16)
    if np.array_equal(values, scaled):
        return torch.from_numpy(values)
    return waveform.contiguous().view(torch.int32)


def join_clips(clips: list[PackedClip]) -> dict[str, Any]:
    """Join B clips of any length and rate.

    Returns:
        ``groups`` of clips alike in type, length and rate: ``values`` [G, ...] and ``sample_rate``;
        ``order`` [B] int64, the position of each clip in the concatenated groups, or None for one
        group.
    """
    alike: dict[tuple[Any, ...], list[int]] = {}
    for number, (values, sample_rate) in enumerate(clips):
        alike.setdefault((values.dtype, values.shape, sample_rate), []).append(number)
    groups = [
        {
            "values": torch.stack([clips[number].values for number in numbers]),
            "sample_rate": clips[numbers[0]].sample_rate,
        }
        for numbers in alike.values()
    ]
    order = None
    if len(groups) > 1:
        order = torch.tensor([number for numbers in alike.values() for number in numbers])
        order = order.argsort()
    return {"groups": groups, "order": order}


def compute_spectrograms(batch: dict[str, Any], front_end: FrontEnd) -> Tensor:
    """Compute the spectrograms of a batch from ``join_clips``, on its device.

    On a CPU the values equal those of a ``SpectrogramReader``. Other devices compute in float64:
    exact where the order of a float32 sum would matter, and unaffected by TF32 and autocast.
    Nothing is synchronised, except for tables at their first use.

    Returns:
        `[B, 1, T, 128]`, normalised, in the precision of the arithmetic.
    """
    parts = [front_end.finish(_unpack(front_end, **group)) for group in batch["groups"]]
    if batch["order"] is None:
        return parts[0]
    return torch.cat(parts)[batch["order"]]


def _unpack(front_end: FrontEnd, values: Tensor, sample_rate: int) -> Tensor:
    """Return the log-mel energies of a group, `[G, n, 128]`."""
    precision = torch.float32 if values.device.type == "cpu" else torch.float64
    if values.dtype == torch.float16:
        return values.to(precision)
    if values.dtype == torch.int16:
        waveforms = values.to(precision) / FULL_SCALE
    else:
        waveforms = values.view(torch.float32).to(precision)
    return front_end.batch_energies(waveforms, sample_rate)
