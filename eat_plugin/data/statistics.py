"""Mean and standard deviation of a data set's log-mel energies, which normalise inputs.

Over all mel bins, and of each bin: ``task.norm`` says by which of them inputs are normalised.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np

from .channels import MEAN
from .files import replacing
from .frames import MEL_BINS, Numbers
from .json_text import parse_json
from .manifest import digest_clips

FILE = "stats.json"
WHOLE, BINS = NORMS = ("whole", "bins")
# Least deviation of a mel bin, relative to the root mean square over all bins. One of the 128
# filters lies between two lines of the spectrum and is constant; all others of ESC-10 are above
# 0.73, so full-band sound stays as it is. Bins above 4 kHz of telephone speech hold leakage and
# rounding (0.33 and more for ESC-10 at 8 kHz; less in quiet sound): they must not spread like the
# others, and full-band sound in a later clip must not lie hundreds of deviations out. Relative to
# the root mean square, which follows the bins that vary; a median may be that of a dead bin.
LEAST_DEVIATION = 0.5


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared deviations of numbers, in float64.

    Attributes:
        count: of numbers.
        mean: a number; of each column, an array.
        squares: a number; of each column, an array.
        bins: the moments of each column of numbers `[n, columns]`; None of others.
    """

    count: int = 0
    mean: Any = 0.0
    squares: Any = 0.0
    bins: Moments | None = field(default=None, compare=False)

    @classmethod
    def of(cls, values: np.ndarray) -> Moments:
        """Take the moments of an array of any shape; of `[n, columns]` those of each column too."""
        if values.size == 0:
            return cls()
        values = values.astype(np.float64)
        mean, bins = float(values.mean()), None
        if values.ndim == 2:
            means = values.mean(axis=0)
            bins = cls(len(values), means, np.square(values - means).sum(axis=0))
        return cls(values.size, mean, float(np.square(values - mean).sum()), bins)

    def __add__(self, other: Moments) -> Moments:
        """Combine the moments of two parts exactly (Chan, Golub and LeVeque, 1979)."""
        count = self.count + other.count
        if count == 0:
            return self
        distance, share = other.mean - self.mean, other.count / count
        between = distance * distance * self.count * share
        mean = self.mean + distance * share
        bins = self.bins or other.bins
        if self.bins and other.bins:
            bins = self.bins + other.bins
        return Moments(count, mean, self.squares + other.squares + between, bins)

    @property
    def std(self) -> float:
        """Standard deviation."""
        return math.sqrt(self.squares / self.count) if self.count else 0.0


def sum_up(parts: Iterable[Moments]) -> Moments:
    """Combine the moments of all parts."""
    return reduce(Moments.__add__, parts, Moments())


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
        bin_means: mean of each mel bin; empty in older files.
        bin_stds: standard deviation of each mel bin.
    """

    mean: float
    std: float
    frames: int
    clips: int
    split: str
    skipped: int
    manifest: str = ""
    channels: str = MEAN
    bin_means: tuple[float, ...] = ()
    bin_stds: tuple[float, ...] = ()

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
        frames, means, stds = moments.count // MEL_BINS, (), ()
        if moments.bins is not None:
            means = tuple(moments.bins.mean.tolist())
            stds = tuple(np.sqrt(moments.bins.squares / moments.bins.count).tolist())
        return cls(
            moments.mean, moments.std, frames, clips, split, skipped, "", channels, means, stds
        )

    def numbers(self, norm: str) -> tuple[Numbers, Numbers]:
        """Return the mean and the deviation that inputs are normalised by.

        Args:
            norm: ``whole``, those over all bins; or ``bins``, those of each mel bin, a deviation
                at least ``LEAST_DEVIATION`` of the root mean square of all.

        Raises:
            ValueError: no bin varies.
        """
        if norm == WHOLE:
            return self.mean, self.std
        if not any(self.bin_stds):
            raise ValueError("no mel bin varies, so task.norm=bins has nothing to normalise by")
        least = LEAST_DEVIATION * math.sqrt(sum(std * std for std in self.bin_stds) / MEL_BINS)
        return self.bin_means, tuple(max(std, least) for std in self.bin_stds)


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
        statistics = _check_bins(statistics)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} does not hold statistics ({error}); {advice}") from error
    if not usable:
        raise ValueError(
            f"{path} has mean {statistics.mean} and std {statistics.std}; both have to be finite "
            f"and std more than 0; {advice}"
        )
    return statistics


def _check_bins(statistics: Statistics) -> Statistics:
    """Return statistics with tuples of numbers; raise ValueError for other values of the bins."""
    means, stds = (tuple(map(float, v)) for v in (statistics.bin_means, statistics.bin_stds))
    are_numbers = all(map(math.isfinite, means + stds)) and all(std >= 0 for std in stds)
    if len(means) != len(stds) or len(stds) not in (0, MEL_BINS) or not are_numbers:
        raise ValueError(f"bin_means and bin_stds must be {MEL_BINS} finite numbers each")
    return replace(statistics, bin_means=means, bin_stds=stds)


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
    if statistics.channels == MEAN:  # as earlier versions write it
        del values["channels"]
    if not statistics.bin_stds:
        del values["bin_means"], values["bin_stds"]
    lines = ",\n".join(
        f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in values.items()
    )
    with replacing(Path(folder) / FILE) as file:
        file.write(f"{{\n{lines}\n}}\n".encode())
