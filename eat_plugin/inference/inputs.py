"""What a model takes, sound or images: how long a file is, its windows, and reading them.

Both classes have the same methods; ``Loaded`` has them too, and says what they do.

In this file:
    SoundInputs      clips, seen window by window
    ImageInputs      images, seen whole
    Inputs           one or the other
    errors_naming    errors of a file -> ValueError with its path
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Union

import numpy as np
from torch import Tensor

from ..data.clip import ClipError
from ..data.frontend import FRAMES_A_SECOND, FrontEnd
from ..data.reader import read_window
from ..data.sources import probe_clip
from .windows import (
    Job,
    Window,
    Windowing,
    column_times,
    read_ahead,
    read_batches,
)

if TYPE_CHECKING:
    from ..images.image_reader import ImageFrontEnd


@contextmanager
def errors_naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn what is wrong with a file into a ValueError that names it."""
    try:
        yield
    except ClipError as error:
        raise ValueError(f"{path}: {error}") from error


@dataclass(frozen=True)
class SoundInputs:
    """Clips, seen window by window.

    Attributes:
        checkpoint: path of the checkpoint.
        front_end: makes spectrograms.
        patch: frames of a patch.
        longest: frames that the model's table of positions has; None without one.
    """

    checkpoint: str
    front_end: FrontEnd
    patch: int
    longest: int | None

    def spectrogram(self, path: str | os.PathLike[str]) -> Tensor:
        """Compute the spectrogram [1, T, F] of the beginning of a clip."""
        with errors_naming(path):
            return read_window(path, self.front_end)

    def image(self, path: str | os.PathLike[str]) -> Tensor:
        """Refuse to read an image."""
        raise ValueError(f"{self.checkpoint} is a model of sound; read clips with spectrogram()")

    def probe(self, path: str | os.PathLike[str]) -> tuple[int, int]:
        """Read a file's header: samples and rate."""
        return probe_clip(path)

    def windowing(self, window: float | None, hop: float | None) -> Windowing:
        """Choose windows that the model can take."""
        chosen = Windowing.from_seconds(window, hop, self.patch, self.front_end.target_length)
        if self.longest is not None and chosen.frames > self.longest:
            raise ValueError(
                f"the window is {chosen.seconds} s; this model's table of positions ends at "
                f"{self.longest / FRAMES_A_SECOND} s"
            )
        return chosen

    def plan(self, windowing: Windowing, num_samples: int, sample_rate: int) -> list[Window]:
        """Lay windows over a recording."""
        return windowing.plan(num_samples, sample_rate)

    def times(self, windowing: Windowing, windows: list[Window]) -> np.ndarray:
        """Return the centres of all columns that count, in seconds."""
        return column_times(windowing, windows)

    def batches(
        self, jobs: Iterable[Job], windowing: Windowing, batch_size: int
    ) -> Iterator[list[tuple[Job, Tensor | ClipError]]]:
        """Read what the windows hold, ahead of what is asked for."""
        front_end = replace(self.front_end, target_length=windowing.frames)
        return read_batches(jobs, front_end, batch_size)


@dataclass(frozen=True)
class ImageInputs:
    """Images, seen whole: each is one window, whose frames are rows of pixels.

    Attributes:
        checkpoint: path of the checkpoint.
        front_end: reads and normalises images.
        patch: rows of a patch.
    """

    checkpoint: str
    front_end: ImageFrontEnd
    patch: int

    def spectrogram(self, path: str | os.PathLike[str]) -> Tensor:
        """Refuse to read a clip."""
        raise ValueError(f"{self.checkpoint} is a model of images; read them with image()")

    def image(self, path: str | os.PathLike[str]) -> Tensor:
        """Read the middle of an image [C, H, W]."""
        with errors_naming(path):
            return self.front_end(path)

    def probe(self, path: str | os.PathLike[str]) -> tuple[int, int]:
        """Read a file's header: pixels and 0."""
        from ..images.decode import probe_image

        return probe_image(path, self.front_end.max_pixels)

    def windowing(self, window: float | None, hop: float | None) -> Windowing:
        """Refuse windows of a chosen length."""
        if window is not None or hop is not None:
            raise ValueError(f"{self.checkpoint} is a model of images, which have no windows")
        rows = self.front_end.size[0]
        return Windowing(rows, rows, self.patch)

    def plan(self, windowing: Windowing, num_samples: int, sample_rate: int) -> list[Window]:
        """Return the one window of an image."""
        return [Window(0, 0, windowing.frames // windowing.patch)]

    def times(self, windowing: Windowing, windows: list[Window]) -> None:
        """Return None: an image has no times."""

    def batches(
        self, jobs: Iterable[Job], windowing: Windowing, batch_size: int
    ) -> Iterator[list[tuple[Job, Tensor | ClipError]]]:
        """Read images, ahead of what is asked for."""
        return read_ahead(
            jobs, lambda job: self.front_end(job.entry()), batch_size
        )


Inputs = Union[SoundInputs, ImageInputs]
"""What a model takes."""
