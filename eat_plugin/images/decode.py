"""Image files: opened and decoded by Pillow, an optional library.

A file is decoded by its content: a JPEG named .png is read as a JPEG. All damage ends in a
ClipError; the caller knows the path and adds it.
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

from ..data.clip import ClipError
from ..data.declared import check_pixels
from ..data.entries import IMAGE_ENDINGS, Clip, Entry, Storage, locate, split_span
from ..data.files import open_range
from . import MOST_PIXELS

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "WEBP")
PILLOWS_LIMIT = 2 * MOST_PIXELS  # Pillow's own limit
MODES = {1: "L", 3: "RGB"}  # number of channels -> Pillow's mode
# Errors of decoders on damaged files.
UNDECODABLE = (
    OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, ArithmeticError,
    AttributeError, MemoryError, struct.error, zlib.error,
)  # fmt: skip


def require_image(storage: Storage) -> None:
    """Raise ClipError if a clip cannot be an image by its name; bytes of an archive can."""
    if storage not in (Storage.IMAGE, Storage.ARCHIVE):
        raise ClipError(
            f"is not an image by the ending of its name; expected one of {', '.join(IMAGE_ENDINGS)}"
        )


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


def probe_image(clip: Clip, max_pixels: int = MOST_PIXELS) -> tuple[int, int]:
    """Read the size of a PNG, JPEG or WebP file from its header.

    Returns:
        The number of pixels, width times height, and 0: an image has no sampling rate.

    Raises:
        ClipError: the file cannot be opened, is not such an image, is animated, or has more than
            ``max_pixels``.
        ValueError: Pillow is not installed.
    """
    with _open_image(locate(clip), max_pixels) as image:
        return image.width * image.height, 0


def probe_entry(path: Clip, decode: bool = False) -> tuple[int, int]:
    """Do the same, refuse names that training refuses, and decode the pixels too on request."""
    entry = locate(path)
    require_image(entry.storage)
    size = probe_image(entry)
    if decode:
        read_image(entry)
    return size


def read_image(clip: Clip, channels: int = 3, max_pixels: int = MOST_PIXELS) -> Image:
    """Read an image, turned as its EXIF orientation says.

    Transparent pixels are laid over white; of 16-bit values the upper 8 bits are used; other
    colours are converted as Pillow does (palettes and CMYK to RGB, colour to grey by ITU-R 601,
    colour profiles ignored).

    Args:
        clip: a PNG, JPEG or WebP file; an entry's size is its expected number of pixels.
        channels: 3 for colour, 1 for grey.
        max_pixels: an image with more is refused before it is decoded.

    Returns:
        A Pillow image of mode ``RGB`` or ``L``.

    Raises:
        ClipError: as ``probe_image``; or the file is damaged, or has another number of pixels than
            expected.
        ValueError: Pillow is not installed.
    """
    entry = locate(clip)
    with _open_image(entry, max_pixels) as image:
        pixels = image.width * image.height
        if entry.size is not None and pixels != entry.size:
            raise ClipError(
                f"has {image.width}x{image.height} = {pixels} pixels, {entry.size} were expected"
            )
        image.load()
        return _convert(load_pillow().ImageOps.exif_transpose(image), MODES[channels])


@contextmanager
def _open_image(entry: Entry, max_pixels: int) -> Iterator[Image]:
    """Open an image and check its header; errors while it is open are ClipErrors too."""
    pillow = load_pillow().Image
    with _open_bytes(entry) as file:
        try:
            with pillow.open(file, formats=FORMATS) as image:
                _check_header(image, max_pixels)
                check_pixels(image.width * image.height, _count_bytes(file))
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


def _open_bytes(entry: Entry) -> BinaryIO:
    """Open a file, or its bytes in an archive."""
    span = None
    if entry.storage is Storage.MEMORY:
        raise ClipError("cannot be used: the model takes paths of images")
    if entry.storage is Storage.ARCHIVE and not os.path.lexists(entry.path):
        span = split_span(entry.path)
    path = entry.path if span is None else span.archive
    descriptor, start, end = open_range(path, span, entry.stored)
    file = os.fdopen(descriptor, "rb")
    if span is None:
        return file
    with file:
        try:
            file.seek(start)
            return io.BytesIO(file.read(end - start))
        except OSError as error:
            raise ClipError(f"the archive cannot be read: {error.strerror}") from error


def _count_bytes(file: BinaryIO) -> int:
    """Return the number of bytes of an open file, whose position stays."""
    position = file.tell()
    size = file.seek(0, os.SEEK_END)
    file.seek(position)
    return size


def _check_header(image: Any, max_pixels: int) -> None:
    pixels = image.width * image.height
    if pixels > max_pixels:
        raise ClipError(
            f"has {image.width}x{image.height} = {pixels} pixels; at most {max_pixels} can be used"
        )
    # A JPEG of several pictures (MPO) has the photograph first; the others are the camera's extras.
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
