"""Patches: order of tokens, positions, indices."""

import copy
import math

import pytest
import torch

from eat_plugin.modules.patch_split import flat_indices, pick_tokens, split_mask
from eat_plugin.modules.patches import (
    FixedPositions,
    PatchEmbedding,
    blank_padding,
    patchify,
    sincos_positions,
    unpatchify,
)
from tests.versions import half_on_cpu


def test_patch_embedding__tokens_are_in_time_major_order():
    embed = PatchEmbedding(1, 2, 1)
    torch.nn.init.constant_(embed.proj.weight, 0.25)
    torch.nn.init.zeros_(embed.proj.bias)
    source = torch.zeros(1, 1, 4, 6)  # grid of 2 time steps x 3 bands
    source[0, 0, 0:2, 4:6] = 1  # time step 0, band 2
    source[0, 0, 2:4, 0:2] = 2  # time step 1, band 0
    assert embed(source)[0, :, 0].tolist() == pytest.approx([0, 0, 1, 2, 0, 0])


def test_patchify__values_are_in_row_column_channel_order():
    source = torch.arange(2 * 4 * 4.0).view(1, 2, 4, 4)
    patches = patchify(source, 2)
    assert patches.shape == (1, 4, 8)
    # Patch 1 (row 0, column 1): pixels (0,2) (0,3) (1,2) (1,3), both channels of each in turn.
    assert patches[0, 1].tolist() == [2, 18, 3, 19, 6, 22, 7, 23]


def test_unpatchify__undoes_patchify():
    source = torch.randn(2, 3, 8, 12)
    assert torch.equal(unpatchify(patchify(source, 4), (2, 3), 4), source)


def test_patchify__has_the_patches_of_the_embedding():
    source = torch.randn(2, 3, 8, 8)
    embed = PatchEmbedding(3, 4, 5)
    weight = embed.proj.weight.permute(0, 2, 3, 1).reshape(5, -1)
    expected = patchify(source, 4) @ weight.T + embed.proj.bias
    assert torch.allclose(embed(source), expected, atol=1e-5)


def test_sincos_positions__by_hand():
    table = sincos_positions(3, 2, 8)
    row = table[2 * 2 + 1]  # time step 2, band 1
    rates = (1.0, 10000**-0.5)
    expected = [
        *(math.sin(1 * rate) for rate in rates),
        *(math.cos(1 * rate) for rate in rates),
        *(math.sin(2 * rate) for rate in rates),
        *(math.cos(2 * rate) for rate in rates),
    ]
    assert row.tolist() == pytest.approx(expected, abs=1e-6)


def test_fixed_positions__refuses_a_longer_input():
    positions = FixedPositions(4, 2, 8, "grid")
    assert positions(6).shape == (1, 6, 8)
    assert not positions.positions.requires_grad
    with pytest.raises(ValueError, match=r"9 patches, the table .* has 8; raise .*max_length"):
        positions(9)


def test_split_mask__gives_ascending_indices():
    mask = torch.tensor([[1, 0, 1, 0], [0, 0, 1, 1]], dtype=torch.uint8)
    for num_visible in (None, 2):
        visible, hidden = split_mask(mask, num_visible)
        assert visible.tolist() == [[1, 3], [0, 1]]
        assert hidden.tolist() == [[0, 2], [2, 3]]


def test_split_mask__refuses_unequal_masks():
    with pytest.raises(ValueError, match=r"between 1 and 2 patches"):
        split_mask(torch.tensor([[1, 0, 1], [0, 0, 1]]))


def test_pick_tokens__clones_share_a_sequence():
    tokens = torch.arange(2 * 3.0).view(2, 3, 1)
    indices = torch.tensor([[0, 2], [1, 2], [0, 1], [2, 0]])
    assert flat_indices(indices, 3, clones=2).tolist() == [0, 2, 1, 2, 3, 4, 5, 3]
    picked = pick_tokens(tokens, indices, clones=2)
    assert picked[..., 0].tolist() == [[0, 2], [1, 2], [3, 4], [5, 3]]


def test_two_sides__embedding_of_whole_frames_by_hand():
    embed = PatchEmbedding(1, (4, 128), 2).double()
    assert embed.proj.weight.shape == (2, 1, 4, 128)
    source = torch.randn(2, 1, 12, 128, dtype=torch.float64)
    frames = source.reshape(2, 3, 4 * 128)  # four frames one after the other
    expected = frames @ embed.proj.weight.reshape(2, 4 * 128).T + embed.proj.bias
    assert torch.allclose(embed(source), expected, atol=1e-12)


@half_on_cpu
def test_embedding__in_bfloat16_as_in_float32():
    torch.manual_seed(0)
    precise, source = PatchEmbedding(3, (2, 4), 5), torch.randn(2, 3, 7, 9).bfloat16()
    rounded = copy.deepcopy(precise).bfloat16()
    precise.load_state_dict(rounded.state_dict())  # the same weights
    upstream = torch.randn(2, 3 * 2, 5).bfloat16()
    results = []
    for embed, x in ((precise, source.float()), (rounded, source)):
        y = embed(x)
        y.backward(upstream.to(y))
        results.append([y, *(parameter.grad for parameter in embed.parameters())])
    for expected, found in zip(*results):
        assert torch.allclose(expected, found.float(), rtol=0.02, atol=0.02)


def test_two_sides__patchify_by_hand():
    source = torch.arange(2 * 4 * 6).reshape(1, 2, 4, 6)
    patches = patchify(source, (2, 3))
    assert patches.shape == (1, 4, 12)
    # The second patch along mel: rows 0 and 1, columns 3 to 5, two channels each.
    assert patches[0, 1].tolist() == [3, 27, 4, 28, 5, 29, 9, 33, 10, 34, 11, 35]
    assert patches[0, 2, :2].tolist() == [12, 36]
    assert torch.equal(unpatchify(patches, (2, 2), (2, 3)), source)
    embed = PatchEmbedding(2, (2, 3), 5)
    weight = embed.proj.weight.permute(0, 2, 3, 1).reshape(5, -1)
    expected = patchify(source.float(), (2, 3)) @ weight.T + embed.proj.bias
    assert torch.allclose(embed(source.float()), expected, atol=1e-4)


def test_two_sides__blank_padding():
    padding = torch.tensor([[False, False, True, True]])  # a grid of 2 x 2
    blank = blank_padding(torch.full((1, 1, 4, 6), torch.nan), padding, (2, 3))
    assert blank.isnan().tolist() == [[[[True] * 6] * 2 + [[False] * 6] * 2]]
