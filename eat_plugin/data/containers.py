"""Archives that clips are read from in place: how an entry names its part, and whether it fits.

An entry ``archive.zip:OFFSET:LENGTH`` is worth something only as long as the archive stays as it
was. Beside a manifest ``{split}.tsv`` stands therefore ``{split}.archives``, a line
``archive<TAB>bytes<TAB>mtime_ns`` for each archive and HDF5 file that its clips are in, the path
relative to the manifest's root; with ``<TAB>sha256`` where that was asked for.

In this file:
    Span, find_span    a range of bytes in an archive, and the entry that names one
    check_span         does the archive hold it?
    find_containers    the archives and HDF5 files that entries are in
    Fingerprint        size, time and, maybe, checksum of a file
    take_fingerprint   of a file
    write_archives     to ``{split}.archives``
    check_archives     compares what that file says with what is there
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from .clip import ClipError
from .files import replacing
from .hdf5 import is_hdf5, name_files, require_h5py
from .manifest import ManifestError, encode_name

TAR = "tar"
ENDINGS = ("zip", TAR)
BLOCK = 1 << 20  # bytes read at a time for a checksum
AGAIN = "run eat manifest again"
_ENTRY = re.compile(rf"(.+\.(?:{'|'.join(ENDINGS)})):([0-9]{{1,18}}):([0-9]{{1,18}})", re.I | re.S)


class Span(NamedTuple):
    """A range of bytes: path of the archive, first byte, number of bytes."""

    archive: str
    start: int
    length: int


def find_span(path: str) -> Span | None:
    """Read ``archive.zip:OFFSET:LENGTH`` or ``archive.tar:OFFSET:LENGTH``; None for other paths."""
    match = _ENTRY.fullmatch(path)
    return match and Span(match[1], int(match[2]), int(match[3]))


def check_span(span: Span, size: int) -> None:
    """Raise ClipError if an archive of ``size`` bytes does not hold a part, or nothing is in it."""
    end = span.start + span.length
    if end > size:
        raise ClipError(
            f"is outside of its archive, bytes {span.start} to {end} of {size}: the archive is "
            "truncated, or another than the one that was indexed"
        )
    if span.length == 0:
        raise ClipError("is empty: 0 bytes")


def find_containers(root: Path, names: Iterable[str]) -> list[str]:
    """Return the archives and HDF5 files that clips are in.

    Args:
        root: The root of the manifest.
        names: The entries of the clips.

    Returns:
        Paths relative to the root, each once, sorted.
    """
    candidates: set[str] = set()
    for name in names:
        span = find_span(name)
        candidates.update(name_files(name) if span is None else [span.archive])
    return sorted(name for name in candidates if os.path.isfile(root / name))


class Fingerprint(NamedTuple):
    """What tells whether a file is still the same: bytes, time of change in ns, and SHA-256."""

    size: int
    mtime_ns: int
    sha256: str | None = None


def take_fingerprint(path: str | os.PathLike[str], checksum: bool) -> Fingerprint:
    """Take the fingerprint of a file.

    Args:
        path: The file.
        checksum: Read it all for its SHA-256, too.

    Raises:
        OSError: It cannot be read.
    """
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        digest = hashlib.sha256()
        while checksum and (block := file.read(BLOCK)):
            digest.update(block)
    return Fingerprint(status.st_size, status.st_mtime_ns, digest.hexdigest() if checksum else None)


def write_archives(path: Path, fingerprints: Mapping[str, Fingerprint]) -> None:
    """Write ``{split}.archives``, whole or not at all; without archives there is no such file.

    Args:
        path: The file; one of that name is replaced.
        fingerprints: Of each archive, by its path relative to the root.

    Raises:
        ValueError: A path cannot stand in the file.
        OSError: It cannot be written.
    """
    if not fingerprints:
        path.unlink(missing_ok=True)
        return
    with replacing(path) as file:
        for name, values in sorted(fingerprints.items()):
            fields = [str(value) for value in values if value is not None]
            file.write(encode_name(name) + "".join(f"\t{text}" for text in fields).encode() + b"\n")


def check_archives(path: Path, root: Path) -> None:
    """Make sure that the archives of a manifest are those that were indexed.

    Another size is an error. Another time is one, too, unless a checksum was written and is that of
    the archive, which is then read as a whole.

    Args:
        path: ``{split}.archives``; where there is none, nothing is known of archives.
        root: The root of the manifest.

    Raises:
        ManifestError: The file is not of its form; an archive is not there, not the one that was
            indexed, or needs a library that is missing.
    """
    try:
        lines = path.read_bytes().splitlines() if path.exists() else []
    except OSError as error:
        raise ManifestError(f"{path}:1: cannot be read: {error.strerror}") from error
    for number, line in enumerate(lines, start=1):
        try:
            _check_archive(root, *_parse(line))
        except OSError as error:
            raise ManifestError(f"{path}:{number}: {error.filename}: {error.strerror}") from error
        except ValueError as error:
            raise ManifestError(f"{path}:{number}: {error}") from error


def _parse(line: bytes) -> tuple[str, Fingerprint]:
    name, *fields = line.decode("utf-8").split("\t")
    if not name or len(fields) not in (2, 3) or not all(text.isdecimal() for text in fields[:2]):
        raise ValueError(
            "expected 'archive<TAB>bytes<TAB>mtime_ns', maybe with '<TAB>sha256', got "
            f"{line.decode()!r}"
        )
    return name, Fingerprint(int(fields[0]), int(fields[1]), *fields[2:])


def _check_archive(root: Path, name: str, indexed: Fingerprint) -> None:
    path = root / name
    found = take_fingerprint(path, checksum=False)
    if found.size != indexed.size:
        raise ValueError(
            f"the archive {str(path)!r} has {found.size} bytes; it had {indexed.size} when it was "
            f"indexed; {AGAIN}"
        )
    if found.mtime_ns != indexed.mtime_ns:
        if indexed.sha256 is None:
            raise ValueError(
                f"the archive {str(path)!r} was changed after it was indexed (its time is another, "
                f"its size the same); {AGAIN}, with --checksum if only the time will change"
            )
        if take_fingerprint(path, checksum=True).sha256 != indexed.sha256:
            raise ValueError(
                f"the archive {str(path)!r} has another SHA-256 than when it was indexed; {AGAIN}"
            )
    if is_hdf5(name):
        require_h5py()
