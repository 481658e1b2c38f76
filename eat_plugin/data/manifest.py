"""The list of a data set's clips: ``{split}.tsv``.

The first line is the root folder; every other line is ``path<TAB>samples``, the path relative to
the root and the number of samples at the file's own rate. UTF-8; paths may hold spaces.

In this file:
    ManifestError    a line that is wrong, and what was expected
    Manifest         the entries, in memory for millions of clips
    read_manifest    from a file
    write_manifest   to a file
    encode_name      what of a path can stand in a manifest
    check_name       what of it can be the name of a clip
"""

from __future__ import annotations

import codecs
import os
from array import array
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from .files import replacing

MOST_DIGITS = 18  # of a number of samples: it has to fit into 64 bits


class ManifestError(ValueError):
    """A manifest that cannot be used. The message is ``file:line: what is wrong``."""


class Manifest:
    """The clips of a split, in the order of the file.

    All names are kept in one string of bytes, so that millions of clips cost what the file costs
    and worker processes share it.

    Attributes:
        root: Folder that the names are relative to, absolute.
        sizes: Samples of each clip at its own rate, `[clips]` int64.
    """

    def __init__(
        self, root: Path, names: bytes | bytearray, ends: array[int], sizes: array[int]
    ) -> None:
        """Take over the columns of a manifest.

        Args:
            root: Folder that the names are relative to.
            names: All names, UTF-8, one after another.
            ends: Where in ``names`` each name ends, as 64-bit integers.
            sizes: Samples of each clip, as 64-bit integers.
        """
        self.root = Path(os.path.abspath(root))
        self.sizes = np.frombuffer(sizes, dtype=np.int64)
        self._names = names
        self._ends = np.frombuffer(ends, dtype=np.int64)

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.sizes)

    def name(self, index: int) -> str:
        """Return the path of a clip as it is written in the file.

        Args:
            index: Position of the clip, from 0; it stands in line ``index + 2``.

        Raises:
            IndexError: There is no such clip.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of a manifest of {len(self)} clips")
        start = self._ends[index - 1] if index else 0
        return self._names[start : self._ends[index]].decode("utf-8")

    def path(self, index: int) -> Path:
        """Return the absolute path of a clip: the root and its name."""
        return self.root / self.name(index)


def read_manifest(path: str | os.PathLike[str]) -> Manifest:
    """Read ``{split}.tsv``.

    Args:
        path: The file. Lines may end in CR LF.

    Returns:
        The clips, in the order of the file.

    Raises:
        ManifestError: The file cannot be read; the root is not a folder; a line is not
            ``path<TAB>samples``; a path leaves the root; two lines name the same path; there are no
            clips.
    """
    names, ends, sizes, hashes = bytearray(), array("q"), array("q"), array("q")
    number = 1
    try:
        with open(path, "rb") as file:
            root = _parse_root(file.readline().rstrip(b"\r\n"))
            for number, line in enumerate(file, start=2):  # noqa: B007 (the handler needs it)
                name, samples = _parse_line(line.rstrip(b"\r\n"))
                names += name
                ends.append(len(names))
                sizes.append(samples)
                hashes.append(hash(name))
    except OSError as error:
        raise ManifestError(f"{path}:{number}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ManifestError(f"{path}:{number}: {error}") from error
    if not sizes:
        raise ManifestError(f"{path}:2: no clips, expected lines of 'path<TAB>samples'")
    manifest = Manifest(root, names, ends, sizes)
    for first, second in _equal_hashes(hashes):
        if manifest.name(first) == manifest.name(second):
            repeated = manifest.name(second)
            raise ManifestError(f"{path}:{second + 2}: {repeated!r} is in line {first + 2} already")
    return manifest


def _parse_root(line: bytes) -> Path:
    root = Path(_decode(line.removeprefix(codecs.BOM_UTF8), "the root folder of the clips"))
    if not root.is_dir():
        seen_from = "" if root.is_absolute() else f", seen from {os.getcwd()}"
        raise ValueError(f"the root {str(root)!r} is not an existing folder{seen_from}")
    return root


def _parse_line(line: bytes) -> tuple[bytes, int]:
    name, tab, samples = line.partition(b"\t")
    if not tab:
        raise ValueError(f"expected 'path<TAB>samples', found no tab in {_show(line)}")
    _decode(name, "a path before the tab")
    if (b".." in name or name.startswith(b"/")) and _leaves_root(name):  # no call for most
        raise ValueError(f"expected a path below the root, without '..', got {_show(name)}")
    if not samples.isdigit() or len(samples) > MOST_DIGITS:
        raise ValueError(f"expected the number of samples after the tab, got {_show(samples)}")
    return name, int(samples)


def _leaves_root(name: bytes) -> bool:
    return name.startswith(b"/") or b".." in name.split(b"/")


def _decode(text: bytes, expected: str) -> str:
    if not text:
        raise ValueError(f"expected {expected}, found nothing")
    if b"\0" in text:
        raise ValueError(f"expected {expected}, found a null byte in {_show(text)}")
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"expected {expected} in UTF-8, got {_show(text)}") from error


def _show(text: bytes) -> str:
    shown = repr(text[:80].decode("utf-8", "backslashreplace"))
    return shown if len(text) <= 80 else f"{shown}..."


def _equal_hashes(hashes: array[int]) -> list[tuple[int, int]]:
    """Return the pairs of positions that hold the same hash, by the later position."""
    values = np.frombuffer(hashes, dtype=np.int64)
    order = np.argsort(values, kind="stable")
    values = values[order]
    repeats = np.flatnonzero(values[1:] == values[:-1])
    return sorted(zip(order[repeats].tolist(), order[repeats + 1].tolist()), key=lambda p: p[1])


def write_manifest(
    path: str | os.PathLike[str],
    root: str | os.PathLike[str],
    entries: Iterable[tuple[str, int]],
) -> None:
    """Write ``{split}.tsv``, whole or not at all.

    Args:
        path: The file; one of that name is replaced.
        root: Folder that the paths are relative to.
        entries: Path and number of samples of each clip.

    Raises:
        ValueError: A path cannot stand in a manifest (see `encode_name`) or leaves the root, or a
            number of samples is negative.
        OSError: The file cannot be written.
    """
    with replacing(path) as file:
        file.write(encode_name(os.fspath(root)) + b"\n")
        for name, samples in entries:
            if samples < 0:
                raise ValueError(f"the number of samples of {name!r} is negative: {samples}")
            file.write(b"%b\t%d\n" % (check_name(name), samples))


def encode_name(name: str) -> bytes:
    """Return the bytes by which a manifest spells a path.

    Args:
        name: The path.

    Raises:
        ValueError: The path is empty, holds a tab or a line break, or is not UTF-8.
    """
    if not name:
        raise ValueError("a manifest cannot hold an empty path")
    for character, called in (("\t", "a tab"), ("\n", "a line break"), ("\r", "a line break")):
        if character in name:
            raise ValueError(f"a manifest cannot hold a path with {called}: {name!r}")
    try:
        return name.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"a manifest cannot hold a path that is not UTF-8: {name!r}") from error


def check_name(name: str) -> bytes:
    """Return the bytes by which a manifest spells the name of a clip.

    Args:
        name: A path relative to the root.

    Raises:
        ValueError: As in `encode_name`, or the path leaves the root.
    """
    encoded = encode_name(name)
    if _leaves_root(encoded):
        raise ValueError(f"a manifest cannot hold a path that leaves its root: {name!r}")
    return encoded
