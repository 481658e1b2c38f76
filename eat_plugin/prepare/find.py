"""Audio files in a folder: which there are, and what their headers say.

In this file:
    find_files         walks a folder tree
    sort_out           parts what a manifest can hold from what it cannot
    probe_all          lengths and rates, by several processes
    list_all           what is in archives, by several processes
    available_cores    how many processes make sense
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from ..data.clip import ClipError
from ..data.manifest import check_name
from ..data.sources import probe_clip
from .archive_index import Contents, list_members
from .processes import in_processes

CHUNK = 64  # files that a worker process probes at a time


def find_files(
    root: Path, extensions: set[str], others: Counter[str] | None = None
) -> Iterator[tuple[str, str | None]]:
    """Walk a folder tree, each folder once, links to folders after all that is really there.

    Args:
        root: The folder.
        extensions: Endings of file names, lower case, without the dot; as ``tar.gz``, too.
        others: Counts all other files by their last endings.

    Yields:
        The path below ``root`` of each file with such an ending, and None; or of a folder that
        cannot be listed, and why.

    Raises:
        OSError: ``root`` is not a folder that can be listed.
    """
    folders, links, seen = deque([""]), deque[str](), set()
    while folders or links:
        folder = folders.popleft() if folders else links.popleft()
        try:
            status = os.stat(root / folder)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(root / folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            if not folder:
                raise
            yield folder, f"cannot be listed: {error.strerror}"
            continue
        for entry in entries:
            name = f"{folder}{entry.name}"
            if _is_folder(entry):
                (links if entry.is_symlink() else folders).append(f"{name}/")
            elif not extensions.isdisjoint(endings_of(entry.name)):
                yield name, None
            elif others is not None:
                others[(endings_of(entry.name) or [""])[0]] += 1


def endings_of(name: str) -> list[str]:
    """Return the ending of a file's name, and its last two as one; lower case, without the dot."""
    _, *parts = name.lower().lstrip(".").rsplit(".", 2)
    return [".".join(parts[-count:]) for count in range(1, len(parts) + 1)]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, for one
        return False


def sort_out(
    found: Iterable[tuple[str, str | None]],
) -> tuple[list[str], list[tuple[str, str]]]:
    """Part the files that a manifest can hold from those that it cannot.

    Args:
        found: What `find_files` yields.

    Returns:
        The names of the former, sorted; the others, each with the reason.
    """
    names, rejected = [], []
    for name, problem in found:
        if problem is None:
            try:
                check_name(name)
            except ValueError as error:
                problem = str(error)
        if problem is None:
            names.append(name)
        else:
            rejected.append((name, problem))
    return sorted(names), rejected


def probe_all(
    paths: list[str],
    workers: int,
    probe: Callable[[str], tuple[int, int]] = probe_clip,
) -> Iterator[tuple[int, int] | str]:
    """Read the headers of files, in parallel.

    Args:
        paths: The files.
        workers: Processes to use at most. (Threads do not help: next to what soundfile does in
            Python, reading a header is quick.)
        probe: Reads one header; it may raise ClipError.

    Yields:
        For each file, in order: what ``probe`` returns, of sound its samples and rate in Hz, or
        what is wrong with it.

    Raises:
        OSError: A worker process died.
    """
    return in_processes(partial(_probe, probe=probe), paths, workers, CHUNK)


def list_all(
    paths: list[str],
    endings: set[str],
    text_endings: set[str],
    checksum: bool,
    workers: int,
) -> Iterator[Contents]:
    """List what is in archives and HDF5 files, in parallel.

    Args:
        paths: The archives.
        endings: As `list_members` takes them.
        text_endings: As `list_members` takes them.
        checksum: Take the SHA-256 of each, too.
        workers: Processes to use at most.

    Yields:
        What is in each, in order.

    Raises:
        OSError: A worker process died.
    """
    task = partial(list_members, endings=endings, text_endings=text_endings, checksum=checksum)
    return in_processes(task, paths, workers, 1)


def _probe(path: str, probe: Callable[[str], tuple[int, int]]) -> tuple[int, int] | str:
    try:
        return probe(path)
    except ClipError as error:
        return str(error)
