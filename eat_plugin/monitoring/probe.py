"""A probe during training: how well nearest neighbours tell the classes of a few clips apart."""

from __future__ import annotations

import numpy as np

from ..inference.probing import Judge, Split, check_targets
from ..inference.simple_classifiers import (
    draw_folds,
    predict_neighbours,
    score_folds,
    standardise,
)
from ..ranking import RankedScores
from .values import PROBE

NEIGHBOURS = 5


class Neighbours:
    """Classifies each clip by its nearest among the clips of the other folds.

    Args:
        targets: [clips, classes] of 0 and 1.

    Raises:
        ValueError: they are too few, or of one class.
    """

    def __init__(self, targets: np.ndarray) -> None:
        check_targets(targets)
        split = Split({}, targets)
        self._judge = Judge.choose(split, split, resamples=0, seed=0)
        self._targets, self._folds = targets, draw_folds(targets, seed=0)

    def score(self, vectors: np.ndarray) -> dict[str, float]:
        """Return accuracy (one class per clip) or mAP of vectors [clips, width], by its name."""
        x, _ = standardise(vectors, vectors[:0])
        folds = (x, self._targets, self._folds)
        (scores,) = score_folds(predict_neighbours, [NEIGHBOURS], *folds)
        value = self._judge.measure(RankedScores(scores, self._targets))
        return {f"{PROBE}{self._judge.metric}": value}
