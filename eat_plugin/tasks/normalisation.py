"""``task.norm_mean`` and ``task.norm_std``, which normalise inputs.

Given numbers are used. If both are null, those of ``stats.json`` (``eat stats``) are; without that
file AudioSet's, with a warning if the data differ from them.
"""

import logging
from pathlib import Path
from typing import Any, Optional, Tuple

import torch
from omegaconf import DictConfig, open_dict

from ..data.channels import check_channels
from ..data.manifest import Manifest
from ..data.statistics import FILE, check_statistics, measure_some, read_statistics
from .checks import ResumedRun
from .run_config import RunConfig

logger = logging.getLogger(__name__)

AUDIOSET = AUDIOSET_MEAN, AUDIOSET_STD = -4.268, 4.569
HELP = (
    "{what} of the data set's log-mel values; null reads it from stats.json in data (eat stats), "
    "or takes AudioSet's without that file"
)
CLIPS_MEASURED = 48
MEAN_TOLERANCE = 0.1  # of the standard deviation
STD_TOLERANCE = 0.1  # of itself
CHANCE = 3  # standard errors of a sample within which a difference is no evidence


def resolve_norm(
    cfg: Any, run: RunConfig, from_checkpoint: bool = False, resumed: Optional[ResumedRun] = None
) -> None:
    """Replace null by numbers, in ``cfg`` and in the options that checkpoints will hold.

    A resumed run keeps its numbers.

    Args:
        cfg: the task's options, a copy; fairseq saves the original.
        run: the whole configuration, with the original.
        from_checkpoint: the task is set up for a checkpoint, whose data folder may not exist.
        resumed: the checkpoint being resumed, or None.

    Raises:
        ValueError: only one of the two is given, or ``stats.json`` is invalid or of other clips.
    """
    if (cfg.norm_mean is None) != (cfg.norm_std is None):
        raise ValueError(
            f"task.norm_mean is {_show(cfg.norm_mean)} and task.norm_std is {_show(cfg.norm_std)}; "
            "set both, or neither (null) to use those of the data set"
        )
    if cfg.norm_mean is not None:
        return
    values = AUDIOSET
    before = {} if resumed is None else resumed.options
    if resumed is not None and None not in (before.get("norm_mean"), before.get("norm_std")):
        values = float(before["norm_mean"]), float(before["norm_std"])
        logger.info("task.norm_mean=%.4f task.norm_std=%.4f: from %s", *values, resumed.path)
    elif not from_checkpoint and cfg.images is None:
        values = _find(Path(cfg.data), cfg.channels)
    cfg.norm_mean, cfg.norm_std = values
    original = run.get("task")
    # The parent may hold the options of another task, if only this one's name differs.
    if isinstance(original, DictConfig) and original.get("_name") == cfg.get("_name"):
        with open_dict(original):
            original.norm_mean, original.norm_std = values


def _find(folder: Path, channels: str) -> Tuple[float, float]:
    """Return the data set's statistics, or AudioSet's, and log which."""
    check_channels(channels)
    found = read_statistics(folder)
    if found is not None:
        check_statistics(folder, found, channels)
    values = AUDIOSET if found is None else (found.mean, found.std)
    source = f"AudioSet's, there is no {folder / FILE}"
    if found is not None:
        source = f"from {folder / FILE}, of {found.clips} clips of the split {found.split!r}"
    logger.info("task.norm_mean=%.4f task.norm_std=%.4f: %s", *values, source)
    return values


def warn_of_audioset(cfg: Any, manifest: Manifest) -> None:
    """Warn if AudioSet's statistics are in use and those of the training clips differ.

    Those are read from ``stats.json``, or measured on a few clips by rank 0.
    """
    if cfg.images is not None or (cfg.norm_mean, cfg.norm_std) != AUDIOSET or not _is_first():
        return
    try:
        found = read_statistics(cfg.data)
    except (ValueError, OSError):
        found = None  # this run does not use it
    if found is not None and found.channels == cfg.channels:
        mean, std, source, chance = found.mean, found.std, str(Path(cfg.data) / FILE), (0.0, 0.0)
    else:
        sample = measure_some(manifest, CLIPS_MEASURED, channels=cfg.channels)
        if sample is None:
            return
        mean, std = sample.moments.mean, sample.moments.std
        chance = (CHANCE * sample.mean_error, CHANCE * sample.std_error)
        source = f"a sample of {sample.clips} clips"
    allowed = (MEAN_TOLERANCE * AUDIOSET_STD, STD_TOLERANCE * AUDIOSET_STD)
    off = (abs(mean - AUDIOSET_MEAN), abs(std - AUDIOSET_STD))
    if off[0] <= max(allowed[0], chance[0]) and off[1] <= max(allowed[1], chance[1]):
        return
    advice = "set task.norm_mean=null task.norm_std=null"
    if found is None:
        advice = f"run eat stats {cfg.data}, and leave task.norm_mean and task.norm_std null"
    logger.warning(
        "inputs are normalised by AudioSet's statistics, mean %.3f and standard deviation %.3f; "
        "%s has %.3f and %.3f; for a new run, %s",
        AUDIOSET_MEAN, AUDIOSET_STD, source, mean, std, advice,
    )  # fmt: skip


def _is_first() -> bool:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return True
    return torch.distributed.get_rank() == 0


def _show(value: Optional[float]) -> str:
    return "null" if value is None else f"{value:g}"
