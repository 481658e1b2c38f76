"""Strong labels in ``eat_classification``: their reader, their options, their scores."""

from operator import attrgetter
from pathlib import Path
from typing import Any, Tuple

import numpy as np

from ..data.events import ENDING, EventReader, read_events
from ..data.frontend import FrontEnd
from ..data.label_set import LabelSet
from ..data.manifest import Manifest
from . import sound
from .data_checks import read_split
from .run_config import RunConfig

# Options of the task that do not go with labels of frames -> the value that does.
NEEDED = {
    "single_label": False, "length": "pad", "noise": False, "fbank.device": "cpu", "images": None,
}  # fmt: skip


def check_options(cfg: Any) -> None:
    """Refuse options that do not go with ``task.events``; ValueError names the first one."""
    for name, needed in NEEDED.items():
        value = attrgetter(name)(cfg)
        if value != needed:
            shown, wanted = (str(each).lower() for each in (value, needed))
            wanted = "null" if needed is None else wanted
            raise ValueError(f"task.{name} is {shown}; with task.events=true it must be {wanted}")


def check_model(model: Any, events: bool) -> None:
    """Refuse a model of clips with labels of frames, and the reverse."""
    if getattr(model, "by_frame", False) != events:
        mode = model.cfg.prediction_mode.name
        raise ValueError(
            f"task.events is {str(events).lower()}, but model.prediction_mode is {mode}; labels of "
            "frames need FRAMES, and FRAMES needs task.events=true (benchmark=frames sets both)"
        )


def make_reader(
    cfg: Any, manifest: Manifest, path: Path, front_end: FrontEnd, label_set: LabelSet, train: bool
) -> EventReader:
    """Make the reader of a split with strong labels, next to its manifest ``path``.

    Raises:
        ValueError: the labels cannot be read, or an option does not suit the clips.
    """
    events = read_events(path.with_suffix(f".{ENDING}"), manifest, label_set)
    crop, roll_gain = sound.choose_crop(cfg, train), bool(train and cfg.roll_gain)
    return EventReader(manifest, front_end, events, len(label_set), crop=crop, roll_gain=roll_gain)


def check_tables(run: RunConfig, folder: Path, label_set: LabelSet) -> None:
    """Read the strong labels of all splits of a run, as its data sets will.

    Raises:
        ValueError: a manifest or a table cannot be used; the message names file and line.
    """
    validates = not run.get("dataset.disable_validation")
    held_out = str(run.get("dataset.valid_subset")).split(",") if validates else []
    for split in (run.get("dataset.train_subset"), *held_out):
        path = folder / f"{split}.tsv"
        read_events(path.with_suffix(f".{ENDING}"), read_split(path), label_set)


def flatten_steps(
    ids: np.ndarray, predictions: np.ndarray, targets: np.ndarray
) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Make a row of each time step of clips, without padding.

    Args:
        ids: of the clips, [B].
        predictions: [B, steps, C].
        targets: [B, steps, C], -1 in padding.

    Returns:
        A number of each step, and its predictions and targets, [rows, C].
    """
    steps = targets.shape[1]
    numbers = ids[:, None] * steps + np.arange(steps)
    known = targets[:, :, 0] >= 0
    return numbers[known], predictions[known], targets[known]
