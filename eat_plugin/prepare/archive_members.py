"""The members of zip and tar archives, found without unpacking; what is found in a file."""

from __future__ import annotations

import stat
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NamedTuple

from ..data.fingerprints import Fingerprint

TAR_BLOCK = 512
TAR_RECORD = 20 * TAR_BLOCK  # archives are padded to a multiple of it
LOCAL_HEADER = struct.Struct("<4s5H3I2H")  # before each member of a zip
LOCAL_MARK = b"PK\x03\x04"
UNKNOWN_SIZE = 0xFFFFFFFF  # the 64-bit size is in the extra fields
ENCRYPTED, LENGTH_FOLLOWS = 0x1, 0x8  # flags of a zip member
MARKS = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
METHODS = {8: "deflate", 9: "deflate64", 12: "bzip2", 14: "lzma", 93: "zstd", 95: "xz"}  # of zip
TAR_TYPES = {tarfile.LNKTYPE: "a hard link", tarfile.SYMTYPE: "a symbolic link"}
# Raised by the modules for damaged archives; an offset outside of the file is an OSError.
SEEK_ERRORS = (OSError, ValueError, OverflowError)
ZIP_ERRORS = (*SEEK_ERRORS, zipfile.BadZipFile, NotImplementedError, struct.error)
TAR_ERRORS = (*SEEK_ERRORS, tarfile.TarError, RecursionError, MemoryError)


class DamageError(Exception):
    """Not all members of an archive can be listed."""


class Member(NamedTuple):
    """A member: name, first byte, number of bytes, and the reason if it cannot be used."""

    name: str
    start: int = 0
    length: int = 0
    problem: str | None = None


@dataclass
class Contents:
    """The clips in an archive."""

    fingerprint: Fingerprint | None = None  # None if the archive cannot be opened
    clips: dict[str, str] = field(default_factory=dict)  # name -> rest of the manifest's entry
    rejected: list[tuple[str, str]] = field(default_factory=list)  # name ("": archive), reason
    texts: dict[str, bytes] = field(default_factory=dict)
    samples: int = 0  # keys of WebDataset in an archive

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Contents:
        """Return what ``work.RecordedWork`` has recorded."""
        print_, texts = values["fingerprint"], values["texts"].items()
        return cls(
            None if print_ is None else Fingerprint(*print_),
            values["clips"],
            [(name, reason) for name, reason in values["rejected"]],
            {name: text.encode("latin-1") for name, text in texts},
            values["samples"],
        )


def _check_end(name: str, start: int, length: int, size: int) -> Member:
    """Return a member, with a problem if the archive of ``size`` bytes ends before it."""
    if start + length <= size:
        return Member(name, start, length)
    found = max(0, size - start)
    return Member(name, problem=f"is truncated: {found} of {length} bytes are in the archive")


def walk_zip(file: BinaryIO, size: int) -> Iterator[Member]:
    """Yield the members of a zip of ``size`` bytes, except folders; or raise DamageError."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    except ZIP_ERRORS as error:
        if _read_header(file, 0) is None:
            raise DamageError("is not a zip archive") from error
        yield from _walk_headers(file, size)
        raise DamageError(
            "is truncated or damaged: it has no central directory, members may be missing "
            f"({error})"
        ) from error
    overlapping = _find_overlapping(members)
    for info in members:
        if id(info) in overlapping:
            yield Member(info.filename, problem="shares its bytes with another member")
        elif not info.filename.endswith("/"):
            yield _check_zip_member(file, info, size)


def _find_overlapping(members: list[zipfile.ZipInfo]) -> set[int]:
    """Return the ids of members that begin within another one: few bytes would be many clips."""
    found, end = set(), 0
    for info in sorted(members, key=lambda member: member.header_offset):
        if info.header_offset < end:
            found.add(id(info))
        end = max(end, info.header_offset + LOCAL_HEADER.size + info.compress_size)
    return found


def _check_zip_member(file: BinaryIO, info: zipfile.ZipInfo, size: int) -> Member:
    name, problem = info.filename, _zip_problem(info.compress_type, info.flag_bits)
    if problem is None and stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
        problem = "is not a regular file"
    if problem is not None:
        return Member(name, problem=problem)
    header = _read_header(file, info.header_offset)
    if header is None:
        return Member(name, problem="is not at the offset in the central directory")
    start = info.header_offset + LOCAL_HEADER.size + header[9] + header[10]
    return _check_end(name, start, info.compress_size, size)


def _zip_problem(method: int, flags: int) -> str | None:
    if flags & ENCRYPTED:
        return "is encrypted"
    if method != zipfile.ZIP_STORED:
        called = METHODS.get(method, f"method {method}")
        return f"is compressed ({called}); store it uncompressed, for example by zip -0"
    return None


def _read_header(file: BinaryIO, position: int) -> tuple | None:
    """Return the fields of the local header of a zip member; None if there is none."""
    try:
        file.seek(position)
    except SEEK_ERRORS:
        return None
    data = file.read(LOCAL_HEADER.size)
    if len(data) < LOCAL_HEADER.size or not data.startswith(LOCAL_MARK):
        return None
    return LOCAL_HEADER.unpack(data)


def _walk_headers(file: BinaryIO, size: int) -> Iterator[Member]:
    """List the members of a zip archive without central directory by their local headers."""
    position = 0
    while (header := _read_header(file, position)) is not None:
        _, _, flags, method, _, _, _, length, _, name_length, extra_length = header
        name = file.read(name_length).decode("utf-8", "surrogateescape")
        extra = file.read(extra_length)
        if length == UNKNOWN_SIZE:
            length = _find_long_size(extra)
        if flags & LENGTH_FOLLOWS and length == 0:
            yield Member(name, problem="has no length, since the archive is truncated")
            return
        position += LOCAL_HEADER.size + name_length + extra_length
        problem = _zip_problem(method, flags)
        if not name.endswith("/"):
            member = _check_end(name, position, length, size)
            yield member if problem is None else Member(name, problem=problem)
        position += length


def _find_long_size(extra: bytes) -> int:
    """Return the 64-bit size in the extra fields of a zip member, or ``UNKNOWN_SIZE``."""
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<2H", extra)
        if kind == 1 and length >= 16:
            return struct.unpack_from("<Q", extra, 12)[0]
        extra = extra[4 + length :]
    return UNKNOWN_SIZE


def walk_tar(file: BinaryIO, size: int) -> Iterator[Member]:
    """Do the same with a tar."""
    first = file.read(TAR_BLOCK)
    for mark, called in MARKS.items():
        if first.startswith(mark):
            raise DamageError(f"is compressed ({called}); decompress it")
    if first == bytes(TAR_BLOCK):  # the end mark: a valid archive without members
        if size > TAR_RECORD:
            raise DamageError("is not a tar archive: it begins with zeros")
        return
    file.seek(0)
    problem = "is not a tar archive"
    try:
        archive = tarfile.TarFile(fileobj=file)
        problem = "is truncated or damaged"
        while (info := archive.next()) is not None:
            if archive.offset <= info.offset:
                raise tarfile.ReadError(f"negative size at byte {info.offset}")  # endless loop
            archive.members = []  # type: ignore[attr-defined]  # saves memory
            if not info.isdir():
                yield _check_tar_member(info, size)
    except TAR_ERRORS as error:
        raise DamageError(f"{problem}: {error}") from error
    _check_tar_end(file, archive.offset)


def _check_tar_member(info: tarfile.TarInfo, size: int) -> Member:
    if info.issparse():
        return Member(info.name, problem="is a sparse file, which is not stored in one piece")
    if not info.isreg():
        called = TAR_TYPES.get(info.type, "not a regular file")
        return Member(info.name, problem=f"is {called}")
    return _check_end(info.name, info.offset_data, info.size, size)


def _check_tar_end(file: BinaryIO, position: int) -> None:
    """Check that the archive ends after its last member, which tarfile does not."""
    file.seek(position)
    end = file.read(TAR_RECORD + TAR_BLOCK)
    if not end:
        raise DamageError("has no end mark; if it is truncated, members are missing")
    if any(end[:TAR_BLOCK]):
        raise DamageError(f"is truncated or damaged at byte {position}; the rest is not listed")
    if any(end):
        raise DamageError("has data after its end mark, maybe a second archive; it is not listed")
