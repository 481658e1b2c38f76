"""Where waveforms come from, read whole or in part, with what is wrong named.

The path alone says what a clip is:
    name                         an audio file; one that is there goes before all below
    archive.zip:OFFSET:LENGTH    an audio file stored uncompressed in a zip archive, read in place
    archive.tar:OFFSET:LENGTH    an audio file in a tar archive
    file.h5/key/of/dataset       a dataset of an HDF5 file (see ``hdf5``)

In this file:
    probe_audio   length and rate of a clip, from its header alone
    read_audio    the samples of a clip, one channel
    read_blocks   the same, one part after another: for clips of any length
    open_clip     a clip, for reading as one likes
    read_opened   the samples of an open clip, one channel
    check_count   were as many samples decoded as its header says?
    check_values  are they finite, and not beyond measure?

Everything a damaged file can do ends in a ClipError; the caller knows the path and adds it.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import soundfile
import torch
from torch import Tensor

from .containers import Span, check_span, find_span
from .clip import AudioClip, ClipError
from .files import open_regular
from .hdf5 import find_dataset, open_dataset
from .wav import find_wav

LOWEST_RATE, HIGHEST_RATE = 1_000, 1_000_000  # Hz; heart sounds at 2 kHz, bats at 500 kHz
LONGEST_CLIP = 1 << 40  # samples; libsndfile gives 2**63 - 1 where it cannot tell
LOUDEST_SAMPLE = 1e10  # full scale is 1; squares of a spectrum of this still fit into float32
INTEGERS = "PCM_"  # subtypes whose samples are finite, and full scale at most
FEW_CHANNELS = 7  # of more, NumPy adds in another order
BLOCK = 1 << 20  # values a read: no allocation rests on what a header claims
MP3_TOLERANCE = 2 * 1152  # samples, two frames: an mp3's length is its decoder's estimate
MISSING_TOLERANCE = 0.01  # of a wav's data; some writers declare a few bytes too many
UNKNOWN_WAV_SIZES = (0, 0x7FFFFFFF, 0xFFFFFFFF)  # what programs that write to a pipe declare


def probe_audio(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Read a clip's length and rate from its header; no samples are decoded.

    Args:
        path: A clip. Audio files are wav, flac, ogg, mp3 or another format that libsndfile reads.

    Returns:
        The number of samples of a channel, and the sampling rate in Hz.

    Raises:
        ClipError: The file cannot be opened, is not audio, or its header makes no sense.
    """
    with open_clip(path) as clip:
        return clip.frames, clip.samplerate


def read_audio(
    path: str | os.PathLike[str],
    expected_samples: int | None = None,
    start: int = 0,
    num_samples: int | None = None,
) -> tuple[Tensor, int]:
    """Read a clip, or a part of one, and average its channels.

    Only the part asked for is decoded. An mp3's length, an estimate, may be off by 2304 samples.

    Args:
        path: A clip.
        expected_samples: The length that the clip's header has to give, a manifest's entry.
        start: First sample to read, at the clip's own rate.
        num_samples: Samples to read at most; None reads to the end.

    Returns:
        The waveform `[n]` float32, full scale at 1, and its sampling rate in Hz; n is
        ``num_samples``, or fewer where the clip ends before.

    Raises:
        ClipError: The file cannot be opened or decoded, ends early, has another length than
            expected, no samples, or samples that are not finite.
        ValueError: ``start`` is negative or ``num_samples`` is not positive.
    """
    with open_clip(path) as clip:
        return read_opened(clip, expected_samples, start, num_samples), clip.samplerate


def read_opened(
    clip: AudioClip,
    expected_samples: int | None = None,
    start: int = 0,
    num_samples: int | None = None,
) -> Tensor:
    """Read an open clip, or a part of one, and average its channels.

    Args:
        clip: From ``open_clip``; all else, and what may be raised, is as in ``read_audio``.
        expected_samples: The length that the clip's header has to give.
        start: First sample to read.
        num_samples: Samples to read at most.

    Returns:
        The waveform `[n]` float32.
    """
    if start < 0 or (num_samples is not None and num_samples < 1):
        raise ValueError(f"cannot read {num_samples} samples from sample {start}")
    _check_length(clip, expected_samples)
    wanted = clip.frames - start
    if num_samples is not None:
        wanted = min(wanted, num_samples)
    if wanted < 1:
        raise ClipError(f"has {clip.frames} samples, none from sample {start} on")
    if start:
        clip.seek(start)
    waveform = _read_mono(clip, wanted)
    check_count(clip, len(waveform), wanted)
    check_values(clip, waveform)
    return torch.from_numpy(waveform)


def read_blocks(
    path: str | os.PathLike[str], seconds: int, expected_samples: int | None = None
) -> Iterator[tuple[Tensor, int]]:
    """Read a clip from its start to its end in parts, and average its channels.

    Args:
        path: A clip.
        seconds: Length of a part; the last one may be shorter.
        expected_samples: The length that the clip's header has to give, a manifest's entry.

    Yields:
        What ``read_audio`` would return of each part.

    Raises:
        ClipError: As ``read_audio`` of the whole clip.
    """
    with open_clip(path) as clip:
        _check_length(clip, expected_samples)
        found, total, rate = 0, clip.frames, clip.samplerate
        while found < total:
            waveform = _read_mono(clip, min(seconds * rate, total - found))
            if len(waveform) == 0:
                break
            check_values(clip, waveform)
            yield torch.from_numpy(waveform), rate
            found += len(waveform)
        check_count(clip, found, total)


def _check_length(clip: AudioClip, expected_samples: int | None) -> None:
    if expected_samples is not None and abs(clip.frames - expected_samples) > _tolerance(clip):
        raise ClipError(f"has {clip.frames} samples, but {expected_samples} were expected")


def _tolerance(clip: AudioClip) -> int:
    """Return by how many samples a clip's length may be off."""
    return MP3_TOLERANCE if "MPEG" in clip.subtype else 0


def check_count(clip: AudioClip, found: int, wanted: int) -> None:
    """Raise ClipError if fewer samples of an open clip could be decoded than its header promises.

    Args:
        clip: The clip.
        found: Samples that were decoded.
        wanted: Samples that there ought to be.
    """
    if found == 0 or found < wanted - _tolerance(clip):
        raise ClipError(f"is truncated: {found} of {wanted} samples could be decoded")


def check_values(clip: AudioClip, samples: np.ndarray) -> None:
    """Raise ClipError if samples of an open clip, float32 of any shape, can be no audio."""
    if clip.subtype.startswith(INTEGERS):
        return
    flat = torch.from_numpy(samples).flatten()
    if float(flat.dot(flat)) < LOUDEST_SAMPLE**2:  # one pass; false where it is NaN
        return
    loudest = np.maximum(samples.max(), -samples.min())
    if not np.isfinite(loudest):
        raise ClipError("has samples that are not finite numbers")
    if loudest > LOUDEST_SAMPLE:
        raise ClipError(f"has samples of up to {loudest:.1e}, where full scale is 1")


@contextmanager
def open_clip(path: str | os.PathLike[str]) -> Iterator[AudioClip]:
    """Open a clip for reading, its header checked: the one place that tells sources apart.

    Args:
        path: What the manifest names, below its root.

    Yields:
        The open clip. What goes wrong while it is open is raised as a ClipError, too.

    Raises:
        ClipError: The clip cannot be opened, is not audio, or its header makes no sense.
    """
    with _open_source(os.fspath(path)) as clip:
        _check_header(clip)
        yield clip


def _open_source(path: str) -> AbstractContextManager[AudioClip]:
    span = find_span(path)
    if span is not None and not os.path.lexists(path):
        return _open_file(span.archive, span)
    dataset = find_dataset(path)
    if dataset is not None:
        return open_dataset(*dataset)
    return _open_file(path)


@contextmanager
def _open_file(path: str, span: Span | None = None) -> Iterator[AudioClip]:
    """Open an audio file, or the part of an archive that is one."""
    # By descriptor: libsndfile would guess at a format from the file's name, soundfile likewise.
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
                yield clip
        finally:
            if isinstance(source, _ByteRange) and source.error is not None:
                raise source.error  # what libsndfile made of it says less
    except soundfile.LibsndfileError as error:
        raise ClipError(f"cannot be decoded: {error.error_string.rstrip('. ')}") from error
    except (soundfile.SoundFileError, OSError, OverflowError, MemoryError) as error:
        raise ClipError(f"cannot be decoded: {error}") from error
    finally:
        os.close(descriptor)


class _ByteRange:
    """A part of an open file, for soundfile to read as if it were a file.

    libsndfile calls these methods, and no exception can pass through it: it is kept in ``error``.
    """

    def __init__(self, descriptor: int, span: Span, size: int) -> None:
        check_span(span, size)
        self.error: OSError | None = None
        self._file = io.FileIO(descriptor, closefd=False)
        self._start, self._length = span.start, span.length
        self._position = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a position within the part."""
        origins = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._length}
        self._position = max(0, origins[whence] + offset)
        return self._position

    def tell(self) -> int:
        """Return the position within the part."""
        return self._position

    def readinto(self, buffer: memoryview) -> int:
        """Fill a buffer, as far as the part goes; return the number of bytes."""
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
    # libsndfile shortens a wav that ends early to what is there, and tells only its log.
    declared = re.search(r"^data : (\d+) \(should be (\d+)\)", clip.extra_info, re.MULTILINE)
    if declared is None or int(declared[1]) in UNKNOWN_WAV_SIZES:
        return
    size, found = int(declared[1]), int(declared[2])
    if size - found > MISSING_TOLERANCE * size:
        raise ClipError(f"is truncated: {found} of {size} bytes of samples are there")


def _read_mono(clip: AudioClip, wanted: int) -> np.ndarray:
    """Decode up to ``wanted`` samples from where the clip stands, channels averaged, `[n]`."""
    blocks = []
    longest = max(1, BLOCK // clip.channels)
    while wanted > 0:
        block = clip.read(min(wanted, longest), dtype="float32", always_2d=True)  # [n, channels]
        if len(block) == 0:
            break
        blocks.append(_average_channels(block))
        wanted -= len(block)
    if len(blocks) == 1:
        return blocks[0]
    return np.concatenate(blocks) if blocks else np.zeros(0, dtype=np.float32)


def _average_channels(block: np.ndarray) -> np.ndarray:
    """Average the channels of samples, `[n, channels]` to `[n]`."""
    if block.shape[1] > FEW_CHANNELS:
        return block.mean(axis=1)
    first, *others = block.T  # a mean over rows as short as these takes ten times as long
    if not others:
        return first
    total = first + others[0]
    for channel in others[1:]:
        total += channel
    total /= block.shape[1]
    return total
