"""Files: written completely or not at all; opened with a clear error."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from .clip import ClipError


def name_draft(path: str | os.PathLike[str]) -> Path:
    """Return a temporary name in the same folder, unique per process."""
    final = Path(path)
    return final.with_name(f".{final.name}.{os.getpid()}.tmp")


@contextmanager
def drafted(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield the name of a draft, which replaces ``path`` at the end unless an exception occurs."""
    if os.path.isdir(path):
        raise IsADirectoryError(errno.EISDIR, "is a folder, not a file", os.fspath(path))
    draft = name_draft(path)
    try:
        yield draft
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Do the same with the draft open for writing bytes."""
    with drafted(path) as draft, open(draft, "wb") as file:
        yield file


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
