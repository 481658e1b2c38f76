"""``task.norm``, ``task.norm_mean`` and ``task.norm_std``, which normalise inputs.

``task.norm``: by one mean and deviation (``whole``, as published), or by those of each mel bin
(``bins``).

The front end ``db`` has numbers of its own for ``whole``. Given numbers are used. If both are null,
those of ``stats.json`` (``eat stats``) are, which has none of ``db``; without them a sample of the
training clips is measured, the same one in every run. A resumed run keeps its numbers.
"""

import logging
import os
import time
from functools import partial
from pathlib import Path
from typing import Any, Optional, Tuple

import torch
from omegaconf import DictConfig, ListConfig, open_dict

from ..data.channels import MEAN, check_channels
from ..data.clip_sample import SAMPLE_FRAMES, measure_some
from ..data.frames import KALDI, Numbers, Pair
from ..data.manifest import Manifest
from ..data.statistics import (
    BINS,
    FILE,
    WHOLE,
    Statistics,
    check_statistics,
    read_statistics,
)
from ..inputs.sound import (
    AUDIOSET,
    AUDIOSET_MEAN,
    AUDIOSET_STD,
    choose_norm,
    fixed_numbers,
    read_number,
    read_numbers,
)
from .data_checks import read_split
from .processes import in_first_process
from .resumed import ResumedRun
from .run_config import RunConfig

logger = logging.getLogger(__name__)

CLIPS_AT_START = 200  # measured without stats.json: a few seconds
CLIPS_MEASURED = 48  # to compare with AudioSet's
MEAN_TOLERANCE = 0.1  # of the standard deviation
STD_TOLERANCE = 0.1  # of itself
CHANCE = 3  # standard errors of a sample within which a difference is no evidence


def resolve_norm(
    cfg: Any, run: RunConfig, from_checkpoint: bool = False, resumed: Optional[ResumedRun] = None
) -> None:
    """Replace null by numbers, in ``cfg`` and in the options that checkpoints will hold.

    Null remains where training clips have to be measured, see ``measure_norm``: at this point it is
    not known yet whether they can be read.

    Args:
        cfg: the task's options, a copy; fairseq saves the original.
        run: the whole configuration, with the original.
        from_checkpoint: the task is set up for a checkpoint, whose data folder may not exist.
        resumed: the checkpoint being resumed, or None.

    Raises:
        ValueError: only one of the two is given, or not as many numbers as ``task.norm`` says;
            ``stats.json`` is invalid or of other clips; or the checkpoint has another
            ``task.norm``.
    """
    norm, fixed = choose_norm(cfg), fixed_numbers(cfg)
    values = None if resumed is None else _find_earlier(norm, cfg.channels, resumed)
    if fixed is not None:
        _use_fixed(cfg, run, fixed)
        return
    if (cfg.norm_mean is None) != (cfg.norm_std is None):
        raise ValueError(
            f"task.norm_mean is {_show(cfg.norm_mean)} and task.norm_std is {_show(cfg.norm_std)}; "
            "set both, or neither (null) to use those of the data set"
        )
    given = read_numbers(cfg)
    if given is not None:
        cfg.norm_mean, cfg.norm_std = (_plain(value) for value in given)
        if resumed is not None and values not in (None, given):
            logger.warning(
                "inputs change: %s has other numbers, %s", resumed.path, describe(values)
            )
        return
    if resumed is not None and values is not None:
        logger.info("%s: from %s", describe(values), resumed.path)
    elif from_checkpoint or cfg.images is not None:
        values = AUDIOSET  # as in older versions; images have their own
    elif cfg.frontend == KALDI:
        values = _find(Path(cfg.data), cfg.channels, norm)
    if values is not None:
        _store(cfg, run, values)


def _use_fixed(cfg: Any, run: RunConfig, values: Pair) -> None:
    """Set the numbers of a front end that needs no statistics; say that others are not used."""
    if cfg.norm_mean is not None and (cfg.norm_mean, cfg.norm_std) != values:
        shown = " ".join(f"task.{name}={_show(cfg[name])}" for name in ("norm_mean", "norm_std"))
        logger.info(
            "not used, as task.frontend=%s with task.norm=%s needs no statistics: %s",
            cfg.frontend, WHOLE, shown,
        )  # fmt: skip
    _store(cfg, run, values)


def _find_earlier(norm: str, channels: str, resumed: ResumedRun) -> Optional[Pair]:
    """Return the numbers of the checkpoint being resumed; None if it has none of this kind.

    Raises:
        ValueError: the run would continue with another ``task.norm``.
    """
    before = resumed.options
    earlier = before.get("norm", WHOLE)
    path = os.path.abspath(resumed.path)
    if earlier != norm and resumed.optimizer:
        raise ValueError(
            f"{path} has task.norm={earlier}, this run {norm}: choose another run folder "
            "(hydra.run.dir) or the same setting"
        )
    if earlier != norm:
        logger.warning("inputs change: %s has task.norm=%s, this run %s", path, earlier, norm)
        return None
    mean, std = before.get("norm_mean"), before.get("norm_std")
    if mean is None or std is None or before.get("channels", MEAN) != channels:
        return None
    return read_number("norm_mean", mean, norm), read_number("norm_std", std, norm)


def _find(folder: Path, channels: str, norm: str) -> Optional[Pair]:
    """Return the numbers in ``stats.json``, and log them; None without that file."""
    check_channels(channels)
    found = read_statistics(folder)
    if found is None:
        return None
    check_statistics(folder, found, channels)
    if norm == BINS and not found.bin_stds:
        raise ValueError(
            f"{folder / FILE} is of an earlier version, without the statistics of each mel bin "
            f"(task.norm=bins); run eat stats {folder} again"
        )
    values = found.numbers(norm)
    source = f"from {folder / FILE}, of {found.clips} clips of the split {found.split!r}"
    logger.info("%s: %s", describe(values), source)
    return values


def measure_norm(cfg: Any, run: RunConfig, split: str) -> None:
    """Measure a sample of the training clips, and replace null by its numbers.

    The first process measures; all have its numbers. They depend on the clips alone, not on seeds,
    threads, workers or processes.

    Args:
        cfg: the task's options, a copy; fairseq saves the original.
        run: the whole configuration, with the original.
        split: the training clips.

    Raises:
        ValueError: no clip of the sample can be used, or all are silent.
    """
    path, start = Path(cfg.data, f"{split}.tsv"), time.monotonic()
    frames = SAMPLE_FRAMES if cfg.frontend == KALDI else cfg.target_length  # values depend on it
    norm = choose_norm(cfg)
    found, total = in_first_process(
        partial(_measure, path, cfg.channels, cfg.frontend, frames, norm)
    )
    values = found.numbers(norm)
    logger.info(
        "%s: measured on %d of %d clips of the split %r in %.1f s; %s",
        describe(values), found.clips, total, split, time.monotonic() - start,
        f"eat stats {cfg.data} measures all" if cfg.frontend == KALDI
        else f"eat stats and {FILE} are for task.frontend={KALDI}",
    )  # fmt: skip
    _store(cfg, run, values)


def _measure(
    path: Path, channels: str, kind: str, frames: int, norm: str
) -> Tuple[Statistics, int]:
    """Return the statistics of a sample of a split, and the number of clips of the split."""
    manifest = read_split(path)
    try:
        sample = measure_some(manifest, CLIPS_AT_START, channels=channels, kind=kind, frames=frames)
        found = Statistics.from_moments(sample.moments, sample.clips, path.stem, 0, channels)
    except ValueError as error:
        whole = f" task.norm={WHOLE}" if norm == BINS else ""
        numbers = f"task.norm_mean={AUDIOSET_MEAN} task.norm_std={AUDIOSET_STD}{whole}"
        advice = f"AudioSet's are {numbers}"
        advice = advice if kind == KALDI else "task.frontend=db task.norm=whole needs none"
        raise ValueError(
            f"task.norm_mean and task.norm_std are null and cannot be measured: {path}: {error}; "
            f"{advice}"
        ) from error
    return found, len(manifest)


def _store(cfg: Any, run: RunConfig, values: Pair) -> None:
    """Set numbers in the options of a task and in those that checkpoints will hold."""
    mean, std = (_plain(value) for value in values)
    options = {"norm_mean": mean, "norm_std": std}
    for name, value in options.items():
        setattr(cfg, name, value)
    original = run.get("task")
    # The parent may hold the options of another task, if only this one's name differs.
    if isinstance(original, DictConfig) and original.get("_name") == cfg.get("_name"):
        with open_dict(original):
            original.update(options)


def describe(values: Pair) -> str:
    """Return numbers as options; those of mel bins as their range."""
    names = ("task.norm_mean", "task.norm_std")
    if not isinstance(values[0], tuple):
        return " ".join(f"{name}={value:.4f}" for name, value in zip(names, values))
    ranges = (
        f"{name} {min(value):.4f} to {max(value):.4f}"
        for name, value in zip(names, values) if isinstance(value, tuple)
    )  # fmt: skip
    return f"task.norm=bins {', '.join(ranges)}"


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
        try:
            sample = measure_some(manifest, CLIPS_MEASURED, channels=cfg.channels)
        except ValueError:
            return  # clips are named when they are read
        mean, std = sample.moments.mean, sample.moments.std
        chance = (CHANCE * sample.mean_error, CHANCE * sample.std_error)
        source = f"a sample of {sample.clips} clips"
    allowed = (MEAN_TOLERANCE * AUDIOSET_STD, STD_TOLERANCE * AUDIOSET_STD)
    off = (abs(mean - AUDIOSET_MEAN), abs(std - AUDIOSET_STD))
    if off[0] <= max(allowed[0], chance[0]) and off[1] <= max(allowed[1], chance[1]):
        return
    logger.warning(
        "inputs are normalised by AudioSet's statistics, mean %.3f and standard deviation %.3f; "
        "%s has %.3f and %.3f; for a new run, set task.norm_mean=null task.norm_std=null",
        AUDIOSET_MEAN, AUDIOSET_STD, source, mean, std,
    )  # fmt: skip


def _is_first() -> bool:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return True
    return torch.distributed.get_rank() == 0


def _plain(value: Numbers) -> Any:
    """Return numbers as a configuration holds them."""
    return list(value) if isinstance(value, tuple) else value


def _show(value: Any) -> str:
    return "null" if value is None else "given" if isinstance(value, ListConfig) else f"{value}"
