"""Clips that two manifests share.

Clips are the same if their paths are, after symbolic links of roots, folders and files are
followed. A cached clip counts as the file it was made of. Archives with the same SHA-256 (``eat
manifest --checksum``) count as one file. Manifests and folders are read, no audio.
"""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import numpy as np

from .entries import possible_containers
from .fingerprints import read_checksums
from .json_text import parse_json
from .urls import is_url

TRAIN = "train"
HELD_OUT = re.compile("eval|val|test|dev(el|[^a-z]|$)|h[eo]ld", re.IGNORECASE)  # in names of splits
BLOCK = 1 << 20  # bytes of a manifest read at a time
CACHED = b".mel:"  # in each name of a feature cache
UNUSUAL = (b"./", b"//")  # in names that have to be normalised


def is_held_out(split: str) -> bool:
    """Whether a split is held out, by its name."""
    return HELD_OUT.match(split) is not None


class SplitFiles:
    """The files of the clips of a split.

    Args:
        root: folder that the names are relative to.
        read_names: returns the names in the manifest, in blocks.
        archives: archives below the root, by their SHA-256.
        renamed: absolute paths of archives that are copies, and of their originals.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        read_names: Callable[[], Iterable[list[bytes]]],
        archives: Mapping[str, str],
        renamed: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.root = _resolve(os.fspath(root))
        self.archives = archives
        self._read_names = read_names
        self._renamed = renamed
        self._folders: dict[bytes, tuple[bytes, dict[bytes, bytes]]] = {}

    @classmethod
    def of_manifest(cls, manifest: Path) -> SplitFiles:
        """Read ``{split}.tsv`` and ``{split}.archives``; lines are not checked."""
        with open(manifest, "rb") as file:
            root = file.readline().rstrip(b"\r\n").removeprefix(codecs.BOM_UTF8)

        def read_names() -> Iterator[list[bytes]]:
            with open(manifest, "rb") as file:
                file.readline()
                while lines := file.readlines(BLOCK):
                    yield [line.partition(b"\t")[0] for line in lines]

        return cls(os.fsdecode(root), read_names, read_checksums(manifest.with_suffix(".archives")))

    def rename_copies(self, other: SplitFiles) -> SplitFiles:
        """Return these files with the paths of the other split's archives where they are equal."""
        renamed = {
            os.path.join(self.root, self.archives[sha256]): os.path.join(other.root, archive)
            for sha256, archive in other.archives.items()
            if sha256 in self.archives
        }
        return SplitFiles(self.root, self._read_names, self.archives, renamed)

    def paths(self) -> Iterator[list[bytes]]:
        """Yield the absolute path of each clip, in blocks."""
        prefix = os.fsencode(os.path.join(self.root, ""))
        for names in self._read_names():
            text = b"\n".join(names)  # a test per block is faster than one per name
            if CACHED in text:
                names = [self._find_source(name) or prefix + name for name in names]
            else:
                names = [prefix + name for name in names]
            if self._renamed:
                names = [_rename(path, self._renamed) for path in names]
            if any(part in text for part in UNUSUAL):
                names = list(map(os.path.normpath, names))
            yield names if is_url(self.root) else list(map(self._follow, names))

    def _follow(self, path: bytes) -> bytes:
        """Follow links to the folder of a file, and the file or archive if it is one."""
        folder, _, file = path.rpartition(b"/")
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder), _find_links(folder)
        real, links = self._folders[folder]
        if file in links:
            return links[file]
        if links and b":" in file:  # ARCHIVE:OFFSET:LENGTH
            for archive, span in _list_spans(file):
                if archive in links:
                    return links[archive] + span
        return path if real == folder else os.path.join(real, file)

    @cached_property
    def hashes(self) -> np.ndarray:
        """Hashes of the paths, sorted, `[clips]` int64."""
        blocks = [np.fromiter(map(hash, paths), np.int64) for paths in self.paths()]
        return np.sort(np.concatenate([np.zeros(0, np.int64), *blocks]))

    def _find_source(self, name: bytes) -> bytes | None:
        """Return the path that a clip had before it was cached; None if it is unknown."""
        shard, _, place = name.partition(CACHED)
        root, entry = self._source_roots.get(shard.rpartition(b"-")[0]), place.partition(b"/")[2]
        return root + entry if root and entry else None

    @cached_property
    def _source_roots(self) -> dict[bytes, bytes]:
        """Roots of the manifests that a cache was made of, by split."""
        try:
            splits = parse_json(Path(self.root, "cache.json").read_bytes())["splits"]
            roots = {split: values.get("root") for split, values in splits.items()}
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return {}
        return {
            os.fsencode(split): os.fsencode(os.path.join(_resolve(root), ""))
            for split, root in roots.items()
            if root
        }


def _resolve(root: str) -> str:
    return root.rstrip("/") if is_url(root) else os.path.realpath(root)


def _list_spans(file: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the archive that a name may begin with, and the rest."""
    parts = file.split(b":")
    for number in range(1, len(parts)):
        yield b":".join(parts[:number]), b":" + b":".join(parts[number:])


def _find_links(folder: bytes) -> dict[bytes, bytes]:
    """Return the files of a folder that are symbolic links, and where they lead."""
    try:
        with os.scandir(folder) as entries:
            links = [entry.name for entry in entries if entry.is_symlink()]
    except OSError:
        return {}  # of an archive, or gone
    return {name: os.path.realpath(os.path.join(folder, name)) for name in links}


def _rename(path: bytes, renamed: Mapping[str, str]) -> bytes:
    """Return the path of a clip in another copy of its archive; other paths as they are."""
    text = os.fsdecode(path)
    for archive in possible_containers(text):
        if archive in renamed:
            return os.fsencode(renamed[archive] + text[len(archive) :])
    return path


def find_shared(first: SplitFiles, second: SplitFiles) -> list[str]:
    """Return the absolute paths of the clips that are in both splits, sorted."""
    second = second.rename_copies(first)
    if not len(second.hashes):
        return []
    places = np.searchsorted(second.hashes, first.hashes)
    equal = second.hashes.take(places, mode="clip") == first.hashes
    wanted = set(first.hashes[equal].tolist())
    if not wanted:
        return []
    here, there = (
        {path for paths in split.paths() for path in paths if hash(path) in wanted}
        for split in (first, second)
    )
    return sorted(map(os.fsdecode, here & there))


def check_held_out(folder: Path, others: Iterable[str] = (), train: str = TRAIN) -> None:
    """Compare the clips to train on with the held-out splits in its folder.

    Args:
        folder: the data folder.
        others: names of further held-out splits.
        train: name of the split to train on.

    Raises:
        ValueError: they share a clip.
    """
    manifest, files = folder / f"{train}.tsv", None
    splits = {path.stem for path in folder.glob("*.tsv") if is_held_out(path.stem)}
    for split in sorted(splits.union(others) - {train}):
        held_out = folder / f"{split}.tsv"
        if not held_out.is_file():
            continue
        files = files or SplitFiles.of_manifest(manifest)
        shared = find_shared(files, SplitFiles.of_manifest(held_out))
        if shared:
            raise ValueError(
                f"{manifest} has {len(shared)} of the clips that {held_out} holds out, for example "
                f"{shared[0]!r}; run eat manifest again so that each clip is in one of them, or "
                f"remove {held_out}"
            )
