"""Chained Ogg files, of which libsndfile reads the first link only; found by their pages.

A page is a header of 27 bytes, the sizes of its segments, and these. RFC 3533 defines it.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from .clip import ClipError

MARK = b"OggS\0"
HEADER = 27  # bytes, before the sizes of segments
LARGEST_PAGE = HEADER + 255 + 255 * 255  # bytes
FIRST = 2  # flag of the first page of a logical stream


class _Page(NamedTuple):
    is_first: bool
    serial: bytes
    size: int


def refuse_chains(descriptor: int, start: int, end: int, thorough: bool) -> None:
    """Raise ClipError if an Ogg file, bytes ``start`` to ``end`` of an open file, has two links.

    The last page tells by its serial number; unless ``thorough``, links with equal numbers are not
    found.
    """
    serials, position, page = set[bytes](), start, _read_page(descriptor, start, end)
    while page is not None and page.is_first:  # streams in parallel
        serials.add(page.serial)
        position += page.size
        page = _read_page(descriptor, position, end)
    while page is not None and thorough:
        if page.is_first:
            _refuse()
        position += page.size
        page = _read_page(descriptor, position, end)
    first = max(position, end - LARGEST_PAGE)
    tail = os.pread(descriptor, max(0, end - first), first)
    place = tail.rfind(MARK)
    last = None if place < 0 else _read_page(descriptor, first + place, end)
    if last is not None and last.serial not in serials:
        _refuse()


def _read_page(descriptor: int, position: int, end: int) -> _Page | None:
    head = os.pread(descriptor, max(0, min(HEADER + 255, end - position)), position)
    if len(head) < HEADER or not head.startswith(MARK):
        return None
    count = head[HEADER - 1]
    size = HEADER + count + sum(head[HEADER : HEADER + count])
    return _Page(bool(head[5] & FIRST), head[14:18], size)


def _refuse() -> None:
    raise ClipError(
        "holds several recordings in a row (chained Ogg), of which the first alone would be read; "
        "join them, for example by ffmpeg -i IN.ogg OUT.flac"
    )
