"""The model: options against plain formulas, DINO, reconstruction, inputs that do not fit."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from eat_plugin.losses import normalize_patches
from eat_plugin.models.objectives import channel_deviation
from eat_plugin.modules.compiled import Compiled
from eat_plugin.modules.patches import patchify


def total(output):
    return sum(loss.sum() for loss in output["losses"].values())


def test_forward__gradient_reaches_the_student_only(make_model, batch):
    model = make_model(recon_loss=1.0).train()
    total(model(**batch)).backward()
    missing = [
        name
        for name, p in model.named_parameters()
        if p.requires_grad and (p.grad is None or not p.grad.abs().sum() > 0)
    ]
    assert missing == []
    assert all(average.grad is None for average in model.teacher.averages.values())
    assert not any(average.requires_grad for average in model.teacher.averages.values())
    assert not any(name.startswith("teacher") for name, _ in model.named_parameters())


def test_forward__masks_hide_patches_from_the_student_only(make_model, batch):
    model = make_model(clone_batch=1).train()
    mask = batch["precomputed_mask"][::3]
    hidden = mask[0].nonzero()[0, 0].item()
    other = batch["source"].clone()
    row, column = divmod(hidden, 8)
    other[0, :, row * 16 : row * 16 + 16, column * 16 : column * 16 + 16] += 1

    def student(source):
        return model(
            source, precomputed_mask=mask, features_only=True, force_remove_masked=True,
            remove_extra_tokens=False,
        )["x"]  # fmt: skip

    assert torch.equal(student(batch["source"]), student(other))
    with_target = model(source=batch["source"], target=other, precomputed_mask=mask)
    without = model(source=batch["source"], precomputed_mask=mask)
    assert not torch.allclose(with_target["losses"]["regression"], without["losses"]["regression"])
    assert torch.allclose(
        with_target["losses"]["regression"],
        model(source=other, precomputed_mask=mask)["losses"]["regression"],
    )


def test_forward__clones_equal_a_batch_of_repeated_clips(make_model, batch):
    model = make_model().train()
    cloned = model(**batch)["losses"]["regression"]
    plain = make_model(clone_batch=1).train()
    plain.load_state_dict(model.state_dict())
    repeated = plain(
        source=batch["source"].repeat_interleave(3, 0), precomputed_mask=batch["precomputed_mask"]
    )
    assert torch.allclose(cloned, repeated["losses"]["regression"], atol=1e-12)


def test_forward__num_visible_changes_nothing(make_model, batch):
    model = make_model().train()
    assert torch.equal(total(model(**batch)), total(model(**batch, num_visible=12)))


def test_forward__draws_masks_if_none_are_given(make_model, batch):
    model = make_model().train()
    output = model(source=batch["source"])
    assert output["sample_size"] == 2 * 3 * 52
    assert output["masked_pct"] == 52 / 64


def test_forward__noise_seed(make_model, batch):
    model = make_model(modalities__image__mask_noise_std=0.5).train()
    first, again, other = (total(model(**batch, noise_seed=seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize("weight", ["d2v_loss", "cls_loss", "recon_loss"])
def test_forward__weights_scale_losses_and_0_removes_them(make_model, batch, weight):
    term = {"d2v_loss": "regression", "cls_loss": "cls", "recon_loss": "recon"}[weight]
    base = make_model(recon_loss=1.0).train()
    half = make_model(**{"recon_loss": 1.0, weight: 0.5}).train()
    off = make_model(**{"recon_loss": 1.0, weight: 0.0}).train()
    half.load_state_dict(base.state_dict())
    assert torch.allclose(half(**batch)["losses"][term] * 2, base(**batch)["losses"][term])
    assert term not in off(**batch)["losses"]


def test_forward__no_decoder_without_patch_losses(make_model, batch):
    model = make_model(d2v_loss=0.0).train()
    assert model.patch_encoder.decoder is None
    assert set(model(**batch)["losses"]) == {"cls"}


def test_forward__loss_items(make_model, batch):
    output = make_model(recon_loss=1.0).train()(**batch)
    assert output["sample_size"] == 6 * 52
    assert output["loss_items"] == {"cls": 6 * 52 * 6.0, "regression": 6 * 52.0, "recon": 6 * 52.0}


def test_recon__targets_are_patch_values(make_model, batch):
    model = make_model(recon_loss=1.0).train()
    torch.nn.init.zeros_(model.recon_proj.weight)
    values = normalize_patches(patchify(batch["source"], 16)).repeat_interleave(3, 0)
    expected = values[batch["precomputed_mask"].bool()].square() / 16  # 1 / sqrt(256)
    assert torch.allclose(model(**batch)["losses"]["recon"], expected)


@pytest.mark.parametrize("width", [32, 48])
def test_recon__any_width_and_three_channels(make_model, width):
    model = make_model(
        recon_loss=1.0,
        embed_dim=width,
        modalities__image__embed_dim=width,
        modalities__image__decoder__decoder_dim=width,
        modalities__image__in_chans=3,
        modalities__image__input_size=64,
        modalities__image__mask_length=2,
    ).train()
    source = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    output = model(source=source)
    assert output["losses"]["recon"].shape == (output["sample_size"], 3 * 16 * 16)
    assert output["losses"]["regression"].shape == (output["sample_size"], width)


def test_dino__loss_and_centre_by_hand(make_model, batch):
    model = make_model(
        utterance_level=True,
        ema_decay=1.0,
        ema_end_decay=1.0,
        center_exp=0.7,
        softmax_temperature_student=0.2,
        softmax_temperature_teacher=0.08,
    ).train()
    centre = model.center.clone()
    for step in range(2):
        features = model(**batch)  # moves the centre
        local = model.patch_encoder.local_features(batch["source"])
        target = model.teacher.make_targets(model, batch["source"], local)[0].mean(dim=1)
        visible = (batch["precomputed_mask"] == 0).nonzero()[:, 1].view(6, -1)
        tokens = model.patch_encoder.add_positions(local).repeat_interleave(3, 0)
        tokens = tokens.gather(1, visible.unsqueeze(-1).expand(-1, -1, 32))
        x, _ = model.run_blocks(model.patch_encoder.contextualize(tokens))
        expected = 0.0
        for row, logits in enumerate(model.cls_proj(x[:, 0])):
            p = ((target[row // 3] - centre[0]) / 0.08).softmax(0)
            expected -= (p * (logits / 0.2).softmax(0).log()).sum() / 6
        assert features["losses"]["cls"].item() == pytest.approx(312 * expected.item(), rel=1e-9)
        centre = 0.7 * centre + 0.3 * target.mean(dim=0)
        assert torch.allclose(model.center, centre, atol=1e-12), f"step {step}"


def test_dino__centre_is_a_buffer_and_constant_in_evaluation(make_model, batch):
    model = make_model(utterance_level=True).eval()
    before = model.center.clone()
    with torch.no_grad():
        model(**batch)
    assert torch.equal(model.center, before)
    assert model.state_dict()["center"].shape == (1, 32)
    assert "center" not in dict(model.named_parameters())
    published = {**model.state_dict(), "center": torch.full((1, 1, 32), 3.0)}
    model.load_state_dict(published)
    assert model.center.shape == (1, 32)
    assert torch.equal(model.center, torch.full_like(model.center, 3.0))


def test_dino__centre_stays_float32_in_half_precision(make_model):
    model = make_model(utterance_level=True).float()
    before = model.center.clone()
    model.to(torch.bfloat16)
    assert model.center.dtype == torch.float32
    assert torch.equal(model.center, before)


@pytest.mark.parametrize("zero", [True, False])
def test_dino__centre_starts_at_random_or_at_0(make_model, zero):
    model = make_model(utterance_level=True, init_center_token_zero=zero)
    deviation = 0 if zero else pytest.approx(1, rel=0.3)
    assert model.center.square().mean().sqrt().item() == deviation


def test_loss_options__beta_and_scale(make_model, batch):
    plain, changed = make_model().train(), make_model(loss_beta=0.7, loss_scale=2.0).train()
    changed.load_state_dict(plain.state_dict())
    error = (plain(**batch)["losses"]["regression"] * math.sqrt(32)).sqrt()  # |prediction - target|
    expected = torch.where(error < 0.7, error**2 / 1.4, error - 0.35) * 2.0
    assert torch.allclose(changed(**batch)["losses"]["regression"], expected, atol=1e-9)


@pytest.mark.parametrize(
    "changes",
    [
        {"instance_norm_target_layer": False, "layer_norm_target_layer": True},
        {"instance_norm_target_layer": False, "batch_norm_target_layer": True},
        {"layer_norm_targets": False, "instance_norm_targets": True},
        {"average_top_k_layers": 1, "end_of_block_targets": True},
    ],
)
def test_targets__options_are_honoured(make_model, batch, changes):
    model = make_model(**changes).train()
    cfg = model.cfg
    encoder = model.teacher.encoder
    x = encoder.patch_encoder.local_features(batch["source"])
    x = encoder.patch_encoder.contextualize(encoder.patch_encoder.add_positions(x))
    layers = []
    for block in encoder.blocks:
        x, target = block(x)
        layer = (x if cfg.end_of_block_targets else target)[:, 1:]
        if cfg.batch_norm_target_layer:
            flat = layer.flatten(0, 1)
            layer = (layer - flat.mean(0)) / (flat.var(0, unbiased=False) + 1e-5).sqrt()
        if cfg.instance_norm_target_layer:
            layer = (layer - layer.mean(1, True)) / (layer.var(1, False, True) + 1e-5).sqrt()
        if cfg.layer_norm_target_layer:
            layer = F.layer_norm(layer, (32,))
        layers.append(layer)
    layers = layers[-cfg.average_top_k_layers :]
    expected = sum(layers) / len(layers)
    if cfg.layer_norm_targets:
        expected = F.layer_norm(expected, (32,))
    if cfg.instance_norm_targets:
        mean, var = expected.mean(1, True), expected.var(1, False, True)
        expected = (expected - mean) / (var + 1e-5).sqrt()
    result, _ = model.teacher.make_targets(
        model, batch["source"], model.patch_encoder.local_features(batch["source"])
    )
    assert torch.allclose(result, expected, atol=1e-9)


def test_layerdrop__skips_blocks_in_training_only(make_model, batch):
    model = make_model(layerdrop=1.0)
    source = batch["source"]
    tokens = model.patch_encoder.contextualize(
        model.patch_encoder.add_positions(model.patch_encoder.local_features(source))
    )
    x, targets = model.train().run_blocks(tokens)
    assert torch.equal(x, tokens)
    assert targets == []
    x.sum().backward()  # other ranks wait for all gradients
    assert all((p.grad == 0).all() for p in model.blocks.parameters())
    x, targets = model.eval().run_blocks(tokens)
    assert len(targets) == 2


def test_drop_path__rises_from_first_to_last_block(make_model):
    model = make_model(start_drop_path_rate=0.1, end_drop_path_rate=0.3)
    assert [block.drop_path for block in model.blocks] == pytest.approx([0.1, 0.3])


def test_initialisation(make_model):
    model = make_model(depth=2, mae_init=False)
    weight = model.blocks[0].mlp.fc1.weight
    assert weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert not model.blocks[0].mlp.fc1.bias.any()
    assert model.patch_encoder.extra_tokens.std().item() == pytest.approx(1, rel=0.5)
    decoder = model.patch_encoder.decoder
    bound = 1 / math.sqrt(32)
    assert decoder.proj.weight.abs().max() <= bound
    assert decoder.proj.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)
    conv = model.patch_encoder.local_encoder.proj.weight
    assert conv.abs().max().item() == pytest.approx(math.sqrt(6 / (256 + 32)), rel=0.02)


def test_features__masked_inputs(make_model, batch):
    model = make_model().eval()
    mask = batch["precomputed_mask"][::3]
    blanked = model(source=batch["source"], features_only=True, precomputed_mask=mask)
    removed = model(
        source=batch["source"], features_only=True, force_remove_masked=True, precomputed_mask=mask
    )
    assert blanked["x"].shape == (2, 64, 32)
    assert removed["x"].shape == (2, 12, 32)
    assert torch.equal(removed["mask"], mask)
    whole = model.extract_features(batch["source"], remove_extra_tokens=False)
    assert whole["x"].shape == (2, 65, 32)
    assert torch.equal(whole["x"][:, 1:], model.extract_features(batch["source"])["x"])


def test_features__do_not_see_padding(make_model, batch):
    model = make_model().eval()
    source = batch["source"]
    padding = torch.zeros(2, 64, dtype=torch.bool)
    padding[:, 32:] = True
    padded = model.extract_features(source, padding_mask=padding)
    alone = model.extract_features(source[:, :, :64])
    assert torch.allclose(padded["x"][:, :32], alone["x"], atol=1e-10)


def test_mel_by_time__transposes_the_input(make_model, batch):
    plain, flipped = make_model().eval(), make_model(modalities__image__mel_by_time=True).eval()
    flipped.load_state_dict(plain.state_dict())
    source = torch.randn(2, 1, 64, 128, dtype=torch.float64)
    assert torch.equal(
        plain.extract_features(source)["x"],
        flipped.extract_features(source.transpose(2, 3))["x"],
    )
    with pytest.raises(ValueError, match=r"expected \[B, 1, T, 128\] .*mel_by_time"):
        plain.extract_features(source.transpose(2, 3))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": torch.zeros(2, 3, 128, 128)}, r"expected \[B, 1, T, 128\]"),
        ({"source": torch.zeros(2, 1, 120, 128)}, "divisible by patch_size=16"),
        ({"precomputed_mask": torch.zeros(2, 64)}, r"shape \(2, 64\); expected \(6, 64\)"),
        ({"mode": "AUDIO"}, "'AUDIO'; the only choice is IMAGE"),
        ({"padding_mask": torch.zeros(2, 63)}, r"shape \(2, 63\); expected \(2, 64\)"),
        ({"mask": False}, "mask=True"),
    ],
)
def test_forward__refuses_invalid_input(make_model, batch, changes, message):
    changes = {
        name: value.double() if name == "source" else value for name, value in changes.items()
    }
    with pytest.raises(ValueError, match=message):
        make_model().train()(**{**batch, **changes})


def test_skip_ema__cannot_train(make_model, batch):
    model = make_model(skip_ema=True)
    assert "_ema" not in model.state_dict()
    assert model.extract_features(batch["source"])["x"].shape == (2, 64, 32)
    with pytest.raises(ValueError, match=r"skip_ema"):
        model(**batch)


@pytest.mark.parametrize("name", ["target_var", "pred_var"])
def test_variance_check__names_a_collapse(make_model, batch, name):
    model = make_model(**{f"min_{name}": 10.0}).train()
    for update in (5000, 5001, 5099):  # checked every 100 updates, after 5000
        model.set_num_updates(update)
        model(**batch)
        assert not model.collapse
    model.set_num_updates(5100)
    model(**batch)
    assert model.collapse.startswith(f"{name} fell below model.min_{name}=10.0 at update 5100")


class Waits(TorchDispatchMode):
    """Records operations that synchronise GPU and host."""

    NAMES = ("_local_scalar_dense", "nonzero", "masked_select", "lift_fresh", "unique_dim", "item")

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        by_tensor = name == "repeat_interleave" and func._overloadname == "Tensor"
        if name in self.NAMES or by_tensor:
            self.found.append(str(func))
        if name in ("index", "index_put_", "index_put", "_index_put_impl_"):
            self.found += [str(func) for i in args[1] if i is not None and i.dtype == torch.bool]
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "changes",
    [
        {"min_target_var": 0.1, "min_pred_var": 0.01, "utterance_level": True, "recon_loss": 1.0},
        {"loss_beta": 0.1, "recompute": "gelu", "end_drop_path_rate": 0.2},
        {"recompute": "blocks", "modalities__image__decoder__add_positions_masked": True},
    ],
)
def test_forward__does_not_synchronise_gpu_and_host(make_model, batch, changes):
    model = make_model(**changes).train()
    model.set_num_updates(5001)
    batch["source"] = batch["source"].requires_grad_()  # else autograd synchronises
    with Waits() as waits:
        total(model(**batch, num_visible=12, noise_seed=1)).backward()
    assert waits.found == []
    with Waits() as waits:
        model(**batch)  # counts the visible patches
    assert waits.found


@pytest.mark.parametrize("recompute", ["gelu", "blocks"])
@pytest.mark.parametrize("double", [True, False])
def test_recompute__same_losses_and_gradients_bit_for_bit(make_model, batch, recompute, double):
    random = {"encoder_dropout": 0.1, "end_drop_path_rate": 0.5, "activation_dropout": 0.1}
    results = []
    for kind in ("none", recompute):
        model = make_model(recompute=kind, **random).train()
        if not double:
            model, batch["source"] = model.float(), batch["source"].float()
        torch.manual_seed(1)
        loss = total(model(**batch))
        loss.backward()
        results.append([loss, *(p.grad for p in model.parameters() if p.requires_grad)])
    assert all(torch.equal(a, b) for a, b in zip(*results))


def test_recompute__refuses_unknown_values(make_model):
    with pytest.raises(
        ValueError, match=r"model.recompute is 'all'; choose one of none, gelu, blocks"
    ):
        make_model(recompute="all")


def test_compile__blocks_decoder_and_teacher(make_model, batch, monkeypatch):
    chosen = []

    def choose(self, *args):
        chosen.append((self.what, args[0].training))
        return self.function

    monkeypatch.setattr(Compiled, "choose", choose)
    model, plain = make_model(compile=True).train(), make_model().train()
    loss = total(model(**batch, noise_seed=1))
    layers = len(model.patch_encoder.decoder.blocks)
    assert sorted(chosen) == sorted(
        [("transformer blocks", True)] * 2
        + [("transformer blocks", False)] * 2  # the teacher's
        + [("decoder's layers", True)] * layers
    )
    assert torch.equal(loss, total(plain(**batch, noise_seed=1)))
    assert list(model.state_dict()) == list(plain.state_dict())
    copied = copy.deepcopy(model)
    assert torch.equal(total(copied(**batch, noise_seed=1)), loss)
    chosen.clear()
    model.eval().extract_features(batch["source"])
    assert chosen == []
    model(**batch)
    assert chosen == [("transformer blocks", False)] * 2


def test_channel_deviation__by_hand():
    values = torch.tensor([[0.0, 5.0], [2.0, 5.0]])  # variances 2 and 0
    expected = (math.sqrt(2 + 1e-6) + math.sqrt(1e-6)) / 2
    assert channel_deviation(values).item() == pytest.approx(expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_channel_deviation__equals_the_root_of_the_variance(dtype):
    torch.manual_seed(0)
    values = (torch.randn(500, 6) * torch.arange(1.0, 7) + 2).to(dtype)
    result = channel_deviation(values)
    assert result.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    expected = (values.double().var(dim=0) + 1e-6).sqrt().mean()
    assert result.item() == pytest.approx(expected.item(), rel=1e-5)


def test_amp__runs_in_mixed_precision(make_model, batch):
    model = make_model(recon_loss=1.0, utterance_level=True).float().train()
    source = batch["source"].float()
    exact = total(model(source, precomputed_mask=batch["precomputed_mask"]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = total(model(source, precomputed_mask=batch["precomputed_mask"]))
    assert mixed.item() == pytest.approx(exact.item(), rel=0.02)
