"""Hold-outs: numbers of clips per class; draws depend on the seed."""

import numpy as np
import pytest

from eat_plugin.data.label_set import LabelSet
from eat_plugin.data.labels import ClipLabels
from eat_plugin.prepare.splits import hold_out, hold_out_by_class

CLASSES = LabelSet(tuple("abcd"))


def label(*clips: str) -> ClipLabels:
    return ClipLabels.from_ids(clips, CLASSES)


def test_hold_out__draws_the_given_fraction() -> None:
    held_out = hold_out(10, 0.3, seed=1)
    assert held_out.sum() == 3
    np.testing.assert_array_equal(held_out, hold_out(10, 0.3, seed=1))
    assert (held_out != hold_out(10, 0.3, seed=2)).any()
    assert hold_out(10, 0.001, seed=1).sum() == 1


def test_hold_out__refuses_to_hold_out_all() -> None:
    with pytest.raises(ValueError, match="--valid 0.5 leaves no clip to train on; clips: 1"):
        hold_out(1, 0.5, seed=1)


def test_hold_out_by_class__same_fraction_per_class() -> None:
    labels = label(*"aaaaaaaaaa" * 2, *"bbbbbbbbbb", *"cc", *"d")
    held_out = hold_out_by_class(labels, 0.2, seed=1)
    assert labels.select(np.flatnonzero(held_out)).counts().tolist() == [4, 2, 1, 0]
    np.testing.assert_array_equal(held_out, hold_out_by_class(labels, 0.2, seed=1))
    assert (held_out != hold_out_by_class(labels, 0.2, seed=2)).any()


def test_hold_out_by_class__keeps_a_training_clip_per_class() -> None:
    labels = label(*"aabbb")
    kept = labels.select(np.flatnonzero(~hold_out_by_class(labels, 0.99, seed=1)))
    assert kept.counts().tolist() == [1, 1, 0, 0]


def test_hold_out_by_class__every_clip_may_be_drawn() -> None:
    drawn = [hold_out_by_class(label(*"aaabbb"), 0.3, seed) for seed in range(50)]
    assert np.any(drawn, axis=0).all()
    assert np.sum(drawn, axis=1).tolist() == [2] * 50


def test_hold_out_by_class__draws_clips_with_their_rarest_class() -> None:
    # b is rarer, so 'ab' clips are in its stratum: half of it is held out, and half of 'a'.
    labels = label("ab", "ab", "a", "a", "a", "a")
    for seed in range(10):
        held_out = hold_out_by_class(labels, 0.5, seed)
        assert held_out[:2].sum() == 1
        assert held_out[2:].sum() == 2


def test_hold_out_by_class__keeps_a_class_that_occurs_with_rarer_ones() -> None:
    # d occurs only with a, b or c: all of its clips could be drawn.
    labels = label("ad", "a", "bd", "b", "cd", "c")
    for seed in range(30):
        held_out = hold_out_by_class(labels, 0.5, seed)
        assert labels.select(np.flatnonzero(~held_out)).counts().min() > 0


def test_hold_out_by_class__nothing_to_hold_out() -> None:
    with pytest.raises(ValueError, match="no class has two clips"):
        hold_out_by_class(label(*"abcd"), 0.5, seed=1)
