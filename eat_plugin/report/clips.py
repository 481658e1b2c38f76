"""Clips of a report: what a model makes of some of the clips of its run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..data.clip import ClipError
from ..data.entries import Entry, original_name
from ..data.label_set import LabelSet, read_label_set
from ..data.labels import read_labels
from ..data.manifest import read_manifest
from ..data.reader import read_window
from ..inference.recordings import classifies_frames
from ..ranking import RankedScores

if TYPE_CHECKING:
    from ..inference import Loaded

SEED = 0  # of the clips that are drawn
DESCRIPTORS = "label_descriptors.csv"


@dataclass
class ReadClip:
    """A clip that could be read.

    Attributes:
        name: in the manifest.
        entry: where it is.
        labels: names of its classes; empty where unknown.
        spectrogram: its first window, [T, F] normalised.
        vector: mean of its patch features, [D].
        scores: [classes] of a classifier of clips, else None.
        targets: [classes], 0 or 1, else None.
    """

    name: str
    entry: Entry
    labels: list[str]
    spectrogram: np.ndarray
    vector: np.ndarray
    scores: np.ndarray | None = None
    targets: np.ndarray | None = None


@dataclass
class ReadClips:
    """The clips that were drawn from a split.

    Attributes:
        split: its name.
        listed: number of clips in the split.
        clips: those that could be read.
        unusable: name -> reason of the others.
    """

    split: str
    listed: int
    clips: list[ReadClip] = field(default_factory=list)
    unusable: dict[str, str] = field(default_factory=dict)


def read_clips(loaded: Loaded, most: int) -> ReadClips:
    """Read up to ``most`` clips of the run's held-out split, or else of its training split.

    Raises:
        ValueError: the run's data cannot be read.
    """
    section: dict[str, Any] = loaded.cfg.get("dataset") or {}
    data = Path(loaded.cfg["task"]["data"])
    names = [str(section.get(key) or "").split(",")[0] for key in ("valid_subset", "train_subset")]
    split = next((name for name in names if name and (data / f"{name}.tsv").is_file()), "train")
    manifest = read_manifest(data / f"{split}.tsv")
    numbers = np.arange(len(manifest))
    if len(numbers) > most:
        drawn = np.random.default_rng(SEED).choice(len(numbers), most, replace=False)
        numbers = np.sort(drawn)
    label_set, targets = _read_targets(loaded, data, split, manifest, numbers)
    found = ReadClips(split, len(manifest))
    for row, number in enumerate(numbers.tolist()):
        entry, name = manifest.entry(number), original_name(manifest.name(number))
        try:
            clip = _read_clip(loaded, entry, name)
        except ClipError as error:
            found.unusable[name] = str(error)
            continue
        if label_set is not None and targets is not None:
            clip.labels = [label_set.names[index] for index in np.flatnonzero(targets[row])]
            clip.targets = targets[row]
        found.clips.append(clip)
    return found


def _read_targets(
    loaded: Loaded, data: Path, split: str, manifest: Any, numbers: np.ndarray
) -> tuple[LabelSet | None, np.ndarray | None]:
    """Return the classes and the targets of clips, [clips, classes]; None without labels."""
    path = data / f"{split}.lbl"
    if not path.is_file() or not (data / DESCRIPTORS).is_file():
        return None, None
    label_set = loaded.labels or read_label_set(data / DESCRIPTORS)
    labels = read_labels(path, label_set, manifest, loaded.single_label)
    return label_set, labels.multi_hot(numbers)


@torch.no_grad()
def _read_clip(loaded: Loaded, entry: Entry, name: str) -> ReadClip:
    source = read_window(entry, loaded.front_end)  # [1, T, F]
    batch = source[None].to(loaded.device)
    extra = loaded.encoder.num_extra_tokens
    vector = loaded.encoder.block_outputs(batch)[-1][0, extra:].mean(dim=0)
    scores = None
    if loaded.labels is not None and not classifies_frames(loaded):
        scores = loaded.predict(batch)[0].float().cpu().numpy()
    return ReadClip(name, entry, [], source[0].numpy(), vector.float().cpu().numpy(), scores)


def find_neighbours(clips: list[ReadClip], queries: int, most: int) -> list[list[int]]:
    """Return rows of clip numbers: a query, then its nearest by cosine of their vectors.

    The vectors are centred: what all clips have in common does not count. Queries are spread over
    the clips.
    """
    if len(clips) < 2:
        return []
    x = np.stack([clip.vector for clip in clips])
    x = x - x.mean(axis=0)
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    similar = x @ x.T
    np.fill_diagonal(similar, -np.inf)
    chosen = np.unique(np.linspace(0, len(clips) - 1, queries).round().astype(int)).tolist()
    return [[number, *np.argsort(-similar[number])[:most].tolist()] for number in chosen]


def rank_worst(clips: list[ReadClip], most: int) -> list[tuple[int, float]]:
    """Return the numbers and margins of the clips with the worst scores, the worst first.

    The margin is the least score of a true class less the largest of another one.
    """
    margins = []
    for number, clip in enumerate(clips):
        if clip.scores is None or clip.targets is None:
            continue
        true, others = clip.scores[clip.targets > 0], clip.scores[clip.targets == 0]
        if len(true) and len(others):
            margins.append((number, float(true.min() - others.max())))
    return sorted(margins, key=lambda found: found[1])[:most]


def rank_scores(clips: list[ReadClip]) -> RankedScores | None:
    """Return scores and targets of all clips; None without them."""
    scored = [clip for clip in clips if clip.scores is not None and clip.targets is not None]
    if not scored:
        return None
    scores = np.stack([clip.scores for clip in scored if clip.scores is not None])
    return RankedScores(scores, np.stack([c.targets for c in scored if c.targets is not None]))
