"""Layouts that read splits and labels from the paths of the clips."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..data.tables import TableError, read_lines
from ..data.urls import Root
from .arrangement import HELD_OUT, TRAIN, Arrangement, Item, sort_classes

SPLIT_FOLDERS = {"train", "training", "valid", "val", "validation", "dev", "test", "eval"}
BACKGROUND_NOISE = "_background_noise_"  # a folder of Speech Commands without words
SPEECH_COMMANDS_LISTS = {"validation_list.txt": "valid", "testing_list.txt": HELD_OUT}
ARCHIVE = re.compile(r"\.(?:zip|tar|h5|hdf5)$", re.IGNORECASE)
CHOICES_SHOWN = 20


def arrange_plain(names: list[str], split: str) -> Arrangement:
    """Put all files into one split, without labels."""
    return Arrangement([Item(name, split, ()) for name in names])


def arrange_folders(names: list[str], split: str) -> Arrangement:
    """Use the first folder below the root, or archive without its ending, as the class of a file.

    Folders named like splits are an error.
    """
    items, rejected = [], []
    labels: dict[str, tuple[str]] = {}  # one tuple per class saves memory
    for name in names:
        folder, slash, _ = name.partition("/")
        if slash:
            folder = ARCHIVE.sub("", folder)
            items.append(Item(name, split, labels.setdefault(folder, (folder,))))
        else:
            rejected.append((name, "is not in a folder named after its class"))
    if len(labels) > 1 and {folder.lower() for folder in labels} <= SPLIT_FOLDERS:
        raise ValueError(
            f"the folders {', '.join(labels)} are splits, not classes; for SPLIT/CLASS/FILE use "
            r"--layout pattern --pattern '^(?P<group>[^/]+)/(?P<label>[^/]+)/' and "
            "--valid-groups with the split to hold out"
        )
    return Arrangement(items, rejected, sort_classes(items))


def arrange_pattern(
    names: list[str], pattern: str, valid_groups: list[str] | None, split: str
) -> Arrangement:
    """Find the class of a file by a regular expression, searched for in its path.

    Its group ``label`` is the class. Clips whose group ``group`` is one of ``valid_groups`` are
    held out; each of these has to occur.
    """
    expression = compile_pattern(pattern, with_groups=valid_groups is not None)
    held_out, seen = set(valid_groups or ()), set()
    items, rejected = [], []
    labels: dict[str, tuple[str]] = {}
    for name in names:
        match = expression.search(name)
        if match is None or not match["label"]:
            rejected.append((name, "has no label that matches --pattern"))
            continue
        group = match["group"] if valid_groups is not None else None
        seen.add(group)
        label = labels.setdefault(match["label"], (match["label"],))
        items.append(Item(name, HELD_OUT if group in held_out else split, label))
    if held_out - seen:
        raise ValueError(
            f"--valid-groups: no clip has the group {min(held_out - seen)!r}; "
            f"the groups are {_show_choices(seen - {None})}"
        )
    return Arrangement(items, rejected, sort_classes(items))


def compile_pattern(pattern: str, with_groups: bool) -> re.Pattern[str]:
    """Compile ``--pattern``; raise ValueError if it is invalid or has no group for its use."""
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"--pattern {pattern!r} is not a regular expression: {error}") from error
    for group in ("label", "group") if with_groups else ("label",):
        if group not in expression.groupindex:
            use = " for --valid-groups" if group == "group" else ""
            raise ValueError(f"--pattern {pattern!r} needs a group (?P<{group}>...){use}")
    return expression


def _show_choices(choices: Iterable[str | None]) -> str:
    ordered = sorted(repr(choice) for choice in choices)
    more = ", ..." if len(ordered) > CHOICES_SHOWN else ""
    return ", ".join(ordered[:CHOICES_SHOWN]) + more


def arrange_speech_commands(root: Root, names: list[str]) -> Arrangement:
    """Split Speech Commands by its two lists into train, valid and eval (its test set).

    Paths below the root are ``WORD/FILE``. Background noise is excluded.
    """
    listed = _read_lists(root)
    items, rejected = [], []
    labels: dict[str, tuple[str]] = {}
    for name in names:
        word, slash, _ = name.partition("/")
        if word == BACKGROUND_NOISE:
            continue
        if not slash:
            rejected.append((name, "is not in a folder named after its word"))
            continue
        split, _ = listed.pop(name, (TRAIN, ""))
        items.append(Item(name, split, labels.setdefault(word, (word,))))
    rejected += [(name, f"is in {file}, but does not exist") for name, (_, file) in listed.items()]
    return Arrangement(items, rejected, sort_classes(items))


def _read_lists(root: Root) -> dict[str, tuple[str, str]]:
    """Return the split of each listed file, and the name of its list."""
    listed: dict[str, tuple[str, str]] = {}
    for file, split in SPEECH_COMMANDS_LISTS.items():
        for number, line in read_lines(root / file):
            name = line.strip()
            if name in listed:
                other = listed[name][1]
                raise TableError(f"{root / file}:{number}: {name!r} is already in {other}")
            if name:
                listed[name] = (split, file)
    return listed
