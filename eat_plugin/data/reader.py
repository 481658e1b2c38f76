"""From an entry of a manifest to the input of a model: one reader for each form of input."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from .augment import add_noise, roll, roll_and_gain
from .clip import ClipError
from .entries import Clip, Storage, locate, split_cached
from .frames import FRAMES_A_SECOND, SAMPLE_RATE, TOO_SHORT
from .frontend import FrontEnd
from .lengths import ClipLengths, measure_lengths, pad_clips
from .manifest import Manifest
from .sources import open_clip, probe_clip, read_opened

CROPS = ("start", "random")

Place = Callable[[int, float], int]
"""(units of the clip beyond the window, units per frame) -> first unit of the window.

A unit is a sample of a waveform, or a frame of a cached clip."""


class ClipReader(Protocol):
    """Reads the clips of a manifest, for a data set.

    Attributes:
        manifest: the clips.
        num_frames: largest length T of the input, in frames (rows of an image).
        lengths: lengths of the clips, if each keeps its own; None if all have length T.
    """

    manifest: Manifest
    lengths: ClipLengths | None

    @property
    def num_frames(self) -> int: ...  # noqa: D102

    def read(self, index: int, generator: torch.Generator) -> Any:
        """Read a clip; all randomness comes from the generator.

        Raises:
            ClipError: the clip cannot be used.
        """

    def collate(self, clips: list[Any]) -> dict[str, Any]:
        """Join clips to a batch: ``source``, and further inputs of the model."""


class SpectrogramReader:
    """Reads one window of each clip as a normalised log-mel spectrogram.

    Args:
        manifest: the clips.
        front_end: computes spectrograms.
        crop: position of the window in a longer clip: ``start``, or ``random`` in each epoch.
        roll_gain: roll each waveform and scale it.
        roll: roll each waveform, or the frames of a cached clip.
        noise: add noise to each spectrogram.

    Raises:
        ValueError: ``crop`` is unknown; the clips are in a cache of another front end, or in any
            cache while ``roll_gain`` is set.
    """

    def __init__(
        self,
        manifest: Manifest,
        front_end: FrontEnd,
        *,
        crop: str = "start",
        roll_gain: bool = False,
        roll: bool = False,
        noise: bool = False,
    ) -> None:
        if crop not in CROPS:
            raise ValueError(f"task.crop is {crop!r}; choose one of {', '.join(CROPS)}")
        _check_cache(manifest, front_end, roll_gain)
        self.manifest = manifest
        self.front_end = front_end
        self.crop = crop
        self.roll_gain = roll_gain
        self.roll = roll
        self.noise = noise
        self.lengths = measure_lengths(manifest, front_end) if front_end.patch else None

    @property
    def num_frames(self) -> int:
        """Length T of the window in frames of 10 ms."""
        return self.front_end.target_length

    def read(self, index: int, generator: torch.Generator) -> Any:
        """Read the window of a clip: [1, T, F] float32, T its own length if ``lengths`` is set."""
        values, sample_rate = self.read_unprocessed(index, generator)
        energies = values
        if sample_rate is not None:
            energies = self.front_end.energies(values, sample_rate)
        spectrogram = self.front_end.finish(energies)
        return add_noise(spectrogram, generator) if self.noise else spectrogram

    def read_unprocessed(self, index: int, generator: torch.Generator) -> tuple[Tensor, int | None]:
        """Read the window of a clip before the front end; see the function ``read_part``."""
        values, sample_rate, _ = self.read_placed(index, generator)
        if self.roll_gain:
            return roll_and_gain(values, generator), sample_rate
        return roll(values, generator) if self.roll else values, sample_rate

    def read_placed(
        self, index: int, generator: torch.Generator
    ) -> tuple[Tensor, int | None, float]:
        """Read the window of a clip as it is, and where it starts in the clip, in seconds."""
        start = 0.0

        def place(room: int, per_frame: float) -> int:
            nonlocal start
            if room <= 0 or self.crop == "start":
                return 0
            first = int(torch.randint(room + 1, (), generator=generator))
            start = first / per_frame / FRAMES_A_SECOND
            return first

        entry = self.manifest.entry(index)
        if self.roll_gain and entry.storage is Storage.CACHE:
            from .feature_cache import refuse_roll_gain

            refuse_roll_gain(entry)
        values, sample_rate = read_part(entry, self.front_end, place)
        _check_length(len(values), sample_rate, self.front_end)
        return values, sample_rate, start

    def collate(self, clips: list[Any]) -> dict[str, Any]:
        """Join clips: ``source`` [B, 1, T, F]; ``padding_mask`` [B, L] if lengths differ."""
        if self.lengths is None:
            return {"source": torch.stack(clips)}
        source, padding = pad_clips(clips, self.lengths.patch, self.lengths.bins)
        return {"source": source, **({} if padding is None else {"padding_mask": padding})}


class WindowsReader:
    """Reads several windows of each clip, spread evenly over it, for evaluation.

    Args:
        manifest: the clips.
        front_end: computes spectrograms.
        most: windows of a clip that is longer than one.
    """

    lengths: ClipLengths | None = None

    def __init__(self, manifest: Manifest, front_end: FrontEnd, most: int) -> None:
        _check_cache(manifest, front_end, roll_gain=False)
        self.manifest = manifest
        self.front_end = front_end
        self.most = most

    @property
    def num_frames(self) -> int:
        """Length T of a window in frames of 10 ms."""
        return self.front_end.target_length

    def read(self, index: int, generator: torch.Generator) -> Tensor:
        """Read the windows of a clip: [windows, 1, T, F] float32."""
        entry = self.manifest.entry(index)
        _, sample_rate = probe_clip(entry)
        assert entry.size is not None
        starts = spread_windows(entry.size, sample_rate, self.front_end, self.most)
        return torch.stack([read_window(entry, self.front_end, start) for start in starts])

    def collate(self, clips: list[Tensor]) -> dict[str, Any]:
        """Join clips: ``source`` [windows of all clips, 1, T, F], ``num_windows`` of each clip."""
        return {"source": torch.cat(clips), "num_windows": [len(clip) for clip in clips]}


def _check_cache(manifest: Manifest, front_end: FrontEnd, roll_gain: bool) -> None:
    entry = manifest.entry(0)
    if entry.storage is Storage.CACHE:
        from .feature_cache import check_cache

        check_cache(entry, front_end.channels, roll_gain, front_end.kind)


def spread_windows(num_samples: int, sample_rate: int, front_end: FrontEnd, most: int) -> list[int]:
    """Spread at most ``most`` windows evenly over a recording; a single one lies in the middle.

    Returns:
        First frames of the windows, ascending and distinct.
    """
    frames = front_end.count_frames(math.ceil(num_samples * SAMPLE_RATE / sample_rate))
    room = frames - front_end.target_length
    if room <= 0:
        return [0]
    if most == 1:
        return [room // 2]
    return sorted({round(number * room / (most - 1)) for number in range(most)})


def read_part(clip: Clip, front_end: FrontEnd, place: Place) -> tuple[Tensor, int | None]:
    """Read the part of a clip that a window of the front end needs, at the place chosen.

    Returns:
        Samples `[n]` and their rate in Hz; or log-mel energies `[n, F]` of a cached clip and None.
        float32.

    Raises:
        ClipError: the clip cannot be used.
    """
    entry = locate(clip)
    if entry.storage is Storage.CACHE:
        from .feature_cache import read_cached

        cached = split_cached(entry.path)
        assert cached is not None
        start = place(cached.frames - front_end.target_length, 1)
        length, channels, kind = front_end.target_length, front_end.channels, front_end.kind
        return read_cached(entry, start, length, channels, kind), None
    with open_clip(entry) as opened:
        sample_rate = opened.samplerate
        needed = front_end.needed_samples(sample_rate)
        size = opened.frames if entry.size is None else entry.size
        start = place(size - needed, sample_rate / FRAMES_A_SECOND)
        return read_opened(opened, start, needed, front_end.channels), sample_rate


def _check_length(count: int, sample_rate: int | None, front_end: FrontEnd, start: int = 0) -> None:
    """Raise ClipError if samples, or frames of a cached clip, do not give one frame."""
    frames = count
    if sample_rate is not None:
        frames = front_end.count_frames(math.ceil(count * SAMPLE_RATE / sample_rate))
    if frames == 0:
        raise ClipError(f"{TOO_SHORT} from frame {start} on" if start else TOO_SHORT)


def read_energies(clip: Clip, front_end: FrontEnd, start: int = 0) -> Tensor:
    """Read or compute the log-mel energies of a window from frame ``start`` on.

    Returns:
        `[n, F]`; n is T, or less at the end of the clip, but not 0.

    Raises:
        ClipError: the clip cannot be used, or has less than a frame (25 ms) from ``start`` on.
    """
    values, sample_rate = read_part(clip, front_end, lambda _, per_frame: round(start * per_frame))
    _check_length(len(values), sample_rate, front_end, start)
    return values if sample_rate is None else front_end.energies(values, sample_rate)


def read_window(clip: Clip, front_end: FrontEnd, start: int = 0) -> Tensor:
    """Compute the spectrogram `[1, T, F]` of a window; see ``read_energies``."""
    return front_end.finish(read_energies(clip, front_end, start))
