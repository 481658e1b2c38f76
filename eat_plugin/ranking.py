"""Scores of clips ranked per class: average precision, ROC area, accuracy.

Scores and targets are [clips, classes]. A score is a probability, a logit or any other number that
rises with confidence. A target is 1 if the clip has the class, else 0. Weights [clips] are counts
of the clips; None counts each once.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import NamedTuple

import numpy as np


class RankedScores:
    """Scores sorted once per class, for evaluation with many weights of the clips.

    Attributes:
        scores: [clips, classes].
        targets: [clips, classes], bool.

    Raises:
        ValueError: as ``check_scores``.
    """

    def __init__(self, scores: np.ndarray, targets: np.ndarray) -> None:
        self.scores, self.targets = check_scores(scores, targets)
        self._rankings = [
            _rank(class_scores, is_positive)
            for class_scores, is_positive in zip(self.scores.T, self.targets.T)
        ]

    def average_precision(self, weights: np.ndarray | None = None) -> np.ndarray:
        """Compute the area under the precision-recall curve of each class.

        AP = sum_k (R_k - R_(k-1)) * P_k over the distinct scores in descending order.

        Returns:
            [classes]; NaN for a class without a positive clip.

        Raises:
            ValueError: a weight is negative or not finite, or their shape does not match.
        """
        weights = _check_weights(weights, len(self.scores))
        return np.array([_average_precision(ranking, weights) for ranking in self._rankings])

    def roc_auc(self, weights: np.ndarray | None = None) -> np.ndarray:
        """Compute the area under the ROC curve of each class.

        It is the probability that a positive clip has a larger score than a negative one; equal
        scores count one half.

        Returns:
            [classes]; NaN for a class without a positive or without a negative clip.
        """
        weights = _check_weights(weights, len(self.scores))
        return np.array([_roc_auc(ranking, weights) for ranking in self._rankings])

    def mean_average_precision(self, weights: np.ndarray | None = None) -> float:
        """Average ``average_precision`` over the classes that occur; NaN if none does."""
        return _mean_of_known(self.average_precision(weights))

    def mean_roc_auc(self, weights: np.ndarray | None = None) -> float:
        """Average ``roc_auc`` over the classes that have it; NaN if none does."""
        return _mean_of_known(self.roc_auc(weights))

    def accuracy(self, weights: np.ndarray | None = None) -> float:
        """Compute the share of clips with the (first) largest score at their class.

        It is NaN if the sum of the weights is 0. Each clip must have exactly one class.
        """
        is_right = self._is_right
        weights = _check_weights(weights, len(self.scores))
        total = float(weights.sum())
        return float(weights[is_right].sum()) / total if total > 0 else math.nan

    def predicted_and_true(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the class of the largest score and the true class of each clip, [clips] each.

        Raises:
            ValueError: a clip has no class or several.
        """
        labels = self.targets.sum(axis=1)
        if (labels != 1).any():
            row = int((labels != 1).argmax())
            raise ValueError(f"row {row} has {labels[row]} classes; accuracy needs exactly one")
        return self.scores.argmax(axis=1), self.targets.argmax(axis=1)

    @cached_property
    def _is_right(self) -> np.ndarray:
        """Whether each clip is classified correctly, [clips]."""
        predicted, true = self.predicted_and_true()
        return predicted == true


def check_scores(scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return scores and bool targets, [clips, classes] each.

    Raises:
        ValueError: shapes do not match, a score is NaN or a target is neither 0 nor 1.
    """
    scores, targets = np.asarray(scores), np.asarray(targets)
    if scores.shape != targets.shape or scores.ndim != 2 or not scores.shape[1]:
        raise ValueError(
            f"scores have shape {scores.shape} and targets {targets.shape}; "
            "both must be [clips, classes]"
        )
    is_nan = np.isnan(scores)
    if is_nan.any():
        row, column = np.argwhere(is_nan)[0]
        raise ValueError(f"the score of row {row}, class {column} is NaN")
    is_one = targets == 1
    is_other = ~(is_one | (targets == 0))
    if is_other.any():
        row, column = np.argwhere(is_other)[0]
        value = targets[row, column]
        raise ValueError(f"the target of row {row}, class {column} is {value}; choose 0 or 1")
    return scores, is_one


class _Ranking(NamedTuple):
    """The clips of one class, sorted by descending score."""

    order: np.ndarray  # [N] clips
    is_negative: np.ndarray  # [N], in this order
    positives: np.ndarray  # [P] positive clips
    # Per positive clip [P]: number of clips and of positive clips with the same score or a higher
    # one (`reached`), and number of clips with a higher one (`above`).
    reached: np.ndarray
    positives_reached: np.ndarray
    above: np.ndarray


def _rank(scores: np.ndarray, is_positive: np.ndarray) -> _Ranking:
    """Rank the clips of one class: scores [N], is_positive [N]."""
    rising = np.argsort(scores)
    order = rising[::-1].copy()
    positives = order[is_positive[order]]
    own, every = scores[positives], scores[rising]
    return _Ranking(
        order,
        ~is_positive[order],
        positives,
        reached=len(every) - np.searchsorted(every, own, side="left"),
        positives_reached=len(own) - np.searchsorted(own[::-1], own, side="left"),
        above=len(every) - np.searchsorted(every, own, side="right"),
    )


def _average_precision(ranking: _Ranking, weights: np.ndarray) -> float:
    own = weights[ranking.positives]
    hits = _running_sum(own)
    if hits[-1] == 0:
        return math.nan
    reached = _running_sum(weights[ranking.order])[ranking.reached]
    # Only a positive clip of weight 0 can reach none; its precision does not count.
    precision = hits[ranking.positives_reached] / np.where(reached > 0, reached, 1)
    return float(own @ precision / hits[-1])


def _roc_auc(ranking: _Ranking, weights: np.ndarray) -> float:
    own = weights[ranking.positives]
    misses = _running_sum(weights[ranking.order] * ranking.is_negative)
    if own.sum() == 0 or misses[-1] == 0:
        return math.nan
    beaten = misses[-1] - (misses[ranking.above] + misses[ranking.reached]) / 2
    return min(float(own @ beaten / (own.sum() * misses[-1])), 1.0)  # rounding above 1 breaks d'


def _running_sum(values: np.ndarray) -> np.ndarray:
    """Sum the first 0, 1, ..., n values: [n + 1]."""
    sums = np.zeros(len(values) + 1)
    np.cumsum(values, out=sums[1:])
    return sums


def _mean_of_known(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else math.nan


def _check_weights(weights: np.ndarray | None, num_clips: int) -> np.ndarray:
    """Return weights as float64 [num_clips], ones for None; raise ValueError if invalid."""
    if weights is None:
        return np.ones(num_clips)
    weights = np.asarray(weights, dtype=np.float64)
    if weights.shape != (num_clips,):
        raise ValueError(
            f"weights have shape {weights.shape}; expected one for each of the {num_clips} clips"
        )
    if not (np.isfinite(weights) & (weights >= 0)).all():
        raise ValueError("a weight is negative or not finite; weights must be 0 or more")
    return weights
