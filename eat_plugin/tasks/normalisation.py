"""What the tasks share about ``task.norm_mean`` and ``task.norm_std``, which normalise inputs.

Numbers that are given are taken. Where both are null, the data set's own are, which ``eat stats``
writes; where there are none, AudioSet's, and data that differ from it are pointed out.
"""

import logging
from pathlib import Path
from typing import Any, Optional, Tuple

import torch
from omegaconf import DictConfig, open_dict

from ..data.manifest import Manifest
from ..data.statistics import FILE, measure_some, read_statistics
from .resume import EarlierRun
from .settings import setting, whole_config

logger = logging.getLogger(__name__)

AUDIOSET = AUDIOSET_MEAN, AUDIOSET_STD = -4.268, 4.569
HELP = (
    "{what} of the data set's log-mel values; null takes it from stats.json in data (eat stats), "
    "or AudioSet's where there is none"
)
CLIPS_MEASURED = 48
MEAN_TOLERANCE = 0.1  # of the standard deviation
STD_TOLERANCE = 0.1  # of itself
CHANCE = 3  # standard errors of a sample: within these it shows no difference


def settle(
    cfg: Any, from_checkpoint: bool = False, earlier: Optional[EarlierRun] = None
) -> None:
    """Put numbers where both options are null, in ``cfg`` and in what checkpoints will hold.

    A run that goes on keeps the numbers that it began with.

    Args:
        cfg: the task's options. fairseq hands a task a copy of them and saves the original.
        from_checkpoint: the task is set up for a checkpoint; the folder of its data may be gone,
            or belong to somebody else.
        earlier: the checkpoint that a run goes on from.

    Raises:
        ValueError: if only one of the two is given, or the data set's file is broken.
    """
    if (cfg.norm_mean is None) != (cfg.norm_std is None):
        raise ValueError(
            f"task.norm_mean is {_show(cfg.norm_mean)} and task.norm_std is {_show(cfg.norm_std)}; "
            "give both, or neither (null) for those of the data set"
        )
    if cfg.norm_mean is not None:
        return
    values = AUDIOSET
    before = {} if earlier is None else earlier.options
    if earlier is not None and None not in (before.get("norm_mean"), before.get("norm_std")):
        values = float(before["norm_mean"]), float(before["norm_std"])
        logger.info("task.norm_mean=%.4f task.norm_std=%.4f: of %s", *values, earlier.path)
    elif not from_checkpoint and cfg.images is None:
        values = _find(Path(cfg.data))
    cfg.norm_mean, cfg.norm_std = values
    original = _original(cfg)
    if original is not None:
        with open_dict(original):
            original.norm_mean, original.norm_std = values


def _find(folder: Path) -> Tuple[float, float]:
    """Return the data set's statistics, or AudioSet's, and say which."""
    found = read_statistics(folder)
    values = AUDIOSET if found is None else (found.mean, found.std)
    source = f"AudioSet's, there is no {folder / FILE}"
    if found is not None:
        source = f"from {folder / FILE}, of {found.clips} clips of the split {found.split!r}"
    logger.info("task.norm_mean=%.4f task.norm_std=%.4f: %s", *values, source)
    return values


def _original(cfg: Any) -> Optional[DictConfig]:
    """Return the options that ``cfg`` is a copy of, if it hangs in a whole configuration."""
    task = setting(whole_config(cfg), "task")
    same = isinstance(task, DictConfig) and setting(task, "_name") == cfg.get("_name")
    return task if same else None


def compare(cfg: Any, manifest: Manifest) -> None:
    """Warn if AudioSet's statistics are in use and those of the data differ.

    The data set's own file is taken if it is there; otherwise a few clips are measured, by the
    first of several processes.

    Args:
        cfg: the task's options, settled.
        manifest: the clips of training.
    """
    if cfg.images is not None or (cfg.norm_mean, cfg.norm_std) != AUDIOSET or not _is_first():
        return
    try:
        found = read_statistics(cfg.data)
    except (ValueError, OSError):
        found = None  # it is not what this run goes by
    if found is not None:
        mean, std, source, chance = found.mean, found.std, str(Path(cfg.data) / FILE), (0.0, 0.0)
    else:
        sample = measure_some(manifest, CLIPS_MEASURED)
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
        "%s has %.3f and %.3f; before a new run, %s",
        AUDIOSET_MEAN, AUDIOSET_STD, source, mean, std, advice,
    )  # fmt: skip


def _is_first() -> bool:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return True
    return torch.distributed.get_rank() == 0


def _show(value: Optional[float]) -> str:
    return "null" if value is None else f"{value:g}"
