"""The names of AudioSet's classes, by the ids in its label files (Gemmeke et al. 2017).

``class_labels_indices.csv`` next to this file is AudioSet's own, unchanged: index, id and display
name of its 527 classes, in the order of published models' outputs. Source: AudioSet, Google,
research.google.com/audioset, under CC BY 4.0.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from .label_set import LabelSet, read_label_set

CLASSES = Path(__file__).with_name("class_labels_indices.csv")
NUM_CLASSES = 527


@lru_cache(maxsize=1)
def audioset_classes() -> LabelSet:
    """Return AudioSet's 527 classes."""
    return read_label_set(CLASSES)


def with_audioset_names(labels: LabelSet) -> LabelSet:
    """Name those classes that have an id of AudioSet, and no name but their id."""
    known = dict(zip(audioset_classes().ids, audioset_classes().names))
    return LabelSet(
        labels.ids,
        tuple(
            known.get(label, label) if name == label else name
            for label, name in zip(labels.ids, labels.names)
        ),
    )
