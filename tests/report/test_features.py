import numpy as np
import torch

from eat_plugin.report.features import attend, view_features


def test_attend__weights_give_the_output_of_the_attention(make_checkpoint):
    from eat_plugin.inference import load_checkpoint

    block = load_checkpoint(make_checkpoint("pretraining")).encoder.blocks[-1]
    x = torch.randn(2, 9, 32, generator=torch.Generator().manual_seed(0))
    weights = attend(block, x)
    values = block.attn.qkv(x).unflatten(2, (3, block.attn.num_heads, -1))[:, :, 2]
    mixed = torch.einsum("nhij,njhd->nihd", weights, values).flatten(2)
    with torch.no_grad():
        torch.testing.assert_close(block.attn.proj(mixed), block.attn(x))


def test_view_features__shapes_even_attention_and_common_colours(make_checkpoint):
    from eat_plugin.inference import load_checkpoint

    encoder = load_checkpoint(make_checkpoint("pretraining")).encoder
    generator = torch.Generator().manual_seed(0)
    sources = [torch.randn(1, frames, 128, generator=generator) for frames in (128, 64)]
    views = view_features(encoder, [*sources, sources[0]])
    assert [view.components.shape for view in views] == [(8, 8, 3), (4, 8, 3), (8, 8, 3)]
    assert (views[0].components == views[2].components).all()
    assert views[0].components.min() == 0
    assert views[0].components.max() == 1
    clipped = np.concatenate([view.components.ravel() % 1 == 0 for view in views])
    assert 0 < clipped.mean() < 0.05
    # Attention to patches and CLS sums to 1; of random weights it is nearly even.
    assert 0.8 < views[1].attention.mean() <= 1
