"""Counts of operations and saved memory; ours are lower than the plain forms'."""

import pytest
import torch

from benchmarks import counts, training
from benchmarks.counts import (
    count_activations,
    count_operations,
    count_saved_bytes,
    count_update,
)
from benchmarks.timing import Place
from benchmarks.training import make_model
from eat_plugin.masking import MaskSpec, draw_masks
from tests.versions import fused_on_cpu, half_on_cpu

SMALL = {"depth": 2, "embed_dim": 32, "num_heads": 4, "average_top_k_layers": 2, "clone_batch": 3}
FEW = {"embed_dim": 16, "num_heads": 2, "average_top_k_layers": 2, "clone_batch": 2}
CASE = {"depth": 3, "embed_dim": 64, "num_heads": 2, "average_top_k_layers": 2, "clone_batch": 2}


def test_count_operations__excludes_views_and_allocations():
    x = torch.arange(6.0)

    def views():
        y = torch.empty_like(x).new_empty(3)
        return y.detach().view(3, 1).T, x.view(2, 3)[0].data.split([1, 2]), x.as_strided((2,), (1,))

    assert count_operations(views) == 0
    assert count_operations(lambda: x.reshape(2, 3).t().add(1).mul_(2).sum()) == 3
    assert count_operations(lambda: torch.zeros(3)) > 0
    assert count_operations(lambda: torch._foreach_add_([x, x.clone()], 1)) == 2
    assert count_operations(lambda: x.sum().item()) == 2


def count(dtype, **options):
    model = make_model({**FEW, "depth": 2, **options}, 32)
    before = [p.clone() for p in model.parameters()]
    counts = count_update(model, dtype)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters()))
    return counts


@fused_on_cpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_count_update__does_not_grow_with_depth(dtype):
    (plain, ours), (plain_deep, ours_deep) = count(dtype), count(dtype, depth=6)
    assert ours == ours_deep <= 50
    assert plain_deep > 1.5 * plain > 10 * ours


def test_count_update__includes_the_teacher_step():
    _, without = count(torch.float32, ema_decay=1.0, ema_end_decay=1.0)
    _, ours = count(torch.float32)
    assert ours == without + 4  # average, norms of all tensors, of one row of them, of the rows


def test_count_saved_bytes__hand_computed():
    weight, x = torch.ones(4, 4, requires_grad=True), torch.ones(2, 4)

    def compute():
        y = x @ weight  # saves x, 8 numbers, for the gradient of the weight
        z = y.view(4, 2).sin()  # saves y, 8 numbers
        (y.cos() + z.view(2, 4).square()).sum()  # saves y again, and z, 8 numbers

    assert count_saved_bytes(compute) == 4 * (8 + 8 + 8)
    assert count_saved_bytes(compute, [weight, x]) == 4 * (8 + 8)
    assert count_saved_bytes(compute, [x[1:].T]) == 4 * (8 + 8)
    x.requires_grad_()  # now the weight is saved too, 16 numbers
    assert count_saved_bytes(compute) == 4 * (8 + 8 + 8 + 16)
    assert count_saved_bytes(compute, [weight]) == 4 * (8 + 8 + 8)
    with torch.no_grad():
        assert count_saved_bytes(compute) == 0


def test_count_saved_bytes__reused_memory_counts_again():
    x = torch.ones(1000, requires_grad=True)

    def compute():
        for _ in range(3):
            (x * 2).sin()

    assert count_saved_bytes(compute, [x]) == 3 * 4000


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=half_on_cpu)])
def test_activations__ours_and_recompute_save_fewer(dtype):
    generator = torch.Generator().manual_seed(0)
    spec = MaskSpec((8, 8), 0.8, 0.07, 2)
    source, mask = torch.randn(2, 1, 128, 128, dtype=dtype), draw_masks(spec, 6, generator)
    counts = []
    for recompute in ("none", "gelu", "blocks"):
        model = make_model({**SMALL, "recompute": recompute}, 128).to(dtype)
        if recompute == "none":
            counts.append(count_activations(model, source, mask, plain=True))
        counts.append(count_activations(model, source, mask))
    plain, ours, gelu, blocks = counts
    tokens, patches = 6 * 13 * 32 * dtype.itemsize, 6 * 64 * 32 * dtype.itemsize
    assert plain > ours > gelu > blocks
    # Two blocks: the output of GELU. Six decoder layers: the output of LayerNorm, with statistics.
    assert 2 * 4 * tokens + 6 * patches < ours - gelu < 2 * 4 * tokens + 7 * patches


def test_activations__loss_saves_the_difference_only():
    spec = MaskSpec((8, 8), 0.8, 0.07, 2)
    source, mask = torch.randn(2, 1, 128, 128), draw_masks(spec, 6)
    options = {**SMALL, "recompute": "blocks", "cls_loss": 0.0}
    counts = [
        count_activations(make_model({**options, "loss_beta": beta}, 128), source, mask)
        for beta in (0.0, 1.0)  # smooth L1 saves prediction and target
    ]
    assert counts[1] - counts[0] == 6 * 52 * 32 * 4


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A place for cases of a small model."""
    monkeypatch.setitem(training.SIZES, "base", CASE)
    monkeypatch.setattr(counts, "FRAMES", 128)
    return Place(tmp_path, torch.device("cpu"))


@fused_on_cpu
def test_case_operations__are_fewer_than_fairseqs(place):
    count = counts.CASES["operations"](place)
    assert count.unit == "operations"
    assert count.plain > 10 * count.ours > 0


def test_case_activations__are_fewer_with_recompute(place):
    saved = counts.CASES["activations"](place)
    recomputed = counts.CASES["activations_gelu"](place)
    assert saved.plain > saved.ours > recomputed.ours > 0
    assert saved.what == "saved for backward of a clip x 2 clones, base, bfloat16"
    assert recomputed.what == f"{saved.what}, recompute=gelu"
    # 2 masks of 12 tokens, 3 blocks: a few tens of values for each of the 64 channels.
    assert 0.05 < saved.ours < 5
