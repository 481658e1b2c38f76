"""Linear layers: the same results from both libraries."""

import pytest
import torch
from torch.nn import functional as F

from eat_plugin.modules import linear
from eat_plugin.modules.linear import Linear


@pytest.fixture
def convolutions(monkeypatch):
    """Prefer oneDNN, even for small products; count convolutions."""
    calls = []
    convolve = F.conv2d
    monkeypatch.setattr(linear, "prefers_onednn", lambda: True)
    monkeypatch.setattr(linear, "MIN_PRODUCTS", 100)
    monkeypatch.setattr(F, "conv2d", lambda *args: calls.append(1) or convolve(*args))
    return calls


def compute(layer, x, function):
    x = x.detach().requires_grad_()
    y = function(layer, x)
    gradients = torch.autograd.grad(y.square().sum(), [x, *layer.parameters()])
    return [y, *gradients]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(3, 5, 8), (7, 8), (2, 3, 4, 8), (40, 8)])
def test_linear__convolution_equals_linear(convolutions, shape, bias):
    layer = Linear(8, 12, bias=bias)
    x = torch.randn(shape)
    for given in (x, x.transpose(0, -2).contiguous().transpose(0, -2)):
        got = compute(layer, given, lambda layer, x: layer(x))
        expected = compute(layer, given, lambda layer, x: F.linear(x, layer.weight, layer.bias))
        for a, b in zip(got, expected):
            torch.testing.assert_close(a, b)
            assert a.is_contiguous()
    assert len(convolutions) == 2


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((1, 8), torch.float32), ((40, 8), torch.float64), ((40, 8), torch.bfloat16)],
)
def test_linear__no_convolution_for_small_products_and_other_precisions(convolutions, shape, dtype):
    layer, x = Linear(8, 12).to(dtype), torch.randn(shape, dtype=dtype)
    assert torch.equal(layer(x), F.linear(x, layer.weight, layer.bias))
    assert not convolutions


def test_linear__no_convolution_when_traced(convolutions):
    layer, x = Linear(8, 12), torch.randn(40, 8)
    torch.jit.trace(layer, (x,), check_trace=False)
    assert not convolutions
    assert set(layer.state_dict()) == {"weight", "bias"}
    assert isinstance(layer, torch.nn.Linear)
