"""FLAC files that do not state their length, or hold a second file behind the first one.

An encoder that writes to a pipe leaves 0 as the number of samples, in the last 36 bits of 8 bytes
of the block STREAMINFO (RFC 9639).
"""

from __future__ import annotations

import os

import soundfile

from .clip import ClipError
from .pieces import ForwardDecoder, Piece, PiecedFile

BEGINNING = b"fLaC\0\0\0\x22"  # mark, and header of the block
FIELD = 18  # first byte of the 8 bytes
BLOCK = 1 << 16  # samples decoded at a time
READ_AHEAD = 1 << 14  # bytes, twice what the decoder reads at a time


def state_length(
    head: bytes, descriptor: int, start: int, end: int, num_samples: int | None
) -> list[Piece] | None:
    """Return a FLAC file with its number of samples; None if it states it, or is another file.

    Args:
        head: the first bytes of the file, 26 at least.
        descriptor: the open file.
        start: first byte of the FLAC file.
        end: byte after it.
        num_samples: samples of a channel; None counts them, by decoding the file.

    Raises:
        ClipError: the file cannot be decoded to its end.
    """
    if not (head[:4] == BEGINNING[:4] and head[5:8] == BEGINNING[5:] and len(head) >= FIELD + 8):
        return None
    field = int.from_bytes(head[FIELD : FIELD + 8], "big")
    if field % (1 << 36):
        return None
    if num_samples is None:
        num_samples = _count(PiecedFile(descriptor, [(start, end)]))
    stated = (field | num_samples).to_bytes(8, "big")
    return [(start, start + FIELD), stated, (start + FIELD + 8, end)]


def _count(source: PiecedFile) -> int:
    found = 0
    try:
        with ForwardDecoder(source) as decoder:
            while block := len(decoder.read(BLOCK, dtype="int16", always_2d=True)):
                found += block
    except soundfile.LibsndfileError as error:
        raise ClipError(
            f"does not state its length, and {found} samples can be decoded "
            f"({error.error_string.rstrip('. ')}): it is truncated, damaged, or several files in a "
            "row; write it again, for example by ffmpeg -i IN.flac OUT.flac"
        ) from error
    return found


def refuse_second_file(descriptor: int, start: int, place: int) -> None:
    """Raise ClipError if another FLAC file begins where the first one was read to its end.

    Args:
        descriptor: the open file.
        start: first byte of the first FLAC file.
        place: how far the decoder has read.
    """
    first = max(start + 1, place - READ_AHEAD)
    data = os.pread(descriptor, place + len(BEGINNING) - first, first)
    if BEGINNING in data or BEGINNING.replace(b"C\0", b"C\x80") in data:
        raise ClipError(
            "holds a second flac file behind the first one, which alone would be read; split "
            "them, or join them, for example by sox IN1.flac IN2.flac OUT.flac"
        )
