"""Problems of clips that can be decoded: silence, clipping, phase, shortness, duplicates.

Levels are those of the signal that a model hears: the average of the channels, or one of them (see
``data.channels``). Clips are decoded in blocks: an hour of audio needs no more memory than a
second.
"""

from __future__ import annotations

import hashlib
import math
from argparse import Namespace
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..data.channels import MEAN, choose_channel, mix_channels
from ..data.clip import AudioClip
from ..data.entries import Clip
from ..data.frames import FRAME_LENGTH, SAMPLE_RATE
from ..data.sources import BLOCK, check_count, check_values, open_clip
from ..data.tables import write_csv
from .arrangement import ListedClip
from .find import WHOLE
from .layouts import QUALITY, REJECTED, report_name
from .listing import Listing
from .processes import Progress
from .work import Work

PROBLEMS = ("silent", "clipped", "phase", "short", "duplicate")
SILENCE_DBFS = -60.0  # half of the range of values of a silent tenth of a second, without offset
FULL_SCALE = 0.999  # 16-bit audio reaches 0.99997
CLIPPED_SHARE = 1e-3  # largest share of samples at full scale in a clip that is not clipped
# Level of the average below that of the channels. Two equal channels lose 0 dB, two independent
# ones 3 dB. 20 dB is a correlation of -0.98: one channel is the other one, inverted.
PHASE_DB = 20.0
SEGMENTS_A_SECOND = 10  # each is silent or not
SHORTEST = FRAME_LENGTH / SAMPLE_RATE  # seconds: one frame
CHUNK = 8  # clips that a worker process examines per task
COLUMNS = (
    "path", "seconds", "rate", "channels", "peak_dbfs", "rms_dbfs", "channels_dbfs",
    "clipped_share", "silent_share", "hash", "problems",
)  # fmt: skip


@dataclass(frozen=True)
class Examination:
    """Properties of a clip."""

    samples: int  # per channel
    rate: int  # Hz
    channels: int
    peak: float  # of the signal that is heard; 1 is full scale
    rms: float  # of the signal that is heard
    channels_rms: float  # over all channels
    is_mean: bool  # the signal that is heard is the average of several channels
    clipped_share: float  # of the samples at full scale, heard or over all channels, the larger one
    silent_share: float  # of the tenths of a second that are silent, see SILENCE_DBFS
    digest: str  # of rate, channels and samples at 16 bits: equal for a wav and its flac copy

    @property
    def seconds(self) -> float:
        """Length of the clip."""
        return self.samples / self.rate

    @property
    def peak_dbfs(self) -> float:
        """Peak in decibels of full scale; minus infinity for digital silence."""
        return to_decibels(self.peak)

    @property
    def rms_dbfs(self) -> float:
        """Root mean square in decibels of full scale; -3.01 for a sine at full scale."""
        return to_decibels(self.rms)

    @property
    def cancels_out(self) -> bool:
        """Whether the average of the channels is far below them."""
        # As many independent channels lose 10 lg N dB.
        least = self.channels_rms * 10 ** (-PHASE_DB / 20) * math.sqrt(2 / self.channels)
        return self.is_mean and self.rms < least


def to_decibels(level: float) -> float:
    """Convert a level to decibels of full scale."""
    return 20 * math.log10(level) if level > 0 else -math.inf


def examine(clip: Clip, channels: str = MEAN) -> Examination:
    """Decode a whole clip; ClipError if it is damaged, truncated or not finite."""
    with open_clip(clip) as opened:
        return _measure(opened, choose_channel(opened, channels))


def _measure(clip: AudioClip, channel: int | None) -> Examination:
    segment = max(1, clip.samplerate // SEGMENTS_A_SECOND)
    digest = hashlib.blake2b(digest_size=16)
    digest.update(b"%d %d\n" % (clip.samplerate, clip.channels))
    samples = silent = segments = 0
    peak = 0.0
    heard, given = _Levels(), _Levels()  # of the signal that is heard; of all channels
    for block in _read_blocks(clip, segment):  # [n, channels]
        check_values(clip, block)
        signal = mix_channels(block, channel)
        starts = np.arange(0, len(block), segment)
        highest, lowest = (f.reduceat(signal, starts) for f in (np.maximum, np.minimum))
        silent += int((highest - lowest < 2 * 10 ** (SILENCE_DBFS / 20)).sum())
        segments += len(starts)
        samples += len(block)
        peak = max(peak, float(highest.max()), -float(lowest.min()))
        heard.add(signal)
        given.add(block)
        digest.update(np.rint(np.clip(block, -1, 1) * 32767).astype("<i2").tobytes())
    check_count(clip, samples, clip.frames)
    return Examination(
        samples=samples,
        rate=clip.samplerate,
        channels=clip.channels,
        peak=peak,
        rms=heard.rms,
        channels_rms=given.rms,
        is_mean=channel is None and clip.channels > 1,
        clipped_share=max(heard.clipped_share, given.clipped_share),
        silent_share=silent / segments,
        digest=digest.hexdigest(),
    )


class _Levels:
    """Level of samples, and the share of them at full scale."""

    def __init__(self) -> None:
        self._values = self._clipped = 0
        self._squares = 0.0

    def add(self, samples: np.ndarray) -> None:
        """Count samples, float32 of any shape."""
        self._values += samples.size
        self._clipped += int((np.abs(samples) >= FULL_SCALE).sum())
        self._squares += float(np.square(samples, dtype=np.float64).sum())

    @property
    def rms(self) -> float:
        """Root mean square."""
        return math.sqrt(self._squares / self._values)

    @property
    def clipped_share(self) -> float:
        """Share of the samples at full scale."""
        return self._clipped / self._values


def _read_blocks(clip: AudioClip, segment: int) -> Iterator[np.ndarray]:
    """Read a clip in blocks of whole segments."""
    length = max(1, BLOCK // clip.channels // segment) * segment
    while True:
        block = clip.read(length, dtype="float32", always_2d=True)
        if len(block):
            yield block
        if len(block) < length:
            return


def find_copies(examinations: list[Examination]) -> list[int | None]:
    """Return the position of the first clip with the same content; None for that clip itself."""
    first: dict[str, int] = {}
    found = [first.setdefault(one.digest, number) for number, one in enumerate(examinations)]
    return [None if original == number else original for number, original in enumerate(found)]


def name_problems(examination: Examination, is_copy: bool) -> list[str]:
    """Return the problems of a clip, from ``PROBLEMS``."""
    tests = (
        examination.silent_share == 1,
        examination.clipped_share > CLIPPED_SHARE,
        examination.cancels_out,
        examination.seconds < SHORTEST,
        is_copy,
    )
    return [name for name, holds in zip(PROBLEMS, tests) if holds]


def examine_all(
    listing: Listing, clips: list[ListedClip], options: Namespace, progress: Progress, work: Work
) -> Iterable[Any]:
    """Yield the properties of each clip, or why it cannot be decoded."""
    entries = [listing.clip(clip.name) for clip in clips]
    names = [clip.name for clip in clips]
    examine_one = partial(examine, channels=options.channels)
    results = work.map(
        "quality", examine_one, entries, names, options.workers, CHUNK, decode=_from_json
    )
    return progress(results, "decoding", "clip", len(entries))


def _from_json(values: dict[str, Any]) -> Examination:
    return Examination(**values)


def check_clips(
    listing: Listing, options: Namespace, progress: Progress, work: Work = WHOLE
) -> tuple[list[tuple[ListedClip, Examination]], str]:
    """Decode the clips, write ``quality.csv``, and reject damaged clips and those to drop.

    Returns:
        The clips that can be decoded, with their properties; and a summary line.
    """
    clips = listing.clips
    found = list(examine_all(listing, clips, options, progress, work))
    good = [(clip, one) for clip, one in zip(clips, found) if not isinstance(one, str)]
    damaged = [(clip.shown, one) for clip, one in zip(clips, found) if isinstance(one, str)]
    listing.clips, listing.rejected = [], listing.rejected + damaged
    copies = find_copies([one for _, one in good])
    rows, counts, differ = [], Counter[str](), 0
    for (clip, one), original in zip(good, copies):
        problems = name_problems(one, original is not None)
        counts.update(problems)
        rows.append(_make_row(clip, one, problems))
        dropped = [problem for problem in problems if problem in options.drop]
        if dropped:
            same = ""
            if original is not None:
                first = good[original][0]
                has_other_labels = set(clip.labels) != set(first.labels)
                differ += has_other_labels
                same = f", a copy of {first.shown}{' with other labels' * has_other_labels}"
            reason = f"excluded by --drop: {', '.join(dropped)}{same}"
            listing.rejected.append((clip.shown, reason))
        else:
            listing.clips.append(clip._replace(digest=one.digest))
    options.out.mkdir(parents=True, exist_ok=True)
    table = options.out / report_name(QUALITY, options.split, "csv")
    write_csv(table, [COLUMNS, *rows])
    numbers = ", ".join(f"{counts[problem]} {problem}" for problem in PROBLEMS)
    if differ:
        rejected = report_name(REJECTED, options.split)
        numbers += f"; excluded copies with other labels: {differ}, see {rejected}"
    return good, f"{table}: {len(damaged)} cannot be decoded, {numbers}"


def _make_row(clip: ListedClip, one: Examination, problems: list[str]) -> tuple[object, ...]:
    return (
        clip.name, f"{one.seconds:.4f}", one.rate, one.channels,
        f"{one.peak_dbfs:.2f}", f"{one.rms_dbfs:.2f}", f"{to_decibels(one.channels_rms):.2f}",
        f"{one.clipped_share:.6f}", f"{one.silent_share:.4f}", one.digest, " ".join(problems),
    )  # fmt: skip
