"""How well scores agree with labels: average precision, ROC area, d-prime, accuracy.

Scores and targets are [clips, classes] throughout: a score may be any number (probability or logit)
that is larger the surer the model is, a target is 1 where the clip has the class and 0 elsewhere.
Weights [clips] say how often each clip counts; None counts each once.

In this file:
    average_precision, roc_auc   one figure a class
    d_prime, accuracy            one figure
    confusion_matrix             which class is taken for which
    summarize, metric_names      the figures that benchmarks quote, as plain floats
    RankedScores                 scores sorted once, to be evaluated under many weights
    bootstrap_interval           how far a figure may be off, given the number of clips
    ClipScores                   collects results of many batches, each clip once
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any, Callable, NamedTuple

import numpy as np

METRICS = ("accuracy", "mAP", "mAUC", "d_prime")  # the first one of single labels alone


def average_precision(
    scores: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """Compute the area under each class's precision-recall curve.

    The area is the sum of steps AP = sum_k (R_k - R_(k-1)) * P_k over the distinct scores, from the
    largest down; clips of equal score pass the threshold together.

    Args:
        scores: [clips, classes].
        targets: [clips, classes], 0 or 1.
        weights: [clips], not negative.

    Returns:
        [classes]; NaN for a class without a positive clip.

    Raises:
        ValueError: shapes do not match, a score is NaN, a target is neither 0 nor 1, or a weight is
            negative or not finite.
    """
    return RankedScores(scores, targets).average_precision(weights)


def roc_auc(
    scores: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """Compute the area under each class's ROC curve.

    It is the probability that a positive clip has a larger score than a negative one, where equal
    scores count one half.

    Args:
        scores: [clips, classes].
        targets: [clips, classes], 0 or 1.
        weights: [clips], not negative.

    Returns:
        [classes]; NaN for a class without a positive or without a negative clip.

    Raises:
        ValueError: as for ``average_precision``.
    """
    return RankedScores(scores, targets).roc_auc(weights)


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


def accuracy(scores: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Compute the share of clips whose largest score (of equal ones the first) is at their class.

    Args:
        scores: [clips, classes].
        targets: [clips, classes], a single 1 a clip.
        weights: [clips], not negative.

    Returns:
        Share between 0 and 1; NaN if no clip has weight.

    Raises:
        ValueError: as for ``average_precision``, or a clip has no class or several.
    """
    predicted, true = _predict_and_true(scores, targets)
    weights = _check_weights(weights, len(true))
    total = float(weights.sum())
    return float(weights[predicted == true].sum()) / total if total > 0 else math.nan


def confusion_matrix(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Count which class is taken for which, the largest score (of equal ones the first) deciding.

    Args:
        scores: [clips, classes].
        targets: [clips, classes], a single 1 a clip.

    Returns:
        int [classes, classes]: a row is the true class, a column the predicted one.

    Raises:
        ValueError: as for ``accuracy``.
    """
    predicted, true = _predict_and_true(scores, targets)
    num_classes = np.shape(scores)[1]
    counts = np.bincount(true * num_classes + predicted, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def metric_names(single_label: bool) -> tuple[str, ...]:
    """Return the names of what `summarize` computes, in the order in which they are shown."""
    return METRICS if single_label else METRICS[1:]


def summarize(
    scores: np.ndarray,
    targets: np.ndarray,
    single_label: bool,
    weights: np.ndarray | None = None,
) -> dict[str, float]:
    """Compute the figures that benchmarks quote.

    Args:
        scores: [clips, classes].
        targets: [clips, classes], 0 or 1.
        single_label: whether each clip has a single class, so that accuracy makes sense.
        weights: [clips], not negative.

    Returns:
        ``mAP`` and ``mAUC``, means over the classes that occur (NaN if none does), ``d_prime`` of
        ``mAUC``, and ``accuracy`` if ``single_label``: plain floats, as NumPy's make a checkpoint
        that holds them unreadable for PyTorch's safe loading.

    Raises:
        ValueError: as for ``average_precision``, or for ``accuracy`` if ``single_label``.
    """
    ranked = RankedScores(scores, targets)
    mean_auc = ranked.mean_roc_auc(weights)
    return {
        **({"accuracy": ranked.accuracy(weights)} if single_label else {}),
        "mAP": ranked.mean_average_precision(weights),
        "mAUC": mean_auc,
        "d_prime": d_prime(mean_auc),
    }


class RankedScores:
    """Scores sorted once, class by class, to be evaluated under many weights of the clips.

    Attributes:
        scores: [clips, classes].
        targets: [clips, classes], bool.

    Raises:
        ValueError: shapes do not match, a score is NaN or a target is neither 0 nor 1.
    """

    def __init__(self, scores: np.ndarray, targets: np.ndarray) -> None:
        self.scores, self.targets = _check_scores(scores, targets)
        self._rankings = [
            _rank(class_scores, is_positive)
            for class_scores, is_positive in zip(self.scores.T, self.targets.T)
        ]

    def average_precision(self, weights: np.ndarray | None = None) -> np.ndarray:
        """Compute what the function ``average_precision`` does: [classes]."""
        weights = _check_weights(weights, len(self.scores))
        return np.array([_average_precision(ranking, weights) for ranking in self._rankings])

    def roc_auc(self, weights: np.ndarray | None = None) -> np.ndarray:
        """Compute what the function ``roc_auc`` does: [classes]."""
        weights = _check_weights(weights, len(self.scores))
        return np.array([_roc_auc(ranking, weights) for ranking in self._rankings])

    def mean_average_precision(self, weights: np.ndarray | None = None) -> float:
        """Average ``average_precision`` over the classes that occur; NaN if none does."""
        return _mean_of_known(self.average_precision(weights))

    def mean_roc_auc(self, weights: np.ndarray | None = None) -> float:
        """Average ``roc_auc`` over the classes that have it; NaN if none does."""
        return _mean_of_known(self.roc_auc(weights))

    def accuracy(self, weights: np.ndarray | None = None) -> float:
        """Compute what the function ``accuracy`` does."""
        return accuracy(self.scores, self.targets, weights)


def bootstrap_interval(
    scores: np.ndarray,
    targets: np.ndarray,
    metric: Callable[[RankedScores, np.ndarray], float],
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """Estimate how far a metric may be off, given the number of clips (percentile bootstrap).

    Each resample draws as many clips as there are, with replacement; a clip's weight is how often
    it was drawn. Sorting is done once for all of them.

    Args:
        scores: [clips, classes].
        targets: [clips, classes], 0 or 1.
        metric: maps ranked scores and weights [clips] to a figure, for instance
            ``RankedScores.mean_average_precision`` or ``RankedScores.accuracy``.
        resamples: how many to draw.
        seed: of the draws.
        level: probability that the interval is meant to cover, between 0 and 1.

    Returns:
        Lower and upper end. Resamples in which the metric is NaN are left out; both ends are NaN
        where it always is.

    Raises:
        ValueError: as for ``average_precision``, or ``resamples`` or ``level`` is out of range.
    """
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}; it must be 1 or more")
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; it must lie between 0 and 1")
    ranked = RankedScores(scores, targets)
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


class ClipScores:
    """Collects the results of many batches, each clip once.

    Several processes evaluate overlapping batches where the clips do not divide evenly: the first
    result of a clip stands, later ones are ignored.
    """

    def __init__(self) -> None:
        self._rows: dict[Any, tuple[np.ndarray, np.ndarray]] = {}
        self._num_classes = 0

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, ids: np.ndarray, scores: np.ndarray, targets: np.ndarray) -> None:
        """Take in a batch.

        Args:
            ids: [batch], what tells the clips apart.
            scores: [batch, classes].
            targets: [batch, classes], 0 or 1.

        Raises:
            ValueError: shapes do not match each other or earlier batches, a score is NaN, or a
                target is neither 0 nor 1.
        """
        ids = np.asarray(ids)
        scores, targets = _check_scores(scores, targets)
        if ids.shape != scores.shape[:1]:
            raise ValueError(f"ids have shape {ids.shape}; {len(scores)} clips need as many")
        if self._rows and scores.shape[1] != self._num_classes:
            raise ValueError(
                f"scores have {scores.shape[1]} classes; earlier batches had {self._num_classes}"
            )
        self._num_classes = scores.shape[1]
        for clip, clip_scores, clip_targets in zip(ids.tolist(), scores, targets):
            if clip not in self._rows:
                self._rows[clip] = (clip_scores.copy(), clip_targets.copy())

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return all clips, sorted by id: ids [N], scores [N, classes] and bool targets alike.

        Raises:
            ValueError: there are none.
        """
        if not self._rows:
            raise ValueError("no clip has been evaluated")
        ids = np.array(sorted(self._rows))
        scores, targets = zip(*(self._rows[clip] for clip in ids.tolist()))
        return ids, np.stack(scores), np.stack(targets)


class _Ranking(NamedTuple):
    """The clips of one class by falling score."""

    order: np.ndarray  # [N] clips
    is_negative: np.ndarray  # [N], in this order
    positives: np.ndarray  # [P] positive clips
    # Of each positive clip [P]: how many clips, and how many positive ones, score as high or higher
    # than it (`reached`), and how many score higher (`above`).
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
    # Only a positive clip of no weight can reach none; its precision counts nothing.
    precision = hits[ranking.positives_reached] / np.where(reached > 0, reached, 1)
    return float(own @ precision / hits[-1])


def _roc_auc(ranking: _Ranking, weights: np.ndarray) -> float:
    own = weights[ranking.positives]
    misses = _running_sum(weights[ranking.order] * ranking.is_negative)
    if own.sum() == 0 or misses[-1] == 0:
        return math.nan
    beaten = misses[-1] - (misses[ranking.above] + misses[ranking.reached]) / 2
    return min(float(own @ beaten / (own.sum() * misses[-1])), 1.0)  # 1 + rounding breaks d'


def _running_sum(values: np.ndarray) -> np.ndarray:
    """Sum the first 0, 1, ..., n values: [n + 1]."""
    sums = np.zeros(len(values) + 1)
    np.cumsum(values, out=sums[1:])
    return sums


def _mean_of_known(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else math.nan


def _predict_and_true(scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the class of the largest score and the true class of each clip."""
    scores, targets = _check_scores(scores, targets)
    labels = targets.sum(axis=1)
    if (labels != 1).any():
        row = int((labels != 1).argmax())
        raise ValueError(f"row {row} has {labels[row]} classes; accuracy needs exactly one")
    return scores.argmax(axis=1), targets.argmax(axis=1)


def _check_scores(scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return scores as they are and targets as bool, or refuse them."""
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


def _check_weights(weights: np.ndarray | None, num_clips: int) -> np.ndarray:
    """Return weights as float64 [num_clips], ones for None, or refuse them."""
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
