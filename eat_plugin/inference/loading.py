"""Loading a checkpoint for use."""

from __future__ import annotations

import logging
import os
from typing import Any

import torch
from fairseq.checkpoint_utils import load_model_ensemble_and_task
from fairseq.models import MODEL_REGISTRY
from fairseq.tasks import TASK_REGISTRY
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..data.audioset import NUM_CLASSES, audioset_classes, with_audioset_names
from ..data.label_set import LabelSet
from ..models.classifier import EatClassifier
from ..models.interop import read_checkpoint
from .loaded import Loaded

logger = logging.getLogger(__name__)


def load_checkpoint(
    path: str | os.PathLike[str],
    device: str | torch.device = "cpu",
    labels: LabelSet | None = None,
) -> Loaded:
    """Load an EAT checkpoint, pre-trained or fine-tuned, ours or published.

    It needs neither the data nor another checkpoint. No code in the file is executed.

    Args:
        path: the file.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        labels: the classes of a classifier, in the order of its outputs, in place of those in the
            file. Classes of AudioSet have names without.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not an EAT checkpoint, its weights do not fit its configuration, the
            number of labels is wrong, or the device does not exist.
    """
    device = choose_device(device)
    return load_state(path, read_checkpoint(path), device, labels)


def load_state(
    path: str | os.PathLike[str],
    state: dict[str, Any],
    device: torch.device,
    labels: LabelSet | None = None,
) -> Loaded:
    """Do the same with the result of ``read_checkpoint``."""
    path = os.fspath(path)
    _check_kind(path, state["cfg"])
    # Without the update history the teacher takes no step.
    task_state = _task_state(path, state, labels)
    content: dict[str, Any] = {"model": state["model"], "task_state": task_state}
    classes = None
    try:
        cfg = content["cfg"] = OmegaConf.create(state["cfg"])
        (model,), _, task = load_model_ensemble_and_task([path], state=content)
        if isinstance(model, EatClassifier):
            names = task.state.state_dict.get("label_names", ())
            classes = with_audioset_names(LabelSet(task.label_set.ids, tuple(names)))
    except (RuntimeError, KeyError, AttributeError, TypeError, AssertionError) as error:
        reason = " ".join(str(error).split("\n")[:2])
        raise ValueError(f"{path} does not match its configuration: {reason}") from error
    except (ValueError, OmegaConfBaseException) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path}: {reason}") from error
    kind: type[Loaded] = Loaded
    if task.images is not None:
        from .images import LoadedImages

        kind = LoadedImages
    return kind(
        path=path,
        model=model.to(device).eval(),
        encoder=model if classes is None else model.model,
        front_end=task.front_end,
        images=task.images,
        labels=classes,
        single_label=classes is not None and model.objective.single_label,
        cfg=cfg,
    )


def _task_state(path: str, state: dict[str, Any], labels: LabelSet | None) -> dict[str, Any]:
    """Return the task's state in a checkpoint, with other labels if they are given.

    A model of 527 classes without labels, as published ones may be, is one of AudioSet.
    """
    task_state = dict(state.get("task_state") or {})
    num_classes = state["cfg"]["model"].get("num_classes")
    if labels is not None and num_classes not in (None, len(labels)):
        raise ValueError(f"{len(labels)} labels are given for the {num_classes} classes of {path}")
    if labels is None and not task_state.get("labels") and num_classes == NUM_CLASSES:
        logger.warning("%s has no labels; its %d classes are read as AudioSet's", path, num_classes)
        labels = audioset_classes()
    if labels is not None:
        task_state["labels"] = {label: str(index) for index, label in enumerate(labels.ids)}
        task_state["label_names"] = list(labels.names)
    return task_state


def _check_kind(path: str, cfg: dict[str, Any]) -> None:
    """Refuse other models before fairseq builds them."""
    task = cfg.get("task")
    for kind, section, registry in (
        ("model", cfg["model"], MODEL_REGISTRY), ("task", task, TASK_REGISTRY)
    ):  # fmt: skip
        name = section.get("_name") if isinstance(section, dict) else None
        owner = getattr(registry.get(name), "__module__", "")
        if owner.partition(".")[0] != __name__.partition(".")[0]:
            raise ValueError(
                f"{path} holds a {kind} {name!r}; expected an EAT checkpoint, pre-trained or "
                "fine-tuned"
            )


def choose_device(name: str | torch.device) -> torch.device:
    """Return the device ``cpu``, ``cuda`` or ``cuda:N``; raise ValueError if it does not exist."""
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
