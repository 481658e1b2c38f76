"""Files made of pieces: parts of an open file, and bytes put before or between them."""

from __future__ import annotations

import io
import os
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Union

import soundfile

Piece = Union[bytes, tuple[int, int]]
"""Bytes, or a part of the open file: its first byte, and the byte after its last one."""
TAG = 128  # bytes of an ID3v1 tag


class PiecedFile(io.RawIOBase):
    """Pieces in a row, with the file interface that soundfile needs.

    No exception can pass through libsndfile, which calls these methods: it is kept in ``error``.

    Args:
        descriptor: the open file, which the caller closes.
        pieces: none is empty.
        more: bytes that the file claims to have behind the pieces. Only its last bytes can be read,
            where decoders look for a tag; they are zero.
    """

    def __init__(self, descriptor: int, pieces: Sequence[Piece], more: int = 0) -> None:
        self.error: OSError | None = None
        self._file = io.FileIO(descriptor, closefd=False)
        self._pieces = pieces
        self._ends = list(accumulate(map(_length, pieces)))
        self._size = self._ends[-1] + more
        self._position = 0

    def check(self) -> None:
        """Raise the error of a failed read, which is more precise than libsndfile's message."""
        if self.error is not None:
            raise self.error

    def readable(self) -> bool:
        """Whether the file can be read."""
        return True

    def seekable(self) -> bool:
        """Whether the position can be changed."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a byte."""
        origins = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}
        self._position = max(0, origins[whence] + offset)
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Read from one piece; return the number of bytes, 0 at the end."""
        number = bisect_right(self._ends, self._position)
        if number == len(self._ends):
            if self._position < self._size - TAG:
                return 0
            count = max(0, min(len(buffer), self._size - self._position))
            buffer[:count] = bytes(count)
            self._position += count
            return count
        piece, left = self._pieces[number], self._ends[number] - self._position
        view = memoryview(buffer)[:left]
        if isinstance(piece, bytes):
            start = len(piece) - left
            view[:] = piece[start : start + len(view)]
            count = len(view)
        else:
            try:
                self._file.seek(piece[1] - left)
                count = self._file.readinto(view)
            except OSError as error:
                self.error = error
                return 0
        self._position += count
        return count


def _length(piece: Piece) -> int:
    return len(piece) if isinstance(piece, bytes) else piece[1] - piece[0]


class ForwardDecoder(soundfile.SoundFile):
    """libsndfile's decoder without seeking.

    soundfile seeks after every read, which some decoders cannot do exactly, or not at all.
    """

    def seekable(self) -> bool:
        """Whether the position can be changed."""
        return False
