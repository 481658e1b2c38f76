"""The probe: what is chosen on what, metrics, comparisons."""

import numpy as np
import pytest

from eat_plugin.inference.clip_vectors import BASELINE, MODEL, RANDOM, Kind
from eat_plugin.inference.probing import (
    KNN,
    LINEAR,
    Judge,
    Split,
    check_targets,
    mark_chosen,
    probe_vectors,
    stack_vectors,
)
from eat_plugin.metrics import bootstrap_interval
from eat_plugin.ranking import RankedScores

PLANTED, NOISE = Kind(MODEL, "mean"), Kind(BASELINE, "mean, deviation")


def make_split(seed, count=40, width=6, strength=(3.0, 0.0)):
    """Two classes: the model's layers hold the class with the given strengths, the noise none."""
    random = np.random.default_rng(seed)
    classes = np.arange(count) % 2
    x = random.normal(size=(count, len(strength), width))
    x[:, :, 0] += np.outer(2 * classes - 1, strength)
    return Split({PLANTED: x, NOISE: random.normal(size=(count, 1, width))}, np.eye(2)[classes])


def run(train, heldout, layers=(1, 2), resamples=0):
    judge = Judge.choose(train, heldout, resamples, seed=0)
    return list(probe_vectors(train, heldout, list(layers), judge)), judge


def test_probe__finds_what_is_planted_and_nothing_in_noise():
    rows, judge = run(make_split(0), make_split(1), resamples=200)
    assert judge.metric == "accuracy"
    assert [(row.kind, row.layer, row.width) for row in rows] == [
        (PLANTED, 1, 6), (PLANTED, 2, 6), (NOISE, None, 6),
    ]  # fmt: skip
    for method in (LINEAR, KNN):
        best, empty, noise = (row.outcomes[method] for row in rows)
        assert best.heldout.value > 0.9
        assert best.cv > 0.9
        for other in (empty, noise):
            assert 0.2 < other.heldout.value < 0.75
            assert other.heldout.low < other.heldout.value < other.heldout.high


def test_probe__chooses_on_the_training_split_alone():
    # The layer that is good in training is bad on the held-out split, and the other way round.
    rows, _ = run(make_split(0, strength=(3.0, 0.0)), make_split(1, strength=(0.0, 3.0)))
    chosen = mark_chosen(rows)
    assert [row.outcomes[LINEAR].is_chosen for row in rows] == [True, False, True]
    assert chosen[MODEL, LINEAR] is rows[0].outcomes[LINEAR]
    assert chosen.keys() == {(MODEL, LINEAR), (MODEL, KNN), (BASELINE, LINEAR), (BASELINE, KNN)}
    # Nor does the held-out split change any choice.
    others, _ = run(make_split(0, strength=(3.0, 0.0)), make_split(7, strength=(3.0, 3.0)))
    for row, other in zip(rows, others):
        for method, outcome in row.outcomes.items():
            assert outcome.setting == other.outcomes[method].setting
            assert outcome.cv == other.outcomes[method].cv


def test_probe__its_scores_are_those_of_the_chosen_setting():
    train, heldout = make_split(0), make_split(1)
    rows, _ = run(train, heldout, resamples=50)
    outcome = rows[0].outcomes[LINEAR]
    ranked = RankedScores(outcome.scores, heldout.targets)
    assert outcome.heldout.value == ranked.accuracy()
    ends = bootstrap_interval(ranked, RankedScores.accuracy, 50, seed=0, level=0.95)
    assert (outcome.heldout.low, outcome.heldout.high) == ends
    without = Judge(True, 0, 0).judge(outcome.scores, heldout.targets)
    assert without.value == outcome.heldout.value
    assert np.isnan([without.low, without.high]).all()


def test_probe__several_labels_are_judged_by_map():
    train, heldout = make_split(0), make_split(1)
    train.targets[0] = 1
    rows, judge = run(train, heldout)
    assert judge.metric == "mAP"
    outcome = rows[0].outcomes[LINEAR]
    ranked = RankedScores(outcome.scores, heldout.targets)
    assert outcome.heldout.value == pytest.approx(ranked.mean_average_precision())
    assert outcome.heldout.value > 0.9
    assert 0.3 < rows[2].outcomes[LINEAR].heldout.value < 0.8


def test_compare__is_paired():
    targets = np.eye(2)[np.arange(20) % 2]
    wrong = targets.copy()
    wrong[:4] = 1 - wrong[:4]
    judge = Judge(True, 500, 0)
    same = judge.compare(wrong, wrong, targets)
    assert tuple(same) == (0, 0, 0)
    better = judge.compare(targets, wrong, targets)
    assert better.value == pytest.approx(0.2)
    assert 0 < better.low < 0.2 < better.high < 0.5
    assert judge.compare(wrong, targets, targets).value == pytest.approx(-0.2)
    assert Judge(True, 0, 0).compare(targets, wrong, targets).value == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (np.eye(2)[[0, 1, 0, 1]], "has 4 usable clips; 5 at least are needed"),
        (np.eye(2)[[1] * 8], "all clips of the training split have the same label"),
        (np.ones((8, 2)), "all clips of the training split have the same label"),
    ],
)
def test_check_targets__refuses_what_nothing_can_be_learnt_from(targets, message):
    with pytest.raises(ValueError, match=message):
        check_targets(targets)
    train = Split({NOISE: np.zeros((len(targets), 1, 2))}, targets)
    with pytest.raises(ValueError, match=message):
        run(train, train)


def test_stack_vectors__keeps_the_order_of_clips():
    kind = Kind(RANDOM, "mean")
    stacked = stack_vectors({kind: np.full((1, 3), number)} for number in range(4))
    assert stacked[kind].shape == (4, 1, 3)
    assert stacked[kind][:, 0, 0].tolist() == [0, 1, 2, 3]
