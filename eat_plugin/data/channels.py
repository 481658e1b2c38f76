"""From the channels of a clip to the one signal that a model hears: ``task.channels``.

    mean       the average of all channels
    first      the first channel
    loudest    the channel with the most energy

``loudest`` belongs to the clip and not to the part that is read, so all crops of a clip are from
one channel: the energies are those of the whole clip if it has at most ``PIECES`` seconds, else
those of ``PIECES`` seconds spread evenly over it. Of equally loud channels the first is taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .clip import AudioClip

MEAN, FIRST, LOUDEST = CHANNELS = ("mean", "first", "loudest")
FEW_CHANNELS = 7  # NumPy adds more of them in another order
PIECES = 30  # of a second each, by which the loudest channel of a longer clip is found
MOST_VALUES = 1 << 20  # read at once


def check_channels(value: str) -> None:
    """Raise ValueError if a value is not one of ``CHANNELS``."""
    if value not in CHANNELS:
        raise ValueError(f"task.channels is {value!r}; choose one of {', '.join(CHANNELS)}")


def choose_channel(clip: AudioClip, channels: str) -> int | None:
    """Return the number of the channel to read from an open clip at its start; None for the mean.

    Args:
        clip: an open clip, left at its start.
        channels: one of ``CHANNELS``.
    """
    if channels == MEAN:
        return None
    return _find_loudest(clip) if channels == LOUDEST and clip.channels > 1 else 0


def _find_loudest(clip: AudioClip) -> int:
    """Return the number of the channel with the most energy."""
    second = clip.samplerate
    starts = [number * (clip.frames - second) // (PIECES - 1) for number in range(PIECES)]
    if clip.frames <= PIECES * second:
        starts = list(range(0, clip.frames, second))
    longest = max(1, MOST_VALUES // clip.channels)
    energies = np.zeros(clip.channels)
    for start in starts:
        clip.seek(start)
        remaining = min(second, clip.frames - start)
        while remaining > 0:
            block = clip.read(min(remaining, longest), dtype="float32", always_2d=True)
            if len(block) == 0:
                break
            energies += np.square(block, dtype=np.float64).sum(axis=0)
            remaining -= len(block)
    clip.seek(0)
    return int(energies.argmax())


def mix_channels(block: np.ndarray, channel: int | None) -> np.ndarray:
    """Mix samples `[n, channels]` to `[n]`: their average, or one channel.

    Args:
        block: the samples.
        channel: from ``choose_channel``.
    """
    if channel is not None:
        return np.ascontiguousarray(block[:, channel])
    if block.shape[1] > FEW_CHANNELS:
        return block.mean(axis=1)
    first, *others = block.T  # ten times as fast as a mean over short rows
    if not others:
        return first
    total = first + others[0]
    for each in others[1:]:
        total += each
    total /= block.shape[1]
    return total
