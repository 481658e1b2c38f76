"""The feature cache: log-mel energies of whole clips, computed once by ``eat cache``.

They are those of the front end before anything depends on options: before windows are cut, padded
and normalised. One cache serves every window length, mean, standard deviation and ``pad_value``.

A cache is a data folder of its own. In its manifests a clip is
    SPLIT-00000.mel:OFFSET:FRAMES/NAME<TAB>SAMPLES
with the shard, the clip's first frame in it, its number of frames, and NAME, the whole entry that
the clip had before (an audio file, a part of an archive, a key of an HDF5 file). SAMPLES are at
16 kHz, whatever the clip's own rate: FRAMES = 1 + (SAMPLES - 400) // 160, none of less than 400.

    SPLIT-00000.mel    a shard: rows of 128 float16, little-endian, one a frame, and nothing else
    SPLIT-00000.json   its record: settings of the front end, lengths of its clips, size, SHA-256
    cache.json         settings, and which manifests the cache was made of
A shard without a record is not finished and never used.

float16 has a significand of 11 bits. Energies lie between -16 and 12 or so; they are rounded by at
most 2**-8 = 0.0039, from -8 to 8 by half of that or less. Normalised by AudioSet's values (over
9.1), inputs of noise at -40 to 0 dB were off by 0.0002 in the root mean square and by 0.00043 at
most, where their own standard deviation was 0.4: 0.05 %.

What is computed of a part of a clip differs by more in two places. Where a clip is resampled, the
first frame of a part knows nothing of the samples before it; in a cache it does. And bins that hold
next to nothing (above 4 kHz of a clip at 8 kHz) are rounding errors of float32 in either case.

In this file:
    CachedClip, find_cached    what an entry says
    clip_name                  what a clip is called, in a cache or not
    read_cached                energies of a part of a clip
    check_start                what can be refused before a clip is read
    front_end_settings         what energies depend on
    check_settings             compares them with those in a file
    ShardRecord, read_record   what a record says

A process opens each shard once, maps it into memory and keeps it, but for the least recently used
of many. Maps are never written to and have no position: after a fork, both processes use them.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from . import frontend as features, resampling
from .clip import ClipError
from .frontend import FRAME_LENGTH, FRAME_SHIFT, MEL_BINS, count_frames
from .manifest import Manifest

FORMAT = 1  # of shards, records and entries
ENERGY = np.dtype("<f2")
FRAME_BYTES = MEL_BINS * ENERGY.itemsize
MOST_OPEN = 128  # shards that a process keeps open; each takes a file descriptor
MOST_RECORDS = 1 << 14  # sizes that a process remembers
AGAIN = "run eat cache again"
_ENTRY = re.compile(r"((?:[^/]*/)*?[^/]*-[0-9]{5,}\.mel):([0-9]{1,15}):([0-9]{1,15})/(.+)", re.S)


class SettingsError(ClipError):
    """A cache that another front end has computed. The message names file, setting and values."""


class CachedClip(NamedTuple):
    """A clip in a cache.

    Attributes:
        shard: path of its shard, below what the entry is relative to.
        first: its first frame in the shard.
        frames: number of its frames.
        name: what the clip was called before.
    """

    shard: str
    first: int
    frames: int
    name: str

    @property
    def samples(self) -> int:
        """The least number of samples, at 16 kHz, of so many frames."""
        return FRAME_LENGTH + (self.frames - 1) * FRAME_SHIFT if self.frames else 0


def find_cached(path: str) -> CachedClip | None:
    """Read ``SHARD.mel:OFFSET:FRAMES/NAME``; None for the paths of other clips."""
    match = _ENTRY.fullmatch(path) if ".mel:" in path else None
    return match and CachedClip(match[1], int(match[2]), int(match[3]), match[4])


def clip_name(entry: str) -> str:
    """Return what a clip is called: of a cached one, the entry that it had before."""
    clip = find_cached(entry)
    return entry if clip is None else clip.name


def read_cached(
    clip: CachedClip, start: int, most: int, expected_samples: int | None = None
) -> Tensor:
    """Read the energies of a part of a clip.

    Args:
        clip: The clip.
        start: First frame to read.
        most: Frames to read at most.
        expected_samples: The length that a manifest gives, at 16 kHz; None for any.

    Returns:
        `[n, 128]` float32; n is ``most``, or less where the clip ends before.

    Raises:
        ClipError: The shard is not there, not finished, not as long as it was written, or of other
            settings; the clip is not within it, or has another length than expected.
    """
    if expected_samples is not None and count_frames(expected_samples) != clip.frames:
        raise ClipError(f"has {clip.frames} frames, but {expected_samples} samples were expected")
    rows = open_shard(clip.shard)
    if clip.first + clip.frames > len(rows):
        raise ClipError(
            f"is outside of its shard, frames {clip.first} to {clip.first + clip.frames} of "
            f"{len(rows)}: {clip.shard} is another than the one of this manifest"
        )
    part = rows[clip.first + start : clip.first + min(start + most, clip.frames)]
    return torch.from_numpy(part.copy()).float()  # PyTorch is 8 times as fast as NumPy's astype


def open_shard(path: str) -> np.ndarray:
    """Return the frames of a shard, `[frames, 128]` float16, mapped into memory.

    Raises:
        ClipError: It is not there, not finished, has not the size that its record says, or was
            computed by another front end.
    """
    try:
        status = os.stat(path)
        return _map_shard(path, (status.st_ino, status.st_size, status.st_mtime_ns))
    except OSError as error:
        raise ClipError(f"its shard {path} cannot be opened: {error.strerror}") from error


@lru_cache(maxsize=MOST_OPEN)
def _map_shard(path: str, version: tuple[int, ...]) -> np.ndarray:
    """Map a shard; a version that has changed on disk is mapped anew."""
    expected = _read_size(path, version)
    with open(path, "rb") as file:
        found = os.fstat(file.fileno()).st_size
        if found != expected:
            raise ClipError(f"its shard {path} has {found} bytes instead of {expected}; {AGAIN}")
        if found == 0:  # nothing to map: every clip is shorter than a frame
            return np.zeros((0, MEL_BINS), dtype=ENERGY)
        return np.asarray(np.memmap(file, ENERGY, "r")).reshape(-1, MEL_BINS)


@lru_cache(maxsize=MOST_RECORDS)
def _read_size(path: str, version: tuple[int, ...]) -> int:
    return read_record(path).size


def check_start(manifest: Manifest, roll_gain: bool) -> None:
    """Refuse, before any clip is read, a cache that is of no use.

    Args:
        manifest: The clips; the first one tells whether they are in a cache.
        roll_gain: The option ``task.roll_gain``.

    Raises:
        SettingsError: Another front end has computed the cache.
        ValueError: The option needs waveforms.
    """
    clip = find_cached(str(manifest.path(0)))
    if clip is None:
        return
    if roll_gain:
        refuse_roll_gain(clip)
    try:
        read_record(clip.shard)
    except SettingsError:
        raise
    except ClipError:
        return  # one shard: its clips are named when it is their turn


def refuse_roll_gain(clip: CachedClip) -> None:
    """Raise the ValueError that tells why a cached clip cannot be rolled."""
    raise ValueError(
        "task.roll_gain needs waveforms; a cache holds spectrograms: set task.roll_gain=false, or "
        f"set task.data to the folder that {Path(clip.shard).parent} was made of (its cache.json "
        "tells which)"
    )


def front_end_settings() -> dict[str, Any]:
    """Return all that the energies in a cache depend on, by name."""
    return {
        "format": FORMAT,
        "sample_rate": features.SAMPLE_RATE,
        "frame_length": features.FRAME_LENGTH,
        "frame_shift": features.FRAME_SHIFT,
        "fft_size": features.FFT_SIZE,
        "mel_bins": features.MEL_BINS,
        "low_hz": features.LOW_HZ,
        "high_hz": features.HIGH_HZ,
        "preemphasis": features.PREEMPHASIS,
        "energy_floor": features.ENERGY_FLOOR,
        "resampler_zero_crossings": resampling.ZERO_CROSSINGS,
        "resampler_rolloff": resampling.ROLLOFF,
    }


def check_settings(found: Any, path: str | os.PathLike[str]) -> None:
    """Compare the settings in a file with those of this front end.

    Args:
        found: What the file has as its settings.
        path: The file.

    Raises:
        SettingsError: They differ.
    """
    known = found if isinstance(found, dict) else {}
    for name, value in front_end_settings().items():
        if known.get(name) != value:
            raise SettingsError(
                f"{path}: the cache was made with {name}={known.get(name)}, but this front end has "
                f"{name}={value}; make another one with eat cache"
            )


@dataclass(frozen=True)
class ShardRecord:
    """What is known of a finished shard.

    Attributes:
        settings: Of the front end, see `front_end_settings`.
        manifest: SHA-256 of the manifest that its clips are from.
        first: Position in that manifest of the first clip.
        samples: Length of each clip at 16 kHz; None of one that cannot be used.
        problems: What is wrong with those, in order.
        size: Bytes of the shard.
        sha256: Of the shard.
    """

    settings: dict[str, Any]
    manifest: str
    first: int
    samples: list[int | None]
    problems: list[str]
    size: int
    sha256: str


def shard_path(folder: Path, split: str, number: int) -> Path:
    """Return where a shard of a split is."""
    return folder / f"{split}-{number:05d}.mel"


def record_path(shard: str | os.PathLike[str]) -> Path:
    """Return where the record of a shard is."""
    return Path(shard).with_suffix(".json")


def read_record(shard: str | os.PathLike[str]) -> ShardRecord:
    """Read the record of a shard.

    Args:
        shard: Path of the shard.

    Raises:
        SettingsError: Another front end has computed the shard.
        ClipError: There is no record, or it is none.
    """
    path = record_path(shard)
    try:
        fields = json.loads(path.read_bytes())
        check_settings(fields["settings"], path)
        record = ShardRecord(**fields)
        if count_bytes(record.samples) != record.size:
            raise ValueError("the lengths of its clips do not add up to its size")
        if record.samples.count(None) != len(record.problems):
            raise ValueError("it has not a reason for each clip that cannot be used")
    except OSError as error:
        raise ClipError(f"its shard has no record: {path}: {error.strerror}; {AGAIN}") from error
    except ClipError:
        raise
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ClipError(f"its shard has a record that is none: {path}: {error}; {AGAIN}") from error
    return record


def count_bytes(samples: list[int | None]) -> int:
    """Return the size of a shard, given the samples of its clips."""
    return FRAME_BYTES * sum(count_frames(each) for each in samples if each is not None)
