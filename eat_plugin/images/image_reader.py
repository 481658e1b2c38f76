"""Images as the input of a model: cropped, mirrored, normalised."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.entries import Clip
from ..data.lengths import ClipLengths
from ..data.manifest import Manifest
from . import MOST_PIXELS
from .decode import MODES, PILLOWS_LIMIT, load_pillow, read_image, require_image

ATTEMPTS = 10  # at a crop that fits into the image

Box = tuple[float, float, float, float]
"""Left, upper, right and lower edge, in pixels."""


def draw_crop(
    size: tuple[int, int],
    shape: float,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    generator: torch.Generator,
) -> Box:
    """Draw a box of random area, shape and place (random resized crop, Szegedy et al. 2015).

    Area and place are uniform, the shape log-uniform. The first of ten draws that fits into the
    image is taken; if none fits, the largest box of an allowed shape in the middle.

    Args:
        size: width and height of the image, in pixels.
        shape: width over height of the result, which counts as undistorted.
        scale: least and largest share of the image's area.
        ratio: narrowest and widest shape, over ``shape``.
        generator: the number of draws does not depend on the image.

    Returns:
        The box, in whole pixels.
    """
    width, height = size
    uniform = torch.rand(ATTEMPTS, 2, dtype=torch.float64, generator=generator)
    place = torch.rand(2, dtype=torch.float64, generator=generator).tolist()
    areas = width * height * (scale[0] + (scale[1] - scale[0]) * uniform[:, 0])
    narrowest, widest = map(math.log, ratio)
    shapes = shape * torch.exp(narrowest + (widest - narrowest) * uniform[:, 1])
    sides = torch.stack([areas * shapes, areas / shapes], dim=1).sqrt().round().long()  # [10, 2]
    for sized in sides.clamp(min=1).tolist():
        if sized[0] <= width and sized[1] <= height:
            break
    else:
        allowed = min(max(width / height, shape * ratio[0]), shape * ratio[1])
        sized = [max(1, round(min(width, height * allowed)))]
        sized.append(max(1, round(min(height, width / allowed))))
        place = [0.5, 0.5]
    left, upper = (int(p * (room + 1 - own)) for p, room, own in zip(place, size, sized))
    return left, upper, left + sized[0], upper + sized[1]


def centre_crop(size: tuple[int, int], shape: float, share: float) -> Box:
    """Return the middle of an image: the largest box of a shape, its sides times ``share``.

    Args:
        size: width and height of the image, in pixels.
        shape: width over height of the box.
        share: above 0, at most 1.
    """
    width, height = size
    own = share * min(width, height * shape), share * min(height, width / shape)
    left, upper = (width - own[0]) / 2, (height - own[1]) / 2
    return left, upper, left + own[0], upper + own[1]


@dataclass(frozen=True)
class ImageFrontEnd:
    """From a file to the input of a model; ``inputs.images.ImagesConfig`` has the options.

    Raises:
        ValueError: an option is out of range; the message names it.
    """

    size: tuple[int, int] = (224, 224)
    channels: int = 3
    crop_scale: tuple[float, float] = (0.2, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    eval_crop: float = 0.875
    max_pixels: int = MOST_PIXELS

    def __post_init__(self) -> None:
        if self.channels not in MODES:
            raise ValueError(f"task.images.channels is {self.channels}; choose 1 (grey) or 3")
        for name, length, needed in (
            ("size", 2, "height and width"),
            ("crop_scale", 2, "a least and a largest share"),
            ("crop_ratio", 2, "a narrowest and a widest shape"),
            ("mean", self.channels, f"one for each of channels={self.channels}"),
            ("std", self.channels, f"one for each of channels={self.channels}"),
        ):
            values = getattr(self, name)
            if len(values) != length:
                raise ValueError(f"task.images.{name} is {list(values)}; it needs {needed}")
        scale, ratio = self.crop_scale, self.crop_ratio
        for name, fits, expected in (
            ("size", min(self.size) >= 1, "1 pixel or more"),
            ("crop_scale", 0 < scale[0] <= scale[1] <= 1, "0 < least <= largest <= 1"),
            ("crop_ratio", 0 < ratio[0] <= ratio[1] < math.inf, "0 < narrowest <= widest"),
            ("flip", 0 <= self.flip <= 1, "a probability, from 0 to 1"),
            ("mean", all(map(math.isfinite, self.mean)), "finite numbers"),
            ("std", all(0 < value < math.inf for value in self.std), "above 0"),
            ("eval_crop", 0 < self.eval_crop <= 1, "above 0 and at most 1"),
            ("max_pixels", 1 <= self.max_pixels <= PILLOWS_LIMIT, f"from 1 to {PILLOWS_LIMIT}"),
        ):
            if not fits:
                value = getattr(self, name)
                shown = list(value) if isinstance(value, tuple) else value
                raise ValueError(f"task.images.{name} is {shown}; it must be {expected}")

    def __call__(self, clip: Clip, generator: torch.Generator | None = None) -> Tensor:
        """Read an image.

        Args:
            clip: a PNG, JPEG or WebP file.
            generator: source of the crop and the flip; None takes the middle, unflipped.

        Returns:
            `[C, H, W]` float32, normalised.

        Raises:
            ClipError: the image cannot be used.
            ValueError: Pillow is not installed.
        """
        image = read_image(clip, self.channels, self.max_pixels)
        height, width = self.size
        pillow = load_pillow().Image
        if generator is None:
            box = centre_crop(image.size, width / height, self.eval_crop)
        else:
            box = draw_crop(image.size, width / height, self.crop_scale, self.crop_ratio, generator)
        image = image.resize((width, height), pillow.Resampling.BICUBIC, box)
        if generator is not None and float(torch.rand((), generator=generator)) < self.flip:
            image = image.transpose(pillow.Transpose.FLIP_LEFT_RIGHT)
        values = torch.from_numpy(np.array(image)).view(height, width, self.channels)
        values = values.permute(2, 0, 1).float().div_(255)
        mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (self.mean, self.std))
        return values.sub_(mean).div_(std)


class ImageReader:
    """Reads images; see ``data.reader.ClipReader``.

    The second column of their manifest is the number of pixels: an image that was replaced is
    refused by name.

    Args:
        manifest: the images.
        front_end: from files to normalised tensors.
        augment: random crop and flip; otherwise the middle of each image.

    Raises:
        ValueError: Pillow is not installed.
    """

    lengths: ClipLengths | None = None

    def __init__(
        self, manifest: Manifest, front_end: ImageFrontEnd, *, augment: bool = False
    ) -> None:
        load_pillow()
        self.manifest = manifest
        self.front_end = front_end
        self.augment = augment

    @property
    def num_frames(self) -> int:
        """Height H of the input in pixels."""
        return self.front_end.size[0]

    def read(self, index: int, generator: torch.Generator) -> Tensor:
        """Read an image: `[C, H, W]` float32."""
        entry = self.manifest.entry(index)
        require_image(entry.storage)
        return self.front_end(entry, generator if self.augment else None)

    def collate(self, clips: list[Tensor]) -> dict[str, Any]:
        """Join images: ``source`` [B, C, H, W]."""
        return {"source": torch.stack(clips)}
