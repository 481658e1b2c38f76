"""What a run that goes on has to keep, read from the checkpoint that it goes on from.

fairseq restores weights, optimizer and the place in the epoch. It does not compare what the task
makes of the data now with what it made of them then.
"""

import os
import pickle
from typing import Any, Dict, NamedTuple, Optional

import torch
from omegaconf import DictConfig

DEFAULT = "checkpoint_last.pt"  # fairseq looks for it in save_dir


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
    """
    root = cfg._get_parent() if isinstance(cfg, DictConfig) else None
    options = root.get("checkpoint") if isinstance(root, DictConfig) else None
    if options is None or not options.get("save_dir") or not options.get("restore_file"):
        return None
    path = options.restore_file
    if path == DEFAULT:
        path = os.path.join(options.save_dir, path)
    if not os.path.isfile(path) or options.get("finetune_from_model"):
        return None
    try:
        # mmap: the weights, which nobody looks at here, stay on disk.
        saved = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        history = saved.get("optimizer_history") or [{}]
        return EarlierRun(
            path,
            dict(saved["cfg"]["task"]),
            dict(saved.get("task_state") or {}),
            "" if options.get("reset_optimizer") else str(history[-1].get("optimizer_name", "")),
        )
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError,
            EOFError, pickle.UnpicklingError):  # fmt: skip
        return None
