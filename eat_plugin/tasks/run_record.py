"""The record of a run, which its checkpoints keep; see ``eat_plugin.reproduction``."""

import time
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional

import torch

from ..reproduction import (
    RECORD,
    add_part,
    find_revision,
    fingerprint_splits,
    list_versions,
)
from .resumed import ResumedRun
from .run_config import RunConfig


class RunRecord:
    """Counts clips and hours, also those before a run was resumed.

    Args:
        run: the configuration.
        resumed: the checkpoint being resumed, or None.
    """

    def __init__(self, run: RunConfig, resumed: Optional[ResumedRun]) -> None:
        self._run, self._start = run, time.monotonic()
        before: Mapping[str, Any] = {} if resumed is None else resumed.state.get(RECORD) or {}
        continues = resumed is not None and bool(resumed.optimizer)
        self._before = list(before.get("parts", [])) if continues else []
        self._from = resumed.updates if resumed is not None and continues else 0
        self._clips: Any = 0  # a tensor if processes sum on their GPUs
        self._part: Dict[str, Any] = {}

    def begin(self) -> None:
        """Note the surroundings of a run that starts."""
        run, world = self._run, "distributed_training.distributed_world_size"
        on_gpu = torch.cuda.is_available() and not run.get("common.cpu")
        splits = [run.get("dataset.train_subset") or "", *_list_held_out(run)]
        self._part = {
            "from_update": self._from,
            "processes": int(run.get(world) or 1),
            "device": torch.cuda.get_device_name() if on_gpu else "CPU",
            "git": find_revision(),
            "versions": {**list_versions(), "torch": str(torch.__version__)},
            "data": fingerprint_splits(Path(run.get("task.data") or ""), splits),
        }

    def count(self, logs: List[Dict[str, Any]]) -> None:
        """Count the clips of an update, over all processes."""
        self._clips = self._clips + sum(log.get("nsentences", 0) for log in logs)

    def state(self) -> Dict[str, Any]:
        """Return what a checkpoint keeps; nothing for a task that does not train."""
        if not self._part:
            return {}
        hours = (time.monotonic() - self._start) / 3600 * self._part["processes"]
        part = {**self._part, "hours": hours, "clips": int(self._clips)}
        parts = add_part(self._before, part)
        return {RECORD: {"seed": self._run.get("common.seed"), "parts": parts}}


def _list_held_out(run: RunConfig) -> List[str]:
    if run.get("dataset.disable_validation"):
        return []
    return str(run.get("dataset.valid_subset") or "").split(",")
