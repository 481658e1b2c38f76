"""Data sets with a table that says what is in them: the split and labels of each clip.

In this file:
    arrange_table       a csv file whose columns are named by options
    arrange_esc50       ESC-50 and subsets of it
    arrange_audioset    AudioSet's segments
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ..data.label_set import LabelSet, check_label, read_label_set
from ..data.manifest import encode_name
from ..data.tables import TableError, read_columns, read_rows
from .layouts import HELD_OUT, Arrangement, Entry, sort_classes

ESC50_TABLES = ("meta/esc50.csv", "esc50.csv")
ESC50_COLUMNS = ("filename", "fold", "target", "category")
ID_LENGTH = 11  # characters of a YouTube id


class Segment(NamedTuple):
    """A row of AudioSet: its line, start and end in seconds as they are written, and labels."""

    line: int
    start: str
    end: str
    labels: tuple[str, ...]


def arrange_table(
    root: Path,
    table: Path,
    path_column: str,
    label_column: str,
    split_column: str | None,
    separator: str | None,
    split: str,
) -> Arrangement:
    """Read paths and labels from columns of a csv file.

    Args:
        root: The folder that paths are relative to.
        table: The file; one that is called ``.tsv`` has tabs for commas.
        path_column: Name of the column of paths.
        label_column: Name of the column of labels.
        split_column: Name of the column of splits; None puts all clips into one.
        separator: What parts several labels; None takes each field for one label.
        split: The split, where no column says it.

    Returns:
        The clips of all rows, whether their files are there or not.

    Raises:
        TableError: The file cannot be read, a column is missing, or a row has a path that was
            there before or is outside the root, no label, one that cannot be, or no split.
    """
    columns = [path_column, label_column, *([split_column] if split_column else [])]
    lines: dict[str, int] = {}
    entries = []
    combinations: dict[str, tuple[str, ...]] = {}  # one tuple for all clips of the same labels
    for number, (path, text, *named) in read_columns(table, columns):
        place = f"{table}:{number}"
        name = _name_below(root, path, place)
        _note(name, number, lines, place)
        if text not in combinations:
            combinations[text] = _part_labels(text, separator, place)
        if split_column and not named[0]:
            raise TableError(f"{place}: no split in the column {split_column!r}")
        entries.append(Entry(name, named[0] if split_column else split, combinations[text]))
    if not entries:
        raise TableError(f"{table}: no rows below the header")
    entries.sort()
    return Arrangement(entries, label_set=sort_classes(entries))


def _name_below(root: Path, path: str, place: str) -> str:
    """Return a table's path as a manifest has it: relative to the root, without detours."""
    name = os.path.normpath(os.path.relpath(path, root) if os.path.isabs(path) else path)
    if not path or name == os.curdir or name.split("/")[0] == os.pardir:
        raise TableError(f"{place}: expected the path of a file below {root}, got {path!r}")
    try:
        encode_name(name)
    except ValueError as error:
        raise TableError(f"{place}: {error}") from error
    return name


def _note(key: str, number: int, lines: dict[str, int], place: str) -> None:
    """Remember the line of a path or an id, which has to be the only one of that path or id."""
    if lines.setdefault(key, number) != number:
        raise TableError(f"{place}: {key!r} is in line {lines[key]} already")


def _part_labels(text: str, separator: str | None, place: str) -> tuple[str, ...]:
    if separator is None:
        hint = "; are they several? then say what parts them by --label-separator"
        return _check_labels([text], place, hint if "," in text else "")
    return _check_labels([part.strip() for part in text.split(separator)], place)


def _check_labels(parts: list[str], place: str, hint: str = "") -> tuple[str, ...]:
    """Return the labels of a clip, each once."""
    labels = tuple(dict.fromkeys(part for part in parts if part))
    if not labels:
        raise TableError(f"{place}: a clip without label")
    for label in labels:
        try:
            check_label(label)
        except ValueError as error:
            raise TableError(f"{place}: {error}{hint}") from error
    return labels


def arrange_esc50(root: Path, fold: int | None, split: str) -> Arrangement:
    """Read the table of ESC-50 or of a subset of it; the clips are in ``audio``.

    Args:
        root: The folder of the data set, with ``meta/esc50.csv`` or ``esc50.csv``.
        fold: The fold to hold out as the split `HELD_OUT`; None holds out nothing.
        split: The split of the other clips.

    Returns:
        The clips of all rows, whether their files are there or not. The classes are in the order
        of their targets, which need not be contiguous.

    Raises:
        ValueError: There is no table, or it does not have that fold.
        TableError: A column is missing, or a row has a file that was there before, a fold or
            target that is no number, or another category than its target had before.
    """
    table = next((root / name for name in ESC50_TABLES if (root / name).exists()), None)
    if table is None:
        raise ValueError(f"there is no {' and no '.join(ESC50_TABLES)} in {root}")
    lines: dict[str, int] = {}
    categories: dict[int, str] = {}
    targets: dict[str, int] = {}
    folds, entries = set(), []
    for number, (file, *numbers, category) in read_columns(table, ESC50_COLUMNS):
        place = f"{table}:{number}"
        name = _name_below(root, os.path.join("audio", file) if file else "", place)
        _note(name, number, lines, place)
        row_fold, target = (_parse_number(text, place) for text in numbers)
        _note_class(target, category, categories, targets, place)
        folds.add(row_fold)
        labels = _check_labels([category], place)
        entries.append(Entry(name, HELD_OUT if row_fold == fold else split, labels))
    if fold is not None and fold not in folds:
        raise ValueError(
            f"--fold {fold}: {table} has the folds {', '.join(map(str, sorted(folds)))}"
        )
    entries.sort()
    label_set = LabelSet(tuple(categories[target] for target in sorted(categories)))
    return Arrangement(entries, label_set=label_set)


def _note_class(
    target: int, category: str, categories: dict[int, str], targets: dict[str, int], place: str
) -> None:
    """Remember which category a target stands for; every row has to say the same."""
    if (
        categories.setdefault(target, category) != category
        or targets.setdefault(category, target) != target
    ):
        raise TableError(f"{place}: target {target} is {category!r}, unlike in a row before")


def _parse_number(text: str, place: str) -> int:
    if not text.isdecimal():
        raise TableError(f"{place}: expected a fold and a target, both whole numbers, got {text!r}")
    return int(text)


def arrange_audioset(names: list[str], segments: Path, classes: Path, split: str) -> Arrangement:
    """Find the clips of AudioSet segments among files that are named by YouTube id.

    A file is called ``ID``, ``YID``, ``ID_...`` or ``YID_...``, whatever its ending; the part
    after the underscore, usually start and end, is not looked at.

    Args:
        names: Paths below the root, sorted.
        segments: AudioSet's table of a split: rows of id, start, end and labels.
        classes: AudioSet's ``class_labels_indices.csv``.
        split: What to call the split.

    Returns:
        The clips that are there; each other as ``id<TAB>start<TAB>end`` in seconds. The classes
        are all of ``classes``, in their order.

    Raises:
        ValueError: No clip is there.
        TableError: A table cannot be read, or a row is not of its form, has an id that was there
            before or a label that is not among the classes.
    """
    label_set = read_label_set(classes)
    listed = _read_segments(segments, label_set)
    entries, rejected, found = [], [], set()
    for name in names:
        clip = next((clip for clip in _ids_of(PurePosixPath(name).stem) if clip in listed), None)
        if clip is None:
            continue
        if clip in found:
            rejected.append((name, f"is another file of the clip {clip}"))
        else:
            found.add(clip)
            entries.append(Entry(name, split, listed[clip].labels))
    if not entries:
        raise ValueError(
            f"none of the {len(names)} files is named by one of the {len(listed)} ids in {segments}"
        )
    missing = [
        f"{clip}\t{segment.start}\t{segment.end}"
        for clip, segment in listed.items()
        if clip not in found
    ]
    unlisted = len(names) - len(entries) - len(rejected)
    return Arrangement(entries, rejected, label_set, True, missing, unlisted)


def _read_segments(path: Path, label_set: LabelSet) -> dict[str, Segment]:
    """Return the segment of each YouTube id."""
    segments: dict[str, Segment] = {}
    combinations: dict[str, tuple[str, ...]] = {}
    for number, row in read_rows(path, skipinitialspace=True):
        place = f"{path}:{number}"
        if row[0].startswith("#"):
            continue
        if len(row) != 4 or not row[0]:
            raise TableError(f"{place}: expected 'id, start, end, \"label,label\"', got {row}")
        clip, start, end, text = (cell.strip() for cell in row)
        if clip in segments:
            raise TableError(f"{place}: {clip!r} is in line {segments[clip].line} already")
        if text not in combinations:
            combinations[text] = _known_labels(text, label_set, place)
        segments[clip] = Segment(number, start, end, combinations[text])
    if not segments:
        raise TableError(f"{path}: no segments")
    return segments


def _known_labels(text: str, label_set: LabelSet, place: str) -> tuple[str, ...]:
    labels = _part_labels(text, ",", place)
    for label in labels:
        try:
            label_set.index(label)
        except ValueError as error:
            raise TableError(f"{place}: {error}") from error
    return labels


def _ids_of(stem: str) -> list[str]:
    """Return the YouTube ids that a file's name can stand for, the likeliest first."""
    found = []
    for start in (0, 1) if stem.startswith("Y") else (0,):
        end = start + ID_LENGTH
        if len(stem) == end or (len(stem) > end + 1 and stem[end] == "_"):
            found.append(stem[start:end])
    return found
