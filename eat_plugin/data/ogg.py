"""Ogg files of which libsndfile reads a part only: chained, cut off, or with lost pages.

A page is a header of 27 bytes, the sizes of its segments, and these. RFC 3533 defines it.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from .clip import ClipError

MARK = b"OggS\0"
HEADER = 27  # bytes, before the sizes of segments
LARGEST_PAGE = HEADER + 255 + 255 * 255  # bytes
OF_HEADERS = 3  # pages of headers at most; in a recorded broadcast a gap of page numbers follows
FIRST = 2  # flag of the first page of a logical stream


class _Page(NamedTuple):
    is_first: bool
    serial: bytes
    number: int  # counts the pages of a logical stream
    size: int


def refuse_partial(descriptor: int, start: int, end: int, thorough: bool) -> None:
    """Raise ClipError if bytes ``start`` to ``end`` of an open file are an Ogg file with a defect.

    Two links: the last page tells by its serial number. With ``thorough`` all pages are looked at:
    links with equal numbers, a page that is cut off, and lost pages.
    """
    serials, position, page = set[bytes](), start, _read_page(descriptor, start, end)
    while page is not None and page.is_first:  # streams in parallel
        serials.add(page.serial)
        position += page.size
        page = _read_page(descriptor, position, end)
    numbers = dict.fromkeys(serials, 0)
    while page is not None and thorough:
        if page.is_first:
            _refuse()
        position += page.size
        if position > end:
            raise ClipError(f"is truncated: its last page lacks {position - end} bytes")
        expected = numbers.get(page.serial, page.number - 1) + 1
        if page.number != expected and expected >= OF_HEADERS:
            raise ClipError(f"is damaged: its page {expected} is missing or out of order")
        numbers[page.serial] = page.number
        page = _read_page(descriptor, position, end)
    if (
        thorough
        and position > start
        and MARK in os.pread(descriptor, max(0, min(LARGEST_PAGE, end - position)), position)
    ):
        raise ClipError(f"is damaged: there is no page at byte {position - start}")
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
    number = int.from_bytes(head[18:22], "little")
    return _Page(bool(head[5] & FIRST), head[14:18], number, size)


def _refuse() -> None:
    raise ClipError(
        "holds several recordings in a row (chained Ogg), of which the first alone would be read; "
        "join them, for example by ffmpeg -i IN.ogg OUT.flac"
    )
