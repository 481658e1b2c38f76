"""Outputs of `eat features`: a folder of .npy, one .npz or one HDF5 file.

Arrays are written in parts, so that their size does not matter, and get their name when complete.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any
from zipfile import ZipFile

import numpy as np

from eat_plugin.cli.outputs import check_file, check_folder
from eat_plugin.data.clip import ClipError
from eat_plugin.data.entries import HDF5_ENDINGS, find_part
from eat_plugin.data.files import drafted, replacing, reserve
from eat_plugin.data.hdf5 import require_h5py

HDF5 = tuple(f".{ending}" for ending in HDF5_ENDINGS)
FILES = (".npz", *HDF5)
TIMES = ".times"
TABLES = 1 << 16  # bytes, more than HDF5 adds for an array and its times


class Store:
    """Writes one array after the other: begin, then commit; the next begin discards the draft."""

    _open: tuple[str, np.memmap] | None = None  # key and array

    def __init__(self, target: Any, scratch: str) -> None:
        self._target = target
        self._draft = Path(scratch, "part.npy")
        self._folder = Path(scratch).parent

    def key(self, name: str) -> str:
        """Return the name of the array of a clip."""
        return name

    def times_key(self, key: str) -> str:
        """Return the name of the times of an array."""
        return f"{key}{TIMES}"

    def begin(self, key: str, shape: tuple[int, ...]) -> np.ndarray:
        """Open a new array, float32, for assignment to parts of it."""
        self._draft.unlink(missing_ok=True)
        array = np.lib.format.open_memmap(self._draft, "w+", np.float32, shape)
        reserve(self._draft, self._folder)
        self._open = key, array
        return array

    def commit(self, times: np.ndarray | None) -> None:
        """Store the open array and its times."""
        assert self._open is not None
        key, array = self._open
        array.flush()
        self._save(key, times)
        self._open = None

    def _save(self, key: str, times: np.ndarray | None) -> None:
        raise NotImplementedError


class _Folder(Store):
    def key(self, name: str) -> str:
        if find_part(name) is not None:  # archive.zip:OFFSET:LENGTH, or a row
            return f"{name}.npy"
        return str(PurePosixPath(name).with_suffix(".npy"))

    def times_key(self, key: str) -> str:
        return str(PurePosixPath(key).with_suffix(f"{TIMES}.npy"))

    def _save(self, key: str, times: np.ndarray | None) -> None:
        path = self._target / key
        path.parent.mkdir(parents=True, exist_ok=True)
        times_path = self._target / self.times_key(key)
        if times is None:
            times_path.unlink(missing_ok=True)  # of an earlier call
        else:
            with replacing(times_path) as file:
                np.save(file, times)
        with drafted(path) as draft:
            shutil.move(self._draft, draft)


class _Npz(Store):
    def _save(self, key: str, times: np.ndarray | None) -> None:
        self._target.write(self._draft, f"{key}.npy")
        if times is not None:
            with self._target.open(f"{self.times_key(key)}.npy", "w") as file:
                np.save(file, times)


class _Hdf5(Store):
    def _save(self, key: str, times: np.ndarray | None) -> None:
        # HDF5 may end the process if it cannot write its own tables.
        room = self._draft.with_name("room")
        with open(room, "wb") as file:
            file.truncate(self._draft.stat().st_size + TABLES)
        reserve(room, self._folder)
        room.unlink()
        self._target[key] = np.load(self._draft, mmap_mode="r")
        if times is not None:
            self._target[self.times_key(key)] = times


def check_out(out: Path) -> None:
    """Raise ValueError unless features can be written to a path."""
    if out.suffix.lower() in FILES:
        check_file(out, FILES, "a file of arrays")
    else:
        check_folder(out, f"a folder, or a file that ends in {', '.join(FILES)}")


@contextmanager
def open_store(out: Path) -> Iterator[Store]:
    """Open a ``.npz`` or ``.h5`` file, which is replaced on success, or a folder.

    The path has passed ``check_out``.

    Raises:
        ValueError: h5py is not installed.
    """
    is_file = out.suffix.lower() in FILES
    h5py = None
    if out.suffix.lower() in HDF5:
        try:
            h5py = require_h5py()
        except ClipError as error:
            raise ValueError(f"--out {out} {error}; or write .npz") from error
    parent = out.parent if is_file else out
    is_new = not parent.exists()
    parent.mkdir(parents=True, exist_ok=True)
    try:
        with TemporaryDirectory(dir=parent, prefix=f".{out.name}.") as scratch:
            if not is_file:
                yield _Folder(out, scratch)
            elif h5py is None:
                with replacing(out) as file, ZipFile(file, "w") as archive:
                    yield _Npz(archive, scratch)
            else:
                with drafted(out) as draft, h5py.File(draft, "w") as file:
                    yield _Hdf5(file, scratch)
    finally:
        if is_new:
            with suppress(OSError):  # it has features
                parent.rmdir()
