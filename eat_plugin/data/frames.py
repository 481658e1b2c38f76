"""Rates and sizes of log-mel frames."""

from __future__ import annotations

from typing import TypeVar, Union

import numpy as np

SAMPLE_RATE = 16_000  # Hz, after resampling
FRAME_LENGTH = 400  # samples: 25 ms
FRAME_SHIFT = 160  # samples: 10 ms
FRAMES_A_SECOND = SAMPLE_RATE // FRAME_SHIFT
MEL_BINS = 128
TOO_SHORT = f"is shorter than one frame ({1000 * FRAME_LENGTH // SAMPLE_RATE} ms)"  # of a clip
LOW_HZ, HIGH_HZ = 20.0, 8_000.0  # outer edges of the lowest and of the highest mel filter

Count = TypeVar("Count", int, np.ndarray)
Numbers = Union[float, tuple[float, ...]]
"""A mean or deviation: of all mel bins, or one of each."""


def count_frames(samples: Count) -> Count:
    """Return the number of frames for a number of samples at 16 kHz."""
    frames = 1 + (samples - FRAME_LENGTH) // FRAME_SHIFT
    return frames * (frames > 0)
