"""Metrics of a split, by hand, and the collection of its scores."""

import math
from functools import partial

import numpy as np
import pytest

from eat_plugin.metrics import (
    ClipScores,
    bootstrap_interval,
    confusion_matrix,
    d_prime,
    metric_names,
    summarize,
)
from eat_plugin.ranking import RankedScores

NAN = math.nan
# Three clips, classes 0 (clips 0 and 2), 1 (clip 1), 2 (none).
SCORES = np.array([[0.9, 0.1, 0.3], [0.5, 0.4, 0.2], [0.1, 0.7, 0.1]])
TARGETS = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 0]])
RANKED = RankedScores(SCORES, TARGETS)


def draw(seed):
    """Random scores and targets, with both kinds in every class."""
    random = np.random.default_rng(seed)
    targets = random.random((40, 6)) < random.random(6)
    targets[0], targets[1] = True, False
    return RankedScores(random.standard_normal((40, 6)), targets)


def one_hot(labels, classes):
    return np.eye(classes)[labels]


def test_metrics__no_clips():
    ranked = RankedScores(np.zeros((0, 2)), np.zeros((0, 2)))
    assert np.isnan(list(summarize(ranked, single_label=True).values())).all()
    assert np.isnan(bootstrap_interval(ranked, RankedScores.accuracy, resamples=2)).all()


def test_d_prime__by_hand():
    assert d_prime(0.5) == 0
    # Phi(1) = 0.8413447460685429
    assert d_prime(0.8413447460685429) == pytest.approx(math.sqrt(2))
    assert d_prime(1 - 0.8413447460685429) == pytest.approx(-math.sqrt(2))
    assert d_prime(1.0) == math.inf
    assert d_prime(0.0) == -math.inf
    assert math.isnan(d_prime(NAN))


@pytest.mark.parametrize("auc", [-0.1, 97.3])
def test_d_prime__refuses_values_outside_0_to_1(auc):
    with pytest.raises(ValueError, match=f"auc is {auc}; it must lie between 0 and 1"):
        d_prime(auc)


def test_confusion_matrix__by_hand():
    predicted, true = [0, 1, 1, 2, 1], [0, 1, 2, 2, 2]
    matrix = confusion_matrix(RankedScores(one_hot(predicted, 4), one_hot(true, 4)))
    assert matrix.tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 2, 1, 0], [0, 0, 0, 0]]
    assert np.issubdtype(matrix.dtype, np.integer)


@pytest.mark.parametrize(("labels", "number"), [([0, 0, 0], 0), ([0, 1, 1], 2)])
@pytest.mark.parametrize("metric", [confusion_matrix, partial(summarize, single_label=True)])
def test_metrics__refuse_a_clip_without_exactly_one_class(metric, labels, number):
    targets = np.array([[1, 0, 0], labels])
    with pytest.raises(ValueError, match=f"row 1 has {number} classes"):
        metric(RankedScores(np.zeros((2, 3)), targets))


def test_summarize__means_over_classes_that_occur():
    summary = summarize(RANKED, single_label=True)
    assert summary == pytest.approx(
        {"mAP": (5 / 6 + 1 / 2) / 2, "mAUC": 0.5, "d_prime": 0.0, "accuracy": 1 / 3}
    )
    assert all(type(value) is float for value in summary.values())


@pytest.mark.parametrize("single_label", [True, False])
def test_summarize__has_the_names_of_metric_names(single_label):
    names = ["accuracy", "mAP", "mAUC", "d_prime"][not single_label :]
    assert list(metric_names(single_label)) == names
    assert list(summarize(RANKED, single_label)) == names


def test_summarize__d_prime_of_the_mean_area():
    ranked = draw(5)
    summary = summarize(ranked, single_label=False)
    assert list(summary) == ["mAP", "mAUC", "d_prime"]
    assert summary["mAUC"] == pytest.approx(ranked.roc_auc().mean())
    assert summary["mAP"] == pytest.approx(ranked.average_precision().mean())
    assert summary["d_prime"] == d_prime(summary["mAUC"])


@pytest.mark.filterwarnings("error")
def test_summarize__is_nan_where_no_class_occurs():
    summary = summarize(RankedScores(SCORES, np.zeros((3, 3))), single_label=False)
    assert all(type(value) is float and math.isnan(value) for value in summary.values())


def test_bootstrap_interval__accuracy_agrees_with_the_binomial():
    # 70 right of 100: normal approximation 0.7 +- z * sqrt(0.7 * 0.3 / 100). The quantiles of 2000
    # resamples have a standard error near 0.003, and the binomial's steps are 0.01.
    targets = one_hot(np.zeros(100, int), 2)
    ranked = RankedScores(one_hot((np.arange(100) >= 70).astype(int), 2), targets)
    for level, z in ((0.95, 1.96), (0.5, 0.674)):
        interval = bootstrap_interval(ranked, RankedScores.accuracy, resamples=2000, level=level)
        half = z * math.sqrt(0.7 * 0.3 / 100)
        assert interval == pytest.approx((0.7 - half, 0.7 + half), abs=0.015)
        assert all(type(end) is float for end in interval)


def test_bootstrap_interval__depends_on_the_seed():
    ranked = draw(6)
    metric = RankedScores.mean_average_precision
    first = bootstrap_interval(ranked, metric, resamples=20, seed=1)
    assert first == bootstrap_interval(ranked, metric, resamples=20, seed=1)
    assert first != bootstrap_interval(ranked, metric, resamples=20, seed=2)
    assert first[0] < ranked.mean_average_precision() < first[1]


def test_bootstrap_interval__resamples_as_many_clips_with_replacement():
    seen = []

    def metric(ranked, weights):
        seen.append(weights)
        return NAN if len(seen) % 2 else 0.25

    # Half of the resamples are NaN and left out.
    assert bootstrap_interval(RANKED, metric, resamples=300) == (0.25, 0.25)
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
        bootstrap_interval(RANKED, RankedScores.mean_roc_auc, **{option: value})


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


def test_clip_scores__refuses_batches_that_do_not_match():
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
