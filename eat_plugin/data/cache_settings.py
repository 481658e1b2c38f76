"""What a feature cache was made with, and its comparison with what a reader needs."""

from __future__ import annotations

import os
from typing import Any

from . import resampling
from .channels import MEAN
from .clip import ClipError
from .frames import FRONT_ENDS, KALDI
from .frontend import KINDS

FORMAT = 1  # of shards, records and entries
CHANNELS, FRONT_END = "channels", "frontend"  # names of settings, and of options of tasks


class SettingsError(ClipError):
    """A cache was made by another front end. The message names file, setting and values."""


def cache_settings(channels: str, kind: str = KALDI) -> dict[str, Any]:
    """Return the settings of a new cache: of the front end, and the options that chose it."""
    return {**front_end_settings(kind), CHANNELS: channels, FRONT_END: kind}


def front_end_settings(kind: str = KALDI) -> dict[str, Any]:
    """Return the settings of a front end that the energies in a cache depend on."""
    return {
        "format": FORMAT,
        **KINDS[kind].settings(),
        "resampler_zero_crossings": resampling.ZERO_CROSSINGS,
        "resampler_rolloff": resampling.ROLLOFF,
    }


def made_with(settings: dict[str, Any]) -> dict[str, str]:
    """Return the options that a cache was made with; earlier versions do not name the defaults."""
    return {CHANNELS: settings.get(CHANNELS, MEAN), FRONT_END: settings.get(FRONT_END, KALDI)}


def check_settings(
    found: Any,
    path: str | os.PathLike[str],
    channels: str | None = None,
    kind: str | None = None,
) -> None:
    """Raise SettingsError if the settings found in a file differ from those of this version.

    ``channels`` and ``kind`` are compared if given.
    """
    known = found if isinstance(found, dict) else {}
    options = made_with(known)
    if options[FRONT_END] not in FRONT_ENDS:
        raise SettingsError(
            f"{path}: the cache was made with frontend={options[FRONT_END]}, but this version "
            f"has {', '.join(FRONT_ENDS)}; make another one with eat cache"
        )
    for name, value in front_end_settings(options[FRONT_END]).items():
        if known.get(name) != value:
            raise SettingsError(
                f"{path}: the cache was made with {name}={known.get(name)}, but this front end has "
                f"{name}={value}; make another one with eat cache"
            )
    compare_options(options, path, channels, kind)


def compare_options(
    options: dict[str, str],
    path: str | os.PathLike[str],
    channels: str | None,
    kind: str | None,
) -> None:
    """Raise SettingsError if a cache was made with another option than is needed."""
    for name, needed in ((FRONT_END, kind), (CHANNELS, channels)):
        if needed not in (None, options[name]):
            raise SettingsError(
                f"{path}: the cache was made with {name}={options[name]}, but {name}={needed} is "
                f"needed; make another cache with eat cache --{name} {needed}, or train from "
                f"random weights with task.{name}={options[name]}"
            )
