"""Scores collected batch by batch."""

import math

import numpy as np
import pytest

from eat_plugin.clip_scores import ClipScores

SCORES = np.array([[0.9, 0.1, 0.3], [0.5, 0.4, 0.2], [0.1, 0.7, 0.1]])
TARGETS = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 0]])


def test_clip_scores__each_clip_once_and_sorted_by_id():
    collected = ClipScores()
    assert len(collected) == 0
    scores = np.array([[0.1, 0.9], [0.2, 0.8], [0.3, 0.7]])
    targets = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    collected.add(np.array([7, 2, 7]), scores, targets)  # a duplicate within a batch
    collected.add(np.array([2, 3]), scores[:2] + 10, 1 - targets[:2])  # and of an earlier batch
    scores[:] = -1  # the caller may reuse the memory
    assert len(collected) == 3
    ids, kept_scores, kept_targets = collected.arrays()
    assert ids.tolist() == [2, 3, 7]
    np.testing.assert_array_equal(kept_scores, [[0.2, 0.8], [10.2, 10.8], [0.1, 0.9]])
    np.testing.assert_array_equal(kept_targets, [[0, 1], [1, 0], [1, 0]])


def test_clip_scores__order_and_overlap_of_batches_do_not_matter():
    random = np.random.default_rng(8)
    scores, targets = random.standard_normal((40, 6)), random.random((40, 6)) < 0.5
    whole, parts = ClipScores(), ClipScores()
    ids = np.arange(40)
    whole.add(ids, scores, targets)
    for batch in (ids[30:], ids[:0], ids[5:35:2], ids[::-1]):
        parts.add(batch, scores[batch], targets[batch])
    for first, second in zip(whole.arrays(), parts.arrays()):
        np.testing.assert_array_equal(first, second)


def test_clip_scores__refuses_what_does_not_fit():
    collected = ClipScores()
    with pytest.raises(ValueError, match="no clip has been evaluated"):
        collected.arrays()
    with pytest.raises(ValueError, match=r"ids have shape \(2,\); 3 clips"):
        collected.add(np.arange(2), SCORES, TARGETS)
    with pytest.raises(ValueError, match="NaN"):
        collected.add(np.arange(3), SCORES * math.nan, TARGETS)
    assert len(collected) == 0
    collected.add(np.arange(3), SCORES, TARGETS)
    with pytest.raises(ValueError, match="scores have 2 classes; earlier batches had 3"):
        collected.add(np.arange(3), SCORES[:, :2], TARGETS[:, :2])
