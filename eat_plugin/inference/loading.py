"""From a checkpoint on disk to a model that is ready for use.

In this file:
    load_checkpoint    a file -> Loaded
    load_state         the same, of what was read of it
    choose_device      "cuda:1" -> a device that is there
"""

from __future__ import annotations

import os
from typing import Any

import torch
from fairseq.checkpoint_utils import load_model_ensemble_and_task
from fairseq.models import MODEL_REGISTRY
from fairseq.tasks import TASK_REGISTRY
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..data.label_set import LabelSet
from ..models.classifier import EatClassifier
from ..models.encoder import EatEncoder
from ..models.interop import read_checkpoint
from .inputs import ImageInputs, Inputs, SoundInputs
from .loaded import Loaded


def load_checkpoint(path: str | os.PathLike[str], device: str | torch.device = "cpu") -> Loaded:
    """Load a checkpoint of EAT: pre-trained or fine-tuned, of this or of the published code.

    Neither the data nor the pre-trained checkpoint that it was made from need to be there. Nothing
    that is in the file is executed.

    Args:
        path: the file.
        device: ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is no checkpoint of EAT, or its weights do not fit its configuration, or
            there is no such device.
    """
    device = choose_device(device)
    return load_state(path, read_checkpoint(path), device)


def load_state(path: str | os.PathLike[str], state: dict[str, Any], device: torch.device) -> Loaded:
    """Do what ``load_checkpoint`` does, with what ``read_checkpoint`` has read."""
    path = os.fspath(path)
    _check_kind(path, state["cfg"])
    # Without the history the teacher takes no step; and nobody needs the optimizer's state.
    content: dict[str, Any] = {"model": state["model"], "task_state": state.get("task_state") or {}}
    labels = None
    try:
        cfg = content["cfg"] = OmegaConf.create(state["cfg"])
        (model,), _, task = load_model_ensemble_and_task([path], state=content)
        if isinstance(model, EatClassifier):
            names = task.state.state_dict.get("label_names", ())
            labels = LabelSet(task.label_set.ids, tuple(names))
    except (RuntimeError, KeyError, AttributeError, TypeError, AssertionError) as error:
        reason = " ".join(str(error).split("\n")[:2])
        raise ValueError(f"{path} does not hold what its configuration says: {reason}") from error
    except (ValueError, OmegaConfBaseException) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path}: {reason}") from error
    encoder = model if labels is None else model.model
    return Loaded(
        path=path,
        model=model.to(device).eval(),
        encoder=encoder,
        front_end=task.front_end,
        images=task.images,
        inputs=_choose_inputs(path, encoder, task),
        labels=labels,
        single_label=labels is not None and model.objective.single_label,
        cfg=cfg,
    )


def _check_kind(path: str, cfg: dict[str, Any]) -> None:
    """Refuse what is no model of EAT before fairseq builds it."""
    task = cfg.get("task")
    for kind, section, registry in (
        ("model", cfg["model"], MODEL_REGISTRY), ("task", task, TASK_REGISTRY)
    ):  # fmt: skip
        name = section.get("_name") if isinstance(section, dict) else None
        owner = getattr(registry.get(name), "__module__", "")
        if owner.partition(".")[0] != __name__.partition(".")[0]:
            raise ValueError(
                f"{path} holds a {kind} {name!r}; expected a checkpoint of EAT, pre-trained or "
                "fine-tuned"
            )


def _choose_inputs(path: str, encoder: EatEncoder, task: Any) -> Inputs:
    patches = encoder.patch_encoder
    patch, longest = patches.cfg.patch_size, None
    if task.images is not None:
        return ImageInputs(path, task.images, patch)
    if patches.fixed_positional_encoder is not None:
        longest = patches.cfg.max_length * patch
    return SoundInputs(path, task.front_end, patch, longest)


def choose_device(name: str | torch.device) -> torch.device:
    """Return a device that this machine has.

    Args:
        name: ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        ValueError: if there is no such device.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"the device is {str(name)!r}; choose cpu, cuda or cuda:N")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise ValueError(f"the device is {str(name)!r}, but PyTorch finds {count} CUDA GPUs")
    return device
