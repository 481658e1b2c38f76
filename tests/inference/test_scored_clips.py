"""Paired comparison of evaluations, on hand-made scores."""

import numpy as np
import pytest

from eat_plugin.inference.scored_clips import (
    FILE,
    ScoredClips,
    compare_paired,
    match_clips,
    read_scored,
    write_scored,
)

LABELS = np.array(["dog", "rain"])


def scored(right, names=None, labels=LABELS):
    """Clips of alternating classes; ``right`` says which are classified correctly."""
    count = len(right)
    classes = np.arange(count) % 2
    targets = np.eye(2)[classes] == 1
    scores = np.eye(2)[np.where(right, classes, 1 - classes)].astype(np.float32)
    names = np.array(names or [f"{number:03d}.wav" for number in range(count)])
    return ScoredClips(names, labels, scores, targets)


def accuracy_of(first, second):
    return next(iter(compare_paired(first, second, resamples=500)))


def test_compare_paired__calls_a_difference_real_or_not():
    first = [number >= 40 for number in range(100)]
    few = accuracy_of(scored(first), scored([True, *first[1:]]))  # one clip better
    assert (few.metric, few.first, few.second) == ("accuracy", 0.6, 0.61)
    assert few.difference.value == pytest.approx(0.01)
    assert few.difference.low == 0 < few.difference.high
    assert not few.is_real
    many = accuracy_of(scored(first), scored([True] * 20 + first[20:]))
    assert many.is_real
    assert many.difference.low > 0.1
    worse = accuracy_of(scored([True] * 20 + first[20:]), scored(first))
    assert worse.is_real
    assert worse.difference.high < -0.1


def test_compare_paired__resamples_the_same_clips_for_both():
    # Unpaired, an accuracy of 0.5 on 40 clips has an interval of 0.3; these do not differ.
    same = accuracy_of(scored([True, False] * 20), scored([True, False] * 20))
    assert same.difference == (0, 0, 0)
    assert not same.is_real


def test_compare_paired__also_of_map():
    metrics = [one.metric for one in compare_paired(scored([True] * 4), scored([True] * 4), 100)]
    assert metrics == ["accuracy", "mAP"]
    several = scored([True] * 4)._replace(targets=np.ones((4, 2), dtype=bool))
    assert [one.metric for one in compare_paired(several, several, 100)] == ["mAP"]


def test_match_clips__takes_what_both_have():
    first = scored([True, False, True, True], ["a.wav", "b.wav", "c.wav", "d.wav"])
    second = scored([True, True, True, True], ["d.wav", "x.wav", "y.wav", "b.wav"])
    second = second._replace(targets=second.targets.copy(), labels=LABELS[::-1])
    second.targets[[0, 3]] = first.targets[[3, 1]][:, ::-1]
    one, two = match_clips(first, second)
    assert one.names.tolist() == two.names.tolist() == ["b.wav", "d.wav"]
    assert two.labels.tolist() == LABELS.tolist()
    assert np.array_equal(one.scores, first.scores[[1, 3]])
    assert np.array_equal(two.scores, second.scores[[3, 0]][:, ::-1])


def test_match_clips__by_file_name_in_other_folders_and_formats():
    first = scored([True] * 2, ["one/a.wav", "one/b.wav"])
    second = scored([True] * 2, ["a.flac", "b.flac"])
    assert match_clips(first, second)[1].names.tolist() == ["a.flac", "b.flac"]
    twice = scored([True] * 2, ["dog/a.flac", "cat/a.flac"])
    with pytest.raises(ValueError, match="have no clip in common"):
        match_clips(first, twice)


def test_match_clips__refuses_other_labels():
    first = scored([True] * 2)
    other = first._replace(targets=first.targets[::-1])
    with pytest.raises(ValueError, match="2 clips have other labels .* for example '000.wav'"):
        match_clips(first, other)
    with pytest.raises(ValueError, match="have other classes"):
        match_clips(first, first._replace(labels=np.array(["dog", "cat"])))


def test_scored_clips__round_trip_and_damage(tmp_path):
    clips = scored([True, False, True], ["ä b.wav", "c", "d"])
    write_scored(tmp_path / FILE, clips)
    for one, two in zip(clips, read_scored(tmp_path)):
        assert np.array_equal(one, two)
    write_scored(tmp_path / FILE, clips._replace(names=clips.names[:2]))
    with pytest.raises(ValueError, match="its arrays do not fit each other"):
        read_scored(tmp_path)
    np.savez(tmp_path / FILE, names=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match=r"clips.npz is damaged, or was not written by eat evalu"):
        read_scored(tmp_path)
    with pytest.raises(ValueError, match=r"has no clips.npz: evaluate again"):
        read_scored(tmp_path / "none")
