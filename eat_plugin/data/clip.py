"""A clip: why it cannot be used, and the interface of an open one."""

from __future__ import annotations

from typing import Protocol

import numpy as np


class ClipError(ValueError):
    """A clip cannot be used. The message gives the reason, without the clip's path."""


class AudioClip(Protocol):
    """An open clip; ``soundfile.SoundFile`` is one.

    Attributes:
        frames: samples of a channel.
        samplerate: in Hz.
        channels: number of channels.
        subtype: encoding of the samples.
        extra_info: log of the decoder.
    """

    frames: int
    samplerate: int
    channels: int
    subtype: str
    extra_info: str

    def seek(self, frames: int) -> int:
        """Move to a sample, counted from the start."""

    def read(self, frames: int, dtype: str, always_2d: bool) -> np.ndarray:
        """Return the next samples, `[n, channels]`, full scale at 1; fewer at the end."""
