"""MPEG audio (mp3): whole, and right from any sample on.

libsndfile decodes, but it estimates the length of a file that does not state its number of frames,
reads no further, and starts in the middle of a file without all the bytes that a frame takes from
those before it. Here frames are counted, and libsndfile is given those that are needed.
"""

from __future__ import annotations

import io
import os
from contextlib import suppress
from typing import NamedTuple

import numpy as np
import soundfile

from .clip import ClipError
from .mpeg_frames import (
    DECODER_DELAY,
    HEADER,
    MpegStream,
    find_frames,
    parse_header,
    read_frame,
    tag_size,
)
from .pieces import ForwardDecoder, Piece, PiecedFile

BUFFER = 1 << 13  # bytes
LARGEST_FRAME = 2000  # bytes, and more
HIGHEST_BIT_RATE = 14  # index in the table of Layer III
LEAD = 2  # frames whose sound overlaps with that of the next one
PERIOD = 8  # frames, after which the decoder adds in the same order: the same bits
NOTHING = "cannot be decoded: no frame of MPEG audio (mp3) found"
RESERVOIR = {True: 511, False: 255}  # bytes that a frame takes from those before, MPEG-1 or not


class Announcement(NamedTuple):
    """What a first frame marked ``Xing`` or ``Info`` says."""

    frames: int  # of sound; 0 if it does not say
    size: int  # bytes from this frame on; 0 if it does not say
    delay: int  # samples that the encoder put first
    padding: int  # samples that the encoder put last

    def find_dropped(self, samples: int, frames: int) -> int | None:
        """Return the samples that the decoder drops first; None if it does not take this in.

        Args:
            samples: of a channel in a frame.
            frames: samples of a channel that the decoder announces.
        """
        total = self.frames * samples
        expected = total - self.delay - max(self.padding, DECODER_DELAY)
        return {expected: self.delay + DECODER_DELAY, total: 0}.get(frames)


def find_mpeg(descriptor: int, start: int, end: int) -> MpegClip | None:
    """Return bytes ``start`` to ``end`` of an open file as a clip; None if not MPEG audio.

    The caller closes the clip, and the file after it.

    Raises:
        ClipError: there are no frames; the rate or the number of channels changes.
        OSError: the file cannot be read.
    """
    tags = start
    while tags < end and (size := tag_size(os.pread(descriptor, 32, tags))):
        tags += size
    header = os.pread(descriptor, HEADER, tags)
    if parse_header(header) is None and any(header):  # zeros fill up a tag
        return None
    position, form = find_frames(descriptor, tags, end)
    if form is None:
        raise ClipError(NOTHING)
    first = read_frame(descriptor, position)
    announced = read_announcement(first, form.side) if form.layer == 3 else None
    if announced is None:
        return MpegClip(MpegStream(descriptor, position, end, form))
    stream = MpegStream(descriptor, position + len(first), end, form)
    behind = min(position + announced.size, end)
    complete = announced.size and stream.skip_to_frame(behind) == end
    if announced.frames and (complete or stream.find() <= announced.frames + 1):
        footer = os.pread(descriptor, 6, start)[5] & 0x10 and tags > start  # libsndfile fails
        begin = start if position == tags and not footer else position
        return MpegClip(stream, announced, (begin, end))
    return MpegClip(stream)


def read_announcement(frame: bytes, side: int) -> Announcement | None:
    """Parse a first frame without sound; None if it is another one."""
    place = HEADER + side
    if frame[place : place + 4] not in (b"Xing", b"Info") or any(frame[HEADER + 2 : place]):
        return None
    flags = int.from_bytes(frame[place + 4 : place + 8], "big")
    place += 8
    values = []
    for bit, length in ((1, 4), (2, 4), (4, 100), (8, 4)):  # frames, bytes, table, quality
        values.append(int.from_bytes(frame[place : place + 4], "big") if flags & bit else 0)
        place += length if flags & bit else 0
    encoder = frame[place : place + 24]
    stated = len(encoder) == 24 and encoder[0] != 0
    both = int.from_bytes(encoder[21:], "big") if stated else 0  # 12 bits each
    return Announcement(values[0], values[1], both >> 12, both & 0xFFF)


class MpegClip:
    """MPEG audio in an open file, as an ``AudioClip``.

    Args:
        stream: its frames of sound.
        announced: what its first frame says, if it is right.
        part: first byte of the file and the byte after it, if ``announced`` is given.

    Attributes:
        source: what the decoder reads, if it is not the file itself.
    """

    extra_info = ""

    def __init__(
        self,
        stream: MpegStream,
        announced: Announcement | None = None,
        part: tuple[int, int] = (0, 0),
    ) -> None:
        form = stream.form
        self.source: PiecedFile | None = None
        self.samplerate, self.channels = form.rate, form.channels
        self.subtype = f"MPEG_LAYER_{'I' * form.layer}"
        self._stream, self._position = stream, 0
        dropped = None
        if announced is not None:
            whole = part == (0, os.fstat(stream.descriptor).st_size)
            self._open(None if whole else [part])
            self.frames, self._total = self._decoder.frames, announced.frames
            dropped = announced.find_dropped(form.samples, self.frames)
        self._dropped = dropped or 0
        if dropped is None:
            self._total = stream.find()
            self.frames = self._total * form.samples
            self._open_frames(0)

    def close(self) -> None:
        """Close the decoder."""
        self._decoder.close()

    def seek(self, frames: int) -> int:
        """Move to a sample, counted from the start."""
        self.close()
        length, place = self._stream.form.samples, frames + self._dropped
        number = place // length - LEAD
        number = number if number > PERIOD else 0
        self._position = frames
        if self._stream.find(number + 1) > number:  # or the file is truncated
            before = self._open_frames(number)
            self._decode(place + (before - number) * length, "float32")
        return frames

    def read(self, frames: int, dtype: str, always_2d: bool) -> np.ndarray:
        """Return the next samples, `[n, channels]`, full scale at 1; fewer at the end."""
        samples = self._decode(max(0, min(frames, self.frames - self._position)), dtype)
        self._position += len(samples)
        return samples

    def _decode(self, count: int, dtype: str) -> np.ndarray:
        if not self._decoder.closed:
            with suppress(soundfile.LibsndfileError):  # the file ends within a frame
                return self._decoder.read(count, dtype=dtype, always_2d=True)
        return np.zeros((0, self.channels), dtype)

    def _open_frames(self, number: int) -> int:
        """Open the decoder for the frames from one on; return the number of those put before."""
        count = (number % PERIOD or PERIOD) if number else 0
        pieces: list[Piece] = [*self._stream.parts_from(number)]
        if count:
            pieces.insert(0, make_lead_in(self._stream, number, count))
        if self._total == 1:  # the decoder wants a header behind the first frame
            pieces.append(self._stream.frame(0)[:HEADER])
        # The stated size has room for all frames: libsndfile's estimate of the length is no limit.
        self._open(pieces, (count + self._total) * LARGEST_FRAME)
        return count

    def _open(self, pieces: list[Piece] | None, more: int = 0) -> None:
        """Open the decoder for pieces, or for the whole file, which is faster."""
        descriptor = self._stream.descriptor
        if pieces is None:
            self._decoder = ForwardDecoder(descriptor, closefd=False)
        else:
            self.source = PiecedFile(descriptor, pieces, more)
            try:
                self._decoder = ForwardDecoder(io.BufferedReader(self.source, BUFFER))
            finally:
                self.source.check()


def make_lead_in(stream: MpegStream, number: int, count: int) -> bytes:
    """Make silent frames to decode before one in the middle.

    The last one holds the data of earlier frames that the next ones refer to (the bit reservoir of
    Layer III).
    """
    form, header = stream.form, stream.frame(number)[:HEADER]
    if form.layer < 3:
        return _make_silence(header, header[2] >> 4) * count
    size, data = RESERVOIR[form.first_version], b""
    while len(data) < size and number > 0:
        number -= 1
        frame = stream.frame(number)
        checksum = 0 if frame[1] & 1 else 2  # bytes
        data = frame[HEADER + checksum + form.side :] + data
    last = _make_silence(header, HIGHEST_BIT_RATE)
    data = data[-size:]
    return _make_silence(header, 1) * (count - 1) + last[: len(last) - len(data)] + data


def _make_silence(header: bytes, bit_rate: int) -> bytes:
    """Make a frame of silence like another one, without checksum."""
    _, one, two, three = header
    header = bytes((0xFF, one | 1, bit_rate << 4 | two & 0x0C, three & 0xCF))
    parsed = parse_header(header)
    assert parsed is not None
    return header.ljust(parsed[1], b"\0")
