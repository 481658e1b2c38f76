"""Rates and sizes of spectrograms, the same for all front ends; and the names of these."""

from __future__ import annotations

from typing import TypeVar, Union

import numpy as np

SAMPLE_RATE = 16_000  # Hz, after resampling
FRAME_LENGTH = 400  # samples: 25 ms; shorter clips are not used
FRAME_SHIFT = 160  # samples: 10 ms
FRAMES_A_SECOND = SAMPLE_RATE // FRAME_SHIFT
MEL_BINS = 128
HIGH_HZ = 8_000.0  # outer edge of the highest mel filter
TOO_SHORT = f"is shorter than one frame ({1000 * FRAME_LENGTH // SAMPLE_RATE} ms)"  # of a clip
KALDI, DB = FRONT_ENDS = ("kaldi", "db")  # see the modules ``kaldi`` and ``decibels``

Count = TypeVar("Count", int, np.ndarray)
Numbers = Union[float, tuple[float, ...]]
"""A mean or deviation: of all mel bins, or one of each."""
Pair = tuple[Numbers, Numbers]
"""A mean and a deviation."""
UNCHANGED: Pair = (0.0, 0.5)
"""Inputs are ``(x - mean) / (2 * std)``: with these they are x."""
