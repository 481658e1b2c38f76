"""Clips in stores: fetched once to a cache on this machine, and read from there like local files.

A clip is the bytes of an archive, or a whole file. It counts only if its file is still the one that
was listed, by its size and its ETag or time.
"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from typing import TypeVar

from .clip import ClipError
from .entries import Entry, Row, Span, Storage, check_span, find_part
from .fingerprints import AGAIN, Fingerprint
from .remote_cache import find_cache
from .stores import THREADS, Buffer, UnreachableError, read_range, take_stored

PIECE = 1 << 24  # bytes asked for at once
AHEAD = 16  # clips that are fetched before they are read

Item = TypeVar("Item")


class _Process:
    """What must not outlive a fork: threads, and fetches under way."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.fetches: dict[str, Future[None]] = {}
        self.threads: ThreadPoolExecutor | None = None


_process = _Process()


def _begin_process() -> None:
    global _process
    _process = _Process()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_process)


def open_remote(url: str, span: Span | None, stored: Fingerprint | None) -> tuple[int, int, int]:
    """Open a clip in a store.

    Args:
        url: its file, or its archive.
        span: its bytes in the archive; None for a whole file.
        stored: size and version when it was listed; None takes those of now.

    Returns:
        A descriptor of a local file, and the clip's first byte and end in it.

    Raises:
        ClipError: the file is missing, has changed since it was listed, or is too short.
        UnreachableError: the store cannot be used.
    """
    stored = take_stored(url) if stored is None else stored
    if span is not None:
        check_span(span, stored.size)
    elif stored.size == 0:
        raise ClipError("is empty: 0 bytes")
    cache = find_cache()
    whole = cache.open(_key(url, None, stored), stored.size)
    if whole is not None:
        start, length = (0, stored.size) if span is None else (span.start, span.length)
        return whole, start, start + length
    key, size = _key(url, span, stored), stored.size if span is None else span.length
    with _process.lock:
        fetch = _process.fetches.pop(key, None)
    if fetch is not None:
        with suppress(ClipError, OSError):  # of some time ago; it fails again below, or does not
            fetch.result()
    descriptor = cache.open(key, size)
    if descriptor is None:
        descriptor = _fetch(url, span, stored)
    return descriptor, 0, size


def _key(url: str, span: Span | None, stored: Fingerprint) -> str:
    place = "" if span is None else f"{span.start}:{span.length}"
    return f"{stored.size} {stored.mtime_ns} {place} {url}"


def _fetch(url: str, span: Span | None, stored: Fingerprint) -> int:
    """Fetch bytes to the cache, and return a descriptor of them there."""
    start, end = (0, stored.size) if span is None else (span.start, span.start + span.length)

    try:
        return find_cache().add(
            _key(url, span, stored), lambda: _read_pieces(url, start, end, stored)
        )
    except UnreachableError:
        raise
    except OSError as error:
        raise UnreachableError(error.errno, f"the cache: {error.strerror}", url) from error


def _read_pieces(url: str, start: int, end: int, stored: Fingerprint) -> Iterator[Buffer]:
    """Yield bytes of a file that is, and stays, the one that was listed."""
    found: Fingerprint | None = None
    for first in range(start, end, PIECE):
        data, found = read_range(url, first, min(first + PIECE, end))
        _check(found or stored, stored)
        yield data
    if found is None:  # asked after the bytes, so that they are those of the listed file
        _check(take_stored(url), stored)


def _check(found: Fingerprint, stored: Fingerprint) -> None:
    if found != stored:
        raise ClipError(f"changed in its store after it was listed; {AGAIN}")


class StoredFile(io.RawIOBase):
    """A file in a store, read by ranges of bytes; nothing is kept.

    Raises ClipError if the file is not, or no longer, the one that was listed.

    Args:
        url: its address.
        stored: size and version when it was listed; None takes those of now.
    """

    def __init__(self, url: str, stored: Fingerprint | None) -> None:
        self._url, self._position = url, 0
        self._stored = take_stored(url) if stored is None else stored

    def readable(self) -> bool:
        """Whether the file can be read."""
        return True

    def seekable(self) -> bool:
        """Whether the position can be changed."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a byte."""
        origins = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._stored.size}
        self._position = max(0, origins[whence] + offset)
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        """Return the next bytes, fewer at the end of the file."""
        left = max(0, self._stored.size - self._position)
        end = self._position + (left if size is None or size < 0 else min(size, left))
        pieces = list(_read_pieces(self._url, self._position, end, self._stored))
        self._position = max(self._position, end)
        return b"".join(pieces)


def fetch_ahead(items: Iterable[object]) -> None:
    """Start to fetch the clips among some items that are in stores; they will be read soon."""
    for item in items:
        if isinstance(item, Entry) and item.stored is not None:
            is_part = item.storage in (Storage.ARCHIVE, Storage.PARQUET)
            part = find_part(item.path) if is_part else None
            if isinstance(part, Row):
                _start_row(part, item.stored)
            else:
                _start(item.path if part is None else part.archive, part, item.stored)


def _start_row(row: Row, stored: Fingerprint) -> None:
    from .parquet import group_key, open_row  # needs an optional library

    def fetch() -> None:
        os.close(open_row(row, stored)[0])

    _begin(group_key(row, stored), fetch)


def _start(url: str, span: Span | None, stored: Fingerprint) -> None:
    key, cache = _key(url, span, stored), find_cache()

    def fetch() -> None:
        for place in {key, _key(url, None, stored)}:
            size = stored.size if span is None or place != key else span.length
            descriptor = cache.open(place, size)
            if descriptor is not None:
                break
        else:
            descriptor = _fetch(url, span, stored)
        os.close(descriptor)

    _begin(key, fetch)


def _begin(key: str, fetch: Callable[[], None]) -> None:
    with _process.lock:
        if _process.threads is None:
            _process.threads = ThreadPoolExecutor(THREADS)
        for done in [one for one, future in _process.fetches.items() if future.done()]:
            del _process.fetches[done]  # its clip was not read
        if key not in _process.fetches:
            _process.fetches[key] = _process.threads.submit(fetch)


def read_ahead(items: Iterable[Item]) -> Iterator[Item]:
    """Yield items while the clips behind them are fetched."""
    rest = iter(items)
    waiting = list(islice(rest, AHEAD))
    fetch_ahead(waiting)
    while waiting:
        following = list(islice(rest, 1))
        fetch_ahead(following)
        yield waiting.pop(0)
        waiting += following
