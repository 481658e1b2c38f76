"""Transformer blocks against plain formulas."""

import pytest
import torch
import torch.nn.functional as F

from eat_plugin.modules.transformer import (
    MOST_IN_TABLE,
    Attention,
    attend,
    draw_drop_path,
    scale_sequences,
)
from tests.layers import layer_config, make_block
from tests.versions import half_on_cpu


def plain_attention(module, x):
    heads = module.num_heads
    q, k, v = module.qkv(x).chunk(3, dim=-1)

    def split(t):
        return t.unflatten(-1, (heads, -1)).transpose(1, 2)

    q, k, v = split(q), split(k), split(v)
    weights = (q @ k.transpose(-2, -1) / q.size(-1) ** 0.5).softmax(dim=-1)
    return module.proj((weights @ v).transpose(1, 2).flatten(2))


def test_attention__equals_the_plain_formula():
    torch.manual_seed(0)
    module = Attention(layer_config(embed_dim=12, num_heads=3)).double()
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    assert torch.allclose(module(x), plain_attention(module, x), atol=1e-12)


def test_attention__ignores_padding():
    torch.manual_seed(0)
    module, x = Attention(layer_config()).double(), torch.randn(1, 6, 8, dtype=torch.float64)
    padding = torch.tensor([[False] * 4 + [True] * 2])
    assert torch.allclose(module(x, padding)[:, :4], module(x[:, :4]), atol=1e-12)


@pytest.mark.parametrize("tokens", [7, 130, MOST_IN_TABLE + 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("pads", [False, True])
@half_on_cpu
def test_attend__equals_attention_in_float64(tokens, dtype, pads):
    torch.manual_seed(0)
    given = torch.randn(3, 2, 2, tokens, 16, dtype=torch.float64).to(dtype)  # rounded alike in both
    upstream = torch.randn(2, 2, 5, 16, dtype=torch.float64)
    allowed = torch.ones(2, 1, 1, tokens, dtype=torch.bool)
    allowed[1, ..., tokens - 3 :] = not pads

    def run(kind):
        inputs = given.to(kind).clone().requires_grad_()
        q, k, v = inputs.unbind(0)
        output = attend(q[:, :, -5:], k, v, allowed if pads else None, 0.0)
        output.backward(upstream.to(kind))
        return [tensor.double() for tensor in (output.detach(), inputs.grad)]

    tolerance = 2e-2 if dtype is torch.bfloat16 else 1e-5
    for found, expected in zip(run(dtype), run(torch.float64)):
        assert (found - expected).abs().max() < tolerance * expected.abs().max()


@half_on_cpu
def test_attend__dropout_in_half_precision():
    torch.manual_seed(0)
    q, k = torch.zeros(2, 1, 1, 400, 8, dtype=torch.bfloat16)  # equal weights
    found = attend(q, k, torch.ones_like(k), None, 0.25)
    assert found.float().mean().item() == pytest.approx(1.0, abs=0.01)
    assert found.float().std() > 0.01
    assert attend(q, k, torch.ones_like(k), None, 0.0).float().std() < 0.01


def test_block__post_norm():
    torch.manual_seed(0)
    block, x = make_block().double(), torch.randn(2, 3, 8, dtype=torch.float64)
    r = block.norm1(x + block.attn(x))
    t = block.mlp(r)
    out, target = block(x)
    assert torch.allclose(target, t)
    assert torch.allclose(out, block.norm2(r + t))


def test_block__pre_norm_keeps_the_residual():
    torch.manual_seed(0)
    block = make_block(layer_norm_first=True).double()
    x = torch.randn(2, 3, 8, dtype=torch.float64)
    a = x + block.attn(block.norm1(x))
    t = block.mlp(block.norm2(a))
    out, target = block(x)
    assert torch.allclose(target, t)
    assert torch.allclose(out, a + t)


def test_block__end_of_block_target():
    out, target = make_block(end_of_block_targets=True)(torch.randn(1, 3, 8))
    assert torch.equal(out, target)


def test_drop_path__drops_whole_sequences():
    torch.manual_seed(0)
    x = torch.ones(4000, 2, 3)
    y = scale_sequences(x, draw_drop_path(x, 0.25))
    per_sequence = y.flatten(1)
    assert torch.equal(per_sequence.min(dim=1).values, per_sequence.max(dim=1).values)
    assert y.unique().tolist() == pytest.approx([0, 4 / 3])
    assert (y[:, 0, 0] == 0).double().mean().item() == pytest.approx(0.25, abs=0.03)


def test_drop_path__acts_in_training_only():
    block, plain = make_block(drop_path=0.9), make_block()
    plain.load_state_dict(block.state_dict())
    x = torch.randn(20, 3, 8)
    assert torch.equal(block.eval()(x)[0], plain(x)[0])
    assert not torch.equal(block.train()(x)[0], plain(x)[0])


def test_drop_path__keeps_the_mean_in_half_precision():
    torch.manual_seed(0)
    x = torch.arange(1.0, 101).view(-1, 1, 1).bfloat16()
    y = scale_sequences(x, draw_drop_path(x, 0.05))
    kept = y != 0
    assert 80 < kept.sum() < 100
    expected = (x.float() / 0.95).bfloat16()  # 1 / 0.95 in bfloat16 is 0.2 % more
    assert torch.equal(y[kept], expected[kept])


def test_mlp__is_linear_gelu_linear():
    block, x = make_block(), torch.randn(1, 2, 8)
    assert torch.equal(block.mlp(x), block.mlp.fc2(F.gelu(block.mlp.fc1(x))))
