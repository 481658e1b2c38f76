"""The shards of a feature cache: planned, written by several processes, checked.

A shard is written whole or not at all, and its record after it. What is finished is kept: the same
run begun again goes on where it was interrupted, however that was.

In this file:
    SplitShards           the shards of a split
    Finished, Outcome     what has become of a shard, and of a clip
    finish_all            brings all of them about, in parallel
    compute_energies      of a whole clip
    find_damage           what is wrong with a shard, by its checksum
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Generator, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..data.clip import ClipError
from ..data.containers import take_fingerprint
from ..data.entries import Entry
from ..data.feature_cache import (
    AGAIN,
    ENERGY,
    SettingsError,
    ShardRecord,
    front_end_settings,
    read_record,
    record_path,
    shard_path,
)
from ..data.files import replacing
from ..data.frontend import SAMPLE_RATE, count_frames
from ..data.manifest import Manifest
from ..data.sources import read_blocks
from .measure import BLOCK_SECONDS, block_energies

SHARDS = 64  # of a split, where the next two allow it: work for many processes
LEAST_SAMPLES, MOST_SAMPLES = 1 << 22, 1 << 29  # of a shard; the latter give 0.9 GB at 16 kHz


class Finished(NamedTuple):
    """A shard that is finished.

    Attributes:
        number: which of the split's shards.
        clips: of the manifest that it stands for.
        is_new: it was made now, not by an earlier run.
    """

    number: int
    clips: int
    is_new: bool


class Outcome(NamedTuple):
    """What has become of a clip.

    Attributes:
        name: what it was called before.
        entry: what it is called in the cache; None if it cannot be used.
        samples: its length at 16 kHz.
        problem: why it cannot be used.
    """

    name: str
    entry: str | None
    samples: int
    problem: str


class _StopError(Exception):
    """Another process has failed, or the user has had enough."""


@dataclass(frozen=True)
class SplitShards:
    """The shards of a split: neighbours in the manifest, about as much audio in each.

    Which clips a shard has depends on the manifest alone.

    Attributes:
        folder: The cache.
        split: Name of the split.
        manifest: The clips.
        sha256: Of the manifest's file.
        bounds: Position of the first clip of each shard, and the number of clips.
    """

    folder: Path
    split: str
    manifest: Manifest
    sha256: str
    bounds: tuple[int, ...]

    @classmethod
    def plan(cls, folder: Path, split: str, manifest: Manifest, sha256: str) -> SplitShards:
        """Part the clips of a split into shards."""
        sizes = np.minimum(manifest.sizes, MOST_SAMPLES)  # no sum of them leaves 64 bits
        most = int(np.clip(sizes.sum() // SHARDS, LEAST_SAMPLES, MOST_SAMPLES))
        numbers = (np.cumsum(sizes) - sizes) // most
        starts = np.flatnonzero(np.diff(numbers, prepend=-1))
        return cls(folder, split, manifest, sha256, (*starts.tolist(), len(manifest)))

    def __len__(self) -> int:
        """Return the number of shards."""
        return len(self.bounds) - 1

    def path(self, number: int) -> Path:
        """Return where a shard is."""
        return shard_path(self.folder, self.split, number)

    def clips(self, number: int) -> range:
        """Return the positions in the manifest of a shard's clips."""
        return range(self.bounds[number], self.bounds[number + 1])

    def finish(self, number: int, stop: Event | None = None) -> Finished:
        """Make sure that a shard is there.

        An earlier run's is kept, unless clips that could not be used then can be used now.

        Args:
            number: Which shard.
            stop: Gives up at the next clip where this is set.

        Raises:
            SettingsError: Another front end has computed it.
            OSError: It cannot be written.
        """
        is_new = not self._is_finished(number)
        if is_new:
            try:
                self._write(number, stop)
            except OSError as error:
                path = error.filename or str(self.path(number))
                raise OSError(error.errno, error.strerror or str(error), path) from error
        return Finished(number, len(self.clips(number)), is_new)

    def _is_finished(self, number: int) -> bool:
        clips = self.clips(number)
        try:
            record = read_record(self.path(number))
            size = self.path(number).stat().st_size
        except SettingsError:
            raise
        except (ClipError, OSError):
            return False
        made_of = (record.manifest, record.first, len(record.samples))
        if made_of != (self.sha256, clips.start, len(clips)) or size != record.size:
            return False
        unusable = (index for index, each in zip(clips, record.samples) if each is None)
        return not any(self._is_usable(index) for index in unusable)

    def _is_usable(self, index: int) -> bool:
        try:
            compute_energies(self.manifest.entry(index))
        except ClipError:
            return False
        return True

    def _write(self, number: int, stop: Event | None) -> None:
        clips, digest = self.clips(number), hashlib.sha256()
        samples: list[int | None] = []
        problems: list[str] = []
        # Without its record nothing takes it for finished while it is replaced.
        record_path(self.path(number)).unlink(missing_ok=True)
        with replacing(self.path(number)) as file:
            for index in clips:
                if stop is not None and stop.is_set():
                    raise _StopError
                try:
                    length, rows = compute_energies(self.manifest.entry(index))
                except ClipError as error:
                    samples.append(None)
                    problems.append(str(error))
                    continue
                samples.append(length)
                digest.update(rows)
                file.write(rows)
            size = _flush(file)
        record = ShardRecord(
            front_end_settings(), self.sha256, clips.start, samples, problems, size,
            digest.hexdigest(),
        )  # fmt: skip
        with replacing(record_path(self.path(number))) as file:
            file.write(json.dumps(asdict(record)).encode())
            _flush(file)

    def outcomes(self) -> Iterator[Outcome]:
        """Read what has become of the clips, in the order of the manifest; all shards are there.

        Raises:
            ClipError: A record cannot be read.
        """
        for number in range(len(self)):
            record, shard, first = read_record(self.path(number)), self.path(number).name, 0
            problems = iter(record.problems)
            for index, samples in zip(self.clips(number), record.samples):
                name = self.manifest.name(index)
                if samples is None:
                    yield Outcome(name, None, 0, next(problems))
                else:
                    frames = count_frames(samples)
                    yield Outcome(name, f"{shard}:{first}:{frames}/{name}", samples, "")
                    first += frames


def _flush(file: BinaryIO) -> int:
    """Bring a file to the disk, so that no loss of power leaves its name without its content."""
    file.flush()
    os.fsync(file.fileno())
    return file.tell()


def compute_energies(entry: Entry) -> tuple[int, bytes]:
    """Compute the log-mel energies of a whole clip, of which 30 s are decoded at a time.

    Args:
        entry: the clip.

    Returns:
        The number of its samples at 16 kHz; and the energies as a shard holds them.

    Raises:
        ClipError: The clip cannot be used.
    """
    samples, rate = 0, SAMPLE_RATE

    def blocks() -> Iterator[tuple[Tensor, int]]:
        nonlocal samples, rate
        for waveform, rate in read_blocks(entry, BLOCK_SECONDS):
            samples += len(waveform)
            yield waveform, rate

    # All of it before any is written: it may turn out to be damaged at its end.
    rows = torch.cat([block.half() for block in block_energies(blocks())])
    return -(-samples * SAMPLE_RATE // rate), rows.numpy().astype(ENERGY, copy=False).tobytes()


def finish_all(shards: SplitShards, workers: int) -> Generator[Finished, None, None]:
    """Bring all shards of a split about, in parallel.

    Args:
        shards: The shards.
        workers: Processes to use at most.

    Yields:
        The shards, as they become finished.

    Raises:
        SettingsError: Another front end has computed one.
        OSError: One cannot be written, or a worker process died.
    """
    workers = min(workers, len(shards))
    if workers < 2:
        yield from map(shards.finish, range(len(shards)))
        return
    stop = multiprocessing.Event()
    pool = ProcessPoolExecutor(workers, initializer=_start_worker, initargs=(shards, stop))
    try:
        futures = [pool.submit(_finish, number) for number in range(len(shards))]
        for future in as_completed(futures):
            yield future.result()
    except BrokenProcessPool as error:
        raise OSError("a worker process died; is there enough memory?") from error
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


_work: tuple[SplitShards, Event]
"""What a worker process is there for."""


def _start_worker(shards: SplitShards, stop: Event) -> None:
    global _work  # so that a task is a number, not a list of paths
    _work = (shards, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process sets `stop`
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Leave no process behind where the parent was killed: it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _finish(number: int) -> Finished:
    shards, stop = _work
    return shards.finish(number, stop)


def find_damage(shard: str) -> str | None:
    """Read a shard to its end, and tell what is wrong with it.

    Args:
        shard: Its path.

    Returns:
        What is wrong; None if it is as it was written.
    """
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
        return f"has another SHA-256 than when it was written; remove it and {AGAIN}"
    return None
