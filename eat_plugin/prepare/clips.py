"""What `eat manifest` finds below a folder: audio files, and clips in archives and HDF5 files.

Layouts see a clip in an archive as ``archive.zip/member``, as if the archive were a folder; a
manifest has ``archive.zip:OFFSET:LENGTH`` for it.

In this file:
    Found         the clips, by the names that layouts see
    find_clips    looks for them
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..cli import progress
from ..data.containers import Fingerprint, find_containers, take_fingerprint
from ..data.entries import TAR, is_hdf5
from ..data.manifest import check_name
from .archive_index import Contents
from .find import endings_of, find_files, list_all, sort_out

ENDINGS_SHOWN = 6
COMPRESSED_TARS = ("tgz", "tar.gz", "tbz2", "tar.bz2", "txz", "tar.xz", "tar.zst")


@dataclass
class Found:
    """What there is below a folder.

    Attributes:
        names: Clips as layouts see them, sorted.
        rejected: Paths that cannot be used, and why.
        texts: Texts beside clips in archives, by the names that layouts would see.
        fingerprints: Of archives and HDF5 files, by their paths below the folder.
        others: Numbers of all other files, by their endings.
    """

    names: list[str] = field(default_factory=list)
    rejected: list[tuple[str, str]] = field(default_factory=list)
    texts: dict[str, bytes] = field(default_factory=dict)
    fingerprints: dict[str, Fingerprint] = field(default_factory=dict)
    others: Counter[str] = field(default_factory=Counter)
    _entries: dict[str, str] = field(default_factory=dict)
    _shown: dict[str, str] = field(default_factory=dict)

    def entry(self, name: str) -> str:
        """Return what a manifest calls a clip, given the name that layouts see."""
        return self._entries.get(name, name)

    def shown(self, name: str) -> str:
        """Return what a user is shown for it: in a zip or tar ``archive.zip:member``."""
        return self._shown.get(name, name)

    def tell_others(self) -> str:
        """Say how many other files there are, the most frequent endings first; empty for none."""
        counts = self.others.most_common(ENDINGS_SHOWN)
        parts = [f"{number} {ending or 'without an ending'}" for ending, number in counts]
        return ", ".join(parts) + (", ..." if len(self.others) > ENDINGS_SHOWN else "")

    def add(self, archive: str, contents: Contents) -> None:
        """Add the clips of an archive, given its path below the folder."""
        if contents.fingerprint is not None:
            self.fingerprints[archive] = contents.fingerprint
        for member, place in contents.clips.items():
            name = f"{archive}/{member}"
            try:
                check_name(archive + place)
            except ValueError as error:
                self.rejected.append((name, str(error)))
                continue
            self.names.append(name)
            if not is_hdf5(archive):
                self._entries[name] = archive + place
                self._shown[name] = f"{archive}:{member}"
        between = "/" if is_hdf5(archive) else ":"
        for member, reason in contents.rejected:
            self.rejected.append((f"{archive}{between}{member}" if member else archive, reason))
        self.texts.update((f"{archive}/{name}", text) for name, text in contents.texts.items())

    def take_fingerprints(
        self, root: Path, entries: Iterable[str], checksum: bool
    ) -> dict[str, Fingerprint]:
        """Return the fingerprint of each archive and HDF5 file that entries of a manifest are in.

        Those that were not found here, as a table's, are taken.

        Raises:
            OSError: A file cannot be read.
        """
        used = find_containers(root, entries)
        for name in used:
            if name not in self.fingerprints:
                self.fingerprints[name] = take_fingerprint(root / name, checksum)
        return {name: self.fingerprints[name] for name in used}


def find_clips(
    root: Path,
    extensions: set[str],
    containers: tuple[str, ...],
    text_endings: tuple[str, ...],
    checksum: bool,
    workers: int,
    kind: str = "audio",
) -> Found:
    """Look for clips.

    Args:
        root: The folder.
        extensions: Endings of audio files, lower case, without the dot.
        containers: Those of files to look into, as ``zip`` and ``h5``.
        text_endings: Those of texts in archives to read.
        checksum: Take the SHA-256 of archives.
        workers: Processes that look into archives.
        kind: What an error calls that which is looked for.

    Returns:
        The clips, and what cannot be used.

    Raises:
        ValueError: There is neither.
        OSError: The folder cannot be listed.
    """
    compressed = COMPRESSED_TARS if TAR in containers else ()
    wanted = extensions.union(containers, compressed)
    found = Found()
    files = find_files(root, wanted, found.others)
    paths, found.rejected = sort_out(progress(files, "finding", "file"))
    inside = []
    for path in paths:
        endings = set(endings_of(path))
        if endings & extensions:
            found.names.append(path)
        elif endings & set(compressed):
            found.rejected.append((path, "is compressed as a whole; decompress it"))
        else:
            inside.append(path)
    listed: Iterable[Contents] = list_all(
        [os.path.join(root, path) for path in inside],
        extensions,
        set(text_endings),
        checksum,
        workers,
    )
    if inside:
        listed = progress(listed, "listing archives", "archive", len(inside))
    for contents, path in zip(listed, inside):  # in this order, or the bar does not end
        found.add(path, contents)
    found.names.sort()
    if not found.names and not found.rejected:
        instead = f"; there are {found.tell_others()}" if found.others else ""
        raise ValueError(
            f"no {kind} ({', '.join(sorted(extensions))}) found under {root}{instead}"
        )
    return found
