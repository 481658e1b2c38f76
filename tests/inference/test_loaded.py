"""Features and predictions of batches."""

import pytest
import torch

from eat_plugin.inference import load_checkpoint
from eat_plugin.models.interop import read_checkpoint


def test_features__last_layer_equals_extract_features(pretrained, source):
    with torch.no_grad():
        expected = pretrained.model.extract_features(source, remove_extra_tokens=False)["x"]
    for layer in (-1, 2):
        torch.testing.assert_close(pretrained.features(source, "all", layer), expected)


def test_features__can_train_another_module(pretrained, source):
    features = pretrained.features(source)
    assert not features.requires_grad
    head = torch.nn.Linear(32, 1)
    head(features).sum().backward()
    torch.testing.assert_close(head.weight.grad[0], features.sum(dim=0))


def test_repr__is_a_short_line(make_checkpoint):
    path = make_checkpoint("pretraining")
    assert repr(load_checkpoint(path)) == (
        f"<EAT pre-trained: {path}, width 32 x depth 2, window 1.28 s, cpu>"
    )
    path = make_checkpoint("classification")
    assert repr(load_checkpoint(path)) == (
        f"<EAT classifier of 3 classes: {path}, width 32 x depth 2, window 1.28 s, cpu>"
    )


@pytest.mark.parametrize("shape", [(16_000,), (2, 16_000), (1, 128, 128)])
def test_tensors__other_than_batches_are_refused(classifier, shape):
    for method in (classifier.predict, classifier.features):
        with pytest.raises(ValueError, match="got the shape .* samples need their rate"):
            method(torch.zeros(shape))


@pytest.mark.parametrize("pre_norm", [False, True])
def test_features__each_layer_is_the_output_of_its_block(make_checkpoint, source, pre_norm):
    loaded = load_checkpoint(make_checkpoint("pretraining", model_layer_norm_first=pre_norm))
    outputs = []
    for block in loaded.encoder.blocks:
        block.register_forward_hook(lambda module, args, output: outputs.append(output[0]))
    every = loaded.features(source, "all", "all")
    if pre_norm:
        with torch.no_grad():
            outputs[1] = loaded.encoder.norm(outputs[1])
    assert every.shape == (3, 2, 65, 32)
    assert torch.equal(every, torch.stack(outputs[:2], dim=1))
    assert torch.equal(loaded.features(source, "all", 1), every[:, 0])
    assert torch.equal(loaded.features(source, "all", -2), every[:, 0])
    torch.testing.assert_close(loaded.features(source, "all", "mean"), every.mean(dim=1))


def test_features__granularities(pretrained, source):
    tokens = pretrained.features(source, "all")  # [3, 1 + 64, 32]
    grid = tokens[:, 1:].reshape(3, 8, 8, 32)
    assert torch.equal(pretrained.features(source), tokens[:, 0])
    assert torch.equal(pretrained.features(source, "grid"), grid)
    torch.testing.assert_close(pretrained.features(source, "frame"), grid.mean(dim=2))
    assert pretrained.features(source, "grid", "all").shape == (3, 2, 8, 8, 32)


def test_features__time_is_the_first_axis_of_the_grid(pretrained, source):
    changed = source.clone()
    changed[:, :, 16:32] += 1  # the second column of patches
    embed = pretrained.encoder.patch_encoder.embed
    with torch.no_grad():
        moved = (embed(changed) - embed(source)).abs().sum(-1).view(3, 8, 8) > 1e-4
    assert moved[:, 1].all()
    assert not moved[:, [0, *range(2, 8)]].any()


def test_features__utterance_without_a_cls_token(make_checkpoint, source):
    image = {"modalities": {"image": {"num_extra_tokens": 0}}}
    path = make_checkpoint("pretraining", model_cls_loss=0.0)
    state = read_checkpoint(path)
    state["cfg"]["model"]["modalities"]["image"].update(image["modalities"]["image"])
    for weights in (state["model"], state["model"]["_ema"]):
        weights.pop("modality_encoders.IMAGE.extra_tokens", None)
    torch.save(state, path)
    loaded = load_checkpoint(path)
    tokens = loaded.features(source, "all")
    assert tokens.shape == (3, 64, 32)
    torch.testing.assert_close(loaded.features(source), tokens.mean(dim=1))


@pytest.mark.parametrize(
    ("granularity", "layer", "message"),
    [
        ("clip", -1, "the granularity is 'clip'; choose one of utterance, frame, all, grid"),
        ("frame", 0, "the layer is 0; choose 1 to 2, -1 to -2, mean or all"),
        ("frame", 3, "the layer is 3;"),
        ("frame", -3, "the layer is -3;"),
        ("frame", "last", "the layer is 'last';"),
    ],
)
def test_features__unknown_arguments(pretrained, source, granularity, layer, message):
    with pytest.raises(ValueError, match=message):
        pretrained.features(source, granularity, layer)


def test_features__do_not_depend_on_mel_by_time(make_checkpoint, source):
    path = make_checkpoint("classification")
    plain = load_checkpoint(path)
    state = read_checkpoint(path)
    encoder = state["cfg"]["model"]["pretrained_model_args"]["model"]
    encoder["modalities"]["image"]["mel_by_time"] = True
    torch.save(state, path)
    turned = load_checkpoint(path)
    source = source[:, :, :64]
    assert torch.equal(turned.features(source, "grid"), plain.features(source, "grid"))
    assert torch.equal(turned.predict(source), plain.predict(source))


@pytest.mark.parametrize(
    ("loss", "single", "smoothed"), [("ce", True, 0.1), ("bce", True, 0.0), ("bce", False, 0.0)]
)
def test_predict__probabilities_of_the_objective(make_checkpoint, source, loss, single, smoothed):
    loaded = load_checkpoint(
        make_checkpoint(
            "classification", task_single_label=single, model_loss=loss,
            model_label_smoothing=smoothed,
        )
    )  # fmt: skip
    with torch.no_grad():
        logits = loaded.model(source)
    expected = logits.softmax(-1) if loss == "ce" else logits.sigmoid()
    assert torch.equal(loaded.predict(source), expected)
    assert loaded.single_label is single


def test_predict__needs_a_classifier(pretrained, source):
    with pytest.raises(ValueError, match="is a pre-trained checkpoint without a classifier"):
        pretrained.predict(source)


def test_predict__refuses_weights_that_are_not_finite(make_checkpoint, source, tmp_path):
    state = read_checkpoint(make_checkpoint("classification"))
    state["model"]["head.weight"][0] = float("nan")
    torch.save(state, tmp_path / "broken.pt")
    with pytest.raises(ValueError, match=r"broken.pt gives scores that are not finite"):
        load_checkpoint(tmp_path / "broken.pt").predict(source)
