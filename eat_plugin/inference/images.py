"""A model of images ready for use."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..images.decode import probe_image
from ..images.image_reader import ImageFrontEnd
from .batches import Job
from .clips import Clip, locate_clip, naming_clip
from .loaded import Loaded
from .windows import Window, Windowing


@dataclass(frozen=True, repr=False)
class LoadedImages(Loaded):
    """A model of images. Each image is one window, with rows of pixels for frames."""

    images: ImageFrontEnd

    def spectrogram(self, clip: Clip) -> Tensor:
        """Raise ValueError."""
        raise ValueError(f"{self.path} is a model of images; read them with image()")

    def image(self, clip: Clip) -> Tensor:  # noqa: D102 (as in Loaded)
        with naming_clip(clip) as entry:
            return self.images(entry)

    def probe(self, clip: Clip) -> tuple[int, int]:  # noqa: D102
        return probe_image(locate_clip(clip), self.images.max_pixels)

    def windowing(self, window: float | None = None, hop: float | None = None) -> Windowing:
        """Return the one possible windowing; raise ValueError if another one is wanted."""
        if window is not None or hop is not None:
            raise ValueError(f"{self.path} is a model of images, which have no windows")
        rows = self.images.size[0]
        return Windowing(rows, rows, self.patch)

    def plan(self, windowing: Windowing, num_samples: int, sample_rate: int) -> list[Window]:  # noqa: D102
        return [Window(0, 0, windowing.frames // windowing.patch)]

    def times(self, windowing: Windowing, windows: list[Window]) -> None:  # noqa: D102
        return None

    def read_job(self, job: Job, windowing: Windowing) -> Tensor:  # noqa: D102
        return self.images(job.entry)
