"""An official list of clips, such as AudioSet's: how much of it a copy of the data has."""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
from collections.abc import Iterable
from typing import NamedTuple

from ..data.tables import TableError, read_lines

# File names of AudioSet's clips: id, often with Y before it, and the times of the segment.
_SEGMENT = re.compile(r"Y?([\w-]{11})(?:_[\d.]+){0,2}", re.A)


class OfficialList(NamedTuple):
    """A list of clips.

    Attributes:
        path: the file.
        ids: of the clips, without repetition, in its order.
    """

    path: str
    ids: list[str]

    @property
    def sha256(self) -> str:
        """Checksum of the sorted ids, separated by line feeds."""
        return hashlib.sha256("\n".join(sorted(self.ids)).encode()).hexdigest()

    def find_missing(self, names: Iterable[str]) -> tuple[list[str], int]:
        """Compare the list with the names of clips.

        A name has an id if it is the id, or its last part is, or that without its ending; or if
        that is an id of AudioSet with ``Y`` before it or times behind it: ``Yb0RFKhbpFJA_30_40``.

        Returns:
            The ids that no clip has, and the number of clips without an id of the list.
        """
        known, found, others = set(self.ids), set(), 0
        for name in names:
            file = posixpath.basename(name)
            stem = posixpath.splitext(file)[0]
            segment = _SEGMENT.fullmatch(stem)
            keys = (name, file, stem, segment[1] if segment else name)
            own = next((key for key in keys if key in known), None)
            others += own is None
            found.add(own)
        return [clip for clip in self.ids if clip not in found], others


def read_official(path: str | os.PathLike[str]) -> OfficialList:
    """Read a list: an id is a line, up to its first comma or tab; ``#`` begins a comment.

    So ``eval_segments.csv`` of AudioSet can be given as it is.

    Raises:
        TableError: the file cannot be read, or has no ids.
    """
    ids: dict[str, None] = {}
    for _, line in read_lines(path):
        name = re.split("[,\t]", line, maxsplit=1)[0].strip()
        if name and not name.startswith("#"):
            ids[name] = None
    if not ids:
        raise TableError(f"{path}: no clips; expected an id in each line")
    return OfficialList(os.fspath(path), list(ids))
