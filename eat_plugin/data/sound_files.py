"""Sound files, whole or within archives, opened by the reader that fits their content."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import soundfile

from .clip import AudioClip, ClipError
from .declared import check_samples
from .entries import Row, Span, is_container
from .files import open_range
from .flac import refuse_second_file, state_length
from .mpeg import MpegClip, find_mpeg
from .ogg import refuse_partial
from .pieces import ForwardDecoder, Piece, PiecedFile
from .wav import HEAD, WavClip, find_wav

if TYPE_CHECKING:
    from .fingerprints import Fingerprint

BUFFER = 1 << 13  # bytes
LONGEST_CLIP = 1 << 40  # samples; libsndfile reports 2**63 - 1 for an unknown length
# What libsndfile says of content that it cannot read, and what it means.
MEANINGS = {
    "File contains data in an unimplemented format": "or its header is damaged or truncated",
    "File does not exist or is not a regular file": "that is, it holds no sound",
    "Internal psf_fseek() failed": "the file is damaged or truncated",
    "Unspecified internal error": "the file is damaged or truncated",
    "Seek attempted on unseekable file type": "its encoding cannot be read in part",
}


@contextmanager
def open_file(
    path: str,
    span: Span | Row | None = None,
    num_samples: int | None = None,
    stored: Fingerprint | None = None,
) -> Iterator[AudioClip]:
    """Open a sound file, a range of bytes of an archive, or a row of a parquet file.

    Args:
        path: the file or archive.
        span: the range or row; None for a whole file.
        num_samples: samples of a channel, counted before; None if they are not known.
        stored: size and version of a file in a store, if they are known.

    Raises:
        ClipError: the file cannot be opened or decoded, is truncated, or holds more than would be
            read; also while it is open.
        UnreachableError: its store cannot be used.
    """
    # By descriptor: libsndfile and soundfile would guess the format from the file's name.
    descriptor, start, end = open_range(path, span, stored)
    try:
        clip = _find_clip(descriptor, start, end, num_samples)
        if isinstance(clip, WavClip):
            yield clip
            return
        with closing(clip):
            if clip.frames <= LONGEST_CLIP:  # others have an unknown length
                check_samples(clip.frames, end - start)
            try:
                yield clip
                if isinstance(clip, _FlacFile):
                    clip.check_end()
            finally:
                if clip.source is not None:
                    clip.source.check()
    except soundfile.LibsndfileError as error:
        if span is None and is_container(path):
            raise ClipError("is an archive; list its clips by eat manifest") from error
        raise ClipError(f"cannot be decoded: {_explain(error.error_string)}") from error
    except (soundfile.SoundFileError, OSError, OverflowError, MemoryError) as error:
        raise ClipError(f"cannot be decoded: {error}") from error
    finally:
        os.close(descriptor)


class _SoundFile(soundfile.SoundFile):
    """A sound file that libsndfile reads, from bytes ``start`` to ``end`` of an open file.

    ``pieces`` are read in their place, if they are given.
    """

    def __init__(
        self, descriptor: int, start: int, end: int, pieces: list[Piece] | None = None
    ) -> None:
        self.source: PiecedFile | None = None
        self._descriptor, self._part = descriptor, (start, end)
        if pieces is None and self._part == (0, os.fstat(descriptor).st_size):
            super().__init__(descriptor, closefd=False)
            return
        self.source = PiecedFile(descriptor, pieces or [self._part])
        try:
            super().__init__(
                self.source if pieces is None else io.BufferedReader(self.source, BUFFER)
            )
        finally:
            self.source.check()


class _OggFile(ForwardDecoder, _SoundFile):
    """Read without seeking, which would make up for lost samples by those of the end."""


class _FlacFile(_SoundFile):
    def check_end(self) -> None:
        """Raise ClipError if all was read, and another file follows."""
        if self.tell() == self.frames:
            start, _ = self._part
            place = os.lseek(self._descriptor, 0, os.SEEK_CUR)
            if self.source is not None:
                place = start + self.source.tell()
            refuse_second_file(self._descriptor, start, place)


def _find_clip(
    descriptor: int, start: int, end: int, num_samples: int | None
) -> WavClip | MpegClip | _SoundFile:
    if not hasattr(os, "pread"):  # Windows
        return _SoundFile(descriptor, start, end)
    head = os.pread(descriptor, min(HEAD, end - start), start)
    wav = find_wav(head, descriptor, start, end)
    if wav is not None:
        if wav.form is not None:
            return WavClip(descriptor, wav.position, wav.size, *wav.form)
        return _SoundFile(descriptor, start, end, wav.correct())
    if head.startswith(b"fLaC"):
        pieces = state_length(head, descriptor, start, end, num_samples)
        return _FlacFile(descriptor, start, end, pieces)
    if head.startswith(b"OggS"):
        refuse_partial(descriptor, start, end, thorough=num_samples is None)
        return _OggFile(descriptor, start, end)
    if head.startswith((b"ID3", b"\xff")):
        mpeg = find_mpeg(descriptor, start, end)
        if mpeg is not None:
            return mpeg
    return _SoundFile(descriptor, start, end)


def _explain(text: str) -> str:
    meanings = [meaning for start, meaning in MEANINGS.items() if text.startswith(start)]
    return "; ".join([text.rstrip(". "), *meanings])
