"""Clips below a folder or an address: audio files or images, and those in archives and HDF5 files.

Layouts see a member of an archive as ``archive.zip/member``, as if the archive were a folder; its
entry in a manifest is ``archive.zip:OFFSET:LENGTH``.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ..data.clip import ClipError
from ..data.entries import COMPRESSED_TARS, PARQUET, TAR, Clip, is_hdf5
from ..data.fingerprints import Fingerprint
from ..data.manifest import check_name
from ..data.sources import probe_clip
from ..data.urls import Root, Url
from .archive_index import index_archive
from .archive_members import Contents
from .processes import Progress, try_in_processes
from .shard_index import INDEX, Located
from .work import AGAIN, Work

AUDIO_ENDINGS = ("wav", "flac", "ogg", "mp3")
CHUNK = 64  # headers that a process reads per task
ENDINGS_SHOWN = 6
WHOLE = Work()


@dataclass
class Found:
    """The clips below a folder, with the names that layouts see."""

    names: list[str] = field(default_factory=list)  # sorted
    rejected: list[tuple[str, str]] = field(default_factory=list)  # paths, each with the reason
    texts: dict[str, bytes] = field(default_factory=dict)  # of text members of archives
    # Of archives and HDF5 files; in a store, of all files.
    fingerprints: dict[str, Fingerprint] = field(default_factory=dict)
    others: Counter[str] = field(default_factory=Counter)  # numbers of other files by ending
    samples: dict[str, int] = field(default_factory=dict)  # keys of WebDataset in each archive
    _members: dict[str, tuple[str, str]] = field(default_factory=dict)

    def entry(self, name: str) -> str:
        """Return the manifest's entry of a clip."""
        return self._members.get(name, (name,))[0]

    def shown(self, name: str) -> str:
        """Return the name of a clip in reports; in a zip or tar ``archive.zip:member``."""
        return self._members.get(name, (name,))[-1]

    def list_others(self) -> str:
        """List the numbers of other files by ending, the most frequent first."""
        counts = self.others.most_common(ENDINGS_SHOWN)
        parts = [f"{number} {ending or 'without an ending'}" for ending, number in counts]
        return ", ".join(parts) + (", ..." if len(self.others) > ENDINGS_SHOWN else "")

    def add(self, archive: str, contents: Contents) -> None:
        """Add the clips of an archive, given its path below the folder."""
        if contents.fingerprint is not None:
            self.fingerprints[archive] = contents.fingerprint
        self.samples[archive] = contents.samples
        for member, place in contents.clips.items():
            name = f"{archive}/{member}"
            try:
                check_name(archive + place)
            except ValueError as error:
                self.rejected.append((name, str(error)))
                continue
            self.names.append(name)
            if not is_hdf5(archive):
                self._members[name] = archive + place, f"{archive}:{member}"
        if not contents.clips and not contents.rejected:
            self.rejected.append((archive, "holds no clip: no member has a listed ending (--ext)"))
        separator = "/" if is_hdf5(archive) else ":"
        for member, reason in contents.rejected:
            self.rejected.append((f"{archive}{separator}{member}" if member else archive, reason))
        self.texts.update((f"{archive}/{name}", text) for name, text in contents.texts.items())


def find_clips(
    root: Root,
    endings: set[str],
    containers: tuple[str, ...],
    text_endings: tuple[str, ...],
    checksum: bool,
    workers: int,
    progress: Progress,
    kind: str = "audio",
    work: Work = WHOLE,
    only: str = "",
    columns: tuple[str | None, str | None] = (None, None),
) -> Found:
    """Find the clips below a folder or an address.

    Endings are in lower case, without the dot: those of clips, of archives and HDF5 files to list,
    and of text members of archives to read. ``kind`` names the clips in errors. ``only`` is a
    regular expression of the names of archives to list; ``columns`` see ``index_archive``. It is an
    error if there are no clips, not even unusable ones, unless ``work`` is on a part of the files.
    """
    compressed = COMPRESSED_TARS if TAR in containers else ()
    found = Found()
    wanted = endings.union(containers, compressed, [INDEX] if text_endings else [])
    if isinstance(root, Url):
        files = find_stored(root, wanted, found)
    else:
        files = find_files(root, wanted, found.others)
    indexes: list[str] = []
    here = _take(progress(files, "finding", "file"), work, indexes)
    archives = _sort_files(here, endings, set(compressed), found)
    archives = [name for name in archives if re.search(only, posixpath.basename(name))]
    located = {
        name: Located(os.path.join(root, name), found.fingerprints.get(name))
        for name in (*archives, *indexes)
    }
    paths = [
        (located[name], located.get(f"{name.rpartition('.')[0]}.{INDEX}")) for name in archives
    ]
    index = partial(
        _index, endings=endings, text_endings=set(text_endings), checksum=checksum, columns=columns
    )
    results: Iterable[Any] = work.map(
        "archive", index, paths, archives, workers, 1, decode=Contents.from_json
    )
    if archives:
        results = progress(results, "listing archives", "archive", len(archives))
    for contents, name in zip(results, archives):  # in this order, or the bar does not finish
        if found.fingerprints.get(name, contents.fingerprint) != contents.fingerprint:
            raise ValueError(f"{root}: {name} has changed since it was listed; {AGAIN}")
        found.add(name, contents)
    found.names.sort()
    if work.is_whole and not found.names and not found.rejected:
        others = f"; there are {found.list_others()}" if found.others else ""
        if PARQUET in found.others:
            others += f"; for sounds in parquet files add --layout {PARQUET}"
        searched = ", ".join(sorted(endings or containers))
        raise ValueError(f"no {kind} ({searched}) found under {root}{others}")
    return found


def _take(
    files: Iterable[tuple[str, str | None]], work: Work, indexes: list[str]
) -> Iterator[tuple[str, str | None]]:
    """Yield the files of a part of the work; collect indexes of shards apart."""
    for name, reason in files:
        if name.endswith(f".{INDEX}"):
            indexes.append(name)
        elif work.takes(name):
            yield name, reason


def _sort_files(
    files: Iterable[tuple[str, str | None]], endings: set[str], compressed: set[str], found: Found
) -> list[str]:
    """Add the clips among files, and those that cannot be used; return the archives."""
    archives = []
    for name, reason in sorted(files, key=lambda file: file[0]):
        name_endings = set(endings_of(name))
        try:
            check_name(name)
        except ValueError as error:
            reason = reason or str(error)
        if reason is not None:
            found.rejected.append((name, reason))
        elif name_endings & endings:
            found.names.append(name)
        elif name_endings & compressed:
            found.rejected.append((name, "is compressed as a whole; decompress it"))
        else:
            archives.append(name)
    return archives


def _index(archive: tuple[Located, Located | None], **options: Any) -> Contents:
    (path, stored), index = archive
    return index_archive(path, stored=stored, index=index, **options)


def find_files(
    root: Path, endings: set[str], others: Counter[str] | None = None
) -> Iterator[tuple[str, str | None]]:
    """Walk a folder tree; every folder is visited once, links to folders last.

    Yields the path below ``root`` of each file with one of the endings (lower case, without the
    dot, such as ``wav``, ``tar.gz``) and None; or of a folder that cannot be listed, and the
    reason. ``others`` counts all other files by their last endings.
    """
    folders, links, seen = deque([""]), deque[str](), set()
    while folders or links:
        folder = folders.popleft() if folders else links.popleft()
        try:
            status = os.stat(root / folder)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(root / folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            if not folder:
                raise
            yield folder, f"cannot be listed: {error.strerror}"
            continue
        for entry in entries:
            name = f"{folder}{entry.name}"
            if _is_folder(entry):
                (links if entry.is_symlink() else folders).append(f"{name}/")
            elif not endings.isdisjoint(endings_of(entry.name)):
                yield name, None
            elif others is not None:
                others[(endings_of(entry.name) or [""])[0]] += 1


def find_stored(root: Url, endings: set[str], found: Found) -> Iterator[tuple[str, str | None]]:
    """Do the same below an address, with the fingerprints of the files."""
    from ..data.stores import list_files, stored_fingerprint, take_all  # needs an optional library

    asked = []
    for name, info in list_files(root).items():
        if endings.isdisjoint(endings_of(posixpath.basename(name))):
            found.others[(endings_of(posixpath.basename(name)) or [""])[0]] += 1
            continue
        stored = stored_fingerprint(info, listed=True)
        if stored is None:
            asked.append(name)
            continue
        found.fingerprints[name] = stored
        yield name, None
    for name, answer in zip(asked, take_all(root / name for name in asked)):
        if isinstance(answer, ClipError):
            yield name, str(answer)
        else:
            found.fingerprints[name] = answer
            yield name, None


def endings_of(name: str) -> list[str]:
    """Return the last ending of a file name, and the last two joined; lower case, no dot first."""
    _, *parts = name.lower().lstrip(".").rsplit(".", 2)
    return [".".join(parts[-count:]) for count in range(1, len(parts) + 1)]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # for example a link to itself
        return False


def probe_all(
    clips: Sequence[Clip], workers: int, probe: Callable[[Any], tuple[int, int]] = probe_clip
) -> Iterator[tuple[int, int] | str]:
    """Yield the result of ``probe`` per clip, in order, or the message of its ClipError."""
    # Threads would not help: soundfile's Python code takes most of the time.
    return try_in_processes(probe, [*clips], workers, CHUNK)
