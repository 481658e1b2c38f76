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
    weights, metadata = read_weights(path, only_data)
    description = metadata.get(DESCRIPTION)
    if description is None:
        published = convert_bat(weights or read_weights(path)[0], os.fspath(path))
        if published is not None:
            return published
        raise ValueError(
            f"{os.fspath(path)} has no entry {DESCRIPTION!r} in its metadata: it was not written "
            "by eat export --format safetensors; a Hugging Face folder is for eat import"
        )
    try:
        return {**json.loads(description), "model": weights}
    except (ValueError, TypeError, RecursionError) as error:
        what = f"the entry {DESCRIPTION!r} of its metadata is not what eat export writes"
        raise ValueError(f"{os.fspath(path)} is damaged: {what}") from error


def read_weights(
    path: str | os.PathLike[str], only_data: bool = False
) -> tuple[dict[str, Any], dict[str, str]]:
    """Read the weights and the metadata of any safetensors file; errors as above."""
    from safetensors import SafetensorError, safe_open

    path = os.fspath(path)
    try:
        with safe_open(path, framework="pt") as file:
            names = [] if only_data else list(file.keys())
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file, or is damaged: {error}") from error


def list_names(path: str | os.PathLike[str]) -> list[str]:
    """Return the names of the weights of any safetensors file; errors as above."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(os.fspath(path), framework="pt") as file:
            return list(file.keys())
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file, or is damaged: {error}") from error


def write_safetensors(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Write weights, ``model``, and everything else as JSON; errors as in ``write_weights``."""
    others = {name: value for name, value in state.items() if name != "model"}
    write_weights(path, state["model"], {DESCRIPTION: json.dumps(others, default=_as_number)})


def write_weights(
    path: str | os.PathLike[str], weights: Mapping[str, Any], metadata: Mapping[str, str]
) -> None:
    """Write weights with metadata.

    Raises:
        OSError: the file cannot be written.
        ModuleNotFoundError: the package safetensors is not installed.
    """
    from safetensors.torch import save

    own = {name: value.contiguous() for name, value in weights.items()}
    Path(path).write_bytes(save(own, {"format": "pt", **metadata}))


def _as_number(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is no plain value")
