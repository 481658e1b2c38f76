"""Recomputing in backward: less memory, the same result bit for bit."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.counts import count_saved_bytes
from eat_plugin.modules import decoders, transformer
from tests import layers

RANDOM = {
    "encoder_dropout": 0.2, "post_mlp_drop": 0.2, "attention_dropout": 0.2,
    "activation_dropout": 0.3,
}  # fmt: skip
PADDING = torch.tensor([[False] * 3 + [True] * 2, [False] * 5])
GRID = (3, 2)


def make_block(recompute, dtype=torch.float64, **options):
    torch.manual_seed(0)
    return layers.make_block(recompute=recompute, **options).to(dtype)


def make_decoder(recompute, dtype=torch.float64):
    torch.manual_seed(0)
    return layers.make_decoder(recompute=recompute).to(dtype)


def run_block(block, padding=None):
    torch.manual_seed(1)
    x = torch.randn(2, 5, 8, dtype=block.norm1.weight.dtype, requires_grad=True)
    output, target = block(x, padding)
    return x, output.square().sum() + target.sum()


def run_decoder(decoder):
    torch.manual_seed(1)
    x = torch.randn(2, 6, 8, dtype=decoder.proj.weight.dtype, requires_grad=True)
    return x, decoder(x, GRID, torch.tensor([0, 3, 7])).square().sum()


def gradients(module, run, *args):
    """Loss, gradients of input and parameters, and a random number drawn afterwards."""
    x, loss = run(module, *args)
    loss.backward()
    return [loss, x.grad, *(p.grad for p in module.parameters()), torch.rand(1)]


def assert_equal(first, second):
    assert len(first) == len(second)
    assert all(torch.equal(a, b) for a, b in zip(first, second))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("recompute", ["gelu", "blocks"])
@pytest.mark.parametrize(
    "options",
    [{}, {"layer_norm_first": True}, RANDOM, {**RANDOM, "drop_path": 0.5, "attention_gate": True}],
)
def test_block__same_result_bit_for_bit(dtype, recompute, options):
    results = [
        gradients(make_block(kind, dtype, **options), run_block, PADDING)
        for kind in ("none", recompute)
    ]
    assert_equal(*results)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("recompute", ["gelu", "blocks"])
def test_decoder__same_result_bit_for_bit(dtype, recompute):
    results = [gradients(make_decoder(kind, dtype), run_decoder) for kind in ("none", recompute)]
    assert_equal(*results)


def count_bytes(module, run):
    return count_saved_bytes(lambda: run(module), module.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_block__memory(dtype):
    size = 2 * 5 * 8 * dtype.itemsize
    everything = count_bytes(make_block("none", dtype), run_block)
    # The gate, and the gated output.
    gated = count_bytes(make_block("none", dtype, attention_gate=True), run_block)
    assert gated - everything == 2 * size
    # The output of GELU, which is four times as wide.
    assert everything - count_bytes(make_block("gelu", dtype), run_block) == 4 * size
    # And the gated output.
    gelu = count_bytes(make_block("gelu", dtype, attention_gate=True), run_block)
    assert gated - gelu == 5 * size
    # The input; and the output, which the loss above squares.
    assert count_bytes(make_block("blocks", dtype), run_block) == 2 * size


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_decoder__memory(dtype):
    size = 2 * 6 * 8 * dtype.itemsize
    everything = count_bytes(make_decoder("none", dtype), run_decoder)
    gelu = count_bytes(make_decoder("gelu", dtype), run_decoder)
    blocks = count_bytes(make_decoder("blocks", dtype), run_decoder)
    # Of both layers: the output of LayerNorm with its statistics, then also its input.
    assert 2 * size < everything - gelu < 3 * size
    assert gelu - blocks == 2 * size


class ProductCounter(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.overloadpacket.__name__ in ("mm", "addmm", "bmm", "convolution")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("make", "run", "options"),
    [
        (make_block, run_block, {}),
        (make_block, run_block, RANDOM),
        (make_block, run_block, {"attention_gate": True}),
        (make_decoder, run_decoder, {}),
    ],
)
def test_gelu__recomputes_no_matrix_product(make, run, options):
    counts = {}
    for recompute in ("none", "gelu", "blocks"):
        module = make(recompute, **options)
        with ProductCounter() as counter:
            gradients(module, run)
        counts[recompute] = counter.count
    assert counts["gelu"] == counts["none"] < counts["blocks"]


@pytest.mark.parametrize("recompute", ["gelu", "blocks"])
def test_recompute__in_training_only(monkeypatch, recompute):
    def refuse(*args, **kwargs):
        raise AssertionError("nothing is to be computed again")

    for module in (transformer, decoders):
        monkeypatch.setattr(module, "recompute", refuse)
    block, decoder = make_block(recompute), make_decoder(recompute)
    for make, run in ((block.train(), run_block), (decoder.train(), run_decoder)):
        with pytest.raises(AssertionError, match="computed again"):
            run(make)
        with torch.no_grad():
            run(make)
    run_block(block.eval())
    run_decoder(decoder.eval())


def test_drop_path__does_not_save_the_random_state(monkeypatch):
    seen = []
    real = transformer.recompute
    monkeypatch.setattr(
        transformer,
        "recompute",
        lambda *args, is_random: seen.append(is_random) or real(*args, is_random=is_random),
    )
    for options in ({}, {"drop_path": 0.5}, {"post_mlp_drop": 0.1}):
        run_block(make_block("blocks", **options))
    assert seen == [False, False, True]
    run_block(make_block("gelu", post_mlp_drop=0.1))
    run_block(make_block("gelu", activation_dropout=0.1))
    assert seen[3:] == [False, True]
