"""Image files: opened and decoded, with what is wrong named.

In this file:
    is_image       does an entry of a manifest say by its name that it is one?
    require_image  refuses what cannot be one, by its name
    refuse_image   refuses what is one, by its name
    load_pillow    the library, or what to install
    probe_image    pixels of an image, from its header alone
    probe_entry    the same, of an entry of a manifest
    read_image     an image, upright, in grey or in colour

A path names a file or, as archive.zip:OFFSET:LENGTH or archive.tar:OFFSET:LENGTH, its bytes in an
archive (see ``archives``). Files are decoded by Pillow, an optional extra, which is imported when
the first one is opened. What counts is their content: a JPEG that is called .png is read as what
it is. All that a damaged file can do ends in a ClipError; the caller knows the path and adds it.
"""

from __future__ import annotations

import io
import logging
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from ..data.containers import check_span, find_span
from ..data.clip import ClipError
from ..data.files import open_regular

if TYPE_CHECKING:
    from PIL.Image import Image

ENDINGS = ("png", "jpg", "jpeg", "webp")
FORMATS = ("PNG", "JPEG", "WEBP")
MOST_PIXELS = 89_478_485  # a quarter of a gigabyte in colour; Pillow warns above it
PILLOWS_LIMIT = 2 * MOST_PIXELS  # Pillow opens nothing above it
MODES = {1: "L", 3: "RGB"}  # number of channels -> how Pillow calls such an image
# What a decoder may end in where a file is damaged.
UNDECODABLE = (
    OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, ArithmeticError,
    AttributeError, MemoryError, struct.error, zlib.error,
)  # fmt: skip


def is_image(name: str) -> bool:
    """Tell by the ending of an entry's name whether it is an image's."""
    return os.path.splitext(name)[1].lower().lstrip(".") in ENDINGS


def require_image(name: str) -> None:
    """Raise ClipError if an entry's name cannot be an image's; that of part of an archive can."""
    if not is_image(name) and find_span(name) is None:
        raise ClipError(
            f"is no image by the ending of its name; expected one of {', '.join(ENDINGS)}"
        )


def refuse_image(name: str) -> None:
    """Raise ClipError if an entry's name is an image's: the run is one of sound."""
    if is_image(name):
        raise ClipError("is an image by the ending of its name; images need task.images")


def load_pillow() -> Any:
    """Import Pillow.

    Returns:
        The package, with ``Image`` and ``ImageOps``.

    Raises:
        ValueError: It is not installed.
    """
    try:
        import PIL.Image
        import PIL.ImageOps
    except ImportError as error:
        raise ValueError(
            "images need Pillow: pip install pillow, or this package's extra 'images'"
        ) from error
    # Importing fairseq leaves the root logger at DEBUG, where Pillow reports every chunk of a file.
    logging.getLogger("PIL").setLevel(logging.WARNING)
    return PIL


def probe_image(path: str | os.PathLike[str], max_pixels: int = MOST_PIXELS) -> tuple[int, int]:
    """Read how large an image is from its header; no pixels are decoded.

    Args:
        path: A PNG, JPEG or WebP file.
        max_pixels: An image with more is refused.

    Returns:
        The number of pixels, width times height, and 0: an image has no sampling rate.

    Raises:
        ClipError: The file cannot be opened, is no such image, is animated, or is too large.
        ValueError: Pillow is not installed.
    """
    with _open_image(path, max_pixels) as image:
        return image.width * image.height, 0


def probe_entry(path: str | os.PathLike[str], decode: bool = False) -> tuple[int, int]:
    """Do what ``probe_image`` does, and refuse a name that a run of images would refuse.

    Args:
        path: As ``probe_image`` takes it.
        decode: Decode the image, too: damage further inside shows only then.
    """
    require_image(os.fspath(path))
    size = probe_image(path)
    if decode:
        read_image(path)
    return size


def read_image(
    path: str | os.PathLike[str],
    channels: int = 3,
    expected_pixels: int | None = None,
    max_pixels: int = MOST_PIXELS,
) -> Image:
    """Read an image, turned as its EXIF orientation says.

    What is transparent is laid over white. Of 16 bits a value the upper 8 count. Other colours are
    converted as Pillow does: palettes and CMYK to RGB, colour to grey by ITU-R 601; colour profiles
    are ignored.

    Args:
        path: A PNG, JPEG or WebP file.
        channels: 3 for colour, 1 for grey.
        expected_pixels: The number of pixels that its header has to give, a manifest's entry.
        max_pixels: An image with more is refused, before it is decoded.

    Returns:
        A Pillow image of the mode ``RGB`` or ``L``.

    Raises:
        ClipError: The file cannot be opened or decoded, ends early, is animated, or has another
            number of pixels than expected, or too many.
        ValueError: Pillow is not installed.
    """
    with _open_image(path, max_pixels) as image:
        pixels = image.width * image.height
        if expected_pixels is not None and pixels != expected_pixels:
            raise ClipError(
                f"has {image.width}x{image.height} = {pixels} pixels, but {expected_pixels} were "
                "expected"
            )
        image.load()
        return _convert(load_pillow().ImageOps.exif_transpose(image), MODES[channels])


@contextmanager
def _open_image(path: str | os.PathLike[str], max_pixels: int) -> Iterator[Image]:
    """Open an image, its header checked; what goes wrong while it is open is a ClipError, too."""
    pillow = load_pillow().Image
    with _open_bytes(os.fspath(path)) as file:
        try:
            with pillow.open(file, formats=FORMATS) as image:
                _check_header(image, max_pixels)
                yield image
        except ClipError:
            raise
        except pillow.DecompressionBombError as error:
            raise ClipError(
                f"has more than {PILLOWS_LIMIT} pixels; at most {max_pixels} can be used"
            ) from error
        except load_pillow().UnidentifiedImageError as error:
            raise ClipError("is not a PNG, JPEG or WebP image, or its header is damaged") from error
        except UNDECODABLE as error:
            raise ClipError(f"cannot be decoded: {error or type(error).__name__}") from error


def _open_bytes(path: str) -> BinaryIO:
    """Open a file, or what an archive holds of one."""
    span = None if os.path.lexists(path) else find_span(path)
    if span is None:
        return os.fdopen(open_regular(path), "rb")
    with os.fdopen(open_regular(span.archive, "the archive "), "rb") as file:
        check_span(span, os.fstat(file.fileno()).st_size)
        try:
            file.seek(span.start)
            return io.BytesIO(file.read(span.length))
        except OSError as error:
            raise ClipError(f"the archive cannot be read: {error.strerror}") from error


def _check_header(image: Any, max_pixels: int) -> None:
    pixels = image.width * image.height
    if pixels > max_pixels:
        raise ClipError(
            f"has {image.width}x{image.height} = {pixels} pixels; at most {max_pixels} can be used"
        )
    # A JPEG of several pictures (MPO) holds one photograph, first, and what a camera adds to it.
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise ClipError(f"is animated: {image.n_frames} frames; only still images can be used")


def _convert(image: Image, mode: str) -> Image:
    """Convert an image to ``RGB`` or ``L``."""
    pillow = load_pillow().Image
    if image.mode.startswith("I"):  # Pillow would cut off values above 255
        upper = np.asarray(image).astype(np.int32) >> 8
        image = pillow.fromarray(upper.clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        shown = pillow.new("RGBA", image.size, "white")
        shown.alpha_composite(image.convert("RGBA"))
        image = shown
    return image.convert(mode)
