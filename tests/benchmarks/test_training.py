"""Updates of the plain and our form have equal losses."""

import pytest
import torch

from benchmarks import training
from benchmarks.plain_training import PlainUpdate, compute_losses, descend, make_adam
from benchmarks.timing import Place
from benchmarks.training import Update, make_model, make_optimizer, start_without_noise
from eat_plugin.masking import MaskSpec, draw_masks

SMALL = {
    "depth": 2, "embed_dim": 32, "num_heads": 4, "average_top_k_layers": 2, "clone_batch": 3,
    "ema_decay": 0.9, "ema_end_decay": 0.9,
}  # fmt: skip
LR = 1e-3
SPEC = MaskSpec((8, 8), 0.8, 0.07, 2)


def small_model():
    model = make_model(SMALL, 128).double()
    model.patch_encoder.cfg.mask_noise_std = 0  # each form draws its own noise
    return model


def batches(number):
    generator = torch.Generator().manual_seed(1)
    for _ in range(number):
        source = torch.randn(2, 1, 128, 128, generator=generator, dtype=torch.float64)
        yield source, draw_masks(SPEC, 6, generator)


def test_update__plain_and_ours_have_equal_losses_in_float64():
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


def test_plain_losses__equal_the_models():
    model = small_model()
    source, mask = next(batches(1))
    expected, size = compute_losses(model, model.teacher.encoder, source, mask)
    result = model(source, precomputed_mask=mask)
    assert result["sample_size"] == size
    assert result["losses"].keys() == expected.keys()
    for name, loss in expected.items():
        torch.testing.assert_close(result["losses"][name], loss, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("make", [make_adam, make_optimizer])
def test_descend__clips_and_steps(make):
    model = torch.nn.Linear(3, 1, bias=False)
    optimizer = make(model, 0.5)
    before = model.weight.clone()
    loss = 100 * model(torch.ones(1, 3)).sum()
    assert descend(optimizer, loss, 2.0) == float(loss.detach())
    assert model.weight.grad.norm() == pytest.approx(2.0, rel=1e-5)
    assert (before - model.weight).tolist()[0] == pytest.approx([0.5] * 3, abs=0.05)


def test_first_step__only_first_has_no_noise():
    model = make_model(SMALL, 128)
    seen = []

    def step():
        seen.append(model.patch_encoder.cfg.mask_noise_std)
        return 0.0

    call = start_without_noise(model, step)
    for _ in range(3):
        call()
    assert seen == [0, 0.01, 0.01]


@pytest.fixture
def small_sizes(monkeypatch):
    """Small models for the cases; returns the options of the models made."""
    made = []

    def make(options, frames):
        made.append(options)
        return make_model(options, frames)

    monkeypatch.setitem(training.SIZES, "base", SMALL)
    monkeypatch.setattr(training, "FRAMES", 64)
    monkeypatch.setattr(training, "make_model", make)
    return made


def test_case__compares_first_losses(small_sizes, tmp_path):
    case = training.CASES["update_base"](Place(tmp_path, torch.device("cpu")))
    assert case.what == "update base: 1 x 3 clones of 10 s, float32"
    assert case.ours() == pytest.approx(case.plain(), rel=1e-6)
    assert case.ours() != pytest.approx(case.ours(), rel=1e-3)


def test_case__compiles_ours_only(small_sizes, tmp_path):
    case = training.CASES["update_base"](Place(tmp_path, torch.device("cpu"), compile=True))
    case.plain.prepare()
    assert small_sizes == [SMALL]
    case.ours.prepare()
    assert small_sizes == [SMALL, {**SMALL, "compile": True}]
