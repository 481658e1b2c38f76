"""Base gives the same first loss in every form and precision."""

import pytest
import torch

from benchmarks.plain_training import compute_losses
from benchmarks.training import FRAMES, MEL_BINS, SIZES, make_model
from eat_plugin.masking import MaskSpec, draw_masks
from tests.versions import half_on_cpu


def make_base(clones, frames=FRAMES):
    model = make_model({**SIZES["base"], "clone_batch": clones}, frames)
    model.patch_encoder.cfg.mask_noise_std = 0  # each form draws its own noise
    return model


def make_batch(model, frames=FRAMES):
    """One clip, of 10 s by default, and its masks."""
    generator = torch.Generator().manual_seed(1)
    source = torch.randn(1, 1, frames, MEL_BINS, generator=generator)
    spec = MaskSpec.from_options(model.patch_encoder.cfg, model.patch_encoder.grid_of(source))
    return source, draw_masks(spec, model.cfg.clone_batch, generator)


def first_losses(model, source, mask):
    """The losses of the first update by name, per hidden patch."""
    with torch.no_grad():
        result = model(source, precomputed_mask=mask)
    return {name: float(v.sum()) / result["sample_size"] for name, v in result["losses"].items()}


@pytest.mark.parametrize("clones", [2, pytest.param(16, marks=pytest.mark.slow)])
def test_base__plain_and_ours_give_the_same_first_loss(clones):
    model = make_base(clones)
    source, mask = make_batch(model)
    with torch.no_grad():
        plain, size = compute_losses(model, model.teacher.encoder, source, mask)
    expected = {name: float(value.sum()) / size for name, value in plain.items()}
    found = first_losses(model, source, mask)
    assert found == pytest.approx(expected, rel=1e-6)
    assert sum(found.values()) == pytest.approx(sum(expected.values()), rel=1e-6)


@half_on_cpu
def test_base__bfloat16_gives_the_first_loss_of_float32():
    model = make_base(clones=2, frames=256)  # bfloat16 is slow on some CPUs
    source, mask = make_batch(model, frames=256)
    expected = first_losses(model, source, mask)
    found = first_losses(model.bfloat16(), source.bfloat16(), mask)
    assert found != expected
    assert found == pytest.approx(expected, rel=0.01)
    assert sum(found.values()) == pytest.approx(sum(expected.values()), rel=0.01)
