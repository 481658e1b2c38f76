"""State of a run that fairseq keeps in functions and modules: new for each run, saved with it."""

import logging
import os
import sys
from typing import Any, Dict, Optional

from fairseq import checkpoint_utils
from fairseq.logging import metrics, progress_bar

from .hooks import adapt_fairseq
from .resumed import ResumedRun
from .run_config import RunConfig
from .saving import TRAINING

EARLY_STOP = "early_stop"  # in the task's state
_STOP = ("best", "num_runs")  # attributes of fairseq's function: best value, validations since


def start_run(run: RunConfig, resumed: Optional[ResumedRun]) -> None:
    """Set fairseq's globals for a run: the process may have trained others, as in a sweep.

    Args:
        run: the configuration.
        resumed: the checkpoint being resumed; its count of validations for ``checkpoint.patience``
            continues.
    """
    if run.root is None:
        return
    adapt_fairseq()
    _clear(checkpoint_utils.save_checkpoint)
    for writer in progress_bar._tensorboard_writers.values():
        writer.close()
    progress_bar._tensorboard_writers.clear()
    wandb = getattr(progress_bar, "wandb", None)
    if wandb is not None and wandb.run is not None:  # fairseq would continue that run
        wandb.finish()
    training = sys.modules.get(TRAINING)
    if training is None:
        return
    _clear(training.should_stop_early)
    _keep_log_file(training.logger, run.get("common.log_file"))
    if resumed is not None and not run.get("checkpoint.reset_meters"):
        for name, value in resumed.state.get(EARLY_STOP, {}).items():
            setattr(training.should_stop_early, name, value)


def early_stop_state() -> Dict[str, Any]:
    """Return the count for ``checkpoint.patience`` as an entry of the task's state, or nothing."""
    training = sys.modules.get(TRAINING)
    function = getattr(training, "should_stop_early", None)
    if not hasattr(function, _STOP[0]):
        return {}
    return {EARLY_STOP: {name: float(getattr(function, name)) for name in _STOP}}


def leave_on_device() -> None:
    """Leave the values that an update has just logged where they are.

    fairseq rounds them for the result of ``Trainer.train_step``, which nothing uses, and waits for
    the GPU once for each. Meters that are printed keep their rounding.
    """
    for meter in metrics.get_active_aggregators()[-1].values():
        if hasattr(meter, "round"):
            meter.round = None


def _clear(function: Any) -> None:
    for name in _STOP:
        vars(function).pop(name, None)


def _keep_log_file(logger: logging.Logger, path: Optional[str]) -> None:
    """Remove the log files of earlier runs; fairseq has just added that of this one."""
    current = None if path is None else os.path.abspath(path)
    for handler in [h for h in logger.handlers if isinstance(h, logging.FileHandler)][::-1]:
        if handler.baseFilename == current:
            current = None  # keep one
        else:
            logger.removeHandler(handler)
            handler.close()
