"""Data sets whose folders and file names say what is in them: the split and labels of each clip.

In this file:
    Entry, Arrangement          what a layout makes of a data set; tables give one, too
    arrange_plain               no labels
    arrange_folders             one class a folder
    arrange_pattern             a regular expression finds the label in the path
    arrange_speech_commands     Speech Commands, with its official split
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ..data.label_set import LabelSet
from ..data.tables import TableError, read_lines

TRAIN = "train"  # the split that is trained on, unless it is given another name
HELD_OUT = "eval"  # the split of labelled clips that are held out
SPLIT_FOLDERS = {"train", "training", "valid", "val", "validation", "dev", "test", "eval"}
BACKGROUND_NOISE = "_background_noise_"  # of Speech Commands: minutes of noise, no words
SPEECH_COMMANDS_LISTS = {"validation_list.txt": "valid", "testing_list.txt": HELD_OUT}
ARCHIVE = re.compile(r"\.(?:zip|tar|h5|hdf5)$", re.IGNORECASE)
CHOICES_SHOWN = 20


class Entry(NamedTuple):
    """A clip: its path below the root, its split, and its labels, none in a plain layout."""

    name: str
    split: str
    labels: tuple[str, ...]


@dataclass
class Arrangement:
    """What a layout makes of a data set.

    Attributes:
        entries: The clips, sorted by path.
        rejected: Paths that do not fit the layout, and why.
        label_set: The classes; None in a plain layout.
        keeps_every_class: Classes stay that no clip has: other splits may have them.
        missing: Lines on clips that a table lists and that are not there; None without a table
            that may list more than there is.
        unlisted: Number of files that the table does not list.
    """

    entries: list[Entry]
    rejected: list[tuple[str, str]] = field(default_factory=list)
    label_set: LabelSet | None = None
    keeps_every_class: bool = False
    missing: list[str] | None = None
    unlisted: int = 0


def sort_classes(entries: Iterable[Entry]) -> LabelSet:
    """Return the classes of clips, sorted; as numbers, if all are numbers."""
    ids = sorted({label for entry in entries for label in entry.labels})
    if all(label.isdecimal() for label in ids):
        ids.sort(key=int)
    return LabelSet(tuple(ids))


def arrange_plain(names: list[str], split: str) -> Arrangement:
    """Put all files into one split, without labels.

    Args:
        names: Paths below the root, sorted.
        split: The split.
    """
    return Arrangement([Entry(name, split, ()) for name in names])


def arrange_folders(names: list[str], split: str) -> Arrangement:
    """Take the folder below the root that a file is in, at whatever depth, for its class.

    Args:
        names: Paths below the root, sorted. An archive is a folder; its ending is left out.
        split: The split of all files.

    Raises:
        ValueError: The folders are called as splits are, or cannot be labels.
    """
    entries, rejected = [], []
    labels: dict[str, tuple[str]] = {}  # one tuple a class, not one a clip
    for name in names:
        folder, slash, _ = name.partition("/")
        if slash:
            folder = ARCHIVE.sub("", folder)
            entries.append(Entry(name, split, labels.setdefault(folder, (folder,))))
        else:
            rejected.append((name, "is in no folder that could name its class"))
    if len(labels) > 1 and {folder.lower() for folder in labels} <= SPLIT_FOLDERS:
        raise ValueError(
            f"the folders {', '.join(labels)} are splits rather than classes; for SPLIT/CLASS/FILE "
            r"give --layout pattern --pattern '^(?P<group>[^/]+)/(?P<label>[^/]+)/' and "
            "--valid-groups with the split to hold out"
        )
    return Arrangement(entries, rejected, sort_classes(entries))


def arrange_pattern(
    names: list[str], pattern: str, valid_groups: list[str] | None, split: str
) -> Arrangement:
    """Find the class of a file by a regular expression in its path.

    Args:
        names: Paths below the root, sorted.
        pattern: Regular expression, searched for in the path, with a group ``label`` and, where
            groups are held out, a group ``group``.
        valid_groups: What ``group`` is in clips to hold out; None holds out nothing.
        split: The split of the clips that are not held out.

    Raises:
        ValueError: The pattern is not valid or lacks a group; a group of clips to hold out does
            not occur; a label cannot be one.
    """
    expression = _compile(pattern, with_groups=valid_groups is not None)
    held_out, seen = set(valid_groups or ()), set()
    entries, rejected = [], []
    labels: dict[str, tuple[str]] = {}
    for name in names:
        match = expression.search(name)
        if match is None or not match["label"]:
            rejected.append((name, "finds no label by --pattern"))
            continue
        group = match["group"] if valid_groups is not None else None
        seen.add(group)
        label = labels.setdefault(match["label"], (match["label"],))
        entries.append(Entry(name, HELD_OUT if group in held_out else split, label))
    if held_out - seen:
        raise ValueError(
            f"--valid-groups: no clip has the group {min(held_out - seen)!r}; "
            f"the groups are {_show_choices(seen - {None})}"
        )
    return Arrangement(entries, rejected, sort_classes(entries))


def _compile(pattern: str, with_groups: bool) -> re.Pattern[str]:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"--pattern {pattern!r} is no regular expression: {error}") from error
    needed = ("label", "group") if with_groups else ("label",)
    for group in needed:
        if group not in expression.groupindex:
            use = " for --valid-groups" if group == "group" else ""
            raise ValueError(f"--pattern {pattern!r} needs a group (?P<{group}>...){use}")
    return expression


def _show_choices(choices: Iterable[str | None]) -> str:
    ordered = sorted(repr(choice) for choice in choices)
    more = ", ..." if len(ordered) > CHOICES_SHOWN else ""
    return ", ".join(ordered[:CHOICES_SHOWN]) + more


def arrange_speech_commands(root: Path, names: list[str]) -> Arrangement:
    """Split Speech Commands by its two lists: train, valid, and its test set as eval.

    Args:
        root: The folder of the data set, with ``validation_list.txt`` and ``testing_list.txt``.
        names: Paths below the root, sorted: ``WORD/FILE``.

    Returns:
        The clips of all words; the background noise is left out. A file in a list that is not
        there is among those rejected.

    Raises:
        TableError: A list cannot be read, or a file is in both or twice in one.
    """
    listed = _read_lists(root)
    entries, rejected = [], []
    labels: dict[str, tuple[str]] = {}
    for name in names:
        word, slash, _ = name.partition("/")
        if word == BACKGROUND_NOISE:
            continue
        if not slash:
            rejected.append((name, "is in no folder that names its word"))
            continue
        split, _ = listed.pop(name, (TRAIN, ""))
        entries.append(Entry(name, split, labels.setdefault(word, (word,))))
    rejected += [(name, f"is in {file}, but not there") for name, (_, file) in listed.items()]
    return Arrangement(entries, rejected, sort_classes(entries))


def _read_lists(root: Path) -> dict[str, tuple[str, str]]:
    """Return the split of each file listed, and the list."""
    listed: dict[str, tuple[str, str]] = {}
    for file, split in SPEECH_COMMANDS_LISTS.items():
        for number, line in read_lines(root / file):
            name = line.strip()
            if name in listed:
                other = listed[name][1]
                raise TableError(f"{root / file}:{number}: {name!r} is in {other} already")
            if name:
                listed[name] = (split, file)
    return listed
