"""Clips of different length in one batch (``task.length=mask``)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .clip import ClipError
from .frames import SAMPLE_RATE
from .frontend import FrontEnd
from .manifest import Manifest
from .sources import probe_clip

PROBES = 16  # clips whose headers are read for the lowest rate
SAMPLED = 64  # clips whose own length is measured
SPREAD = 0.1  # of a length, added at random before sorting


class ClipLengths(NamedTuple):
    """Lengths of clips, by which batches are made.

    Attributes:
        frames: frames of each clip as read, in whole patches, `[clips]` int64; too large for some
            clips if sampling rates differ.
        patch: frames of a patch.
        bins: mel bins of a patch.
    """

    frames: np.ndarray
    patch: int
    bins: int


def sample_lengths(manifest: Manifest) -> np.ndarray:
    """Return the lengths of some clips, spread evenly over a manifest, int64 [n], at 16 kHz.

    Clips whose header cannot be read are left out.

    Raises:
        ValueError: none can be read.
    """
    rates = _probe_rates(manifest, SAMPLED)
    if not rates:
        raise ValueError(
            f"none of {min(SAMPLED, len(manifest))} clips under {manifest.root} can be read, such "
            f"as {manifest.name(0)}; run eat manifest again, which names damaged files"
        )
    samples = [-(-int(manifest.sizes[index]) * SAMPLE_RATE // rate) for index, rate in rates]
    return np.array(samples, dtype=np.int64)


def measure_lengths(manifest: Manifest, front_end: FrontEnd) -> ClipLengths:
    """Estimate the lengths of clips from the manifest and a few headers.

    The manifest has samples at each clip's own rate. The lowest rate of a few clips is taken for
    all clips: the length of those with a higher rate is overestimated, that of clips with a lower
    one, which is not among the few, underestimated.

    Args:
        manifest: the clips.
        front_end: keeps each clip's own length (``patch`` > 0).
    """
    rates = [rate for _, rate in _probe_rates(manifest, PROBES)]
    samples = -(-manifest.sizes * SAMPLE_RATE // min(rates, default=SAMPLE_RATE))
    frames, patch = np.maximum(1, front_end.count_frames(samples)), front_end.patch
    whole = -(-frames // patch) * patch
    frames = np.minimum(whole, front_end.target_length)
    return ClipLengths(frames, patch, front_end.patch_bins or patch)


def _probe_rates(manifest: Manifest, most: int) -> list[tuple[int, int]]:
    """Read the rates of at most so many clips from their headers: index and rate in Hz of each."""
    found = []
    for index in np.linspace(0, len(manifest) - 1, min(most, len(manifest))).astype(int).tolist():
        try:
            found.append((index, probe_clip(manifest.entry(index)._replace(size=None))[1]))
        except ClipError:
            continue  # named when it is read
    return found


def sort_by_length(indices: np.ndarray, frames: np.ndarray, shuffle: bool) -> np.ndarray:
    """Sort clips by length, so that batches of neighbours have little padding.

    Args:
        indices: [N] indices of clips.
        frames: lengths of all clips.
        shuffle: sort by lengths increased by up to a tenth at random (NumPy's global generator), so
            that each call groups other clips.

    Returns:
        [N], the same indices.
    """
    keys = frames[indices].astype(np.float64)
    if shuffle:
        keys *= np.random.uniform(1, 1 + SPREAD, len(keys))  # noqa: NPY002, fairseq seeds it
    return indices[np.argsort(keys, kind="stable")]


def pad_clips(
    clips: list[Tensor], patch: int, bins: int | None = None
) -> tuple[Tensor, Tensor | None]:
    """Pad clips of different length to a batch.

    Args:
        clips: each [C, T_b, F], whole patches.
        patch: frames of a patch.
        bins: mel bins of a patch; None for as many as frames.

    Returns:
        [B, C, T, F], T the longest; and bool [B, L], True for patches of padding, or None if all
        clips have the same length.
    """
    columns = torch.tensor([clip.size(1) // patch for clip in clips])
    most = int(columns.max())
    if bool((columns == most).all()):
        return torch.stack(clips), None
    padded = [F.pad(clip, (0, 0, 0, most * patch - clip.size(1))) for clip in clips]
    padding = torch.arange(most) >= columns.unsqueeze(1)  # [B, T / p]
    bands = clips[0].size(2) // (bins or patch)
    return torch.stack(padded), padding.repeat_interleave(bands, dim=1)
