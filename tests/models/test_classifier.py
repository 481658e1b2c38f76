"""The classifier: objective, pooling, probe, augmentation, learning rates, checkpoints."""

import math

import pytest
import torch
from omegaconf import OmegaConf

from eat_plugin.losses import asymmetric_loss
from eat_plugin.models.classifier import EatClassifier
from eat_plugin.models.classifier_config import EatClassifierConfig
from eat_plugin.models.pooling import PredictionMode, mean_segments, pool
from eat_plugin.models.published import MaeImageClassificationConfig, MaeImageClassificationModel
from eat_plugin.modules.patches import column_padding


@pytest.fixture
def clips():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(4, 1, 128, 128, generator=generator, dtype=torch.float64)


LABELS = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1]], dtype=torch.float64)


def test_forward__without_labels_gives_logits(make_classifier, clips):
    model = make_classifier().eval()
    logits = model(clips)
    assert logits.shape == (4, 3)
    features = model.model.encode(clips)[0][:, 0]
    torch.testing.assert_close(logits, model.head(model.fc_norm(features)))


def test_use_fc_norm__false(make_classifier, clips):
    model = make_classifier(use_fc_norm=False).eval()
    assert model.fc_norm is None
    features = model.model.encode(clips)[0][:, 0]
    torch.testing.assert_close(model(clips), model.head(features))


def test_forward__bce_sums_over_classes_and_divides_by_positives(make_classifier, clips):
    model = make_classifier().eval()
    label = LABELS.clone()
    label[0, 2] = 1
    output = model(clips, label)
    probability = model(clips).sigmoid()
    expected = -(label * probability.log() + (1 - label) * (1 - probability).log())
    torch.testing.assert_close(output["losses"]["main"].double(), expected, rtol=1e-5, atol=1e-6)
    assert output["sample_size"] == 5
    assert model(clips, label.half())["sample_size"].dtype == torch.float32  # a meter adds it up
    torch.testing.assert_close(output["_predictions"].double(), probability, rtol=1e-5, atol=1e-6)
    assert "correct" not in output


def test_forward__ce_is_divided_by_clips(make_classifier, clips):
    model = make_classifier(loss="ce", single_label=True).eval()
    output = model(clips, LABELS)
    expected = -model(clips).log_softmax(-1)[torch.arange(4), LABELS.argmax(-1)]
    torch.testing.assert_close(output["losses"]["main"].double(), expected, rtol=1e-5, atol=1e-6)
    assert output["sample_size"] == 4
    right = (model(clips).argmax(-1) == LABELS.argmax(-1)).sum()
    assert output["correct"] == right
    assert torch.allclose(output["_predictions"].sum(-1), torch.ones(4))


def test_forward__bce_on_one_label_is_divided_by_clips(make_classifier, clips):
    model = make_classifier(loss="bce", single_label=True).eval()
    label = torch.ones(4, 3, dtype=torch.float64)
    assert model(clips, label)["sample_size"] == 4


def test_forward__asymmetric_is_a_mean_over_clips_and_classes(make_classifier, clips):
    options = {"gamma_negative": 2.0, "gamma_positive": 1.0, "asymmetric_shift": 0.1}
    model = make_classifier(loss="asymmetric", **options).eval()
    output, logits = model(clips, LABELS), model(clips)
    each = asymmetric_loss(logits.float(), LABELS, 2.0, 1.0, 0.1)
    mean = output["losses"]["main"].sum() / output["sample_size"]
    torch.testing.assert_close(mean, each.mean().to(mean.dtype))
    assert output["losses"]["main"].shape == (4,)
    torch.testing.assert_close(output["_predictions"].double(), logits.sigmoid(), atol=1e-6, rtol=0)


def test_head_dropout__in_training_only(make_classifier, clips):
    model = make_classifier(head_dropout=0.2)
    model.head = torch.nn.Identity()
    whole, dropped = model.eval()(clips), model.train()(clips)
    kept = dropped != 0
    assert 0.7 < kept.double().mean() < 0.9  # four deviations
    torch.testing.assert_close(dropped[kept], whole[kept] / 0.8)
    assert torch.equal(model.eval()(clips), whole)


def test_forward__no_scores_in_training(make_classifier, clips):
    output = make_classifier(loss="ce", single_label=True).train()(clips, LABELS)
    assert set(output) == {"losses", "sample_size"}


def test_forward__label_smoothing_in_training_only(make_classifier, clips):
    plain = make_classifier(loss="ce", single_label=True)
    smooth = make_classifier(loss="ce", single_label=True, label_smoothing=0.3)
    smooth.load_state_dict(plain.state_dict())
    log_p = plain.eval()(clips).log_softmax(-1)
    expected = -(log_p * (0.7 * LABELS + 0.1)).sum(-1)
    got = smooth.train()(clips, LABELS)["losses"]["main"].double()
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    same = smooth.eval()(clips, LABELS)["losses"]["main"]
    torch.testing.assert_close(same, plain.eval()(clips, LABELS)["losses"]["main"])


@pytest.mark.parametrize("smooth_mixed", [True, False])
def test_forward__smooth_mixed(make_classifier, clips, smooth_mixed):
    options = {"loss": "ce", "single_label": True, "mixup": 1.0, "mixup_prob": 0.0}
    model = make_classifier(**options, label_smoothing=0.3, smooth_mixed=smooth_mixed).train()
    log_p = model(clips).log_softmax(-1)
    target = 0.7 * LABELS + 0.1 if smooth_mixed else LABELS
    got = model(clips, LABELS)["losses"]["main"].double()
    torch.testing.assert_close(got, -(log_p * target).sum(-1), rtol=1e-5, atol=1e-6)


def test_forward__mixup_mixes_clips_and_targets_equally(make_classifier, clips, monkeypatch):
    from eat_plugin.models import classifier

    def mix(source, targets, **options):
        assert options == {
            "mixup": 0.8, "cutmix": 0.4, "prob": 0.6, "switch_prob": 0.3, "mode": "pair",
            "lengths": None,
        }  # fmt: skip
        return source.flip(0), targets.flip(0), None

    monkeypatch.setattr(classifier, "mix_batch", mix)
    model = make_classifier(
        mixup=0.8, cutmix=0.4, mixup_prob=0.6, mixup_switch_prob=0.3, mixup_mode="pair"
    )
    expected = model.eval()(clips, LABELS)["losses"]["main"].flip(0)
    torch.testing.assert_close(model.train()(clips, LABELS)["losses"]["main"], expected)


def test_forward__specaug_masks_at_most_the_ratio_of_each_axis(make_classifier, clips, monkeypatch):
    from eat_plugin.models import classifier

    asked = []
    monkeypatch.setattr(
        classifier, "mask_spectrogram", lambda x, *widths: asked.append(widths) or x
    )
    make_classifier(specaug=True, mask_ratio=0.25).train()(clips, LABELS)
    make_classifier(specaug=True, freqm=7.0).train()(clips, LABELS)  # timem is beyond the window
    make_classifier(specaug=True, freqm=130.0, timem=90.0).train()(clips, LABELS)
    make_classifier(specaug=True, mask_ratio=0.25).eval()(clips, LABELS)
    assert asked == [(32, 32), (128, 7), (90, 128)]


@pytest.mark.parametrize(("ratio", "widths"), [(0.25, [32, 8]), (0.0, [70, 32])])
def test_forward__specaug_uses_the_length_of_each_clip(
    make_classifier, clips, monkeypatch, ratio, widths
):
    from eat_plugin.models import classifier

    asked = []
    monkeypatch.setattr(classifier, "mask_spectrogram", lambda x, *given: asked.append(given) or x)
    padding = column_padding(torch.tensor([8, 2]), (8, 8))
    model = make_classifier(specaug=True, mask_ratio=ratio, timem=70.0).train()
    model(clips[:2], LABELS[:2], padding_mask=padding)
    ((time, _, lengths),) = asked
    assert lengths.tolist() == [128, 32]
    assert time.tolist() == widths


def test_forward__mixed_clips_have_the_longer_length(make_classifier, clips, monkeypatch):
    seen = []
    model = make_classifier(mixup=0.8, specaug=True, mask_ratio=0.5).train()
    encode = model.model.encode
    monkeypatch.setattr(
        model.model, "encode", lambda x, **o: seen.append(o["padding_mask"]) or encode(x, **o)
    )
    padding = column_padding(torch.tensor([8, 2]), (8, 8))
    source = clips[:2].clone()
    source[1, :, 32:] = math.nan
    output = model(source, LABELS[:2], padding_mask=padding)
    assert output["losses"]["main"].isfinite().all()
    assert not seen[0].any()  # both are as long as the first one
    model.cfg.mixup_prob = 0.0
    model(source, LABELS[:2], padding_mask=padding)
    assert torch.equal(seen[1], padding)


@pytest.mark.parametrize("loss", ["bce", "ce"])
def test_forward__averages_scores_of_windows(make_classifier, clips, loss):
    model = make_classifier(loss=loss, single_label=True).eval()
    torch.nn.init.normal_(model.head.weight)
    windows = torch.cat([clips[:2], clips[:1], -clips[:1]])  # 3 of the first clip, 1 of another
    each = model(windows, LABELS[[0, 0, 0, 1]])
    output = model(windows, LABELS[:2], num_windows=[3, 1])
    means = [each["_predictions"][:3].mean(0), each["_predictions"][3]]
    torch.testing.assert_close(output["_predictions"], torch.stack(means))
    losses = each["losses"]["main"]
    expected = torch.stack([losses[:3].mean(0), losses[3]])
    torch.testing.assert_close(output["losses"]["main"], expected)
    assert torch.equal(output["_targets"], LABELS[:2])
    assert output["sample_size"] == 2
    best = torch.stack(means).argmax(-1)
    assert output["correct"] == (best == LABELS[:2].argmax(-1)).sum()


@pytest.mark.parametrize("mode", list(PredictionMode))
def test_pool__by_hand(mode):
    x = torch.tensor([[[9.0], [0.0], [math.log(3)]]])  # CLS, then p = 1/2 and p = 3/4
    expected = {
        PredictionMode.CLS_TOKEN: 9.0,
        PredictionMode.MEAN_POOLING: math.log(3) / 2,
        # sum p^2 / sum p = (1/4 + 9/16) / (5/4) = 13/20, odds 13/7
        PredictionMode.LIN_SOFTMAX: math.log(13 / 7),
        PredictionMode.SEGMENT_POOLING: math.log(3) / 2,
        PredictionMode.MEAN_MAX_POOLING: [math.log(3) / 2, math.log(3)],
        PredictionMode.FRAMES: [0.0, math.log(3)],
    }
    found = pool(x, mode, 1, (2, 1)).squeeze().tolist()
    assert found == pytest.approx(expected[mode], abs=1e-5)
    further = torch.cat([torch.full((1, 1, 1), -5.0), x], dim=1)  # the last extra token is CLS
    assert pool(further, mode, 2, (2, 1)).squeeze().tolist() == found


def test_mean_segments__by_hand():
    """Three steps of two mel bands in two segments: the middle step belongs to both."""
    patches = torch.tensor([[1.0, 3.0, 10.0, 20.0, 5.0, 5.0]]).unsqueeze(-1)  # steps 2, 15, 5
    assert mean_segments(patches, (3, 2), 2).flatten().tolist() == [8.5, 10.0]
    assert mean_segments(patches, (3, 2), 3).flatten().tolist() == [2.0, 15.0, 5.0]
    short = torch.tensor([[False] * 4 + [True] * 2])  # 2 steps in 4 segments
    assert mean_segments(patches, (3, 2), 4, short).flatten().tolist() == [2.0, 2.0, 15.0, 15.0]


def test_mean_max_pooling__head_takes_both(make_classifier, clips):
    options = {"loss": "ce", "single_label": True, "prediction_mode": "MEAN_MAX_POOLING"}
    model = make_classifier(**options).eval()
    with torch.no_grad():
        x, _ = model.model.encode(clips)
        both = torch.cat([x[:, 1:].mean(1), x[:, 1:].max(1).values], dim=1)
        torch.testing.assert_close(model(clips), model.head(model.fc_norm(both)))


def test_segment_pooling__head_takes_all_segments(make_classifier, clips):
    options = {"loss": "ce", "single_label": True, "prediction_mode": "SEGMENT_POOLING"}
    model = make_classifier(**options, segments=3).eval()
    width = model.model.cfg.embed_dim
    assert model.head.weight.shape[1] == model.fc_norm.weight.shape[0] == 3 * width
    with torch.no_grad():
        model.head.weight[:, width:] = 0  # of the first segment alone
        x, _ = model.model.encode(clips)
        grid = model.model.patch_encoder.grid_of(clips)
        expected = model.head(model.fc_norm(mean_segments(x[:, 1:], grid, 3).flatten(1)))
        torch.testing.assert_close(model(clips), expected)


def test_linear_probe__does_not_change_the_encoder(make_classifier, clips):
    options = {"loss": "ce", "single_label": True, "drop_path_rate": 0.9, "encoder_dropout": 0.5}
    model = make_classifier(**options, linear_probe=True).train()
    assert not model.model.training
    assert model.head.training
    first, second = (model(clips, LABELS)["losses"]["main"] for _ in range(2))
    assert torch.equal(first, second)
    first.sum().backward()
    trained = {name for name, p in model.named_parameters() if p.grad is not None}
    assert trained == {"head.weight", "head.bias", "fc_norm.weight", "fc_norm.bias"}


def test_drop_path__rises_to_the_last_block_and_acts_in_training(make_classifier, clips):
    model = make_classifier(drop_path_rate=0.9).train()
    assert model.model.cfg.start_drop_path_rate == 0
    assert model.model.cfg.end_drop_path_rate == 0.9
    torch.manual_seed(0)
    results = [model(clips) for _ in range(6)]
    assert not all(torch.equal(results[0], result) for result in results)
    model.eval()
    assert torch.equal(model(clips), model(clips))


def lr_scale(parameter):
    return parameter.optim_overrides["optimizer"].get("lr_scale", 1.0)


@pytest.mark.parametrize("everything", [False, True])
def test_layer_decay__falls_towards_the_input(make_classifier, everything):
    model = make_classifier(layer_decay=0.5, layer_decay_embeddings=everything)
    first, second = (block.attn.qkv.weight for block in model.model.blocks)
    assert (lr_scale(first), lr_scale(second)) == (0.25, 0.5)
    embeddings = model.model.patch_encoder
    expected = 0.125 if everything else 1.0
    assert lr_scale(embeddings.extra_tokens) == expected
    assert lr_scale(embeddings.local_encoder.proj.weight) == expected
    assert lr_scale(model.fc_norm.weight) == 1.0


@pytest.mark.parametrize("decay", [0.0, 1.0])
def test_layer_decay__none(make_classifier, decay):
    model = make_classifier(layer_decay=decay)
    assert {lr_scale(p) for p in model.model.parameters()} == {1.0}


def test_layer_decay__no_decay_blocks(make_classifier):
    kept, gone = (make_classifier(no_decay_blocks=keep) for keep in (True, False))
    overrides = [m.model.blocks[0].norm1.weight.optim_overrides["optimizer"] for m in (kept, gone)]
    assert overrides == [{"weight_decay_scale": 0, "lr_scale": 0.65**2}, {"lr_scale": 0.65**2}]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"loss": "mse"}, "model.loss is 'mse'; choose one of bce, ce"),
        ({"gamma_negative": 0.5}, "model.gamma_negative is 0.5; it must be 0, or 1 or more"),
        ({"asymmetric_shift": 1.0}, "model.asymmetric_shift is 1.0; it must be from 0"),
        ({"loss": "ce", "single_label": False}, "needs one label per clip"),
        ({"label_smoothing": 0.1}, "model.label_smoothing is 0.1; with several labels"),
        ({"num_classes": None}, "model.num_classes is None"),
        ({"num_classes": 1}, "model.num_classes is 1"),
        ({"mask_ratio": 1.0}, "model.mask_ratio is 1.0"),
        ({"layer_decay": 1.5}, "model.layer_decay is 1.5"),
        ({"embed_dim": 30}, "embed_dim"),
        ({"modalities": {"image": {"num_extra_tokens": 0}}}, "no extra token"),
        ({"mixup": -1.0}, "model.mixup is -1.0; it must be 0 or more"),
        ({"depth": -1}, "model.depth is -1; it must be 1 or more"),
    ],
)
def test_config__refuses_invalid_options(make_classifier, changes, problem):
    with pytest.raises(ValueError, match=problem):
        make_classifier(**changes)


def test_config__refuses_another_input_shape(make_classifier, clips):
    with pytest.raises(ValueError, match="expected"):
        make_classifier()(clips[..., :100])


# ---- The published names ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, ("bce", False, 0.0)),
        ({"esc50_eval": True, "label_smoothing": 0.1}, ("ce", True, 0.1)),
        ({"esc50_eval": True, "label_smoothing": 0.1, "mixup": 0.5}, ("ce", True, 0.0)),
        ({"spcv2_eval": True, "label_smoothing": 0.1, "mixup": 0.8}, ("bce", True, 0.0)),
        ({"spcv2_eval": True, "label_smoothing": 0.1}, ("ce", True, 0.1)),
        ({"audio_mae": False}, ("ce", True, 0.0)),
        ({"label_smoothing": 0.1}, ("bce", False, 0.0)),
    ],
)
def test_published__flags_choose_the_objective(flags, expected):
    cfg = OmegaConf.merge(
        OmegaConf.structured(MaeImageClassificationConfig()), {"audio_mae": True}, flags
    )
    assert tuple(MaeImageClassificationModel.choose_objective(cfg)) == expected


@pytest.mark.parametrize("mode", ["audioset", "esc50", "mean_pooling", "lin_softmax"])
def test_published__golden(shared, mode):
    everything = torch.load(shared / "golden" / "finetune_tiny.pt", weights_only=True)
    golden = everything[mode]
    options = {**golden["cfg_model"], "data": "unused"}
    options["pretrained_model_args"] = {"model": golden["pretrained_cfg_model"]}
    cfg = OmegaConf.merge(OmegaConf.structured(MaeImageClassificationConfig()), options)
    model = MaeImageClassificationModel(cfg)
    model.load_state_dict(everything["audioset"]["state_dict"], strict=True)
    inputs = golden["net_input"]
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(model(inputs["imgs"]), golden["eval_logits"], rtol=0, atol=1e-5)
        features, _ = model.model.encode(inputs["imgs"])
        features = features[:, -golden["eval_features_all"].size(1) :]
        torch.testing.assert_close(features, golden["eval_features_all"], rtol=0, atol=1e-5)
        scores = model(**inputs)
    for name in {"_predictions", "_targets", "correct"} & set(golden["eval_result"]):
        torch.testing.assert_close(
            scores[name], golden["eval_result"][name], rtol=0, atol=1e-5, check_dtype=False
        )
    output = model.train()(**inputs)
    loss = sum(loss.sum() for loss in output["losses"].values())
    assert loss.item() == pytest.approx(golden["train_loss_sum"], rel=1e-5)
    assert float(output["sample_size"]) == golden["sample_size"]
    loss.backward()
    for name, parameter in model.named_parameters():
        norm = golden["grad_norms"][name]
        if norm is None:
            assert parameter.grad is None
        else:
            assert parameter.grad.norm().item() == pytest.approx(norm, rel=1e-5), name
        found = getattr(parameter, "optim_overrides", None)
        assert found == golden["optim_overrides"].get(name), name
    assert golden["grad_norms"].keys() == dict(model.named_parameters()).keys()


# ---- Checkpoints --------------------------------------------------------------------------------


@pytest.fixture
def pretrained(tmp_path, make_model):
    """Path and model of a pre-training checkpoint in fairseq's format."""
    model = make_model().float()
    task = {"_name": "eat_pretraining", "target_length": 128, "norm_mean": -4.0, "norm_std": 4.0}
    options = OmegaConf.to_container(model.cfg, resolve=True, enum_to_str=True)
    path = tmp_path / "pretrained.pt"
    torch.save({"cfg": {"model": options, "task": task}, "model": model.state_dict()}, path)
    return path, model


def test_model_path__encoder_with_another_length(make_classifier, pretrained):
    path, source = pretrained
    model = make_classifier(
        depth=5, embed_dim=64, model_path=str(path), target_length=64, double=False
    ).eval()
    source.eval()
    clips = torch.randn(2, 1, 64, 128)
    expected = source.extract_features(clips, remove_extra_tokens=False)["x"]
    torch.testing.assert_close(model.model.encode(clips)[0], expected)
    assert model.model.cfg.modalities.image.target_length == 64
    assert not [name for name in model.state_dict() if "decoder" in name or "_ema" in name]
    assert model.pretrained_model_args["task"]["norm_mean"] == -4.0


def test_model_path__missing_file_is_named_with_a_remedy(make_classifier, tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    (tmp_path / "a.pt").write_text("")
    monkeypatch.chdir(tmp_path / "run")
    monkeypatch.setenv("PWD", str(tmp_path))  # hydra changes the folder, not the variable
    message = (
        f"^model.model_path is 'a.pt', which does not exist in the folder of the run, "
        f"{tmp_path}/run: give the absolute path, {tmp_path}/a.pt$"
    )
    with pytest.raises(ValueError, match=message):
        make_classifier(model_path="a.pt")
    monkeypatch.setenv("PWD", str(tmp_path / "run"))
    with pytest.raises(ValueError, match=rf"^.* which does not exist in {tmp_path}/run; give a"):
        make_classifier(model_path="a.pt")
    message = "^model.model_path is '/gone/b.pt', which does not exist; give a checkpoint, or null"
    with pytest.raises(ValueError, match=message):
        make_classifier(model_path="/gone/b.pt")
    with pytest.raises(ValueError, match=f"^{tmp_path} is a folder; give the checkpoint file in"):
        make_classifier(model_path=str(tmp_path))
    with pytest.raises(ValueError, match="/a.pt/b', which cannot be read: Not a directory$"):
        make_classifier(model_path=str(tmp_path / "a.pt" / "b"))


def test_model_path__is_required():
    cfg = OmegaConf.structured(EatClassifierConfig())
    options = {"num_classes": 3, "single_label": False, "target_length": 128, "model_path": "???"}
    with pytest.raises(ValueError, match=r"model.model_path is not set; .* or null"):
        EatClassifier(OmegaConf.merge(cfg, options))


@pytest.mark.parametrize(("norm_eps", "expected"), [(None, 1e-4), (1e-3, 1e-3)])
def test_model_path__norm_eps(make_classifier, make_checkpoint, norm_eps, expected):
    path = make_checkpoint("pretraining", model_norm_eps=1e-4)
    model = make_classifier(model_path=str(path), norm_eps=norm_eps)
    norms = [m for m in model.model.modules() if isinstance(m, torch.nn.LayerNorm)]
    assert {norm.eps for norm in norms} == {expected}


def test_model_path__fine_tuned_checkpoint(make_classifier, tmp_path, pretrained):
    path, _ = pretrained
    first = make_classifier(model_path=str(path), double=False)
    cfg = {"model": {"pretrained_model_args": first.pretrained_model_args}}
    torch.save({"cfg": cfg, "model": first.state_dict()}, tmp_path / "tuned.pt")
    second = make_classifier(model_path=str(tmp_path / "tuned.pt"), num_classes=7, double=False)
    for one, other in zip(first.model.parameters(), second.model.parameters()):
        assert torch.equal(one, other)


def test_model_path__options_without_weights(make_classifier, pretrained):
    path, source = pretrained
    model = make_classifier(model_path=str(path), no_pretrained_weights=True, double=False)
    ours, theirs = model.model.blocks[0].attn.qkv.weight, source.blocks[0].attn.qkv.weight
    assert ours.shape == theirs.shape
    assert not torch.equal(ours, theirs)


def test_pretrained_model_args__rebuild_the_model_without_a_file(make_classifier, pretrained):
    path, _ = pretrained
    model = make_classifier(model_path=str(path), double=False)
    path.unlink()
    again = make_classifier(
        model_path=str(path), pretrained_model_args=model.pretrained_model_args, double=False
    )
    again.load_state_dict(model.state_dict(), strict=True)
    assert again.pretrained_model_args == model.pretrained_model_args


def test_model_path__refuses_weights_of_another_shape(make_classifier, pretrained):
    path, _ = pretrained
    state = torch.load(path, weights_only=True)
    name = "blocks.1.mlp.fc1.weight"
    state["model"][name] = state["model"][name][:5]
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"fc1.weight has shape \(5, 32\)"):
        make_classifier(model_path=str(path))
    del state["model"][name]
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"no weights 'blocks.1.mlp.fc1.weight'"):
        make_classifier(model_path=str(path))


def test_scratch__has_the_size_of_the_options(make_classifier):
    model = make_classifier(depth=1, embed_dim=16, average_top_k_layers=1)
    assert len(model.model.blocks) == 1
    assert model.head.in_features == 16


@pytest.mark.parametrize("recompute", ["gelu", "blocks"])
def test_recompute__same_gradients_bit_for_bit(make_classifier, recompute):
    results = []
    for kind in ("none", recompute):
        model = make_classifier(recompute=kind, drop_path_rate=0.5, encoder_dropout=0.1).train()
        assert {block.recompute for block in model.model.blocks} == {kind}
        torch.manual_seed(1)
        logits = model(torch.randn(4, 1, 128, 128, dtype=torch.float64))
        logits.sum().backward()
        results.append([logits, *(p.grad for p in model.parameters() if p.grad is not None)])
    assert all(torch.equal(a, b) for a, b in zip(*results))


def test_computation__is_not_taken_from_the_checkpoint(make_classifier, make_checkpoint):
    path = make_checkpoint("pretraining", model_compile=True, model_recompute="gelu")
    model = make_classifier(model_path=str(path))
    assert {(block.compiled, block.recompute) for block in model.model.blocks} == {(False, "none")}
    model = make_classifier(model_path=str(path), compile=True, recompute="blocks")
    assert {(block.compiled, block.recompute) for block in model.model.blocks} == {(True, "blocks")}
    with pytest.raises(ValueError, match=r"model.recompute is 'all'; choose one of none"):
        make_classifier(recompute="all")
