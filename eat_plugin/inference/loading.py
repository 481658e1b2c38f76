"""Loading a checkpoint for use."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..data.audioset import NUM_CLASSES, audioset_classes, with_audioset_names
from ..data.label_set import LabelSet, read_label_set
from ..inputs.images import check_model
from ..inputs.published import PublishedLabels
from ..inputs.sound import check_patches
from ..inputs.tasks import CLASSIFICATION, TASKS, read_input
from ..models.classifier import EatClassifier
from ..models.interop import read_checkpoint
from ..models.named import MODELS, build_model
from ..reproduction import RECORD
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
    path, cfg = os.fspath(path), state["cfg"]
    _check_kind(path, cfg)
    if not isinstance(state.get("task_state") or {}, dict):
        raise ValueError(f"{path} does not match its configuration: task_state is no dictionary")
    labels = _choose_labels(path, cfg, state, labels)
    try:
        takes = read_input(cfg)
        classes = _read_classes(cfg, state, labels)
        model = build_model(_with_classes(cfg, classes))
        check_model(model, takes.images)
        check_patches(model, takes.front_end)
        model.load_state_dict(state["model"])
    except (RuntimeError, KeyError, AttributeError, TypeError, AssertionError) as error:
        reason = " ".join(str(error).split("\n")[:2])
        raise ValueError(f"{path} does not match its configuration: {reason}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    kind: type[Loaded] = Loaded
    if takes.images is not None:
        from .images import LoadedImages

        kind = LoadedImages
    return kind(
        path=path,
        model=model.to(device).eval(),
        encoder=model.model if isinstance(model, EatClassifier) else model,
        front_end=takes.front_end,
        images=takes.images,
        labels=classes,
        single_label=isinstance(model, EatClassifier) and model.objective.single_label,
        cfg=cfg,
        record=(state.get("task_state") or {}).get(RECORD),
    )


def _choose_labels(
    path: str, cfg: Mapping[str, Any], state: Mapping[str, Any], labels: LabelSet | None
) -> LabelSet | None:
    """Return the labels that replace those of a checkpoint; None for its own.

    A model of 527 classes without labels, as published ones may be, is one of AudioSet.
    """
    num_classes = cfg["model"].get("num_classes")
    if labels is not None and num_classes not in (None, len(labels)):
        raise ValueError(f"{len(labels)} labels are given for the {num_classes} classes of {path}")
    has_labels = bool((state.get("task_state") or {}).get("labels"))
    if labels is None and not has_labels and num_classes == NUM_CLASSES:
        logger.warning("%s has no labels; its %d classes are read as AudioSet's", path, num_classes)
        return audioset_classes()
    return labels


def _read_classes(
    cfg: Mapping[str, Any], state: Mapping[str, Any], labels: LabelSet | None
) -> LabelSet | None:
    """Return the classes of a classifier, from its checkpoint or from its data; else None."""
    name, task = cfg["model"]["_name"], cfg["task"]
    if not issubclass(MODELS[name].network, EatClassifier):
        return None
    if task["_name"] not in CLASSIFICATION:
        raise TypeError(f"the model {name} needs labels, which the task {task['_name']} has not")
    if labels is None:
        saved = state.get("task_state") or {}
        if saved.get("labels"):
            ids = LabelSet.from_indices(saved["labels"]).ids
            labels = LabelSet(ids, tuple(map(str, saved.get("label_names", ()))))
        else:
            descriptors = task.get("label_descriptors", PublishedLabels.label_descriptors)
            labels = read_label_set(Path(task["data"]) / descriptors)
    return with_audioset_names(labels)


def _with_classes(cfg: Mapping[str, Any], classes: LabelSet | None) -> Mapping[str, Any]:
    """Set the number of classes in a configuration that does not have it."""
    if classes is None:
        return cfg
    number = cfg["model"].get("num_classes")
    if number not in (None, len(classes)):
        raise ValueError(f"model.num_classes is {number}, but it has {len(classes)} labels")
    return {**cfg, "model": {**cfg["model"], "num_classes": len(classes)}}


def _check_kind(path: str, cfg: Mapping[str, Any]) -> None:
    """Refuse the models of other plugins."""
    for kind, section, known in (("model", cfg["model"], MODELS), ("task", cfg.get("task"), TASKS)):
        name = section.get("_name") if isinstance(section, dict) else None
        if not isinstance(name, str) or name not in known:
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
