"""Where waveforms come from: audio files, read whole or in part, with what is wrong named.

In this file:
    ClipError     a clip that cannot be used, and why
    probe_audio   length and rate of a clip, from its header alone
    read_audio    the samples of a clip, one channel

Everything a damaged file can do ends in a ClipError; the caller knows the path and adds it.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import soundfile
import torch
from torch import Tensor

LOWEST_RATE, HIGHEST_RATE = 1_000, 1_000_000  # Hz; heart sounds at 2 kHz, bats at 500 kHz
LONGEST_CLIP = 1 << 40  # samples; libsndfile gives 2**63 - 1 where it cannot tell
LOUDEST_SAMPLE = 1e10  # full scale is 1; squares of a spectrum of this still fit into float32
BLOCK = 1 << 20  # values a read: no allocation rests on what a header claims
MP3_TOLERANCE = 2 * 1152  # samples, two frames: an mp3's length is its decoder's estimate
MISSING_TOLERANCE = 0.01  # of a wav's data; some writers declare a few bytes too many
UNKNOWN_WAV_SIZES = (0, 0x7FFFFFFF, 0xFFFFFFFF)  # what programs that write to a pipe declare


class ClipError(ValueError):
    """A clip that cannot be used. The message says what is wrong, without the clip's path."""


def probe_audio(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Read a clip's length and rate from its header; no samples are decoded.

    Args:
        path: An audio file: wav, flac, ogg, mp3 or another format that libsndfile reads.

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
        path: An audio file.
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
    if start < 0 or (num_samples is not None and num_samples < 1):
        raise ValueError(f"cannot read {num_samples} samples from sample {start}")
    with open_clip(path) as clip:
        tolerance = MP3_TOLERANCE if "MPEG" in clip.subtype else 0
        if expected_samples is not None and abs(clip.frames - expected_samples) > tolerance:
            raise ClipError(f"has {clip.frames} samples, but {expected_samples} were expected")
        wanted = clip.frames - start
        if num_samples is not None:
            wanted = min(wanted, num_samples)
        if wanted < 1:
            raise ClipError(f"has {clip.frames} samples, none from sample {start} on")
        if start:
            clip.seek(start)
        waveform = _read_mono(clip, wanted)
        rate = clip.samplerate
    if len(waveform) == 0 or len(waveform) < wanted - tolerance:
        raise ClipError(f"is truncated: {len(waveform)} of {wanted} samples could be decoded")
    _check_values(waveform)
    return torch.from_numpy(waveform), rate


@contextmanager
def open_clip(path: str | os.PathLike[str]) -> Iterator[soundfile.SoundFile]:
    """Open a clip for reading, its header checked: the one place that tells sources apart.

    Args:
        path: What the manifest names: today, always a file.

    Yields:
        The open clip. What goes wrong while it is open is raised as a ClipError, too.

    Raises:
        ClipError: The clip cannot be opened, is not audio, or its header makes no sense.
    """
    with _open_file(path) as clip:
        _check_header(clip)
        yield clip


@contextmanager
def _open_file(path: str | os.PathLike[str]) -> Iterator[soundfile.SoundFile]:
    # By descriptor: libsndfile would guess at a format from the file's name, soundfile likewise.
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # no wait on a pipe
    except OSError as error:
        raise ClipError(f"cannot be opened: {error.strerror}") from error
    except ValueError as error:  # a name with a null byte, or that the file system cannot spell
        raise ClipError(f"cannot be opened: {error}") from error
    try:
        _check_file(os.fstat(descriptor))
        with soundfile.SoundFile(descriptor, closefd=False) as clip:
            yield clip
    except soundfile.LibsndfileError as error:
        raise ClipError(f"cannot be decoded: {error.error_string.rstrip('. ')}") from error
    except (soundfile.SoundFileError, OSError, OverflowError, MemoryError) as error:
        raise ClipError(f"cannot be decoded: {error}") from error
    finally:
        os.close(descriptor)


def _check_file(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise ClipError("is a directory, not a file")
    if not stat.S_ISREG(status.st_mode):
        raise ClipError("is not a regular file")
    if status.st_size == 0:
        raise ClipError("is empty: 0 bytes")


def _check_header(clip: soundfile.SoundFile) -> None:
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


def _read_mono(clip: soundfile.SoundFile, wanted: int) -> np.ndarray:
    """Decode up to ``wanted`` samples from where the clip stands, channels averaged, `[n]`."""
    blocks = []
    longest = max(1, BLOCK // clip.channels)
    while wanted > 0:
        block = clip.read(min(wanted, longest), dtype="float32", always_2d=True)  # [n, channels]
        if len(block) == 0:
            break
        blocks.append(block[:, 0] if block.shape[1] == 1 else block.mean(axis=1))
        wanted -= len(block)
    return np.concatenate(blocks) if blocks else np.zeros(0, dtype=np.float32)


def _check_values(waveform: np.ndarray) -> None:
    loudest = np.abs(waveform).max()
    if not np.isfinite(loudest):
        raise ClipError("has samples that are not finite numbers")
    if loudest > LOUDEST_SAMPLE:
        raise ClipError(f"has samples of up to {loudest:.1e}, where full scale is 1")
