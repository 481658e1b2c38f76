"""Options of images; ``images/`` is imported only where they are set."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Tuple

from ..images import MOST_PIXELS
from ..options import option

if TYPE_CHECKING:
    from ..images.image_reader import ImageFrontEnd

# Options that apply to sound only -> their defaults.
FOR_SOUND = {
    "crop": "start", "roll_gain": False, "roll": False, "noise": False, "pad_value": "zero",
    "frontend": "kaldi",
}  # fmt: skip


@dataclass
class ImagesConfig:
    """How images become the model's input; ``{}`` takes data2vec 2.0's values for ImageNet."""

    size: List[int] = option([224, 224], "height and width of the model's input, in pixels")
    channels: int = option(3, "3 for colour, 1 for grey")
    crop_scale: List[float] = option(
        [0.2, 1.0], "least and largest share of an image's area that a training crop has"
    )
    crop_ratio: List[float] = option(
        [3 / 4, 4 / 3], "narrowest and widest shape of a training crop, over that of size"
    )
    flip: float = option(0.5, "probability that a training image is mirrored, left to right")
    mean: List[float] = option([0.485, 0.456, 0.406], "mean of each channel; white is 1")
    std: List[float] = option([0.229, 0.224, 0.225], "standard deviation of each channel")
    eval_crop: float = option(0.875, "share of an image's side that evaluation keeps")
    max_pixels: int = option(MOST_PIXELS, "an image with more pixels is refused")


def make_image_front_end(cfg: Any) -> "Optional[ImageFrontEnd]":
    """Make the front end of images; None for sound.

    Raises:
        ValueError: an option is out of range, or is for sound.
    """
    if cfg.images is None:
        return None
    from ..images.image_reader import ImageFrontEnd

    for name, default in FOR_SOUND.items():
        if getattr(cfg, name, default) != default:
            raise ValueError(
                f"task.{name} is {getattr(cfg, name)}, which is for sound, but task.images is set; "
                f"leave it at {default}"
            )
    values: Dict[str, Any] = {}
    for item in fields(ImagesConfig):
        value = getattr(cfg.images, item.name)
        values[item.name] = tuple(value) if isinstance(value, Sequence) else value
    return ImageFrontEnd(**values)


def check_model(model: Any, images: "Optional[ImageFrontEnd]") -> None:
    """Raise ValueError if a model or classifier takes other input than the task makes."""
    encoder = getattr(model, "model", model)
    takes: Optional[Tuple[int, int, int]] = getattr(encoder, "image_shape", None)
    makes = None if images is None else (images.channels, *images.size)
    if takes == makes:
        return
    raise ValueError(
        f"the data are {_show(makes)} (task.images), but the model takes {_show(takes)} (in_chans "
        "and image_size of model.modalities.image; of a classifier, of the checkpoint that it "
        "starts from, and model.image_size)"
    )


def _show(shape: Optional[Tuple[int, int, int]]) -> str:
    if shape is None:
        return "sound"
    channels, height, width = shape
    return f"images of {channels} channel{'s' * (channels > 1)}, {height}x{width} pixels"
