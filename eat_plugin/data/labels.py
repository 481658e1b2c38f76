"""Labels of the clips of a split, and weights for balanced sampling.

Beside a manifest ``{split}.tsv`` stands ``{split}.lbl``, one line ``name<TAB>label,label`` per clip
in the same order; a label with a comma is in double quotes. ``train.weights.csv`` has one number
per clip of ``train.tsv``.
"""

from __future__ import annotations

import math
import os
import posixpath
import unicodedata
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from .files import replacing
from .fingerprints import AGAIN
from .label_set import LabelSet, join_labels, split_labels
from .manifest import Manifest, encode_name
from .tables import TableError, read_lines

WEIGHT_SCALE = 1000.0  # makes small weights readable; sampling does not depend on it
WEIGHT_SMOOTHING = 0.01  # clips; keeps the weight of a class without clips finite


class ClipLabels:
    """The labels of the clips of a split, in the order of its manifest.

    Two arrays hold them: a few bytes per clip, shared by worker processes.

    Args:
        offsets: start of each clip's labels, and the end of the last, `[N + 1]` int64.
        classes: classes of all clips, concatenated, `[labels]` int32.
        num_classes: number of classes, C.
        names_match: whether the label file has the manifest's names; if not, order decides.

    Raises:
        ValueError: a clip has no label.
    """

    def __init__(
        self,
        offsets: ArrayLike,
        classes: ArrayLike,
        num_classes: int,
        names_match: bool = True,
    ) -> None:
        self.num_classes = num_classes
        self.names_match = names_match
        self._offsets = np.asarray(offsets, dtype=np.int64)
        self._classes = np.asarray(classes, dtype=np.int32)
        unlabelled = np.flatnonzero(np.diff(self._offsets) < 1)
        if len(unlabelled):
            raise ValueError(f"clip {unlabelled[0]} has no label")

    @classmethod
    def from_ids(cls, clips: Iterable[Iterable[str]], label_set: LabelSet) -> ClipLabels:
        """Look up the labels of each clip.

        Raises:
            ValueError: a label is unknown, or a clip has none.
        """
        offsets, classes = array("q", [0]), array("i")
        for labels in clips:
            classes.extend(label_set.index(label) for label in dict.fromkeys(labels))
            offsets.append(len(classes))
        return cls(offsets, classes, len(label_set))

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def classes(self, index: int) -> np.ndarray:
        """Return the distinct classes of a clip, `[labels]` int32."""
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of the labels of {len(self)} clips")
        return self._classes[self._offsets[index] : self._offsets[index + 1]]

    def multi_hot(self, clips: np.ndarray) -> np.ndarray:
        """Return the multi-hot targets of clips `[n]`: `[n, C]` float32."""
        rows = np.zeros((len(clips), self.num_classes), dtype=np.float32)
        for row, clip in zip(rows, clips):
            row[self.classes(clip)] = 1.0
        return rows

    def counts(self) -> np.ndarray:
        """Return the number of clips per class, `[C]` int64."""
        return np.bincount(self._classes, minlength=self.num_classes).astype(np.int64)

    def combine(self, operation: np.ufunc, values: np.ndarray) -> np.ndarray:
        """Reduce values `[C]` over the classes of each clip, as by ``np.add``: `[N]`."""
        return operation.reduceat(values[self._classes], self._offsets[:-1])

    def select(self, clips: np.ndarray) -> ClipLabels:
        """Return the labels of clips `[n]`, in this order."""
        starts, lengths = self._offsets[clips], np.diff(self._offsets)[clips]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        moved = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
        return ClipLabels(offsets, self._classes[moved], self.num_classes, self.names_match)


def read_labels(
    path: str | os.PathLike[str], label_set: LabelSet, manifest: Manifest, single_label: bool
) -> ClipLabels:
    """Read ``{split}.lbl``.

    Without a tab, the last word of a line is its labels. A name matches the manifest if it is the
    clip's path, its file name, or its file name without ending; names in other folders match by
    their file names. If some names match, all must, in the order of the manifest. If the manifest
    has none of the names, the order decides. A repeated label counts once.

    Args:
        path: the file, beside its manifest.
        label_set: the classes.
        manifest: the clips.
        single_label: each clip must have one label.

    Raises:
        TableError: the number of lines is wrong; a clip has no label, an unknown one, or several
            where one is expected; names match, but in another order.
    """
    offsets, classes = array("q", [0]), array("i")
    matches, first_mismatch, number = False, 0, 0
    for number, name, found in _parse_labels(path, label_set):
        if single_label and len(found) > 1:
            labels = ", ".join(repr(label_set.ids[position]) for position in found)
            raise TableError(
                f"{path}:{number}: expected one label, got {labels}; several need "
                "task.single_label=false model.loss=bce"
            )
        classes.extend(found)
        offsets.append(len(classes))
        if number <= len(manifest):
            if _matches(name, manifest.name(number - 1)):
                matches = True
            else:
                first_mismatch = first_mismatch or number
    if number != len(manifest):
        raise TableError(
            f"{path} has the labels of {number} clips, but "
            f"{Path(path).with_suffix('.tsv')} has {len(manifest)} clips; {AGAIN}"
        )
    if first_mismatch and not matches:
        matches, first_mismatch = _match_files(path, label_set, manifest, first_mismatch)
    if matches and first_mismatch:
        raise TableError(
            f"{path}:{first_mismatch}: expected the labels of "
            f"{manifest.name(first_mismatch - 1)!r}, as in line {first_mismatch + 1} of "
            f"{Path(path).with_suffix('.tsv')}; the name differs; {AGAIN}"
        )
    return ClipLabels(offsets, classes, len(label_set), names_match=not first_mismatch)


def _match_files(
    path: str | os.PathLike[str], label_set: LabelSet, manifest: Manifest, first: int
) -> tuple[bool, int]:
    """Compare names by their files alone, where none matches as it is.

    Returns:
        Whether any of the names is in the manifest; and the first line (from 1) that does not
        match, 0 if all do, ``first`` if none of the names is there.
    """
    files = [posixpath.basename(name) for _, name, _ in _parse_labels(path, label_set)]
    clips = [manifest.name(clip) for clip in range(len(manifest))]
    differ = (n for n, pair in enumerate(zip(files, clips), 1) if not _matches(*pair))
    mismatch = next(differ, 0)
    known = {_compose(name) for clip in clips for name in _names(clip)}
    is_known = not known.isdisjoint(map(_compose, files))
    return is_known, mismatch if is_known else first


def count_labels(path: str | os.PathLike[str], label_set: LabelSet) -> np.ndarray:
    """Count the clips of each class in ``{split}.lbl``: `[C]` int64.

    Raises:
        TableError: a clip has no label, or an unknown one.
    """
    counts = np.zeros(len(label_set), dtype=np.int64)
    for _, _, found in _parse_labels(path, label_set):
        counts[found] += 1
    return counts


def _parse_labels(
    path: str | os.PathLike[str], label_set: LabelSet
) -> Iterator[tuple[int, str, list[int]]]:
    """Yield number, clip name and distinct classes of each line."""
    for number, line in read_lines(path):
        name, joined = split_line(line)
        if not joined.strip():
            raise TableError(f"{path}:{number}: a clip without label in {line!r}")
        try:
            labels = split_labels(joined, label_set.ids)
            found = [label_set.index(label) for label in dict.fromkeys(labels)]
        except ValueError as error:
            raise TableError(f"{path}:{number}: {error}") from error
        yield number, name, found


def split_line(line: str) -> tuple[str, str]:
    """Split a line of a label file into name and labels, which may be empty."""
    # With a tab between them, names and labels may have spaces.
    name, *others = line.split("\t") if "\t" in line else line.rsplit(maxsplit=1) or [""]
    return name, others[-1] if others else ""


def _matches(name: str, clip: str) -> bool:
    names = _names(clip)
    if name in names or name.isascii():
        return name in names
    return _compose(name) in map(_compose, names)


def _names(clip: str) -> tuple[str, str, str]:
    file = posixpath.basename(clip)
    return clip, file, posixpath.splitext(file)[0]


def _compose(name: str) -> str:
    return unicodedata.normalize("NFC", name)  # macOS stores other forms


def write_labels(
    path: str | os.PathLike[str], names: Iterable[str], labels: Iterable[Iterable[str]]
) -> None:
    """Write ``{split}.lbl``, complete or not at all.

    Raises:
        ValueError: a name or a label is not allowed, or a clip has no label.
    """
    with replacing(path) as file:
        for name, clip_labels in zip(names, labels):
            joined = join_labels(clip_labels)
            if not joined:
                raise ValueError(f"the clip {name!r} has no label")
            file.write(encode_name(name) + f"\t{joined}\n".encode())


def clip_weights(labels: ClipLabels) -> np.ndarray:
    """Compute weights for balanced sampling, `[N]` float64.

    A class with n clips weighs 1000 / (n + 0.01), a clip the sum over its classes (PSLA and AST,
    Gong et al. 2021, arXiv 2102.01243 and 2104.01778).
    """
    return labels.combine(np.add, WEIGHT_SCALE / (labels.counts() + WEIGHT_SMOOTHING))


def write_weights(path: str | os.PathLike[str], weights: np.ndarray) -> None:
    """Write weights `[N]`, one per line, complete or not at all."""
    with replacing(path) as file:
        file.writelines(b"%r\n" % weight for weight in weights.astype(float).tolist())


def read_weights(path: str | os.PathLike[str], expected: int) -> np.ndarray:
    """Read the weights of ``expected`` clips, one per line: `[N]` float64.

    Raises:
        TableError: a line is not a number of 0 or more, their number is wrong, or all are 0.
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
        raise TableError(
            f"{path} has {len(weights)} weights, but there are {expected} clips; {AGAIN}"
        )
    if not any(weights):
        raise TableError(f"{path}: every weight is 0; no clip could be drawn")
    return np.array(weights, dtype=np.float64)
