"""BAT's ingredients against the numbers of its published code, and one another."""

import copy

import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf

from eat_plugin.bat_files import IMAGE, NAMES
from eat_plugin.losses import asymmetric_loss
from eat_plugin.models.bat_options import require_convolutions
from eat_plugin.models.config import EatConfig
from eat_plugin.models.eat import EatModel
from eat_plugin.modules.patch_split import split_patches
from eat_plugin.optim.adamw import MixedPrecisionAdamW

TOLERANCE = 1e-5
OF_DECODER = {"pos_embed": "positions", "out_proj.weight": "proj.weight"}
OPTIONS = {
    "depth": 3, "embed_dim": 48, "num_heads": 3, "average_top_k_layers": 3, "clone_batch": 4,
    "attention_gate": True, "end_of_block_targets": True, "instance_norm_target_layer": True,
    "layer_norm_targets": True, "target_norm_eps": 1e-6, "loss_average": "elements",
    "cls_loss": 1.0, "mae_init": True, "ema_encoder_only": False, "encoder_dropout": 0.0,
    "post_mlp_drop": 0.0, "attention_dropout": 0.0, "ema_anneal_end_step": 1,
    "modalities": {
        "image": {
            "in_chans": 1, "embed_dim": 48, "num_extra_tokens": 1, "prenet_depth": 0,
            "init_extra_token_zero": False, "extra_token_std": 0.02, "ema_local_encoder": True,
            "positions": "published", "max_length": 12, "target_length": 192,
            "decoder": {
                "decoder_kind": "vit", "decoder_dim": 48, "decoder_layers": 2,
                "input_dropout": 0.0,
            },
        }
    },
}  # fmt: skip


def build(**changes):
    cfg = OmegaConf.merge(OmegaConf.structured(EatConfig()), copy.deepcopy(OPTIONS))
    for name, value in changes.items():
        OmegaConf.update(cfg, name.replace("__", "."), value)
    torch.manual_seed(0)
    return EatModel(cfg).train()


def rename(weights, prefix="encoder."):
    """Published names to ours; ``prefix`` is that of the encoder."""
    renamed = {}
    for name, value in weights.items():
        if name.startswith("decoder."):
            own = name[len("decoder.") :]
            renamed[f"{IMAGE}decoder.{OF_DECODER.get(own, own)}"] = value.clone()
        else:
            own = name[len(prefix) :]
            renamed[NAMES.get(own, own)] = value.clone()
    return renamed


@pytest.fixture
def published(shared):
    return torch.load(shared / "golden" / "bat_tiny.pt", weights_only=True)


@pytest.fixture
def model(published):
    model = build()
    teacher = rename(published["teacher_before"], "")
    model.load_state_dict({**rename(published["student_before"]), "_ema": teacher})
    return model


def losses_of(output):
    """The utterance loss and that of patches, as means."""
    names = ("cls", "regression")
    return [output["losses"][name].sum() / output["sample_size"] for name in names]


def batch(published):
    return {"source": published["features"], "precomputed_mask": published["mask"]}


def test_targets__are_the_published_ones(model, published):
    targets, of_clip = model.teacher.make_targets(model, published["features"], None)
    torch.testing.assert_close(targets, published["targets"], rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(of_clip, published["targets"].mean(dim=1), rtol=0, atol=TOLERANCE)


def test_features__of_all_blocks_are_the_published_ones(model, published):
    outputs = torch.stack(model.eval().teacher.encoder.block_outputs(published["features"]))
    expected = {"layer_cls": outputs[:, :, 0], "teacher_layers": outputs[:, :, 1:]}
    for name, found in expected.items():
        torch.testing.assert_close(found, published[name], rtol=0, atol=TOLERANCE)


def test_step__predicts_as_published(model, published):
    step = model.make_step(
        published["features"], published["features"], published["mask"], noise_seed=1
    )
    torch.testing.assert_close(step.student[:, 0], published["student_cls"], rtol=0, atol=TOLERANCE)
    everywhere = published["student_patches"].flatten(0, 1)  # of a decoder that leaves out nothing
    hidden = everywhere[step.split.hidden_rows]
    torch.testing.assert_close(step.prediction, hidden, rtol=0, atol=TOLERANCE)


def test_three_updates__equal_the_published_ones(model, published):
    optimizer = MixedPrecisionAdamW(
        [p for p in model.parameters() if p.requires_grad],
        {"lr": 0.0, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.05},
    )
    for number, (rate, decay) in enumerate(zip(published["lrs"], published["decays"])):
        found = losses_of(model(**batch(published)))
        expected = published["losses"][number]
        assert [float(loss) for loss in found] == pytest.approx(expected, abs=TOLERANCE)
        optimizer.zero_grad()
        sum(found).backward()
        if number == 0:
            gradients = rename(published["gradients"])
            parameters = dict(model.named_parameters())
            assert gradients.keys() == {n for n, p in parameters.items() if p.requires_grad}
            for name, gradient in gradients.items():
                found = parameters[name].grad
                torch.testing.assert_close(found, gradient, rtol=0, atol=TOLERANCE)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        model.teacher.step(model, decay)  # what the next losses are of
    state = model.state_dict()
    for name, weight in rename(published["student_after"]).items():
        torch.testing.assert_close(state[name], weight, rtol=0, atol=1e-4)  # Adam: signs near 0


def test_asymmetric_loss__is_the_published_one(published):
    logits, targets = published["cgp"]["logits"], published["asymmetric"]["targets"]
    found = asymmetric_loss(logits, targets, 4.0, 1.0, 0.05).mean()
    torch.testing.assert_close(found, published["asymmetric"]["loss"], rtol=0, atol=1e-6)


# ---- The decoder: what no loss sees is left out -------------------------------------------------


def decode_all(decoder, visible, split, length):
    """All patches in their places through whole blocks, [N, L, D]."""
    x = visible if decoder.in_proj is None else decoder.in_proj(visible)
    rows = len(x)
    canvas = decoder.mask_token.expand(rows, length, -1).clone()
    canvas = canvas.scatter(1, split.visible.unsqueeze(-1).expand_as(x), x)
    x = canvas + decoder.positions[:, :length]
    for block in decoder.blocks:
        x, _ = block(x)
    return decoder.proj(x if decoder.norm is None else decoder.norm(x))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"attention_gate": False, "layer_norm_first": True},
        {"modalities__image__decoder__decoder_dim": 32,
         "modalities__image__decoder__decoder_heads": 4},
        {"modalities__image__decoder__decoder_layers": 1},
    ],
)  # fmt: skip
def test_decoder__equals_one_that_leaves_out_nothing(changes):
    model = build(**changes).double()
    source, masks = make_batch()
    step = model.make_step(source, source, masks)
    visible = step.student[:, 1:]
    whole = decode_all(model.patch_encoder.decoder, visible, step.split, 96)
    expected = whole.flatten(0, 1)[step.split.hidden_rows]
    torch.testing.assert_close(step.prediction, expected, rtol=1e-10, atol=1e-12)
    found = torch.autograd.grad(step.prediction.square().sum(), step.student, retain_graph=True)
    known = torch.autograd.grad(expected.square().sum(), step.student)
    torch.testing.assert_close(found, known, rtol=1e-9, atol=1e-11)


def make_batch(columns=12):
    generator = torch.Generator().manual_seed(1)
    source = torch.randn(2, 1, 192, 128, generator=generator, dtype=torch.float64)
    masks = torch.rand(8, 96, generator=generator).argsort(dim=1) >= 20
    return source, masks.to(torch.uint8)


SHARE = {"modalities__image__decoder__hidden_share": 0.5}


def test_hidden_share__predicts_half_as_if_the_rest_were_not_there():
    model = build(**SHARE).double()
    source, masks = make_batch()
    output = model(source, precomputed_mask=masks, num_visible=20, noise_seed=3)
    assert output["sample_size"] == output["losses"]["regression"].size(0) == 8 * 38
    assert output["masked_pct"] == pytest.approx(76 / 96)
    step = model.make_step(source, source, masks, noise_seed=3)
    split = step.split
    assert (masks.gather(1, split.hidden) == 1).all()
    assert all(len(set(row.tolist())) == 38 for row in split.hidden)
    targets = step.targets.repeat_interleave(4, dim=0)
    expected = targets.gather(1, split.hidden.unsqueeze(-1).expand(-1, -1, 48)).flatten(0, 1)
    assert torch.equal(step.hidden_targets, expected)
    # Other patches of another seed, the same of the same seed; all of them in evaluation.
    again, other = (model.make_step(source, source, masks, noise_seed=n) for n in (3, 4))
    assert torch.equal(again.split.hidden, split.hidden)
    assert not torch.equal(other.split.hidden, split.hidden)
    assert model.eval().make_step(source, source, masks).split.hidden.size(1) == 76


def test_hidden_share__draws_every_patch_alike():
    encoder, (_, masks) = build(**SHARE).patch_encoder, make_batch()
    counts, split = torch.zeros(8, 96), split_patches(masks, 20, 4, None)
    for seed in range(200):
        hidden = encoder.choose_hidden(split, 96, seed, 4).hidden
        counts.scatter_add_(1, hidden, torch.ones(8, 38))
    shares = counts[masks == 1] / 200
    assert shares.mean() == pytest.approx(0.5)
    assert 0.3 < shares.min() < shares.max() < 0.7  # five deviations


@pytest.mark.parametrize("recompute", ["gelu", "blocks"])
def test_recompute__same_losses_and_gradients_bit_for_bit(recompute):
    source, masks = make_batch()
    results = []
    for kind in ("none", recompute):
        model = build(recompute=kind, **SHARE)
        output = model(source.float(), precomputed_mask=masks, noise_seed=1)
        sum(losses_of(output)).backward()
        trained = [p for p in model.parameters() if p.requires_grad]
        results.append([*losses_of(output), *(p.grad for p in trained)])
    assert all(torch.equal(first, second) for first, second in zip(*results))


# ---- Options ------------------------------------------------------------------------------------


def test_gate__by_hand():
    model = build().double()
    attention = model.blocks[0].attn
    x = torch.randn(2, 5, 48, dtype=torch.float64)
    with torch.no_grad():
        attention.gate.weight.zero_()
        attention.gate.bias.fill_(float("inf"))
        full = attention(x)
        attention.gate.bias.fill_(0.0)  # sigmoid(0) = 1/2
        half = attention(x)
    bias = attention.proj.bias
    torch.testing.assert_close(half - bias, (full - bias) / 2, rtol=1e-12, atol=1e-12)


def test_start__values_of_weights():
    model = build()
    image = model.patch_encoder
    for tokens in (image.extra_tokens, image.decoder.mask_token):
        assert float(tokens.std()) == pytest.approx(0.02, rel=0.4)
    bound = (6 / (48 + 48)) ** 0.5  # Xavier
    for layer in (image.decoder.proj, image.decoder.blocks[0].attn.gate, model.blocks[1].attn.proj):
        assert 0.98 * bound < float(layer.weight.abs().max()) <= bound
    assert image.decoder.proj.bias is None
    assert not image.decoder.blocks[0].attn.gate.bias.any()


def test_positions__in_the_grid_and_as_published():
    model, other = build(modalities__image__positions="grid"), build()
    for name in ("fixed_positional_encoder", "decoder"):
        table, transposed = (
            getattr(each.patch_encoder, name).positions[0] for each in (model, other)
        )
        # Mel, then time: neighbours in time differ in the second half of the width alone.
        assert torch.equal(table[0, :24], table[8, :24])
        assert torch.equal(table[0, 24:], table[1, 24:])
        assert torch.equal(transposed[0, 24:], transposed[11, 24:])
        assert not torch.equal(transposed[0, :24], transposed[8, :24])


def test_loss_average__elements_are_the_mean_of_the_batch():
    model, published = build().double(), build(loss_average="published").double()
    source, masks = make_batch()
    found, other = (m(source, precomputed_mask=masks) for m in (model, published))
    step = model.make_step(source, source, masks)
    cls, regression = losses_of(found)
    expected = F.mse_loss(step.prediction, step.hidden_targets)
    torch.testing.assert_close(regression, expected)
    of_clip = step.utterance_target.repeat_interleave(4, dim=0)
    torch.testing.assert_close(cls, F.mse_loss(step.student[:, 0], of_clip))
    assert found["loss_items"] == dict.fromkeys(("cls", "regression"), 8 * 76.0)
    torch.testing.assert_close(losses_of(other)[0], cls * 8 * 48**0.5)
    torch.testing.assert_close(losses_of(other)[1], regression * 48**0.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss_average": "mean"}, "loss_average is 'mean'; choose published or elements"),
        ({"target_norm_eps": 0.0}, "target_norm_eps is 0.0; it must be above 0"),
        ({"modalities__image__positions": "time"}, "positions is 'time'; choose grid or published"),
        ({"modalities__image__decoder__decoder_kind": "cnn"}, "is 'cnn'; choose conv or vit"),
        ({"modalities__image__decoder__hidden_share": 0.0}, "hidden_share is 0.0; .* above 0"),
        ({"modalities__image__decoder__decoder_heads": 5}, "decoder_dim is 48; .*_heads=5"),
        ({"modalities__image__decoder__decoder_layers": 0}, "decoder_layers is 0; .* 1 or more"),
        ({"modalities__image__decoder__add_positions_all": True}, "add_positions_all is True; "),
        (
            {**SHARE, "modalities__image__decoder__decoder_kind": "conv"},
            "hidden_share is 0.5; convolutions need all patches",
        ),
    ],
)
def test_options__invalid_values_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        build(**changes)


def test_decoder__refuses_more_patches_than_positions():
    model = build(modalities__image__max_length=24)
    source = torch.randn(2, 1, 208, 128)
    with pytest.raises(ValueError, match="has 104 patches, the decoder positions for 96"):
        model(source)


def test_images__have_positions_of_their_own_grid():
    model = build(
        modalities__image__in_chans=3, modalities__image__image_size=[32, 48],
        modalities__image__patch_size=8, modalities__image__positions="grid",
        modalities__image__mask_length=2,
    )  # fmt: skip
    assert model.patch_encoder.decoder.positions.shape == (1, 4 * 6, 48)
    losses = losses_of(model(torch.randn(2, 3, 32, 48)))
    assert all(0.1 < float(loss.detach()) < 10 for loss in losses)


def test_require_convolutions__for_published_names():
    options = OmegaConf.to_container(OmegaConf.create(OPTIONS))
    with pytest.raises(ValueError, match="decoder_kind is vit; it has no published name"):
        require_convolutions(options)
    options["modalities"]["image"]["decoder"]["decoder_kind"] = "conv"
    assert require_convolutions(options) is options
