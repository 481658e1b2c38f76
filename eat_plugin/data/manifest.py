"""The list of clips of a split: ``{split}.tsv``.

The first line is the root, a folder or an address in a store; every other line is
``name<TAB>samples``: the name is relative to the root (see ``entries``), the samples are counted at
the file's own rate. UTF-8; names may hold spaces.
"""

from __future__ import annotations

import codecs
import hashlib
import os
from array import array
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import numpy as np

from .entries import Entry, Storage, find_storage
from .files import replacing
from .urls import Root, Url, parse_root

REPORTS = ("rejected.", "missing.")  # beginnings of other files with the same ending
BLOCK = 1 << 20  # bytes read at a time for a digest
ADVICE = "run eat manifest first, as: eat manifest /my/audio --out /my/data"
MOST_DIGITS = 18  # of a number of samples, which has to fit into 64 bits


class ManifestError(ValueError):
    """A manifest cannot be used. The message is ``file:line: reason``, or ``file: reason``."""


class Manifest:
    """The clips of a split, in the order of the file.

    Names are kept in one byte string, so that millions of clips need as much memory as the file
    and worker processes share it.

    Args:
        root: folder or address that the names are relative to.
        names: all names, UTF-8, concatenated.
        ends: end of each name in ``names``, 64-bit integers.
        sizes: samples of each clip, 64-bit integers.
        storages: a ``Storage`` per clip; None for files alone.

    Attributes:
        root: absolute path of the root, or its address.
        sizes: `[clips]` int64.
        storages: `[clips]` uint8.
        stored: size and version of the file of each clip, if the root is an address: `[clips, 2]`
            int64; else None.
    """

    def __init__(
        self,
        root: Root,
        names: bytes | bytearray,
        ends: array[int],
        sizes: array[int],
        storages: bytes | bytearray | None = None,
    ) -> None:
        self.root: Root = root if isinstance(root, Url) else Path(os.path.abspath(root))
        self.stored: np.ndarray | None = None
        self.sizes = np.frombuffer(sizes, dtype=np.int64)
        self.storages = np.frombuffer(
            bytes(len(sizes)) if storages is None else storages, dtype=np.uint8
        )
        self._names = names
        self._ends = np.frombuffer(ends, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.sizes)

    def name(self, index: int) -> str:
        """Return the name of a clip as the file has it, in line ``index + 2``."""
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of a manifest of {len(self)} clips")
        start = self._ends[index - 1] if index else 0
        return self._names[start : self._ends[index]].decode("utf-8")

    def path(self, index: int) -> Root:
        """Return the absolute path or address of a clip: root and name."""
        return self.root / self.name(index)

    def entry(self, index: int) -> Entry:
        """Return path, storage and size of a clip."""
        path = os.path.join(self.root, self.name(index))
        entry = Entry(path, Storage(self.storages[index]), int(self.sizes[index]))
        if self.stored is None:
            return entry
        from .fingerprints import Fingerprint

        return entry._replace(stored=Fingerprint(*self.stored[index].tolist()))


def read_manifest(path: str | os.PathLike[str]) -> Manifest:
    """Read ``{split}.tsv``; lines may end in CR LF.

    Raises:
        ManifestError: the file cannot be read; the root is not a folder; a line has another form;
            a name leaves the root or occurs twice; there are no clips.
    """
    names, ends, sizes, hashes = bytearray(), array("q"), array("q"), array("q")
    storages = bytearray()
    is_file = lru_cache(maxsize=1 << 10)(os.path.isfile)
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
                storages.append(find_storage(f"{root}/{name.decode()}", is_file))
    except OSError as error:
        raise ManifestError(f"{path}: {_explain(Path(path), error)}") from error
    except ValueError as error:
        raise ManifestError(f"{path}:{number}: {error}") from error
    if not sizes:
        raise ManifestError(f"{path}:2: no clips, expected lines of 'path<TAB>samples'")
    if Storage.PARQUET in storages:
        _require_pyarrow(path)
    manifest = Manifest(root, names, ends, sizes, storages)
    if isinstance(root, Url):
        from .fingerprints import read_stored  # it reads manifests too

        manifest.stored = read_stored(Path(path), manifest)
    for first, second in _equal_hashes(hashes):
        if manifest.name(first) == manifest.name(second):
            repeated = manifest.name(second)
            raise ManifestError(f"{path}:{second + 2}: {repeated!r} is in line {first + 2} already")
    return manifest


def _require_pyarrow(path: str | os.PathLike[str]) -> None:
    from .parquet import require_pyarrow

    try:
        require_pyarrow()
    except ValueError as error:
        raise ManifestError(f"{path}: {error}") from error


def _explain(path: Path, error: OSError) -> str:
    """Return why a manifest cannot be read."""
    if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return f"cannot be read: {error.strerror}"
    folder = path.parent
    if not folder.is_dir():
        if folder.exists():
            return f"{folder} is not a folder"
        return f"there is no folder {folder}; {ADVICE}"
    others = sorted(other.name for other in folder.glob("*.tsv") if other.is_file())
    others = [name for name in others if not name.startswith(REPORTS)]
    there = f"; there are: {', '.join(others)}" if others else ""
    return f"no such manifest{there}; {ADVICE}"


def read_root(path: str | os.PathLike[str]) -> Root:
    """Read the root, the first line of ``{split}.tsv``.

    Raises:
        ManifestError: the file cannot be read, or the root is not a folder.
    """
    try:
        with open(path, "rb") as file:
            return _parse_root(file.readline().rstrip(b"\r\n"))
    except OSError as error:
        raise ManifestError(f"{path}: {_explain(Path(path), error)}") from error
    except ValueError as error:
        raise ManifestError(f"{path}:1: {error}") from error


def _parse_root(line: bytes) -> Root:
    root = parse_root(_decode(line.removeprefix(codecs.BOM_UTF8), "the root folder of the clips"))
    if isinstance(root, Path) and not root.is_dir():
        seen_from = "" if root.is_absolute() else f", seen from {os.getcwd()}"
        raise ValueError(
            f"the root {str(root)!r} is not an existing folder{seen_from}; if the clips were "
            "moved, run eat manifest again (of a cache, eat cache), or write their folder into "
            "this line"
        )
    return root


def _parse_line(line: bytes) -> tuple[bytes, int]:
    name, tab, samples = line.partition(b"\t")
    if not tab:
        raise ValueError(f"expected 'path<TAB>samples', found no tab in {_show(line)}")
    _decode(name, "a path before the tab")
    if (b".." in name or name.startswith(b"/")) and _leaves_root(name):  # saves a call per line
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
    """Return pairs of positions with the same hash, sorted by the later position."""
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
    """Write ``{split}.tsv``, complete or not at all.

    Args:
        path: the file, which is replaced.
        root: folder or address that the names are relative to.
        entries: name and number of samples of each clip.

    Raises:
        ValueError: a name is not allowed (see ``check_name``), or a number of samples is negative.
        OSError: the file cannot be written.
    """
    with replacing(path) as file:
        file.write(encode_name(os.fspath(root)) + b"\n")
        for name, samples in entries:
            if samples < 0:
                raise ValueError(f"the number of samples of {name!r} is negative: {samples}")
            file.write(b"%b\t%d\n" % (check_name(name), samples))


def digest_clips(path: str | os.PathLike[str], skip_first: bool = True) -> str:
    """Return the SHA-256 of the lines of ``{split}.tsv``, without the root: the first line."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        if skip_first:
            file.readline()
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def encode_name(name: str) -> bytes:
    """Encode a path for a manifest.

    Raises:
        ValueError: the path is empty, has a tab or a line break, or is not UTF-8.
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
    """Encode the name of a clip, a path relative to the root; see ``encode_name``.

    Raises:
        ValueError: as ``encode_name``, or the path leaves the root.
    """
    encoded = encode_name(name)
    if _leaves_root(encoded):
        raise ValueError(f"a manifest cannot hold a path that leaves its root: {name!r}")
    return encoded
