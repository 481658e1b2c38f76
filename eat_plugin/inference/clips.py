"""Clips for a model: a path, samples with their rate, or a list of these."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Union

import numpy as np
from torch import Tensor

from ..data.arrays import ArrayClip, has_samples, is_transposed
from ..data.clip import ClipError
from ..data.entries import Entry, Storage, locate

Samples = tuple[Union[np.ndarray, Tensor], float]
"""Samples `[n]` or `[channels, n]`, float with full scale at 1 or int16; and their rate in Hz."""
Clip = Union[Entry, str, "os.PathLike[str]", Samples]
"""A path, an entry of a manifest, or samples with their rate."""


def locate_clip(clip: Clip, name: str = "the clip") -> Entry:
    """Return the entry of a clip; ``name`` is that of samples in messages.

    Raises:
        TypeError: it is not a clip, or samples have no rate or another type.
        ValueError: samples have another shape, or there are none; the rate is not a whole number.
    """
    if isinstance(clip, (Entry, str, os.PathLike)):
        return locate(clip)
    if isinstance(clip, (np.ndarray, Tensor)):
        raise TypeError(f"{name}: samples need their rate in Hz: give (samples, rate)")
    if not (isinstance(clip, tuple) and len(clip) == 2):
        raise TypeError(
            f"{name}: expected a path or (samples, rate), or a list of these where several clips "
            f"are possible, got {type(clip).__name__}"
        )
    samples, rate = _as_array(clip[0], name), _as_hertz(clip[1], name)
    return Entry(name, Storage.MEMORY, None, partial(ArrayClip, samples, rate))


def locate_clips(clips: Clip | list[Clip]) -> list[Entry]:
    """Return the entries of one clip or a list of clips; see ``locate_clip``."""
    if not isinstance(clips, list):
        return [locate_clip(clips)]
    return [locate_clip(clip, f"clips[{number}]") for number, clip in enumerate(clips)]


def _as_array(samples: Any, name: str) -> np.ndarray:
    """Return samples as an array `[n]` or `[n, channels]`."""
    if isinstance(samples, Tensor):
        samples = samples.detach().cpu()
        samples = (samples.float() if samples.is_floating_point() else samples).numpy()
    if not isinstance(samples, np.ndarray):
        raise TypeError(
            f"{name}: samples must be a NumPy array or a tensor, got {type(samples).__name__}"
        )
    if not has_samples(samples):
        raise TypeError(
            f"{name}: samples have the type {samples.dtype}; expected floating-point numbers with "
            "full scale at 1, or int16"
        )
    turned = samples.T  # [n] or [n, channels]
    if turned.ndim not in (1, 2) or is_transposed(turned):
        raise ValueError(
            f"{name}: samples have the shape {samples.shape}; expected [n] or [channels, n]"
        )
    if samples.size == 0:
        raise ValueError(f"{name}: there are no samples, their shape is {samples.shape}")
    return turned


def _as_hertz(rate: Any, name: str) -> int:
    if not isinstance(rate, (int, float, np.number)):
        raise TypeError(f"{name}: the rate must be a number in Hz, got {type(rate).__name__}")
    if not float(rate).is_integer():
        raise ValueError(f"{name}: the rate must be a whole number of Hz, got {rate}")
    return int(rate)


def check_batch(source: Tensor) -> Tensor:
    """Return a batch; raise ValueError if it has another number of dimensions."""
    if source.dim() != 4:
        raise ValueError(
            f"a tensor is a batch of spectrograms [B, 1, T, F] or images [B, C, H, W], got the "
            f"shape {list(source.shape)}; samples need their rate: give (samples, rate)"
        )
    return source


@contextmanager
def naming_clip(clip: Clip) -> Iterator[Entry]:
    """Yield the entry of a clip; turn a ClipError into a ValueError that names it."""
    entry = locate_clip(clip)
    try:
        yield entry
    except ClipError as error:
        raise name_error(entry, error) from error


def name_error(entry: Entry, error: ClipError) -> ValueError:
    """Return the error of a clip that cannot be used, with its name."""
    return ValueError(f"{entry.path}: {error}")
