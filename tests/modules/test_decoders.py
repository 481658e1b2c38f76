"""The convolutional decoder against its plain, channels-first form."""

import pytest
import torch
import torch.nn.functional as F

from tests.layers import make_decoder


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
    options = {
        "decoder_dim": hidden_dim, "decoder_layers": 3, "decoder_kernel": kernel,
        "decoder_residual": residual,
    }  # fmt: skip
    decoder = make_decoder(options).double()
    tokens = torch.randn(2, 15, 8, dtype=torch.float64)
    rows = torch.tensor([0, 7, 29, 14])
    expected = plain_decoder(decoder, tokens, (5, 3), residual).flatten(0, 1)[rows]
    assert torch.allclose(decoder(tokens, (5, 3), rows), expected, atol=1e-12)


def test_conv_decoder__has_the_published_parameter_names():
    names = [name for name, _ in make_decoder().named_parameters()]
    assert names == [
        "blocks.0.0.weight",
        "blocks.0.0.bias",
        "blocks.1.0.weight",
        "blocks.1.0.bias",
        "proj.weight",
        "proj.bias",
    ]


@pytest.mark.parametrize("recompute", ["none", "gelu", "blocks"])
def test_conv_decoder__gradients_with_padding_in_float32(recompute):
    torch.manual_seed(0)
    options = {"decoder_dim": 32, "decoder_layers": 3, "decoder_groups": 8}
    decoder = make_decoder(options, embed_dim=32, recompute=recompute)
    precise = make_decoder(options, embed_dim=32).double()
    precise.load_state_dict(decoder.state_dict())
    tokens = torch.randn(3, 40, 32)
    padding = torch.arange(40).expand(3, 40) >= torch.tensor([[40], [24], [8]])
    rows = (~padding).flatten().nonzero().squeeze(1)
    found, expected = [], []
    for model, gradients in ((decoder, found), (precise, expected)):
        source = tokens.detach().to(model.proj.weight).requires_grad_()
        model(source, (10, 4), rows, padding).square().sum().backward()
        gradients += [source.grad, *(p.grad for p in model.parameters())]
    for gradient, exact in zip(found, expected):
        assert (gradient - exact).abs().max() < 1e-5 * exact.abs().max()


def test_conv_decoder__padding_stays_channels_last():
    layouts = []

    class Spy(torch.nn.Module):
        def forward(self, grid):
            layouts.append(grid.is_contiguous(memory_format=torch.channels_last))
            return grid

    decoder = make_decoder()
    decoder.blocks = torch.nn.ModuleList([Spy(), Spy()])
    decoder.use_way("channels_last")
    padding = torch.zeros(2, 15, dtype=torch.bool)
    decoder(torch.randn(2, 15, 8), (5, 3), torch.tensor([0]), padding)
    assert layouts == [True, True]
