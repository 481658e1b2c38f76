"""How well scores agree with labels: the figures of a split, and how far they may be off.

In this file:
    d_prime                      a ROC area as a distance
    confusion_matrix             which class is taken for which
    summarize, metric_names      the figures that benchmarks quote, as plain floats
    bootstrap_interval           how far a figure may be off, given the number of clips
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Callable

import numpy as np

from .ranking import RankedScores

METRICS = ("accuracy", "mAP", "mAUC", "d_prime")  # the first one of single labels alone


def d_prime(auc: float) -> float:
    """Express an area under the ROC curve as the distance of two unit Gaussians.

    d' = sqrt(2) * Phi^-1(auc), where Phi is the normal distribution function; 0 at chance (0.5).

    Args:
        auc: area, between 0 and 1.

    Returns:
        The distance in standard deviations: inf for an area of 1, -inf for 0, NaN for NaN.

    Raises:
        ValueError: the area lies outside of 0 to 1.
    """
    if math.isnan(auc):
        return math.nan
    if not 0 <= auc <= 1:
        raise ValueError(f"auc is {auc}; it must lie between 0 and 1")
    if auc in (0, 1):
        return math.inf if auc == 1 else -math.inf
    return math.sqrt(2) * NormalDist().inv_cdf(float(auc))


def confusion_matrix(ranked: RankedScores) -> np.ndarray:
    """Count which class is taken for which, the largest score (of equal ones the first) deciding.

    Args:
        ranked: scores and targets of the clips, a single class each.

    Returns:
        int [classes, classes]: a row is the true class, a column the predicted one.

    Raises:
        ValueError: a clip has no class or several.
    """
    predicted, true = ranked.predicted_and_true()
    num_classes = ranked.scores.shape[1]
    counts = np.bincount(true * num_classes + predicted, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def metric_names(single_label: bool) -> tuple[str, ...]:
    """Return the names of what `summarize` computes, in the order in which they are shown."""
    return METRICS if single_label else METRICS[1:]


def summarize(ranked: RankedScores, single_label: bool) -> dict[str, float]:
    """Compute the figures that benchmarks quote.

    Args:
        ranked: scores and targets of the clips.
        single_label: whether each clip has a single class, so that accuracy makes sense.

    Returns:
        ``mAP`` and ``mAUC``, means over the classes that occur (NaN if none does), ``d_prime`` of
        ``mAUC``, and ``accuracy`` if ``single_label``: plain floats, as NumPy's make a checkpoint
        that holds them unreadable for PyTorch's safe loading.

    Raises:
        ValueError: ``single_label``, but a clip has no class or several.
    """
    mean_auc = ranked.mean_roc_auc()
    return {
        **({"accuracy": ranked.accuracy()} if single_label else {}),
        "mAP": ranked.mean_average_precision(),
        "mAUC": mean_auc,
        "d_prime": d_prime(mean_auc),
    }


def bootstrap_interval(
    ranked: RankedScores,
    metric: Callable[[RankedScores, np.ndarray], float],
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """Estimate how far a metric may be off, given the number of clips (percentile bootstrap).

    Each resample draws as many clips as there are, with replacement; a clip's weight is how often
    it was drawn.

    Args:
        ranked: scores and targets of the clips.
        metric: maps ranked scores and weights [clips] to a figure, for instance
            ``RankedScores.mean_average_precision`` or ``RankedScores.accuracy``.
        resamples: how many to draw.
        seed: of the draws.
        level: probability that the interval is meant to cover, between 0 and 1.

    Returns:
        Lower and upper end. Resamples in which the metric is NaN are left out; both ends are NaN
        where it always is.

    Raises:
        ValueError: ``resamples`` or ``level`` is out of range.
    """
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}; it must be 1 or more")
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; it must lie between 0 and 1")
    num_clips = len(ranked.scores)
    random = np.random.default_rng(seed)
    figures = []
    for _ in range(resamples):
        drawn = random.integers(num_clips, size=num_clips)
        figures.append(metric(ranked, np.bincount(drawn, minlength=num_clips)))
    known = np.array([figure for figure in figures if not math.isnan(figure)])
    if not known.size:
        return math.nan, math.nan
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
