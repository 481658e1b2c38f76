"""Hold-outs: how many clips of what class, and that the seed decides which."""

import numpy as np
import pytest

from eat_plugin.data.label_set import LabelSet
from eat_plugin.data.labels import ClipLabels
from eat_plugin.prepare.splits import hold_out, hold_out_by_class

CLASSES = LabelSet(tuple("abcd"))


def label(*clips: str) -> ClipLabels:
    return ClipLabels.from_ids(clips, CLASSES)


def test_hold_out__draws_the_number_asked_for() -> None:
    held_out = hold_out(10, 0.3, seed=1)
    assert held_out.sum() == 3
    np.testing.assert_array_equal(held_out, hold_out(10, 0.3, seed=1))
    assert (held_out != hold_out(10, 0.3, seed=2)).any()
    assert hold_out(10, 0.001, seed=1).sum() == 1


def test_hold_out__refuses_to_take_all() -> None:
    with pytest.raises(ValueError, match=r"--valid 0.5 of 1 clips leaves none to train on"):
        hold_out(1, 0.5, seed=1)


def test_hold_out_by_class__the_same_part_of_each() -> None:
    labels = label(*"aaaaaaaaaa" * 2, *"bbbbbbbbbb", *"cc", *"d")
    held_out = hold_out_by_class(labels, 0.2, seed=1)
    assert labels.select(np.flatnonzero(held_out)).counts().tolist() == [4, 2, 1, 0]
    np.testing.assert_array_equal(held_out, hold_out_by_class(labels, 0.2, seed=1))
    assert (held_out != hold_out_by_class(labels, 0.2, seed=2)).any()


def test_hold_out_by_class__keeps_a_clip_of_each_to_train_on() -> None:
    labels = label(*"aabbb")
    kept = labels.select(np.flatnonzero(~hold_out_by_class(labels, 0.99, seed=1)))
    assert kept.counts().tolist() == [1, 1, 0, 0]


def test_hold_out_by_class__every_clip_may_be_drawn() -> None:
    drawn = [hold_out_by_class(label(*"aaabbb"), 0.3, seed) for seed in range(50)]
    assert np.any(drawn, axis=0).all()
    assert np.sum(drawn, axis=1).tolist() == [2] * 50


def test_hold_out_by_class__several_labels_count_for_the_rarest() -> None:
    # b is rarer: 'ab' clips are of its stratum, of which a half is held out; so of 'a' alone.
    labels = label("ab", "ab", "a", "a", "a", "a")
    for seed in range(10):
        held_out = hold_out_by_class(labels, 0.5, seed)
        assert held_out[:2].sum() == 1
        assert held_out[2:].sum() == 2


def test_hold_out_by_class__a_class_within_rarer_ones_is_not_lost() -> None:
    # d is only ever beside a, b or c: with bad luck all of its clips would be held out.
    labels = label("ad", "a", "bd", "b", "cd", "c")
    for seed in range(30):
        held_out = hold_out_by_class(labels, 0.5, seed)
        assert labels.select(np.flatnonzero(~held_out)).counts().min() > 0


def test_hold_out_by_class__nothing_to_hold_out() -> None:
    with pytest.raises(ValueError, match="no class has two clips"):
        hold_out_by_class(label(*"abcd"), 0.5, seed=1)
