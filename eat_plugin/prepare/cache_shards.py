"""Shards of a feature cache: planned, written by several processes, verified.

A shard is written completely or not at all, and its record after it, so that an interrupted run
can be resumed.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..data.cache_settings import SettingsError, cache_settings
from ..data.channels import MEAN
from ..data.clip import ClipError
from ..data.entries import Clip, Entry
from ..data.feature_cache import (
    AGAIN,
    ENERGY,
    ShardRecord,
    read_record,
    record_path,
    shard_path,
)
from ..data.files import replacing
from ..data.fingerprints import take_fingerprint
from ..data.frames import KALDI, SAMPLE_RATE, TOO_SHORT
from ..data.frontend import KINDS
from ..data.manifest import Manifest
from ..data.remote import read_ahead
from ..data.sources import read_blocks
from .measure import BLOCK_SECONDS, block_energies
from .processes import try_call, worker_pool

SHARDS = 64  # per split, within the limits below: tasks for many processes
LEAST_SAMPLES, MOST_SAMPLES = 1 << 22, 1 << 29  # per shard; the latter is 0.9 GB at 16 kHz


class Outcome(NamedTuple):
    """The result for a clip."""

    name: str  # entry in the manifest
    entry: str | None  # entry in the cache; None if the clip cannot be used
    samples: int  # at 16 kHz
    problem: str  # the reason if the clip cannot be used


class _StopError(Exception):
    """Another process failed, or the user interrupted the run."""


@dataclass(frozen=True)
class SplitShards:
    """The shards of a split: consecutive clips of the manifest, about as much audio in each.

    The clips of a shard depend on the manifest alone.
    """

    folder: Path
    split: str
    manifest: Manifest
    sha256: str  # of the manifest, and what is known of its archives
    bounds: tuple[int, ...]  # position of each shard's first clip, and the number of clips
    channels: str = MEAN  # how the channels of clips are mixed
    kind: str = KALDI  # front end

    @classmethod
    def plan(
        cls,
        folder: Path,
        split: str,
        manifest: Manifest,
        sha256: str,
        channels: str = MEAN,
        kind: str = KALDI,
    ) -> SplitShards:
        """Divide the clips of a split into shards."""
        sizes = np.minimum(manifest.sizes, MOST_SAMPLES)  # the sum fits into 64 bits
        most = int(np.clip(sizes.sum() // SHARDS, LEAST_SAMPLES, MOST_SAMPLES))
        numbers = (np.cumsum(sizes) - sizes) // most
        starts = np.flatnonzero(np.diff(numbers, prepend=-1))
        bounds = (*starts.tolist(), len(manifest))
        return cls(folder, split, manifest, sha256, bounds, channels, kind)

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def path(self, number: int) -> Path:
        """Return the path of a shard."""
        return shard_path(self.folder, self.split, number)

    def clips(self, number: int) -> range:
        """Return the positions of a shard's clips in the manifest."""
        return range(self.bounds[number], self.bounds[number + 1])

    def count_frames(self, samples: int) -> int:
        """Return the frames of a clip for its samples at 16 kHz."""
        return KINDS[self.kind].count_frames(samples)

    def finish(self, number: int, stop: Event | None = None) -> tuple[int, bool]:
        """Write a shard unless an earlier run did and none of its unusable clips is usable now.

        Returns:
            The number of the shard, and whether it was written now.

        Raises:
            SettingsError: another front end computed the shard, or from other channels.
        """
        if self._is_finished(number):
            return number, False
        try:
            self._write(number, stop)
        except OSError as error:
            path = error.filename or str(self.path(number))
            raise OSError(error.errno, error.strerror or str(error), path) from error
        return number, True

    def _is_finished(self, number: int) -> bool:
        clips = self.clips(number)
        try:
            record = read_record(self.path(number), self.channels, self.kind)
            size = self.path(number).stat().st_size
        except SettingsError:
            raise
        except (ClipError, OSError):
            return False
        source = (record.manifest, record.first, len(record.samples))
        if source != (self.sha256, clips.start, len(clips)) or size != record.size:
            return False
        entries = (self.manifest.entry(i) for i, s in zip(clips, record.samples) if s is None)
        return all(isinstance(self._compute(entry), str) for entry in entries)

    def _compute(self, entry: Entry) -> tuple[int, bytes] | str:
        return try_call(partial(compute_energies, channels=self.channels, kind=self.kind), entry)

    def _write(self, number: int, stop: Event | None) -> None:
        clips, digest = self.clips(number), hashlib.sha256()
        samples: list[int | None] = []
        problems: list[str] = []
        # Without its record, a shard that is being replaced counts as unfinished.
        record_path(self.path(number)).unlink(missing_ok=True)
        with replacing(self.path(number)) as file:
            for entry in read_ahead(map(self.manifest.entry, clips)):
                if stop is not None and stop.is_set():
                    raise _StopError
                result = self._compute(entry)
                if isinstance(result, str):
                    samples.append(None)
                    problems.append(result)
                    continue
                length, rows = result
                samples.append(length)
                digest.update(rows)
                file.write(rows)
            size = file.tell()
        record = ShardRecord(
            cache_settings(self.channels, self.kind), self.sha256, clips.start, samples, problems,
            size, digest.hexdigest(),
        )  # fmt: skip
        with replacing(record_path(self.path(number))) as file:
            file.write(json.dumps(asdict(record)).encode())

    def outcomes(self) -> Iterator[Outcome]:
        """Read the results for all clips, in the manifest's order; all shards are finished."""
        for number in range(len(self)):
            record, shard, first = read_record(self.path(number)), self.path(number).name, 0
            problems = iter(record.problems)
            for index, samples in zip(self.clips(number), record.samples):
                name = self.manifest.name(index)
                if samples is None:
                    yield Outcome(name, None, 0, next(problems))
                else:
                    frames = self.count_frames(samples)
                    yield Outcome(name, f"{shard}:{first}:{frames}/{name}", samples, "")
                    first += frames


def compute_energies(clip: Clip, channels: str = MEAN, kind: str = KALDI) -> tuple[int, bytes]:
    """Compute the log-mel energies of a whole clip, 30 s at a time.

    Returns:
        The number of samples at 16 kHz, and the energies as they are stored in a shard.

    Raises:
        ClipError: the clip cannot be used, or is shorter than a frame.
    """
    samples, rate = 0, SAMPLE_RATE

    def blocks() -> Iterator[tuple[Tensor, int]]:
        nonlocal samples, rate
        for waveform, rate in read_blocks(clip, BLOCK_SECONDS, channels):
            samples += len(waveform)
            yield waveform, rate

    # Everything is computed before anything is written, since the clip may be damaged at its end.
    rows = torch.cat([block.half() for block in block_energies(blocks(), kind)])
    if len(rows) == 0:
        raise ClipError(TOO_SHORT)
    return -(-samples * SAMPLE_RATE // rate), rows.numpy().astype(ENERGY, copy=False).tobytes()


def finish_all(
    shards: SplitShards, workers: int, numbers: Sequence[int] | None = None
) -> Generator[tuple[int, bool], None, None]:
    """Finish shards, by default all, in up to ``workers`` processes; yield as ``finish`` does."""
    numbers = range(len(shards)) if numbers is None else numbers
    workers = min(workers, len(numbers))
    if workers < 2:
        yield from map(shards.finish, numbers)
        return
    stop = multiprocessing.Event()
    with worker_pool(workers, _set_work, shards, stop) as pool:
        try:
            futures = [pool.submit(_finish, number) for number in numbers]
            for future in as_completed(futures):
                yield future.result()
        finally:
            stop.set()


_work: tuple[SplitShards, Event]
"""Set once per worker process, so that a task is a number and not a manifest."""


def _set_work(shards: SplitShards, stop: Event) -> None:
    global _work
    _work = (shards, stop)
    torch.set_num_threads(1)


def _finish(number: int) -> tuple[int, bool]:
    shards, stop = _work
    return shards.finish(number, stop)


def find_damage(shard: str) -> str | None:
    """Read a whole shard; return its damage, or None if it is intact."""
    try:
        record = read_record(shard)
        found = take_fingerprint(shard, checksum=True)
    except ClipError as error:
        return str(error)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if found.size != record.size:
        return f"has {found.size} bytes instead of {record.size}; {AGAIN}"
    if found.sha256 != record.sha256:
        return f"has another SHA-256 than its record; remove it and {AGAIN}"
    return None
