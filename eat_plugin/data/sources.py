"""Waveforms of clips, read whole or in part.

All damage ends in a ClipError; the caller knows the path and adds it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

import numpy as np

from .channels import MEAN, choose_channel, mix_channels
from .clip import AudioClip, ClipError
from .entries import (
    Clip,
    Entry,
    Storage,
    find_part,
    locate,
    split_dataset,
)
from .sound_files import LONGEST_CLIP, open_file

if TYPE_CHECKING:
    from torch import Tensor

LOWEST_RATE, HIGHEST_RATE = 1_000, 1_000_000  # Hz; heart sounds at 2 kHz, bats at 500 kHz
LOUDEST_SAMPLE = 1e10  # full scale is 1; the power spectrum of this still fits into float32
INTEGERS = "PCM_"  # subtypes with finite samples, full scale at most
BLOCK = 1 << 20  # values per read: no allocation depends on the length that a header claims
MP3_TOLERANCE = 2 * 1152  # samples, two frames: manifests may hold an estimate of the decoder


@contextmanager
def open_clip(clip: Clip) -> Iterator[AudioClip]:
    """Open a clip and check its header; errors while it is open are ClipErrors too.

    Raises:
        ClipError: the clip cannot be opened, is not audio, has an impossible header, or another
            length than its entry says.
    """
    entry = locate(clip)
    with _open_source(entry) as opened:
        _check_header(opened)
        if entry.size is not None and abs(opened.frames - entry.size) > _tolerance(opened):
            raise ClipError(f"has {opened.frames} samples, but {entry.size} were expected")
        yield opened


def probe_clip(clip: Clip) -> tuple[int, int]:
    """Return samples per channel and rate in Hz of a clip, from its header alone.

    A cached clip gives the least number of samples at 16 kHz for its frames.

    Raises:
        ClipError: the header makes no sense, or the shard of a cached clip cannot be used.
    """
    entry = locate(clip)
    if entry.storage is Storage.CACHE:
        from .feature_cache import probe_cached

        return probe_cached(entry)
    with open_clip(entry) as opened:
        return opened.frames, opened.samplerate


def read_audio(
    clip: Clip, start: int = 0, num_samples: int | None = None, channels: str = MEAN
) -> tuple[Tensor, int]:
    """Open a clip and read it, or a part of it: the waveform `[n]` float32 and its rate in Hz."""
    with open_clip(clip) as opened:
        return read_opened(opened, start, num_samples, channels), opened.samplerate


def read_opened(
    clip: AudioClip, start: int = 0, num_samples: int | None = None, channels: str = MEAN
) -> Tensor:
    """Read an open clip, or a part of it, its channels mixed.

    Args:
        clip: from ``open_clip``.
        start: first sample, at the clip's own rate.
        num_samples: samples to read at most; None reads to the end.
        channels: how they are mixed, see the module ``channels``.

    Returns:
        The waveform `[n]` float32, full scale at 1; fewer than ``num_samples`` at the clip's end.

    Raises:
        ClipError: the clip cannot be decoded, is truncated, or has samples that are not finite.
        ValueError: ``start`` is negative or ``num_samples`` is not positive.
    """
    if start < 0 or (num_samples is not None and num_samples < 1):
        raise ValueError(f"cannot read {num_samples} samples from sample {start}")
    wanted = clip.frames - start
    if num_samples is not None:
        wanted = min(wanted, num_samples)
    if wanted < 1:
        raise ClipError(f"has {clip.frames} samples, none from sample {start} on")
    channel = choose_channel(clip, channels)
    if start:
        clip.seek(start)
    waveform = _read_mono(clip, wanted, channel)
    check_count(clip, len(waveform), wanted)
    check_values(clip, waveform)
    return _to_tensor(waveform)


def read_blocks(clip: Clip, seconds: int, channels: str = MEAN) -> Iterator[tuple[Tensor, int]]:
    """Read a whole clip in blocks, its channels mixed.

    Yields:
        Blocks `[n]` float32 of ``seconds``, the last one shorter, and the rate in Hz.

    Raises:
        ClipError: as ``open_clip`` and ``read_opened``.
    """
    with open_clip(clip) as opened:
        found, total, rate = 0, opened.frames, opened.samplerate
        channel = choose_channel(opened, channels)
        while found < total:
            waveform = _read_mono(opened, min(seconds * rate, total - found), channel)
            if len(waveform) == 0:
                break
            check_values(opened, waveform)
            yield _to_tensor(waveform), rate
            found += len(waveform)
        check_count(opened, found, total)


def _to_tensor(samples: np.ndarray) -> Tensor:
    import torch  # here, so that files can be listed without it

    return torch.from_numpy(samples)


def _tolerance(clip: AudioClip) -> int:
    """Return the possible error of a clip's length, in samples."""
    return MP3_TOLERANCE if "MPEG" in clip.subtype else 0


def check_count(clip: AudioClip, found: int, wanted: int) -> None:
    """Raise ClipError if fewer samples were decoded than the header promises."""
    if found == 0 or found < wanted - _tolerance(clip):
        raise ClipError(f"is truncated: {found} of {wanted} samples could be decoded")


def check_values(clip: AudioClip, samples: np.ndarray) -> None:
    """Raise ClipError if samples, float32 of any shape, cannot be audio."""
    if clip.subtype.startswith(INTEGERS):
        return
    flat = _to_tensor(samples).flatten()
    if float(flat.dot(flat)) < LOUDEST_SAMPLE**2:  # one pass; false for NaN
        return
    loudest = np.maximum(samples.max(), -samples.min())
    if not np.isfinite(loudest):
        raise ClipError("has samples that are not finite numbers")
    if loudest > LOUDEST_SAMPLE:
        raise ClipError(f"has samples of up to {loudest:.1e}, where full scale is 1")


def _open_source(entry: Entry) -> AbstractContextManager[AudioClip]:
    path, storage = entry.path, entry.storage
    if entry.open_samples is not None:
        return nullcontext(entry.open_samples())
    if storage is Storage.IMAGE:
        raise ClipError("is an image by the ending of its name; images need task.images")
    if storage is Storage.CACHE:
        raise ClipError("is in a feature cache, which has no waveforms")
    if storage is Storage.HDF5:
        from .hdf5 import open_dataset  # an optional library

        return open_dataset(*split_dataset(path))
    if storage is Storage.ARCHIVE and os.path.lexists(path):  # a file may have such a name
        return open_file(path, None, entry.size, entry.stored)
    part = find_part(path) if storage in (Storage.ARCHIVE, Storage.PARQUET) else None
    if part is not None:
        return open_file(part[0], part, entry.size, entry.stored)
    return open_file(path, None, entry.size, entry.stored)


def _check_header(clip: AudioClip) -> None:
    if not LOWEST_RATE <= clip.samplerate <= HIGHEST_RATE:
        raise ClipError(
            f"has a sampling rate of {clip.samplerate} Hz; "
            f"{LOWEST_RATE} to {HIGHEST_RATE} Hz can be used"
        )
    if clip.frames < 1:
        raise ClipError("has no samples")
    if clip.frames > LONGEST_CLIP:
        raise ClipError("has a header that does not give its length")


def _read_mono(clip: AudioClip, wanted: int, channel: int | None) -> np.ndarray:
    """Decode up to ``wanted`` samples from the current position, channels mixed, `[n]`."""
    blocks = []
    longest = max(1, BLOCK // clip.channels)
    while wanted > 0:
        block = clip.read(min(wanted, longest), dtype="float32", always_2d=True)  # [n, channels]
        if len(block) == 0:
            break
        blocks.append(mix_channels(block, channel))
        wanted -= len(block)
    if len(blocks) == 1:
        return blocks[0]
    return np.concatenate(blocks) if blocks else np.zeros(0, dtype=np.float32)
