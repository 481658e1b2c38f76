"""Safetensors files: weights, and the configuration as JSON in their metadata."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .bat_files import convert_bat

ENDING = ".safetensors"
DESCRIPTION = "eat_plugin"  # entry of the metadata: all but the weights, as JSON


def is_safetensors(path: str | os.PathLike[str]) -> bool:
    """Whether the name of a file says that it is a safetensors file."""
    return Path(path).suffix.lower() == ENDING


def read_safetensors(path: str | os.PathLike[str], only_data: bool = False) -> dict[str, Any]:
    """Read a file of ``write_safetensors``, or of BAT; nothing in it is executed.

    Args:
        path: the file.
        only_data: leave the weights on the disk.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is damaged, or of another program.
        ModuleNotFoundError: the package safetensors is not installed.
    """
    from safetensors import SafetensorError, safe_open

    path = os.fspath(path)
    try:
        with safe_open(path, framework="pt") as file:
            description = (file.metadata() or {}).get(DESCRIPTION)
            names = [] if only_data and description is not None else list(file.keys())
            weights = {name: file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file, or is damaged: {error}") from error
    if description is None:
        published = convert_bat(weights, path)
        if published is not None:
            return published
        raise ValueError(
            f"{path} has no entry {DESCRIPTION!r} in its metadata: it was not written by eat export"
        )
    return {**json.loads(description), "model": weights}


def write_safetensors(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Write weights, ``model``, and everything else as JSON.

    Raises:
        OSError: the file cannot be written.
        ModuleNotFoundError: the package safetensors is not installed.
    """
    from safetensors.torch import save_file

    others = {name: value for name, value in state.items() if name != "model"}
    description = json.dumps(others, default=_as_number)
    weights = {name: value.contiguous() for name, value in state["model"].items()}
    save_file(weights, os.fspath(path), {"format": "pt", DESCRIPTION: description})


def _as_number(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is no plain value")
