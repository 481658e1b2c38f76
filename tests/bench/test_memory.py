"""What autograd keeps is counted: each piece of memory once, and no parameters."""

import pytest
import torch

from eat_plugin.bench.memory import (
    count_activations,
    count_plain_activations,
    count_saved_bytes,
)
from eat_plugin.bench.training import make_model
from eat_plugin.masking import MaskSpec, draw_masks
from tests.versions import half_on_cpu

SMALL = {"depth": 2, "embed_dim": 32, "num_heads": 4, "average_top_k_layers": 2, "clone_batch": 3}


def test_count__by_hand():
    weight, x = torch.ones(4, 4, requires_grad=True), torch.ones(2, 4)

    def compute():
        y = x @ weight  # keeps x, 8 numbers, for the weight's gradient
        z = y.view(4, 2).sin()  # keeps y, 8 numbers
        (y.cos() + z.view(2, 4).square()).sum()  # keeps y again, and z, 8 numbers

    assert count_saved_bytes(compute) == 4 * (8 + 8 + 8)
    assert count_saved_bytes(compute, [weight, x]) == 4 * (8 + 8)
    assert count_saved_bytes(compute, [x[1:].T]) == 4 * (8 + 8)
    x.requires_grad_()  # now the weight is kept too, 16 numbers
    assert count_saved_bytes(compute) == 4 * (8 + 8 + 8 + 16)
    assert count_saved_bytes(compute, [weight]) == 4 * (8 + 8 + 8)
    with torch.no_grad():
        assert count_saved_bytes(compute) == 0


def test_count__memory_that_is_freed_and_used_again_counts_again():
    x = torch.ones(1000, requires_grad=True)

    def compute():
        for _ in range(3):
            (x * 2).sin()

    assert count_saved_bytes(compute, [x]) == 3 * 4000


@pytest.mark.parametrize(
    "dtype", [torch.float32, pytest.param(torch.bfloat16, marks=half_on_cpu)]
)
def test_activations__ours_are_fewer_and_fall_further(dtype):
    generator = torch.Generator().manual_seed(0)
    spec = MaskSpec((8, 8), 0.8, 0.07, 2)
    source, mask = torch.randn(2, 1, 128, 128, dtype=dtype), draw_masks(spec, 6, generator)
    counts = []
    for recompute in ("none", "gelu", "blocks"):
        model = make_model({**SMALL, "recompute": recompute}, 128).to(dtype)
        if recompute == "none":
            counts.append(count_plain_activations(model, source, mask))
        counts.append(count_activations(model, source, mask))
    plain, ours, gelu, blocks = counts
    tokens, patches = 6 * 13 * 32 * dtype.itemsize, 6 * 64 * 32 * dtype.itemsize
    assert plain > ours > gelu > blocks
    # Of two blocks the output of GELU, of six decoder layers that of LayerNorm, with statistics.
    assert 2 * 4 * tokens + 6 * patches < ours - gelu < 2 * 4 * tokens + 7 * patches


def test_activations__of_the_loss_are_the_difference_alone():
    spec = MaskSpec((8, 8), 0.8, 0.07, 2)
    source, mask = torch.randn(2, 1, 128, 128), draw_masks(spec, 6)
    options = {**SMALL, "recompute": "blocks", "cls_loss": 0.0}
    counts = [
        count_activations(make_model({**options, "loss_beta": beta}, 128), source, mask)
        for beta in (0.0, 1.0)  # smooth L1 keeps prediction and target
    ]
    assert counts[1] - counts[0] == 6 * 52 * 32 * 4
