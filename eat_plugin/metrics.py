"""Metrics of a split: collected per clip, summarized, with their uncertainty."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any, Callable

import numpy as np

from .ranking import RankedScores, check_scores

METRICS = ("accuracy", "mAP", "mAUC", "d_prime")  # the first one for single labels only


class ClipScores:
    """Collects the results of many batches, each clip once.

    Several processes evaluate overlapping batches if the clips do not divide evenly: the first
    result of a clip is kept.
    """

    def __init__(self) -> None:
        self._rows: dict[Any, tuple[np.ndarray, np.ndarray]] = {}
        self._num_classes = 0

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, ids: np.ndarray, scores: np.ndarray, targets: np.ndarray) -> None:
        """Add a batch: ids of clips [batch], scores and targets (0 or 1) [batch, classes].

        Raises:
            ValueError: as ``check_scores``, or shapes do not match the ids or earlier batches.
        """
        ids = np.asarray(ids)
        scores, targets = check_scores(scores, targets)
        if ids.shape != scores.shape[:1]:
            raise ValueError(f"ids have shape {ids.shape}; {len(scores)} clips need as many")
        if self._rows and scores.shape[1] != self._num_classes:
            raise ValueError(
                f"scores have {scores.shape[1]} classes; earlier batches had {self._num_classes}"
            )
        self._num_classes = scores.shape[1]
        for clip, own_scores, own_targets in zip(ids.tolist(), scores, targets):
            if clip not in self._rows:
                self._rows[clip] = (own_scores.copy(), own_targets.copy())

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return ids [N], scores [N, classes] and bool targets; ValueError if there are none."""
        if not self._rows:
            raise ValueError("no clip has been evaluated")
        ids = np.array(sorted(self._rows))
        scores, targets = zip(*(self._rows[clip] for clip in ids.tolist()))
        return ids, np.stack(scores), np.stack(targets)


def d_prime(auc: float) -> float:
    """Convert an area under the ROC curve to the distance of two unit Gaussians.

    d' = sqrt(2) * Phi^-1(auc), where Phi is the normal distribution function: 0 at chance (0.5).
    """
    if math.isnan(auc):
        return math.nan
    if not 0 <= auc <= 1:
        raise ValueError(f"auc is {auc}; it must lie between 0 and 1")
    if auc in (0, 1):
        return math.inf if auc == 1 else -math.inf
    return math.sqrt(2) * NormalDist().inv_cdf(float(auc))


def confusion_matrix(ranked: RankedScores) -> np.ndarray:
    """Count the clips per true class (rows) and predicted class (columns): int [classes, classes].

    It needs clips with exactly one class.
    """
    predicted, true = ranked.predicted_and_true()
    num_classes = ranked.scores.shape[1]
    counts = np.bincount(true * num_classes + predicted, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def metric_names(single_label: bool) -> tuple[str, ...]:
    """Return the names of the metrics of `summarize`, in the same order."""
    return METRICS if single_label else METRICS[1:]


def summarize(ranked: RankedScores, single_label: bool) -> dict[str, float]:
    """Compute the metrics of a split.

    Returns:
        ``accuracy`` if ``single_label``; ``mAP`` and ``mAUC``, means over the classes that occur
        (NaN without any); ``d_prime`` of ``mAUC``. Plain floats: PyTorch's safe loading refuses a
        checkpoint with NumPy numbers.

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
    """Estimate the interval of a metric for this number of clips (percentile bootstrap).

    Each resample draws as many clips, with replacement; the weight of a clip is its count. The
    metric maps scores and weights [clips] to a number, as ``RankedScores.accuracy`` does.

    Returns:
        Lower and upper end that cover the probability ``level``, without the resamples that give
        NaN; NaN if all do.
    """
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}; it must be 1 or more")
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; it must lie between 0 and 1")
    num_clips = len(ranked.scores)
    random = np.random.default_rng(seed)
    values = []
    for _ in range(resamples):
        drawn = random.integers(num_clips, size=num_clips)
        values.append(metric(ranked, np.bincount(drawn, minlength=num_clips)))
    known = np.array([value for value in values if not math.isnan(value)])
    if not known.size:
        return math.nan, math.nan
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
