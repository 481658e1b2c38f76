"""From an entry of a manifest to a model's input: one reader for each kind of data.

A data set (``data.dataset``) holds a reader and knows nothing of files. A new kind of data is a
new reader.

In this file:
    ClipReader    what a data set asks of a reader
    AudioReader   windows of audio, as normalised log-mel spectrograms
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from .augment import add_noise, roll_and_gain
from .features import FrontEnd
from .manifest import Manifest
from .sources import probe_audio, read_audio

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

    def __call__(self, index: int, generator: torch.Generator) -> Tensor:
        """Read a clip.

        Args:
            index: its position in the manifest.
            generator: source of all that is random about it.

        Returns:
            `[C, T, F]` float32.

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

    Raises:
        ValueError: if ``crop`` is unknown.
    """

    def __init__(
        self,
        manifest: Manifest,
        front_end: FrontEnd,
        *,
        crop: str = "start",
        roll_gain: bool = False,
        noise: bool = False,
    ) -> None:
        if crop not in CROPS:
            raise ValueError(f"task.crop is {crop!r}; choose one of {', '.join(CROPS)}")
        self.manifest = manifest
        self.front_end = front_end
        self.crop = crop
        self.roll_gain = roll_gain
        self.noise = noise

    @property
    def num_frames(self) -> int:
        """Frames of 10 ms of what is read, T."""
        return self.front_end.target_length

    def __call__(self, index: int, generator: torch.Generator) -> Tensor:
        """Read a clip's window, with the augmentations; see ``ClipReader``."""
        spectrogram = self.front_end.finish(self._energies(index, generator))
        return add_noise(spectrogram, generator) if self.noise else spectrogram

    def _energies(self, index: int, generator: torch.Generator) -> Tensor:
        """Compute the log-mel energies of a clip's window: [n, F], n <= T."""
        path, size = self.manifest.path(index), int(self.manifest.sizes[index])
        _, sample_rate = probe_audio(path)
        needed = self.front_end.needed_samples(sample_rate)
        start, num_samples = 0, None
        if size > needed:
            num_samples = needed
            if self.crop == "random":
                start = int(torch.randint(size - needed + 1, (), generator=generator))
        waveform, sample_rate = read_audio(path, size, start, num_samples)
        if self.roll_gain:
            waveform = roll_and_gain(waveform, generator)
        return self.front_end.energies(waveform, sample_rate)
