"""Clips of different length in one batch (``task.length=mask``).

In this file:
    ClipLengths       how long the clips of a manifest are
    measure_lengths   from the manifest and a few headers
    sort_by_length    an order in which neighbours are about as long
    pad_clips         a batch, and what of it is padding
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .clip import ClipError
from .frontend import SAMPLE_RATE, FrontEnd, count_frames
from .manifest import Manifest
from ..inference.windows import probe_clip

PROBES = 16  # clips whose headers are read
SPREAD = 0.1  # of the lengths of neighbours, so that they are not always the same ones


class ClipLengths(NamedTuple):
    """How long clips are.

    Attributes:
        frames: of each clip as it is read, whole patches, `[clips]` int64. It is what batches are
            made by, and may be off where clips have different sampling rates.
        patch: frames of a patch.
    """

    frames: np.ndarray
    patch: int


def measure_lengths(manifest: Manifest, front_end: FrontEnd) -> ClipLengths:
    """Find out how long clips are, without a look at each of them.

    A manifest has each clip's samples at its own rate. The lowest rate of some clips all over the
    manifest is taken for that of all: others then pass for longer than they are, not for shorter.

    Args:
        manifest: the clips.
        front_end: one that keeps each clip's own length.
    """
    rates = []
    for index in np.linspace(0, len(manifest) - 1, min(PROBES, len(manifest))).astype(int):
        try:
            rates.append(probe_clip(manifest.path(int(index)))[1])
        except ClipError:
            continue  # named when it is its turn
    samples = -(-manifest.sizes * SAMPLE_RATE // min(rates, default=SAMPLE_RATE))
    frames = np.maximum(1, count_frames(samples))
    whole = -(-frames // front_end.patch) * front_end.patch
    return ClipLengths(np.minimum(whole, front_end.target_length), front_end.patch)


def sort_by_length(indices: np.ndarray, frames: np.ndarray, shuffle: bool) -> np.ndarray:
    """Sort clips by length, so that a batch of neighbours has little padding.

    Args:
        indices: [N], of clips.
        frames: of all clips.
        shuffle: lengthen each clip by up to a tenth for this purpose, at random from NumPy's
            global generator: every call brings other clips together.

    Returns:
        [N], the same indices.
    """
    keys = frames[indices].astype(np.float64)
    if shuffle:
        keys *= np.random.uniform(1, 1 + SPREAD, len(keys))  # noqa: NPY002, fairseq seeds it
    return indices[np.argsort(keys, kind="stable")]


def pad_clips(clips: list[Tensor], patch: int) -> tuple[Tensor, Tensor | None]:
    """Put clips of different length into a batch.

    Args:
        clips: each [C, T_b, F], of whole patches.
        patch: side of a patch.

    Returns:
        [B, C, T, F], T the longest; and the padding, bool [B, L] in the order of patches, True for
        those of which a clip has nothing. None for clips of the same length.
    """
    columns = torch.tensor([clip.size(1) // patch for clip in clips])
    most = int(columns.max())
    if bool((columns == most).all()):
        return torch.stack(clips), None
    padded = [F.pad(clip, (0, 0, 0, most * patch - clip.size(1))) for clip in clips]
    padding = torch.arange(most) >= columns.unsqueeze(1)  # [B, T / p]
    bands = clips[0].size(2) // patch
    return torch.stack(padded), padding.repeat_interleave(bands, dim=1)
