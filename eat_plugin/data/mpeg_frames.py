"""The frames of MPEG audio (mp3), found and counted by their headers alone.

A frame is 4 bytes of header and its data. ISO/IEC 11172-3 and 13818-3 define the header; the frame
that encoders put first, marked ``Xing`` or ``Info``, has no sound but the number of frames.
"""

from __future__ import annotations

import os
from array import array
from functools import lru_cache
from typing import NamedTuple

from .clip import ClipError

BLOCK = 1 << 17  # bytes read at a time
HEADER = 4  # bytes
DECODER_DELAY = 529  # samples, which the decoder drops where the number of frames is stated
TAGS = (b"ID3", b"TAG", b"APE")
CHECKED = 3  # frames in a row that are no coincidence
RATES = (44_100, 48_000, 32_000)  # Hz of MPEG-1
BIT_RATES = {  # kbit/s, by MPEG-1 or not and layer
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}


class Form(NamedTuple):
    """What all frames of a stream have in common."""

    first_version: bool  # MPEG-1, not MPEG-2 or 2.5
    layer: int
    rate: int  # Hz
    channels: int

    @property
    def samples(self) -> int:
        """Samples of a channel in a frame."""
        if self.layer == 1:
            return 384
        return 1152 if self.layer == 2 or self.first_version else 576

    @property
    def side(self) -> int:
        """Bytes of side information in a frame of Layer III."""
        sizes = (17, 32) if self.first_version else (9, 17)
        return sizes[self.channels - 1]

    def __str__(self) -> str:
        return f"{self.rate} Hz, {self.channels} channel{'s' * (self.channels > 1)}"


@lru_cache(maxsize=1 << 12)
def parse_header(header: bytes) -> tuple[Form, int] | None:
    """Return the form of a frame and its bytes; None if it is no header, or of a free format."""
    if len(header) < HEADER or header[0] != 0xFF or header[1] < 0xE0:
        return None
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)
    bit_rate, rate = header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or layer == 4 or bit_rate in (0, 15) or rate == 3:
        return None
    hertz = RATES[rate] >> {3: 0, 2: 1, 0: 2}[version]
    form = Form(version == 3, layer, hertz, 1 if header[3] >= 0xC0 else 2)
    bits = 1000 * BIT_RATES[form.first_version, layer][bit_rate - 1]
    slot = 4 if layer == 1 else 1  # bytes
    size = (form.samples // 8 // slot * bits // hertz + (header[2] >> 1 & 1)) * slot
    return form, size


class MpegStream:
    """The frames of sound in a part of an open file; what is between them is left out.

    Args:
        descriptor: the open file.
        start: first byte of a frame.
        end: byte after the part.
        form: of all frames.

    Attributes:
        positions: the first byte of each frame found so far.
        runs: frames in a row found so far: the first frame, its first byte, and the byte after the
            last one.
    """

    def __init__(self, descriptor: int, start: int, end: int, form: Form) -> None:
        self.form = form
        self.positions = array("q")
        self.runs: list[tuple[int, int, int]] = []
        self.descriptor = descriptor
        self.end = end
        self._next = start
        self._sizes: dict[bytes, int] = {}  # by header

    def find(self, count: int | None = None) -> int:
        """Find frames, until there are ``count`` or all; return their number so far.

        Raises:
            ClipError: the rate or the number of channels changes.
        """
        while self._next < self.end and (count is None or len(self.positions) < count):
            first, start = len(self.positions), self._next
            stop = self._walk(start)
            if len(self.positions) > first:
                self._note_run(first, start, stop)
            self._next = stop
            if stop == start:
                self._next = self.skip_to_frame(stop)
        return len(self.positions)

    def _walk(self, position: int) -> int:
        """Note the whole frames of a block, the first one at ``position``; return their end."""
        data = os.pread(self.descriptor, min(BLOCK, self.end - position), position)
        sizes, place, last = self._sizes, 0, len(data) - HEADER
        places = []
        while place <= last:
            size = sizes.get(data[place : place + HEADER]) or self._find_size(data, place)
            if size is None:
                break
            places.append(place)
            place += size
        if places and position + place > self.end:
            place = places.pop()  # incomplete
        self.positions.extend([position + place for place in places])
        return position + place

    def _find_size(self, data: bytes, place: int) -> int | None:
        header = data[place : place + HEADER]
        parsed = parse_header(header)
        if parsed is None or parsed[0] != self.form:
            return None
        return self._sizes.setdefault(header, parsed[1])

    def _note_run(self, first: int, start: int, stop: int) -> None:
        if self.runs and self.runs[-1][2] == start:
            first, start, _ = self.runs.pop()
        self.runs.append((first, start, stop))

    def skip_to_frame(self, position: int) -> int:
        """Return the first byte of the next frame at a byte or behind it, or the end.

        Raises:
            ClipError: the frames there have another rate or number of channels.
        """
        while True:
            position, form = find_frames(self.descriptor, position, self.end)
            if form in (None, self.form):
                return position
            size = len(read_frame(self.descriptor, position))
            if check_frames(self.descriptor, position + size, self.end) == form:
                raise ClipError(
                    f"changes within the file from {self.form} to {form}; write it again in one "
                    "form, for example by ffmpeg -i IN.mp3 OUT.flac"
                )
            position += 1  # a single one, by chance

    def parts_from(self, number: int) -> list[tuple[int, int]]:
        """Return the bytes of the frames from one on, also of those that were not found yet."""
        parts = []
        for first, start, stop in reversed(self.runs):
            parts.append((max(start, self.positions[number]), stop))
            if first <= number:
                break
        if self._next < self.end:
            parts[0] = (parts[0][0], self.end)
        return parts[::-1]

    def frame(self, number: int) -> bytes:
        """Return the bytes of a frame that was found."""
        return read_frame(self.descriptor, self.positions[number])


def tag_size(data: bytes) -> int:
    """Return the bytes of the ID3 or APE tag that data begins with; 0 if it is none."""
    if data.startswith(b"ID3") and len(data) >= 10:
        size = sum((byte & 0x7F) << shift for byte, shift in zip(data[6:10], (21, 14, 7, 0)))
        return size + (20 if data[5] & 0x10 else 10)  # with a footer
    if data.startswith(b"TAG"):
        return 128
    if data.startswith(b"APETAGEX") and len(data) >= 32:
        size = int.from_bytes(data[12:16], "little")
        return size + (32 if data[23] & 0x20 else 0)  # this is the header, the size is without
    return 0


def read_frame(descriptor: int, position: int) -> bytes:
    """Return the bytes of the frame at a byte; none if there is none."""
    parsed = parse_header(os.pread(descriptor, HEADER, position))
    return b"" if parsed is None else os.pread(descriptor, parsed[1], position)


def find_frames(descriptor: int, position: int, end: int) -> tuple[int, Form | None]:
    """Return the first byte of the next frames, behind tags and other bytes, and their form.

    Without frames, these are the end and None.
    """
    while position < end:
        data = os.pread(descriptor, min(BLOCK, end - position), position)
        tag = tag_size(data)
        if tag:
            position += tag
            continue
        place = data.find(b"\xff")
        while place >= 0:
            form = check_frames(descriptor, position + place, end)
            if form is not None:
                return position + place, form
            place = data.find(b"\xff", place + 1)
        position += len(data)
    return end, None


def check_frames(descriptor: int, position: int, end: int) -> Form | None:
    """Return the form of the frames at a byte, or None if there are none.

    Frames are several in a row, or fewer up to a tag or the end of the file.
    """
    form = None
    for _ in range(CHECKED):
        header = os.pread(descriptor, max(0, min(HEADER, end - position)), position)
        parsed = parse_header(header)
        if parsed is None or form not in (None, parsed[0]):
            return form if position == end or header.startswith(TAGS) else None
        position += parsed[1]
        if position > end:  # incomplete
            return form
        form = parsed[0]
    return form
