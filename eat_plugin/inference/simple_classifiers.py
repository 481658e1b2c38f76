"""Classifiers without hidden layers on fixed vectors, and the choice of their setting.

Vectors are [clips, width], targets [clips, classes] of 0 and 1, scores [clips, classes].
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np

INVERSE_PENALTIES = (0.0001, 0.001, 0.01, 0.1, 1.0)  # C of scikit-learn
NEIGHBOURS = (1, 3, 5, 10, 20)
ITERATIONS = 200  # at most, of the linear classifier
CONSTANT = 1e-6  # deviation of a component, relative to its size, that is rounding alone
FOLDS = 5

Predict = Callable[
    [np.ndarray, np.ndarray, np.ndarray, Sequence[float]],
    "list[np.ndarray]",
]
"""Vectors and targets to learn from, vectors to score, settings -> scores for each setting."""


def standardise(train: np.ndarray, heldout: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give each component mean 0 and deviation 1 over the training clips.

    Components that are the same for all training clips become 0.
    """
    train, heldout = train.astype(np.float64), heldout.astype(np.float64)
    mean, std = train.mean(axis=0), train.std(axis=0)
    varies = std > CONSTANT * np.maximum(np.abs(mean), 1)
    scale = np.where(varies, 1 / np.where(varies, std, 1), 0)
    return (train - mean) * scale, (heldout - mean) * scale


def reduce_width(train: np.ndarray, heldout: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotate vectors with more components than training clips into the span of these clips.

    It has at most as many dimensions as there are training clips. Dot products with training clips
    stay the same, and so do the scores of a linear classifier with a squared penalty.
    """
    if train.shape[1] <= len(train):
        return train, heldout
    values, axes = np.linalg.eigh(train @ train.T)
    kept = values > max(values[-1], 0) * len(train) * np.finfo(values.dtype).eps
    axes = axes[:, kept] / np.sqrt(values[kept])  # [clips, dimensions]
    turned = train.T @ axes
    return train @ turned, heldout @ turned


def predict_linear(
    train: np.ndarray, targets: np.ndarray, heldout: np.ndarray, settings: Sequence[float]
) -> list[np.ndarray]:
    """Fit logistic regression for each C; return probabilities.

    Clips with one class each get one multinomial classifier, others one classifier per class. A
    class that no training clip has, or all have, gets its share of them.
    """
    if (targets.sum(axis=1) == 1).all():
        return _fit_path(train, targets.argmax(axis=1), heldout, settings, targets.shape[1])
    scores = np.empty((len(settings), len(heldout), targets.shape[1]))
    for number, column in enumerate(targets.T):
        found = _fit_path(train, column.astype(int), heldout, settings, 2)
        scores[:, :, number] = [pair[:, 1] for pair in found]
    return list(scores)


def _fit_path(
    train: np.ndarray,
    classes: np.ndarray,
    heldout: np.ndarray,
    settings: Sequence[float],
    num_classes: int,
) -> list[np.ndarray]:
    """Fit classes [clips] for each C, from the weights of the C before."""
    from sklearn.linear_model import LogisticRegression

    scores = np.zeros((len(settings), len(heldout), num_classes))
    known = np.unique(classes)
    if len(known) == 1:
        scores[:, :, known[0]] = 1
        return list(scores)
    model = LogisticRegression(max_iter=ITERATIONS, warm_start=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it stopped at the last iteration
        for row, setting in zip(scores, settings):
            model.set_params(C=setting).fit(train, classes)
            row[:, model.classes_] = model.predict_proba(heldout)
    return list(scores)


def predict_neighbours(
    train: np.ndarray, targets: np.ndarray, heldout: np.ndarray, settings: Sequence[float]
) -> list[np.ndarray]:
    """Let the k training clips with the largest cosine vote for their classes, for each k.

    A vote weighs 1 + cosine. Scores are shares of all votes. With fewer clips than k, all vote.
    """
    cosines = _unit(heldout) @ _unit(train).T  # [heldout, train]
    order = np.argsort(-cosines, axis=1, kind="stable")[:, : int(max(settings))]
    votes = 1 + np.take_along_axis(cosines, order, axis=1)
    scores = []
    for setting in settings:
        k = int(setting)
        weights = np.zeros_like(cosines)
        np.put_along_axis(weights, order[:, :k], votes[:, :k], axis=1)
        total = np.maximum(weights.sum(axis=1, keepdims=True), np.finfo(weights.dtype).tiny)
        scores.append(weights @ targets / total)
    return scores


def _unit(x: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(length > 0, length, 1)


def draw_folds(targets: np.ndarray, seed: int) -> np.ndarray:
    """Deal the clips of each class evenly to folds; return the fold of each clip, [clips].

    A clip with several classes is dealt with the rarest of them.
    """
    rarity = np.where(targets > 0, targets.sum(axis=0), np.inf)
    shuffled = np.random.default_rng(seed).permutation(len(targets))
    order = shuffled[np.argsort(rarity.argmin(axis=1)[shuffled], kind="stable")]
    folds = np.empty(len(targets), dtype=int)
    folds[order] = np.arange(len(targets)) % FOLDS
    return folds


def score_folds(
    predict: Predict,
    settings: Sequence[float],
    train: np.ndarray,
    targets: np.ndarray,
    folds: np.ndarray,
) -> np.ndarray:
    """Score each clip by a classifier that has not seen its fold: [settings, clips, classes]."""
    scores = np.zeros((len(settings), *targets.shape))
    for fold in np.unique(folds):
        left_out = folds == fold
        found = predict(train[~left_out], targets[~left_out], train[left_out], settings)
        scores[:, left_out] = found
    return scores
