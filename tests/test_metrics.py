"""Metrics against scikit-learn and by hand."""

import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from eat_plugin.metrics import (
    ClipScores,
    RankedScores,
    accuracy,
    average_precision,
    bootstrap_interval,
    confusion_matrix,
    d_prime,
    metric_names,
    roc_auc,
    summarize,
)

NAN = math.nan
# Three clips, classes 0 (clips 0 and 2), 1 (clip 1), 2 (none).
SCORES = np.array([[0.9, 0.1, 0.3], [0.5, 0.4, 0.2], [0.1, 0.7, 0.1]])
TARGETS = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 0]])


def draw(seed, clips=40, classes=6, levels=None):
    """Random scores (of few distinct values, if ``levels``), targets and weights (some 0)."""
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
def test_metrics__degenerate_classes():
    scores = np.array([[0.2, 0.2], [0.8, 0.8], [0.5, 0.5]])
    targets = np.array([[1, 0], [1, 0], [1, 0]])  # all positive, no positive
    np.testing.assert_array_equal(average_precision(scores, targets), [1.0, NAN])
    np.testing.assert_array_equal(roc_auc(scores, targets), [NAN, NAN])
    weights = np.array([0.1, 0.2, 0.3])  # sums that round
    np.testing.assert_allclose(average_precision(scores, targets, weights), [1.0, NAN])
    np.testing.assert_array_equal(roc_auc(scores, targets, weights), [NAN, NAN])


def test_metrics__one_clip():
    np.testing.assert_array_equal(average_precision(np.ones((1, 2)), [[1, 0]]), [1.0, NAN])
    np.testing.assert_array_equal(roc_auc(np.ones((1, 2)), [[1, 0]]), [NAN, NAN])
    assert accuracy([[0.0, 1.0]], [[0, 1]]) == 1.0


def test_metrics__no_clips():
    scores, targets = np.zeros((0, 2)), np.zeros((0, 2))
    assert np.isnan(list(summarize(scores, targets, single_label=True).values())).all()
    assert np.isnan(bootstrap_interval(scores, targets, RankedScores.accuracy, resamples=2)).all()


@pytest.mark.filterwarnings("error")
def test_metrics__a_weight_of_0_leaves_a_clip_out():
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


def test_metrics__a_whole_weight_repeats_a_clip():
    scores, targets, _ = draw(4, levels=6)
    counts = np.random.default_rng(0).integers(4, size=len(scores))
    counts[:2] = 1
    repeated = np.repeat(scores, counts, axis=0), np.repeat(targets, counts, axis=0)
    for metric in (average_precision, roc_auc):
        np.testing.assert_allclose(metric(scores, targets, counts), metric(*repeated), atol=1e-12)


def test_metrics__infinite_scores_are_ranked():
    scores = np.array([[-np.inf], [0.0], [np.inf]])
    np.testing.assert_array_equal(roc_auc(scores, [[0], [0], [1]]), [1.0])
    np.testing.assert_array_equal(average_precision(scores, [[1], [0], [0]]), [1 / 3])


def test_roc_auc__stays_within_1_under_weights_that_round():
    scores = np.arange(20.0)[:, None]
    targets = scores > 9
    for seed in range(50):
        weights = np.random.default_rng(seed).random(20)
        assert 1 - 1e-12 < roc_auc(scores, targets, weights)[0] <= 1.0


def test_d_prime__by_hand():
    assert d_prime(0.5) == 0
    # Phi(1) = 0.8413447460685429
    assert d_prime(0.8413447460685429) == pytest.approx(math.sqrt(2))
    assert d_prime(1 - 0.8413447460685429) == pytest.approx(-math.sqrt(2))
    assert d_prime(1.0) == math.inf
    assert d_prime(0.0) == -math.inf
    assert math.isnan(d_prime(NAN))


@pytest.mark.parametrize("auc", [-0.1, 97.3])
def test_d_prime__refuses_what_is_no_area(auc):
    with pytest.raises(ValueError, match=f"auc is {auc}; it must lie between 0 and 1"):
        d_prime(auc)


def test_accuracy__by_hand():
    scores = np.array([[3, 1, 2], [1, 3, 2], [1, 2, 3], [5, 5, 0]])
    targets = one_hot([0, 2, 2, 1], 3)  # right, wrong, right, wrong: the first of equals counts
    assert accuracy(scores, targets) == 0.5
    assert accuracy(scores, targets, np.array([1, 1, 2, 0])) == 0.75
    assert math.isnan(accuracy(scores, targets, np.zeros(4)))


def test_confusion_matrix__by_hand():
    predicted, true = [0, 1, 1, 2, 1], [0, 1, 2, 2, 2]
    matrix = confusion_matrix(one_hot(predicted, 4), one_hot(true, 4))
    assert matrix.tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 2, 1, 0], [0, 0, 0, 0]]
    assert np.issubdtype(matrix.dtype, np.integer)


@pytest.mark.parametrize(("labels", "number"), [([0, 0, 0], 0), ([0, 1, 1], 2)])
@pytest.mark.parametrize("metric", [accuracy, confusion_matrix])
def test_accuracy__refuses_a_clip_without_exactly_one_class(metric, labels, number):
    targets = np.array([[1, 0, 0], labels])
    with pytest.raises(ValueError, match=f"row 1 has {number} classes"):
        metric(np.zeros((2, 3)), targets)


def test_summarize__means_over_classes_that_occur():
    summary = summarize(SCORES, TARGETS, single_label=True)
    assert summary == pytest.approx(
        {"mAP": (5 / 6 + 1 / 2) / 2, "mAUC": 0.5, "d_prime": 0.0, "accuracy": 1 / 3}
    )
    assert all(type(value) is float for value in summary.values())


@pytest.mark.parametrize("single_label", [True, False])
def test_summarize__gives_what_is_named(single_label):
    names = ["accuracy", "mAP", "mAUC", "d_prime"][not single_label :]
    assert list(metric_names(single_label)) == names
    assert list(summarize(SCORES, TARGETS, single_label)) == names


def test_summarize__d_prime_is_that_of_the_mean_area():
    scores, targets, weights = draw(5)
    summary = summarize(scores, targets, single_label=False, weights=weights)
    assert list(summary) == ["mAP", "mAUC", "d_prime"]
    assert summary["mAUC"] == pytest.approx(roc_auc(scores, targets, weights).mean())
    assert summary["mAP"] == pytest.approx(average_precision(scores, targets, weights).mean())
    assert summary["d_prime"] == d_prime(summary["mAUC"])


@pytest.mark.filterwarnings("error")
def test_summarize__is_nan_where_no_class_occurs():
    summary = summarize(SCORES, np.zeros((3, 3)), single_label=False)
    assert all(type(value) is float and math.isnan(value) for value in summary.values())


def test_bootstrap_interval__of_an_accuracy_is_that_of_the_binomial():
    # 70 right of 100: normal approximation 0.7 +- z * sqrt(0.7 * 0.3 / 100). The quantiles of 2000
    # resamples have a standard error near 0.003, and the binomial's steps are 0.01.
    targets = one_hot(np.zeros(100, int), 2)
    scores = one_hot((np.arange(100) >= 70).astype(int), 2)
    for level, z in ((0.95, 1.96), (0.5, 0.674)):
        interval = bootstrap_interval(
            scores, targets, RankedScores.accuracy, resamples=2000, level=level
        )
        half = z * math.sqrt(0.7 * 0.3 / 100)
        assert interval == pytest.approx((0.7 - half, 0.7 + half), abs=0.015)
        assert all(type(end) is float for end in interval)


def test_bootstrap_interval__follows_from_the_seed():
    scores, targets, _ = draw(6)
    metric = RankedScores.mean_average_precision
    first = bootstrap_interval(scores, targets, metric, resamples=20, seed=1)
    assert first == bootstrap_interval(scores, targets, metric, resamples=20, seed=1)
    assert first != bootstrap_interval(scores, targets, metric, resamples=20, seed=2)
    assert first[0] < RankedScores(scores, targets).mean_average_precision() < first[1]


def test_bootstrap_interval__resamples_as_many_clips_with_replacement():
    seen = []

    def metric(ranked, weights):
        seen.append(weights)
        return NAN if len(seen) % 2 else 0.25

    # Half of the resamples have no value: they are left out.
    assert bootstrap_interval(SCORES, TARGETS, metric, resamples=300) == (0.25, 0.25)
    counts = np.array(seen)
    assert counts.shape == (300, 3)
    assert (counts.sum(axis=1) == 3).all()
    np.testing.assert_allclose(counts.mean(axis=0), 1, atol=0.2)
    # Of 3 draws with replacement, 3! / 3^3 = 0.22 hit every clip once.
    assert np.mean((counts == 1).all(axis=1)) == pytest.approx(6 / 27, abs=0.08)


@pytest.mark.parametrize(
    ("option", "value"), [("resamples", 0), ("level", 0.0), ("level", 1.0), ("level", 95)]
)
def test_bootstrap_interval__refuses_options_out_of_range(option, value):
    with pytest.raises(ValueError, match=f"{option} is {value}"):
        bootstrap_interval(SCORES, TARGETS, RankedScores.mean_roc_auc, **{option: value})


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
    scores, targets, _ = draw(8)
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
        collected.add(np.arange(3), SCORES * NAN, TARGETS)
    assert len(collected) == 0
    collected.add(np.arange(3), SCORES, TARGETS)
    with pytest.raises(ValueError, match="scores have 2 classes; earlier batches had 3"):
        collected.add(np.arange(3), SCORES[:, :2], TARGETS[:, :2])


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
@pytest.mark.parametrize("metric", [average_precision, roc_auc, accuracy, confusion_matrix])
def test_metrics__refuse_what_makes_no_sense(metric, scores, targets, message):
    with pytest.raises(ValueError, match=message):
        metric(scores, targets)


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
def test_metrics__refuse_weights_that_make_no_sense(metric, weights, message):
    targets = one_hot([0, 1, 2], 3)
    with pytest.raises(ValueError, match=message):
        metric(SCORES, targets, weights)
