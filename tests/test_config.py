"""Configurations match their dataclasses; sizes and settings are the published ones."""

import importlib
import json
import pkgutil
from dataclasses import fields, is_dataclass
from pathlib import Path

import omegaconf
import pytest
import torch
from fairseq.dataclass.initialize import add_defaults
from omegaconf import OmegaConf

import eat_plugin
from eat_plugin.models.bat_options import remove_ingredients
from eat_plugin.models.config import validate_config
from eat_plugin.models.utterance_options import default_options
from eat_plugin.tasks.choosing import choose_options
from eat_plugin.tasks.monitor import Monitor, MonitorConfig
from eat_plugin.tasks.recipe import LENGTH_OF_FINETUNING, LENGTH_OF_PRETRAINING, SECOND_STAGE
from eat_plugin.tasks.run_config import RunConfig
from tests.composing import compose

ROOT = Path(__file__).resolve().parents[1]
LAYOUTS = json.loads((ROOT / "tests" / "golden" / "state_dict_layouts.json").read_text())
SIZES = sorted(path.stem for path in (ROOT / "config" / "size").glob("*.yaml"))
BENCHMARKS = sorted(path.stem for path in (ROOT / "config" / "benchmark").glob("*.yaml"))
GIVEN = [f"common.user_dir={ROOT / 'eat_plugin'}", "task.data=/data"]
RULES = {
    "eat_pretraining": {**SECOND_STAGE, **LENGTH_OF_PRETRAINING},
    "eat_classification": LENGTH_OF_FINETUNING,
}
# Modules that need a later hydra, or Triton; they hold no options.
NOT_EVERYWHERE = {
    "eat_plugin.launch.sweep", "eat_plugin.modules.triton_convolution",
    "eat_plugin.huggingface.configuration_eat", "eat_plugin.huggingface.modeling_eat",
    "eat_plugin.huggingface.feature_extraction_eat",
}  # fmt: skip


def load(*overrides, name="pretrain"):
    """Compose as fairseq-hydra-train does, and choose what the data do not decide."""
    cfg = compose(name, [*GIVEN, *overrides])
    add_defaults(cfg)
    cfg = OmegaConf.create(OmegaConf.to_container(cfg, resolve=True, enum_to_str=True))
    choose_options(RunConfig(cfg.task), RULES[cfg.task["_name"]], None)
    return OmegaConf.to_container(cfg)


def published_model(name):
    """A published model configuration, without run-time and added options."""
    return without(LAYOUTS[name]["cfg_model"])


def without(model):
    model = json.loads(json.dumps(model))
    for field in ("_name", "max_update"):
        model.pop(field)
    for field in ("recompute", "compile", "cuda_graph", "convolution", *default_options()):
        model.pop(field, None)
    remove_ingredients(model)
    for field in ("mel_by_time", "image_size", "mask_strategy"):
        model["modalities"]["image"].pop(field, None)
    return model


def test_sizes__are_found():
    assert SIZES == ["base", "large", "small", "tiny"]


@pytest.mark.parametrize("size", SIZES)
def test_size__composes_and_is_valid(size):
    chosen = ["task.target_length=208", "model.modalities.image.patch_size=16"]  # at start
    cfg = load(f"size={size}", *(chosen if size == "tiny" else []))
    assert cfg["task"]["_name"] == cfg["criterion"]["_name"] == "eat_pretraining"
    assert cfg["optimizer"]["_name"] == "eat_adamw"
    validate_config(OmegaConf.create(cfg["model"]))
    masks = cfg["task"]["precompute_mask_config"]
    image = cfg["model"]["modalities"]["image"]
    assert masks["clone_batch"] == cfg["model"]["clone_batch"]
    assert masks["mask_prob"] == image["mask_prob"]
    assert image["num_alibi_heads"] == cfg["model"]["num_heads"]


@pytest.mark.parametrize(
    ("size", "layout", "lr"),
    [("base", "EAT-base_pretrain", 0.0005), ("large", "EAT-large_pretrain", 0.0004)],
)
def test_size__has_the_published_hyper_parameters(size, layout, lr):
    cfg = load(f"size={size}")
    assert without(cfg["model"]) == published_model(layout)
    assert cfg["optimization"]["lr"] == [lr]
    assert cfg["optimization"]["max_update"] == 400000
    assert cfg["optimization"]["clip_norm"] == 4
    assert cfg["lr_scheduler"]["warmup_updates"] == 53333
    assert cfg["lr_scheduler"]["_name"] == "cosine"
    assert cfg["optimizer"]["adam_betas"] == [0.9, 0.95]
    assert cfg["optimizer"]["weight_decay"] == 0.05
    assert not cfg["optimizer"]["apply_weight_decay_scale"]
    assert cfg["dataset"]["batch_size"] == 12
    assert cfg["common"]["fp16"]
    # null: AudioSet's published statistics, unless the data has its own.
    assert (cfg["task"]["norm_mean"], cfg["task"]["norm_std"]) == (None, None)


def test_sslam__has_the_published_settings(tmp_path):
    first = tmp_path / "first.pt"
    options = {"model": LAYOUTS["EAT-base_pretrain"]["cfg_model"], "task": {"target_length": 1024}}
    torch.save({"cfg": {**options, "optimization": {"lr": [0.0005]}}, "model": {}}, first)
    cfg = load(f"checkpoint.finetune_from_model={first}", name="sslam")
    model = cfg["model"]
    assert {**without(model), "clone_batch": 16} == published_model("EAT-base_pretrain")
    assert model["clone_batch"] == cfg["task"]["precompute_mask_config"]["clone_batch"] == 8
    assert (model["retention_loss"], model["cls_target"]) == (1.0, "last_targets")
    assert model["mixed_share"] * 64 == 34
    assert cfg["optimization"]["lr"] == cfg["lr_scheduler"]["lr"] == [5e-5]
    assert cfg["optimization"]["max_update"] == 200000
    assert cfg["lr_scheduler"]["warmup_updates"] == 25000
    assert (model["ema_decay"], model["ema_end_decay"]) == (0.9998, 0.99999)
    assert model["ema_anneal_end_step"] == 100000
    assert cfg["dataset"]["batch_size"] == 12


def test_sslam__differs_from_pretrain_in_its_own_settings():
    cfg, base = (compose(name, GIVEN) for name in ("sslam", "pretrain"))
    different = {
        f"{section}.{name}"
        for section in cfg
        for name, value in (cfg[section] or {}).items()
        if value != (base[section] or {}).get(name)
    }
    assert different == {
        "optimization.lr", "optimization.max_update", "model.clone_batch",
        "model.retention_loss", "model.mixed_share", "model.cls_target",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["pretrain", "sslam", "bat", "image_pretrain"])
def test_pre_training__is_monitored(name):
    assert compose(name, GIVEN).task.monitor == {"interval": -1, "data": None, "stop": False}


def test_monitor__a_probe_without_an_interval_is_refused():
    with pytest.raises(ValueError, match=r"task.monitor.interval=0 measures nothing"):
        Monitor(MonitorConfig(data="labelled"))


def test_bat__has_the_published_settings():
    cfg = load(name="bat")
    model, image = cfg["model"], cfg["model"]["modalities"]["image"]
    assert (model["ema_decay"], model["ema_end_decay"]) == (0.9998, 0.99999)
    assert model["ema_anneal_end_step"] == 100000
    assert (image["mask_prob"], image["mask_prob_adjust"], image["mask_length"]) == (0.8, 0.07, 5)
    assert (model["clone_batch"], cfg["optimization"]["max_update"]) == (16, 400000)
    assert cfg["lr_scheduler"]["warmup_updates"] == 53333
    assert (cfg["lr_scheduler"]["lr"], cfg["lr_scheduler"]["min_lr"]) == ([5e-4], 1e-6)
    assert cfg["optimizer"]["weight_decay"] == 0.05
    assert not cfg["optimizer"]["apply_weight_decay_scale"]
    assert cfg["optimization"]["clip_norm"] == 0
    decoder = image["decoder"]
    assert (decoder["decoder_kind"], decoder["decoder_layers"]) == ("vit", 6)
    validate_config(OmegaConf.create(model))


def test_bat__differs_from_pretrain_in_its_own_settings():
    cfg, base = (compose(name, [*GIVEN, "size=tiny"]) for name in ("bat", "pretrain"))
    pairs = (
        ("", cfg, base), ("model.", cfg.model, base.model),
        ("image.", cfg.model.modalities.image, base.model.modalities.image),
        ("decoder.", cfg.model.modalities.image.decoder, base.model.modalities.image.decoder),
    )  # fmt: skip
    different = {
        f"{prefix}{name}"
        for prefix, ours, other in pairs
        for name, value in OmegaConf.to_container(ours).items()
        if value != OmegaConf.to_container(other).get(name)
    }
    assert different == {
        "model", "optimization", "lr_scheduler", "task", "model.attention_gate", "model.mae_init",
        "model.end_of_block_targets", "model.target_norm_eps", "model.loss_average",
        "model.cls_loss", "model.recon_loss", "model.recompute", "model.modalities",
        "image.extra_token_std", "image.positions", "image.decoder", "decoder.decoder_kind",
        "decoder.decoder_mlp_ratio", "decoder.hidden_share",
    }  # fmt: skip


@pytest.mark.parametrize("size", SIZES)
def test_bat__has_equal_losses_in_every_size(size):
    chosen = ["task.target_length=208", "model.modalities.image.patch_size=16"]
    model = load(f"size={size}", *(chosen if size == "tiny" else []), name="bat")["model"]
    weights = (model["d2v_loss"], model["cls_loss"], model["recon_loss"], model["loss_average"])
    assert weights == (1.0, 1.0, 0.0, "elements")
    validate_config(OmegaConf.create(model))


def test_size__base_is_the_default():
    assert without(load()["model"]) == published_model("EAT-base_pretrain")


def test_target_length__task_and_model_share_it():
    cfg = load("task.target_length=512")
    assert cfg["model"]["modalities"]["image"]["target_length"] == 512


def finetune(*overrides):
    return load("model.model_path=/c.pt", *overrides, name="finetune")


def test_benchmarks__published_ones_and_ours():
    published = ["audioset_20k", "audioset_2m", "esc50", "speech_commands_v2"]
    assert sorted(BENCHMARKS) == sorted([*published, "custom", "frames"])


# The table of the paper and of the published scripts: window, batch, learning rate, updates,
# warm-up, mixup, mask ratio, loss, one label, metric, mean and deviation of the log-mel values.
AUDIOSET, ESC, SPC = (-4.268, 4.569), (-6.627, 5.359), (-6.846, 5.565)
TABLE = {
    "audioset_20k": (1024, 48, 5e-5, 40000, 4000, 0.8, 0.2, "bce", False, "mAP", AUDIOSET),
    "audioset_2m": (1024, 96, 5e-5, 300000, 30000, 0.8, 0.2, "bce", False, "mAP", AUDIOSET),
    "esc50": (512, 48, 5e-5, 4000, 400, 0.0, 0.4, "ce", True, "accuracy", ESC),
    "speech_commands_v2": (128, 256, 2e-4, 40000, 4000, 0.8, 0.2, "bce", True, "accuracy", SPC),
}


@pytest.mark.parametrize("benchmark", sorted(TABLE))
@pytest.mark.parametrize("size", ["base", "tiny"])
def test_benchmark__has_the_published_settings_for_every_size(benchmark, size):
    cfg = finetune(f"benchmark={benchmark}", f"size={size}")
    task, model = cfg["task"], cfg["model"]
    found = (
        task["target_length"], cfg["dataset"]["batch_size"], cfg["optimization"]["lr"][0],
        cfg["optimization"]["max_update"], cfg["lr_scheduler"]["warmup_updates"], model["mixup"],
        model["mask_ratio"], model["loss"], model["single_label"],
        cfg["checkpoint"]["best_checkpoint_metric"], (task["norm_mean"], task["norm_std"]),
    )  # fmt: skip
    assert found == TABLE[benchmark]
    assert model["target_length"] == task["target_length"]
    assert model["specaug"]
    assert task["roll_gain"]
    assert task["crop"] == "start"
    assert model["label_smoothing"] == (0.1 if benchmark == "esc50" else 0)
    assert task["noise"] == (benchmark == "speech_commands_v2")
    assert bool(task["weights_file"]) == (benchmark == "audioset_2m")


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_benchmark__composes_and_is_valid(benchmark):
    from eat_plugin.models.classifier import EatClassifier
    from eat_plugin.models.classifier_config import validate_classifier

    mode = "FRAMES" if benchmark == "frames" else "CLS_TOKEN"
    chosen = {"prediction_mode": mode, "layer_decay": 0.65, "drop_path_rate": 0.1}
    fixed = [f"model.{name}={value}" for name, value in chosen.items()]
    overrides = fixed if benchmark in ("custom", "frames") else []
    cfg = finetune(f"benchmark={benchmark}", "model.num_classes=9", *overrides)
    assert cfg["task"]["_name"] == cfg["criterion"]["_name"] == "eat_classification"
    assert cfg["model"]["prediction_mode"] == mode
    assert cfg["task"]["events"] == (benchmark == "frames")
    assert cfg["model"]["layer_decay"] == 0.65
    assert cfg["dataset"]["required_batch_size_multiple"] == 1
    model = OmegaConf.create(cfg["model"])
    validate_classifier(model, EatClassifier.choose_objective(model))


def test_benchmark__trains_every_size_from_scratch():
    cfg = finetune("size=tiny", "model.model_path=null")
    assert (cfg["model"]["depth"], cfg["model"]["embed_dim"]) == (4, 192)
    assert cfg["model"]["encoder_dropout"] == 0


def test_image_pretrain__has_the_published_settings_of_data2vec_2():
    cfg = load(name="image_pretrain")
    task, model, image = cfg["task"], cfg["model"], cfg["model"]["modalities"]["image"]
    # Two of the twelve blocks are the published prenet; the last ten make the targets.
    assert (model["depth"], model["average_top_k_layers"], model["clone_batch"]) == (12, 10, 16)
    assert (model["d2v_loss"], model["cls_loss"], model["recon_loss"]) == (1.0, 0.01, 0.0)
    assert (model["ema_decay"], model["ema_end_decay"]) == (0.9998, 0.99999)
    assert model["ema_anneal_end_step"] == 100000
    assert (image["mask_prob"], image["mask_prob_adjust"], image["mask_length"]) == (0.8, 0.07, 3)
    assert (image["in_chans"], image["image_size"], image["patch_size"]) == (3, [224, 224], 16)
    decoder = image["decoder"]
    assert (decoder["decoder_dim"], decoder["decoder_kernel"], decoder["decoder_layers"]) == (
        768, 3, 6,
    )  # fmt: skip
    assert (cfg["optimization"]["max_update"], cfg["optimization"]["lr"]) == (375300, [0.001])
    assert (cfg["lr_scheduler"]["warmup_updates"], cfg["optimization"]["clip_norm"]) == (50040, 4)
    assert cfg["dataset"]["batch_size"] == 16
    assert (task["images"]["crop_scale"], task["images"]["flip"]) == ([0.2, 1.0], 0.5)
    assert task["precompute_mask_config"]["mask_length"] == 3
    validate_config(OmegaConf.create(model))


def test_image_finetune__has_the_published_settings_of_data2vec_2():
    from eat_plugin.models.classifier import EatClassifier
    from eat_plugin.models.classifier_config import validate_classifier

    cfg = load("model.model_path=/c.pt", "model.num_classes=9", name="image_finetune")
    task, model = cfg["task"], cfg["model"]
    assert (model["mixup"], model["cutmix"], model["mixup_prob"]) == (0.7, 1.0, 0.9)
    assert (model["mixup_switch_prob"], model["label_smoothing"]) == (0.5, 0.1)
    assert (model["layer_decay"], model["drop_path_rate"]) == (0.65, 0.1)
    assert (model["prediction_mode"], model["loss"]) == ("MEAN_POOLING", "ce")
    assert (cfg["optimization"]["max_update"], cfg["optimization"]["lr"]) == (250200, [0.001])
    assert (cfg["lr_scheduler"]["warmup_updates"], cfg["dataset"]["batch_size"]) == (16000, 32)
    assert (task["images"]["crop_scale"], task["images"]["eval_crop"]) == ([0.08, 1.0], 0.875)
    assert model["image_size"] == [224, 224]
    assert not model["specaug"]
    model = OmegaConf.create(model)
    validate_classifier(model, EatClassifier.choose_objective(model))


def test_image_configs__task_and_model_share_size_and_channels():
    grey = ["task.images.channels=1", "task.images.size=[224,128]"]
    for options in (["image_pretrain"], ["image_finetune", "model.model_path=null"]):
        cfg = load(*grey, *options[1:], name=options[0])
        image = cfg["model"]["modalities"]["image"]
        assert (image["in_chans"], image["image_size"]) == (1, [224, 128])


@pytest.mark.parametrize("path", sorted((ROOT / "config").rglob("*.yaml")), ids=lambda p: p.stem)
def test_yaml__states_its_command(path):
    head = path.read_text().split("\n\n")[0]
    assert any(f"#   eat {command} --data " in head for command in ("pretrain", "finetune"))
    assert head.startswith("#")


IMPOSSIBLE = [
    ("model.embed_dim=100", "model.embed_dim is 100; it must be divisible by num_heads=12"),
    ("task.target_length=1000", "target_length is 1000; it must be divisible by .*patch_size=16"),
    ("model.average_top_k_layers=13", "average_top_k_layers is 13; .* 1 and model.depth=12"),
    ("model.modalities.image.patch_size=24", "patch_size"),
    ("model.modalities.image.in_chans=2", "in_chans is 2; choose 1 .* or 3"),
    ("model.modalities.image.prenet_depth=2", "prenet_depth is 2; .* not implemented, .* 0"),
    ("+model.modalities.image.use_alibi_encoder=true", "use_alibi_encoder is True; .* False"),
    ("+model.modalities.image.mask_dropout=0.1", "mask_dropout is 0.1; .* only choice is 0"),
    ("+model.modalities.image.mask_prob_min=0.5", "mask_prob_min is 0.5; .* null"),
    ("+model.modalities.image.transformer_decoder=true", "transformer_decoder is True"),
    ("+model.modalities.image.decoder.projection_layers=2", "projection_layers is 2"),
    ("model.modalities.image.decoder.decoder_groups=5", "divisible by decoder_groups=5"),
    ("model.modalities.image.decoder=null", "decoder is null"),
    ("model.modalities.image.num_extra_tokens=0", "num_extra_tokens is 0; .* needs a CLS token"),
    ("model.supported_modality=AUDIO", "supported_modality is AUDIO; .* null or IMAGE"),
    ("model.modalities.image.type=TEXT", "image.type is TEXT; .* only choice is IMAGE"),
    ("+model.shared_decoder={decoder_dim: 8}", "shared_decoder is .*; .* only choice is null"),
    ("+model.modalities.image.mask_strategy=spiral", "'spiral'; choose one of inverse_block, "),
    ("model.clone_batch=0", "clone_batch is 0"),
    ("model.d2v_loss=-1", "weights of the losses"),
    ("model.ema_decay=1.5", "ema_decay is 1.5"),
    ("task.target_length=16000", "positions ends at max_length=768"),
]


@pytest.mark.parametrize(("override", "message"), IMPOSSIBLE, ids=[o for o, _ in IMPOSSIBLE])
def test_validate_config__error_names_field_value_and_choices(override, message):
    if override.endswith("decoder=null") and omegaconf.__version__ < "2.1":
        pytest.skip("omegaconf 2.0 takes no notice of a section that is null")
    cfg = OmegaConf.create(load(override)["model"])
    with pytest.raises(ValueError, match=message):
        validate_config(cfg)


def test_validate_config__no_loss_is_refused():
    cfg = load("model.d2v_loss=0", "model.cls_loss=0")["model"]
    with pytest.raises(ValueError, match="one above 0"):
        validate_config(OmegaConf.create(cfg))


def configs():
    """All dataclasses of options in the package."""
    for module in pkgutil.walk_packages(eat_plugin.__path__, "eat_plugin."):
        if module.name not in NOT_EVERYWHERE and not module.name.endswith("__main__"):
            for name, found in vars(importlib.import_module(module.name)).items():
                is_here = getattr(found, "__module__", None) == module.name
                if is_here and name.endswith("Config") and is_dataclass(found):
                    yield found


CONFIGS = {f"{config.__module__}.{config.__name__}": config for config in configs()}


def test_configs__are_found():
    names = ("models.config.ImageConfig", "optim.adamw.EatAdamWConfig",
             "tasks.sound.FbankConfig", "tasks.pretraining.MaskConfig")  # fmt: skip
    assert {f"eat_plugin.{name}" for name in names} < set(CONFIGS)


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_config__every_option_has_a_help_text(name):
    for field in fields(CONFIGS[name]):
        # fairseq's own options, and the registered name
        is_fairseqs = str(field.default).startswith(("${common.", "${optimization."))
        assert field.metadata.get("help") or is_fairseqs or field.name == "_name", field.name
