"""`eat export`: a checkpoint for other code: published names, in configuration and keys.

The weights have the published names as they are; what is translated is the configuration. That
takes knowledge of both tasks and models, which is why it stands here. What the published flags mean
is asked of the tasks and models that read them (``tasks/published.py``, ``models/published.py``):
those flags are chosen under which they behave as the checkpoint does.

In this file:
    export_published     the contents of a checkpoint -> those of a published one
    check_same           both compute the same
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from fairseq.models import MODEL_DATACLASS_REGISTRY, MODEL_REGISTRY
from fairseq.tasks import TASK_DATACLASS_REGISTRY, setup_task
from omegaconf import OmegaConf

from eat_plugin.cli import say
from eat_plugin.data.features import MEL_BINS, FrontEnd
from eat_plugin.data.files import replacing
from eat_plugin.inference import Loaded, load_state
from eat_plugin.models.classifier import EatClassifier
from eat_plugin.models.interop import fold_normalisation, read_checkpoint

NAME = "export"
HELP = "rewrite a checkpoint with the names of the published code"
EXAMPLE = """
example: eat export --checkpoint checkpoint_best.pt --out published.pt --format published

The file has the published keys and the published configuration, and computes the same: features,
and the logits of a fine-tuned model. It is meant for loading and fine-tuning elsewhere: the state
of the optimizer is left out, so training cannot be resumed from it. Statistics of your own data,
which the published code does not know, go into the weights of the patch embedding, and the
published ones serve. What else the published configuration cannot say and changes what the model
computes is an error; options that only said how training went are left out and named.
"""
PRETRAINING, CLASSIFICATION = "mae_image_pretraining", "mae_image_classification"
PRETRAINED, CLASSIFIER = "data2vec_multi", "mae_image_classification"
MODALITY = "IMAGE"
FLAGS = ("esc50_eval", "spcv2_eval")
CPU = torch.device("cpu")
ROUNDING = 1e-3  # by which features may change where statistics go into the weights

# The published options of the classifier; ours has more.
CLASSIFIER_OPTIONS = (
    "model_path", "no_pretrained_weights", "linear_classifier", "num_classes", "mixup", "cutmix",
    "label_smoothing", "drop_path_rate", "layer_decay", "mixup_prob", "mixup_switch_prob",
    "mixup_mode", "pretrained_model_args", "data", "norm_eps", "remove_alibi", "encoder_dropout",
    "post_mlp_drop", "attention_dropout", "activation_dropout", "dropout_input", "layerdrop",
    "prenet_layerdrop", "prenet_dropout", "use_fc_norm", "prediction_mode", "no_decay_blocks",
    "audio_mae", "esc50_eval", "spcv2_eval", "target_length", "specaug", "freqm", "timem",
    "mask_ratio",
)  # fmt: skip
# Our options of fine-tuning that say how training goes -> what they are by publication.
TRAINING_OPTIONS: dict[str, dict[str, Any]] = {
    "task": {
        "crop": "start", "length": "pad", "replacement": False, "max_skipped_share": 0.01,
        "fbank": {"device": "cpu"},
    },
    "model": {"layer_decay_embeddings": False, "recompute": "none", "compile": False},
    "optimizer": {"apply_weight_decay_scale": False},
}
LOG_KEYS = {
    PRETRAINING: ["ema_decay", "target_var", "pred_var", "model_norm", "ema_norm", "masked_pct"],
    CLASSIFICATION: ["_predictions", "_targets"],
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.epilog = EXAMPLE
    parser.add_argument(
        "--checkpoint", metavar="C", type=Path, required=True, help="checkpoint to rewrite"
    )
    parser.add_argument("--out", metavar="F", type=Path, required=True, help="file to write")
    parser.add_argument(
        "--format",
        choices=("published",),
        default="published",
        help="whose names (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Write the exported checkpoint and name it.

    Raises:
        ValueError: The file is no checkpoint of EAT, or it cannot be said in published terms.
        OSError: A file cannot be read or written.
    """
    if args.out.exists() and args.out.samefile(args.checkpoint):
        raise ValueError(f"--out is {args.out}, the checkpoint itself, which would lose its state")
    state = read_checkpoint(args.checkpoint)
    loaded = load_state(args.checkpoint, state, CPU)
    exported, left_out = export_published(state, loaded)
    reloaded = load_state(args.checkpoint, exported, CPU)
    check_same(loaded, reloaded)
    if reloaded.front_end != loaded.front_end:
        sys.stderr.write(
            f"eat export: task.norm_mean={loaded.front_end.mean} with task.norm_std="
            f"{loaded.front_end.std} went into the patch embedding; now inputs have to be "
            f"normalised by {reloaded.front_end.mean} and {reloaded.front_end.std}\n"
        )
    if left_out:
        sys.stderr.write(
            f"eat export: left out, without a published name: {', '.join(left_out)}\n"
        )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(args.out) as file:
        torch.save(exported, file)
    names = (exported["cfg"][part]["_name"] for part in ("task", "model"))
    say(f"{args.out}: {' and '.join(names)}, without the optimizer's state")
    return 0


def export_published(state: Mapping[str, Any], loaded: Loaded) -> tuple[dict[str, Any], list[str]]:
    """Translate a checkpoint.

    Args:
        state: what ``read_checkpoint`` read; it is not changed.
        loaded: the same, loaded.

    Returns:
        What is to be saved, and the options left out, ``name=value``, which say how training went.

    Raises:
        ValueError: if an option has no published name, and changes what the model computes.
    """
    if loaded.images is not None:
        raise ValueError(
            f"{loaded.path} is a model of images (task.images), for which there are no published "
            "names here"
        )
    cfg = copy.deepcopy(dict(state["cfg"]))
    left_out = [
        f"{part}.{name}={cfg[part][name]}"
        for part, options in TRAINING_OPTIONS.items()
        for name, default in options.items()
        if cfg.get(part, {}).get(name, default) != default
    ]
    model = cfg["model"]
    strategy = model.get("modalities", {}).get("image", {}).get("mask_strategy")
    if strategy is not None:
        left_out.append(f"model.modalities.image.mask_strategy={strategy}")
    mixes = bool(model.get("mixup") or model.get("cutmix"))
    if mixes and model.get("label_smoothing") and model.get("smooth_mixed"):
        left_out.append("model.smooth_mixed=True")
    if isinstance(loaded.model, EatClassifier):
        task, front_end = _translate_task(CLASSIFICATION, cfg["task"], loaded)
        cfg["model"] = _translate_classifier(cfg["model"], task["data"], loaded.model)
    else:
        task, front_end = _translate_task(PRETRAINING, cfg["task"], loaded)
        cfg["model"] = _translate_encoder(cfg["model"])
    cfg["task"] = task
    if cfg.get("criterion", {}).get("_name") != "model":
        keys = ["correct"] if loaded.single_label else LOG_KEYS[task["_name"]]
        cfg["criterion"] = {
            "_name": "model", "loss_weights": {}, "log_keys": keys, "can_sum": True,
        }  # fmt: skip
    if cfg.get("optimizer", {}).get("_name") == "eat_adamw":
        cfg.update(_translate_optimizer(cfg))
    if "common" in cfg:
        # The published optimizer keeps no float32 weights itself.
        cfg["common"].update(
            user_dir="EAT", memory_efficient_fp16=False, memory_efficient_bf16=False
        )
    history = state.get("optimizer_history") or [{}]
    exported = {
        "args": None,
        "cfg": cfg,
        "model": fold_normalisation(
            state["model"],
            (loaded.front_end.mean, loaded.front_end.std),
            (front_end.mean, front_end.std),
        ),
        "criterion": None,
        "optimizer_history": [
            {
                "criterion_name": "ModelCriterion",
                "optimizer_name": "FairseqCompositeOptimizer",
                "lr_scheduler_state": {},
                "num_updates": int(history[-1].get("num_updates", 0)),
            }
        ],
        "task_state": state.get("task_state") or {},
        "extra_state": {"train_iterator": {"epoch": 1, "iterations_in_epoch": 0}},
        "last_optimizer_state": None,
    }
    return exported, left_out


def _translate_task(
    name: str, options: Mapping[str, Any], loaded: Loaded
) -> tuple[dict[str, Any], FrontEnd]:
    """Find the published options under which a task makes the same input.

    Returns:
        Those options, and the front end under them. Where none have the same mean and standard
        deviation, it is the one of AudioSet.
    """
    if loaded.front_end.patch:
        raise ValueError("task.length=mask has no published name; there is only pad")
    if loaded.front_end.pad_value != "zero":
        raise ValueError(
            f"task.pad_value={loaded.front_end.pad_value} has no published name; there is only zero"
        )
    given = _published_task(name, options)
    for flags in _combinations(given):
        if name == CLASSIFICATION and any(flags.values()) and not loaded.single_label:
            continue  # by publication those statistics go with one label a clip
        values = {**given, **flags}
        front_end = setup_task(OmegaConf.create(values), from_checkpoint=True).front_end
        if front_end == loaded.front_end:
            return values, front_end
        if not any(flags.values()):
            of_audioset = values, front_end
    return of_audioset


def _combinations(options: Mapping[str, Any]) -> list[dict[str, bool]]:
    """List values of the published flags to try; those that are set already come first."""
    own = {flag: bool(options.get(flag, False)) for flag in FLAGS}
    return [own, *({flag: flag == chosen for flag in FLAGS} for chosen in (None, *FLAGS))]


def _published_task(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Give every published option of a task a value, from a task of ours or a published one."""
    schema = OmegaConf.structured(TASK_DATACLASS_REGISTRY[name]())
    values = _plain(schema)
    values.update(data="", seed=1, audio_mae=True, downsr_16hz=True)
    values.update({key: options[key] for key in values if key in options})
    masks = values.get("precompute_mask_config")
    if masks:
        masks = {key: value for key, value in masks.items() if key != "mask_strategy"}
        values["precompute_mask_config"] = masks
    values.update(_name=name, key="imgs" if name == CLASSIFICATION else "source")
    if "roll_gain" in options:  # one of ours
        weights = options.get("weights_file")
        values["roll_aug"] = options["roll_gain"]
        values["AS2M_finetune"] = bool(weights)
        values["weights_file"] = str(Path(values["data"]) / weights) if weights else ""
    return values


def _plain(schema: Any) -> dict[str, Any]:
    values = OmegaConf.to_container(schema, enum_to_str=True)
    assert isinstance(values, dict)
    return {str(name): value for name, value in values.items()}


def _translate_classifier(
    options: Mapping[str, Any], data: str, model: EatClassifier
) -> dict[str, Any]:
    """Find the published options under which a classifier computes the same."""
    schema = OmegaConf.structured(MODEL_DATACLASS_REGISTRY[CLASSIFIER]())
    values = _plain(schema)
    values.update(options)
    values.update(
        model_path=options.get("model_path") or "",
        linear_classifier=model.frozen,
        data=data,
        audio_mae=True,
        pretrained_model_args=_translate_arguments(options, model),
    )
    values.update({name: int(values[name]) for name in ("freqm", "timem")})
    wanted = model.objective
    for flags in _combinations(values):
        trial = OmegaConf.create({**values, **flags, "label_smoothing": 0.0})
        found = MODEL_REGISTRY[CLASSIFIER].choose_objective(trial)
        if (found.loss, found.single_label) == (wanted.loss, wanted.single_label):
            values.update(flags)
            return {"_name": CLASSIFIER, **{name: values[name] for name in CLASSIFIER_OPTIONS}}
    raise ValueError(
        f"model.loss={wanted.loss} with task.single_label={wanted.single_label}, model.mixup="
        f"{values['mixup']} and model.cutmix={values['cutmix']} has no published name; there are "
        "bce with several labels, ce with one label, and bce with one label and mixup or cutmix"
    )


def _translate_arguments(options: Mapping[str, Any], model: EatClassifier) -> dict[str, Any]:
    """Give the encoder's options the form that the published classifier builds it from."""
    given = options.get("pretrained_model_args") or {}
    if given.get("model", {}).get("_name"):
        return given
    # The published classifier builds the pre-training model, and removes its teacher.
    own = {**model.pretrained_model_args["model"], "skip_ema": False}
    encoder = _translate_encoder(own)
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


def _translate_encoder(options: Mapping[str, Any]) -> dict[str, Any]:
    """Give a pre-trained model its published options."""
    values = {**copy.deepcopy(dict(options)), "_name": PRETRAINED}
    values["supported_modality"] = values.get("supported_modality") or MODALITY
    for name in ("recompute", "compile"):  # they change nothing that the model computes
        values.pop(name, None)
    values["modalities"]["image"].pop("mask_strategy", None)
    values["modalities"]["image"].pop("image_size", None)  # None: the model takes spectrograms
    if values["modalities"]["image"].pop("mel_by_time", False):
        raise ValueError("model.modalities.image.mel_by_time=true has no published name")
    return values


def _translate_optimizer(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Say in published terms how the model was trained."""
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
    """Make sure that two checkpoints compute the same.

    Raises:
        ValueError: They do not.
    """
    image = first.encoder.patch_encoder.cfg
    shape = 2, image.in_chans, image.target_length, MEL_BINS
    source = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    own, other = first.front_end, second.front_end
    energies = source * (2 * own.std) + own.mean
    renormalised = source if own == other else (energies - other.mean) / (2 * other.std)
    tolerance = 0.0 if own == other else ROUNDING

    def agree(mine: torch.Tensor, theirs: torch.Tensor) -> bool:
        return torch.allclose(mine, theirs, rtol=tolerance, atol=tolerance)

    same = agree(first.features(source, "all"), second.features(renormalised, "all"))
    if first.labels is not None and second.labels is not None:
        same = same and agree(first.predict(source), second.predict(renormalised))
    same = same and replace(other, mean=own.mean, std=own.std) == own
    for name in ("labels", "single_label"):
        same = same and getattr(first, name) == getattr(second, name)
    if not same:
        raise ValueError(f"{first.path} would compute something else when exported; not written")
