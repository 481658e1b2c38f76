"""The plain form of an update trains to the same losses as ours."""

import pytest
import torch

from eat_plugin.bench.plain_training import PlainUpdate, compute_losses
from eat_plugin.bench.training import Update, make_model
from eat_plugin.masking import MaskSpec, draw_masks

SMALL = {
    "depth": 2, "embed_dim": 32, "num_heads": 4, "average_top_k_layers": 2, "clone_batch": 3,
    "ema_decay": 0.9, "ema_end_decay": 0.9,
}  # fmt: skip
LR = 1e-3
SPEC = MaskSpec((8, 8), 0.8, 0.07, 2)


def small_model():
    model = make_model(SMALL, 128).double()
    model.patch_encoder.cfg.mask_noise_std = 0  # the noise of hidden patches is random in both
    return model


def batches(number):
    generator = torch.Generator().manual_seed(1)
    for _ in range(number):
        source = torch.randn(2, 1, 128, 128, generator=generator, dtype=torch.float64)
        yield source, draw_masks(SPEC, 6, generator)


def test_update__plain_and_ours_train_alike_in_float64():
    model = small_model()
    # fairseq does not scale epsilon, and does not clip in float64.
    plain = PlainUpdate(model, LR, model.cfg.ema_decay, None, eps=1e-30)
    ours = Update(model, LR, None, eps=1e-30)
    losses = []
    for source, mask in batches(30):
        expected = plain.step(source, mask)
        losses.append(ours.step(source, mask, SPEC.num_visible))
        assert losses[-1] == pytest.approx(expected, rel=1e-12)
    assert losses[-1] < 0.9 * losses[0]


def test_plain_losses__are_the_models():
    model = small_model()
    source, mask = next(batches(1))
    expected, size = compute_losses(model, model.teacher.encoder, source, mask)
    result = model(source, precomputed_mask=mask)
    assert result["sample_size"] == size
    assert result["losses"].keys() == expected.keys()
    for name, loss in expected.items():
        torch.testing.assert_close(result["losses"][name], loss, rtol=1e-12, atol=1e-12)
