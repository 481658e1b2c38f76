"""Roots of manifests: folders of this machine, and those of stores, as ``s3://bucket/clips``."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Union

_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


class Url(str):
    """The address of a folder or file in a store; ``url / name`` is that of a file below it."""

    __slots__ = ()

    def __truediv__(self, name: str | os.PathLike[str]) -> Url:
        return Url(f"{self}/{os.fspath(name)}")


Root = Union[Path, Url]


def is_url(path: str) -> bool:
    """Whether a path is an address in a store."""
    return "://" in path and _URL.match(path) is not None


def parse_root(text: str) -> Root:
    """Return the root that a text names, a path or an address without a slash at the end.

    Raises:
        ValueError: the address holds credentials, which would be stored, or no place in the store.
    """
    if not is_url(text):
        return Path(text)
    protocol, _, place = text.partition("://")
    if "@" in place.partition("/")[0] or "?" in place or "#" in place:
        raise ValueError(
            f"an address of {protocol}:// must not hold credentials, '?' or '#': manifests store "
            "it. Give credentials by the environment or files of the store's library, for example "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    place = place.rstrip("/")
    if not place:
        raise ValueError(f"{text} names no bucket, host or folder; expected as s3://bucket/folder")
    return Url(f"{protocol.lower()}://{place}")
