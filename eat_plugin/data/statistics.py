"""Mean and standard deviation of a data set's log-mel energies, by which inputs are normalised.

Clips are taken whole and without padding, in blocks: an hour of audio takes no more memory than a
minute. Parts are put together exactly, so that neither their order nor their number matters.

In this file:
    Moments             count, mean and spread of some numbers, and of several parts together
    measure_clip        those of a clip
    measure_all         those of many clips, by several processes
    measure_some        those of a few clips of a manifest, and how far chance may be off
    Statistics          what a data set's statistics file holds
    read_statistics     from the file
    write_statistics    to the file
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import reduce
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .feature_cache import find_cached, read_cached
from .clip import ClipError
from ..prepare.find import in_processes
from .frontend import FRAME_LENGTH, FRAMES_A_SECOND, MEL_BINS, SAMPLE_RATE, FrontEnd
from .files import replacing
from .manifest import Manifest
from .sources import open_clip, read_blocks, read_opened

FILE = "stats.json"
BLOCK_SECONDS = 30
LEAD_SECONDS = 1  # before a block, far more than the resampler looks back; its frames are dropped
CHUNK = 8  # clips that a worker process measures at a time
SAMPLE_SECONDS = 10  # of each clip that measure_some looks at


@dataclass(frozen=True)
class Moments:
    """Count, mean and spread of some numbers, in float64.

    Attributes:
        count: how many there are.
        mean: their mean.
        squares: sum of their squared distances from it.
    """

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    @classmethod
    def of(cls, values: np.ndarray) -> Moments:
        """Take the moments of an array of any shape."""
        if values.size == 0:
            return cls()
        values = values.astype(np.float64)
        mean = float(values.mean())
        return cls(values.size, mean, float(np.square(values - mean).sum()))

    def __add__(self, other: Moments) -> Moments:
        """Return the moments of both parts together (Chan, Golub and LeVeque, 1979)."""
        count = self.count + other.count
        if count == 0:
            return self
        distance, share = other.mean - self.mean, other.count / count
        between = distance * distance * self.count * share
        mean = self.mean + distance * share
        return Moments(count, mean, self.squares + other.squares + between)

    @property
    def std(self) -> float:
        """Standard deviation of the numbers."""
        return math.sqrt(self.squares / self.count) if self.count else 0.0


def measure_clip(path: str | os.PathLike[str], expected_samples: int | None = None) -> Moments:
    """Take the moments of a clip's log-mel energies, over all frames and bins.

    Args:
        path: the clip.
        expected_samples: the length that its header has to give, a manifest's entry.

    Raises:
        ClipError: the clip cannot be used, or is shorter than one frame.
    """
    with _one_thread():
        blocks = _clip_energies(path, expected_samples)
        moments = sum_up(Moments.of(block.numpy()) for block in blocks)
    if moments.count == 0:
        raise ClipError(f"is shorter than one frame ({1000 * FRAME_LENGTH // SAMPLE_RATE} ms)")
    return moments


def _clip_energies(
    path: str | os.PathLike[str], expected_samples: int | None
) -> Iterator[Tensor]:
    cached = find_cached(os.fspath(path))
    if cached is None:
        return block_energies(read_blocks(path, BLOCK_SECONDS, expected_samples))
    frames = BLOCK_SECONDS * FRAMES_A_SECOND
    starts = range(0, cached.frames, frames)
    return (read_cached(cached, start, frames, expected_samples) for start in starts)


def sum_up(parts: Iterator[Moments]) -> Moments:
    """Return the moments of all parts together."""
    return reduce(Moments.__add__, parts, Moments())


def block_energies(blocks: Iterator[tuple[Tensor, int]]) -> Iterator[Tensor]:
    """Compute the log-mel energies of a clip block by block: the frames that the whole has.

    Blocks begin at whole seconds, which are whole samples before and after resampling. Each is
    computed with the second before it, whose frames are dropped.

    Args:
        blocks: the clip's parts of any length, in order: `[n]` float32, and the rate in Hz.

    Yields:
        Energies, `[frames, 128]` float32.
    """
    front_end = FrontEnd((LEAD_SECONDS + BLOCK_SECONDS) * FRAMES_A_SECOND, 0.0, 1.0)
    held, rate, lead = torch.zeros(0), SAMPLE_RATE, 0
    for waveform, rate in blocks:
        held = torch.cat([held, waveform])
        while len(held) >= front_end.needed_samples(rate):
            yield front_end.energies(held, rate)[lead:]
            held, lead = held[BLOCK_SECONDS * rate :], LEAD_SECONDS * FRAMES_A_SECOND
    yield front_end.energies(held, rate)[lead:]


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let PyTorch use one thread: the sums are the same in every process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def measure_all(manifest: Manifest, workers: int) -> Iterator[Moments | str]:
    """Measure all clips of a manifest, in parallel.

    Args:
        manifest: the clips.
        workers: processes to use at most.

    Yields:
        For each clip, in order: its moments, or what is wrong with it.

    Raises:
        OSError: a worker process died.
    """
    clips = [
        (os.path.join(manifest.root, manifest.name(index)), int(manifest.sizes[index]))
        for index in range(len(manifest))
    ]
    return in_processes(_measure, clips, workers, CHUNK)


def _measure(clip: tuple[str, int]) -> Moments | str:
    try:
        return measure_clip(*clip)
    except ClipError as error:
        return str(error)


@dataclass(frozen=True)
class Sample:
    """The moments of a few clips, as an estimate of those of all.

    Attributes:
        moments: of what was read of the clips.
        clips: number of clips.
        mean_error: standard error of the mean.
        std_error: standard error of the standard deviation.
    """

    moments: Moments
    clips: int
    mean_error: float
    std_error: float


def measure_some(manifest: Manifest, clips: int, seed: int = 0) -> Sample | None:
    """Measure up to ten seconds of each of a few clips, which are the same in every run.

    Args:
        manifest: the clips.
        clips: how many to take at most.
        seed: of the choice.

    Returns:
        What was found; None if none of them can be used.
    """
    rng = np.random.default_rng(seed)
    total = len(manifest)
    parts = []
    for index in np.sort(rng.choice(total, min(clips, total), replace=False)).tolist():
        try:
            moments = _measure_part(manifest, index, rng.random())
        except (ValueError, OSError):
            continue  # named when it is its turn
        if moments.count:
            parts.append(moments)
    if not parts:
        return None
    whole = sum_up(iter(parts))
    means = np.array([part.mean for part in parts])
    squares = [part.squares / part.count + (part.mean - whole.mean) ** 2 for part in parts]
    # Clips are drawn, not frames; of all clips there is nothing left to chance.
    chance = math.sqrt((1 - len(parts) / total) / len(parts))
    std_error = chance * float(np.std(squares)) / max(2 * whole.std, 1e-9)
    return Sample(whole, len(parts), chance * float(means.std()), std_error)


def _measure_part(manifest: Manifest, index: int, position: float) -> Moments:
    path, size = manifest.path(index), int(manifest.sizes[index])
    cached = find_cached(os.fspath(path))
    if cached is not None:
        most = SAMPLE_SECONDS * FRAMES_A_SECOND
        start = int(position * max(0, cached.frames - most))
        return Moments.of(read_cached(cached, start, most, size).numpy())
    with open_clip(path) as clip:
        rate = clip.samplerate
        wanted = min(size, SAMPLE_SECONDS * rate)
        waveform = read_opened(clip, size, int(position * (size - wanted)), wanted or None)
    front_end = FrontEnd(SAMPLE_SECONDS * FRAMES_A_SECOND, 0.0, 1.0)
    return Moments.of(front_end.energies(waveform, rate).numpy())


@dataclass(frozen=True)
class Statistics:
    """What a data set's statistics file holds.

    Attributes:
        mean: of the log-mel energies, over all frames and bins.
        std: their standard deviation.
        frames: number of frames, of 10 ms.
        clips: number of clips that they are of.
        split: the manifest that names the clips.
        skipped: number of other clips in it, which cannot be used.
    """

    mean: float
    std: float
    frames: int
    clips: int
    split: str
    skipped: int

    @classmethod
    def from_moments(cls, moments: Moments, clips: int, split: str, skipped: int) -> Statistics:
        """Make the statistics of a split from the moments of its clips.

        Raises:
            ValueError: all values are the same, or there are none.
        """
        if not moments.std > 0:
            raise ValueError(
                f"all {moments.count} log-mel values of the split {split!r} are the same "
                f"({moments.mean:.3f}), as those of silence are; there is nothing to normalise by"
            )
        frames = moments.count // MEL_BINS
        return cls(moments.mean, moments.std, frames, clips, split, skipped)


def read_statistics(folder: str | os.PathLike[str]) -> Statistics | None:
    """Read a data set's statistics.

    Args:
        folder: where the manifests are.

    Returns:
        The statistics; None if the folder has no such file.

    Raises:
        ValueError: the file does not hold what it should, naming it.
        OSError: the file cannot be read.
    """
    path = Path(folder) / FILE
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    advice = f"write it anew with: eat stats {folder}"
    try:
        statistics = Statistics(**json.loads(content))
        usable = math.isfinite(statistics.mean) and 0 < statistics.std < math.inf
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} does not hold statistics ({error}); {advice}") from error
    if not usable:
        raise ValueError(
            f"{path} has mean {statistics.mean} and std {statistics.std}; both have to be finite "
            f"and std more than 0; {advice}"
        )
    return statistics


def write_statistics(folder: str | os.PathLike[str], statistics: Statistics) -> None:
    """Write a data set's statistics, whole or not at all.

    Args:
        folder: where the manifests are.
        statistics: what to write.

    Raises:
        OSError: the file cannot be written.
    """
    with replacing(Path(folder) / FILE) as file:
        file.write(f"{json.dumps(asdict(statistics), indent=2)}\n".encode())
