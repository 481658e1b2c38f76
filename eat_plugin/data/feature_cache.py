"""The feature cache: log-mel energies of whole clips, computed once by ``eat cache``.

The energies are those before windows are cut, padded and normalised: one cache serves every window
length, mean, standard deviation and ``pad_value``, but one value of ``task.frontend`` and of
``task.channels``, which its settings name. A cache is a data folder of its own, with entries
``SPLIT-00000.mel:FIRST:FRAMES/ENTRY``; the manifest's samples are at 16 kHz.

    SPLIT-00000.mel    a shard: rows of 128 float16, little-endian, one per frame
    SPLIT-00000.json   its record: front end settings, lengths of its clips, size, SHA-256
    cache.json         front end settings, and the manifests that the cache was made of

A shard without a record is unfinished and never used.

float16 rounds energies, which lie between -16 and 12, by at most 2**-8 = 0.0039; normalised by
AudioSet's values, inputs of noise at -40 to 0 dB differ by 0.0002 (root mean square), 0.00043 at
most. A window computed from a part of a file differs by more in two places: a resampled part lacks
the samples before its first frame; and bins with almost no energy (above 4 kHz in a clip at 8 kHz)
are rounding errors of float32 in either case. Of the front end ``db``, a window within a clip has
the frames of the whole clip, so four at each end are not reflected there.

A process maps each shard once and keeps it, up to a number of recently used ones. Maps are
read-only and have no position, so a forked process can share them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .cache_settings import FRONT_END, SettingsError, check_settings, compare_options, made_with
from .channels import MEAN
from .clip import ClipError
from .entries import CachedSpan, Entry, split_cached
from .frames import KALDI, MEL_BINS, SAMPLE_RATE
from .frontend import KINDS
from .json_text import parse_json

ENERGY = np.dtype("<f2")
FRAME_BYTES = MEL_BINS * ENERGY.itemsize
MOST_OPEN = 128  # shards that a process keeps open; each takes a file descriptor
MOST_RECORDS = 1 << 14  # shard sizes that a process keeps
AGAIN = "run eat cache again"


def probe_cached(entry: Entry) -> tuple[int, int]:
    """Return the least number of samples at 16 kHz for the frames of a clip, and 16 kHz.

    Raises:
        ClipError: its shard cannot be used.
    """
    span = _parse(entry)
    rows, kind = _open_shard(span.shard)
    _check_span(entry, span, rows, kind)
    return KINDS[kind].least_samples(span.frames), SAMPLE_RATE


def read_cached(
    entry: Entry, start: int, most: int, channels: str = MEAN, kind: str = KALDI
) -> Tensor:
    """Read the energies of a part of a clip.

    Args:
        entry: the clip.
        start: first frame.
        most: frames to read at most.
        channels: how the reader mixes the channels of clips.
        kind: front end of the reader.

    Returns:
        `[n, 128]` float32; n is ``most``, or less at the end of the clip.

    Raises:
        ClipError: the shard is missing, unfinished, of another size or other settings; or the clip
            is outside of it, or has another length than its entry says.
    """
    span = _parse(entry)
    rows, kind = _open_shard(span.shard, channels, kind)
    _check_span(entry, span, rows, kind)
    part = rows[span.first + start : span.first + min(start + most, span.frames)]
    return torch.from_numpy(part.copy()).float()  # PyTorch is 8 times as fast as NumPy's astype


def _check_span(entry: Entry, span: CachedSpan, rows: np.ndarray, kind: str) -> None:
    if entry.size is not None and KINDS[kind].count_frames(entry.size) != span.frames:
        raise ClipError(f"has {span.frames} frames, but {entry.size} samples were expected")
    if span.first + span.frames > len(rows):
        raise ClipError(
            f"is outside of its shard, frames {span.first} to {span.first + span.frames} of "
            f"{len(rows)}: {span.shard} does not belong to this manifest"
        )


def _parse(entry: Entry) -> CachedSpan:
    span = split_cached(entry.path)
    assert span is not None
    return span


def _open_shard(
    path: str, channels: str | None = None, kind: str | None = None
) -> tuple[np.ndarray, str]:
    """Return the frames of a shard, `[frames, 128]` float16, mapped into memory; its front end."""
    try:
        status = os.stat(path)
        version = (status.st_ino, status.st_size, status.st_mtime_ns)
        rows = _map_shard(path, version)
        _, found = _read_size(path, version)
        compare_options(found, record_path(path), channels, kind)
        return rows, found[FRONT_END]
    except OSError as error:
        raise ClipError(f"its shard {path} cannot be opened: {error.strerror}") from error


@lru_cache(maxsize=MOST_OPEN)
def _map_shard(path: str, version: tuple[int, ...]) -> np.ndarray:
    """Map a shard; a new version on disk is mapped again."""
    expected, _ = _read_size(path, version)
    with open(path, "rb") as file:
        found = os.fstat(file.fileno()).st_size
        if found != expected:
            raise ClipError(f"its shard {path} has {found} bytes instead of {expected}; {AGAIN}")
        if found == 0:  # every clip is shorter than a frame
            return np.zeros((0, MEL_BINS), dtype=ENERGY)
        return np.asarray(np.memmap(file, ENERGY, "r")).reshape(-1, MEL_BINS)


@lru_cache(maxsize=MOST_RECORDS)
def _read_size(path: str, version: tuple[int, ...]) -> tuple[int, dict[str, str]]:
    """Return the bytes of a shard, and the options of tasks that it was made with."""
    record = read_record(path)
    return record.size, made_with(record.settings)


def check_cache(entry: Entry, channels: str, roll_gain: bool = False, kind: str = KALDI) -> None:
    """Refuse a cache of another front end before any clip is read, or options that need samples.

    Args:
        entry: the first clip of the manifest.
        channels: how the reader mixes the channels of clips.
        roll_gain: the option ``task.roll_gain``.
        kind: front end of the reader.

    Raises:
        SettingsError: another front end computed the cache, or from other channels.
        ValueError: ``roll_gain`` is set.
    """
    if roll_gain:
        refuse_roll_gain(entry)
    try:
        read_record(_parse(entry).shard, channels, kind)
    except SettingsError:
        raise
    except ClipError:
        return  # a damaged shard: its clips are named when they are read


def refuse_roll_gain(entry: Entry) -> None:
    """Raise ValueError: a cached clip cannot be rolled."""
    raise ValueError(
        "task.roll_gain needs waveforms, and a cache holds spectrograms: set task.roll_gain=false, "
        f"or set task.data to the folder that {Path(_parse(entry).shard).parent} was made of (see "
        "its cache.json)"
    )


def cached_kind(entry: Entry) -> str:
    """Return the front end of a cache, by one of its clips; ``kaldi`` if its shard is damaged."""
    try:
        return _open_shard(_parse(entry).shard)[1]
    except SettingsError:
        raise
    except ClipError:
        return KALDI


@dataclass(frozen=True)
class ShardRecord:
    """Record of a finished shard.

    Attributes:
        settings: see ``cache_settings``.
        manifest: SHA-256 of the manifest of its clips.
        first: position of its first clip in that manifest.
        samples: length of each clip at 16 kHz; None if it cannot be used.
        problems: reasons why clips cannot be used, in order.
        size: bytes of the shard.
        sha256: of the shard.
    """

    settings: dict[str, Any]
    manifest: str
    first: int
    samples: list[int | None]
    problems: list[str]
    size: int
    sha256: str


def shard_path(folder: Path, split: str, number: int) -> Path:
    """Return the path of a shard of a split."""
    return folder / f"{split}-{number:05d}.mel"


def record_path(shard: str | os.PathLike[str]) -> Path:
    """Return the path of the record of a shard."""
    return Path(shard).with_suffix(".json")


def read_record(
    shard: str | os.PathLike[str], channels: str | None = None, kind: str | None = None
) -> ShardRecord:
    """Read the record of a shard.

    Raises:
        SettingsError: another front end made the shard than ``kind``, or not from ``channels``.
        ClipError: the record is missing or invalid.
    """
    path = record_path(shard)
    try:
        fields = parse_json(path.read_bytes())
        check_settings(fields["settings"], path, channels, kind)
        record = ShardRecord(**fields)
        if count_bytes(record) != record.size:
            raise ValueError("the lengths of its clips do not add up to its size")
        if record.samples.count(None) != len(record.problems):
            raise ValueError("it lacks the reason for a clip that cannot be used")
    except OSError as error:
        raise ClipError(f"its shard has no record: {path}: {error.strerror}; {AGAIN}") from error
    except ClipError:
        raise
    except (ValueError, TypeError, KeyError) as error:
        raise ClipError(f"its shard has an invalid record: {path}: {error}; {AGAIN}") from error
    return record


def count_bytes(record: ShardRecord) -> int:
    """Return the bytes of a shard for the samples of its clips."""
    count = KINDS[made_with(record.settings)[FRONT_END]].count_frames
    return FRAME_BYTES * sum(count(each) for each in record.samples if each is not None)
