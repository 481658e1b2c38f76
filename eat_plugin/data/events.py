"""Strong labels: when the events of a clip begin and end.

Next to a manifest ``{split}.tsv``, ``{split}.events`` has the columns ``filename``, ``onset``,
``offset`` (seconds) and ``event_label``, separated by tabs, as the tables of DESED (Turpault et al.
2019). A clip without events has no line, or one with three empty fields.
"""

from __future__ import annotations

import math
import os
import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .augment import draw_roll_and_gain
from .entries import original_name
from .frames import FRAMES_A_SECOND
from .frontend import FrontEnd
from .label_set import LabelSet, check_label
from .manifest import Manifest
from .reader import SpectrogramReader
from .tables import TableError, read_lines

COLUMNS = ("filename", "onset", "offset", "event_label")
ENDING = "events"
NO_SOUND = -1  # in the labels of frames
LEAST_RATE = 4000  # Hz; an event that begins later in a clip of any rate is in another unit


class Event(NamedTuple):
    """An event of a clip: its start and end in seconds, and its class."""

    onset: float
    offset: float
    label: int


def read_event_labels(path: str | os.PathLike[str]) -> LabelSet:
    """Return the labels of a table of events, sorted, as classes.

    Raises:
        TableError: the table cannot be used, or has no event.
    """
    labels = sorted({label for _, _, _, _, label in _parse(path)})
    if not labels:
        raise TableError(f"{path}: there is no event; the classes are those of its events")
    return LabelSet(tuple(labels))


def read_events(
    path: str | os.PathLike[str], manifest: Manifest, label_set: LabelSet
) -> list[list[Event]]:
    """Read the events of each clip of a manifest.

    A file name is the path of a clip in the manifest, or its last part, with or without ending.

    Raises:
        TableError: a line has another form, an unknown label, or the name of no clip or of several;
            an event begins long after the end of its clip.
    """
    clips = name_clips(manifest)
    events: list[list[Event]] = [[] for _ in range(len(manifest))]
    for number, name, onset, offset, label in _parse(path):
        found = clips.get(name, set())
        if len(found) != 1:
            what = "several clips have" if found else "no clip has"
            listed = Path(path).with_suffix(".tsv")
            raise TableError(f"{path}:{number}: {what} the name {name!r} in {listed}")
        try:
            event = Event(onset, offset, label_set.index(label))
        except ValueError as error:
            raise TableError(f"{path}:{number}: {error}") from error
        clip = next(iter(found))
        if onset * LEAST_RATE > manifest.sizes[clip]:
            raise TableError(
                f"{path}:{number}: the event begins after {onset} s, but {name!r} has "
                f"{manifest.sizes[clip]} samples; times are in seconds, from the start of the clip"
            )
        events[clip].append(event)
    return events


def name_clips(manifest: Manifest) -> dict[str, set[int]]:
    """Return the clips that each name means; a whole path means its own clip."""
    clips: dict[str, set[int]] = {}
    paths = [original_name(manifest.name(clip)) for clip in range(len(manifest))]
    for clip, path in enumerate(paths):
        file = posixpath.basename(path)
        for name in (file, posixpath.splitext(file)[0]):
            clips.setdefault(name, set()).add(clip)
    clips.update((path, {clip}) for clip, path in enumerate(paths))
    clips.update((manifest.name(clip), {clip}) for clip in range(len(manifest)))  # of a cache
    return clips


def _parse(path: str | os.PathLike[str]) -> Iterator[tuple[int, str, float, float, str]]:
    """Yield the number, clip, onset, offset and label of each line with an event."""
    for number, line in read_lines(path):
        fields = tuple(field.strip() for field in line.split("\t"))
        if number == 1:
            if fields != COLUMNS:
                raise TableError(
                    f"{path}:1: expected the columns {', '.join(COLUMNS)}, separated by tabs, got "
                    f"{line!r}"
                )
            continue
        if len(fields) == len(COLUMNS) and not any(fields[1:]):
            continue
        try:
            name, *times, label = fields
            onset, offset = map(float, times)
            check_label(label)
        except ValueError as error:
            raise TableError(
                f"{path}:{number}: expected a file name, two times in seconds and a label, "
                f"separated by tabs, got {line!r}"
            ) from error
        if not 0 <= onset < offset < math.inf:
            raise TableError(
                f"{path}:{number}: the event lasts from {onset} to {offset} s; its onset must be 0 "
                "or more, and before its offset"
            )
        yield number, name, onset, offset, label


def label_frames(events: list[Event], classes: int, start: float, frames: int) -> Tensor:
    """Say which events each frame of 10 ms has.

    Args:
        events: of the clip.
        classes: C.
        start: of the first frame in the clip, in seconds.
        frames: T.

    Returns:
        int8 [T, C], 1 while an event of the class lasts, else 0.
    """
    labels = torch.zeros(frames, classes, dtype=torch.int8)
    for onset, offset, label in events:
        first, last = (round((time - start) * FRAMES_A_SECOND) for time in (onset, offset))
        labels[max(first, 0) : max(last, 0), label] = 1
    return labels


class LabelledFrames(NamedTuple):
    """A spectrogram [1, T, F], and the labels of its frames, int8 [T, C]; -1 in padding."""

    source: Tensor
    label: Tensor


class EventReader(SpectrogramReader):
    """Reads windows with the labels of their frames, which move as the sound does.

    Args:
        manifest: the clips.
        front_end: computes spectrograms, all of the same length.
        events: of each clip.
        classes: number of classes, C.
        crop: as in ``SpectrogramReader``.
        roll_gain: as in ``SpectrogramReader``.
    """

    def __init__(
        self,
        manifest: Manifest,
        front_end: FrontEnd,
        events: list[list[Event]],
        classes: int,
        *,
        crop: str = "start",
        roll_gain: bool = False,
    ) -> None:
        super().__init__(manifest, front_end, crop=crop, roll_gain=roll_gain)
        self.events = events
        self.classes = classes

    def read(self, index: int, generator: torch.Generator) -> LabelledFrames:
        """Read the window of a clip."""
        values, sample_rate, start = self.read_placed(index, generator)
        a_second = sample_rate or FRAMES_A_SECOND  # a cached clip has frames
        frames = max(round(len(values) * FRAMES_A_SECOND / a_second), 1)
        label = label_frames(self.events[index], self.classes, start, frames)
        if self.roll_gain:
            shift, gain = draw_roll_and_gain(len(values), generator)
            values = values.roll(shift) * gain
            label = label.roll(round(shift * FRAMES_A_SECOND / a_second), dims=0)
        energies = values if sample_rate is None else self.front_end.energies(values, sample_rate)
        padded = torch.full((self.num_frames, self.classes), NO_SOUND, dtype=torch.int8)
        padded[:frames] = label[: self.num_frames]
        return LabelledFrames(self.front_end.finish(energies), padded)

    def collate(self, clips: list[Any]) -> dict[str, Any]:
        """Join clips: ``source`` [B, 1, T, F] and ``label`` [B, T, C]."""
        source, label = (torch.stack(parts) for parts in zip(*clips))
        return {"source": source, "label": label}
