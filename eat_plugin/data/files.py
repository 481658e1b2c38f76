"""Files: written completely or not at all; opened with a clear error."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from .clip import ClipError
from .entries import Row, Span, check_span
from .urls import Root, is_url

if TYPE_CHECKING:
    from .fingerprints import Fingerprint

# Errors of writing to a disk, which PyTorch and HDF5 hide behind others of their own.
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
# File systems that write at once may know no fsync.
NO_FLUSH = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
LONGEST = 55  # characters of a name in that of its draft; a name has 255 bytes at most


def name_draft(path: str | os.PathLike[str]) -> Path:
    """Return a new temporary name in the same folder, for names of any length.

    Processes of several machines, which may have one number, get different ones.
    """
    final = Path(path)
    return final.with_name(f".{final.name[-LONGEST:]}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


def find_target(path: str | os.PathLike[str]) -> Path:
    """Return the file that a path names, at the end of symbolic links.

    Raises:
        OSError: it is a folder, a device, a pipe, or a link to itself.
    """
    target = Path(os.path.realpath(path))
    if not os.path.lexists(target) or target.is_file():
        return target
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a folder, not a file", os.fspath(path))
    problem = "is a link to itself" if target.is_symlink() else "is a device or pipe, not a file"
    raise OSError(errno.EINVAL, problem, os.fspath(path))


@contextmanager
def drafted(path: str | os.PathLike[str], follow_links: bool = True) -> Iterator[Path]:
    """Yield the name of a draft, which replaces ``path`` at the end unless an exception occurs.

    Args:
        path: the file; of a symbolic link its target is replaced.
        follow_links: else the link itself is replaced.

    Raises:
        OSError: the file cannot be written; it names the file, and the free space.
    """
    target = find_target(path)
    if not follow_links:
        target = Path(path)
    draft = name_draft(target)
    try:
        try:
            yield draft
            _flush(draft)
            os.replace(draft, target)
        finally:
            with suppress(OSError):
                draft.unlink()
    except (OSError, RuntimeError) as error:
        number = _find_errno(error, draft)
        if number is None:
            raise
        free = describe_space(target.parent) if number == errno.ENOSPC else ""
        raise OSError(number, f"{os.strerror(number)}{free}", os.fspath(path)) from error


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Do the same with the draft open for writing bytes."""
    with drafted(path) as draft, open(draft, "wb") as file:
        yield file


def clone(source: str | os.PathLike[str], draft: Path) -> None:
    """Make a second name for a file; copy it where the file system has no hard links."""
    try:
        os.link(os.path.realpath(source), draft)
    except OSError:
        shutil.copyfile(source, draft)


def reserve(path: Path, folder: Path) -> None:
    """Take the space of a file from the disk before its pages are written to.

    Without it, a full disk ends the process that writes to a page in memory.

    Args:
        path: the file.
        folder: the one that an error names.

    Raises:
        OSError: there is too little space.
    """
    allocate = getattr(os, "posix_fallocate", None)  # not in every system
    if allocate is None:
        return
    try:
        with open(path, "r+b") as file:
            allocate(file.fileno(), 0, max(1, os.path.getsize(path)))
    except OSError as error:
        if error.errno in DISK_ERRORS:
            size = os.path.getsize(path) / 1e6
            text = f"{error.strerror}{describe_space(folder)}, {size:.1f} MB needed"
            raise OSError(error.errno, text, os.fspath(folder)) from error


def describe_space(folder: Path) -> str:
    """Return how much is free, as ``" (1.5 MB free in /data)"``; empty if it is unknown."""
    try:
        space = os.statvfs(folder)
    except OSError:
        return ""
    where = os.path.abspath(folder)
    if space.f_files and not space.f_favail:
        return f" (no further files can be made in {where})"
    return f" ({space.f_bavail * space.f_frsize / 1e6:.1f} MB free in {where})"


def _flush(path: Path) -> None:
    """Force a file to the disk, so that a power cut cannot leave a name without content."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_FLUSH:
            raise
    finally:
        os.close(descriptor)


def _find_errno(error: BaseException | None, draft: Path) -> int | None:
    """Return the number of the system's error in writing a draft, if there was one."""
    while error is not None:
        number = getattr(error, "errno", None)
        if number is not None:
            name = getattr(error, "filename", None)
            if name in (draft, os.fspath(draft)) or (name is None and number in DISK_ERRORS):
                return number
            if name is not None:
                return None  # it is of another file
        for known in DISK_ERRORS if number is None else ():  # HDF5 has it in its text
            if os.strerror(known) in str(error):
                return known
        error = error.__context__
    return None


def open_range(
    path: str, span: Span | Row | None = None, stored: Fingerprint | None = None
) -> tuple[int, int, int]:
    """Open a file, a range of bytes of an archive, or a row of a parquet file, here or in a store.

    Args:
        path: path or address of the file or archive.
        span: the range or row; None for a whole file.
        stored: size and version of a file in a store, if they are known.

    Returns:
        A descriptor of a local file, and the first byte and the end of the range in it.

    Raises:
        ClipError: the file cannot be opened, is not a regular file, or is too short.
        UnreachableError: its store cannot be used.
    """
    if isinstance(span, Row):
        from .parquet import open_row  # needs an optional library

        return open_row(span, stored)
    if is_url(path):
        from .remote import open_remote  # needs an optional library

        return open_remote(path, span, stored)
    descriptor = open_regular(path, "" if span is None else "the archive ")
    size = os.fstat(descriptor).st_size
    if span is None:
        return descriptor, 0, size
    try:
        check_span(span, size)
    except ClipError:
        os.close(descriptor)
        raise
    return descriptor, span.start, span.start + span.length


def is_file(path: Root) -> bool:
    """Whether there is a file, here or in a store.

    Raises:
        UnreachableError: its store cannot be used.
    """
    if isinstance(path, Path):
        return path.is_file()
    from .stores import take_stored  # needs an optional library

    try:
        return bool(take_stored(path))
    except ClipError:
        return False


def open_whole(path: str, stored: Fingerprint | None = None) -> BinaryIO:
    """Open a whole file, here or in a store; see ``open_range``."""
    if is_url(path):
        descriptor, *_ = open_range(path, None, stored)
        return os.fdopen(descriptor, "rb")
    return open(path, "rb")


def open_regular(path: str, subject: str = "") -> int:
    """Open a file for reading and return its descriptor.

    Args:
        path: the file.
        subject: start of the message, as ``"the archive "``.

    Raises:
        ClipError: the file cannot be opened, is not a regular file, or is empty.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # no wait on a pipe
    except OSError as error:
        raise ClipError(f"{subject}cannot be opened: {error.strerror}") from error
    except ValueError as error:  # a null byte, or a name that the file system cannot encode
        raise ClipError(f"{subject}cannot be opened: {error}") from error
    problem = _find_problem(os.fstat(descriptor))
    if problem is not None:
        os.close(descriptor)
        raise ClipError(f"{subject}{problem}")
    return descriptor


def _find_problem(status: os.stat_result) -> str | None:
    if stat.S_ISDIR(status.st_mode):
        return "is a directory, not a file"
    if not stat.S_ISREG(status.st_mode):
        return "is not a regular file"
    return None if status.st_size else "is empty: 0 bytes"
