"""Flags of `fairseq-train`: names, values, and the configuration that they make."""

from dataclasses import fields

import pytest
from fairseq import options
from fairseq.dataclass.configs import FairseqConfig
from fairseq.dataclass.initialize import add_defaults
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.models import MODEL_DATACLASS_REGISTRY
from fairseq.registry import REGISTRIES
from fairseq.tasks import TASK_DATACLASS_REGISTRY
from omegaconf import OmegaConf

from eat_plugin.choices import ARCHITECTURES, TASK_OF
from eat_plugin.flags import SHARED, list_flags
from eat_plugin.inputs.images import ImagesConfig
from eat_plugin.registration import NAMES
from eat_plugin.tasks.classification import ClassificationConfig
from eat_plugin.tasks.sound import FbankConfig
from tests.composing import compose

ALWAYS = ["--optimizer", "eat_adamw", "--lr-scheduler", "cosine", "--batch-size", "4"]
SECTIONS = ("common", "distributed_training", "dataset", "optimization", "checkpoint", "ema")


def parse(task, arch, *flags):
    """The configuration that fairseq builds from flags."""
    given = ["DATA", "--task", task, "--arch", arch, "--criterion", "model", *ALWAYS, *flags]
    args = options.parse_args_and_arch(options.get_training_parser(), given)
    cfg = convert_namespace_to_omegaconf(args)
    add_defaults(cfg)
    return cfg


def plain(section):
    return OmegaConf.to_container(section, resolve=True, enum_to_str=True)


def fairseq_options():
    found = {
        name
        for section in fields(FairseqConfig)
        if section.name in SECTIONS
        for name in section.type.__dataclass_fields__
    }
    for kind in ("optimizer", "lr_scheduler"):
        for config in REGISTRIES[kind]["dataclass_registry"].values():
            found |= config.__dataclass_fields__.keys()
    return found | REGISTRIES.keys()


@pytest.mark.parametrize("model", NAMES["model"])
def test_flags__a_name_in_several_sections_is_one_setting_by_design(model):
    of_model = {flag.name for flag in list_flags(MODEL_DATACLASS_REGISTRY[model], of_task=False)}
    for task in NAMES["task"]:
        if ("classif" in task) == ("classif" in model):
            config = TASK_DATACLASS_REGISTRY[task]
            of_task = {flag.name for flag in list_flags(config, of_task=True)}
            twice = (of_model & of_task) | ((of_model | of_task) & fairseq_options())
            assert twice - {"data"} <= SHARED
    own = {"channels"}  # refused together, see below
    for section in (FbankConfig, ImagesConfig):
        names = section.__dataclass_fields__.keys()
        assert not names & (of_model | fairseq_options())
        assert names & ClassificationConfig.__dataclass_fields__.keys() <= own


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_arch__is_the_model_of_the_packaged_configuration(arch):
    model, size = ARCHITECTURES[arch]
    task = TASK_OF[model]
    updates = ["--max-update", "400", "--target-length", "208"]
    is_classifier = model == "eat_classifier"
    found = parse(task, arch, *updates, *(["--model-path", "none"] if is_classifier else []))
    overrides = [f"size={size}", "optimization.max_update=400", "task.target_length=208"]
    overrides += ["task.data=DATA", "common.user_dir=X"]
    if is_classifier:  # without its default benchmark
        overrides += ["model.model_path=null", "model.loss=bce", "model.label_smoothing=0"]
        overrides += ["model.prediction_mode=CLS_TOKEN", "model.layer_decay=0.65"]
        patch = -1 if size == "tiny" else 16
        overrides += ["model.drop_path_rate=0.1", f"model.modalities.image.patch_size={patch}"]
    expected = compose("finetune" if is_classifier else "pretrain", overrides)
    add_defaults(expected)
    found, expected = plain(found.model), plain(expected.model)
    if is_classifier:  # unused there: fairseq's own average has it
        found.pop("ema_decay"), expected.pop("ema_decay")
    assert found == expected


def test_flags__set_their_option_in_all_sections():
    cfg = parse(
        "eat_pretraining", "eat_base", "--embed-dim", "96", "--patch-size", "8", "--seed", "7",
        "--ema-decay", "0.5", "--mask-prob", "0.6", "--decoder-dim", "48", "--depth", "3",
    )  # fmt: skip
    image = cfg.model.modalities.image
    assert (cfg.model.embed_dim, image.embed_dim, image.decoder.decoder_dim) == (96, 96, 48)
    assert (image.patch_size, cfg.task.patch_size) == (8, 8)
    assert (cfg.common.seed, cfg.task.seed) == (7, 7)
    assert (cfg.model.ema_decay, cfg.ema.ema_decay, image.mask_prob) == (0.5, 0.5, 0.6)
    assert cfg.task.precompute_mask_config is None
    assert cfg.task.images is None
    assert cfg.model._name == "eat"  # checkpoints have the model's name


@pytest.mark.parametrize("text", ["4,128", "[4, 128]"])
def test_flags__two_sides_of_a_patch(text):
    cfg = parse("eat_pretraining", "eat_base", "--patch-size", text, "--precompute-mask-config")
    sizes = (cfg.model.modalities.image, cfg.task, cfg.task.precompute_mask_config)
    assert [list(options.patch_size) for options in sizes] == [[4, 128]] * 3


def test_flags__patch_size_must_be_whole(capsys):
    with pytest.raises(SystemExit):
        parse("eat_pretraining", "eat_base", "--patch-size", "4x128")
    assert "argument --patch-size: invalid" in capsys.readouterr().err


def test_flags__sections_that_are_off_by_default():
    cfg = parse(
        "eat_pretraining", "eat_base", "--images-size", "32,48", "--images-flip", "0",
        "--precompute-mask-config", "--mask-length", "2", "--fbank-device", "model",
    )  # fmt: skip
    assert (list(cfg.task.images.size), cfg.task.images.flip) == ([32, 48], 0)
    assert cfg.task.images.channels == 3
    masks = cfg.task.precompute_mask_config
    assert (masks.mask_length, masks.clone_batch) == (2, 16)
    assert cfg.task.fbank.device == "model"


def test_flags__channels_of_sound_are_not_those_of_images(capsys):
    for task, arch in (
        ("eat_pretraining", "eat_base"),
        ("eat_classification", "eat_classifier_base"),
    ):
        cfg = parse(task, arch, "--channels", "loudest")
        assert (cfg.task.channels, cfg.task.images) == ("loudest", None)
        cfg = parse(task, arch, "--images-channels", "1")
        assert (cfg.task.channels, cfg.task.images.channels) == ("mean", 1)
    for flags in (("--channels", "first", "--images"), ("--images", "--channels", "mean")):
        with pytest.raises(SystemExit):
            parse("eat_pretraining", "eat_base", *flags)
        assert "--channels is for sound, and does not go with --images" in capsys.readouterr().err


def test_flags__switches_choices_lists_and_none():
    cfg = parse(
        "eat_classification", "eat_classifier_base", "--model-path", "/a b/c'd.pt", "--specaug",
        "--no-use-fc-norm", "--no-pretrained-weights", "--decay-blocks", "--single-label",
        "--prediction-mode", "LIN_SOFTMAX", "--image-size", "[32, 48]", "--norm-eps", "none",
    )  # fmt: skip
    model = plain(cfg.model)
    assert model["model_path"] == "/a b/c'd.pt"
    assert (model["specaug"], model["use_fc_norm"]) == (True, False)
    assert (model["no_pretrained_weights"], model["no_decay_blocks"]) == (True, False)
    assert (model["single_label"], cfg.task.single_label) == (True, True)
    assert (model["prediction_mode"], model["norm_eps"]) == ("LIN_SOFTMAX", None)
    assert model["image_size"] == model["modalities"]["image"]["image_size"] == [32, 48]


def test_flags__a_number_or_several():
    cfg = parse("eat_pretraining", "eat_base", "--norm-mean", "-4.5", "--norm-std", "3")
    assert (cfg.task.norm, cfg.task.norm_mean, cfg.task.norm_std) == ("whole", -4.5, 3.0)
    numbers = ",".join(str(-number / 8) for number in range(128))
    flags = ("--norm", "bins", f"--norm-mean={numbers}", "--norm-std", "[1.5, 2]")
    cfg = parse("eat_classification", "eat_classifier_base", *flags)
    assert cfg.task.norm == "bins"
    assert list(cfg.task.norm_mean) == [-number / 8 for number in range(128)]
    assert list(cfg.task.norm_std) == [1.5, 2.0]
    assert parse("eat_pretraining", "eat_base", "--norm-mean", "none").task.norm_mean is None


def test_flags__wrong_value_is_refused(capsys):
    with pytest.raises(SystemExit):
        parse("eat_pretraining", "eat_base", "--depth", "many")
    assert "argument --depth: invalid int value: 'many'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        parse("eat_pretraining", "eat_base", "--norm-mean", "loud")
    assert "argument --norm-mean: invalid float value: 'loud'" in capsys.readouterr().err


def test_published_arch__options_left_out_keep_their_published_default():
    flags = ["--key", "source", "--audio-mae", "--embed-dim", "96"]
    cfg = parse("mae_image_pretraining", "data2vec_multi", *flags)
    assert cfg.model.embed_dim == cfg.model.modalities.image.embed_dim == 96
    published = MODEL_DATACLASS_REGISTRY["data2vec_multi"]()
    assert cfg.model.modalities.image.prenet_depth == 4  # the model refuses it
    assert cfg.model.ema_decay == published.ema_decay


def test_flags__bf16_does_not_ask_for_a_tpu():
    cfg = parse("eat_pretraining", "eat_base", "--bf16")
    assert (cfg.common.bf16, cfg.common.tpu) == (True, False)
