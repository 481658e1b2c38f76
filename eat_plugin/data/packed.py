"""Samples rather than spectrograms, from the data workers to where the model is.

With ``task.fbank.device=model`` a worker only reads. What it sends of a clip are the samples that
the window needs, in the fewest bits that hold them exactly:
    int16      samples that are multiples of 1/32768, as 16-bit sound with one channel has them
    int32      other samples: the bits of float32, which fairseq would round where it trains in half
               precision
    float16    log-mel energies of a clip that is in a cache, which holds them like this

In this file:
    PackedClip             a clip on its way
    SampleReader           reads windows of audio as such clips
    pack_waveform          samples, in the fewest bits that hold them
    join_clips             a batch of clips on their way
    compute_spectrograms   what the model takes, of such a batch
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .frontend import FrontEnd
from ..images.decode import refuse_image
from .manifest import Manifest
from .reader import AudioReader

FULL_SCALE = 1 << 15  # of int16


class PackedClip(NamedTuple):
    """A clip on its way to the model.

    Attributes:
        values: samples, `[n]` int16 or int32; or log-mel energies, `[n, 128]` float16.
        sample_rate: of samples, in Hz; 0 of energies.
    """

    values: Tensor
    sample_rate: int


class SampleReader:
    """Reads windows of audio as samples; see ``readers.ClipReader``.

    What it draws it draws as an ``AudioReader`` does: both read the same windows.

    Args:
        manifest: the clips.
        front_end: makes spectrograms of them later.
        crop: as of an ``AudioReader``.
        roll_gain: likewise.

    Raises:
        ValueError: as of an ``AudioReader``.
    """

    def __init__(
        self,
        manifest: Manifest,
        front_end: FrontEnd,
        *,
        crop: str = "start",
        roll_gain: bool = False,
    ) -> None:
        self.manifest = manifest
        self.front_end = front_end
        self._audio = AudioReader(manifest, front_end, crop=crop, roll_gain=roll_gain)

    @property
    def num_frames(self) -> int:
        """Frames of 10 ms of the spectrograms, T."""
        return self.front_end.target_length

    def __call__(self, index: int, generator: torch.Generator) -> PackedClip:
        """Read a clip's window."""
        refuse_image(self.manifest.name(index))
        values, sample_rate = self._audio.read(index, generator)
        if sample_rate is None:
            return PackedClip(values.half(), 0)
        return PackedClip(pack_waveform(values), sample_rate)


def pack_waveform(waveform: Tensor) -> Tensor:
    """Put samples into the fewest bits that hold them exactly.

    Args:
        waveform: `[n]` float32, full scale at 1.

    Returns:
        `[n]` int16, in units of 1/32768; or int32, the bits of ``waveform``.
    """
    scaled = waveform.numpy() * np.float32(FULL_SCALE)  # exact; NumPy is twice as fast here
    with np.errstate(invalid="ignore"):  # too loud for 16 bits: comes out as something else
        values = scaled.astype(np.int16)
    if np.array_equal(values, scaled):
        return torch.from_numpy(values)
    return waveform.contiguous().view(torch.int32)


def join_clips(clips: list[PackedClip]) -> dict[str, Any]:
    """Put clips on their way into a batch.

    Args:
        clips: B clips, of any lengths and rates.

    Returns:
        ``groups``, each ``values`` [G, ...] of clips that are alike in type, length and rate, with
        their ``sample_rate``; and ``order`` [B] int64, where each clip is in these groups, one
        after another; None if there is one group, which then has them in order.
    """
    members: dict[tuple[Any, ...], list[int]] = {}
    for number, (values, sample_rate) in enumerate(clips):
        members.setdefault((values.dtype, values.shape, sample_rate), []).append(number)
    groups = [
        {
            "values": torch.stack([clips[number].values for number in numbers]),
            "sample_rate": clips[numbers[0]].sample_rate,
        }
        for numbers in members.values()
    ]
    order = None
    if len(groups) > 1:
        order = torch.tensor([number for numbers in members.values() for number in numbers])
        order = order.argsort()
    return {"groups": groups, "order": order}


def compute_spectrograms(batch: dict[str, Any], front_end: FrontEnd) -> Tensor:
    """Make a model's input of a batch, where the batch is.

    On a processor the numbers are those of an ``AudioReader``. On another device arithmetic is that
    of float64: exact where float32 leaves the order of a sum in doubt, and no setting for speed
    (TF32, autocast) touches it. Nothing is waited for there, but for tables at their first use.

    Args:
        batch: what ``join_clips`` has made, on any device.
        front_end: the settings.

    Returns:
        `[B, 1, T, 128]`, normalised, in the precision of the arithmetic.
    """
    parts = [front_end.finish(_unpack(front_end, **group)) for group in batch["groups"]]
    if batch["order"] is None:
        return parts[0]
    return torch.cat(parts)[batch["order"]]


def _unpack(front_end: FrontEnd, values: Tensor, sample_rate: int) -> Tensor:
    """Return the log-mel energies of clips that are alike, `[G, n, 128]`."""
    precision = torch.float32 if values.device.type == "cpu" else torch.float64
    if values.dtype == torch.float16:
        return values.to(precision)
    if values.dtype == torch.int16:
        waveforms = values.to(precision) / FULL_SCALE
    else:
        waveforms = values.view(torch.float32).to(precision)
    return front_end.batch_energies(waveforms, sample_rate)
