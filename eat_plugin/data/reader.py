"""From an entry of a manifest to a model's input: one reader for each kind of data.

A data set (``data.dataset``) holds a reader and knows nothing of files. A new kind of data is a
new reader.

In this file:
    ClipReader    what a data set asks of a reader
    AudioReader   windows of audio, as normalised log-mel spectrograms
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from .augment import add_noise, roll_and_gain
from .feature_cache import CachedClip, check_start, find_cached, read_cached, refuse_roll_gain
from .clip import ClipError
from .frontend import FrontEnd
from ..images.decode import refuse_image
from .lengths import ClipLengths, measure_lengths
from .manifest import Manifest
from .sources import open_clip, read_opened
from ..inference.windows import probe_clip, read_window, spread_windows

CROPS = ("start", "random")


class ClipReader(Protocol):
    """Reads the clips of a manifest.

    Attributes:
        manifest: the clips.
        num_frames: length T of what is read, in frames (for images: rows).
    """

    manifest: Manifest

    @property
    def num_frames(self) -> int: ...  # noqa: D102

    def __call__(self, index: int, generator: torch.Generator) -> Any:
        """Read a clip.

        Args:
            index: its position in the manifest.
            generator: source of all that is random about it.

        Returns:
            `[C, T, F]` float32; `[windows, C, T, F]` of a reader of several windows; or a
            ``transport.PackedClip``, of which this is computed where the model is.

        Raises:
            ClipError: the clip cannot be used.
        """


class AudioReader:
    """Reads windows of audio.

    Args:
        manifest: the clips.
        front_end: from waveforms to normalised log-mel spectrograms.
        crop: which part of a clip longer than the window is taken: ``start``, or ``random`` for
            another part in each epoch.
        roll_gain: roll each waveform and change its level.
        noise: add noise to each spectrogram.
        spread: read so many windows of each clip that is longer than one, spread evenly over it,
            and nothing of what the three options before say; 0 for one window by ``crop``.

    Raises:
        ValueError: if ``crop`` is unknown; or the clips are in a cache of another front end, or in
            any cache while ``roll_gain`` is set.
    """

    def __init__(
        self,
        manifest: Manifest,
        front_end: FrontEnd,
        *,
        crop: str = "start",
        roll_gain: bool = False,
        noise: bool = False,
        spread: int = 0,
    ) -> None:
        if crop not in CROPS:
            raise ValueError(f"task.crop is {crop!r}; choose one of {', '.join(CROPS)}")
        check_start(manifest, roll_gain)
        self.manifest = manifest
        self.front_end = front_end
        self.crop = crop
        self.roll_gain = roll_gain
        self.noise = noise
        self.spread = spread

    @property
    def num_frames(self) -> int:
        """Frames of 10 ms of what is read, T."""
        return self.front_end.target_length

    def measure_lengths(self) -> ClipLengths | None:
        """Return how long clips are, where each keeps its own length, and None otherwise."""
        return measure_lengths(self.manifest, self.front_end) if self.front_end.patch else None

    def __call__(self, index: int, generator: torch.Generator) -> Tensor:
        """Read a clip's window, with the augmentations; see ``ClipReader``."""
        refuse_image(self.manifest.name(index))
        if self.spread:
            return self._spread_windows(index)
        energies = self._energies(index, generator)
        if self.front_end.patch and len(energies) == 0:
            raise ClipError("is shorter than one frame (25 ms)")
        spectrogram = self.front_end.finish(energies)
        return add_noise(spectrogram, generator) if self.noise else spectrogram

    def _spread_windows(self, index: int) -> Tensor:
        path, size = self.manifest.path(index), int(self.manifest.sizes[index])
        _, sample_rate = probe_clip(path)
        starts = spread_windows(size, sample_rate, self.num_frames, self.spread)
        return torch.stack([read_window(path, self.front_end, start, size) for start in starts])

    def _energies(self, index: int, generator: torch.Generator) -> Tensor:
        """Compute the log-mel energies of a clip's window: [n, F], n <= T."""
        values, sample_rate = self.read(index, generator)
        return values if sample_rate is None else self.front_end.energies(values, sample_rate)

    def read(self, index: int, generator: torch.Generator) -> tuple[Tensor, int | None]:
        """Read a clip's window, before the front end.

        Returns:
            Samples `[n]`, at least those that the window needs, and their rate in Hz; or of a clip
            in a cache its log-mel energies `[n, F]`, n <= T, and None. float32.

        Raises:
            ClipError: the clip cannot be used.
        """
        path, size = self.manifest.path(index), int(self.manifest.sizes[index])
        cached = find_cached(str(path))
        if cached is not None:
            return self._cached_energies(cached, size, generator), None
        with open_clip(path) as clip:
            sample_rate = clip.samplerate
            needed = self.front_end.needed_samples(sample_rate)
            start, num_samples = 0, None
            if size > needed:
                num_samples = needed
                if self.crop == "random":
                    start = int(torch.randint(size - needed + 1, (), generator=generator))
            waveform = read_opened(clip, size, start, num_samples)
        if self.roll_gain:
            waveform = roll_and_gain(waveform, generator)
        return waveform, sample_rate

    def _cached_energies(
        self, clip: CachedClip, size: int, generator: torch.Generator
    ) -> Tensor:
        if self.roll_gain:
            refuse_roll_gain(clip)
        start, room = 0, clip.frames - self.num_frames
        if room > 0 and self.crop == "random":
            start = int(torch.randint(room + 1, (), generator=generator))
        return read_cached(clip, start, self.num_frames, size)
