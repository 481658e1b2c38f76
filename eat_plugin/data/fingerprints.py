"""Fingerprints of the archives and HDF5 files that clips are in.

An entry ``archive.zip:OFFSET:LENGTH`` becomes invalid when the archive changes.
Next to a manifest, ``{split}.archives`` has a line ``archive<TAB>bytes<TAB>mtime_ns`` for
each archive and HDF5 file, relative to the manifest's root; with ``<TAB>sha256`` on request
(``--checksum``), so that copies with a new mtime are accepted.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from .entries import hdf5_files, is_hdf5, split_span
from .files import replacing
from .manifest import ManifestError, encode_name

BLOCK = 1 << 20  # bytes read at a time for a checksum
AGAIN = "run eat manifest again"


def find_containers(root: Path, names: Iterable[str]) -> list[str]:
    """Return the archives and HDF5 files of clips, relative to the manifest's root, sorted."""
    candidates: set[str] = set()
    for name in names:
        span = split_span(name)
        candidates.update(hdf5_files(name) if span is None else [span.archive])
    return sorted(name for name in candidates if os.path.isfile(root / name))


class Fingerprint(NamedTuple):
    """Identity of a file: bytes, modification time in ns, and SHA-256 on request."""

    size: int
    mtime_ns: int
    sha256: str | None = None


def take_fingerprint(path: str | os.PathLike[str], checksum: bool) -> Fingerprint:
    """Take the fingerprint of a file; ``checksum`` reads all of it for its SHA-256.

    Raises:
        OSError: the file cannot be read, or is a pipe or device, which may have no end.
    """
    with open(path, "rb", opener=_open_without_waiting) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "is not a regular file", os.fspath(path))
        digest = hashlib.sha256()
        while checksum and (block := file.read(BLOCK)):
            digest.update(block)
    return Fingerprint(status.st_size, status.st_mtime_ns, digest.hexdigest() if checksum else None)


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def write_archives(path: Path, fingerprints: Mapping[str, Fingerprint]) -> None:
    """Write ``{split}.archives``, complete or not at all; without archives, remove it.

    Args:
        path: the file, which is replaced.
        fingerprints: by path relative to the root.

    Raises:
        ValueError: a path is not allowed (see ``manifest.encode_name``).
    """
    if not fingerprints:
        path.unlink(missing_ok=True)
        return
    with replacing(path) as file:
        for name, values in sorted(fingerprints.items()):
            fields = [str(value) for value in values if value is not None]
            file.write(encode_name(name) + "".join(f"\t{text}" for text in fields).encode() + b"\n")


def read_checksums(path: Path) -> dict[str, str]:
    """Return the archives in ``{split}.archives`` by their SHA-256, if they have one."""
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    rows = [line.split("\t") for line in lines]
    return {row[3]: row[0] for row in rows if len(row) == 4}


def check_archives(path: Path, root: Path) -> None:
    """Compare the archives of a manifest with their fingerprints.

    A new size is an error. A new modification time is one too, unless the file has a SHA-256, and
    the archive still matches it.

    Args:
        path: ``{split}.archives``, which may be missing.
        root: root of the manifest.

    Raises:
        ManifestError: the file is invalid; an archive is missing, changed, or needs a library that
            is not installed.
    """
    try:
        lines = path.read_bytes().splitlines() if path.exists() else []
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read: {error.strerror}") from error
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
            "expected 'archive<TAB>bytes<TAB>mtime_ns', optionally '<TAB>sha256', got "
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
                f"the archive {str(path)!r} changed after it was indexed (another modification "
                f"time, the same size); {AGAIN}, with --checksum to accept copies with a new time"
            )
        if take_fingerprint(path, checksum=True).sha256 != indexed.sha256:
            raise ValueError(
                f"the archive {str(path)!r} has another SHA-256 than when it was indexed; {AGAIN}"
            )
    if is_hdf5(name):
        from .hdf5 import require_h5py

        require_h5py()
