"""How well frozen vectors tell classes apart, by a linear classifier and by nearest neighbours.

    from eat_plugin.inference.probing import Split, mark_chosen, probe_vectors, stack_vectors

    train = Split(stack_vectors(vectors_of_clips), targets)  # targets [clips, classes], 0 or 1
    rows = list(probe_vectors(train, heldout, layers=[1, 2, 3, 4]))
    mark_chosen(rows)

C, k and layer are chosen by cross-validation on the training split alone. The held-out split is
scored once per row.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..metrics import bootstrap_interval
from ..ranking import RankedScores
from .clip_vectors import MODEL, RANDOM, Kind, Vectors
from .simple_classifiers import (
    FOLDS,
    INVERSE_PENALTIES,
    NEIGHBOURS,
    Predict,
    draw_folds,
    predict_linear,
    predict_neighbours,
    reduce_width,
    score_folds,
    standardise,
)

LINEAR, KNN = "linear", "knn"
METHODS: dict[str, tuple[Predict, tuple[float, ...]]] = {
    LINEAR: (predict_linear, INVERSE_PENALTIES),
    KNN: (predict_neighbours, NEIGHBOURS),
}
LEVEL = 0.95  # of the intervals


class Split(NamedTuple):
    """The clips of a split: vectors of each kind [clips, layers, width], and targets."""

    vectors: dict[Kind, np.ndarray]
    targets: np.ndarray  # [clips, classes], 0 or 1


class Interval(NamedTuple):
    """A value, and where it lies with a probability of 95 %; NaN without resamples."""

    value: float
    low: float
    high: float


@dataclass
class Outcome:
    """The result of one classifier on one kind of vectors.

    Attributes:
        heldout: the metric on the held-out split.
        cv: the metric on the training split, where each clip is scored without its fold.
        setting: chosen C of the linear classifier, or k.
        scores: of the held-out clips, [clips, classes].
        is_chosen: ``cv`` is the best of all vectors from the same source.
    """

    heldout: Interval
    cv: float
    setting: float
    scores: np.ndarray
    is_chosen: bool = False


@dataclass
class Row:
    """One kind of vectors of one layer (None for a baseline), and the outcome of each method."""

    kind: Kind
    layer: int | str | None
    width: int
    outcomes: dict[str, Outcome]


@dataclass(frozen=True)
class Judge:
    """Accuracy where each clip has one class, else mAP."""

    single: bool
    resamples: int
    seed: int

    @classmethod
    def choose(cls, train: Split, heldout: Split, resamples: int, seed: int) -> Judge:
        """Choose the metric for two splits."""
        labels = np.concatenate([train.targets.sum(axis=1), heldout.targets.sum(axis=1)])
        return cls(bool((labels == 1).all()), resamples, seed)

    @property
    def metric(self) -> str:
        """The name of the metric."""
        return "accuracy" if self.single else "mAP"

    def measure(self, ranked: RankedScores, weights: np.ndarray | None = None) -> float:
        """Compute the metric with weights of the clips."""
        name = RankedScores.accuracy if self.single else RankedScores.mean_average_precision
        return name(ranked, weights)

    def judge(self, scores: np.ndarray, targets: np.ndarray) -> Interval:
        """Compute the metric and its interval."""
        ranked = RankedScores(scores, targets)
        if not self.resamples:
            return Interval(self.measure(ranked), math.nan, math.nan)
        ends = bootstrap_interval(ranked, self.measure, self.resamples, self.seed, LEVEL)
        return Interval(self.measure(ranked), *ends)

    def compare(self, scores: np.ndarray, others: np.ndarray, targets: np.ndarray) -> Interval:
        """Compute how much better scores are than others of the same clips."""
        ranked, other = RankedScores(scores, targets), RankedScores(others, targets)

        def difference(own: RankedScores, weights: np.ndarray | None = None) -> float:
            return self.measure(own, weights) - self.measure(other, weights)

        if not self.resamples:
            return Interval(difference(ranked), math.nan, math.nan)
        ends = bootstrap_interval(ranked, difference, self.resamples, self.seed, LEVEL)
        return Interval(difference(ranked), *ends)


def stack_vectors(found: Iterable[Vectors]) -> dict[Kind, np.ndarray]:
    """Stack the vectors of clips: [clips, layers, width] of each kind."""
    lists: dict[Kind, list[np.ndarray]] = {}
    for vectors in found:
        for kind, x in vectors.items():
            lists.setdefault(kind, []).append(x)
    return {kind: np.stack(lists.pop(kind)) for kind in list(lists)}


def check_targets(targets: np.ndarray) -> None:
    """Raise ValueError if nothing can be learnt from the targets of a training split."""
    if len(targets) < FOLDS:
        raise ValueError(
            f"the training split has {len(targets)} usable clips; {FOLDS} at least are needed, for "
            "cross-validation"
        )
    counts = targets.sum(axis=0)
    if not ((counts > 0) & (counts < len(targets))).any():
        raise ValueError("all clips of the training split have the same label; give two at least")


def probe_vectors(
    train: Split, heldout: Split, layers: list[int | str], judge: Judge
) -> Iterator[Row]:
    """Probe each kind of vectors, each layer of it.

    Args:
        train: to learn and to choose from.
        heldout: to score.
        layers: names of the layers of a model's vectors.
        judge: the metric; its seed draws the folds too.

    Raises:
        ValueError: the training split has too few clips, or one class.
    """
    check_targets(train.targets)
    folds = draw_folds(train.targets, judge.seed)
    for kind, x in train.vectors.items():
        names = layers if kind.source in (MODEL, RANDOM) else [None]
        for number, layer in enumerate(names):
            own = standardise(x[:, number], heldout.vectors[kind][:, number])
            own = reduce_width(*own)
            outcomes = {
                method: _probe(own, train.targets, heldout.targets, method, folds, judge)
                for method in METHODS
            }
            yield Row(kind, layer, x.shape[2], outcomes)


def _probe(
    vectors: tuple[np.ndarray, np.ndarray],
    train: np.ndarray,
    heldout: np.ndarray,
    method: str,
    folds: np.ndarray,
    judge: Judge,
) -> Outcome:
    """Choose the setting of a method on the training split, and score the held-out one."""
    predict, settings = METHODS[method]
    candidates = score_folds(predict, settings, vectors[0], train, folds)
    values = [judge.measure(RankedScores(scores, train)) for scores in candidates]
    best = int(np.argmax(values))
    (scores,) = predict(vectors[0], train, vectors[1], settings[best : best + 1])
    return Outcome(judge.judge(scores, heldout), values[best], settings[best], scores)


def mark_chosen(rows: list[Row]) -> dict[tuple[str, str], Outcome]:
    """Mark the row of each source and method that is best in cross-validation.

    Returns:
        (source, method) -> outcome of the chosen row.
    """
    chosen: dict[tuple[str, str], Outcome] = {}
    for row in rows:
        for method, outcome in row.outcomes.items():
            key = (row.kind.source, method)
            if key not in chosen or outcome.cv > chosen[key].cv:
                chosen[key] = outcome
    for outcome in chosen.values():
        outcome.is_chosen = True
    return chosen
