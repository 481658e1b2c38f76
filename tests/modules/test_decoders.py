"""The convolutional decoder against its plain, channels-first form."""

import pytest
import torch
import torch.nn.functional as F

from eat_plugin.modules.decoders import ConvDecoder


def plain_decoder(decoder, tokens, grid, residual):
    n, length, dim = tokens.shape
    x = tokens.transpose(1, 2).reshape(n, dim, *grid)
    for layer in decoder.blocks:
        conv = layer[0]
        y = F.conv2d(x, conv.weight, conv.bias, padding=conv.padding, groups=conv.groups)
        y = y[:, :, : grid[0], : grid[1]]
        y = F.layer_norm(y.transpose(1, 3), y.shape[1:2], eps=1e-5).transpose(1, 3)
        y = F.gelu(y)
        x = y + x if residual and x.shape == y.shape else y
    return decoder.proj(x.reshape(n, -1, length).transpose(1, 2))


@pytest.mark.parametrize("kernel", [3, 4, 5])
@pytest.mark.parametrize(("hidden_dim", "residual"), [(8, True), (12, True), (8, False)])
def test_conv_decoder__equals_the_plain_form(kernel, hidden_dim, residual):
    torch.manual_seed(0)
    decoder = ConvDecoder(8, hidden_dim, 3, kernel, 4, residual).double()
    tokens = torch.randn(2, 15, 8, dtype=torch.float64)
    rows = torch.tensor([0, 7, 29, 14])
    expected = plain_decoder(decoder, tokens, (5, 3), residual).flatten(0, 1)[rows]
    assert torch.allclose(decoder(tokens, (5, 3), rows), expected, atol=1e-12)


def test_conv_decoder__has_the_published_parameter_names():
    names = [name for name, _ in ConvDecoder(8, 8, 2, 3, 4).named_parameters()]
    assert names == [
        "blocks.0.0.weight", "blocks.0.0.bias", "blocks.1.0.weight", "blocks.1.0.bias",
        "proj.weight", "proj.bias",
    ]
