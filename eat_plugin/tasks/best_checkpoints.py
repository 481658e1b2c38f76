"""``checkpoint.keep_best_checkpoints``: fairseq keeps fewer than k (fairseq#2195)."""

import math
import os
import re
from typing import Any, List, Mapping, Optional

from .complete_files import copy_checkpoint
from .run_config import RunConfig


class BestCheckpoints:
    """Completes the k best checkpoints of a run.

    fairseq saves a checkpoint as one of the best only if it is not worse than those, even while
    there are fewer than k.
    """

    def __init__(self, run: RunConfig) -> None:
        self._number = run.get("checkpoint.keep_best_checkpoints") or 0
        self._folder = run.get("checkpoint.save_dir") or ""
        self._metric = run.get("checkpoint.best_checkpoint_metric") or ""
        self._suffix = run.get("checkpoint.checkpoint_suffix") or ""
        self.begin_validation()

    def begin_validation(self) -> None:
        """Forget the values of an earlier validation."""
        self._value: Optional[float] = None
        self._before = 0

    def validated(self, stats: Mapping[str, Any]) -> None:
        """Take the metric of a split; the first split decides, as in fairseq."""
        if self._number > 0 and self._value is None and self._metric in stats:
            value = float(stats[self._metric])
            if 0 <= value < math.inf:  # fairseq does not read other numbers in names
                self._value, self._before = value, len(self._files())

    def saved(self, path: str, num_updates: int) -> None:
        """Keep a checkpoint that fairseq has saved under another name only."""
        now = len(self._files())
        if self._value is None or now > self._before or now >= self._number:
            return
        # Further digits make the names of equal values differ.
        value = f"{self._value:.6f}{num_updates % 1000:03d}"
        name = f"checkpoint.best_{self._metric}_{value}{self._suffix}.pt"
        copy_checkpoint(path, os.path.join(self._folder, name))

    def _files(self) -> List[str]:
        if not os.path.isdir(self._folder):
            return []
        form = rf"checkpoint\.best_{re.escape(self._metric)}_\d+\.?\d*{re.escape(self._suffix)}\.pt"
        return [name for name in os.listdir(self._folder) if re.fullmatch(form, name)]
