"""Arrays of samples as clips: in memory, or datasets of an HDF5 file."""

from __future__ import annotations

from typing import Any

import numpy as np

MOST_CHANNELS = 1024  # the limit of libsndfile
INT16_SCALE = np.float32(1 / 32768)  # equals libsndfile bit by bit


class ArrayClip:
    """An array as an ``AudioClip``.

    Args:
        samples: `[n]` or `[n, channels]`, floating-point with full scale at 1, or int16; an array
            or an HDF5 dataset.
        samplerate: in Hz.
    """

    extra_info = ""

    def __init__(self, samples: Any, samplerate: int) -> None:
        self.frames = int(samples.shape[0])
        self.channels = int(samples.shape[1]) if samples.ndim == 2 else 1
        self.samplerate = samplerate
        self.subtype = str(samples.dtype)
        self._samples = samples
        self._position = 0

    def seek(self, frames: int) -> int:
        """Move to a sample, counted from the start."""
        self._position = frames
        return frames

    def read(self, frames: int, dtype: str, always_2d: bool) -> np.ndarray:
        """Return the next samples, `[n, channels]`, full scale at 1; fewer at the end."""
        end = min(self._position + frames, self.frames)
        part = self._samples[self._position : end]
        self._position = end
        with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite
            # In C order: NumPy adds many channels in the order of memory.
            samples = part.astype(dtype, order="C")
        if part.dtype.kind == "i":
            samples *= INT16_SCALE
        return samples.reshape(len(samples), -1) if always_2d else samples


def has_samples(array: Any) -> bool:
    """Whether the type of an array is that of samples."""
    kind, size = array.dtype.kind, array.dtype.itemsize
    return kind == "f" or (kind == "i" and size == 2)


def is_transposed(array: Any) -> bool:
    """Whether an array has more channels than samples or than any file: it is transposed."""
    return array.ndim == 2 and 0 < min(array.shape[0], MOST_CHANNELS) < array.shape[1]
