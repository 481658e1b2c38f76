"""Where `eat features` puts arrays: a folder of .npy, one .npz or one HDF5 file.

Arrays are written piece by piece, whatever their size, and appear under their name when they are
complete.

In this file:
    Store         the interface: begin, then commit or discard, an array at a time
    open_store    chooses one by the name of the output
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any
from zipfile import ZipFile

import numpy as np

from eat_plugin.data.entries import split_span
from eat_plugin.data.files import drafted, name_draft, replacing

HDF5 = (".h5", ".hdf5")
TIMES = ".times"


class Store:
    """Takes one array after the other."""

    def key(self, name: str) -> str:
        """Return what an array is called here, given the name of its clip."""
        return name

    def times_key(self, key: str) -> str:
        """Return what the times that belong to an array are called."""
        return f"{key}{TIMES}"

    def begin(self, key: str, shape: tuple[int, ...]) -> np.ndarray:
        """Open a new array, float32, for assignment to parts of it."""
        raise NotImplementedError

    def commit(self, times: np.ndarray | None) -> None:
        """Keep the open array, and the times that belong to it."""
        raise NotImplementedError

    def discard(self) -> None:
        """Forget the open array."""
        raise NotImplementedError


def open_store(out: Path) -> AbstractContextManager[Store]:
    """Open the store that a path asks for: ``.npz``, ``.h5``, or else a folder.

    Args:
        out: The file, replaced at the end if all goes well, or the folder.

    Raises:
        ValueError: The path has another ending, is a folder where a file is asked for, or h5py
            is not installed.
    """
    suffix = out.suffix.lower()
    if suffix in (".npz", *HDF5):
        if out.is_dir():
            raise ValueError(f"--out {out} is a folder, and its name asks for a file")
        out.parent.mkdir(parents=True, exist_ok=True)
        return _open_npz(out) if suffix == ".npz" else _open_hdf5(out)
    if suffix == ".npy" or out.is_file():
        raise ValueError(f"--out is {out}; give a folder, or a file that ends in .npz or .h5")
    return _open_folder(out)


class _Folder(Store):
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: tuple[str, Path, np.memmap] | None = None

    def key(self, name: str) -> str:
        if split_span(name) is not None:  # archive.zip:OFFSET:LENGTH
            return f"{name}.npy"
        return str(PurePosixPath(name).with_suffix(".npy"))

    def times_key(self, key: str) -> str:
        return str(PurePosixPath(key).with_suffix(f"{TIMES}.npy"))

    def begin(self, key: str, shape: tuple[int, ...]) -> np.ndarray:
        path = self._folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = name_draft(path)
        array = np.lib.format.open_memmap(draft, "w+", np.float32, shape)
        self._open = (key, draft, array)
        return array

    def commit(self, times: np.ndarray | None) -> None:
        assert self._open is not None
        key, draft, array = self._open
        array.flush()
        if times is not None:
            with replacing(self._folder / self.times_key(key)) as file:
                np.save(file, times)
        os.replace(draft, self._folder / key)
        self._open = None

    def discard(self) -> None:
        if self._open is not None:
            self._open[1].unlink(missing_ok=True)
            self._open = None


@contextmanager
def _open_folder(out: Path) -> Iterator[Store]:
    store = _Folder(out)
    try:
        yield store
    finally:
        store.discard()


class _Npz(Store):
    def __init__(self, archive: ZipFile, scratch: Path) -> None:
        self._archive = archive
        self._part = scratch / "part.npy"
        self._open: tuple[str, np.memmap] | None = None

    def begin(self, key: str, shape: tuple[int, ...]) -> np.ndarray:
        array = np.lib.format.open_memmap(self._part, "w+", np.float32, shape)
        self._open = (key, array)
        return array

    def commit(self, times: np.ndarray | None) -> None:
        assert self._open is not None
        key, array = self._open
        array.flush()
        self._archive.write(self._part, f"{key}.npy")
        if times is not None:
            with self._archive.open(f"{self.times_key(key)}.npy", "w") as file:
                np.save(file, times)
        self.discard()

    def discard(self) -> None:
        self._part.unlink(missing_ok=True)
        self._open = None


@contextmanager
def _open_npz(out: Path) -> Iterator[Store]:
    scratch = TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.")
    with scratch as folder, replacing(out) as file, ZipFile(file, "w") as archive:
        yield _Npz(archive, Path(folder))


class _Hdf5(Store):
    def __init__(self, file: Any) -> None:
        self._file = file
        self._open: str | None = None

    def begin(self, key: str, shape: tuple[int, ...]) -> np.ndarray:
        self._open = key
        return self._file.create_dataset(key, shape, np.float32)

    def commit(self, times: np.ndarray | None) -> None:
        assert self._open is not None
        if times is not None:
            self._file[self.times_key(self._open)] = times
        self._open = None

    def discard(self) -> None:
        if self._open is not None:
            del self._file[self._open]
            self._open = None


def _open_hdf5(out: Path) -> AbstractContextManager[Store]:
    try:
        import h5py
    except ImportError as error:
        raise ValueError(
            "HDF5 needs h5py: pip install h5py, or this package's extra 'hdf5'; or write a .npz"
        ) from error

    # Importing fairseq leaves the root logger at DEBUG, where h5py reports every conversion.
    logging.getLogger("h5py").setLevel(logging.WARNING)

    @contextmanager
    def opened() -> Iterator[Store]:
        with drafted(out) as draft, h5py.File(draft, "w") as file:
            yield _Hdf5(file)

    return opened()
