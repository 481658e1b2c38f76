"""What is in an archive or HDF5 file: listed where it lies, nothing is unpacked.

In this file:
    Contents        the clips in an archive, those that cannot be used, texts beside them
    list_members    of a zip, tar or HDF5 file
"""

from __future__ import annotations

import os
import stat
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple

from ..data.clip import ClipError
from ..data.containers import Fingerprint, take_fingerprint
from ..data.entries import is_hdf5
from ..data.hdf5 import list_datasets

MOST_TEXT = 1 << 20  # bytes of a text beside a clip
TAR_BLOCK = 512
TAR_RECORD = 20 * TAR_BLOCK  # what the end of a tar archive is filled up to
LOCAL_HEADER = struct.Struct("<4s5H3I2H")  # of a zip's member
LOCAL_MARK = b"PK\x03\x04"
UNKNOWN_SIZE = 0xFFFFFFFF  # of 32 bits: the true one stands among the extra fields
ENCRYPTED, LENGTH_FOLLOWS = 0x1, 0x8  # flags of a zip's member
MARKS = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
METHODS = {8: "deflate", 9: "deflate64", 12: "bzip2", 14: "lzma", 93: "zstd", 95: "xz"}  # of zip
TAR_TYPES = {tarfile.LNKTYPE: "a hard link", tarfile.SYMTYPE: "a symbolic link"}
# What the modules raise at damaged archives; a place that is nowhere is an OSError, too.
SEEK_ERRORS = (OSError, ValueError, OverflowError)
ZIP_ERRORS = (*SEEK_ERRORS, zipfile.BadZipFile, NotImplementedError, struct.error)
TAR_ERRORS = (*SEEK_ERRORS, tarfile.TarError, RecursionError, MemoryError)


class _DamageError(Exception):
    """An archive whose members cannot all be listed."""


class _Member(NamedTuple):
    """A member: its name, where its bytes are, and why it cannot be used."""

    name: str
    start: int = 0
    length: int = 0
    problem: str | None = None


@dataclass
class Contents:
    """The clips in an archive.

    Attributes:
        fingerprint: Of the archive, from before it was listed; None if it could not be opened.
        clips: Of each clip its name, and what a manifest has after the archive's path.
        rejected: Names of members that cannot be used, and why; an empty name is the archive.
        texts: The names of texts that were asked for, and what they hold.
    """

    fingerprint: Fingerprint | None = None
    clips: dict[str, str] = field(default_factory=dict)
    rejected: list[tuple[str, str]] = field(default_factory=list)
    texts: dict[str, bytes] = field(default_factory=dict)


def list_members(
    path: str, endings: set[str], text_endings: set[str], checksum: bool = False
) -> Contents:
    """List the clips of an archive, in no particular order.

    Where an archive is truncated, what comes before is listed; where it has two members of one
    name, the last is taken, as by programs that unpack.

    Args:
        path: A zip, tar or HDF5 file, told by its name.
        endings: Those of members that are clips, lower case, without the dot. In HDF5 files,
            all datasets that can be clips are.
        text_endings: Those of members to read; the part after the first dot of their names.
        checksum: Take the archive's SHA-256, too.

    Returns:
        The clips. Names are readable: what is not UTF-8 or breaks a line is spelt by backslashes.
    """
    contents = Contents()
    try:
        contents.fingerprint = take_fingerprint(path, checksum)
        if is_hdf5(path):
            _add_datasets(contents, path)
        else:
            _add_members(contents, path, endings, text_endings)
    except OSError as error:
        contents.rejected.append(("", f"cannot be read: {error.strerror or error}"))
    except (ClipError, _DamageError) as error:
        contents.rejected.append(("", str(error)))
    return contents


def _add_datasets(contents: Contents, path: str) -> None:
    for key, problem in list_datasets(path):
        if problem is None:
            contents.clips[key] = f"/{key}"
        else:
            contents.rejected.append((key, problem))


def _add_members(contents: Contents, path: str, endings: set[str], text_endings: set[str]) -> None:
    walk = _walk_zip if path.lower().endswith(".zip") else _walk_tar
    with open(path, "rb") as file:
        for member in walk(file, os.fstat(file.fileno()).st_size):
            name = readable(member.name.removeprefix("./"))
            if _suffix(name) in text_endings and member.problem is None:
                contents.texts[name] = _read_text(file, member)
            if os.path.splitext(name)[1].lower().lstrip(".") not in endings:
                continue
            if member.problem is not None:
                contents.rejected.append((name, member.problem))
                continue
            if name in contents.clips:
                contents.rejected.append((name, "is there again further on, which is taken"))
            contents.clips[name] = f":{member.start}:{member.length}"


def _suffix(name: str) -> str:
    return os.path.basename(name).partition(".")[2].lower()


def _read_text(file: BinaryIO, member: _Member) -> bytes:
    file.seek(member.start)
    return file.read(min(member.length, MOST_TEXT))


def readable(text: str) -> str:
    """Spell what a line of UTF-8 cannot hold by backslashes."""
    shown = os.fsencode(text).decode("utf-8", "backslashreplace")
    return shown.translate({ord("\t"): "\\t", ord("\n"): "\\n", ord("\r"): "\\r"})


def _check_end(name: str, start: int, length: int, size: int) -> _Member:
    """Return a member, with the problem that it is not all there where that is so."""
    if start + length <= size:
        return _Member(name, start, length)
    there = max(0, size - start)
    return _Member(name, problem=f"is truncated: {there} of {length} bytes are in the archive")


def _walk_zip(file: BinaryIO, size: int) -> Iterator[_Member]:
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    except ZIP_ERRORS as error:
        listed = False
        for member in _walk_headers(file, size):
            listed = True
            yield member
        if not listed:
            raise _DamageError("is no zip archive") from error
        raise _DamageError(
            "is truncated or damaged: it has no list of its members, and some may be missing "
            f"({error})"
        ) from error
    for info in members:
        if not info.filename.endswith("/"):
            yield _check_zip_member(file, info, size)


def _check_zip_member(file: BinaryIO, info: zipfile.ZipInfo, size: int) -> _Member:
    header = _read_header(file, info.header_offset)
    name = info.filename
    problem = _zip_problem(info.compress_type, info.flag_bits)
    if problem is None and stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
        problem = "is not a regular file"
    if problem is None and header is None:
        problem = "is not where the archive's list says"
    if problem is not None or header is None:
        return _Member(name, problem=problem)
    start = info.header_offset + LOCAL_HEADER.size + header[9] + header[10]
    return _check_end(name, start, info.compress_size, size)


def _zip_problem(method: int, flags: int) -> str | None:
    if flags & ENCRYPTED:
        return "is encrypted"
    if method != zipfile.ZIP_STORED:
        called = METHODS.get(method, f"method {method}")
        return f"is compressed ({called}); store it uncompressed, as by zip -0"
    return None


def _read_header(file: BinaryIO, position: int) -> tuple | None:
    """Return the fields of the header before a zip's member; None if there is none."""
    try:
        file.seek(position)
    except SEEK_ERRORS:
        return None
    data = file.read(LOCAL_HEADER.size)
    if len(data) < LOCAL_HEADER.size or not data.startswith(LOCAL_MARK):
        return None
    return LOCAL_HEADER.unpack(data)


def _walk_headers(file: BinaryIO, size: int) -> Iterator[_Member]:
    """Go through a zip archive that has lost its list of members, from its first byte on."""
    position = 0
    while (header := _read_header(file, position)) is not None:
        _, _, flags, method, _, _, _, length, _, name_length, extra_length = header
        name = file.read(name_length).decode("utf-8", "surrogateescape")
        extra = file.read(extra_length)
        if length == UNKNOWN_SIZE:
            length = _find_long_size(extra)
        if flags & LENGTH_FOLLOWS and length == 0:
            yield _Member(name, problem="is in a truncated archive, which does not tell its length")
            return
        position += LOCAL_HEADER.size + name_length + extra_length
        problem = _zip_problem(method, flags)
        if not name.endswith("/"):
            member = _check_end(name, position, length, size)
            yield member if problem is None else _Member(name, problem=problem)
        position += length


def _find_long_size(extra: bytes) -> int:
    """Return the size of 64 bits that the extra fields of a zip's member hold, or that of 32."""
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<2H", extra)
        if kind == 1 and length >= 16:
            return struct.unpack_from("<Q", extra, 12)[0]
        extra = extra[4 + length :]
    return UNKNOWN_SIZE


def _walk_tar(file: BinaryIO, size: int) -> Iterator[_Member]:
    first = file.read(TAR_BLOCK)
    for mark, called in MARKS.items():
        if first.startswith(mark):
            raise _DamageError(f"is compressed ({called}); decompress it")
    if first == bytes(TAR_BLOCK):  # no members, which is all that such an archive may hold
        if size > TAR_RECORD:
            raise _DamageError("is no tar archive: it begins with zeros")
        return
    file.seek(0)
    try:
        archive = tarfile.TarFile(fileobj=file)
    except TAR_ERRORS as error:
        raise _DamageError(f"is no tar archive: {error}") from error
    try:
        while (info := archive.next()) is not None:
            if archive.offset <= info.offset:
                raise tarfile.ReadError(f"negative size at byte {info.offset}")  # a loop otherwise
            archive.members = []  # type: ignore[attr-defined]  # it would keep them all
            if not info.isdir():
                yield _check_tar_member(info, size)
    except TAR_ERRORS as error:
        raise _DamageError(f"is truncated or damaged: {error}") from error
    _check_tar_end(file, archive.offset)


def _check_tar_member(info: tarfile.TarInfo, size: int) -> _Member:
    if info.issparse():
        return _Member(info.name, problem="is a sparse file, whose bytes are not in one piece")
    if not info.isreg():
        called = TAR_TYPES.get(info.type, "not a regular file")
        return _Member(info.name, problem=f"is {called}")
    return _check_end(info.name, info.offset_data, info.size, size)


def _check_tar_end(file: BinaryIO, position: int) -> None:
    """Make sure that the archive ends where its members do, as the tarfile module does not."""
    file.seek(position)
    end = file.read(TAR_RECORD + TAR_BLOCK)
    if not end:
        raise _DamageError("has no mark at its end; if it is truncated, members are missing")
    if any(end[:TAR_BLOCK]):
        raise _DamageError(f"is truncated or damaged at byte {position}; the rest is not listed")
    if any(end):
        raise _DamageError("goes on after its end, like two archives in one; that is not listed")
