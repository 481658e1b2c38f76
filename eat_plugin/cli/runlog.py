"""The results of a run: its logged losses and metrics, and a clip and masks from its data."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from pickle import UnpicklingError
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch

from eat_plugin.data.clip import ClipError
from eat_plugin.data.frontend import FrontEnd
from eat_plugin.data.manifest import read_manifest
from eat_plugin.data.reader import read_energies
from eat_plugin.masking import MaskSpec, draw_masks
from eat_plugin.models.interop import NO_CHECKPOINT

VARIANCES = ("target_var", "pred_var")
MAIN = ("accuracy", "mAP")  # metrics of fine-tuning; the first one in the log is shown
COUNT = "num_updates"
EPOCH = "train_"  # prefix of the mean over an epoch, whose updates are logged already
NUM_MASKS = 4

Curves = dict[str, tuple[list[int], list[float]]]
"""Name of a logged value -> updates, and the value at each."""


class Example(NamedTuple):
    """A clip as a model is trained on it."""

    name: str  # in the manifest
    spectrogram: np.ndarray  # normalised log-mel energies, float32 [T, F]; NaN in padding
    masks: np.ndarray  # hidden patches, bool [masks, T / patch, F / patch]
    patch: int  # side of a patch, in frames and mel bins


def read_curves(run_dir: Path) -> Curves:
    """Collect the losses and metrics from the ``*.log`` files of a run.

    If an update was logged twice (a resumed run, two log files), the last value is used. The order
    is ``loss``; each ``loss_*`` by name; for a split ``eval`` ``eval_loss`` and ``eval_accuracy``
    or ``eval_mAP``; the variances; each if it was logged.
    """
    if not run_dir.is_dir():
        raise ValueError(f"{run_dir} is not a folder of a run")
    values: dict[str, dict[int, float]] = {}
    for path in sorted(run_dir.glob("*.log")):
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                for name, update, value in parse_line(line):
                    values.setdefault(name, {})[update] = value
    losses = sorted(name for name in values if name.startswith("loss"))
    if not losses:
        raise ValueError(
            f"no *.log file in {run_dir} has a logged update; training writes one with "
            f"common.log_format=json hydra.run.dir={run_dir}"
        )
    names = losses + sorted(name for name in values if name.endswith("_loss"))
    for metric in MAIN:
        found = sorted(name for name in values if name.endswith(f"_{metric}"))
        if found:
            names += found
            break
    names += [name for name in VARIANCES if name in values]
    return {
        name: (sorted(values[name]), [values[name][u] for u in sorted(values[name])])
        for name in names
    }


def parse_line(line: str) -> Iterator[tuple[str, int, float]]:
    """Yield name, update and value of the losses, variances and metrics in a line of a log.

    A record is ``[time][train_inner][INFO] - {...}``, or the JSON object alone.
    """
    brace = line.find("{")
    if brace < 0 or COUNT not in line:
        return
    try:
        record = json.loads(line[brace:])
        count = next(name for name in record if name.endswith(COUNT))
        update = int(record[count])
    except (ValueError, TypeError, StopIteration):
        return  # a truncated line, or another dictionary
    split = count[: -len(COUNT)]  # "" in training, "eval_" in validation
    if split == EPOCH:
        return
    for name, value in record.items():
        own = name[len(split) :] if name.startswith(split) else ""
        if own == "loss" or own in (MAIN if split else VARIANCES) or name.startswith("loss_"):
            try:
                yield name, update, float(value)
            except (ValueError, TypeError):
                continue


def find_checkpoint(run_dir: Path) -> Path:
    """Return ``checkpoint_last.pt`` of a run, or its newest checkpoint without one."""
    # Sorted so that the newest checkpoint of this run is last, those of runs below it first.
    found = sorted(
        run_dir.glob("**/*.pt"), key=lambda path: (-len(path.parts), path.stat().st_mtime)
    )
    if not found:
        raise ValueError(f"no checkpoint (*.pt) in {run_dir}; wait until the run has saved one")
    named = [path for path in found if path.name == "checkpoint_last.pt"]
    return (named or found)[-1]


def read_example(checkpoint: Path) -> Example | None:
    """Load the longest clip of the training data of a checkpoint, and draw masks for it.

    It is None for fine-tuning, which has no masks.
    """
    configuration = _read_configuration(checkpoint)
    if configuration is None:
        return None
    task, image, split = configuration
    manifest = read_manifest(Path(task.data) / f"{split}.tsv")
    index = int(np.argmax(manifest.sizes))  # the least padding
    front_end = FrontEnd(task.target_length, task.norm_mean, task.norm_std)
    try:
        energies = read_energies(manifest.path(index), front_end)
    except ClipError as error:
        raise ValueError(f"{manifest.path(index)}: {error}") from error
    spectrogram = front_end.finish(energies)[0].numpy()  # [T, F]
    spectrogram[len(energies) :] = np.nan

    side = image.patch_size
    grid = (spectrogram.shape[0] // side, spectrogram.shape[1] // side)
    spec = MaskSpec.from_options(image, grid, flexible=getattr(task, "flexible_mask", False))
    masks = draw_masks(spec, NUM_MASKS, torch.Generator().manual_seed(0))  # [masks, L]
    return Example(
        manifest.name(index), spectrogram, masks.view(NUM_MASKS, *grid).bool().numpy(), side
    )


def _read_configuration(checkpoint: Path) -> tuple[Any, Any, str] | None:
    """Return the options of task and patches, and the training split; None for fine-tuning."""
    try:
        # mmap: the weights are not used and stay on disk.
        saved = torch.load(str(checkpoint), map_location="cpu", weights_only=True, mmap=True)
        saved = saved["cfg"]
        if "num_classes" in saved["model"]:
            return None
        task = SimpleNamespace(**saved["task"])
        image = SimpleNamespace(**saved["model"]["modalities"]["image"])
        split = saved["dataset"]["train_subset"]
        fields = (task.data, task.target_length, task.norm_mean, task.norm_std, image.patch_size)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{checkpoint} was not written by EAT pre-training on audio files: its configuration "
            f"has no {error}"
        ) from error
    except (*NO_CHECKPOINT, OSError, UnpicklingError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{checkpoint} is not a readable checkpoint: {reason}") from error
    if None in fields:
        raise ValueError(f"{checkpoint}: task.data and task.target_length must be set")
    return task, image, split
