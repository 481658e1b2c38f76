"""The checkpoint that a run resumes."""

import os
from functools import partial
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
        cfg: the whole configuration in it.
        state: the task's state, such as the classes by name.
        optimizer: class of the optimizer; empty if its state will not be used.
        updates: number of updates; 0 if the count is reset.
        damaged: the damaged ``checkpoint_last.pt`` that this one will replace.
    """

    path: str
    cfg: Mapping[str, Any]
    state: Dict[str, Any]
    optimizer: str = ""
    updates: int = 0
    damaged: Optional[Damaged] = None

    def get(self, path: str) -> Any:
        """Return an option by ``section.option``; None if it does not exist."""
        node: Any = self.cfg
        for name in path.split("."):
            node = node.get(name) if isinstance(node, Mapping) else None
        return node

    @property
    def options(self) -> Mapping[str, Any]:
        """The task's options."""
        return dict(self.cfg["task"])

    @property
    def model(self) -> Mapping[str, Any]:
        """The model's options; empty if unknown."""
        return dict(self.cfg.get("model") or {})


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
            {**saved["cfg"], "task": dict(saved["cfg"]["task"])},
            dict(saved.get("task_state") or {}),
            str(history[-1].get("optimizer_name", "")),
            int(history[-1].get("num_updates", 0)),
            damaged,
        )
    except UNREADABLE:
        return None
