"""Files: written whole or not at all; opened with what is wrong named.

In this file:
    name_draft     what a file is called while it is written
    drafted        such a name, whose file takes its place at the end
    replacing      the same, open for bytes
    open_regular   a file, open for reading
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from .clip import ClipError


def name_draft(path: str | os.PathLike[str]) -> Path:
    """Return what a file is called while it is written: a name beside it, this process's own."""
    final = Path(path)
    return final.with_name(f".{final.name}.{os.getpid()}.tmp")


@contextmanager
def drafted(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Name a file that takes the place of ``path`` at the end, if all goes well.

    Args:
        path: The file to write or to replace.

    Yields:
        The name; what is there is removed where an exception ends the writing.
    """
    draft = name_draft(path)
    try:
        yield draft
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file for writing that takes the place of ``path`` at the end, if all goes well.

    Args:
        path: The file to write or to replace.

    Yields:
        The new file, open for bytes; it is removed where an exception ends the writing.
    """
    with drafted(path) as draft, open(draft, "wb") as file:
        yield file


def open_regular(path: str, subject: str = "") -> int:
    """Open a file for reading.

    Args:
        path: The file.
        subject: What a message begins with, as ``"the archive "``; nothing for the clip itself.

    Returns:
        Its descriptor.

    Raises:
        ClipError: It cannot be opened, is no regular file, or is empty.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # no wait on a pipe
    except OSError as error:
        raise ClipError(f"{subject}cannot be opened: {error.strerror}") from error
    except ValueError as error:  # a name with a null byte, or that the file system cannot spell
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
