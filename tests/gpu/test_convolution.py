"""The decoder's convolution on a GPU: each way's result, and the choice."""

import logging

import pytest
import torch

from eat_plugin.modules.convolution import choose_way, convolve, has_triton, ways_on

pytestmark = pytest.mark.gpu
BOUNDS = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}


def make(dtype, rows=4, channels=96, side=3):
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(channels, channels, side, padding=side // 2, groups=2)
    x = torch.randn(rows, 7, 5, channels)
    return x.cuda().to(dtype).requires_grad_(), layer.cuda().to(dtype)


def results(x, layer, way):
    y = convolve(x.permute(0, 3, 1, 2), layer, way)
    return [y, *torch.autograd.grad(y, [x, *layer.parameters()], y.detach())]


@pytest.mark.parametrize("side", [3, 4, 5])
@pytest.mark.parametrize("dtype", BOUNDS)
def test_convolve__each_way_equals_float64(dtype, side, full_precision):
    x, layer = make(dtype, side=side)
    exact = torch.nn.Conv2d(96, 96, side, padding=side // 2, groups=2).cuda().double()
    exact.load_state_dict({name: p.double() for name, p in layer.state_dict().items()})
    expected = results(x.detach().double().requires_grad_(), exact, "channels_last")
    for way in ways_on(x):
        for found, value in zip(results(x, layer, way), expected):
            error = (found.double() - value).abs().max() / value.abs().max()
            assert error < BOUNDS[dtype], way


@pytest.mark.skipif(not has_triton(), reason="Triton is not installed")
def test_convolve__triton_gives_the_same_bits_again():
    x, layer = make(torch.bfloat16, rows=400)
    first, second = (results(x, layer, "triton") for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, second))


def test_choose_way__times_every_way(caplog):
    caplog.set_level(logging.INFO)
    x, layer = make(torch.bfloat16)
    assert choose_way(x.permute(0, 3, 1, 2), layer) in ways_on(x)
    assert all(f"{way} " in caplog.text for way in ways_on(x))
    assert "failed" not in caplog.text
