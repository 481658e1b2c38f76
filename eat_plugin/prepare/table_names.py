"""The files that the names in a table mean.

A name is a file of that name; or of the same characters in another Unicode form, as macOS stores
them; or of that name and an ending, as in the tables of FSD50K. The folders are listed once each.
"""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable
from contextlib import suppress
from functools import cached_property

from ..data.urls import Root, Url

MOST_FOLDERS = 50  # below the root, searched for a file that is not where the table says


class _Folder:
    """Names in a folder."""

    def __init__(self, endings: Collection[str]) -> None:
        self.files, self.folders = set[str](), set[str]()
        self._endings = endings

    def scan(self, path: str) -> _Folder:
        """Add the names in a folder of this machine; none if it cannot be listed."""
        with suppress(OSError, ValueError), os.scandir(path) as listing:
            for entry in listing:
                (self.folders if _is_folder(entry) else self.files).add(entry.name)
        return self

    def stem(self, name: str) -> str:
        """Return a name without a known ending."""
        stem, ending = os.path.splitext(name)
        return stem if ending[1:].lower() in self._endings else name

    @cached_property
    def forms(self) -> dict[str, list[str]]:
        """The files of each name in its composed form (NFC)."""
        return _group((compose(name), name) for name in self.files)

    @cached_property
    def stems(self) -> dict[str, list[str]]:
        """The files of each name without a known ending."""
        return _group((compose(self.stem(name)), name) for name in self.files)

    @cached_property
    def parents(self) -> dict[str, list[str]]:
        """The folders, and the files that may hold clips, of each name in its composed form."""
        return _group((compose(name), name) for name in (*self.folders, *self.files))

    @cached_property
    def similar(self) -> dict[str, list[str]]:
        """The files of each name without ending and case."""
        return _group((compose(self.stem(name)).casefold(), name) for name in self.files)


def compose(name: str) -> str:
    """Return a name in its composed Unicode form (NFC)."""
    return unicodedata.normalize("NFC", name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # for example a link to itself
        return False


def _group(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for key, name in pairs:
        found[key].append(name)
    return found


class TableNames:
    """Finds the files that the names in a table mean.

    Args:
        root: folder or address that the names are relative to.
        endings: of files, lower case, without the dot.
        stored: the files below an address.
    """

    def __init__(self, root: Root, endings: Collection[str], stored: Iterable[str] = ()) -> None:
        self._root = root
        self._endings = endings
        self._listed: dict[str, _Folder] = {}
        for path in stored:
            self._add(path)
        self._parents: dict[str, str] = {"": ""}

    def find(self, name: str) -> tuple[str, str]:
        """Find a file.

        Returns:
            Its path below the root, as the file system has it; and which file may be meant, if
            there is none of that name: empty if nothing is similar.

        Raises:
            ValueError: several files may be meant.
        """
        folder, slash, leaf = name.rpartition("/")
        parent = self._find_parent(folder)
        path, here = f"{parent}{slash}{leaf}", self._list(parent)
        if leaf in here.files or not (here.files or here.folders):
            return path, ""
        for known in (here.forms, here.stems):
            found = _choose(name, known.get(compose(leaf), []))
            if found is not None:
                return f"{parent}{slash}{found}", ""
        return path, self._suggest(parent, leaf)

    def _find_parent(self, folder: str) -> str:
        """Return the path of a folder, or of a file that holds clips, as the file system has it."""
        if folder not in self._parents:
            above, slash, leaf = folder.rpartition("/")
            above = self._find_parent(above)
            here = self._list(above)
            if leaf not in here.folders | here.files:
                leaf = _choose(folder, here.parents.get(compose(leaf), [])) or leaf
            self._parents[folder] = f"{above}{slash}{leaf}"
        return self._parents[folder]

    def _add(self, path: str) -> None:
        folder, _, leaf = path.rpartition("/")
        is_new = folder not in self._listed
        self._listed.setdefault(folder, _Folder(self._endings)).files.add(leaf)
        while is_new and folder:
            folder, _, leaf = folder.rpartition("/")
            is_new = folder not in self._listed
            self._listed.setdefault(folder, _Folder(self._endings)).folders.add(leaf)

    def _list(self, folder: str) -> _Folder:
        if folder not in self._listed:
            listed = _Folder(self._endings)
            if not isinstance(self._root, Url):
                listed.scan(os.path.join(self._root, folder))
            self._listed[folder] = listed
        return self._listed[folder]

    def _suggest(self, parent: str, leaf: str) -> str:
        key = compose(self._list(parent).stem(leaf)).casefold()
        below = sorted(self._list("").folders)[:MOST_FOLDERS]
        for folder in (parent, *below):
            for found in self._list(folder).similar.get(key, [])[:1]:
                return f"there is {os.path.join(folder, found)!r}"
        return ""


def _choose(name: str, found: list[str]) -> str | None:
    """Return the only one of the files found, or None if there are none."""
    if len(found) > 1:
        shown = " or ".join(map(ascii, sorted(found)))
        raise ValueError(f"{name!r} may be {shown}; write the whole name of the file")
    return found[0] if found else None
