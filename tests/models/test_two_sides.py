"""Models whose patches have two sides: a whole step, and each place that needs both."""

import math

import pytest
import torch

from benchmarks.plain_training import PlainUpdate, compute_losses
from benchmarks.training import Update
from eat_plugin.losses import normalize_patches
from eat_plugin.masking import MaskSpec, draw_masks, join_masks
from eat_plugin.models.classifier import EatClassifier
from eat_plugin.models.prediction import reconstruct
from eat_plugin.modules.patches import column_padding, patchify, sincos_positions

SIDES = [[4, 128], [8, 32], [16, 64]]
CLONES, COLUMNS = 3, (16, 5, 9)
EXACT = {"atol": 1e-12, "rtol": 1e-11}


def changes_of(sides):
    return {"modalities__image__patch_size": sides, "modalities__image__max_length": 64}


def make_batch(sides, padded=0.0):
    """Three clips of their own lengths."""
    generator, bands = torch.Generator().manual_seed(1), 128 // sides[1]
    source = torch.randn(3, 1, 16 * sides[0], 128, dtype=torch.float64, generator=generator)
    masks = []
    for clip, columns in enumerate(COLUMNS):
        source[clip, :, columns * sides[0] :] = padded
        masks.append(draw_masks(MaskSpec((columns, bands), 0.7), CLONES, generator))
    return {
        "source": source, "precomputed_mask": join_masks(masks), "noise_seed": [5, 6, 7],
        "padding_mask": column_padding(torch.tensor(COLUMNS), (16, bands)),
    }  # fmt: skip


@pytest.mark.parametrize("sides", SIDES)
def test_losses__equal_those_of_the_plain_form(make_model, sides):
    model = make_model(cls_loss=0.3, modalities__image__mask_noise_std=0.0, **changes_of(sides))
    generator = torch.Generator().manual_seed(1)
    source = torch.randn(2, 1, 128, 128, dtype=torch.float64, generator=generator)
    grid = (128 // sides[0], 128 // sides[1])
    assert model.patch_encoder.grid_of(source) == grid
    mask = draw_masks(MaskSpec(grid), 6, generator)
    expected, size = compute_losses(model, model.teacher.encoder, source, mask)
    result = model(source, precomputed_mask=mask)
    assert result["sample_size"] == size == 6 * (math.prod(grid) - int(math.prod(grid) * 0.2))
    assert result["losses"].keys() == expected.keys() == {"cls", "regression"}
    for name, loss in expected.items():
        torch.testing.assert_close(result["losses"][name], loss, **EXACT)


def test_updates__equal_those_of_the_plain_form(make_model):
    decay = {"ema_decay": 0.9, "ema_end_decay": 0.9}
    model = make_model(modalities__image__mask_noise_std=0.0, **decay, **changes_of([4, 128]))
    plain, ours = PlainUpdate(model, 1e-3, 0.9, None, eps=1e-30), Update(model, 1e-3, None, 1e-30)
    generator, spec = torch.Generator().manual_seed(1), MaskSpec((32, 1))
    for _ in range(5):
        source = torch.randn(2, 1, 128, 128, generator=generator, dtype=torch.float64)
        mask = draw_masks(spec, 6, generator)
        expected = plain.step(source, mask)
        assert ours.step(source, mask, spec.num_visible) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("sides", SIDES)
def test_losses__equal_those_of_each_clip_alone(make_model, sides):
    options = {"recon_loss": 0.7, "cls_loss": 0.3, "modalities__image__mask_noise_std": 0.5}
    model = make_model(**options, **changes_of(sides)).eval()
    batch, dirty = make_batch(sides), make_batch(sides, math.nan)
    together, bands = model(**batch), 128 // sides[1]
    for name, loss in model(**dirty)["losses"].items():
        assert torch.equal(loss, together["losses"][name])
    specs = [MaskSpec((columns, bands), 0.7) for columns in COLUMNS]
    hidden = [CLONES * (spec.num_patches - spec.num_visible) for spec in specs]
    assert together["sample_size"] == sum(hidden)
    assert together["losses"]["recon"].shape == (sum(hidden), sides[0] * sides[1])
    for clip, columns in enumerate(COLUMNS):
        rows = slice(clip * CLONES, (clip + 1) * CLONES)
        own = model(
            batch["source"][clip : clip + 1, :, : columns * sides[0]],
            precomputed_mask=batch["precomputed_mask"][rows, : columns * bands],
            noise_seed=batch["noise_seed"][clip : clip + 1],
        )
        for name in ("recon", "regression"):
            mine = together["losses"][name].split(hidden)[clip]
            torch.testing.assert_close(mine, own["losses"][name], **EXACT)
        mine = together["losses"]["cls"].split(CLONES)[clip] / 3
        torch.testing.assert_close(mine, own["losses"]["cls"], **EXACT)


@pytest.mark.parametrize("sides", [[4, 128], [8, 32]])
def test_tables__have_the_shape_of_the_grid(make_model, sides):
    model = make_model(recon_loss=1.0, **changes_of(sides))
    bands = 128 // sides[1]
    table = model.patch_encoder.fixed_positional_encoder.positions
    assert torch.equal(table, sincos_positions(64, bands, 32).double()[None])
    assert model.recon_proj.out_features == sides[0] * sides[1]
    kernels = {layer[0].kernel_size for layer in model.patch_encoder.decoder.blocks}
    side = model.cfg.modalities.image.decoder.decoder_kernel
    assert kernels == {(side, min(side, 2 * bands - 1))}
    model.patch_encoder.cfg.mask_prob = 0.6
    drawn = model.patch_encoder.make_masks(torch.zeros(2, 1, 64, 128), 3, None, None)
    assert drawn.shape == (6, 64 // sides[0] * bands)


@pytest.mark.parametrize("sides", SIDES)
def test_reconstruct__of_a_perfect_prediction_is_the_source(make_model, monkeypatch, sides):
    model = make_model(recon_loss=1.0, **changes_of(sides)).eval()
    source = torch.randn(2, 1, 128, 128, dtype=torch.float64)
    mask = draw_masks(MaskSpec((128 // sides[0], 128 // sides[1])), 6)
    step = model.make_step(source, source, mask)
    objective = next(one for one in model.objectives if one.name == "recon")
    values = normalize_patches(patchify(source, tuple(sides))).flatten(0, 1)
    monkeypatch.setattr(objective, "predict", lambda step: values[step.split.hidden_sources])
    expected = source.repeat_interleave(3, dim=0)
    assert torch.allclose(reconstruct(step), expected, atol=1e-5)


def test_images__two_sides(make_model):
    model = make_model(
        recon_loss=1.0, modalities__image__in_chans=3, modalities__image__image_size=[32, 48],
        modalities__image__patch_size=[8, 16],
    )  # fmt: skip
    source = torch.randn(2, 3, 32, 48, dtype=torch.float64)
    assert model.patch_encoder.grid_of(source) == (4, 3)
    losses = model(source)["losses"]
    assert losses["recon"].shape[1] == 8 * 16 * 3


def test_square__in_both_forms_is_the_same_model(make_model, batch):
    one, two = make_model(recon_loss=1.0), make_model(recon_loss=1.0, **{
        "modalities__image__patch_size": [16, 16]
    })  # fmt: skip
    assert one.state_dict().keys() == two.state_dict().keys()
    for first, second in zip(one.state_dict().values(), two.state_dict().values()):
        if torch.is_tensor(first):
            assert torch.equal(first, second)
    results = [model.eval()(**batch, noise_seed=1)["losses"] for model in (one, two)]
    for name, loss in results[0].items():
        assert torch.equal(loss, results[1][name])


@pytest.mark.parametrize("specaug", [False, True])
def test_classifier__padding_and_mixup(make_classifier, specaug):
    image = {"patch_size": [4, 128], "max_length": 64}
    model: EatClassifier = make_classifier(
        modalities={"image": image}, mixup=1.0, mixup_prob=1.0, specaug=specaug, mask_ratio=0.2
    )
    batch = make_batch([4, 128])
    source, padding = batch["source"], batch["padding_mask"]
    result = model.eval()(source, padding_mask=padding)
    for clip, columns in enumerate(COLUMNS):
        own = model(source[clip : clip + 1, :, : 4 * columns])
        torch.testing.assert_close(result[clip : clip + 1], own, **EXACT)
    label = torch.eye(3, dtype=torch.float64)
    imgs, _, lengths = model.train()._augment(source.clone(), label, padding)
    assert imgs.shape == source.shape
    # A mixup is as long as the longer of clip and partner, the clips in reverse.
    assert torch.logical_not(lengths).sum(dim=1).tolist() == [16, 5, 16]
