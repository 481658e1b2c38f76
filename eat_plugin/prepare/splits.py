"""Which clips to hold out for validation, drawn at random.

In this file:
    hold_out             of clips without labels
    hold_out_by_class    the same part of each class
"""

from __future__ import annotations

import numpy as np

from ..data.labels import ClipLabels


def hold_out(count: int, fraction: float, seed: int) -> np.ndarray:
    """Draw the clips of a validation split.

    Args:
        count: Number of clips.
        fraction: Part to hold out; at least one clip is.
        seed: Of the draw.

    Returns:
        `[count]` bool, true where a clip is held out.

    Raises:
        ValueError: No clip would be left to train on.
    """
    number = max(1, round(count * fraction))
    if number >= count:
        raise ValueError(f"--valid {fraction} of {count} clips leaves none to train on")
    held_out = np.zeros(count, dtype=bool)
    held_out[np.random.default_rng(seed).permutation(count)[:number]] = True
    return held_out


def hold_out_by_class(labels: ClipLabels, fraction: float, seed: int) -> np.ndarray:
    """Draw the clips of a validation split, the same part of each class.

    A clip with several labels is drawn among the clips of the rarest of them. Every class keeps a
    clip to train on. Where clips have one label, a class of two clips or more also has one held
    out, however small the fraction, so that it can be measured.

    Args:
        labels: The labels of the clips, N.
        fraction: Part to hold out of each class.
        seed: Of the draw.

    Returns:
        `[N]` bool, true where a clip is held out.

    Raises:
        ValueError: No class has two clips.
    """
    strata = _rarest_classes(labels)
    sizes = np.bincount(strata, minlength=labels.num_classes)
    quotas = np.maximum(np.round(sizes * fraction), 1)
    drawn = np.random.default_rng(seed).permutation(len(labels))
    drawn = drawn[np.argsort(strata[drawn], kind="stable")]  # stratum after stratum
    starts = np.cumsum(sizes) - sizes
    ranks = np.arange(len(labels)) - starts[strata[drawn]]
    held_out = np.zeros(len(labels), dtype=bool)
    held_out[drawn] = ranks < quotas[strata[drawn]]
    _return_lost_classes(labels, held_out)
    if not held_out.any():
        raise ValueError(f"--valid {fraction} holds out nothing: no class has two clips")
    return held_out


def _rarest_classes(labels: ClipLabels) -> np.ndarray:
    """Return the class of each clip that the fewest clips have, the first of equals, `[N]`."""
    by_rarity = np.argsort(labels.counts(), kind="stable")
    ranks = np.empty_like(by_rarity)
    ranks[by_rarity] = np.arange(len(by_rarity))
    return by_rarity[labels.combine(np.minimum, ranks)]


def _return_lost_classes(labels: ClipLabels, held_out: np.ndarray) -> None:
    """Give a clip back to each class all of whose clips were taken."""
    lost = labels.select(np.flatnonzero(~held_out)).counts() == 0
    for clip in np.flatnonzero(labels.combine(np.logical_or, lost)).tolist():
        if lost[labels.classes(clip)].any():
            held_out[clip] = False
            lost[labels.classes(clip)] = False
