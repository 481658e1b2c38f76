"""The result of a layout: the clips of a data set with their splits and labels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from ..data.label_set import LabelSet

TRAIN = "train"  # default name of the split
HELD_OUT = "eval"  # the held-out split of labelled clips


class Item(NamedTuple):
    """A clip in a layout: path below the root, split, labels (none in the layout ``plain``)."""

    name: str
    split: str
    labels: tuple[str, ...]


class ListedClip(NamedTuple):
    """A usable clip.

    Attributes:
        name: its entry in the manifest.
        split: its split.
        labels: its labels.
        samples: number of samples; of pixels for an image.
        rate: sampling rate in Hz; 0 for an image.
        shown: its name in reports.
    """

    name: str
    split: str
    labels: tuple[str, ...]
    samples: int
    rate: int
    shown: str


@dataclass
class Arrangement:
    """The result of a layout.

    Attributes:
        items: the clips, sorted by path.
        rejected: paths that do not fit the layout, each with the reason.
        label_set: the classes; None in the layout ``plain``.
        keeps_every_class: classes without a clip stay, since other splits may have them.
        missing: lines for listed clips without a file; None if the layout does not report them.
        unlisted: number of files that the table does not list.
    """

    items: list[Item]
    rejected: list[tuple[str, str]] = field(default_factory=list)
    label_set: LabelSet | None = None
    keeps_every_class: bool = False
    missing: list[str] | None = None
    unlisted: int = 0


def sort_classes(items: Iterable[Item]) -> LabelSet:
    """Return the classes of clips in alphabetical order; in numerical order if all are numbers."""
    ids = sorted({label for item in items for label in item.labels})
    if all(label.isdecimal() for label in ids):
        ids.sort(key=int)
    return LabelSet(tuple(ids))
