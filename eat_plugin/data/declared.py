"""Declared sizes that the stored bytes cannot hold: a few bytes must not ask for days of sound.

The bounds are those of the formats, so that no real sound or image reaches them.

- Samples of a channel per byte of a file. A frame of flac holds at most 65,535 samples in 10 bytes;
  a packet of Opus 5,760 and one of Vorbis 4,096 in 2 bytes.
- Values of HDF5: deflate compresses to a thousandth at most.
- Pixels per byte: those of one bit each in a png, to a thousandth. Lossless WebP of one colour can
  exceed it; images of up to ``SMALL_IMAGE`` pixels may.
"""

from __future__ import annotations

from .clip import ClipError

SAMPLES_A_BYTE = 1 << 13
HDF5_RATIO = 2_000
SMALL_DATASET = 1 << 26  # bytes of values that are read, however little is stored
PIXELS_A_BYTE = 1 << 14
SMALL_IMAGE = 1 << 24  # pixels


def check_samples(frames: int, size: int) -> None:
    """Raise ClipError if ``size`` bytes of an audio file cannot hold the samples it declares."""
    if frames > SAMPLES_A_BYTE * size:
        raise ClipError(f"declares {frames} samples, more than its {size} bytes can hold")


def check_pixels(pixels: int, size: int) -> None:
    """Raise ClipError if ``size`` bytes of an image file cannot hold the pixels it declares."""
    if pixels > max(SMALL_IMAGE, PIXELS_A_BYTE * size):
        raise ClipError(f"declares {pixels} pixels, more than its {size} bytes can hold")


def find_unstored(values: int, width: int, stored: int) -> str | None:
    """Return why an HDF5 dataset cannot be a clip, if its values are not in the file; or None.

    Args:
        values: number of values that it declares.
        width: bytes of a value.
        stored: bytes of its chunks in the file.
    """
    if values and not stored:
        return f"declares {values} values, but none are stored in the file"
    if values * width > max(SMALL_DATASET, HDF5_RATIO * stored):
        return f"declares {values} values, more than its {stored} stored bytes can hold"
    return None
