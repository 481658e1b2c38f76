"""Linear classifier, nearest neighbours, folds."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier

from eat_plugin.inference.simple_classifiers import (
    FOLDS,
    draw_folds,
    predict_linear,
    predict_neighbours,
    reduce_width,
    score_folds,
    standardise,
)


@pytest.fixture
def random():
    return np.random.default_rng(0)


def test_standardise__by_the_training_clips_alone():
    train, heldout = np.array([[0.0, 7], [4, 7]]), np.array([[10.0, 8]])
    own, other = standardise(train, heldout)
    assert own.tolist() == [[-1, 0], [1, 0]]
    assert other.tolist() == [[4, 0]]  # a component without information stays silent


def test_standardise__rounding_is_no_variation():
    train = np.float32([[0.1], [np.nextafter(np.float32(0.1), np.float32(1))]])
    assert standardise(train, train)[0].tolist() == [[0], [0]]


def test_reduce_width__keeps_dot_products_and_linear_scores(random):
    train, heldout = random.normal(size=(20, 60)), random.normal(size=(7, 60))
    classes = np.eye(3)[np.arange(20) % 3]
    own, other = reduce_width(train, heldout)
    assert own.shape == (20, 20)
    assert own @ own.T == pytest.approx(train @ train.T)
    assert other @ own.T == pytest.approx(heldout @ train.T)
    (before,) = predict_linear(train, classes, heldout, [0.01])
    (after,) = predict_linear(own, classes, other, [0.01])
    assert after == pytest.approx(before, abs=2e-3)


def test_reduce_width__of_equal_clips_has_fewer_dimensions(random):
    train = np.repeat(random.normal(size=(4, 30)), 3, axis=0)
    assert reduce_width(train, train)[0].shape == (12, 4)
    narrow = random.normal(size=(5, 5))
    assert reduce_width(narrow, narrow)[0] is narrow


def test_linear__one_class_each_is_logistic_regression(random):
    train, heldout = random.normal(size=(30, 4)), random.normal(size=(8, 4))
    classes = np.array([0, 2, 3])[np.arange(30) % 3]
    found = predict_linear(train, np.eye(4)[classes], heldout, [0.01, 1.0])
    for setting, scores in zip((0.01, 1.0), found):
        expected = LogisticRegression(C=setting).fit(train, classes).predict_proba(heldout)
        assert scores[:, [0, 2, 3]] == pytest.approx(expected, abs=2e-3)
        assert not scores[:, 1].any()  # no training clip has this class


def test_linear__several_classes_are_one_against_the_rest(random):
    train, heldout = random.normal(size=(30, 4)), random.normal(size=(8, 4))
    targets = (random.random((30, 4)) < 0.4).astype(float)
    targets[:, 2], targets[:, 3] = 0, 1
    (scores,) = predict_linear(train, targets, heldout, [0.1])
    model = OneVsRestClassifier(LogisticRegression(C=0.1)).fit(train, targets[:, :2])
    assert scores[:, :2] == pytest.approx(model.predict_proba(heldout), abs=2e-3)
    assert not scores[:, 2].any()
    assert (scores[:, 3] == 1).all()


def test_neighbours__by_hand():
    # Cosines of (1, 0) with the training clips: 1, 0.6, 0, -1. Lengths do not matter.
    train = np.array([[5.0, 0], [3, 4], [0, 2], [-1, 0]])
    targets = np.array([[1, 0, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1]])
    first, three, every = predict_neighbours(train, targets, np.array([[2.0, 0]]), [1, 3, 9])
    assert first == pytest.approx(np.array([[1.0, 0, 0]]))
    assert three == pytest.approx(np.array([[2.0, 1.6 + 1, 1]]) / 4.6)
    assert every == pytest.approx(three)  # the opposite has no weight


def test_neighbours__a_vector_of_zeros_is_like_all(random):
    train = np.eye(2)
    (scores,) = predict_neighbours(train, np.eye(2), np.zeros((1, 2)), [2])
    assert scores.tolist() == [[0.5, 0.5]]


def test_folds__each_class_is_dealt_evenly():
    classes = np.array([0] * 25 + [1] * 10 + [2] * 5)
    targets = np.eye(3)[classes]
    folds = draw_folds(targets, seed=0)
    for number in range(FOLDS):
        assert np.bincount(classes[folds == number]).tolist() == [5, 2, 1]
    assert np.array_equal(folds, draw_folds(targets, seed=0))
    assert not np.array_equal(folds, draw_folds(targets, seed=1))
    # With several classes, the rarest counts.
    several = np.maximum(targets, np.eye(3)[np.zeros(40, dtype=int)])
    folds = draw_folds(several, seed=0)
    assert [np.bincount(classes[folds == n])[2] for n in range(FOLDS)] == [1] * FOLDS


def test_score_folds__no_clip_is_scored_by_one_that_saw_it():
    clips = np.arange(10.0)[:, None]
    folds = np.arange(10) % FOLDS

    def predict(train, targets, heldout, settings):
        assert not set(train[:, 0]) & set(heldout[:, 0])
        assert np.array_equal(train, targets)
        assert len(train) == 8
        return [heldout * setting for setting in settings]

    found = score_folds(predict, (1, 2), clips, clips, folds)
    assert found.tolist() == [clips.tolist(), (2 * clips).tolist()]
