"""The result of a layout: the clips of a data set with their splits and labels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from ..data.label_set import LabelSet

TRAIN = "train"  # default name of the split
HELD_OUT = "eval"  # the held-out split of labelled clips


class Item(NamedTuple):
    """A clip in a layout: path below the root, split, labels, and id where the source has one."""

    name: str
    split: str
    labels: tuple[str, ...]
    id: str = ""


class ListedClip(NamedTuple):
    """A usable clip."""

    name: str  # entry in the manifest
    split: str
    labels: tuple[str, ...]
    samples: int  # pixels of an image
    rate: int  # Hz; 0 for an image
    shown: str  # name in reports
    digest: str = ""  # of its content, with --check
    id: str = ""  # in its source


@dataclass
class Arrangement:
    """The result of a layout."""

    items: list[Item]  # sorted by path
    rejected: list[tuple[str, str]] = field(default_factory=list)  # paths, each with the reason
    label_set: LabelSet | None = None  # None without labels
    keeps_every_class: bool = False  # classes without a clip stay: other splits may have some
    missing: list[str] | None = None  # lines for listed clips without a file, if reported
    unlisted: int = 0  # number of files that the table does not list
    hints: dict[str, str] = field(default_factory=dict)  # path of no file -> which may be meant


def sort_splits(splits: Iterable[str]) -> list[str]:
    """Sort splits by name, ``train`` first."""
    return sorted(splits, key=lambda split: (split != TRAIN, split))


def sort_classes(items: Iterable[Item]) -> LabelSet:
    """Return the classes of clips in alphabetical order; in numerical order if all are numbers."""
    ids = sorted({label for item in items for label in item.labels})
    if all(label.isdecimal() for label in ids):
        ids.sort(key=int)
    return LabelSet(tuple(ids))
