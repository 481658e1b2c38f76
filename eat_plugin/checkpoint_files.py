"""Files that ``torch.save`` wrote: their checksums, and reading them as data; or safetensors files.

They are zip archives (files of PyTorch before 1.6 are not). Each record in them, such as a weight,
has a CRC-32, which ``torch.load`` does not compare.
"""

from __future__ import annotations

import errno
import os
import pickle
import struct
import tarfile
import zipfile
import zlib
from contextlib import suppress
from typing import Any

import numpy as np
import torch

from .bat_files import convert_bat
from .safetensors_files import is_safetensors, read_safetensors

ZIP = b"PK\x03\x04"  # first bytes of a zip archive
BLOCK = 1 << 20  # bytes
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # that PyTorch reads
FOLDER = 0x10  # attribute of a record; PyTorch leaves the memory of such a weight as it is
REMEDY = "copy it again from its source, or give another checkpoint"
# Errors of a damaged zip archive.
DAMAGE = (
    zipfile.BadZipFile, zlib.error, EOFError, struct.error, NotImplementedError, RuntimeError,
    ValueError, LookupError, OverflowError, OSError,
)  # fmt: skip
# Errors of reading arbitrary bytes as a checkpoint.
NO_CHECKPOINT = (
    RuntimeError, EOFError, LookupError, ValueError, TypeError, AttributeError, AssertionError,
    ImportError, MemoryError, OverflowError, struct.error, pickle.UnpicklingError,
)  # fmt: skip

# Before, torch.load executes code of tar archives and of TorchScript in spite of weights_only
# (CVE-2025-32434); later versions refuse them.
SAFE_TORCH = (2, 6)
TORCH = tuple(int(part) for part in torch.__version__.split(".")[:2])
_allow = getattr(torch.serialization, "add_safe_globals", None)
_OF_OLD_TORCH = "" if _allow else " (PyTorch 2.4 and later reads NumPy numbers as plain values)"

if _allow is not None:
    # Published checkpoints hold NumPy numbers (a metric); they run no code.
    _multiarray = (np._core if hasattr(np, "_core") else np.core).multiarray  # type: ignore
    _kinds = {type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i4", "i8", "u8", "?")}
    _allow([np.dtype, _multiarray.scalar, *_kinds])


class DamagedError(ValueError):
    """A file is no checkpoint, or a damaged one."""


def find_damage(path: str | os.PathLike[str]) -> str:
    """Compare all records of a file with their checksums, about a second for 2 GB.

    Returns:
        The damage, as ``"its record 'data/3' is not what was saved"``. Empty for an intact file,
        and for one without checksums: of an old PyTorch, or saved with
        ``set_crc32_options(False)``, which writes 0 for each.

    Raises:
        OSError: the file cannot be opened.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        what = "is a folder" if os.path.isdir(path) else "is a device or pipe, not a file"
        raise OSError(errno.EINVAL, what, os.fspath(path))
    with open(path, "rb") as file:
        start = file.read(len(ZIP))
        if not start:
            return "it is empty"
        name = ""
        try:
            if not zipfile.is_zipfile(file):
                return "it is cut off, or damaged at its end" if start == ZIP else ""
            with zipfile.ZipFile(file) as archive:
                records = archive.infolist()
                has_checksums = any(record.CRC for record in records)
                for record in records:
                    name = record.filename.partition("/")[2] or record.filename
                    _check(archive, record, has_checksums)
        except DAMAGE as error:
            if getattr(error, "errno", None) == errno.EIO:
                return f"it cannot be read ({os.strerror(errno.EIO)})"
            what = f"its record {name!r}" if name else "its index"
            return f"{what} is not what was saved (CRC-32)"
    return ""


def _check(archive: zipfile.ZipFile, record: zipfile.ZipInfo, has_checksums: bool) -> None:
    """Raise one of ``DAMAGE`` unless a record is as it was saved."""
    if record.compress_type not in METHODS or record.external_attr & FOLDER:
        raise zipfile.BadZipFile
    with archive.open(record) as stream:
        if has_checksums:  # compared at the end of the record
            while stream.read(BLOCK):
                pass


def _refuse_executable(path: str | os.PathLike[str]) -> None:
    """Refuse tar archives and TorchScript; others are left to ``torch.load``."""
    with open(path, "rb") as file:
        is_zip = file.read(len(ZIP)) == ZIP
    has_code = not is_zip and tarfile.is_tarfile(path)
    if is_zip:
        with suppress(*DAMAGE), zipfile.ZipFile(path) as archive:
            has_code = any(name.endswith("constants.pkl") for name in archive.namelist())
    if has_code:
        raise ValueError(
            f"{os.fspath(path)} is TorchScript or a tar archive, whose code PyTorch "
            f"{torch.__version__} would execute; save its weights again with torch.save"
        )


def read_data(path: str | os.PathLike[str], check: bool = True, only_data: bool = False) -> Any:
    """Read a file of ``torch.save``, or a safetensors file, onto the CPU, as data.

    No code in it is executed. A published BAT checkpoint is returned in our form.

    Args:
        path: the file.
        check: compare its checksums first.
        only_data: leave the weights, which are not needed, on the disk.

    Raises:
        OSError: the file cannot be read.
        DamagedError: it is damaged, or no checkpoint.
        ValueError: it holds more than plain data, or an unknown model of BAT.
    """
    if is_safetensors(path):
        return read_safetensors(path, only_data)
    damage = find_damage(path) if check else ""
    if damage:
        raise DamagedError(f"{os.fspath(path)} is damaged: {damage}; {REMEDY}")
    if TORCH < SAFE_TORCH:
        _refuse_executable(path)
    with open(path, "rb") as file:
        can_map = only_data and file.read(len(ZIP)) == ZIP
    try:
        state = torch.load(os.fspath(path), map_location="cpu", weights_only=True, mmap=can_map)
    except NO_CHECKPOINT as error:
        if "GLOBAL" in str(error) or "Unsupported class" in str(error):
            raise ValueError(
                f"{path} holds Python objects, which could run code when they are loaded; if you "
                "trust it, save it again with plain values (weights, dictionaries, numbers)"
                f"{_OF_OLD_TORCH}"
            ) from error
        raise DamagedError(f"{path} is not a PyTorch checkpoint, or is damaged") from error
    return convert_bat(state, os.fspath(path)) or state
