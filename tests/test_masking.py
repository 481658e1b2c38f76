"""Masks: exact counts, the published distribution, and refusals.

The statistical test: of M masks from a fixed seed, the share that keeps a patch (or a pair of
neighbours, or the number of connected components) is compared with the published figure by its
z-score. The masks of a call are independent draws, so the standard error of a mean of M values is
std / sqrt(M), and that of the difference of two samples adds both in squares. A true match exceeds
4.5 standard errors anywhere in 512 patches with probability below 0.4 %, and the seed is fixed.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from eat_plugin import masking
from eat_plugin.masking import STRATEGIES, MaskSpec, draw_masks, join_masks

GOLDEN = Path(__file__).parent / "golden" / "masks.npz"
NUM_MASKS = 4000
LIMIT = 4.5


def count_components(kept):
    """Connected components (4 neighbours) of a [rows, columns] grid, by flood fill."""
    left = {tuple(place) for place in np.argwhere(kept)}
    count = 0
    while left:
        count += 1
        stack = [left.pop()]
        while stack:
            row, column = stack.pop()
            for down, right in ((1, 0), (-1, 0), (0, 1), (0, -1)):
                place = (row + down, column + right)
                if place in left:
                    left.remove(place)
                    stack.append(place)
    return count


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(("grid", "mask_prob"), [((64, 8), 0.8), ((64, 8), 0.75), ((13, 8), 0.5)])
def test_draw_masks__hides_exactly_the_same_number(strategy, grid, mask_prob):
    spec = MaskSpec(grid, mask_prob, 0.07, 5, strategy)
    masks = draw_masks(spec, 64, torch.Generator().manual_seed(0))
    num_patches = grid[0] * grid[1]
    hidden = int(num_patches * mask_prob)
    if strategy != "block":
        hidden = num_patches - int(num_patches * (1 - mask_prob))
    assert masks.dtype == torch.uint8
    assert masks.shape == (64, num_patches)
    assert masks.sum(dim=1).tolist() == [hidden] * 64
    assert spec.num_visible == num_patches - hidden


def test_mask_spec__keeps_the_published_number_of_patches():
    assert MaskSpec((64, 8), 0.8).num_visible == 102
    assert MaskSpec((64, 8), 0.75, 0.1).num_visible == 128
    assert MaskSpec((16, 8), 0.8).num_visible == 25


@pytest.mark.parametrize(
    ("name", "strategy"),
    [("base", "inverse_block"), ("large", "inverse_block"), ("tiny", "inverse_block")],
)
def test_inverse_block__has_the_published_distribution(name, strategy):
    golden = np.load(GOLDEN)
    rows, columns, prob, adjust, length, _, num_published = golden[f"{name}_params"]
    spec = MaskSpec((int(rows), int(columns)), prob, adjust, int(length), strategy)
    masks = draw_masks(spec, NUM_MASKS, torch.Generator().manual_seed(1))
    kept = 1 - masks.numpy().reshape(-1, *spec.grid).astype(np.float64)
    parts = 1 / NUM_MASKS + 1 / num_published

    share = golden[f"{name}_keep_prob_map"]
    z = (kept.mean(axis=0) - share) / np.sqrt(share * (1 - share) * parts)
    assert np.abs(z).max() < LIMIT

    in_time = (kept[:, 1:] * kept[:, :-1]).mean((1, 2))
    in_frequency = (kept[:, :, 1:] * kept[:, :, :-1]).mean((1, 2))
    for values, expected in zip((in_time, in_frequency), golden[f"{name}_pair_time_freq"]):
        assert abs(values.mean() - expected) < LIMIT * values.std() * np.sqrt(parts)

    components = np.array([count_components(grid) for grid in kept])
    expected, deviation = golden[f"{name}_cc4_mean_std"]
    assert abs(components.mean() - expected) < LIMIT * deviation * np.sqrt(parts)
    assert components.std() == pytest.approx(deviation, rel=0.06)


def test_flexible__has_the_published_distribution():
    # One shape per call of K masks: calls, not masks, are independent.
    golden = np.load(GOLDEN)
    rows, columns, prob, adjust, length, _, num_published = golden["base_flex_params"]
    spec = MaskSpec((int(rows), int(columns)), prob, adjust, int(length), "flexible")
    generator = torch.Generator().manual_seed(1)
    masks = torch.cat([draw_masks(spec, 1, generator) for _ in range(NUM_MASKS)])
    kept = 1 - masks.numpy().reshape(-1, *spec.grid).astype(np.float64)
    clones = 16  # masks of a published call
    parts = 1 / NUM_MASKS + clones / num_published
    for axis, expected in zip((1, 2), golden["base_flex_pair_time_freq"]):
        values = np.take(kept, range(1, kept.shape[axis]), axis)
        values = (values * np.take(kept, range(kept.shape[axis] - 1), axis)).mean((1, 2))
        assert abs(values.mean() - expected) < LIMIT * values.std() * np.sqrt(parts)
    components = np.array([count_components(grid) for grid in kept])
    expected, deviation = golden["base_flex_cc4_mean_std"]
    assert abs(components.mean() - expected) < LIMIT * deviation * np.sqrt(parts)


def test_random__is_uniform():
    spec = MaskSpec((16, 8), 0.8, strategy="random")
    kept = 1 - draw_masks(spec, NUM_MASKS, torch.Generator().manual_seed(2)).double()
    share = spec.num_visible / spec.num_patches
    z = (kept.mean(dim=0) - share) / np.sqrt(share * (1 - share) / NUM_MASKS)
    assert z.abs().max() < LIMIT
    pairs = kept.view(-1, 16, 8)
    pairs = (pairs[:, 1:] * pairs[:, :-1]).mean()
    assert pairs.item() == pytest.approx(share * (spec.num_visible - 1) / 127, rel=0.02)


def test_block__hides_blocks():
    generator = torch.Generator().manual_seed(3)
    blocks = draw_masks(MaskSpec((64, 8), 0.3, 0.0, 5, "block"), 200, generator)
    random = draw_masks(MaskSpec((64, 8), 0.3, 0.0, 1, "random"), 200, generator)

    def neighbours(masks):
        grid = masks.view(-1, 64, 8).double()
        return (grid[:, 1:] * grid[:, :-1]).mean().item()

    assert neighbours(blocks) > 1.8 * neighbours(random)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_draw_masks__depends_on_the_generator_alone(strategy):
    spec = MaskSpec((16, 8), strategy=strategy)
    first = draw_masks(spec, 4, torch.Generator().manual_seed(7))
    torch.rand(5)
    again = draw_masks(spec, 4, torch.Generator().manual_seed(7))
    other = draw_masks(spec, 4, torch.Generator().manual_seed(8))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_draw_masks__equal_scores_change_no_count(strategy, monkeypatch):
    spec = MaskSpec((64, 8), 0.8, 0.07, 5, strategy)
    draw = torch.rand
    monkeypatch.setattr(torch, "rand", lambda *size, **options: draw(*size, **options).round())
    masks = draw_masks(spec, 50, torch.Generator().manual_seed(3))
    assert (masks == 0).sum(dim=1).tolist() == [spec.num_visible] * 50


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask_prob": 0.999}, "keeps 0 of the 512 patches"),
        ({"mask_prob": 1.0}, "mask_prob is 1.0; it must lie between 0 and 1"),
        ({"mask_prob": 0.0}, "mask_prob is 0.0"),
        ({"mask_length": 0}, "mask_length is 0"),
        ({"strategy": "spiral"}, "'spiral'; choose one of inverse_block, block, random, flexible"),
    ],
)
def test_mask_spec__refuses_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        MaskSpec((64, 8), **options)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_resized__keeps_the_ratio(strategy):
    spec = MaskSpec((64, 8), 0.8, strategy=strategy)
    for columns in (1, 2, 7, 63, 64, 750):
        own = spec.resized(columns)
        masks = draw_masks(own, 4, torch.Generator().manual_seed(columns))
        assert masks.shape == (4, 8 * columns)
        assert (masks == 0).sum(dim=1).tolist() == [own.num_visible] * 4
        assert own.num_visible == pytest.approx(0.2 * 8 * columns, abs=1)
    assert spec.resized(64) == spec
    with pytest.raises(ValueError, match="keeps 0 of the 8 patches of a 1x8 grid"):
        MaskSpec((64, 8), 0.9).resized(1)


def test_join_masks__padding_is_hidden():
    joined = join_masks([torch.zeros(2, 3, dtype=torch.uint8), torch.zeros(2, 1)])
    assert joined.tolist() == [[0, 0, 0], [0, 0, 0], [0, 1, 1], [0, 1, 1]]


FEW_BANDS = [(32, 1), (256, 1), (3, 1), (26, 2), (16, 4), (128, 4)]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("grid", FEW_BANDS)
def test_few_bands__same_number_of_visible_patches(strategy, grid):
    spec = MaskSpec(grid, 0.6, 0.07, 5, strategy)
    masks = draw_masks(spec, 64, torch.Generator().manual_seed(0))
    assert masks.shape == (64, grid[0] * grid[1])
    assert (masks == 0).sum(dim=1).tolist() == [spec.num_visible] * 64
    num_patches = grid[0] * grid[1]
    hidden = int(num_patches * 0.6)
    kept = num_patches - hidden if strategy == "block" else int(num_patches * (1 - 0.6))
    assert spec.num_visible == kept


@pytest.mark.parametrize(
    ("grid", "size", "blocks"),
    [
        ((256, 1), (5, 5), 13),  # 256 * 0.27 / 5
        ((128, 4), (5, 5), 6),  # 512 * 0.27 / (5 * 4)
        ((3, 100), (5, 5), 5),  # 300 * 0.27 / (3 * 5)
        ((64, 8), (5, 5), 5),  # as published: 512 * 0.27 / 25
        ((5, 5), (5, 5), 0),
        ((256, 1), (8, 3), 8),  # 256 * 0.27 / 8
        ((128, 4), (8, 3), 5),
    ],
)
def test_cover__counts_blocks_by_the_area_that_fits(monkeypatch, grid, size, blocks):
    drawn, draw = [], torch.randint

    def record(high, shape, **options):
        drawn.append(shape)
        return draw(high, shape, **options)

    monkeypatch.setattr(torch, "randint", record)
    masking._cover_blocks(MaskSpec(grid, 0.8, 0.07), 3, None, size, 0.2)
    assert drawn == [(3, blocks)]


@pytest.mark.parametrize("length", [2, 5, 9])
@pytest.mark.parametrize("strategy", ["inverse_block", "flexible"])
def test_few_bands__keeps_blocks_along_time(strategy, length):
    # Without blocks a neighbour of a kept patch is kept as often as any other, in 20 of 100 cases.
    spec = MaskSpec((256, 1), 0.8, 0.07, length, strategy)
    kept = 1 - draw_masks(spec, 200, torch.Generator().manual_seed(1)).double()
    pairs = (kept[:, 1:] * kept[:, :-1]).mean() / kept.mean()
    assert pairs > (0.4 if length == 2 and strategy == "inverse_block" else 0.6)


def test_few_bands__blocks_cover_about_the_share():
    # 13 blocks of 5 of 256 patches, overlapping: 1 - (1 - 5/256)^13 = 0.226 of them, less at the
    # border. A count by 25 patches a block gives 2 blocks, 0.039.
    spec = MaskSpec((256, 1), 0.8, 0.07, 5)
    generator = torch.Generator().manual_seed(2)
    cover = masking._cover_blocks(spec, 2000, generator, (5, 5), 0.2)
    assert cover.mean() == pytest.approx(0.226, abs=0.005)


def test_few_bands__clips_of_their_own_length():
    for columns in (2, 4, 5, 10, 31, 256):
        spec = MaskSpec((256, 1), 0.5, 0.07, 5).resized(columns)
        masks = draw_masks(spec, 8, torch.Generator().manual_seed(0))
        assert masks.shape == (8, columns)
        assert (masks == 0).sum(dim=1).tolist() == [int(columns * 0.5)] * 8


@pytest.mark.parametrize("size", masking.FLEXIBLE_BLOCKS)
def test_few_bands__a_block_always_has_its_centre(size):
    # Nine is more than a side of the blocks: they would end before their centre.
    spec = MaskSpec((64, 1), 0.8, 0.07, 9)
    cover = masking._cover_blocks(spec, 50, torch.Generator().manual_seed(3), size, 0.2)
    assert cover.any(axis=1).all()
