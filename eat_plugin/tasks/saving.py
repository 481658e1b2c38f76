"""Checkpoints of a run: saved completely or not at all; a failed save does not end training.

A run that is asked to end (``stopping.py``) saves ``checkpoint_last.pt`` first.
"""

import copy
import logging
import math
import os
import sys
from typing import Any, Callable, Dict, NamedTuple, Optional, TypeVar

import torch
from fairseq import checkpoint_utils

from ..heap import SMALL, keep_freed_memory
from .damaged import replace_damaged
from .processes import in_first_process
from .resumed import ResumedRun
from .run_config import RunConfig
from .run_lock import lock
from .run_record import RunRecord
from .stopping import CONTINUE, FAILED, Stopping

logger = logging.getLogger(__name__)

TRAINING = "fairseq_cli.train"
DUE = "validation_due"  # in the task's state: the epoch of a validation that was cut short
Result = TypeVar("Result")


class _Position(NamedTuple):
    """A position in the data, with what fairseq's saving needs of its iterator over epochs."""

    epoch: int
    ends_epoch: bool
    state: Dict[str, Any]

    def end_of_epoch(self) -> bool:
        return self.ends_epoch

    def state_dict(self) -> Dict[str, Any]:
        return self.state


class Saver:
    """Saves the checkpoints of one run.

    Attributes:
        failure: why the last save failed; empty if it did not.
        stopping: requests to end the run.
        record: of the run, for its checkpoints.
    """

    def __init__(self, run: RunConfig, resumed: Optional[ResumedRun]) -> None:
        self._run = run
        self._damaged = None if resumed is None else resumed.damaged
        self._due: Dict[str, Any] = {} if resumed is None else resumed.state.get(DUE, {})
        self._position = _Position(1, False, {})
        self._saved = -1  # the update of the last save
        self.failure = ""
        self.stopping = Stopping()
        self.record = RunRecord(run, resumed)

    def begin(self, device: torch.device) -> None:
        """Prepare folder and memory when fairseq's trainer starts, in all processes.

        Args:
            device: of the training.

        Raises:
            ValueError: another run writes to the folder, or it cannot be written to.
        """
        in_first_process(self._prepare_folder)
        in_first_process(self.record.begin)
        self.stopping.begin(device)
        if device.type == "cpu":
            # What is kept lies in fragments, which would undo the savings of recomputed blocks.
            keep_freed_memory(self._run.get("model.recompute") != "blocks", SMALL)

    def state(self) -> Dict[str, Any]:
        """Return what a checkpoint keeps: the record, and a validation that is still to be done."""
        return {**self.record.state(), **({DUE: dict(self._due)} if self._due else {})}

    def _prepare_folder(self) -> None:
        lock(self._run)
        folder = self._run.get("checkpoint.save_dir") or ""
        if os.path.isdir(folder) and not self._run.get("checkpoint.no_save"):
            for name in os.listdir(folder):  # left by a run that was killed
                if name.startswith(".checkpoint") and name.endswith(".tmp"):
                    os.remove(os.path.join(folder, name))
        if self._damaged is not None:
            replace_damaged(self._damaged)

    def attempt(self, save: Callable[[], Result]) -> Optional[Result]:
        """Call a function that saves; log an error of the disk, after which the run continues."""
        try:
            result = save()
        except OSError as error:
            name = f"{os.path.abspath(error.filename)}: " if error.filename else ""
            self.failure = f"{name}{error.strerror or error}"
            logger.warning(
                "no checkpoint was saved: %s; the earlier ones stay, training continues and saves "
                "again at the next interval",
                self.failure,
            )  # fmt: skip
            return None
        self.failure = ""
        return result

    def saved(self, updates: int) -> None:
        """Note that the checkpoint of an update is complete."""
        self._saved = updates

    def reached(self, epochs: Any, ends_epoch: bool = False) -> None:
        """Note the position in the data after an update."""
        self._position = _Position(epochs.epoch, ends_epoch, epochs.state_dict())

    def validate_due(self, trainer: Any, loaded: Optional[Dict[str, Any]]) -> None:
        """Repeat the validation that was cut short before the checkpoint was saved.

        Args:
            trainer: fairseq's.
            loaded: what fairseq has loaded beside the model; None for a new run.
        """
        self._saved = trainer.get_num_updates()
        if not (self._due and loaded):
            return
        epoch, ends_epoch = int(self._due["epoch"]), bool(self._due["ends_epoch"])
        position = _Position(epoch, ends_epoch, loaded["train_iterator"])
        self._due = {}
        cfg, subsets = trainer.cfg, trainer.cfg.dataset.valid_subset.split(",")
        _, stops = sys.modules[TRAINING].validate_and_save(
            cfg, trainer, trainer.task, position, subsets, ends_epoch
        )
        if stops:
            raise SystemExit(0)

    def end_if_asked(self, trainer: Any, validating: bool = False) -> None:
        """Save and end the run if one of its processes was asked to; all processes call this.

        Args:
            trainer: fairseq's.
            validating: within a validation. The run that resumes repeats it.

        Raises:
            KeyboardInterrupt, SystemExit, RuntimeError: see ``Stopping.end``.
        """
        kind = self.stopping.agree() if self.stopping.is_active else CONTINUE
        updates, position = trainer.get_num_updates(), self._position
        is_last = validating and updates >= (trainer.cfg.optimization.max_update or math.inf)
        if kind == CONTINUE or (is_last and kind != FAILED):  # the end is near
            return
        if validating:
            self._due = {"epoch": position.epoch, "ends_epoch": float(position.ends_epoch)}
        if validating or updates != self._saved:
            cfg = copy.deepcopy(trainer.cfg.checkpoint)
            cfg.save_interval_updates = 0  # nothing but checkpoint_last.pt
            within = position._replace(ends_epoch=False)
            checkpoint_utils.save_checkpoint(cfg, trainer, within, None)
        logger.info("the run ends after update %d", updates)
        self.stopping.end(kind)

    def conclude(self, device: torch.device) -> None:
        """End a run whose last save failed, in all processes.

        Raises:
            RuntimeError: it did.
        """
        failed = torch.tensor(float(bool(self.failure)), device=device)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(failed)
        if failed:
            reason = self.failure or "see the log of the first process"
            raise RuntimeError(
                f"the last checkpoint of the run could not be saved: {reason}. Make room and start "
                "the run again: it continues from the last one"
            )
