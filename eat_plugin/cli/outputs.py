"""Checks of output paths before any work."""

from __future__ import annotations

import os
from pathlib import Path

# A folder that would get one of these endings was meant as a file.
FILE_ENDINGS = (
    "arrow", "bin", "ckpt", "csv", "feather", "flac", "gz", "h5", "hdf5", "json", "jsonl", "lbl",
    "mat", "mel", "mp3", "npy", "npz", "ogg", "onnx", "parquet", "pickle", "pkl", "png", "pt",
    "pth", "safetensors", "tar", "tsv", "txt", "wav", "yaml", "zip",
)  # fmt: skip


def check_folder(path: Path, choices: str = "a folder") -> None:
    """Raise ValueError if ``--out`` cannot be a folder, or a new one has the name of a file.

    Args:
        path: the folder.
        choices: what the option takes.
    """
    if path.suffix.lower().lstrip(".") in FILE_ENDINGS and not path.is_dir():
        raise ValueError(f"--out is {path}; give {choices}")
    _check_parents(path, path)


def check_file(path: Path, endings: tuple[str, ...], content: str) -> None:
    """Raise ValueError if ``--out`` has another ending, such as ``.pt``, or cannot be a file."""
    if path.suffix.lower() not in endings:
        raise ValueError(
            f"--out is {path}; {content} is written, give a name that ends in "
            f"{' or '.join(endings)}"
        )
    if path.is_dir():
        raise ValueError(f"--out is {path}, which is a folder; give the name of a file")
    _check_parents(path, path.parent)


def _check_parents(path: Path, folder: Path) -> None:
    """Raise ValueError if a folder, or one above it, is a file."""
    for each in (folder, *folder.parents):
        if each.is_dir():
            return
        if os.path.lexists(each):
            problem = "which" if each == path else f"but {each}"
            raise ValueError(f"--out is {path}, {problem} is not a folder")
