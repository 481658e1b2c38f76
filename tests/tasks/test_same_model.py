"""A resumed run with another model than its checkpoint."""

import copy

import pytest
import torch
from fairseq.tasks import setup_task
from omegaconf import OmegaConf

from eat_plugin.tasks.resumed import ResumedRun
from eat_plugin.tasks.same_model import check_same_model, describe_difference

MODEL = {
    "_name": "eat", "depth": 12, "embed_dim": 768, "num_heads": 12, "clone_batch": 16,
    "ema_decay": 0.999,
    "modalities": {
        "image": {
            "patch_size": 16, "image_size": None, "mask_prob": 0.8,
            "decoder": {"decoder_layers": 6, "decoder_dim": 768},
        },
    },
}  # fmt: skip


def resume(before, now, encoder=None, optimizer=""):
    resumed = ResumedRun("/run/last.pt", {"model": before}, {}, optimizer)
    check_same_model(resumed, OmegaConf.create(now), encoder)


def changed(options, **changes):
    options = copy.deepcopy(options)
    for name, value in changes.items():
        *parts, last = name.split("__")
        node = options
        for part in parts:
            node = node[part]
        node[last] = value
    return options


@pytest.mark.parametrize(
    "changes",
    [
        {}, {"clone_batch": 4}, {"ema_decay": 0.9}, {"_name": "data2vec_multi"},
        {"modalities__image__mask_prob": 0.7}, {"compile": True},
        {"modalities__image__decoder": None},
    ],
)  # fmt: skip
def test_check_same_model__other_options_may_change(changes):
    resume(MODEL, changed(MODEL, **changes))
    resume({}, changed(MODEL, **changes))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("depth", 4), ("embed_dim", 192), ("num_heads", 6), ("modalities.image.patch_size", 8),
        ("modalities.image.decoder.decoder_layers", 3),
    ],
)  # fmt: skip
def test_check_same_model__names_file_option_and_values(name, value):
    now = changed(MODEL, **{name.replace(".", "__"): value})
    old = OmegaConf.select(OmegaConf.create(MODEL), name)
    message = (
        rf"^/run/last.pt has model.{name}={old}, this run model.{name}={value}: choose another run "
        r"folder \(hydra.run.dir\) or the same settings$"
    )
    with pytest.raises(ValueError, match=message):
        resume(MODEL, now)


@pytest.mark.parametrize(
    ("name", "value", "old"),
    [
        ("attention_gate", True, False), ("modalities.image.positions", "published", "grid"),
        ("modalities.image.decoder.decoder_kind", "vit", "conv"),
    ],
)  # fmt: skip
def test_check_same_model__older_checkpoints_have_what_was_there_then(name, value, old):
    message = rf"has model.{name}={old}, this run model.{name}={value}: "
    with pytest.raises(ValueError, match=message):
        resume(MODEL, changed(MODEL, **{name.replace(".", "__"): value}))
    resume(MODEL, changed(MODEL, **{name.replace(".", "__"): old}))


@pytest.mark.parametrize("kind", ["conv", "vit"])
def test_describe_difference__another_window_after_learned_positions(kind):
    name = "modalities__image__decoder__decoder_kind"
    before, now = (
        changed(MODEL, **{name: kind, "modalities__image__target_length": length})
        for length in (1024, 512)
    )
    found = describe_difference(before, now, is_same_run=False)
    assert (found is None) == (kind == "conv")
    assert describe_difference(before, now, is_same_run=True) is not None


def test_check_same_model__shows_the_first_of_many():
    now = changed(
        MODEL, depth=4, embed_dim=192, num_heads=6, modalities__image__patch_size=8,
        modalities__image__image_size=[32, 32], modalities__image__decoder__decoder_dim=192,
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"model.depth=12, .*patch_size=8 \(2 more differ\)"):
        resume(MODEL, now)


def classifier(encoder=None, **options):
    args = None if encoder is None else {"model": encoder, "task": None}
    own = {"num_classes": 3, "use_fc_norm": True, "pretrained_model_args": args}
    return {**MODEL, **own, **options}


def test_check_same_model__classifier_has_the_encoder_of_its_checkpoint():
    before, encoder = classifier(MODEL), {"model": MODEL}
    # The options of the model itself do not say what its checkpoint holds.
    resume(before, classifier(depth=4), encoder)
    small = {"model": changed(MODEL, depth=4)}
    with pytest.raises(ValueError, match=r"depth=12, .*depth=4: .* settings and model.model_path"):
        resume(before, classifier(), small)
    with pytest.raises(ValueError, match=r"num_classes=3, this run model.num_classes=5"):
        resume(before, classifier(num_classes=5), encoder)
    with pytest.raises(ValueError, match=r"num_classes=null, this run model.num_classes=3"):
        resume(MODEL, classifier(), encoder)
    with pytest.raises(ValueError, match=r"num_classes=3, this run model.num_classes=null"):
        resume(before, MODEL)


@pytest.mark.parametrize("kind", ["pretraining", "classification"])
def test_build_model__of_a_resumed_run(make_checkpoint, tmp_path, kind):
    saved = make_checkpoint(kind)
    state = torch.load(saved, weights_only=True)
    cfg = OmegaConf.create(state["cfg"])
    cfg.checkpoint = {"save_dir": str(saved.parent), "restore_file": str(saved)}
    cfg.task.data = str(tmp_path)
    (tmp_path / "label_descriptors.csv").write_text("0,dog,A\n1,rain,B\n2,clock,C\n")
    fresh = {"pretrained_model_args": None} if kind == "classification" else {}

    def build(**changes):
        model = OmegaConf.merge(cfg.model, fresh, changes)
        return setup_task(cfg.task).build_model(model)

    build(clone_batch=2)
    with pytest.raises(ValueError, match=r"\.pt has model.depth=2, this run model.depth=1: "):
        build(depth=1, average_top_k_layers=1)


def test_check_same_model__window_and_pooling_change_only_with_a_new_optimizer():
    before = changed(MODEL, modalities__image__target_length=208)
    now = changed(MODEL, modalities__image__target_length=64)
    resume(before, now)
    with pytest.raises(ValueError, match=r"target_length=208, this run .*target_length=64: "):
        resume(before, now, optimizer="EatAdamW")
    before = classifier(MODEL, prediction_mode="CLS_TOKEN")
    now = classifier(MODEL, prediction_mode="MEAN_POOLING")
    resume(before, now, {"model": MODEL})
    with pytest.raises(ValueError, match="prediction_mode=CLS_TOKEN, this run .*=MEAN_POOLING: "):
        resume(before, now, {"model": MODEL}, "EatAdamW")


def test_check_same_model__square_patches_in_both_forms():
    resume(MODEL, changed(MODEL, modalities__image__patch_size=[16, 16]))
    resume(changed(MODEL, modalities__image__patch_size=[16]), MODEL)
    with pytest.raises(ValueError, match=r"patch_size=16, this run .*patch_size=\[16, 8\]: choose"):
        resume(MODEL, changed(MODEL, modalities__image__patch_size=[16, 8]))
    sides = changed(MODEL, modalities__image__patch_size=[4, 128])
    resume(sides, sides)
