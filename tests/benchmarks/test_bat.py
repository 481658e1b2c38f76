"""The recipe bat: the plain form has the same losses; ours saves less memory."""

import pytest
import torch

from benchmarks import bat
from benchmarks.bat import make_model
from benchmarks.plain_training import PlainUpdate, compute_losses
from benchmarks.timing import Place
from benchmarks.training import Update, draw_batch_masks, make_clips

FEW = {
    "depth": 2, "embed_dim": 32, "num_heads": 2, "average_top_k_layers": 2, "clone_batch": 3,
    "modalities": {"image": {"embed_dim": 32, "target_length": 64}},
}  # fmt: skip


@pytest.fixture
def few(monkeypatch):
    """Makes small models; the width of the decoder differs from the encoder's."""
    real = bat.load_config

    def load(*args, **options):
        cfg = real(*args, **options)
        cfg.model.modalities.image.decoder.update(decoder_dim=48, decoder_heads=4)
        cfg.model.update(FEW | {"modalities": cfg.model.modalities})
        cfg.model.modalities.image.update(FEW["modalities"]["image"])
        return cfg

    monkeypatch.setattr(bat, "load_config", load)


def test_update__plain_and_ours_have_equal_losses_in_float64(few):
    plain = PlainUpdate(make_model("tiny", 1, {}).double(), 1e-3, bat.DECAY, None, eps=1e-30)
    own = make_model("tiny", 1, {}).double()
    ours = Update(own, 1e-3, None, eps=1e-30)
    source = make_clips(2, 64).double()
    mask, num_visible = draw_batch_masks(own, 2)
    losses = []
    for _ in range(4):
        losses.append(ours.step(source, mask, num_visible))
        assert losses[-1] == pytest.approx(plain.step(source, mask), rel=1e-11)
    assert losses[-1] < losses[0]
    expected, size = compute_losses(own, own.teacher.encoder, source, mask)
    result = own(source, precomputed_mask=mask)
    assert result["sample_size"] == size
    for name, loss in expected.items():
        torch.testing.assert_close(result["losses"][name], loss, rtol=1e-11, atol=1e-11)


def test_cases__of_a_small_model(few, tmp_path):
    place = Place(tmp_path, torch.device("cpu"))
    case = bat.updating("tiny", 2, 2, rounds=1)(place)
    assert case.what == "bat, tiny: 2 x 3 clones of 1 s, float32"
    assert case.ours() == pytest.approx(case.plain(), rel=1e-5)
    half = bat.updating("tiny", 2, 2, rounds=1, share=0.5)(place)
    assert not half.same
    assert half.what.endswith("float32, ours: hidden_share=0.5")
    assert half.ours() != case.ours.first
    whole, less = (bat.activations("tiny", share)(place) for share in (1, 0.5))
    assert whole.plain == less.plain > whole.ours > less.ours > 0
