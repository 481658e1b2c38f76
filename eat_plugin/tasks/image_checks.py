"""A check of tasks on images; ``images/`` is imported only where they are set."""

from pathlib import Path
from typing import TYPE_CHECKING, Optional

from ..data.clip import ClipError
from ..data.entries import Storage
from ..data.manifest import Manifest

if TYPE_CHECKING:
    from ..images.image_reader import ImageFrontEnd


def check_kind(manifest: Manifest, path: Path, images: "Optional[ImageFrontEnd]") -> None:
    """Raise ValueError if a manifest lists images and the task takes sound, or the reverse."""
    name, storage = manifest.name(0), manifest.entry(0).storage
    if images is None:
        if storage is Storage.IMAGE:
            raise ValueError(
                f"{path}:2: {name!r} is an image by the ending of its name; images need "
                "task.images (config/image_pretrain.yaml and image_finetune.yaml set it)"
            )
        return
    from ..images.decode import require_image

    try:
        require_image(storage)
    except ClipError as error:
        hint = "eat manifest --images lists images"
        raise ValueError(f"{path}:2: {name!r} {error} ({hint})") from error
