"""The scores of an evaluation, clip by clip, and the paired comparison of two evaluations."""

from __future__ import annotations

import os
import posixpath
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..ranking import RankedScores
from .probing import Interval, Judge

FILE = "clips.npz"


class ScoredClips(NamedTuple):
    """The clips that an evaluation has scored.

    Attributes:
        names: of the clips, [clips] text.
        labels: of the classes, [classes] text.
        scores: [clips, classes] float32.
        targets: [clips, classes] bool.
    """

    names: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    targets: np.ndarray

    @property
    def single(self) -> bool:
        """Whether each clip has one class."""
        return bool((self.targets.sum(axis=1) == 1).all())

    def select(self, clips: np.ndarray, labels: np.ndarray) -> ScoredClips:
        """Return clips and classes by their numbers, in this order."""
        grid = np.ix_(clips, labels)
        return ScoredClips(
            self.names[clips], self.labels[labels], self.scores[grid], self.targets[grid]
        )


class Paired(NamedTuple):
    """Two evaluations on the clips that both have.

    Attributes:
        metric: its name.
        first: the metric of the first one.
        second: of the second one.
        difference: second minus first, with its interval.
    """

    metric: str
    first: float
    second: float
    difference: Interval

    @property
    def is_real(self) -> bool:
        """Whether the interval of the difference excludes 0; without an interval never."""
        return self.difference.low > 0 or self.difference.high < 0


def read_scored(folder: Path) -> ScoredClips:
    """Read ``clips.npz`` of an evaluation, as data: no code in it is executed.

    Raises:
        ValueError: there is no such file, or it is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        raise ValueError(
            f"{folder} has no {FILE}: evaluate again, with eat evaluate --out; models of time "
            "steps cannot be compared"
        )
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = ScoredClips(*(arrays[name] for name in ScoredClips._fields))
    except (OSError, ValueError, LookupError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is damaged, or was not written by eat evaluate") from error
    shape = (*found.names.shape, *found.labels.shape)
    if found.scores.shape != shape or found.targets.shape != shape:
        raise ValueError(f"{path} is damaged: its arrays do not fit each other")
    return found


def match_clips(first: ScoredClips, second: ScoredClips) -> tuple[ScoredClips, ScoredClips]:
    """Return both with the clips that both have, and the classes in the order of the first.

    Clips are the same if their names are; if no name is, if their file names without endings are,
    which must then be unique: copies of a data set differ in folders and formats.

    Raises:
        ValueError: they have other classes, no clip in common, or other labels of a clip.
    """
    columns = {label: column for column, label in enumerate(second.labels.tolist())}
    if set(columns) != set(first.labels.tolist()):
        raise ValueError("the two evaluations have other classes; they cannot be compared")
    order = np.array([columns[label] for label in first.labels.tolist()], dtype=np.int64)
    rows = _pair(first.names.tolist(), second.names.tolist())
    if not rows:
        stems = [[_stem(name) for name in each.names.tolist()] for each in (first, second)]
        rows = _pair(*stems) if all(len(set(each)) == len(each) for each in stems) else []
    if not rows:
        raise ValueError("the two evaluations have no clip in common, by name or file name")
    here, there = (np.array(each) for each in zip(*rows))
    one, two = first.select(here, np.arange(len(order))), second.select(there, order)
    differ = (one.targets != two.targets).any(axis=1)
    if differ.any():
        name = one.names[differ.argmax()]
        raise ValueError(
            f"{int(differ.sum())} clips have other labels in the two evaluations, for example "
            f"{str(name)!r}; they cannot be compared"
        )
    return one, two


def _pair(first: list[str], second: list[str]) -> list[tuple[int, int]]:
    places = {name: row for row, name in enumerate(second)}
    return [(row, places[name]) for row, name in enumerate(first) if name in places]


def _stem(name: str) -> str:
    return posixpath.splitext(posixpath.basename(name))[0]


def compare_paired(
    first: ScoredClips, second: ScoredClips, resamples: int, seed: int = 0
) -> Iterator[Paired]:
    """Compare two evaluations of the same clips, from ``match_clips``.

    Each resample draws clips with replacement, the same ones for both (paired bootstrap).

    Yields:
        Accuracy if each clip has one class; mAP.
    """
    for single in (True, False) if first.single else (False,):
        judge = Judge(single, resamples, seed)
        values = [
            judge.measure(RankedScores(each.scores, each.targets)) for each in (first, second)
        ]
        difference = judge.compare(second.scores, first.scores, first.targets)
        yield Paired(judge.metric, values[0], values[1], difference)


def write_scored(path: str | os.PathLike[str], clips: ScoredClips) -> None:
    """Write ``clips.npz``, complete or not at all."""
    from ..data.files import replacing

    with replacing(path) as file:
        np.savez_compressed(file, **clips._asdict())
