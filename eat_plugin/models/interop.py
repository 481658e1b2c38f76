"""Checkpoints of this and of the published code: safe reading, loading of encoders."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Union

import torch
from torch import Tensor

from ..checkpoint_files import read_data
from ..sections import fill, merge
from .config import EatConfig, validate_config
from .encoder import EatEncoder

CLASSIFIER_PREFIX = "model."
# Options that the published fine-tuning code adds to the pre-training configuration.
ADDED_BY_FINETUNING = ("_name", "drop_path_rate")


class PretrainedEncoder(NamedTuple):
    """The encoder of a checkpoint.

    Attributes:
        path: the file.
        model: options of the pre-trained model, by the names of ``EatConfig``.
        task: options of its pre-training task; None without pre-training.
        state: weights, by the names of ``EatEncoder``.
    """

    path: str
    model: dict[str, Any]
    task: dict[str, Any] | None
    state: dict[str, Tensor]


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a fairseq checkpoint onto the CPU, as data: no code in the file is executed.

    Returns:
        The dictionary that fairseq saved, with ``cfg`` and ``model`` at least.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is not a fairseq checkpoint, is damaged, or holds more than plain data.
    """
    if Path(path).is_dir():
        raise ValueError(
            f"{path} is a folder; give the checkpoint file in it; for a Hugging Face folder run "
            "eat import first"
        )
    state = read_data(path)
    if not (isinstance(state, dict) and isinstance(state.get("model"), dict)):
        raise ValueError(f"{path} is not a fairseq checkpoint: it has no entry 'model'")
    cfg = state.get("cfg")
    if not (isinstance(cfg, dict) and isinstance(cfg.get("model"), dict)):
        raise ValueError(f"{path} is not a checkpoint of fairseq-hydra-train: it has no 'cfg'")
    return state


def as_checkpoint(
    cfg: Mapping[str, Any],
    weights: Mapping[str, Any],
    task_state: Mapping[str, Any],
    updates: int = 0,
) -> dict[str, Any]:
    """Return the contents of a checkpoint without the state of an optimizer.

    Args:
        cfg: the whole configuration.
        weights: of the model.
        task_state: such as the classes.
        updates: number of updates of the model.
    """
    history = {
        "criterion_name": "ModelCriterion",
        "optimizer_name": "FairseqCompositeOptimizer",
        "lr_scheduler_state": {},
        "num_updates": updates,
    }
    return {
        "args": None,
        "cfg": cfg,
        "model": weights,
        "criterion": None,
        "optimizer_history": [history],
        "task_state": task_state,
        "extra_state": {"train_iterator": {"epoch": 1, "iterations_in_epoch": 0}},
        "last_optimizer_state": None,
    }


def read_encoder(path: str | os.PathLike[str]) -> PretrainedEncoder:
    """Read the encoder of a checkpoint, pre-trained or fine-tuned, ours or published.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is not a checkpoint of EAT.
    """
    state = read_checkpoint(path)
    model, task = state["cfg"]["model"], state["cfg"].get("task")
    weights = dict(state["model"])
    if model.get("pretrained_model_args"):
        pretrained = model["pretrained_model_args"]
        model, task = pretrained["model"], pretrained.get("task")
        skip = len(CLASSIFIER_PREFIX)
        weights = {k[skip:]: v for k, v in weights.items() if k.startswith(CLASSIFIER_PREFIX)}
    if "modalities" not in model:
        raise ValueError(
            f"{path} holds a model {model.get('_name')!r}; expected a checkpoint of EAT, "
            "pre-trained or fine-tuned"
        )
    return PretrainedEncoder(os.fspath(path), model, task, weights)


def encoder_config(options: Mapping[str, Any], **changes: Any) -> EatConfig:
    """Make the validated configuration of an encoder without a teacher.

    ``changes`` replace options of a checkpoint.

    Raises:
        ValueError: if an option is unknown or invalid.
    """
    given = {k: v for k, v in options.items() if k not in ADDED_BY_FINETUNING}
    # Defaults of the teacher refer to these sections; an encoder does not use them.
    root = {"common": {"seed": 1}, "optimization": {"max_update": 0}}
    try:
        cfg = fill(EatConfig, merge(given, changes, {"skip_ema": True}), "model", root)
    except ValueError as error:
        raise ValueError(f"the encoder's options cannot be used: {error}") from error
    validate_config(cfg)
    return cfg


def load_encoder(encoder: EatEncoder, pretrained: PretrainedEncoder) -> None:
    """Load an encoder's weights; the table of positions unless it has another length or grid.

    Raises:
        ValueError: names the first weight that does not fit.
    """
    own, size = encoder.state_dict(), encoder.patch_encoder.image_size
    image = pretrained.model["modalities"]["image"]
    before = tuple(image.get("image_size") or [image.get("input_size", 224)] * 2)
    for name, value in own.items():
        found = pretrained.state.get(name)
        if name.endswith("fixed_positional_encoder.positions") and (
            found is None or found.shape != value.shape or size not in (None, before)
        ):
            continue  # the encoder's own, computed for its grid
        if found is None:
            raise ValueError(f"{pretrained.path} has no weights {name!r} of the encoder")
        if found.shape != value.shape:
            raise ValueError(
                f"{pretrained.path}: {name} has shape {tuple(found.shape)}, but its configuration "
                f"says {tuple(value.shape)}"
            )
        value.copy_(found)


Numbers = Union[float, tuple[float, ...]]  # of all mel bins, or of each


def fold_normalisation(
    weights: Mapping[str, Any], own: tuple[Numbers, Numbers], other: tuple[Numbers, Numbers]
) -> dict[str, Any]:
    """Change a model to take inputs normalised by other statistics.

    The model sees (x - mean) / (2 std). With own statistics m, s and others m', s' this is s'/s
    times the other value, plus (m' - m) / (2 s). The patch embedding is affine: the change goes
    into its weights and bias. Statistics of each mel bin need a weight that always sees the same
    bin: patches over all of them.

    Args:
        weights: of a classifier, or of a pre-trained model with its averages (``_ema``).
        own: mean and standard deviation that the model was trained with, of all mel bins or of
            each.
        other: those of its future inputs.

    Returns:
        The changed weights, the patch embedding in float32.

    Raises:
        ValueError: the statistics are of each bin, and a patch has fewer bins.
    """
    changed = dict(weights)
    if own == other:
        return changed
    if isinstance(changed.get("_ema"), Mapping):
        changed["_ema"] = fold_normalisation(changed["_ema"], own, other)
    bins = max((len(n) for n in (*own, *other) if isinstance(n, tuple)), default=1)
    # [1], or [bins]; float64
    (mean, std), (other_mean, other_std) = (
        [torch.tensor(n, dtype=torch.float64).expand(bins) for n in pair] for pair in (own, other)
    )
    for name in [n for n in changed if "local_encoder." in n and n.endswith("proj.weight")]:
        kernel = changed[name].double()  # [D, channels, frames, bins of a patch]
        if bins not in (1, kernel.shape[-1]):
            raise ValueError(
                f"task.norm=bins has no published name; it can be folded into patches over all "
                f"{bins} mel bins, and those of this model have {kernel.shape[-1]}"
            )
        bias = name.removesuffix("weight") + "bias"
        sums = kernel.sum(dim=(1, 2, 3) if bins == 1 else (1, 2)).view(-1, bins)
        shift = (sums * ((other_mean - mean) / (2 * std))).sum(dim=1)
        changed[bias] = (changed[bias].double() + shift).float()
        changed[name] = (kernel * (other_std / std)).float()
    return changed
