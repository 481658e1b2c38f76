"""A Hugging Face folder, ours or a published one, as a checkpoint; no code of the folder is run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from ..data.audioset import NUM_CLASSES, audioset_classes
from ..data.frames import MEL_BINS, SAMPLE_RATE
from ..data.frontend import FrontEnd
from ..data.json_text import parse_json
from ..data.label_set import LabelSet
from ..inputs.sound import AUDIOSET, InputConfig
from ..models.classifier_config import EatClassifierConfig
from ..models.interop import as_checkpoint, encoder_config
from ..models.named import build_model
from ..options import patch_sides, require
from ..safetensors_files import list_names, read_weights
from ..sections import fill, plain
from .description import CONFIG, INPUT, MULTI_LABEL, SINGLE_LABEL, WEIGHTS
from .names import name_in_checkpoint
from .network_eat import DEFAULTS, FINE_TUNED

TRAINED = {"names", "problem_type", "ids", "single_label"}

SHOWN = 3  # names in a message


@dataclass
class Imported:
    """A folder as a checkpoint.

    Attributes:
        state: its contents.
        notes: what the folder does not say, and was assumed.
    """

    state: dict[str, Any]
    notes: list[str]


def import_folder(folder: Path) -> Imported:
    """Read the configuration and the weights of a folder, and how inputs are made if it says so.

    Raises:
        OSError: a file cannot be read.
        ValueError: the folder holds something else, or is damaged; the message names the file.
        ModuleNotFoundError: the package safetensors is not installed.
    """
    path = folder / CONFIG
    notes: list[str] = []
    given = _read_json(path)
    if given.get("model_type") != "eat":
        raise ValueError(
            f"{path} is of a model {given.get('model_type')!r}; expected 'eat': a folder of "
            "eat export --format hf, or a published one of EAT"
        )
    config = SimpleNamespace(**{**DEFAULTS, **given})
    _check_depth(path, config.depth, folder / WEIGHTS)
    try:
        takes = _read_input(folder, config, notes)
        labels = _read_labels(given, config, notes)
        cfg = _describe(given, config, takes, labels)
        names = {name: value.shape for name, value in build_model(cfg).state_dict().items()}
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(f"{path} does not describe a model of EAT: {error}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    weights = _read_weights(folder, names, labels is not None)
    task_state: dict[str, Any] = {}
    if labels is not None:
        task_state["labels"] = {label: str(i) for i, label in enumerate(labels.ids)}
        task_state["label_names"] = list(labels.names)
    return Imported(as_checkpoint(cfg, weights, task_state), notes)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = parse_json(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} is not a JSON object")
    return values


def _read_input(folder: Path, config: Any, notes: list[str]) -> dict[str, Any]:
    """Return the options of a task that decide the input."""
    path = folder / INPUT
    values: dict[str, Any] = {}
    if path.exists():
        values = _read_json(path)
        rate = values.get("sampling_rate", SAMPLE_RATE)
        require(rate == SAMPLE_RATE, f"sampling_rate in {INPUT}", rate, f"only {SAMPLE_RATE} is")
    else:
        notes.append(f"no {INPUT}: inputs are normalised by AudioSet's mean and deviation")
    mean, std = (values.get(n, of) for n, of in zip(("mean", "std"), AUDIOSET))
    patch, windows = (values.get(name, 0) for name in ("patch", "eval_windows"))
    own = patch_sides(config.patch_size, "patch_size")[0]
    require(patch in (0, own), f"patch in {INPUT}", patch, f"only 0 or that of {CONFIG}, {own}, is")
    is_count = type(windows) is int and windows >= 0
    require(is_count, f"eval_windows in {INPUT}", windows, "it must be 0 or a whole number above")
    length = "mask" if patch else "crop" if windows else "pad"
    size = config.img_size
    is_size = isinstance(size, (list, tuple)) and len(size) > 0
    require(is_size, "img_size", size, "it must be a list of frames and mel bins")
    task = {
        "target_length": values.get("target_length", size[0]),
        "norm": "bins" if isinstance(mean, list) else "whole", "norm_mean": mean, "norm_std": std,
        "channels": values.get("channels", FrontEnd.channels),
        "frontend": values.get("kind", FrontEnd.kind),
        "pad_value": values.get("pad_value", FrontEnd.pad_value), "length": length,
        "patch_size": config.patch_size,
    }  # fmt: skip
    found = plain(fill(InputConfig, task, "task", {}))
    return {**found, "data": "", **({"eval_windows": windows} if windows else {})}


def _read_labels(given: Mapping[str, Any], config: Any, notes: list[str]) -> LabelSet | None:
    """Return the classes of a classifier; None for an encoder."""
    if config.model_variant != FINE_TUNED:
        return None
    names = given.get("id2label")
    if names is None and config.num_classes == NUM_CLASSES:
        notes.append(f"no id2label: the {NUM_CLASSES} classes are read as AudioSet's")
        return audioset_classes()
    if names is None:
        raise ValueError(f"it has {config.num_classes} classes, but no id2label that names them")
    is_table = isinstance(names, dict) and names.keys() == set(map(str, range(len(names))))
    rule = "it must name the classes '0', '1', ..., each once"
    require(is_table and len(names) > 0, "id2label", names, rule)
    shown = tuple(str(names[str(number)]) for number in range(len(names)))
    ids = _trained(given).get("ids")
    return LabelSet(shown) if ids is None else LabelSet(tuple(map(str, ids)), shown)


def _trained(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return labels and their kind as they were exported; empty if the classes are others now.

    Raises:
        ValueError: they are not what was exported.
    """
    trained = given.get("trained")
    if trained is None:
        return {}
    is_table = isinstance(trained, dict) and trained.keys() == TRAINED
    is_valid = is_table and isinstance(trained["single_label"], bool)
    rule = f"it must have {', '.join(sorted(TRAINED))}"
    require(is_valid and isinstance(trained["ids"], list), "trained", trained, rule)
    names = {str(number): name for number, name in enumerate(trained["names"])}
    same = names == given.get("id2label") and len(trained["ids"]) == len(names)
    return dict(trained) if same else {}


def _describe(
    given: Mapping[str, Any], config: Any, takes: dict[str, Any], labels: LabelSet | None
) -> dict[str, Any]:
    """Return the configuration of a checkpoint."""
    _check_options(config)
    encoder = plain(encoder_config(_encoder_options(config, takes["target_length"])))
    if labels is None:
        return {
            "model": {**encoder, "_name": "eat"}, "task": {**takes, "_name": "eat_pretraining"},
        }  # fmt: skip
    problem = given.get("problem_type")
    problem = MULTI_LABEL if problem is None else problem  # as published
    known = (MULTI_LABEL, SINGLE_LABEL)
    require(problem in known, "problem_type", problem, f"only {' and '.join(known)} are")
    multi = problem == MULTI_LABEL
    trained = _trained(given)
    same = trained.get("problem_type") == problem
    single_label = trained["single_label"] if same else not multi
    task = {**takes, "_name": "eat_classification", "single_label": single_label}
    options = {
        "model_path": None, "num_classes": len(labels), "loss": "bce" if multi else "ce",
        "single_label": single_label, "prediction_mode": config.pooling,
        "segments": config.segments, "use_fc_norm": config.use_fc_norm,
        "target_length": takes["target_length"], "drop_path_rate": config.end_drop_path_rate,
        "encoder_dropout": config.drop_rate, "attention_dropout": config.attn_drop_rate,
        "activation_dropout": config.activation_dropout, "post_mlp_drop": config.post_mlp_drop,
        "pretrained_model_args": {"model": encoder, "task": None},
    }  # fmt: skip
    root = {"task": task, "common": {"seed": 1}, "optimization": {"max_update": 0}}
    model = plain(fill(EatClassifierConfig, options, "model", root))
    return {"model": {**model, "_name": "eat_classifier"}, "task": task}


def _check_options(config: Any) -> None:
    """Refuse what the published code knows and ours does not."""
    require(config.mel_bins == MEL_BINS, "mel_bins", config.mel_bins, f"only {MEL_BINS} is")
    require(config.qkv_bias is True, "qkv_bias", config.qkv_bias, "only true is")
    sides = [patch_sides(size, "patch_size") for size in (config.patch_size, config.stride)]
    require(sides[0] == sides[1], "stride", config.stride, "only that of patch_size is")


def _check_depth(path: Path, depth: Any, weights: Path) -> None:
    """Refuse another depth than the weights have, before a model of it is built."""
    after = [name.partition(".blocks.")[2] for name in list_names(weights)]
    found = len({name.partition(".")[0] for name in after if name})
    if depth != found:
        raise ValueError(f"{path}: depth is {depth!r}, but {weights.name} has {found} blocks")


def _encoder_options(config: Any, target_length: int) -> dict[str, Any]:
    image = {
        "prenet_depth": 0, "num_extra_tokens": config.num_extra_tokens,
        "in_chans": config.in_chans, "patch_size": config.patch_size,
        "embed_dim": config.patch_embed_dim or config.embed_dim, "decoder": None,
        "fixed_positions": config.fixed_positions, "target_length": target_length,
        "max_length": config.max_length, "mel_by_time": config.mel_by_time,
        "positions": config.positions,
    }  # fmt: skip
    return {
        "embed_dim": config.embed_dim, "depth": config.depth, "num_heads": config.num_heads,
        "mlp_ratio": config.mlp_ratio, "attention_gate": config.attention_gate,
        "layer_norm_first": config.layer_norm_first,
        "norm_eps": config.norm_eps, "norm_affine": config.norm_affine,
        "start_drop_path_rate": config.start_drop_path_rate,
        "end_drop_path_rate": config.end_drop_path_rate, "encoder_dropout": config.drop_rate,
        "attention_dropout": config.attn_drop_rate,
        "activation_dropout": config.activation_dropout, "post_mlp_drop": config.post_mlp_drop,
        "average_top_k_layers": config.depth, "modalities": {"image": image},
    }  # fmt: skip


def _read_weights(
    folder: Path, expected: Mapping[str, torch.Size], is_classifier: bool
) -> dict[str, torch.Tensor]:
    """Read the weights of a folder in float32, by the names of a checkpoint."""
    path = folder / WEIGHTS
    found = {name_in_checkpoint(n, is_classifier) or n: v for n, v in read_weights(path)[0].items()}
    for problem, names in (
        ("no", expected.keys() - found.keys()), ("an unknown", found.keys() - expected.keys())
    ):  # fmt: skip
        if names:
            shown = ", ".join(sorted(names)[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
            raise ValueError(f"{path} has {problem} weight {shown} ({len(names)} in all)")
    for name, shape in expected.items():
        if not found[name].is_floating_point() or not bool(found[name].isfinite().all()):
            raise ValueError(
                f"{path}: {name} is {found[name].dtype}, or not finite; expected finite "
                "floating-point weights"
            )
        if found[name].shape != shape:
            raise ValueError(
                f"{path}: {name} has shape {tuple(found[name].shape)}, but {CONFIG} says "
                f"{tuple(shape)}"
            )
    return {name: found[name].float() for name in expected}
