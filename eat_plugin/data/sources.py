"""Waveforms of clips, read whole or in part.

All damage ends in a ClipError; the caller knows the path and adds it.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

import numpy as np
import soundfile

from .channels import MEAN, choose_channel, mix_channels
from .clip import AudioClip, ClipError
from .declared import check_samples
from .entries import (
    Clip,
    Entry,
    Span,
    Storage,
    check_span,
    is_container,
    locate,
    split_dataset,
    split_span,
)
from .files import open_regular
from .wav import find_wav

if TYPE_CHECKING:
    from torch import Tensor

LOWEST_RATE, HIGHEST_RATE = 1_000, 1_000_000  # Hz; heart sounds at 2 kHz, bats at 500 kHz
LONGEST_CLIP = 1 << 40  # samples; libsndfile reports 2**63 - 1 for an unknown length
LOUDEST_SAMPLE = 1e10  # full scale is 1; the power spectrum of this still fits into float32
INTEGERS = "PCM_"  # subtypes with finite samples, full scale at most
BLOCK = 1 << 20  # values per read: no allocation depends on the length that a header claims
MP3_TOLERANCE = 2 * 1152  # samples, two frames: the length of an mp3 is estimated by its decoder
MISSING_TOLERANCE = 0.01  # of a wav's data; some writers declare a few bytes too many
UNKNOWN_WAV_SIZES = (0, 0x7FFFFFFF, 0xFFFFFFFF)  # declared by programs that write to a pipe


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
    if storage is Storage.ARCHIVE and not os.path.lexists(path):  # a file may have such a name
        span = split_span(path)
        assert span is not None
        return _open_file(span.archive, span)
    return _open_file(path)


@contextmanager
def _open_file(path: str, span: Span | None = None) -> Iterator[AudioClip]:
    """Open an audio file, or a range of bytes of an archive."""
    # By descriptor: libsndfile and soundfile would guess the format from the file's name.
    descriptor = open_regular(path, "" if span is None else "the archive ")
    try:
        size = os.fstat(descriptor).st_size
        source = descriptor if span is None else _ByteRange(descriptor, span, size)
        first, length = (0, size) if span is None else (span.start, span.length)
        wav = find_wav(descriptor, first, first + length)
        if wav is not None:
            yield wav
            return
        try:
            with soundfile.SoundFile(source, closefd=False) as clip:
                if clip.frames <= LONGEST_CLIP:  # others have an unknown length
                    check_samples(clip.frames, length)
                yield clip
        finally:
            if isinstance(source, _ByteRange) and source.error is not None:
                raise source.error  # more precise than libsndfile's message
    except soundfile.LibsndfileError as error:
        if span is None and is_container(path):
            raise ClipError("is an archive; list its clips by eat manifest") from error
        raise ClipError(f"cannot be decoded: {error.error_string.rstrip('. ')}") from error
    except (soundfile.SoundFileError, OSError, OverflowError, MemoryError) as error:
        raise ClipError(f"cannot be decoded: {error}") from error
    finally:
        os.close(descriptor)


class _ByteRange:
    """A range of an open file with the file interface that soundfile needs.

    No exception can pass through libsndfile, which calls these methods: it is kept in ``error``.
    """

    def __init__(self, descriptor: int, span: Span, size: int) -> None:
        check_span(span, size)
        self.error: OSError | None = None
        self._file = io.FileIO(descriptor, closefd=False)
        self._start, self._length = span.start, span.length
        self._position = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origins = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._length}
        self._position = max(0, origins[whence] + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: memoryview) -> int:
        wanted = max(0, min(len(buffer), self._length - self._position))
        try:
            self._file.seek(self._start + self._position)
            count = self._file.readinto(memoryview(buffer)[:wanted])
        except OSError as error:
            self.error = error
            return 0
        self._position += count
        return count


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
    # libsndfile shortens a truncated wav to the bytes that exist, and mentions it in its log only.
    declared = re.search(r"^data : (\d+) \(should be (\d+)\)", clip.extra_info, re.MULTILINE)
    if declared is None or int(declared[1]) in UNKNOWN_WAV_SIZES:
        return
    size, found = int(declared[1]), int(declared[2])
    if size - found > MISSING_TOLERANCE * size:
        raise ClipError(f"is truncated: {found} of {size} bytes of samples are there")


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
