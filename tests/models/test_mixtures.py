"""Mixtures of a batch: where clips are mixed, by hand and as published, and with what."""

from collections import Counter

import pytest
import torch

from eat_plugin.models.mixtures import draw_mixing, mix, place_mixed, seeds_of_mixtures

PUBLISHED = 34 / 64
LAST = 1 - 2**-53  # the largest draw
CPU = torch.device("cpu")


def regions_of(columns):
    """First and last unmixed column of each run of them."""
    unmixed = (~columns).nonzero().squeeze(1).tolist()
    ends = [n for n in unmixed if n + 1 not in unmixed]
    starts = [n for n in unmixed if n - 1 not in unmixed]
    return list(zip(starts, ends))


def place(number, share, draws):
    (columns,) = place_mixed(torch.tensor([number]), number, share, draws)
    return columns


@pytest.mark.parametrize(
    ("draws", "regions"),
    [
        ((0.0, 0.0), [(0, 29)]),  # the second begins where the first ends
        ((0.0, LAST), [(0, 14), (48, 62)]),  # frame 768 is the last start: 783 is excluded
        ((LAST, 0.0), [(31, 60)]),  # frame 496 is the last start up to 500
        ((LAST, LAST), [(31, 45), (48, 62)]),
        ((0.5, 0.5), [(16, 30), (40, 54)]),  # 16 of 0..31; 31 + 9 of 31..48
    ],
)
def test_place_mixed__published_regions(draws, regions):
    columns = place(64, PUBLISHED, draws)
    assert int(columns.sum()) == 34  # of 64
    assert regions_of(columns) == regions


@pytest.mark.parametrize(
    ("number", "share", "draws", "mixed"),
    [
        # Widths 2 and 2; starts 0..3, then up to 6: the first at 2, the second at 4 + 1.
        (8, 0.5, (0.5, 0.5), [0, 1, 4, 7]),
        # Widths 1 and 2; starts 0..2, then up to 3.
        (5, 0.4, (LAST, 0.0), [0, 1]),
        (5, 0.4, (0.0, LAST), [1, 2]),
        (4, 0.0, (LAST, LAST), []),
        (4, 1.0, (0.3, 0.7), [0, 1, 2, 3]),
        (1, PUBLISHED, (0.3, 0.7), [0]),
    ],
)
def test_place_mixed__small_grids_by_hand(number, share, draws, mixed):
    assert place(number, share, draws).nonzero().squeeze(1).tolist() == mixed


def test_place_mixed__each_clip_by_its_own_length():
    columns = place_mixed(torch.tensor([8, 5, 4]), 8, 0.5, (0.5, 0.5))
    for own, number in zip(columns, (8, 5, 4)):
        assert torch.equal(own[:number], place(number, 0.5, (0.5, 0.5)))
        assert not own[number:].any()


def test_draw_mixing__draws_all_published_starts():
    found = [draw_mixing((64, 8), 12, None, PUBLISHED, seed, CPU) for seed in range(1500)]
    firsts, seconds = Counter(), Counter()
    for mixing in found:
        unmixed = (~mixing.columns[0]).nonzero().squeeze(1).tolist()
        firsts[unmixed[0]] += 1
        seconds[unmixed[15]] += 1
    assert sorted(firsts) == list(range(32))
    assert sorted(seconds) == list(range(15, 49))
    assert max(firsts.values()) < 100  # uniform: 47 each
    assert len(found[0].kept) == 34 * 8


def test_draw_mixing__depends_on_the_seed_alone():
    first, again, other = (draw_mixing((64, 2), 3, None, 0.5, seed, CPU) for seed in (5, 5, 6))
    assert torch.equal(first.columns, again.columns)
    assert not torch.equal(first.columns, other.columns)
    clip_seeds = draw_mixing((64, 2), 3, None, 0.5, [5, 8, 9], CPU)
    assert torch.equal(first.columns, clip_seeds.columns)
    without = []
    for _ in range(2):
        torch.manual_seed(3)  # fairseq seeds PyTorch's generator in each update
        without.append(draw_mixing((64, 2), 3, None, 0.5, None, CPU).columns)
    assert torch.equal(*without)


def test_draw_mixing__kept_are_the_patches_of_mixed_columns():
    mixing = draw_mixing((8, 2), 2, None, 0.5, 1, CPU)
    columns = mixing.columns[0].nonzero().squeeze(1).tolist()
    assert len(columns) == 4
    assert mixing.kept.tolist() == [2 * n + band for n in columns for band in range(2)]


def test_draw_mixing__a_single_clip_is_not_mixed():
    padding = torch.zeros(1, 16, dtype=torch.bool)
    for given in (None, padding):
        mixing = draw_mixing((8, 2), 1, given, 1.0, 1, CPU)
        assert not mixing.columns.any()
        assert len(mixing.kept) == 0


def test_draw_mixing__of_other_lengths_only_where_both_have_sound():
    lengths = torch.tensor([8, 3, 6])
    padding = (torch.arange(8) >= lengths.unsqueeze(1)).repeat_interleave(2, dim=1)
    mixing = draw_mixing((8, 2), 3, padding, 1.0, 1, CPU)
    # Clip 0 with the last one, 1 with 0, 2 with 1.
    assert mixing.columns.sum(dim=1).tolist() == [6, 3, 3]
    assert mixing.columns.tolist() == [[n < most for n in range(8)] for most in (6, 3, 3)]
    assert mixing.kept is None


def test_mix__takes_the_larger_value_by_hand():
    source = torch.tensor([[1.0, 5.0, 2.0, 7.0], [3.0, 4.0, 0.0, 9.0], [-1.0, 6.0, 8.0, -2.0]])
    source = source.view(3, 1, 4, 1)
    columns = torch.tensor([[True, False]])  # of two frames each
    expected = [[1.0, 6.0, 2.0, 7.0], [3.0, 5.0, 0.0, 9.0], [3.0, 6.0, 8.0, -2.0]]
    assert mix(source, columns).view(3, 4).tolist() == expected
    own = torch.tensor([[False, True], [True, True], [False, False]])
    expected = [[1.0, 5.0, 8.0, 7.0], [3.0, 5.0, 2.0, 9.0], [-1.0, 6.0, 8.0, -2.0]]
    assert mix(source, own).view(3, 4).tolist() == expected


def test_seeds_of_mixtures__are_of_clips_then_mixtures():
    assert seeds_of_mixtures(7) == 7
    assert seeds_of_mixtures(None) is None
    seeds = seeds_of_mixtures([5, 8])
    assert seeds[:2] == [5, 8]
    assert len(set(seeds)) == 4
