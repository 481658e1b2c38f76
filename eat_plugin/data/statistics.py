"""Mean and standard deviation of a data set's log-mel energies, which normalise inputs."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import reduce
from pathlib import Path

import numpy as np

from .channels import MEAN
from .files import replacing
from .frames import MEL_BINS
from .json_text import parse_json
from .manifest import Manifest, digest_clips

FILE = "stats.json"
SAMPLE_FRAMES = 998  # per clip of a sample: 10 s


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared deviations of numbers, in float64."""

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
        """Combine the moments of two parts exactly (Chan, Golub and LeVeque, 1979)."""
        count = self.count + other.count
        if count == 0:
            return self
        distance, share = other.mean - self.mean, other.count / count
        between = distance * distance * self.count * share
        mean = self.mean + distance * share
        return Moments(count, mean, self.squares + other.squares + between)

    @property
    def std(self) -> float:
        """Standard deviation."""
        return math.sqrt(self.squares / self.count) if self.count else 0.0


def sum_up(parts: Iterable[Moments]) -> Moments:
    """Combine the moments of all parts."""
    return reduce(Moments.__add__, parts, Moments())


@dataclass(frozen=True)
class Sample:
    """Moments of a sample of clips, with the standard errors of mean and standard deviation."""

    moments: Moments
    clips: int
    mean_error: float
    std_error: float


def measure_some(
    manifest: Manifest, clips: int, seed: int = 0, channels: str = MEAN
) -> Sample | None:
    """Measure up to ten seconds each of at most ``clips`` clips, the same ones for a seed.

    Returns:
        The sample; None if no clip can be used.
    """
    rng = np.random.default_rng(seed)
    total = len(manifest)
    parts = []
    for index in np.sort(rng.choice(total, min(clips, total), replace=False)).tolist():
        try:
            moments = _measure_part(manifest, index, rng.random(), channels)
        except (ValueError, OSError):
            continue  # named when it is read
        if moments.count:
            parts.append(moments)
    if not parts:
        return None
    whole = sum_up(parts)
    means = np.array([part.mean for part in parts])
    squares = [part.squares / part.count + (part.mean - whole.mean) ** 2 for part in parts]
    # Clips are drawn, not frames; with all clips measured there is no sampling error.
    chance = math.sqrt((1 - len(parts) / total) / len(parts))
    std_error = chance * float(np.std(squares)) / max(2 * whole.std, 1e-9)
    return Sample(whole, len(parts), chance * float(means.std()), std_error)


def _measure_part(manifest: Manifest, index: int, position: float, channels: str) -> Moments:
    from .frontend import FrontEnd  # here, so that files can be listed without PyTorch
    from .reader import read_part

    front_end = FrontEnd(SAMPLE_FRAMES, 0.0, 1.0, channels=channels)
    values, sample_rate = read_part(
        manifest.entry(index), front_end, lambda room, _: int(position * max(0, room))
    )
    energies = values if sample_rate is None else front_end.energies(values, sample_rate)
    return Moments.of(energies.numpy())


@dataclass(frozen=True)
class Statistics:
    """Contents of ``stats.json``.

    Attributes:
        mean: mean of the log-mel energies, over all frames and bins.
        std: their standard deviation.
        frames: number of frames of 10 ms.
        clips: number of clips measured.
        split: name of their manifest.
        skipped: number of its clips that cannot be used.
        manifest: SHA-256 of its lines, set by ``write_statistics``; empty in older files.
        channels: how the channels of clips were mixed, see the module ``channels``.
    """

    mean: float
    std: float
    frames: int
    clips: int
    split: str
    skipped: int
    manifest: str = ""
    channels: str = MEAN

    @classmethod
    def from_moments(
        cls, moments: Moments, clips: int, split: str, skipped: int, channels: str = MEAN
    ) -> Statistics:
        """Make the statistics of a split.

        Raises:
            ValueError: all values are equal, or there are none.
        """
        if not moments.std > 0:
            raise ValueError(
                f"all {moments.count} log-mel values of the split {split!r} are the same "
                f"({moments.mean:.3f}), as those of silence are; there is nothing to normalise by"
            )
        frames = moments.count // MEL_BINS
        return cls(moments.mean, moments.std, frames, clips, split, skipped, channels=channels)


def read_statistics(folder: str | os.PathLike[str]) -> Statistics | None:
    """Read the statistics of a data folder; None if it has no ``stats.json``.

    Raises:
        ValueError: the file is invalid.
        OSError: the file cannot be read.
    """
    path = Path(folder) / FILE
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    advice = f"rewrite it with: eat stats {folder}"
    try:
        statistics = Statistics(**parse_json(content))
        usable = math.isfinite(statistics.mean) and 0 < statistics.std < math.inf
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} does not hold statistics ({error}); {advice}") from error
    if not usable:
        raise ValueError(
            f"{path} has mean {statistics.mean} and std {statistics.std}; both have to be finite "
            f"and std more than 0; {advice}"
        )
    return statistics


def check_statistics(
    folder: str | os.PathLike[str], statistics: Statistics, channels: str | None = None
) -> None:
    """Compare the statistics of a data folder with their manifest, if it is in the folder.

    Raises:
        ValueError: the manifest has changed since, or they were not measured on ``channels``.
    """
    option = "" if statistics.split == "train" else f" --split {statistics.split}"
    if channels not in (None, statistics.channels):
        raise ValueError(
            f"{Path(folder) / FILE} was measured with channels={statistics.channels}, but "
            f"channels={channels} is asked for; run eat stats {folder}{option} --channels "
            f"{channels}, or set task.norm_mean and task.norm_std"
        )
    manifest = Path(folder) / f"{statistics.split}.tsv"
    if not manifest.is_file():
        return
    if statistics.manifest:
        is_same = statistics.manifest == digest_clips(manifest)
    else:  # an older file; a cache may have fewer clips
        with open(manifest, "rb") as file:
            count = sum(1 for _ in file) - 1
        is_cache = Path(folder, "cache.json").exists()
        is_same = is_cache or count == statistics.clips + statistics.skipped
    if not is_same:
        raise ValueError(
            f"{Path(folder) / FILE} holds the statistics of other clips than {manifest} lists now; "
            f"run eat stats {folder}{option} again, or set task.norm_mean and task.norm_std"
        )


def write_statistics(folder: str | os.PathLike[str], statistics: Statistics) -> None:
    """Write the statistics of a data folder and the digest of their manifest."""
    manifest = Path(folder) / f"{statistics.split}.tsv"
    if manifest.is_file():
        statistics = replace(statistics, manifest=digest_clips(manifest))
    values = asdict(statistics)
    if statistics.channels == MEAN:  # as earlier versions write and read it
        del values["channels"]
    with replacing(Path(folder) / FILE) as file:
        file.write(f"{json.dumps(values, indent=2)}\n".encode())
