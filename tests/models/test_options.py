"""Options of the pre-training model: each has the effect in its help, and no other."""

import copy
import math

import pytest
import torch
from torch import nn

IMAGE = "modalities__image__"
DECODER = f"{IMAGE}decoder__"


def total(output):
    return sum(loss.sum() for loss in output["losses"].values())


def shapes_of(tensors):
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def describe(model, batch):
    """Properties that options may change; gradients stay in the model."""
    loss = total(model(**batch))
    loss.backward()
    return {
        "loss": loss.item(),
        "parameters": shapes_of(dict(model.named_parameters())),
        "teacher": shapes_of(model.state_dict()["_ema"]),
        "groups": {getattr(p, "param_group", None) for p in model.parameters()},
    }


@pytest.mark.parametrize(
    ("changes", "changed"),
    [
        ({"ema_encoder_only": True}, {"teacher"}),
        ({f"{IMAGE}ema_local_encoder": False}, {"teacher"}),
        ({"layer_norm_first": True}, {"loss", "parameters", "teacher"}),
        ({"mae_init": True}, {"loss"}),
        ({"norm_affine": False}, {"parameters", "teacher"}),
        ({f"{IMAGE}fixed_positions": False}, {"loss", "parameters", "teacher"}),
        ({f"{DECODER}add_positions_masked": True}, {"loss"}),
        ({f"{DECODER}add_positions_all": True}, {"loss"}),
        ({f"{DECODER}decoder_residual": False}, {"loss"}),
        ({f"{IMAGE}embed_dim": 24}, {"loss", "parameters", "teacher"}),
        ({f"{IMAGE}init_extra_token_zero": True}, {"loss"}),
        ({"decoder_group": True}, {"groups"}),
    ],
)
def test_options__train_and_round_trip(make_model, batch, changes, changed):
    model = make_model(**changes).train()
    found, usual = describe(model, batch), describe(make_model().train(), batch)
    assert {name for name, value in found.items() if value != usual[name]} == changed
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.sub_(parameter.grad, alpha=1e-4)
    model.set_num_updates(1)
    copied = make_model(**changes).train()
    copied.load_state_dict(copy.deepcopy(model.state_dict()))
    assert torch.equal(total(copied(**batch)), total(model(**batch)))


def test_options__modules_and_parameter_groups(make_model):
    pre_norm = make_model(layer_norm_first=True)
    assert pre_norm.norm is not None
    assert pre_norm.patch_encoder.context_encoder.norm is None
    narrow = make_model(modalities__image__embed_dim=24).state_dict()
    assert narrow["modality_encoders.IMAGE.local_encoder.0.proj.weight"].shape == (24, 1, 16, 16)
    assert narrow["modality_encoders.IMAGE.local_encoder.1.weight"].shape == (32, 24)
    grouped = dict(make_model(decoder_group=True).named_parameters())
    groups = {name: getattr(p, "param_group", "default") for name, p in grouped.items()}
    assert groups["modality_encoders.IMAGE.decoder.proj.weight"] == "decoder"
    assert groups["blocks.0.attn.qkv.weight"] == "default"


def test_ema__parts_of_the_teacher(make_model):
    def parts(**changes):
        averages = make_model(**changes).teacher.averages
        return {name.removeprefix("modality_encoders.IMAGE.").split(".")[0] for name in averages}

    everything = {"local_encoder", "extra_tokens", "fixed_positional_encoder", "context_encoder"}
    assert parts() == everything | {"blocks"}
    assert parts(modalities__image__ema_local_encoder=False) == parts() - {"local_encoder"}
    assert parts(ema_encoder_only=True) == {"0", "1"}  # blocks


def test_norms__norm_affine_and_norm_eps(make_model):
    for changes, affine, eps in (({}, True, 1e-6), ({"norm_affine": False}, False, 1e-6),
                                 ({"norm_eps": 1e-3}, True, 1e-3)):  # fmt: skip
        model = make_model(**changes)
        for encoder in (model, model.teacher.encoder):
            norms = [module for module in encoder.modules() if isinstance(module, nn.LayerNorm)]
            assert len(norms) == 1 + 2 * 2
            assert {(n.elementwise_affine, n.eps) for n in norms} == {(affine, eps)}


@pytest.mark.parametrize(("number", "zeros"), [(1, [True]), (2, [True, False])])
def test_init_extra_token_zero__affects_the_first_token(make_model, number, zeros):
    name = f"{IMAGE}num_extra_tokens"
    options = {name: number, f"{IMAGE}init_extra_token_zero": True}
    tokens = make_model(**options).patch_encoder.extra_tokens[0]
    assert [not token.any() for token in tokens] == zeros
    options[f"{IMAGE}init_extra_token_zero"] = False
    assert all(token.any() for token in make_model(**options).patch_encoder.extra_tokens[0])


def test_mae_init__is_xavier_uniform(make_model):
    for linear in (module for module in make_model(mae_init=True).blocks.modules()
                   if isinstance(module, nn.Linear)):  # fmt: skip
        bound = math.sqrt(6 / (linear.in_features + linear.out_features))
        assert 0.97 * bound < linear.weight.abs().max().item() <= bound
        assert linear.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
        assert not linear.bias.any()


@pytest.mark.parametrize("factor", [0.25, 0.0])
def test_local_grad_mult__affects_the_patch_embedding_only(make_model, batch, factor):
    gradients = []
    for options in ({}, {f"{IMAGE}local_grad_mult": factor}):
        model = make_model(**options).train()
        total(model(**batch)).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    # Other ranks wait for all gradients.
    embedding = model.patch_encoder.local_encoder
    assert {p.requires_grad for p in embedding.parameters()} == {factor > 0}
    usual, changed = gradients
    for name, gradient in changed.items():
        if ".local_encoder." not in name:
            assert gradient is usual[name] is None or torch.equal(gradient, usual[name]), name
        elif factor == 0:
            assert gradient is None, name
        else:
            torch.testing.assert_close(gradient, factor * usual[name])


# ---- Inputs and outputs of parts ----------------------------------------------------------------


def capture(model, path, batch, side="input", **options):
    """Run a model; return the input or output of one of its parts."""
    seen = []
    handle = model.get_submodule(path).register_forward_hook(
        lambda module, args, output: seen.append(args[0] if side == "input" else output)
    )
    with torch.no_grad():
        model(**batch, **options)
    handle.remove()
    return seen[0].clone()


def test_fixed_positions__are_added_to_the_patches(make_model, batch):
    usual, without = make_model(), make_model(modalities__image__fixed_positions=False)
    table = usual.patch_encoder.fixed_positional_encoder(64)
    patches = without.patch_encoder.embed(batch["source"])
    assert torch.equal(patches, without.patch_encoder.local_features(batch["source"]))
    assert torch.equal(usual.patch_encoder.embed(batch["source"]), patches + table)


@pytest.mark.parametrize("where", ["masked", "all"])
def test_decoder__positions_are_added_to_its_input(make_model, batch, where):
    path = "modality_encoders.IMAGE.decoder"
    plain = capture(make_model().train(), path, batch)  # [N, L, D], hidden patches without noise
    model = make_model(**{f"{DECODER}add_positions_{where}": True}).train()
    table = model.patch_encoder.fixed_positional_encoder(64)
    hidden = batch["precomputed_mask"].bool().unsqueeze(-1)
    assert not plain[hidden.expand_as(plain)].any()
    gets_them = hidden if where == "masked" else torch.ones_like(hidden)
    torch.testing.assert_close(
        capture(model, path, batch), torch.where(gets_them, plain + table, plain), rtol=0, atol=0
    )


def test_decoder_residual__adds_the_input(make_model):
    usual = make_model().patch_encoder.decoder
    without = make_model(modalities__image__decoder__decoder_residual=False).patch_encoder.decoder
    x = torch.randn(2, 32, 8, 8, dtype=torch.float64)
    for ours, theirs in zip(without.blocks, usual.blocks):
        assert torch.equal(ours(x) + x, theirs(x))


@pytest.mark.parametrize("zero", [True, False])
def test_encoder_zero_mask__zero_or_noise_at_hidden_patches(make_model, batch, zero):
    mask = batch["precomputed_mask"] = batch["precomputed_mask"][::3]
    model = make_model(
        modalities__image__encoder_zero_mask=zero, modalities__image__mask_noise_std=0.5
    ).eval()
    path = "modality_encoders.IMAGE.context_encoder"
    tokens = capture(model, path, batch, features_only=True)[:, 1:]
    expected = model.patch_encoder.embed(batch["source"])
    assert torch.equal(tokens[mask == 0], expected[mask == 0])
    hidden = tokens[mask == 1]
    assert hidden.mean().item() == pytest.approx(0, abs=0.03)
    assert hidden.std().item() == (0 if zero else pytest.approx(0.5, rel=0.05))


@pytest.mark.parametrize(
    ("option", "path", "side"),
    [
        (f"{DECODER}input_dropout", "modality_encoders.IMAGE.decoder", "input"),
        (f"{IMAGE}prenet_dropout", "blocks.0", "input"),
        ("dropout_input", "blocks.0", "input"),
        ("encoder_dropout", "blocks.0.attn", "output"),
        ("activation_dropout", "blocks.0.mlp.fc2", "input"),
        ("post_mlp_drop", "blocks.0.mlp_drop", "output"),
    ],
)
def test_dropout__drops_its_share_in_training_only(make_model, batch, option, path, side):
    plain = capture(make_model().train(), path, batch, side)
    model = make_model(**{option: 0.75}).train()
    dropped = capture(model, path, batch, side)
    kept = dropped != 0
    assert kept[plain != 0].double().mean().item() == pytest.approx(0.25, abs=0.03)
    torch.testing.assert_close(dropped[kept], 4 * plain[kept])
    assert torch.equal(capture(model.eval(), path, batch, side), plain)


def test_attention_dropout__acts_in_training_only(make_model, batch):
    plain, model = make_model().train(), make_model(attention_dropout=0.5).train()
    expected = capture(plain, "blocks.0.attn", batch, "output")
    assert not torch.allclose(capture(model, "blocks.0.attn", batch, "output"), expected)
    assert torch.equal(capture(model.eval(), "blocks.0.attn", batch, "output"), expected)
