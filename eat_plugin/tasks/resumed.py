"""The checkpoint that a run resumes."""

import os
from functools import partial
from types import MappingProxyType
from typing import Any, Dict, Mapping, NamedTuple, Optional

from ..checkpoint_files import read_data
from .damaged import Damaged, check_files
from .option_checks import DEFAULT, find_last
from .processes import in_first_process
from .run_config import RunConfig

UNREADABLE = (OSError, LookupError, ValueError, TypeError, AttributeError)  # of another content


class ResumedRun(NamedTuple):
    """The checkpoint that a run resumes.

    Attributes:
        path: the file.
        options: the task's options in it.
        state: the task's state, such as the classes by name.
        optimizer: class of the optimizer; empty if its state will not be used.
        model: the model's options in it; empty if unknown.
        updates: number of updates; 0 if the count is reset.
        damaged: the damaged ``checkpoint_last.pt`` that this one will replace.
        cfg: the whole configuration in it.
    """

    path: str
    options: Dict[str, Any]
    state: Dict[str, Any]
    optimizer: str = ""
    model: Mapping[str, Any] = MappingProxyType({})
    updates: int = 0
    damaged: Optional[Damaged] = None
    cfg: Mapping[str, Any] = MappingProxyType({})


def find_resumed_run(run: RunConfig) -> Optional[ResumedRun]:
    """Read the checkpoint that fairseq will resume.

    Returns:
        Its contents, or those of the one that will replace it if it is damaged or missing; None for
        a new run, or if the file holds Python objects (fairseq then reports it).

    Raises:
        ValueError: the file is damaged, or no checkpoint.
    """
    folder, path = (run.get(f"checkpoint.{name}") for name in ("save_dir", "restore_file"))
    if not folder or not path:
        return None
    damaged = in_first_process(partial(check_files, run))
    if path == DEFAULT:
        path = find_last(run)
        if not os.path.isfile(path):
            path = run.get("checkpoint.continue_once") or path
    path = path if damaged is None else damaged.intact
    if not os.path.isfile(path):
        return None
    try:
        saved = read_data(path, check=False, only_data=True)
        history = saved.get("optimizer_history") or [{}]
        if run.get("checkpoint.reset_optimizer"):
            history = [{}]
        return ResumedRun(
            path,
            dict(saved["cfg"]["task"]),
            dict(saved.get("task_state") or {}),
            str(history[-1].get("optimizer_name", "")),
            dict(saved["cfg"].get("model") or {}),
            int(history[-1].get("num_updates", 0)),
            damaged,
            dict(saved["cfg"]),
        )
    except UNREADABLE:
        return None
