"""The teacher's target of a clip, by each choice of ``model.cls_target``."""

import pytest
import torch
import torch.nn.functional as F

from eat_plugin.models.utterance_options import CLS_TARGETS


def targets_of(model, source, padding=None):
    local = model.patch_encoder.local_features(source)
    return model.teacher.make_targets(model, source, local, padding)


@pytest.mark.parametrize("kind", CLS_TARGETS)
@pytest.mark.parametrize("layer_norm", [False, True])
def test_target__by_hand(make_model, batch, kind, layer_norm):
    model = make_model(cls_target=kind, layer_norm_target_layer=layer_norm)
    encoder = model.teacher.encoder
    x = encoder.patch_encoder.contextualize(encoder.patch_encoder.embed(batch["source"]))
    layers = []
    for block in encoder.blocks:
        x, target = block(x)
        layer = last = target[:, 1:]
        layers.append(F.layer_norm(layer, (32,)) if layer_norm else layer)
    last = F.instance_norm(last.transpose(1, 2)).transpose(1, 2)
    last = F.layer_norm(F.layer_norm(last, (32,)) if layer_norm else last, (32,))
    patches, found = targets_of(model, batch["source"])
    expected = {
        "targets": patches.mean(dim=1),
        "last_targets": last.mean(dim=1),
        "layers": F.layer_norm((layers[0] + layers[1]).mean(dim=1) / 2, (32,)),
        "last": F.layer_norm(layers[1].mean(dim=1), (32,)),
        "cls": F.layer_norm(x[:, 0], (32,)),
    }[kind]
    torch.testing.assert_close(found, expected)
    plain, _ = targets_of(make_model(layer_norm_target_layer=layer_norm), batch["source"])
    assert torch.equal(patches, plain)


@pytest.mark.parametrize("kind", CLS_TARGETS)
def test_target__does_not_depend_on_padding(make_model, batch, kind):
    model = make_model(cls_target=kind)
    short = batch["source"][:, :, :64]
    padded = torch.cat([short, torch.zeros_like(short)], dim=2)
    padding = torch.zeros(2, 64, dtype=torch.bool)
    padding[:, 32:] = True
    torch.testing.assert_close(
        targets_of(model, padded, padding)[1], targets_of(model, short)[1], rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("kind", CLS_TARGETS)
def test_regression__compares_cls_with_the_target(make_model, batch, kind):
    model = make_model(cls_target=kind, cls_loss=0.5).train()
    step = model.make_step(batch["source"], batch["source"], batch["precomputed_mask"])
    assert not step.utterance_target.requires_grad
    target = step.utterance_target.repeat_interleave(3, dim=0)
    error = (step.student[:, 0] - target).square() / 32**0.5
    output = model(**batch)
    torch.testing.assert_close(output["losses"]["cls"], error * 0.5 * output["sample_size"])


def test_target__is_made_for_objectives_that_ask_for_it(make_model, batch):
    assert targets_of(make_model(cls_loss=0.0), batch["source"])[1] is None
    assert targets_of(make_model(), batch["source"])[1] is not None


def test_target__in_half_precision_is_float32(make_model, batch):
    for kind in CLS_TARGETS:
        model = make_model(cls_target=kind).float().to(torch.bfloat16)
        assert targets_of(model, batch["source"].to(torch.bfloat16))[1].dtype == torch.float32


def test_validation__lists_the_choices(make_model):
    with pytest.raises(ValueError, match="cls_target is 'mean'; choose one of targets, layers"):
        make_model(cls_target="mean")
