"""Indexes of WebDataset shards: ``shard.idx`` next to ``shard.tar``, as DALI's ``wds2idx`` writes.

The first line is a version and the number of samples. Each other line is a sample: for each of its
members the ending, the first byte, the number of bytes and, from v1.2 on, the name. Hidden files
are left out.
"""

from __future__ import annotations

import posixpath
import re
from typing import NamedTuple

from ..data.clip import ClipError
from ..data.files import open_whole
from ..data.fingerprints import Fingerprint

INDEX = "idx"  # ending
_HEAD = re.compile(rb"v1\.[0-9]+ [0-9]+\s*")
_MEMBER = re.compile(rb"\S+ ([0-9]{1,18}) ([0-9]{1,18})(?= |$)")
_META = re.compile(r"(?:.*/)?__[^/]*__(?:$|/)")  # members that are not of a sample


class Located(NamedTuple):
    """A file: its path or address, and its fingerprint in a store."""

    path: str
    stored: Fingerprint | None


def key_of(name: str) -> str | None:
    """Return the key of the sample that a member is of: its path up to the first dot, or None."""
    folder, file = posixpath.split(name)
    key, dot, _ = file.partition(".")
    return posixpath.join(folder, key) if key and dot and not _META.match(name) else None


def check_index(shard: str, index: Located, members: set[tuple[int, int]]) -> None:
    """Compare an index with the first byte and the number of bytes of each member of its shard.

    Raises:
        ValueError: they differ, or the index cannot be read.
        UnreachableError: its store cannot be used.
    """
    try:
        with open_whole(index.path, index.stored) as file:
            head, *lines = file.read().splitlines() or [b""]
    except ClipError as error:
        raise ValueError(f"{index.path}: {error}") from error
    if _HEAD.fullmatch(head) is None:
        raise ValueError(f"{index.path}: its first line is no version, as 'v1.2 100', of an index")
    listed = {(int(a), int(b)) for line in lines for a, b in _MEMBER.findall(line)}
    if listed != members:
        first, length = min(listed ^ members)
        where = "the index alone" if (first, length) in listed else "the shard alone"
        raise ValueError(
            f"{shard} does not fit its index {index.path}: {where} has a member of {length} bytes "
            f"at byte {first}; the shard has changed: make the index again, or remove it"
        )
