"""Checks of output paths before any work."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryFile

from eat_plugin.data.files import find_target

# A folder that would get one of these endings was meant as a file.
FILE_ENDINGS = (
    "arrow", "bin", "ckpt", "csv", "feather", "flac", "gz", "h5", "hdf5", "json", "jsonl", "lbl",
    "mat", "mel", "mp3", "npy", "npz", "ogg", "onnx", "parquet", "pickle", "pkl", "png", "pt",
    "pth", "safetensors", "tar", "tsv", "txt", "wav", "yaml", "zip",
)  # fmt: skip


def check_folder(path: Path, choices: str = "a folder", writes: bool = True) -> None:
    """Raise ValueError if ``--out`` cannot be a folder, or a new one has the name of a file.

    Args:
        path: the folder.
        choices: what the option takes.
        writes: files will be written to it.
    """
    if path.suffix.lower().lstrip(".") in FILE_ENDINGS and not path.is_dir():
        raise ValueError(f"--out is {path}; give {choices}")
    existing = _find_existing(path, path)
    if writes:
        check_writable(existing)


def check_file(path: Path, endings: tuple[str, ...], content: str) -> None:
    """Raise ValueError if ``--out`` has another ending, such as ``.pt``, or cannot be a file."""
    if path.suffix.lower() not in endings:
        raise ValueError(
            f"--out is {path}; {content} is written, give a name that ends in "
            f"{' or '.join(endings)}"
        )
    if path.is_dir():
        raise ValueError(f"--out is {path}, which is a folder; give the name of a file")
    try:
        target = find_target(path)
    except OSError as error:
        raise ValueError(f"--out is {path}, which {error.strerror}") from error
    check_writable(_find_existing(path, (target if path.is_symlink() else path).parent))


def check_writable(folder: Path) -> None:
    """Raise ValueError if no file can be made in a folder."""
    try:
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(f"no file can be written in {folder}: {error.strerror}") from error


def _find_existing(path: Path, folder: Path) -> Path:
    """Return a folder, or the first above it that exists; raise ValueError if it is a file."""
    for each in (folder, *folder.parents):
        if each.is_dir():
            return each
        if os.path.lexists(each):
            problem = "which" if each == path else f"but {each}"
            raise ValueError(f"--out is {path}, {problem} is not a folder")
    return Path()
