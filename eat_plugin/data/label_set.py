"""The classes of a data set: ``label_descriptors.csv``, one line ``index,label,name`` per class."""

from __future__ import annotations

import csv
import difflib
import os
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field

from .tables import TableError, read_rows, write_csv

HEADERS = (["index", "mid", "display_name"], ["index", "label", "name"])
CHOICES_SHOWN = 5


@dataclass(frozen=True)
class LabelSet:
    """The classes of a data set, in the order of a classifier's outputs.

    Attributes:
        ids: labels in label files, as ``/m/068hy`` or ``dog``.
        names: display names; the ids by default.

    Raises:
        ValueError: an id is not allowed in a label file or occurs twice, or the number of names is
            wrong.
    """

    ids: tuple[str, ...]
    names: tuple[str, ...] = ()
    _positions: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check and index the ids."""
        positions: dict[str, int] = {}
        for position, label in enumerate(self.ids):
            check_label(label)
            if positions.setdefault(label, position) != position:
                raise ValueError(f"the label {label!r} occurs twice")
        if self.names and len(self.names) != len(self.ids):
            raise ValueError(f"{len(self.names)} names for {len(self.ids)} classes")
        object.__setattr__(self, "names", self.names or self.ids)
        object.__setattr__(self, "_positions", positions)

    @classmethod
    def from_indices(cls, indices: Mapping[str, int | str]) -> LabelSet:
        """Make a label set from a checkpoint's dictionary of labels and their indices.

        Raises:
            ValueError: the indices are not 0 to C-1, each once.
        """
        labels: list[str | None] = [None] * len(indices)
        for label, index in indices.items():
            position = int(index) if str(index).isdecimal() else -1
            if not 0 <= position < len(labels) or labels[position] is not None:
                raise ValueError(
                    f"the label {label!r} has the index {index!r}; the indices of "
                    f"{len(labels)} classes are 0 to {len(labels) - 1}, each once"
                )
            labels[position] = label
        return cls(tuple(label for label in labels if label is not None))

    def __len__(self) -> int:
        return len(self.ids)

    def index(self, label: str) -> int:
        """Return the index of a label.

        Raises:
            ValueError: there is no such class; the message suggests others.
        """
        position = self._positions.get(label)
        if position is None:
            similar = difflib.get_close_matches(label, self.ids, n=1)
            choices = ", ".join(map(repr, self.ids[:CHOICES_SHOWN]))
            hint = f"did you mean {similar[0]!r}?" if similar else f"they begin with {choices}"
            raise ValueError(f"unknown label {label!r}; {len(self)} are known, {hint}")
        return position


def check_label(label: str) -> str:
    """Return a label that a label file can hold.

    Raises:
        ValueError: the label is empty, starts or ends with a space, or has a tab or line break.
    """
    if not label:
        raise ValueError("an empty label")
    if label != label.strip():
        raise ValueError(f"the label {label!r} begins or ends with a space")
    for characters, called in (("\t", "a tab"), ("\r\n", "a line break")):
        if any(character in label for character in characters):
            raise ValueError(
                f"the label {label!r} holds {called}, which a label file cannot hold; write a space"
            )
    return label


def join_labels(labels: Iterable[str]) -> str:
    """Join the labels of a clip by commas; one with a comma is put in double quotes, as in csv."""
    return ",".join(
        '"{}"'.format(label.replace('"', '""')) if "," in label or label[0] == '"' else label
        for label in map(check_label, labels)
    )


def split_labels(text: str, known: Container[str] = ()) -> list[str]:
    """Split labels at commas, except in double quotes.

    Args:
        text: the labels of a clip.
        known: labels that may have double quotes of their own, without others around them.
    """
    labels = [label.strip() for label in text.split(",")]
    if '"' not in text or all(label in known for label in labels):
        return labels
    try:
        (labels,) = csv.reader([text], skipinitialspace=True, strict=True)
    except csv.Error as error:
        raise ValueError(f"the labels {text!r} have invalid double quotes: {error}") from error
    return [label.strip() for label in labels]


def read_label_set(path: str | os.PathLike[str]) -> LabelSet:
    """Read ``label_descriptors.csv``, or AudioSet's ``class_labels_indices.csv``.

    Rows ``index,label,name`` may have any order and no name; a header may come first.

    Raises:
        TableError: a row has another form, or a repeated index or label; an index is missing; there
            are no rows.
    """
    if not os.path.exists(path):
        raise TableError(
            f"there is no {path}: the clips have no labels; list them with eat manifest --layout "
            "(eat manifest --help shows the layouts)"
        )
    rows: dict[int, tuple[str, str]] = {}
    lines: dict[str, int] = {}
    for number, row in read_rows(path):
        row = [cell.strip() for cell in row]
        if not rows and row in HEADERS:
            continue
        if len(row) not in (2, 3) or not row[0].isdecimal():
            raise TableError(
                f"{path}:{number}: expected 'index,label,name' (a name with commas in double "
                f"quotes), got {','.join(row)!r}"
            )
        index, label = int(row[0]), row[1]
        _check_new_class(f"{path}:{number}", index, label, rows, lines)
        rows[index] = (label, row[2] if len(row) == 3 and row[2] else label)
        lines[label] = number
    if not rows:
        raise TableError(f"{path}:1: no classes, expected lines of 'index,label,name'")
    missing = next((index for index in range(len(rows)) if index not in rows), None)
    if missing is not None:
        raise TableError(
            f"{path}: no class has the index {missing}; the indices of {len(rows)} classes are "
            f"0 to {len(rows) - 1}"
        )
    ids, names = zip(*(rows[index] for index in range(len(rows))))
    return LabelSet(ids, names)


def _check_new_class(
    place: str, index: int, label: str, rows: dict[int, tuple[str, str]], lines: dict[str, int]
) -> None:
    try:
        check_label(label)
    except ValueError as error:
        raise TableError(f"{place}: {error}") from error
    if label in lines:
        raise TableError(f"{place}: the label {label!r} is in line {lines[label]} already")
    if index in rows:
        line = lines[rows[index][0]]
        raise TableError(f"{place}: the index {index} is in line {line} already")


def write_label_set(path: str | os.PathLike[str], label_set: LabelSet) -> None:
    """Write ``label_descriptors.csv``, complete or not at all; without a header, as published."""
    write_csv(path, zip(range(len(label_set)), label_set.ids, label_set.names))
