"""Options of a task that decide what its model hears, and their front end."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Optional

from ..data.channels import MEAN
from ..data.frames import KALDI, MEL_BINS, UNCHANGED, Numbers, Pair
from ..data.frontend import FrontEnd, find_spectra
from ..data.statistics import BINS, NORMS, WHOLE
from ..options import NUMBERS, follow, option, patch_sides, read_patch_size
from .images import ImagesConfig

LENGTHS = ("pad", "mask", "crop")
LENGTH_HELP = (
    "clips shorter or longer than target_length: pad (padded, as published, or cut as crop says); "
    "mask (each keeps its own length, up to target_length; padding has no effect; training takes a "
    "random window of a longer one, evaluation its start); or crop (padded; training takes a "
    "random window of a longer one, a classifier is evaluated on eval_windows windows)"
)
CHANNELS_HELP = (
    "the signal that is heard of a clip with several channels: mean (their average, as published), "
    "first (the first one) or loudest (the one with the most energy in the whole clip)"
)
FRONT_END_HELP = (
    "spectrograms: kaldi (log-mel, as published, normalised by norm_mean and norm_std) or db "
    "(decibels, from 0 to 1 in each clip, as BAT's)"
)
AUDIOSET = AUDIOSET_MEAN, AUDIOSET_STD = -4.268, 4.569
NORM_HELP = (
    "inputs are normalised by the mean and deviation of all log-mel values (whole, as published; "
    "frontend=db: not at all), or by those of each mel bin (bins)"
)
HELP = (
    "{} of the data set's log-mel values, a number (norm=bins: a list of 128); null: from "
    "stats.json in data (eat stats), or measured on a sample of the training clips"
)


@dataclass
class InputConfig:
    """Options of all tasks that decide what their models hear or see."""

    target_length: int = option(1024, "window of a clip, in frames of 10 ms")
    frontend: Optional[str] = option(KALDI, FRONT_END_HELP)
    norm: str = option("whole", NORM_HELP)
    norm_mean: Any = option(None, HELP.format("mean"), flag=NUMBERS)
    norm_std: Any = option(None, HELP.format("standard deviation"), flag=NUMBERS)
    channels: str = option("mean", CHANNELS_HELP)
    pad_value: str = option("zero", "padding of short clips: zero (as published) or silence")
    length: str = option("pad", LENGTH_HELP)
    patch_size: Any = option(
        follow("model.modalities.image.patch_size"),
        "length=mask: the sides of the model's patches",
        flag=read_patch_size,
    )
    images: Optional[ImagesConfig] = option(None, "the data are images; crop, size and so on")


def choose_norm(cfg: Any) -> str:
    """Return how inputs are normalised: ``whole`` or ``bins``.

    Raises:
        ValueError: ``task.norm`` is unknown, or ``bins`` for images.
    """
    if cfg.norm not in NORMS:
        raise ValueError(f"task.norm is {cfg.norm!r}; choose one of {', '.join(NORMS)}")
    if cfg.images is not None and cfg.norm != WHOLE:
        raise ValueError(
            f"task.norm is {cfg.norm}, which is for sound, but task.images is set; leave it at "
            f"{WHOLE}"
        )
    return str(cfg.norm)


def fixed_numbers(cfg: Any) -> Optional[Pair]:
    """Return the mean and deviation of a front end that needs no statistics; else None."""
    return find_spectra(cfg.frontend).norm if choose_norm(cfg) == WHOLE else None


def read_numbers(cfg: Any) -> Optional[Pair]:
    """Return ``task.norm_mean`` and ``task.norm_std``, numbers or tuples of 128; None if null.

    Those of a front end that needs no statistics, whatever the options are.

    Raises:
        ValueError: they are not what ``task.norm`` needs.
    """
    norm, fixed = choose_norm(cfg), fixed_numbers(cfg)
    if fixed is not None:
        return fixed
    if cfg.norm_mean is None:
        return None
    mean, std = (read_number(name, getattr(cfg, name), norm) for name in ("norm_mean", "norm_std"))
    return mean, std


def read_number(name: str, value: Any, norm: str) -> Numbers:
    """Return a mean or deviation, ``task.{name}``, as ``norm`` needs it.

    Raises:
        ValueError: it is not what ``task.norm`` needs.
    """
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    try:
        numbers = tuple(float(number) for number in (value if is_list else [value]))
    except (TypeError, ValueError):
        raise ValueError(f"task.{name} is {value!r}; give a number, or null") from None
    if is_list != (norm == BINS) or (is_list and len(numbers) != MEL_BINS):
        found = f"a list of {len(numbers)}" if is_list else "one number"
        needed = f"a list of {MEL_BINS}" if norm == BINS else "one number"
        raise ValueError(
            f"task.{name} is {found}, but task.norm={norm} needs {needed}; with "
            "task.norm_mean=null task.norm_std=null those of the data set are used"
        )
    return numbers if is_list else numbers[0]


def make_front_end(cfg: Any) -> FrontEnd:
    """Make the front end of a task.

    Raises:
        ValueError: an option is invalid; the message names it, its value and the choices.
    """
    if cfg.images is not None and cfg.channels != MEAN:
        raise ValueError(
            f"task.channels is {cfg.channels}, which is for sound, but task.images is set; leave "
            f"it at {MEAN}"
        )
    if cfg.length not in LENGTHS:
        raise ValueError(f"task.length is {cfg.length!r}; choose one of {', '.join(LENGTHS)}")
    if cfg.length != "pad" and cfg.images is not None:
        raise ValueError(
            f"task.length is {cfg.length}, which is for sound, but task.images is set; leave it at "
            "pad"
        )
    patch, bins = (0, 0)
    if cfg.length == "mask":
        patch, bins = patch_sides(cfg.patch_size, "task.patch_size")
    mean, std = read_numbers(cfg) or UNCHANGED  # null: measured before the first clip is read
    return FrontEnd(
        cfg.target_length, mean, std, cfg.pad_value, patch, cfg.channels,
        patch_bins=0 if bins == patch else bins, kind=cfg.frontend,
    )  # fmt: skip


def check_patches(model: Any, front_end: FrontEnd) -> None:
    """Compare the patch size of a model with that of the front end.

    Raises:
        ValueError: they differ.
    """
    if not front_end.patch:
        return
    size = getattr(model, "model", model).patch_encoder.cfg.patch_size
    frames, bins = patch_sides(size)
    own = [front_end.patch, front_end.patch_bins or front_end.patch]
    if own != [frames, bins]:
        raise ValueError(
            f"task.patch_size is {own[0] if own[0] == own[1] else own}, but the model's patches "
            f"have {frames} frames and {bins} mel bins; it follows "
            f"model.modalities.image.patch_size: set that to {size}"
        )
