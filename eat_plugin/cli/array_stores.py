"""Outputs of `eat features`: a folder of .npy, one .npz or one HDF5 file.

Arrays are written in parts, so that their size does not matter, and get their name when complete.
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
    """Writes one array after the other: begin, then commit or discard."""

    _open: tuple[str, Path, np.memmap] | None = None  # key, draft and array

    def key(self, name: str) -> str:
        """Return the name of the array of a clip."""
        return name

    def times_key(self, key: str) -> str:
        """Return the name of the times of an array."""
        return f"{key}{TIMES}"

    def begin(self, key: str, shape: tuple[int, ...]) -> np.ndarray:
        """Open a new array, float32, for assignment to parts of it."""
        draft = self._draft(key)
        draft.parent.mkdir(parents=True, exist_ok=True)
        array = np.lib.format.open_memmap(draft, "w+", np.float32, shape)
        self._open = (key, draft, array)
        return array

    def commit(self, times: np.ndarray | None) -> None:
        """Store the open array and its times."""
        assert self._open is not None
        key, draft, array = self._open
        array.flush()
        self._save(key, draft, times)
        self.discard()

    def discard(self) -> None:
        """Remove the draft of the open array, if any."""
        if self._open is not None:
            self._open[1].unlink(missing_ok=True)
            self._open = None

    def _draft(self, key: str) -> Path:
        raise NotImplementedError

    def _save(self, key: str, draft: Path, times: np.ndarray | None) -> None:
        raise NotImplementedError


def open_store(out: Path) -> AbstractContextManager[Store]:
    """Open a ``.npz`` or ``.h5`` file, which is replaced on success, or a folder.

    Raises:
        ValueError: the path has another ending or is a folder with such an ending, or h5py is not
            installed.
    """
    suffix = out.suffix.lower()
    if suffix in (".npz", *HDF5):
        if out.is_dir():
            raise ValueError(f"--out {out} is a folder with the ending of a file")
        out.parent.mkdir(parents=True, exist_ok=True)
        return _open_npz(out) if suffix == ".npz" else _open_hdf5(out, _import_h5py())
    if suffix == ".npy" or out.is_file():
        raise ValueError(f"--out is {out}; give a folder, or a file that ends in .npz or .h5")
    return _open_folder(out)


class _Folder(Store):
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def key(self, name: str) -> str:
        if split_span(name) is not None:  # archive.zip:OFFSET:LENGTH
            return f"{name}.npy"
        return str(PurePosixPath(name).with_suffix(".npy"))

    def times_key(self, key: str) -> str:
        return str(PurePosixPath(key).with_suffix(f"{TIMES}.npy"))

    def _draft(self, key: str) -> Path:
        return name_draft(self._folder / key)

    def _save(self, key: str, draft: Path, times: np.ndarray | None) -> None:
        if times is not None:
            with replacing(self._folder / self.times_key(key)) as file:
                np.save(file, times)
        os.replace(draft, self._folder / key)


@contextmanager
def _open_folder(out: Path) -> Iterator[Store]:
    store = _Folder(out)
    try:
        yield store
    finally:
        store.discard()


class _File(Store):
    """One file for all arrays; drafts are in a scratch folder."""

    def __init__(self, file: Any, scratch: str) -> None:
        self._file = file
        self._scratch = Path(scratch)

    def _draft(self, key: str) -> Path:
        return self._scratch / "part.npy"


class _Npz(_File):
    def _save(self, key: str, draft: Path, times: np.ndarray | None) -> None:
        self._file.write(draft, f"{key}.npy")
        if times is not None:
            with self._file.open(f"{self.times_key(key)}.npy", "w") as file:
                np.save(file, times)


class _Hdf5(_File):
    def _save(self, key: str, draft: Path, times: np.ndarray | None) -> None:
        self._file[key] = np.load(draft, mmap_mode="r")
        if times is not None:
            self._file[self.times_key(key)] = times


def _make_scratch(out: Path) -> TemporaryDirectory[str]:
    return TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.")


@contextmanager
def _open_npz(out: Path) -> Iterator[Store]:
    with _make_scratch(out) as folder, replacing(out) as file, ZipFile(file, "w") as archive:
        yield _Npz(archive, folder)


@contextmanager
def _open_hdf5(out: Path, h5py: Any) -> Iterator[Store]:
    with _make_scratch(out) as folder, drafted(out) as draft, h5py.File(draft, "w") as file:
        yield _Hdf5(file, folder)


def _import_h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise ValueError(
            "HDF5 needs h5py: pip install h5py, or this package's extra 'hdf5'; or write .npz"
        ) from error
    # Importing fairseq leaves the root logger at DEBUG, where h5py reports every conversion.
    logging.getLogger("h5py").setLevel(logging.WARNING)
    return h5py
