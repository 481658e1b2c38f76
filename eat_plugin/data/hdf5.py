"""HDF5 datasets as clips: ``file.h5/key/of/dataset``.

A dataset is `[samples]` or `[samples, channels]`, floating-point with full scale at 1, or int16. An
attribute of the dataset, or of the file for all its datasets, gives the sampling rate.

A process opens each file once and keeps it open. It never reads through a handle inherited by a
fork: parent and child would share one position in the file.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import OrderedDict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np

from .arrays import ArrayClip, has_samples, is_transposed
from .clip import ClipError
from .declared import find_unstored

RATE_ATTRIBUTES = ("sample_rate", "sampling_rate", "sr")
MOST_OPEN = 16  # files that a process keeps open
FEW_VALUES = 1 << 20  # of a dataset whose stored bytes are counted each time
MOST_LINKS = 40  # links per key, as on Linux


def require_h5py() -> ModuleType:
    """Import h5py, or raise ClipError if it is not installed."""
    try:
        import h5py
    except ImportError as error:
        raise ClipError("needs h5py, which is not installed (pip install h5py)") from error
    # fairseq leaves the root logger at DEBUG, where h5py reports every conversion.
    logging.getLogger("h5py").setLevel(logging.WARNING)
    return h5py


class _OpenFiles:
    """The open files of a process, the least recently used first."""

    def __init__(self) -> None:
        self.lock = threading.RLock()  # held while a file is used: another thread might close it
        self.checked: dict[Any, set[str]] = {}  # open files -> large datasets that are stored
        self._files: OrderedDict[str, tuple[tuple[int, ...], Any]] = OrderedDict()

    def get(self, path: str) -> Any:
        """Return an open file; a file that changed on disk is reopened."""
        status = os.stat(path)
        version = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        known, file = self._files.pop(path, ((), None))
        if version != known:
            h5py = require_h5py()
            if file is not None:
                self._close(file)
            while len(self._files) >= MOST_OPEN:
                self._close(self._files.popitem(last=False)[1][1])
            # Many network file systems have no locks, and nothing is written.
            file = h5py.File(path, "r", locking=False)
        self._files[path] = (version, file)
        return file

    def close(self) -> None:
        """Close all files."""
        while self._files:
            self._close(self._files.popitem()[1][1])

    def _close(self, file: Any) -> None:
        self.checked.pop(file, None)
        file.close()


_open_files: dict[int, _OpenFiles] = {}
"""By process id: after a fork, the parent's are present until the first use."""


def _own_files() -> _OpenFiles:
    """Return this process's files, and close inherited ones.

    HDF5 keeps one descriptor per file: with an inherited handle open, a new one would share it.
    """
    pid = os.getpid()
    for other in [owner for owner in _open_files if owner != pid]:
        inherited = _open_files.pop(other, None)
        if inherited is not None:  # without its lock, which a thread of the parent may hold
            inherited.close()
    return _open_files.setdefault(pid, _OpenFiles())


@contextmanager
def open_dataset(path: str, key: str) -> Iterator[ArrayClip]:
    """Open a dataset of an HDF5 file.

    Raises:
        ClipError: the file cannot be read, there is no such dataset, it has another form, its rate
            is not stated, or its values are in other files.
    """
    files = _own_files()
    with files.lock:
        try:
            file = files.get(path)
            dataset = _follow(file, key)
            problem = _find_problem(dataset)
            if problem is None:
                problem = _find_unstored(dataset, key, files.checked.setdefault(file, set()))
            if problem is not None:
                raise ClipError(problem)
            yield ArrayClip(dataset, _read_rate(dataset))
        except ClipError:
            raise
        # h5py raises errors of HDF5 as any of these.
        except (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError) as error:
            raise ClipError(f"cannot be read as HDF5: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return next(iter(text.splitlines()), type(error).__name__)


def _follow(file: Any, key: str) -> Any:
    """Return the dataset of a key; links to other files are never followed."""
    h5py = require_h5py()
    group, parts, links = file, deque(key.split("/")), 0
    while parts:
        name = parts.popleft()
        if name in ("", "."):
            continue
        if not isinstance(group, h5py.Group):
            raise ClipError(f"the file has no key {key!r}")
        link = group.get(name, getlink=True)
        if link is None:
            raise ClipError(f"the file has no key {key!r}")
        if isinstance(link, h5py.SoftLink):
            links += 1
            if links > MOST_LINKS:
                raise ClipError(f"the key {key!r} leads through more than {MOST_LINKS} links")
            parts.extendleft(reversed(link.path.split("/")))
            group = file if link.path.startswith("/") else group
        elif isinstance(link, h5py.HardLink):
            group = group[name]
        else:
            raise ClipError(f"the key {key!r} leads to another file, which is not followed")
    if not isinstance(group, h5py.Dataset):
        raise ClipError(f"the key {key!r} is not of a dataset")
    return group


def _find_problem(dataset: Any) -> str | None:
    """Return why a dataset cannot be a clip, or None."""
    if not has_samples(dataset):
        return f"has values of type {dataset.dtype}, expected floating-point numbers or int16"
    if dataset.is_virtual or dataset.external:
        return "has its values in other files, which are not followed"
    shape = dataset.shape
    if shape is None or len(shape) not in (1, 2) or 0 in shape[1:]:
        return f"has the shape {shape}, expected [samples] or [samples, channels]"
    if is_transposed(dataset):
        return (
            f"has the shape {shape}, expected [samples] or [samples, channels]; is it transposed, "
            "or a spectrogram?"
        )
    return None


def _find_unstored(dataset: Any, key: str, checked: set[str]) -> str | None:
    """Return why the values of a dataset are not in its file, or None; large ones once per file.

    HDF5 counts the stored bytes, which takes 0.3 us per chunk.
    """
    if key in checked:
        return None
    stored = min(dataset.id.get_storage_size(), dataset.file.id.get_filesize())
    problem = find_unstored(int(dataset.size), dataset.dtype.itemsize, stored)
    if problem is None and dataset.size > FEW_VALUES:
        checked.add(key)
    return problem


def _read_rate(dataset: Any) -> int:
    """Return the sampling rate in Hz, from the dataset or its file."""
    for owner in (dataset, dataset.file):
        for name in RATE_ATTRIBUTES:
            if name in owner.attrs:
                value = np.asarray(owner.attrs[name])
                if value.dtype.kind in "iuf" and value.size == 1 and float(value.item()) % 1 == 0:
                    return int(value.item())
                raise ClipError(f"has the attribute {name} = {value.tolist()!r}, expected Hz")
    first, *others = RATE_ATTRIBUTES
    raise ClipError(
        f"does not state its sampling rate; it needs an attribute {first!r}, in Hz (or "
        f"{' or '.join(map(repr, others))}), of the dataset or of the file"
    )


def list_datasets(path: str) -> list[tuple[str, str | None]]:
    """List the datasets of a file that have samples, except links.

    Returns:
        The key of each dataset, and why it cannot be used or None.

    Raises:
        ClipError: the file cannot be read.
    """
    found: list[tuple[str, str | None]] = []
    h5py = require_h5py()

    def note(key: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and has_samples(item):
            found.append((key, _find_problem(item) or _find_unstored(item, key, set())))

    try:
        with h5py.File(path, "r", locking=False) as file:
            file.visititems(note)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError) as error:
        raise ClipError(f"cannot be read as HDF5: {_first_line(error)}") from error
    return found
