"""Conversion of a checkpoint to the names of the published code.

Weights have the published names already; the configuration is converted. The meaning of the
published flags comes from ``inputs/published.py`` and ``models/published.py``: the conversion tries
flags until both give the options of the checkpoint.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..data.channels import MEAN
from ..data.frames import KALDI, MEL_BINS
from ..data.frontend import FrontEnd
from ..inputs.tasks import PUBLISHED, read_input
from ..models.bat_options import PUBLISHED_AVERAGE, remove_ingredients, require_convolutions
from ..models.classifier import EatClassifier
from ..models.interop import as_checkpoint, fold_normalisation
from ..models.published import MaeImageClassificationConfig, MaeImageClassificationModel
from ..models.published_options import square_patches
from ..models.utterance_options import default_options, without_parts
from ..sections import fill, plain
from .loaded import Loaded

PRETRAINING, CLASSIFICATION = "mae_image_pretraining", "mae_image_classification"
PRETRAINED, CLASSIFIER = "data2vec_multi", "mae_image_classification"
FLAGS = ("esc50_eval", "spcv2_eval")
ROUNDING = 1e-3  # tolerance of features if statistics are folded into the weights

# Published options; our classifier has more.
CLASSIFIER_OPTIONS = (
    "model_path", "no_pretrained_weights", "linear_classifier", "num_classes", "mixup", "cutmix",
    "label_smoothing", "drop_path_rate", "layer_decay", "mixup_prob", "mixup_switch_prob",
    "mixup_mode", "pretrained_model_args", "data", "norm_eps", "remove_alibi", "encoder_dropout",
    "post_mlp_drop", "attention_dropout", "activation_dropout", "dropout_input", "layerdrop",
    "prenet_layerdrop", "prenet_dropout", "use_fc_norm", "prediction_mode", "no_decay_blocks",
    "audio_mae", "esc50_eval", "spcv2_eval", "target_length", "specaug", "freqm", "timem",
    "mask_ratio",
)  # fmt: skip
# Our options that affect training alone -> the published behaviour.
TRAINING_OPTIONS: dict[str, dict[str, Any]] = {
    "task": {
        "crop": "start", "length": "pad", "replacement": False, "max_skipped_share": 0.01,
        "fbank": {"device": "cpu"}, "roll": False,
    },
    "model": dict(
        default_options(), layer_decay_embeddings=False, recompute="none", compile=False,
        head_dropout=0.0, target_norm_eps=1e-5, loss_average=PUBLISHED_AVERAGE,
    ),
    "optimizer": {"apply_weight_decay_scale": False},
}  # fmt: skip
LOG_KEYS = {
    PRETRAINING: ["ema_decay", "target_var", "pred_var", "model_norm", "ema_norm", "masked_pct"],
    CLASSIFICATION: ["_predictions", "_targets"],
}


def convert_to_published(
    state: Mapping[str, Any], loaded: Loaded
) -> tuple[dict[str, Any], list[str]]:
    """Convert a checkpoint, the result of ``read_checkpoint``, which is not changed.

    Returns:
        The contents of the published checkpoint, and the training options that were left out, as
        ``name=value``.

    Raises:
        ValueError: an option that affects the results has no published name.
    """
    if loaded.images is not None:
        raise ValueError(
            f"{loaded.path} is a model of images (task.images), which has no published names here"
        )
    cfg = copy.deepcopy(dict(state["cfg"]))
    left_out = _training_options(cfg)
    if isinstance(loaded.model, EatClassifier):
        task, front_end = _convert_task(CLASSIFICATION, cfg["task"], loaded)
        cfg["model"] = _convert_classifier(cfg["model"], task["data"], loaded.model)
    else:
        task, front_end = _convert_task(PRETRAINING, cfg["task"], loaded)
        cfg["model"] = _convert_encoder(require_convolutions(cfg["model"]))
    cfg["task"] = task
    if cfg.get("criterion", {}).get("_name") != "model":
        keys = ["correct"] if loaded.single_label else LOG_KEYS[task["_name"]]
        cfg["criterion"] = {
            "_name": "model", "loss_weights": {}, "log_keys": keys, "can_sum": True,
        }  # fmt: skip
    if cfg.get("optimizer", {}).get("_name") == "eat_adamw":
        cfg.update(_convert_optimizer(cfg))
    if "common" in cfg:
        # The published optimizer has no float32 weights of its own.
        cfg["common"].update(
            user_dir="EAT", memory_efficient_fp16=False, memory_efficient_bf16=False
        )
    history = state.get("optimizer_history") or [{}]
    weights = fold_normalisation(
        without_parts(state["model"]),
        (loaded.front_end.mean, loaded.front_end.std),
        (front_end.mean, front_end.std),
    )
    updates, task_state = int(history[-1].get("num_updates", 0)), state.get("task_state") or {}
    exported = as_checkpoint(cfg, weights, task_state, updates)
    return exported, left_out


def _training_options(cfg: Mapping[str, Any]) -> list[str]:
    """List the options that have no published name and affect training alone."""
    found = [
        f"{part}.{name}={cfg[part][name]}"
        for part, options in TRAINING_OPTIONS.items()
        for name, default in options.items()
        if cfg.get(part, {}).get(name, default) != default
    ]
    model = cfg["model"]
    strategy = model.get("modalities", {}).get("image", {}).get("mask_strategy")
    if strategy is not None:
        found.append(f"model.modalities.image.mask_strategy={strategy}")
    mixes = bool(model.get("mixup") or model.get("cutmix"))
    if mixes and model.get("label_smoothing") and model.get("smooth_mixed"):
        found.append("model.smooth_mixed=True")
    return found


def _convert_task(
    name: str, options: Mapping[str, Any], loaded: Loaded
) -> tuple[dict[str, Any], FrontEnd]:
    """Find the published options with which a task computes the same input.

    Returns:
        The options and their front end, that of AudioSet if none has the mean and deviation.
    """
    if loaded.front_end.patch:
        raise ValueError("task.length=mask has no published name; only pad has")
    if loaded.front_end.pad_value != "zero":
        raise ValueError(
            f"task.pad_value={loaded.front_end.pad_value} has no published name; only zero has"
        )
    if loaded.front_end.channels != MEAN:
        raise ValueError(
            f"task.channels={loaded.front_end.channels} has no published name; only {MEAN} has"
        )
    if loaded.front_end.kind != KALDI:
        raise ValueError(
            f"task.frontend={loaded.front_end.kind} has no published name; only {KALDI} has: give "
            f"task.frontend={KALDI} in pre-training"
        )
    given = _published_task(name, options)
    for flags in _combinations(given):
        if name == CLASSIFICATION and any(flags.values()) and not loaded.single_label:
            continue  # the published flags imply one label per clip
        values = {**given, **flags}
        front_end = read_input({"task": values}).front_end
        if front_end == loaded.front_end:
            return values, front_end
        if not any(flags.values()):
            of_audioset = values, front_end
    return of_audioset


def _combinations(options: Mapping[str, Any]) -> list[dict[str, bool]]:
    """List values of the published flags to try, the current ones first."""
    own = {flag: bool(options.get(flag, False)) for flag in FLAGS}
    return [own, *({flag: flag == chosen for flag in FLAGS} for chosen in (None, *FLAGS))]


def _published_task(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in all published options of a task from a task of ours or a published one."""
    values = plain(PUBLISHED[name][0]())
    values.update(data="", seed=1, audio_mae=True, downsr_16hz=True)
    values.update({key: options[key] for key in values if key in options})
    masks = values.get("precompute_mask_config")
    if masks:
        masks = {key: value for key, value in masks.items() if key != "mask_strategy"}
        values["precompute_mask_config"] = square_patches(masks)
    values.update(_name=name, key="imgs" if name == CLASSIFICATION else "source")
    if "roll_gain" in options:  # ours
        weights = options.get("weights_file")
        values["roll_aug"] = options["roll_gain"]
        values["AS2M_finetune"] = bool(weights)
        values["weights_file"] = str(Path(values["data"]) / weights) if weights else ""
    return values


def _convert_classifier(
    options: Mapping[str, Any], data: str, model: EatClassifier
) -> dict[str, Any]:
    """Find the published options with which a classifier computes the same."""
    if options.get("prediction_mode") in ("SEGMENT_POOLING", "MEAN_MAX_POOLING", "FRAMES"):
        mode = options["prediction_mode"]
        raise ValueError(
            f"model.prediction_mode={mode} has no published name; only CLS_TOKEN, MEAN_POOLING and "
            "LIN_SOFTMAX have"
        )
    values = {**plain(MaeImageClassificationConfig()), **options}
    values.update(
        model_path=options.get("model_path") or "",
        linear_classifier=model.frozen,
        data=data,
        audio_mae=True,
        pretrained_model_args=_convert_arguments(options, model),
    )
    values.update({name: int(values[name]) for name in ("freqm", "timem")})
    wanted = model.objective
    for flags in _combinations(values):
        trial = {**values, **flags, "label_smoothing": 0.0}
        found = MaeImageClassificationModel.choose_objective(
            fill(MaeImageClassificationConfig, trial, "model", {}, ignore_unknown=True)
        )
        if (found.loss, found.single_label) == (wanted.loss, wanted.single_label):
            values.update(flags)
            return {"_name": CLASSIFIER, **{name: values[name] for name in CLASSIFIER_OPTIONS}}
    raise ValueError(
        f"model.loss={wanted.loss} with task.single_label={wanted.single_label}, model.mixup="
        f"{values['mixup']} and model.cutmix={values['cutmix']} has no published name; choose "
        "bce with several labels, ce with one label, or bce with one label and mixup or cutmix"
    )


def _convert_arguments(options: Mapping[str, Any], model: EatClassifier) -> dict[str, Any]:
    """Return the options from which the published classifier builds the encoder."""
    given = options.get("pretrained_model_args") or {}
    if given.get("model", {}).get("_name"):
        return given
    # The published classifier builds the pre-training model, and removes its teacher.
    own = {**model.pretrained_model_args["model"], "skip_ema": False}
    encoder = _convert_encoder(own)
    task = model.pretrained_model_args["task"] or {
        "target_length": encoder["modalities"]["image"]["target_length"]
    }
    return {
        "_name": None,
        "criterion": None,
        "lr_scheduler": None,
        "model": encoder,
        "task": _published_task(PRETRAINING, task),
    }


def _convert_encoder(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the published options of a pre-trained model."""
    values = {**copy.deepcopy(dict(options)), "_name": PRETRAINED}
    values["supported_modality"] = values.get("supported_modality") or "IMAGE"
    of_training = ("recompute", "compile", "cuda_graph", "convolution")
    for name in (*of_training, *default_options()):
        values.pop(name, None)
    remove_ingredients(values)  # the table of positions is among the weights
    image = square_patches(values["modalities"]["image"])
    for name in ("mask_strategy", "image_size"):  # the latter is None for spectrograms
        image.pop(name, None)
    if image.pop("mel_by_time", False):
        raise ValueError("model.modalities.image.mel_by_time=true has no published name")
    return values


def _convert_optimizer(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Return the published options of the optimizer and its schedule."""
    own, rates = cfg["optimizer"], cfg.get("optimization", {}).get("lr") or [0.0]
    optimizer = {"_name": "adam", "adam_betas": own["adam_betas"], "adam_eps": own["adam_eps"]}
    group = {
        "lr_float": rates[0],
        "optimizer": {**optimizer, "weight_decay": own["weight_decay"]},
        "lr_scheduler": cfg.get("lr_scheduler") or {"_name": "fixed"},
    }
    return {
        "optimizer": {"_name": "composite", "dynamic_groups": True, "groups": {"default": group}},
        "lr_scheduler": {"_name": "pass_through"},
    }


@torch.inference_mode()
def check_same(first: Loaded, second: Loaded) -> None:
    """Raise ValueError unless two checkpoints compute the same."""
    image = first.encoder.patch_encoder.cfg
    shape = 2, image.in_chans, image.target_length, MEL_BINS
    source = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    own, other = first.front_end, second.front_end
    (mean, divisor), (other_mean, other_divisor) = own.scale(source), other.scale(source)
    energies = source * divisor + mean
    renormalised = source if own == other else (energies - other_mean) / other_divisor
    tolerance = 0.0 if own == other else ROUNDING
    agree = partial(torch.allclose, rtol=tolerance, atol=tolerance)
    same = agree(first.features(source, "all"), second.features(renormalised, "all"))
    if first.labels is not None and second.labels is not None:
        same = same and agree(first.predict(source), second.predict(renormalised))
    same = same and replace(other, mean=own.mean, std=own.std) == own
    same = same and (first.labels, first.single_label) == (second.labels, second.single_label)
    if not same:
        raise ValueError(f"{first.path} would give other results after the conversion; not written")
