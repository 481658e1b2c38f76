"""Labels: which classes each clip of a split has, and weights for balanced sampling.

Beside a manifest ``{split}.tsv`` stands ``{split}.lbl``, a line ``name<TAB>label,label`` for each
of its clips in the same order; and ``train.weights.csv``, a number for each clip of ``train.tsv``.

In this file (the classes themselves are in ``label_set``):
    ClipLabels                      the labels of millions of clips
    read_labels, write_labels       from and to ``{split}.lbl``
    split_line                      name and labels in a line of that file
    count_labels                    how many clips of a ``{split}.lbl`` each class has
    clip_weights                    how often balanced sampling is to draw each clip
    read_weights, write_weights     from and to ``train.weights.csv``
"""

from __future__ import annotations

import math
import os
import posixpath
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from .files import replacing
from .label_set import LabelSet, check_label
from .manifest import Manifest, encode_name
from .tables import TableError, read_lines

WEIGHT_SCALE = 1000.0  # keeps the weights of frequent classes readable; drawing is free of scale
WEIGHT_SMOOTHING = 0.01  # clips; a class without clips has a finite weight


class ClipLabels:
    """The labels of the clips of a split, in the order of its manifest.

    Held in two arrays, so that millions of clips cost a few bytes each and worker processes share
    them.

    Attributes:
        num_classes: Classes that there are, C.
        names_match: False where the label file calls its clips otherwise than the manifest, so
            that only their order says which is which.
    """

    def __init__(
        self,
        offsets: ArrayLike,
        classes: ArrayLike,
        num_classes: int,
        names_match: bool = True,
    ) -> None:
        """Take over the columns of a label file.

        Args:
            offsets: Where the labels of each clip begin, and where the last end, `[N + 1]` int64.
            classes: The classes of all clips, one clip after another, `[labels]` int32.
            num_classes: Classes that there are, C.
            names_match: Whether the names in the label file are those of the manifest.

        Raises:
            ValueError: A clip has no label.
        """
        self.num_classes = num_classes
        self.names_match = names_match
        self._offsets = np.asarray(offsets, dtype=np.int64)
        self._classes = np.asarray(classes, dtype=np.int32)
        unlabelled = np.flatnonzero(np.diff(self._offsets) < 1)
        if len(unlabelled):
            raise ValueError(f"clip {unlabelled[0]} has no label")

    @classmethod
    def from_ids(cls, clips: Iterable[Iterable[str]], label_set: LabelSet) -> ClipLabels:
        """Look up the labels of clips.

        Args:
            clips: The labels of each clip.
            label_set: The classes.

        Raises:
            ValueError: A label is unknown, or a clip has none.
        """
        offsets, classes = array("q", [0]), array("i")
        for labels in clips:
            classes.extend(label_set.index(label) for label in dict.fromkeys(labels))
            offsets.append(len(classes))
        return cls(offsets, classes, len(label_set))

    def __len__(self) -> int:
        """Return the number of clips, N."""
        return len(self._offsets) - 1

    def classes(self, index: int) -> np.ndarray:
        """Return the classes of a clip, each once, `[labels of the clip]` int32.

        Raises:
            IndexError: There is no such clip.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of the labels of {len(self)} clips")
        return self._classes[self._offsets[index] : self._offsets[index + 1]]

    def multi_hot(self, clips: np.ndarray) -> np.ndarray:
        """Return 1 for each class that a clip has, 0 for the others.

        Args:
            clips: Some of the clips, `[n]`.

        Returns:
            `[n, C]` float32.

        Raises:
            IndexError: There is no such clip.
        """
        rows = np.zeros((len(clips), self.num_classes), dtype=np.float32)
        for row, clip in zip(rows, clips):
            row[self.classes(clip)] = 1.0
        return rows

    def counts(self) -> np.ndarray:
        """Return how many clips each class has, `[C]` int64."""
        return np.bincount(self._classes, minlength=self.num_classes).astype(np.int64)

    def combine(self, operation: np.ufunc, values: np.ndarray) -> np.ndarray:
        """Combine a value of each class over the classes of each clip.

        Args:
            operation: As ``np.add`` or ``np.minimum``.
            values: `[C]`.

        Returns:
            `[N]`, of the values' type.
        """
        return operation.reduceat(values[self._classes], self._offsets[:-1])

    def select(self, clips: np.ndarray) -> ClipLabels:
        """Return the labels of some of the clips.

        Args:
            clips: Which ones, in their new order, `[n]` integers.
        """
        starts, lengths = self._offsets[clips], np.diff(self._offsets)[clips]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        moved = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
        return ClipLabels(offsets, self._classes[moved], self.num_classes, self.names_match)


def read_labels(
    path: str | os.PathLike[str], label_set: LabelSet, manifest: Manifest, single_label: bool
) -> ClipLabels:
    """Read ``{split}.lbl``.

    Lines are ``name<TAB>label,label``; without a tab, the last word is the labels. A name agrees
    with the manifest if it is the clip's path, its file name, or that without its ending. If no
    name agrees, the file names its clips in another way, and their order decides; if only some
    do, the order is wrong.

    Args:
        path: The file; its manifest stands beside it.
        label_set: The classes.
        manifest: The clips.
        single_label: Whether each clip has to have one label only.

    Returns:
        The labels, in the order of the manifest. A label given twice counts once.

    Raises:
        TableError: There are more or fewer lines than clips; a clip has no label, one that is not
            known, or several where one is expected; some names agree with the manifest, others
            do not.
    """
    offsets, classes = array("q", [0]), array("i")
    matches, stranger, number = False, 0, 0
    for number, name, found in _parse_labels(path, label_set):
        if single_label and len(found) > 1:
            labels = ", ".join(repr(label_set.ids[position]) for position in found)
            raise TableError(f"{path}:{number}: one label is expected, got {labels}")
        classes.extend(found)
        offsets.append(len(classes))
        if number <= len(manifest):
            if _is_called(name, manifest.name(number - 1)):
                matches = True
            else:
                stranger = stranger or number
    if number != len(manifest):
        raise TableError(
            f"{path} has the labels of {number} clips, but "
            f"{Path(path).with_suffix('.tsv')} has {len(manifest)} clips"
        )
    if matches and stranger:
        raise TableError(
            f"{path}:{stranger}: expected the labels of {manifest.name(stranger - 1)!r}, as in "
            f"line {stranger + 1} of {Path(path).with_suffix('.tsv')}; the name is another"
        )
    return ClipLabels(offsets, classes, len(label_set), names_match=not stranger)


def count_labels(path: str | os.PathLike[str], label_set: LabelSet) -> np.ndarray:
    """Count the clips of each class in a ``{split}.lbl``.

    Args:
        path: The file.
        label_set: The classes.

    Returns:
        `[C]` int64.

    Raises:
        TableError: A clip has no label, or one that is not known.
    """
    counts = np.zeros(len(label_set), dtype=np.int64)
    for _, _, found in _parse_labels(path, label_set):
        counts[found] += 1
    return counts


def _parse_labels(
    path: str | os.PathLike[str], label_set: LabelSet
) -> Iterator[tuple[int, str, list[int]]]:
    """Yield of each line its number, the clip's name, and the clip's classes, each once."""
    for number, line in read_lines(path):
        name, joined = split_line(line)
        if not joined.strip():
            raise TableError(f"{path}:{number}: a clip without label in {line!r}")
        labels = [label.strip() for label in joined.split(",")]
        try:
            found = [label_set.index(label) for label in dict.fromkeys(labels)]
        except ValueError as error:
            raise TableError(f"{path}:{number}: {error}") from error
        yield number, name, found


def split_line(line: str) -> tuple[str, str]:
    """Part a line of a label file into name and labels; what is not there is empty."""
    # Names and labels may hold spaces where a tab parts them.
    name, *others = line.split("\t") if "\t" in line else line.rsplit(maxsplit=1) or [""]
    return name, others[-1] if others else ""


def _is_called(name: str, clip: str) -> bool:
    file = posixpath.basename(clip)
    return name in (clip, file, posixpath.splitext(file)[0])


def write_labels(
    path: str | os.PathLike[str], names: Iterable[str], labels: Iterable[Iterable[str]]
) -> None:
    """Write ``{split}.lbl``, whole or not at all.

    Args:
        path: The file; one of that name is replaced.
        names: What the manifest calls each clip.
        labels: The labels of each clip.

    Raises:
        ValueError: A name or a label cannot stand in the file, or a clip has no label.
        OSError: The file cannot be written.
    """
    with replacing(path) as file:
        for name, clip_labels in zip(names, labels):
            joined = ",".join(map(check_label, clip_labels))
            if not joined:
                raise ValueError(f"the clip {name!r} has no label")
            file.write(encode_name(name) + f"\t{joined}\n".encode())


def clip_weights(labels: ClipLabels) -> np.ndarray:
    """Weigh clips so that drawing in proportion evens out how often classes are seen.

    The usual formula for AudioSet, as in PSLA and AST (Gong et al., 2021: arXiv 2102.01243 and
    2104.01778): a class that n clips have weighs 1000 / (n + 0.01), a clip the sum over its
    classes.

    Args:
        labels: The labels of the clips, N.

    Returns:
        `[N]` float64.
    """
    return labels.combine(np.add, WEIGHT_SCALE / (labels.counts() + WEIGHT_SMOOTHING))


def write_weights(path: str | os.PathLike[str], weights: np.ndarray) -> None:
    """Write weights of clips, one a line, whole or not at all.

    Args:
        path: The file; one of that name is replaced.
        weights: `[N]`.

    Raises:
        OSError: The file cannot be written.
    """
    with replacing(path) as file:
        file.writelines(b"%r\n" % weight for weight in weights.astype(float).tolist())


def read_weights(path: str | os.PathLike[str], expected: int) -> np.ndarray:
    """Read weights of clips, one a line.

    Args:
        path: The file.
        expected: Clips that there are, N.

    Returns:
        `[N]` float64.

    Raises:
        TableError: A line is not a number of 0 or more, there are not as many as clips, or all
            are 0.
    """
    weights = array("d")
    for number, line in read_lines(path):
        try:
            weight = float(line)
        except ValueError:
            weight = math.nan
        if not 0 <= weight < math.inf:
            raise TableError(f"{path}:{number}: expected a weight of 0 or more, got {line!r}")
        weights.append(weight)
    if len(weights) != expected:
        raise TableError(f"{path} has {len(weights)} weights, but there are {expected} clips")
    if not any(weights):
        raise TableError(f"{path}: every weight is 0; no clip could be drawn")
    return np.array(weights, dtype=np.float64)
