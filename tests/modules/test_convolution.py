"""The ways to compute the decoder's convolutions, and the choice between them."""

import logging

import pytest
import torch
import torch.nn.functional as F

from eat_plugin.modules import convolution
from eat_plugin.modules.convolution import convolve
from tests.layers import make_decoder

ROWS = torch.tensor([0, 7])


def run_decoder(decoder):
    torch.manual_seed(1)
    return decoder(torch.randn(2, 15, 8), (5, 3), ROWS)


@pytest.mark.parametrize("way", ["channels_last", "channels_first"])
@pytest.mark.parametrize("kernel", [1, 3, 4, 5, (5, 1), (4, 3), (3, 2)])
def test_convolve__equals_pytorchs(way, kernel):
    torch.manual_seed(0)
    sides = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    padding = tuple(side // 2 for side in sides)
    layer = torch.nn.Conv2d(6, 12, kernel, padding=padding, groups=3).double()
    x = torch.randn(2, 5, 4, 6, dtype=torch.float64, requires_grad=True)
    found = convolve(x.permute(0, 3, 1, 2), layer, way)
    assert found.stride(1) == 1  # channels last
    expected = F.conv2d(x.permute(0, 3, 1, 2), layer.weight, layer.bias, 1, padding, 1, 3)
    expected = expected[:, :, :5, :4]
    assert torch.allclose(found, expected, atol=1e-12)
    sources, gradient = [x, *layer.parameters()], torch.randn_like(expected)
    pairs = zip(*(torch.autograd.grad(y, sources, gradient) for y in (found, expected)))
    for mine, theirs in pairs:
        assert torch.allclose(mine, theirs, atol=1e-12)


def test_decoder__chooses_at_the_first_training_forward(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    asked = []

    def find(ways, device):
        asked.append(list(ways))
        for run in ways.values():
            run()
        return "channels_first", dict.fromkeys(ways, 0.001)

    monkeypatch.setattr(convolution, "find_fastest", find)
    decoder = make_decoder(convolution="auto")
    run_decoder(decoder.eval())
    with torch.no_grad():
        run_decoder(decoder.train())
    assert asked == []
    result = run_decoder(decoder)
    assert asked == [["channels_last", "channels_first"]]
    assert [layer.way for layer in decoder.blocks] == ["channels_first"] * 2
    assert decoder.way == "channels_first"
    assert "channels_first (forward and backward of a layer of 68 x 5 x 3 patches" in caplog.text
    assert all(p.grad is None for p in decoder.parameters())
    run_decoder(decoder)
    assert len(asked) == 1
    assert torch.allclose(run_decoder(make_like(decoder, "channels_last")), result, atol=1e-6)


def make_like(decoder, way):
    other = make_decoder(convolution=way)
    other.load_state_dict(decoder.state_dict())
    return other


def test_decoder__continues_with_the_way_of_a_checkpoint(monkeypatch):
    monkeypatch.setattr(convolution, "find_fastest", lambda ways, device: ("channels_last", {}))
    for before, expected in (
        ("channels_first", "channels_first"), ("triton", "channels_last"), ("auto", "channels_last")
    ):  # fmt: skip
        decoder = make_decoder(convolution="auto")
        decoder.continue_way(before)
        run_decoder(decoder)
        assert decoder.way == expected
    decoder = make_decoder(convolution="channels_last")  # what is set counts
    decoder.continue_way("channels_first")
    run_decoder(decoder)
    assert decoder.way == "channels_last"


def test_decoder__refuses_a_way_that_the_machine_lacks():
    with pytest.raises(ValueError, match=r"'triton', which cannot run here .* on cpu: choose auto"):
        run_decoder(make_decoder(convolution="triton"))
