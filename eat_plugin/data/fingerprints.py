"""Fingerprints of archives, HDF5 and parquet files that clips are in, and of all files in stores.

An entry ``archive.zip:OFFSET:LENGTH`` becomes invalid when the archive changes.
Next to a manifest, ``{split}.archives`` has a line ``archive<TAB>bytes<TAB>mtime_ns`` for
each of these files, relative to the manifest's root; with ``<TAB>sha256`` on request
(``--checksum``), so that copies with a new mtime are accepted. Below an address in a store, each
file has a line, and a number that stands for its ETag or time in place of its mtime.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .clip import ClipError
from .entries import Entry, file_of, is_container, is_hdf5, possible_containers, split_cached
from .files import replacing
from .manifest import Manifest, ManifestError, encode_name
from .urls import Root, Url

BLOCK = 1 << 20  # bytes read at a time for a checksum
AGAIN = "run eat manifest again"


def find_containers(root: Root, names: Iterable[str]) -> list[str]:
    """Return the files that clips are in, relative to the manifest's root, sorted.

    Below an address they are all files of the clips.
    """
    if isinstance(root, Url):
        return sorted(set(map(file_of, names)))
    candidates: set[str] = set()
    for name in names:
        candidates.update(possible_containers(name))
    return sorted(name for name in candidates if os.path.isfile(root / name))


class Fingerprint(NamedTuple):
    """Identity of a file: bytes, modification time in ns, and SHA-256 on request.

    In a store, a number that stands for the version takes the place of the time.
    """

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


def digest_files(entries: Iterable[Entry]) -> str:
    """Return the SHA-256 of the places, sizes and times of the files that clips are in.

    Files below an address, and those that cannot be read, have their names alone.
    """
    digest, seen = hashlib.sha256(), set()
    for entry in entries:
        cached = split_cached(entry.path)
        own = possible_containers(entry.path) or [entry.path] if cached is None else [cached.shard]
        for path in own:
            if path in seen:
                continue
            seen.add(path)
            values: tuple[int, ...] = ()
            with suppress(OSError):
                status = os.stat(path)
                values = status.st_size, status.st_mtime_ns
            digest.update(f"{os.path.abspath(path)!r} {values}\n".encode())
    return digest.hexdigest()


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


def digest_archives(path: Path) -> bytes:
    """Return what ``{split}.archives`` says of contents: no times where there is a SHA-256."""
    fields = [line.split(b"\t") for line in _read_lines(path)]
    return b"".join(b"\t".join(row[:2] + (row[3:] or row[2:])) + b"\n" for row in fields)


def read_checksums(path: Path) -> dict[str, str]:
    """Return the archives in ``{split}.archives`` by their SHA-256, if they have one."""
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    rows = [line.split("\t") for line in lines]
    return {row[3]: row[0] for row in rows if len(row) == 4}


def read_stored(manifest_path: Path, manifest: Manifest) -> np.ndarray:
    """Return size and version of the file of each clip of a manifest below an address.

    Returns:
        `[clips, 2]` int64.

    Raises:
        ManifestError: ``{split}.archives`` is missing or invalid, or lacks a file.
    """
    path = manifest_path.with_suffix(".archives")
    known = {}
    for number, line in enumerate(_read_lines(path), start=1):
        try:
            name, (size, version, _) = _parse(line)
        except ValueError as error:
            raise ManifestError(f"{path}:{number}: {error}") from error
        known[name] = size, version
    stored = np.empty((len(manifest), 2), dtype=np.int64)
    for index in range(len(manifest)):
        file = file_of(manifest.name(index))
        if file not in known:
            raise ManifestError(
                f"{manifest_path}:{index + 2}: {path.name} next to it has no line for {file!r}; "
                f"copy both together, or {AGAIN}"
            )
        stored[index] = known[file]
    return stored


def _read_lines(path: Path) -> list[bytes]:
    try:
        return path.read_bytes().splitlines() if path.exists() else []
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read: {error.strerror}") from error


def check_archives(path: Path, root: Root) -> None:
    """Compare the archives of a manifest with their fingerprints.

    A new size is an error. A new modification time is one too, unless the file has a SHA-256, and
    the archive still matches it. Other files in a store are compared when they are read, except the
    first one, so that a store that cannot be used is seen at once.

    Args:
        path: ``{split}.archives``, which may be missing.
        root: root of the manifest.

    Raises:
        ManifestError: the file is invalid; an archive is missing, changed, or needs a library that
            is not installed.
    """
    lines = _read_lines(path)
    if isinstance(root, Url):
        _check_stored(path, root, lines)
        return
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


def _check_stored(path: Path, root: Url, lines: list[bytes]) -> None:
    from .remote_cache import find_cache
    from .stores import UnreachableError, take_all  # needs an optional library

    find_cache()  # its options are checked before the first clip is read
    listed = [(number, *_parse(line)) for number, line in enumerate(lines, start=1)]
    listed = [each for each in listed if each[0] == 1 or is_container(each[1])]
    try:
        found = take_all(root / name for _, name, _ in listed)
        for (number, name, indexed), now in zip(listed, found):
            if now != indexed:
                changed = "has changed in its store (another size, ETag or time)"
                problem = str(now) if isinstance(now, ClipError) else f"{changed}; {AGAIN}"
                raise ManifestError(f"{path}:{number}: {root / name} {problem}")
    except UnreachableError as error:
        raise ManifestError(f"{path}: {error.filename}: {error.strerror}") from error


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
