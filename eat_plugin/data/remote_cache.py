"""A cache of parts of remote files, in a folder of this machine, for any number of processes.

Each part is a file of its own, complete or absent: written under another name, then renamed. There
are no locks. Whoever writes also removes, now and then, the files that were used longest ago.
"""

from __future__ import annotations

import errno
import hashlib
import os
import random
import secrets
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Union

FOLDER, SIZE = "EAT_REMOTE_CACHE", "EAT_REMOTE_CACHE_GB"  # environment variables
MOST_BYTES = 50 * 10**9  # of the cache by default, and half of what is free on its disk
SCANS = 64  # while as much is written as the cache holds
KEPT = 0.9  # share of the limit that a scan leaves
TOUCHED = 600.0  # seconds; the time of use is not more exact than this
ABANDONED = 3600.0  # seconds; an older draft is of a killed process
DRAFT = ".tmp"
Block = Union[bytes, bytearray, memoryview]
_draws = random.Random()  # of its own: training depends on the others


class Cache:
    """A folder of parts of files, named by their keys.

    Args:
        folder: made if it does not exist; it must belong to this user.
        most: bytes that it may hold; None for half of what is free, ``MOST_BYTES`` at most.

    Raises:
        OSError: the folder cannot be made, or belongs to somebody else, who could change the data.
    """

    def __init__(self, folder: Path, most: int | None = None) -> None:
        self.folder, self.most = folder, most
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = folder.stat().st_uid
        if hasattr(os, "getuid") and owner != os.getuid():
            text = f"belongs to another user; set {FOLDER} to a folder of your own"
            raise OSError(errno.EPERM, text, os.fspath(folder))

    def open(self, key: str, size: int | None) -> int | None:
        """Return a descriptor of the part of a key; None if there is none of ``size`` bytes.

        A ``size`` of None is any; the caller checks that the part is whole.
        """
        try:
            descriptor = os.open(self._path(key), os.O_RDONLY)
        except FileNotFoundError:
            return None
        status = os.fstat(descriptor)
        if size is not None and status.st_size != size:  # cut off by a crash of the machine
            os.close(descriptor)
            return None
        if time.time() - status.st_mtime > TOUCHED:
            with suppress(OSError):
                os.utime(self._path(key))
        return descriptor

    def add(self, key: str, blocks: Callable[[], Iterator[Block]]) -> int:
        """Write the part of a key, and return a descriptor of it.

        Args:
            key: of any length.
            blocks: returns the bytes; called again if the disk was full and older parts had to go.

        Raises:
            OSError: the part cannot be written.
        """
        try:
            return self._add(key, blocks)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
        self.remove_oldest(share=0.5)
        return self._add(key, blocks)

    def _add(self, key: str, blocks: Callable[[], Iterator[Block]]) -> int:
        path = self._path(key)
        draft = os.path.join(os.path.dirname(path), f"{secrets.token_hex(8)}{DRAFT}")
        try:
            descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        except FileNotFoundError:
            for folder in (self.folder, os.path.dirname(path)):
                os.makedirs(folder, mode=0o700, exist_ok=True)
            descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        size = 0
        try:
            for block in blocks():
                view = memoryview(block)
                while view:
                    written = os.write(descriptor, view)
                    view, size = view[written:], size + written
            os.replace(draft, path)
        except BaseException:
            os.close(descriptor)
            with suppress(OSError):
                os.unlink(draft)
            raise
        os.lseek(descriptor, 0, os.SEEK_SET)
        if _draws.random() < SCANS * size / max(1, self.limit()):
            self.remove_oldest()
        return descriptor

    def limit(self, held: int = 0) -> int:
        """Return the bytes that the cache may hold; ``held`` is what it holds already."""
        if self.most is not None:
            return self.most
        space = os.statvfs(self.folder)
        return min(MOST_BYTES, (space.f_bavail * space.f_frsize + held) // 2)

    def remove_oldest(self, share: float = 1.0) -> None:
        """Remove the parts used longest ago, and old drafts, if the cache is above its limit.

        Args:
            share: of what it holds at most; below 1 when the disk is full.
        """
        parts, held = [], 0
        for path, status in self._walk():
            if path.endswith(DRAFT):
                if time.time() - status.st_mtime > ABANDONED:
                    with suppress(OSError):
                        os.unlink(path)
                continue
            parts.append((status.st_mtime_ns, status.st_size, path))
            held += status.st_size
        limit = self.limit(held)
        most = min(share * held, held if held <= limit else KEPT * limit)
        for _, size, path in sorted(parts):
            if held <= most:
                break
            with suppress(OSError):  # another process was faster
                os.unlink(path)
            held -= size

    def _walk(self) -> Iterator[tuple[str, os.stat_result]]:
        for folder in os.scandir(self.folder):
            with suppress(OSError):
                for entry in os.scandir(folder.path):
                    with suppress(OSError):
                        status = entry.stat(follow_symlinks=False)
                        if stat.S_ISREG(status.st_mode):
                            yield entry.path, status

    def _path(self, key: str) -> str:
        name = hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
        return os.path.join(self.folder, name[:2], name[2:])


def find_cache() -> Cache:
    """Return the cache that the environment names, by default in the folder of temporary files.

    Raises:
        ValueError: its size is not a positive number.
        OSError: as ``Cache``.
    """
    folder = os.environ.get(FOLDER)
    if folder is None:
        user = os.getuid() if hasattr(os, "getuid") else 0
        folder = os.path.join(tempfile.gettempdir(), f"eat-remote-{user}")
    return _make_cache(os.path.abspath(folder), read_number(SIZE, None))


@lru_cache(maxsize=4)
def _make_cache(folder: str, gigabytes: float | None) -> Cache:
    """Make a cache, which checks its folder once."""
    return Cache(Path(folder), None if gigabytes is None else int(gigabytes * 1e9))


def read_number(name: str, default: float | None) -> float | None:
    """Return a number of the environment, 0 or more.

    Raises:
        ValueError: it is no such number.
    """
    text = os.environ.get(name)
    if text is None:
        return default
    try:
        value = float(text)
        if not 0 <= value < 1e9:
            raise ValueError
    except ValueError:
        raise ValueError(f"{name} is {text!r}, expected a number of 0 or more") from None
    return value
