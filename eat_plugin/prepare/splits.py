"""Random hold-outs for validation."""

from __future__ import annotations

import numpy as np

from ..data.labels import ClipLabels


def hold_out(count: int, fraction: float, seed: int) -> np.ndarray:
    """Draw a fraction of ``count`` clips, at least one: `[count]` bool, true if held out.

    It is an error if no clip would be left to train on.
    """
    number = max(1, round(count * fraction))
    if number >= count:
        raise ValueError(f"--valid {fraction} leaves no clip to train on; clips: {count}")
    held_out = np.zeros(count, dtype=bool)
    held_out[np.random.default_rng(seed).permutation(count)[:number]] = True
    return held_out


def hold_out_by_class(labels: ClipLabels, fraction: float, seed: int) -> np.ndarray:
    """Draw the same fraction of each class.

    A clip with several labels is drawn with the clips of its rarest class. Every class keeps at
    least one clip to train on. If clips have one label, every class with two or more clips has at
    least one held out, so that it can be measured; without such a class it is an error.

    Returns:
        `[clips]` bool, true for held-out clips.
    """
    strata = _rarest_classes(labels)
    sizes = np.bincount(strata, minlength=labels.num_classes)
    quotas = np.maximum(np.round(sizes * fraction), 1)
    drawn = np.random.default_rng(seed).permutation(len(labels))
    drawn = drawn[np.argsort(strata[drawn], kind="stable")]  # grouped by stratum
    starts = np.cumsum(sizes) - sizes
    ranks = np.arange(len(labels)) - starts[strata[drawn]]
    held_out = np.zeros(len(labels), dtype=bool)
    held_out[drawn] = ranks < quotas[strata[drawn]]
    _return_lost_classes(labels, held_out)
    if not held_out.any():
        raise ValueError(f"--valid {fraction} holds out nothing: no class has two clips")
    return held_out


def _rarest_classes(labels: ClipLabels) -> np.ndarray:
    """Return the rarest class of each clip, the first of equally rare ones, `[clips]`."""
    by_rarity = np.argsort(labels.counts(), kind="stable")
    ranks = np.empty_like(by_rarity)
    ranks[by_rarity] = np.arange(len(by_rarity))
    return by_rarity[labels.combine(np.minimum, ranks)]


def _return_lost_classes(labels: ClipLabels, held_out: np.ndarray) -> None:
    """Return a clip to each class that has none left."""
    lost = labels.select(np.flatnonzero(~held_out)).counts() == 0
    for clip in np.flatnonzero(labels.combine(np.logical_or, lost)).tolist():
        if lost[labels.classes(clip)].any():
            held_out[clip] = False
            lost[labels.classes(clip)] = False
