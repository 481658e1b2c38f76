"""Entries of a manifest: where the bytes of each clip are stored.

    PATH                             a file
    ARCHIVE.zip:OFFSET:LENGTH        bytes of a stored zip or a tar archive, or of a parquet file
    FILE.h5/KEY                      a dataset of an HDF5 file
    FILE.parquet/COLUMN:GROUP:ROW    a row of a row group of a parquet file, both from 0
    SHARD.mel:FIRST:FRAMES/ENTRY     log-mel frames in a feature cache, and the entry they are from

The storage of a clip is decided once, when its manifest is read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple, Union

from .clip import AudioClip, ClipError

if TYPE_CHECKING:
    from .fingerprints import Fingerprint

TAR = "tar"
ARCHIVE_ENDINGS = ("zip", TAR)
COMPRESSED_TARS = ("tgz", "tar.gz", "tbz2", "tar.bz2", "txz", "tar.xz", "tar.zst")
HDF5_ENDINGS = ("h5", "hdf5")
PARQUET = "parquet"
IMAGE_ENDINGS = ("png", "jpg", "jpeg", "webp")
_SPAN = re.compile(
    rf"(.+\.(?:{'|'.join((*ARCHIVE_ENDINGS, PARQUET))})):([0-9]{{1,18}}):([0-9]{{1,18}})",
    re.I | re.S,
)
_ROW = re.compile(rf"(.+\.{PARQUET})/([^/]+):([0-9]{{1,9}}):([0-9]{{1,9}})", re.I | re.S)
_CACHED = re.compile(r"((?:[^/]*/)*?[^/]*-[0-9]{5,}\.mel):([0-9]{1,15}):([0-9]{1,15})/(.+)", re.S)
_HDF5_FILE = re.compile(rf"\.(?:{'|'.join(HDF5_ENDINGS)})(?=/+[^/])", re.I)
_CONTAINER = re.compile(
    rf"\.(?:{'|'.join((*ARCHIVE_ENDINGS, *HDF5_ENDINGS, *COMPRESSED_TARS, PARQUET))})$", re.I
)
_IMAGE = re.compile(rf"[^/]\.(?:{'|'.join(IMAGE_ENDINGS)})$", re.I)


class Storage(IntEnum):
    """How a clip is stored."""

    FILE = 0
    IMAGE = 1
    ARCHIVE = 2
    HDF5 = 3
    CACHE = 4
    PARQUET = 5
    MEMORY = 255  # given in Python, never in a manifest


class Entry(NamedTuple):
    """A clip of a manifest.

    Attributes:
        path: absolute path or address of the file, or the root and one of the forms above.
        storage: how it is stored.
        size: samples of a channel at the clip's own rate (pixels of an image); None if unknown.
        open_samples: opens samples in memory; their path is the name for messages.
        stored: of a file or archive in a store, its size and version; None if they are unknown.
    """

    path: str
    storage: Storage
    size: int | None = None
    open_samples: Callable[[], AudioClip] | None = None
    stored: Fingerprint | None = None


Clip = Union[Entry, str, "os.PathLike[str]"]
"""An entry, or a path whose storage is still unknown."""


class Span(NamedTuple):
    """A range of bytes: path of the archive, first byte, number of bytes."""

    archive: str
    start: int
    length: int


class Row(NamedTuple):
    """A row of a parquet file: path of the file, column, row group, row in it."""

    file: str
    column: str
    group: int
    number: int


class CachedSpan(NamedTuple):
    """Frames in a feature cache: path of the shard, first frame, number of frames, entry before."""

    shard: str
    first: int
    frames: int
    name: str


def locate(clip: Clip) -> Entry:
    """Return the entry of a path; an entry is returned as it is."""
    if isinstance(clip, Entry):
        return clip
    path = os.fspath(clip)
    return Entry(path, find_storage(path))


def find_storage(path: str, is_file: Callable[[str], bool] = os.path.isfile) -> Storage:
    """Return how the clip of a path is stored.

    Args:
        path: absolute path of the entry.
        is_file: whether a path is a file; called for possible HDF5 files only.
    """
    if ":" in path:  # in millions of lines, a quick test counts
        if _CACHED.fullmatch(path):
            return Storage.CACHE
        if _SPAN.fullmatch(path):
            return Storage.ARCHIVE
        if _ROW.fullmatch(path):
            return Storage.PARQUET
    if _HDF5_FILE.search(path) and any(map(is_file, hdf5_files(path))):
        return Storage.HDF5
    return Storage.IMAGE if is_image(path) else Storage.FILE


def split_span(path: str) -> Span | None:
    """Parse ``ARCHIVE.zip:OFFSET:LENGTH``; None for other paths."""
    match = _SPAN.fullmatch(path)
    return match and Span(match[1], int(match[2]), int(match[3]))


def split_row(path: str) -> Row | None:
    """Parse ``FILE.parquet/COLUMN:GROUP:ROW``; None for other paths."""
    match = _ROW.fullmatch(path) if ":" in path else None
    return match and Row(match[1], match[2], int(match[3]), int(match[4]))


def find_part(path: str) -> Span | Row | None:
    """Return which part of a file the path of a clip is; None for other paths."""
    return split_span(path) or split_row(path)


def file_of(path: str) -> str:
    """Return the archive or parquet file that a clip is in, or its own file."""
    part = find_part(path)
    return path if part is None else part[0]


def possible_containers(path: str) -> list[str]:
    """Return the files, of a path, that the clip may be in: archive, parquet or HDF5 files."""
    part = find_part(path)
    return hdf5_files(path) if part is None else [part[0]]


def check_span(span: Span, size: int) -> None:
    """Raise ClipError if an archive of ``size`` bytes does not contain a range, or it is empty."""
    end = span.start + span.length
    if end > size:
        raise ClipError(
            f"is outside of its archive, bytes {span.start} to {end} of {size}: the archive is "
            "truncated, or was replaced after it was listed"
        )
    if span.length == 0:
        raise ClipError("is empty: 0 bytes")


def split_cached(path: str) -> CachedSpan | None:
    """Parse ``SHARD.mel:FIRST:FRAMES/ENTRY``; None for other paths."""
    match = _CACHED.fullmatch(path) if ".mel:" in path else None
    return match and CachedSpan(match[1], int(match[2]), int(match[3]), match[4])


def original_name(name: str) -> str:
    """Return the name of a clip before it was cached; other names as they are."""
    cached = split_cached(name)
    return name if cached is None else cached.name


def hdf5_files(path: str) -> list[str]:
    """Return the prefixes of a path that are named like an HDF5 file with a key behind it."""
    return [path[: match.end()] for match in _HDF5_FILE.finditer(path)]


def split_dataset(path: str) -> tuple[str, str]:
    """Split the path of an HDF5 dataset into file and key."""
    file = next(filter(os.path.isfile, hdf5_files(path)), None)
    if file is None:
        raise ClipError("its HDF5 file is missing")
    return file, path[len(file) :].strip("/")


def is_hdf5(path: str) -> bool:
    """Whether a path is named like an HDF5 file."""
    return path.lower().endswith(tuple(f".{ending}" for ending in HDF5_ENDINGS))


def is_parquet(path: str) -> bool:
    """Whether a path is named like a parquet file."""
    return path.lower().endswith(f".{PARQUET}")


def is_container(path: str) -> bool:
    """Whether a path is named like a file that clips are in."""
    return _CONTAINER.search(path) is not None


def is_image(path: str) -> bool:
    """Whether a path is named like an image."""
    return _IMAGE.search(path) is not None
