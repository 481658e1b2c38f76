"""What is wrong with clips that can be read: silence, clipping, copies of one another.

Clips are decoded whole, in blocks: an hour of audio takes no more memory than a second.

In this file:
    Examination        what a clip is like
    examine            decodes a clip
    examine_all        decodes many, by several processes
    find_copies        clips with the same content
    name_problems      what a user may want to leave out
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..data.clip import AudioClip, ClipError
from ..data.frontend import FRAME_LENGTH, SAMPLE_RATE
from ..data.sources import BLOCK, check_count, check_values, open_clip
from .processes import in_processes

PROBLEMS = ("silent", "clipped", "short", "duplicate")
SILENCE_DBFS = -60.0  # a clip, or a tenth of a second, whose peak is below this is silent
FULL_SCALE = 0.999  # of 1; 16-bit audio reaches 0.99997
CLIPPED_SHARE = 1e-3  # of a clip's samples at full scale, above which it counts as clipped
SEGMENT = 10  # parts of a second that are silent or not
SHORTEST = FRAME_LENGTH / SAMPLE_RATE  # seconds: one frame
CHUNK = 8  # clips that a worker process examines at a time


@dataclass(frozen=True)
class Examination:
    """What a clip is like.

    Attributes:
        samples: of a channel.
        rate: in Hz.
        channels: their number.
        peak: largest absolute value of any channel; 1 is full scale.
        rms: root of the mean square of all channels.
        clipped_share: share of the samples at full scale.
        silent_share: share of the tenths of a second whose peak is below ``SILENCE_DBFS``.
        digest: of rate, channels and samples at 16 bits: the same for a wav file and its flac copy.
    """

    samples: int
    rate: int
    channels: int
    peak: float
    rms: float
    clipped_share: float
    silent_share: float
    digest: str

    @property
    def seconds(self) -> float:
        """Length of the clip."""
        return self.samples / self.rate

    @property
    def peak_dbfs(self) -> float:
        """The peak in decibels of full scale; minus infinity of digital silence."""
        return to_decibels(self.peak)

    @property
    def rms_dbfs(self) -> float:
        """The root mean square in decibels of full scale: -3.01 of a sine that just fits."""
        return to_decibels(self.rms)


def to_decibels(level: float) -> float:
    """Return a level in decibels of full scale."""
    return 20 * math.log10(level) if level > 0 else -math.inf


def examine(path: str | os.PathLike[str]) -> Examination:
    """Decode a clip from its start to its end.

    Args:
        path: what a manifest names, with its root.

    Raises:
        ClipError: the clip cannot be decoded, has fewer samples than its header says, or samples
            that are not finite numbers.
    """
    with open_clip(path) as clip:
        return _measure(clip)


def _measure(clip: AudioClip) -> Examination:
    segment = max(1, clip.samplerate // SEGMENT)
    digest = hashlib.blake2b(digest_size=16)
    digest.update(b"%d %d\n" % (clip.samplerate, clip.channels))
    samples = clipped = silent = segments = 0
    peak = squares = 0.0
    for block in _read_blocks(clip, segment):  # [n, channels]
        check_values(clip, block)
        levels = np.abs(block)
        starts = np.arange(0, len(block), segment)
        loudest = np.maximum.reduceat(levels.max(axis=1), starts)
        silent += int((loudest < 10 ** (SILENCE_DBFS / 20)).sum())
        segments += len(starts)
        samples += len(block)
        clipped += int((levels >= FULL_SCALE).sum())
        peak = max(peak, float(loudest.max()))
        squares += float(np.square(block, dtype=np.float64).sum())
        digest.update(np.rint(np.clip(block, -1, 1) * 32767).astype("<i2").tobytes())
    check_count(clip, samples, clip.frames)
    values = samples * clip.channels
    return Examination(
        samples=samples,
        rate=clip.samplerate,
        channels=clip.channels,
        peak=peak,
        rms=math.sqrt(squares / values),
        clipped_share=clipped / values,
        silent_share=silent / segments,
        digest=digest.hexdigest(),
    )


def _read_blocks(clip: AudioClip, segment: int) -> Iterator[np.ndarray]:
    """Read a clip in blocks of whole segments."""
    length = max(1, BLOCK // clip.channels // segment) * segment
    while True:
        block = clip.read(length, dtype="float32", always_2d=True)
        if len(block):
            yield block
        if len(block) < length:
            return


def examine_all(paths: list[str], workers: int) -> Iterator[Examination | str]:
    """Decode many clips, in parallel.

    Args:
        paths: the clips.
        workers: processes to use at most.

    Yields:
        For each clip, in order: what it is like, or what is wrong with it.

    Raises:
        OSError: a worker process died.
    """
    return in_processes(_examine, paths, workers, CHUNK)


def _examine(path: str) -> Examination | str:
    try:
        return examine(path)
    except ClipError as error:
        return str(error)


def find_copies(examinations: list[Examination]) -> list[int | None]:
    """Find clips with the same content.

    Returns:
        For each clip the position of the first one with its content, or None if it is the first.
    """
    first: dict[str, int] = {}
    found = [first.setdefault(one.digest, number) for number, one in enumerate(examinations)]
    return [None if original == number else original for number, original in enumerate(found)]


def name_problems(examination: Examination, is_copy: bool) -> list[str]:
    """Name what a user may want to leave out, of ``PROBLEMS``."""
    tests = (
        examination.peak_dbfs < SILENCE_DBFS,
        examination.clipped_share > CLIPPED_SHARE,
        examination.seconds < SHORTEST,
        is_copy,
    )
    return [name for name, holds in zip(PROBLEMS, tests) if holds]
