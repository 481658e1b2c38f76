"""Scores of a split that come in batches, from several processes, each clip kept once."""

from __future__ import annotations

from typing import Any

import numpy as np

from eat_plugin.ranking import check_scores


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
        scores, targets = check_scores(scores, targets)
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
