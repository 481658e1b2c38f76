"""Layouts that read splits and labels from a table."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ..data.files import is_file
from ..data.label_set import LabelSet, check_label, read_label_set, split_labels
from ..data.manifest import encode_name
from ..data.tables import TableError, read_columns, read_rows
from ..data.urls import Root, Url, is_url
from .arrangement import HELD_OUT, Arrangement, Item, sort_classes
from .find import AUDIO_ENDINGS
from .table_names import TableNames

ESC50_TABLES = ("meta/esc50.csv", "esc50.csv")
ESC50_COLUMNS = ("filename", "fold", "target", "category")
ID_LENGTH = 11  # characters of a YouTube id


class Segment(NamedTuple):
    """A row of AudioSet: line number, start and end (seconds, as written), labels."""

    line: int
    start: str
    end: str
    labels: tuple[str, ...]


def arrange_table(
    root: Root,
    table: Path,
    path_column: str,
    label_column: str,
    split_column: str | None,
    separator: str | None,
    split: str,
    endings: Collection[str] = AUDIO_ENDINGS,
    stored: Collection[str] = (),
) -> Arrangement:
    """Read paths and labels from columns of a csv file; a ``.tsv`` file is separated by tabs.

    A path may lack one of the ``endings``, see ``TableNames``. Files need not exist. Without a
    column of splits, all clips are in ``split``; without a separator, a field is one label.
    ``stored`` are the files below an address.
    """
    columns = [path_column, label_column, *([split_column] if split_column else [])]
    options = ["--path-column", "--label-column", "--split-column"][: len(columns)]
    lines: dict[str, int] = {}
    items, hints, names = [], {}, TableNames(root, endings, stored)
    combinations: dict[str, tuple[str, ...]] = {}  # one tuple per set of labels saves memory
    for number, (path, text, *named) in read_columns(table, columns, options):
        try:
            name, hint = names.find(_name_below(root, path))
            _check_new(name, number, lines)
            if hint:
                hints[name] = hint
            if text not in combinations:
                combinations[text] = _split_labels(text, separator)
            if split_column and not named[0]:
                raise ValueError(f"no split in the column {split_column!r}")
        except ValueError as error:
            raise TableError(f"{table}:{number}: {error}") from error
        items.append(Item(name, named[0] if split_column else split, combinations[text]))
    if not items:
        raise TableError(f"{table}: no rows below the header")
    items.sort()
    return Arrangement(items, label_set=sort_classes(items), hints=hints)


def _name_below(root: Root, path: str) -> str:
    """Return the normalised path of a table row, relative to the root."""
    if isinstance(root, Url):
        name = os.path.normpath(path.removeprefix(f"{root}/"))
        path = "" if is_url(path) and not path.startswith(f"{root}/") else path
    else:
        name = os.path.normpath(os.path.relpath(path, root) if os.path.isabs(path) else path)
    if not path or name == os.curdir or name.split("/")[0] == os.pardir:
        raise ValueError(f"expected the path of a file below {root}, got {path!r}")
    encode_name(name)
    return name


def _check_new(name: str, number: int, lines: dict[str, int]) -> None:
    """Record the line of a path; refuse a path that was in an earlier line."""
    if lines.setdefault(name, number) != number:
        raise ValueError(f"{name!r} is already in line {lines[name]}")


def _split_labels(text: str, separator: str | None) -> tuple[str, ...]:
    if separator == ",":  # a label in double quotes may hold a comma
        return _check_labels(split_labels(text))
    if separator is not None:
        return _check_labels([part.strip() for part in text.split(separator)])
    if "," in text:
        raise ValueError(
            f"the label {text!r} holds a comma; if these are several labels, add --label-separator "
            "','; if it is one, name a separator that labels do not have, as --label-separator ';'"
        )
    return _check_labels([text])


def _check_labels(parts: list[str]) -> tuple[str, ...]:
    """Return the labels of a clip without repetitions."""
    labels = tuple(dict.fromkeys(part for part in parts if part))
    if not labels:
        raise ValueError("a clip without a label")
    for label in labels:
        check_label(label)
    return labels


def arrange_esc50(
    root: Root, fold: int | None, split: str, stored: Collection[str] = ()
) -> Arrangement:
    """Read the table of ESC-50 or of a subset of it; the clips are in ``audio``.

    Files need not exist. The classes are in the order of their targets, which may have gaps. Clips
    of ``fold`` are in the split ``HELD_OUT``. ``stored`` are the files below an address.
    """
    table = next((root / name for name in ESC50_TABLES if is_file(root / name)), None)
    if table is None:
        raise ValueError(f"there is neither {' nor '.join(ESC50_TABLES)} in {root}")
    lines: dict[str, int] = {}
    categories: dict[int, str] = {}
    targets: dict[str, int] = {}
    folds, items, hints, names = set(), [], {}, TableNames(root, AUDIO_ENDINGS, stored)
    for number, (file, *numbers, category) in read_columns(table, ESC50_COLUMNS):
        try:
            name = _name_below(root, os.path.join("audio", file) if file else "")
            name, hints[name] = names.find(name)
            _check_new(name, number, lines)
            row_fold, target = map(_parse_number, numbers)
            if (
                categories.setdefault(target, category) != category
                or targets.setdefault(category, target) != target
            ):
                raise ValueError(f"target {target} is {category!r}, unlike in an earlier row")
            labels = _check_labels([category])
        except ValueError as error:
            raise TableError(f"{table}:{number}: {error}") from error
        folds.add(row_fold)
        items.append(Item(name, HELD_OUT if row_fold == fold else split, labels))
    if not items:
        raise TableError(f"{table}: no rows below the header")
    if fold is not None and fold not in folds:
        raise ValueError(
            f"--fold {fold}: {table} has the folds {', '.join(map(str, sorted(folds)))}"
        )
    items.sort()
    label_set = LabelSet(tuple(categories[target] for target in sorted(categories)))
    return Arrangement(items, label_set=label_set, hints=hints)


def _parse_number(text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"expected a fold and a target, both whole numbers, got {text!r}")
    return int(text)


def arrange_audioset(names: list[str], segments: Path, classes: Path, split: str) -> Arrangement:
    """Find the clips of AudioSet segments among files named by YouTube id.

    File names without ending are ``ID``, ``YID``, ``ID_...`` or ``YID_...``; the part after the
    underscore, usually start and end, is ignored.

    Args:
        names: paths below the root, sorted.
        segments: AudioSet's table of a split: rows of id, start, end and labels.
        classes: AudioSet's ``class_labels_indices.csv``; all of its classes are kept.
        split: name of the split.

    Returns:
        The clips that exist; missing ones as ``id<TAB>start<TAB>end`` in seconds.
    """
    label_set = read_label_set(classes)
    listed = _read_segments(segments, label_set)
    items, rejected, found = [], [], set()
    for name in names:
        clip = next((clip for clip in _ids_of(PurePosixPath(name).stem) if clip in listed), None)
        if clip is None:
            continue
        if clip in found:
            rejected.append((name, f"is a second file for the clip {clip}"))
        else:
            found.add(clip)
            items.append(Item(name, split, listed[clip].labels))
    if not items:
        raise ValueError(
            f"no file is named after an id in {segments}; files: {len(names)}, ids: {len(listed)}"
        )
    missing = [
        f"{clip}\t{segment.start}\t{segment.end}"
        for clip, segment in listed.items()
        if clip not in found
    ]
    unlisted = len(names) - len(items) - len(rejected)
    return Arrangement(items, rejected, label_set, True, missing, unlisted)


def _read_segments(path: Path, label_set: LabelSet) -> dict[str, Segment]:
    """Return the segment of each YouTube id."""
    segments: dict[str, Segment] = {}
    combinations: dict[str, tuple[str, ...]] = {}
    for number, row in read_rows(path, skipinitialspace=True):
        if row[0].startswith("#"):
            continue
        try:
            if len(row) != 4 or not row[0]:
                raise ValueError(f"expected 'id, start, end, \"label,label\"', got {row}")
            clip, start, end, text = (cell.strip() for cell in row)
            if clip in segments:
                raise ValueError(f"{clip!r} is already in line {segments[clip].line}")
            if text not in combinations:
                combinations[text] = _split_labels(text, ",")
                for label in combinations[text]:
                    label_set.index(label)  # raises ValueError for an unknown label
        except ValueError as error:
            raise TableError(f"{path}:{number}: {error}") from error
        segments[clip] = Segment(number, start, end, combinations[text])
    if not segments:
        raise TableError(f"{path}: no segments")
    return segments


def _ids_of(stem: str) -> list[str]:
    """Return the possible YouTube ids in a file name, the likeliest first."""
    found = []
    for start in (0, 1) if stem.startswith("Y") else (0,):
        end = start + ID_LENGTH
        if len(stem) == end or (len(stem) > end + 1 and stem[end] == "_"):
            found.append(stem[start:end])
    return found
