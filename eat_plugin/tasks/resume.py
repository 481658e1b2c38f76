"""What a run that goes on has to keep, read from the checkpoint that it goes on from.

fairseq restores weights, optimizer and the place in the epoch. It does not compare what the task
makes of the data now with what it made of them then.
"""

import glob
import os
import pickle
import zipfile
from typing import Any, Dict, NamedTuple, Optional

import torch

from .settings import setting, whole_config

DEFAULT = "checkpoint_last.pt"  # fairseq looks for it in save_dir
ZIP = b"PK\x03\x04"  # how a zip archive begins


class EarlierRun(NamedTuple):
    """What a checkpoint tells of a task.

    Attributes:
        path: the checkpoint.
        options: the task's options.
        state: the task's state, such as the classes by name.
        optimizer: name of the class that took the steps; empty where its state will not be used.
    """

    path: str
    options: Dict[str, Any]
    state: Dict[str, Any]
    optimizer: str = ""


def find_earlier_run(cfg: Any) -> Optional[EarlierRun]:
    """Read the checkpoint that a run will go on from.

    Args:
        cfg: the task's options, in fairseq's whole configuration or by themselves.

    Returns:
        What it tells; None if the run begins anew, or if nothing can be made of the file: fairseq
        will say why when it loads it.

    Raises:
        ValueError: if the file was not written to its end.
    """
    root = whole_config(cfg)
    folder, path = (setting(root, f"checkpoint.{name}") for name in ("save_dir", "restore_file"))
    if not folder or not path:
        return None
    if path == DEFAULT:
        path = os.path.join(folder, path)
    if not os.path.isfile(path):
        return None
    _refuse_half_a_file(path)
    anew = setting(root, "checkpoint.reset_optimizer")
    try:
        # mmap: the weights, which nobody looks at here, stay on disk.
        saved = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        history = [{}] if anew else saved.get("optimizer_history") or [{}]
        return EarlierRun(
            path,
            dict(saved["cfg"]["task"]),
            dict(saved.get("task_state") or {}),
            str(history[-1].get("optimizer_name", "")),
        )
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError,
            EOFError, pickle.UnpicklingError):  # fmt: skip
        return None


def _refuse_half_a_file(path: str) -> None:
    """Raise if a checkpoint ends early, as one does whose writing was killed."""
    if _is_whole(path):
        return
    folder = os.path.dirname(path)
    others = [
        other for other in glob.glob(os.path.join(glob.escape(folder), "*.pt"))
        if other != path and _is_whole(other)
    ]  # fmt: skip
    advice = "remove it to begin anew"
    if others:
        newest = max(others, key=os.path.getmtime)
        advice = f"copy {newest}, the newest that is whole, over it, or {advice}"
    raise ValueError(f"the checkpoint {path} is damaged, it ends early; {advice}")


def _is_whole(path: str) -> bool:
    """Whether a file has an end, as far as that can be told: PyTorch's is a zip archive."""
    try:
        with open(path, "rb") as file:
            start = file.read(len(ZIP))
    except OSError:
        return True
    return bool(start) and (start != ZIP or zipfile.is_zipfile(path))
