"""16-bit wav, the most common format, read directly: 7 times as fast as through libsndfile.

Only plain files are read here, whole or within archives; ``find_wav`` returns None for any other,
which libsndfile then reads or refuses.
"""

from __future__ import annotations

import os
import struct

import numpy as np

PCM = 1  # tag of the format
MOST_CHUNKS = 64  # before the samples


class WavClip:
    """16-bit samples in an open file, as an ``AudioClip``.

    Args:
        descriptor: the open file, which the caller closes.
        start: first byte of the samples.
        size: bytes of the samples.
        channels: number of channels.
        rate: in Hz.
    """

    subtype = "PCM_16"
    extra_info = ""

    def __init__(self, descriptor: int, start: int, size: int, channels: int, rate: int) -> None:
        self.samplerate = rate
        self.channels = channels
        self.frames = size // (2 * channels)
        self._descriptor = descriptor
        self._start = start
        self._position = 0

    def seek(self, frames: int) -> int:
        """Move to a sample, counted from the start."""
        self._position = frames
        return frames

    def read(self, frames: int, dtype: str, always_2d: bool) -> np.ndarray:
        """Return the next samples, `[n, channels]`, full scale at 1; fewer at the end."""
        width = 2 * self.channels
        wanted = width * max(0, min(frames, self.frames - self._position))
        data = os.pread(self._descriptor, wanted, self._start + width * self._position)
        samples = np.frombuffer(data, dtype="<i2", count=len(data) // width * self.channels)
        self._position += len(samples) // self.channels
        # A power of two: exactly the values of libsndfile.
        scaled = np.multiply(samples, np.float32(1 / 32768), dtype=dtype)
        return scaled.reshape(-1, self.channels)


def find_wav(descriptor: int, start: int, end: int) -> WavClip | None:
    """Return bytes ``start`` to ``end`` of an open file as a clip; None if not a plain 16-bit wav.

    Raises:
        OSError: the file cannot be read.
    """
    if not hasattr(os, "pread"):  # Windows
        return None
    header = os.pread(descriptor, 12, start)
    if header[:4] != b"RIFF" or header[8:] != b"WAVE":
        return None
    position, form = start + 12, None
    for _ in range(MOST_CHUNKS):
        head = os.pread(descriptor, 8, position)
        if len(head) < 8:
            return None
        name, size = struct.unpack("<4sI", head)
        position += 8
        if name == b"data":
            if form is None or not 0 < size <= end - position:
                return None
            return WavClip(descriptor, position, size, *form)
        if name == b"fmt ":
            form = _read_form(os.pread(descriptor, 16, position))
            if form is None:
                return None
        position += size + size % 2  # chunks start at even offsets
    return None


def _read_form(chunk: bytes) -> tuple[int, int] | None:
    """Return channels and rate of 16-bit integer samples, or None."""
    if len(chunk) < 16:
        return None
    tag, channels, rate, _, align, bits = struct.unpack("<HHIIHH", chunk)
    if (tag, bits) != (PCM, 16) or channels < 1 or align != 2 * channels:
        return None
    return channels, rate
