"""16-bit wav, the commonest source, read without a library between: its bytes are the samples.

Only files that are plain in every respect are read here, whole files and parts of archives. Of any
other `find_wav` says nothing, and libsndfile reads it, or tells what is wrong.
"""

from __future__ import annotations

import os
import struct

import numpy as np

PCM = 1  # the format's tag
MOST_CHUNKS = 64  # looked at before the samples


class WavClip:
    """Samples of 16 bits in an open file, as an ``AudioClip``.

    Args:
        descriptor: the open file; it is not closed here.
        start: first byte of the samples.
        size: their bytes.
        channels: number of channels.
        rate: samples a second, in Hz.
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
        """Go to a sample, counted from the start."""
        self._position = frames
        return frames

    def read(self, frames: int, dtype: str, always_2d: bool) -> np.ndarray:
        """Return the next samples, `[n, channels]`, full scale at 1; fewer where the clip ends."""
        width = 2 * self.channels
        wanted = width * max(0, min(frames, self.frames - self._position))
        data = os.pread(self._descriptor, wanted, self._start + width * self._position)
        samples = np.frombuffer(data, dtype="<i2", count=len(data) // width * self.channels)
        self._position += len(samples) // self.channels
        # A power of two: the same as what libsndfile computes.
        scaled = np.multiply(samples, np.float32(1 / 32768), dtype=dtype)
        return scaled.reshape(-1, self.channels)


def find_wav(descriptor: int, start: int, end: int) -> WavClip | None:
    """Look whether a part of an open file is a plain 16-bit wav.

    Args:
        descriptor: the open file.
        start: first byte of the part.
        end: one past its last byte.

    Returns:
        The clip, or None: it is something else, damaged, or not quite plain.

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
        position += size + size % 2  # chunks begin at even places
    return None


def _read_form(chunk: bytes) -> tuple[int, int] | None:
    """Return channels and rate where samples are plain integers of 16 bits, and None otherwise."""
    if len(chunk) < 16:
        return None
    tag, channels, rate, _, align, bits = struct.unpack("<HHIIHH", chunk)
    if (tag, bits) != (PCM, 16) or channels < 1 or align != 2 * channels:
        return None
    return channels, rate
