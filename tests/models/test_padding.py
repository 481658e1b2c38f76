"""Clips of different length: the same results in a batch as alone; padding is ignored."""

import math

import pytest
import torch

from eat_plugin.losses import average_layers
from eat_plugin.masking import MaskSpec, draw_masks, join_masks
from eat_plugin.models.pooling import PredictionMode, pool
from eat_plugin.modules.patch_split import split_patches
from eat_plugin.modules.patches import blank_padding, column_padding, mean_patches, own_columns

COLUMNS = (8, 3, 5)  # time steps of the clips, in patches
CLONES = 3
OF_CLIPS = [mode for mode in PredictionMode if mode != PredictionMode.FRAMES]
EXACT = {"atol": 1e-12, "rtol": 1e-11}
LOUD = {"recon_loss": 0.7, "cls_loss": 0.3, "modalities__image__mask_noise_std": 0.5}
VARIANTS = [
    pytest.param({}, id="published"),
    pytest.param({"utterance_level": True}, id="dino"),
    pytest.param({"layer_norm_first": True}, id="pre-norm"),
    pytest.param({"layer_norm_first": True, "utterance_level": True}, id="pre-norm-dino"),
    pytest.param({"instance_norm_target_layer": False, "layer_norm_target_layer": True}, id="ln"),
    pytest.param({"layer_norm_targets": False, "instance_norm_targets": True}, id="in-targets"),
    pytest.param({"instance_norm_targets": True, "end_of_block_targets": True}, id="end-of-block"),
    pytest.param({"instance_norm_target_layer": False, "layer_norm_targets": False}, id="none"),
    pytest.param({"loss_beta": 0.5, "loss_scale": 2.0}, id="smooth-l1"),
    pytest.param({"ema_encoder_only": True}, id="ema-blocks"),
    pytest.param(
        {"attention_gate": True, "loss_average": "elements", "target_norm_eps": 1e-3,
         "modalities__image__decoder__decoder_kind": "vit"}, id="bat",
    ),
    pytest.param({"modalities__image__num_extra_tokens": 2}, id="two-extra-tokens"),
    pytest.param({"modalities__image__num_extra_tokens": 0, "cls_loss": 0.0}, id="no-extra-token"),
    pytest.param(
        {"modalities__image__decoder__decoder_kernel": 4,
         "modalities__image__decoder__add_positions_all": True}, id="even-kernel",
    ),
    pytest.param(
        {"modalities__image__decoder__decoder_residual": False,
         "modalities__image__decoder__add_positions_masked": True}, id="no-residual",
    ),
]  # fmt: skip


def make_batch(padded=0.0):
    """Three clips; ``padded`` fills their padding."""
    generator = torch.Generator().manual_seed(1)
    source = torch.randn(3, 1, 128, 128, dtype=torch.float64, generator=generator)
    masks = []
    for clip, columns in enumerate(COLUMNS):
        source[clip, :, columns * 16 :] = padded
        masks.append(draw_masks(MaskSpec((columns, 8), 0.8), CLONES, generator))
    return {
        "source": source,
        "precomputed_mask": join_masks(masks),
        "padding_mask": column_padding(torch.tensor(COLUMNS), (8, 8)),
        "noise_seed": [5, 6, 7],
    }


def alone(batch, clip):
    """One of the clips, without padding."""
    rows, columns = slice(clip * CLONES, (clip + 1) * CLONES), COLUMNS[clip]
    return {
        "source": batch["source"][clip : clip + 1, :, : columns * 16],
        "precomputed_mask": batch["precomputed_mask"][rows, : columns * 8],
        "noise_seed": batch["noise_seed"][clip : clip + 1],
    }


def hidden_of(columns):
    return CLONES * (columns * 8 - MaskSpec((columns, 8), 0.8).num_visible)


def divisor_of(changes):
    """What the utterance loss of three clips is divided by; means of elements are already."""
    return 1 if changes.get("loss_average") == "elements" else 3


def parts_of(losses, divisor):
    """Parts of each loss by clip; utterance losses are divided by the number of clips."""
    parts = {}
    for name, loss in losses.items():
        if loss.dim() == 0:
            continue
        sizes = [CLONES] * 3 if name == "cls" else [hidden_of(columns) for columns in COLUMNS]
        parts[name] = (loss / divisor if name == "cls" else loss).split(sizes)
    return parts


@pytest.mark.parametrize("changes", VARIANTS)
def test_losses__equal_those_of_each_clip_alone(make_model, changes):
    model = make_model(**{**LOUD, **changes}).eval()  # DINO's centre does not move
    batch = make_batch()
    together = model(**batch)
    parts = parts_of(together["losses"], divisor_of(changes))
    each = [model(**alone(batch, clip)) for clip in range(3)]
    for clip, own in enumerate(each):
        assert own["sample_size"] == hidden_of(COLUMNS[clip])
        for name in parts:
            torch.testing.assert_close(parts[name][clip], own["losses"][name], **EXACT)
    assert together["losses"].keys() == each[0]["losses"].keys()
    if "utterance_level" in changes:  # a sum
        total = sum(own["losses"]["cls"] for own in each)
        torch.testing.assert_close(together["losses"]["cls"], total, **EXACT)
    assert together["sample_size"] == sum(map(hidden_of, COLUMNS))
    assert together["masked_pct"] == together["sample_size"] / (CLONES * 8 * sum(COLUMNS))


def test_hidden_share__of_each_clip_alone(make_model):
    decoder = {"decoder_kind": "vit", "hidden_share": 0.3}
    changes = {f"modalities__image__decoder__{name}": value for name, value in decoder.items()}
    model = make_model(**{**LOUD, **changes}).train()
    batch = make_batch(math.nan)
    together = model(**batch)
    each = [model(**alone(batch, clip)) for clip in range(3)]
    sizes = [CLONES * math.ceil(0.3 * hidden_of(columns) / CLONES) for columns in COLUMNS]
    assert [own["sample_size"] for own in each] == sizes
    parts = together["losses"]["regression"].split(sizes)
    for part, own in zip(parts, each):
        torch.testing.assert_close(part, own["losses"]["regression"], **EXACT)
    of_clips = together["losses"]["cls"].split(CLONES)
    for part, own in zip(of_clips, each):
        torch.testing.assert_close(part / 3, own["losses"]["cls"], **EXACT)
    assert together["masked_pct"] == sum(map(hidden_of, COLUMNS)) / (CLONES * 8 * sum(COLUMNS))


@pytest.mark.parametrize("changes", VARIANTS)
def test_gradients__of_clips_sum_to_those_of_the_batch(make_model, changes):
    model = make_model(**{**LOUD, **changes}).eval()  # DINO's centre does not move
    batch = make_batch()

    def gradients(inputs, clips):
        losses = model(**inputs)["losses"]
        if "cls" in losses and losses["cls"].dim():
            losses["cls"] = losses["cls"] / clips
        model.zero_grad()
        sum(loss.sum() for loss in losses.values()).backward()
        return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    together = gradients(batch, divisor_of(changes))
    each = [gradients(alone(batch, clip), 1) for clip in range(3)]
    assert len(together) > 20
    for name, gradient in together.items():
        expected = sum(own[name] for own in each)
        torch.testing.assert_close(gradient, expected, atol=1e-11, rtol=1e-9, msg=name)


@pytest.mark.parametrize("changes", [*VARIANTS, {"batch_norm_target_layer": True}])
@pytest.mark.parametrize("garbage", [math.nan, math.inf, 1e6])
def test_losses__do_not_depend_on_the_content_of_padding(make_model, changes, garbage):
    model = make_model(**{**LOUD, **changes}).eval()
    clean, dirty = make_batch(), make_batch(garbage)
    dirty["precomputed_mask"] = dirty["precomputed_mask"] * 3  # any value but 0 hides
    padding = dirty["padding_mask"].repeat_interleave(CLONES, 0)
    dirty["precomputed_mask"][padding] = 0  # ignored at padding
    dirty["target"] = dirty["source"].clone()
    one, two = model(**clean), model(**dirty)
    for name, loss in one["losses"].items():
        assert torch.equal(loss, two["losses"][name]), name
    assert one["pred_var"] == two["pred_var"]
    assert one["target_var"] == two["target_var"]
    assert one["losses"]["regression"].isfinite().all()


def test_losses__do_not_depend_on_the_length_of_padding(make_model):
    model = make_model(**LOUD).train()
    batch = make_batch()
    longer = {**batch, "source": torch.cat([batch["source"], batch["source"]], dim=2)}
    longer["padding_mask"] = column_padding(torch.tensor(COLUMNS), (16, 8))
    longer["precomputed_mask"] = batch["precomputed_mask"].repeat(1, 2)
    for name, loss in model(**batch)["losses"].items():
        torch.testing.assert_close(model(**longer)["losses"][name], loss, **EXACT)


@pytest.mark.parametrize("changes", [{}, {"utterance_level": True}])
def test_losses__without_padding_are_the_published_ones(make_model, batch, changes):
    model = make_model(**{**LOUD, **changes}).eval()
    published = model(**batch, num_visible=12, noise_seed=3)
    none = torch.zeros(2, 64, dtype=torch.bool)
    masked = model(**batch, padding_mask=none, noise_seed=3)
    for name, loss in published["losses"].items():
        torch.testing.assert_close(masked["losses"][name], loss, **EXACT)
    for name in ("sample_size", "masked_pct", "loss_items"):
        assert masked[name] == published[name]


def test_noise__one_seed_per_clip(make_model, batch):
    model = make_model(modalities__image__mask_noise_std=0.5).train()

    def regress(seeds):
        return model(**batch, noise_seed=seeds)["losses"]["regression"].chunk(2)

    first, second = regress([5, 6])
    assert torch.equal(regress([5, 9])[0], first)
    assert torch.equal(regress([9, 6])[1], second)
    assert not torch.equal(regress([9, 6])[0], first)


def test_batch_norm__excludes_padding():
    generator = torch.Generator().manual_seed(0)
    layer = torch.randn(2, 4, 3, dtype=torch.float64, generator=generator)
    padding = torch.tensor([[False] * 4, [False, False, True, True]])
    own = layer[~padding]  # [6, 3]
    expected = (own - own.mean(0)) / (own.var(0, unbiased=False) + 1e-5).sqrt()
    got = average_layers([layer], batch_norm_layer=True, padding=padding)
    torch.testing.assert_close(got[~padding], expected, **EXACT)


@pytest.mark.parametrize("columns", range(1, 9))
@pytest.mark.parametrize("prob", [0.5, 0.8])
def test_masks__ratio_applies_to_each_clip(make_model, columns, prob):
    model = make_model(modalities__image__mask_prob=prob)
    padding = column_padding(torch.tensor([8, columns]), (8, 8))
    source = torch.randn(2, 1, 128, 128, dtype=torch.float64)
    masks = model.patch_encoder.make_masks(source, CLONES, None, padding)
    own = masks[CLONES:, : columns * 8]
    assert ((own == 0).sum(dim=1) == int(columns * 8 * (1 - prob))).all()
    assert masks[CLONES:, columns * 8 :].all()
    output = model.train()(source, padding_mask=padding)
    kept = CLONES * sum(int(number * 8 * (1 - prob)) for number in (8, columns))
    assert output["sample_size"] == CLONES * 8 * (8 + columns) - kept


@pytest.mark.parametrize("changes", [{}, {"layer_norm_first": True}])
@pytest.mark.parametrize("garbage", [0.0, math.nan])
def test_features__equal_those_of_each_clip_alone(make_model, changes, garbage):
    model = make_model(**changes).eval()
    batch = make_batch(garbage)
    source, padding = batch["source"], batch["padding_mask"]
    together = model.extract_features(source, padding_mask=padding, remove_extra_tokens=False)
    assert together["padding_mask"].shape == (3, 65)
    for clip, columns in enumerate(COLUMNS):
        own = model.extract_features(alone(batch, clip)["source"], remove_extra_tokens=False)
        size = 1 + columns * 8
        assert together["padding_mask"][clip].sum() == 65 - size
        torch.testing.assert_close(together["x"][clip, :size], own["x"][0], **EXACT)
        for layer, expected in zip(together["layer_results"], own["layer_results"]):
            torch.testing.assert_close(layer[clip, :size], expected[0], **EXACT)
    assert together["x"].isfinite().all()


def test_features__of_masked_clips_equal_those_of_each_clip_alone(make_model):
    model = make_model().eval()
    batch = make_batch(math.nan)
    masks = batch["precomputed_mask"][::CLONES]
    options = {"features_only": True, "force_remove_masked": True, "remove_extra_tokens": False}
    together = model(
        batch["source"], padding_mask=batch["padding_mask"], precomputed_mask=masks, **options
    )
    for clip in range(3):
        single = alone(batch, clip)
        own = model(single["source"], precomputed_mask=single["precomputed_mask"][:1], **options)
        size = own["x"].size(1)
        torch.testing.assert_close(together["x"][clip, :size], own["x"][0], **EXACT)
        assert (~together["padding_mask"][clip]).sum() == size
    assert own["padding_mask"] is None


@pytest.mark.parametrize("mode", OF_CLIPS)
@pytest.mark.parametrize("garbage", [0.0, math.nan])
def test_logits__equal_those_of_each_clip_alone(make_classifier, mode, garbage):
    model = make_classifier(prediction_mode=mode.name).eval()
    torch.nn.init.normal_(model.head.weight)
    batch = make_batch(garbage)
    together = model(batch["source"], padding_mask=batch["padding_mask"])
    for clip in range(3):
        own = model(alone(batch, clip)["source"])
        torch.testing.assert_close(together[clip : clip + 1], own, **EXACT)
    assert not torch.allclose(together[0], together[1])


@pytest.mark.parametrize("mode", OF_CLIPS)
def test_logits__gradients_of_clips_sum_to_those_of_the_batch(make_classifier, mode):
    model = make_classifier(prediction_mode=mode.name).eval()
    batch = make_batch(math.nan)

    def gradients(source, padding=None):
        model.zero_grad()
        model(source, padding_mask=padding).square().sum().backward()
        return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    together = gradients(batch["source"], batch["padding_mask"])
    each = [gradients(alone(batch, clip)["source"]) for clip in range(3)]
    for name, gradient in together.items():
        torch.testing.assert_close(gradient, sum(own[name] for own in each), **EXACT)


def test_pool__excludes_padding():
    x = torch.tensor([[[9.0], [0.0], [math.log(3)], [7.0]]], dtype=torch.float64)
    padding = torch.tensor([[False, False, True]])
    for mode in OF_CLIPS:
        expected = pool(x[:, :3], mode, 1, (2, 1))
        found = pool(x, mode, 1, (3, 1), padding)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_padding__by_hand():
    padding = column_padding(torch.tensor([2, 1]), (2, 2))
    assert padding.tolist() == [[False] * 4, [False, False, True, True]]
    assert own_columns(padding, 2).tolist() == [2, 1]
    blank = blank_padding(torch.full((2, 1, 4, 4), math.nan), padding, 2)
    assert blank[0].isnan().all()
    assert blank[1, 0, :2].isnan().all()
    assert not blank[1, 0, 2:].any()
    tokens = torch.tensor([[1.0], [3.0], [math.nan], [5.0]]).repeat(2, 1, 1)
    assert mean_patches(tokens, padding)[1].item() == 2
    assert mean_patches(tokens[:, :2], None)[0].item() == 2


def test_split_patches__by_hand():
    masks = torch.tensor([[1, 0, 1, 0], [0, 0, 1, 1], [1, 0, 0, 0], [0, 1, 1, 1]])
    padding = torch.tensor([[False] * 4, [False, False, True, True]])
    split = split_patches(masks, None, 2, padding)
    assert split.visible.tolist() == [[1, 3], [0, 1], [1, 0], [0, 1]]
    assert split.lengths.unused.tolist() == [[False] * 2] * 2 + [[False, True]] * 2
    assert split.visible_rows.tolist() == [1, 3, 4, 5, 9, 12]
    assert split.hidden_rows.tolist() == [0, 2, 6, 7, 8, 13]
    assert split.hidden_sources.tolist() == [0, 2, 2, 3, 4, 5]
    assert split.lengths.used.tolist() == [0, 1, 2, 3, 4, 6]
    assert split.lengths.own_rows.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13]
    assert split.lengths.num_patches == [4, 2]
    assert split.lengths.hidden_share.tolist() == pytest.approx([4 / 3, 4 / 3, 2 / 3, 2 / 3])
