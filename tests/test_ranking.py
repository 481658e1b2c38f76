"""Ranked scores against scikit-learn and by hand."""

import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from eat_plugin.ranking import RankedScores

NAN = math.nan
# Three clips, classes 0 (clips 0 and 2), 1 (clip 1), 2 (none).
SCORES = np.array([[0.9, 0.1, 0.3], [0.5, 0.4, 0.2], [0.1, 0.7, 0.1]])
TARGETS = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 0]])


def draw(seed, clips=40, classes=6, levels=None):
    """Random scores (with few distinct values if ``levels``), targets and weights (some 0)."""
    random = np.random.default_rng(seed)
    scores = random.standard_normal((clips, classes))
    if levels:
        scores = random.integers(levels, size=(clips, classes)).astype(float)
    targets = random.random((clips, classes)) < random.random(classes)
    targets[0], targets[1] = True, False  # both kinds in every class
    weights = random.random(clips) * (random.random(clips) < 0.7)
    weights[:2] = 0.5
    return scores, targets, weights


def one_hot(labels, classes):
    return np.eye(classes)[labels]


def average_precision(scores, targets, weights=None):
    return RankedScores(scores, targets).average_precision(weights)


def roc_auc(scores, targets, weights=None):
    return RankedScores(scores, targets).roc_auc(weights)


def accuracy(scores, targets, weights=None):
    return RankedScores(scores, targets).accuracy(weights)


@pytest.mark.parametrize("levels", [None, 1, 2, 5])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_average_precision_and_roc_auc__agree_with_scikit_learn(seed, weighted, levels):
    scores, targets, weights = draw(seed, levels=levels)
    weights = weights if weighted else None
    expected = average_precision_score(targets, scores, average=None, sample_weight=weights)
    np.testing.assert_allclose(average_precision(scores, targets, weights), expected, atol=1e-12)
    expected = roc_auc_score(targets, scores, average=None, sample_weight=weights)
    np.testing.assert_allclose(roc_auc(scores, targets, weights), expected, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int64])
def test_average_precision__takes_scores_of_any_type(dtype):
    scores, targets, _ = draw(0)
    scores = (scores * 4).astype(dtype)
    expected = average_precision_score(targets, scores, average=None)
    np.testing.assert_allclose(average_precision(scores, targets.astype(dtype)), expected)


def test_average_precision__by_hand():
    # Class 0: hits at ranks 1 and 3, (1/1 + 2/3) / 2; class 1: its only hit is second.
    np.testing.assert_allclose(average_precision(SCORES, TARGETS), [5 / 6, 1 / 2, NAN])


def test_average_precision__ties_are_one_threshold():
    scores = np.array([[2.0], [1.0], [1.0], [0.0]])
    # 1/2 of the recall at precision 1/1; the other half at 2 hits of 3.
    for targets in ([[1], [1], [0], [0]], [[1], [0], [1], [0]]):
        np.testing.assert_allclose(average_precision(scores, np.array(targets)), [5 / 6])


def test_roc_auc__by_hand():
    # Class 0: the negative at 0.5 is below one positive of two; class 1: below one negative of two.
    np.testing.assert_allclose(roc_auc(SCORES, TARGETS), [1 / 2, 1 / 2, NAN])
    scores = np.array([[3.0], [1.0], [1.0], [0.0]])
    # Pairs of the positives 3 and 1 with the negatives 1 and 0: win, win, tie, win.
    np.testing.assert_allclose(roc_auc(scores, np.array([[1], [1], [0], [0]])), [3.5 / 4])


@pytest.mark.filterwarnings("error")
def test_ranked_scores__degenerate_classes():
    scores = np.array([[0.2, 0.2], [0.8, 0.8], [0.5, 0.5]])
    targets = np.array([[1, 0], [1, 0], [1, 0]])  # all positive, no positive
    np.testing.assert_array_equal(average_precision(scores, targets), [1.0, NAN])
    np.testing.assert_array_equal(roc_auc(scores, targets), [NAN, NAN])
    weights = np.array([0.1, 0.2, 0.3])  # sums that round
    np.testing.assert_allclose(average_precision(scores, targets, weights), [1.0, NAN])
    np.testing.assert_array_equal(roc_auc(scores, targets, weights), [NAN, NAN])


def test_ranked_scores__one_clip():
    np.testing.assert_array_equal(average_precision(np.ones((1, 2)), [[1, 0]]), [1.0, NAN])
    np.testing.assert_array_equal(roc_auc(np.ones((1, 2)), [[1, 0]]), [NAN, NAN])
    assert accuracy([[0.0, 1.0]], [[0, 1]]) == 1.0


@pytest.mark.filterwarnings("error")
def test_ranked_scores__a_weight_of_0_leaves_a_clip_out():
    scores, targets, weights = draw(3, levels=4)
    kept = weights > 0
    for metric in (average_precision, roc_auc):
        expected = metric(scores[kept], targets[kept], weights[kept])
        np.testing.assert_allclose(metric(scores, targets, weights), expected, atol=1e-12)
    best_only = np.eye(3)[0]  # class 0 has its positive, but no negative; class 1 no positive
    np.testing.assert_array_equal(average_precision(SCORES, TARGETS, best_only), [1, NAN, NAN])
    np.testing.assert_array_equal(roc_auc(SCORES, TARGETS, best_only), [NAN, NAN, NAN])
    falling = np.array([[3.0], [2.0], [1.0]])  # a positive of weight 0 above all others
    np.testing.assert_array_equal(
        average_precision(falling, [[1], [1], [0]], np.array([0, 1, 1])), [1.0]
    )


def test_ranked_scores__a_whole_weight_repeats_a_clip():
    scores, targets, _ = draw(4, levels=6)
    counts = np.random.default_rng(0).integers(4, size=len(scores))
    counts[:2] = 1
    repeated = np.repeat(scores, counts, axis=0), np.repeat(targets, counts, axis=0)
    for metric in (average_precision, roc_auc):
        np.testing.assert_allclose(metric(scores, targets, counts), metric(*repeated), atol=1e-12)


def test_ranked_scores__infinite_scores_are_ranked():
    scores = np.array([[-np.inf], [0.0], [np.inf]])
    np.testing.assert_array_equal(roc_auc(scores, [[0], [0], [1]]), [1.0])
    np.testing.assert_array_equal(average_precision(scores, [[1], [0], [0]]), [1 / 3])


def test_roc_auc__stays_within_1_under_weights_that_round():
    scores = np.arange(20.0)[:, None]
    targets = scores > 9
    for seed in range(50):
        weights = np.random.default_rng(seed).random(20)
        assert 1 - 1e-12 < roc_auc(scores, targets, weights)[0] <= 1.0


def test_accuracy__by_hand():
    scores = np.array([[3, 1, 2], [1, 3, 2], [1, 2, 3], [5, 5, 0]])
    targets = one_hot([0, 2, 2, 1], 3)  # right, wrong, right, wrong: the first of equals counts
    assert accuracy(scores, targets) == 0.5
    assert accuracy(scores, targets, np.array([1, 1, 2, 0])) == 0.75
    assert math.isnan(accuracy(scores, targets, np.zeros(4)))


def test_accuracy__with_several_weights_in_turn():
    ranked = RankedScores(np.array([[2, 1], [1, 2], [2, 1]]), one_hot([0, 1, 1], 2))
    figures = [ranked.accuracy(weights) for weights in (None, np.array([0, 1, 3]), None)]
    assert figures == [2 / 3, 1 / 4, 2 / 3]


@pytest.mark.parametrize(("labels", "number"), [([0, 0, 0], 0), ([0, 1, 1], 2)])
def test_accuracy__refuses_a_clip_without_exactly_one_class(labels, number):
    targets = np.array([[1, 0, 0], labels])
    with pytest.raises(ValueError, match=f"row 1 has {number} classes"):
        accuracy(np.zeros((2, 3)), targets)


@pytest.mark.parametrize(
    ("scores", "targets", "message"),
    [
        (SCORES, TARGETS[:2], r"scores have shape \(3, 3\) and targets \(2, 3\)"),
        (SCORES[0], TARGETS[0], r"\(3,\).*must be \[clips, classes\]"),
        (SCORES[:, :0], TARGETS[:, :0], r"\(3, 0\)"),
        (np.where(SCORES == 0.7, NAN, SCORES), TARGETS, "score of row 2, class 1 is NaN"),
        (SCORES, TARGETS * 0.5, "target of row 0, class 0 is 0.5; choose 0 or 1"),
        (SCORES, TARGETS * NAN, "target of row 0, class 0 is nan"),
        (SCORES, -TARGETS, "target of row 0, class 0 is -1"),
    ],
)
def test_ranked_scores__refuse_invalid_scores(scores, targets, message):
    with pytest.raises(ValueError, match=message):
        RankedScores(scores, targets)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.ones(2), r"weights have shape \(2,\); expected one for each of the 3 clips"),
        (np.ones((3, 1)), r"\(3, 1\)"),
        (np.array([1, -1, 1]), "negative or not finite"),
        (np.array([1, NAN, 1]), "negative or not finite"),
        (np.array([1, np.inf, 1]), "negative or not finite"),
    ],
)
@pytest.mark.parametrize("metric", [average_precision, roc_auc, accuracy])
def test_ranked_scores__refuse_invalid_weights(metric, weights, message):
    targets = one_hot([0, 1, 2], 3)
    with pytest.raises(ValueError, match=message):
        metric(SCORES, targets, weights)
