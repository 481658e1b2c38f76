"""What every source of waveforms gives.

In this file:
    ClipError    a clip that cannot be used, and why
    AudioClip    a clip that is open for reading
"""

from __future__ import annotations

from typing import Protocol

import numpy as np


class ClipError(ValueError):
    """A clip that cannot be used. The message says what is wrong, without the clip's path."""


class AudioClip(Protocol):
    """A clip that is open for reading; ``soundfile.SoundFile`` is one.

    Attributes:
        frames: Samples of a channel.
        samplerate: Samples a second, in Hz.
        channels: Number of channels.
        subtype: How the samples are coded.
        extra_info: What the decoder notes on the file.
    """

    frames: int
    samplerate: int
    channels: int
    subtype: str
    extra_info: str

    def seek(self, frames: int) -> int:
        """Go to a sample, counted from the start."""

    def read(self, frames: int, dtype: str, always_2d: bool) -> np.ndarray:
        """Return the next samples, `[n, channels]`, full scale at 1; fewer where the clip ends."""
