"""Where fairseq's training calls the ``saver`` of a task."""

import functools
import math
import os
import sys
from typing import Any, Callable, Optional

from fairseq import checkpoint_utils
from fairseq.logging import progress_bar

from .complete_files import complete_files
from .not_finite import NotFinite
from .saving import TRAINING, Saver, logger


def adapt_fairseq() -> None:
    """Make fairseq's functions call the ``saver`` of the task; without one they stay the same."""
    _wrap(checkpoint_utils, "load_checkpoint", _load)
    _wrap(checkpoint_utils, "save_checkpoint", _save)
    _wrap(progress_bar.TensorboardProgressBarWrapper, "_log_to_tensorboard", _log_to_tensorboard)
    if TRAINING in sys.modules:
        trainer = sys.modules[TRAINING].Trainer
        _wrap(trainer, "train_step", _train_step)
        _wrap(trainer, "valid_step", _valid_step)
        _wrap(sys.modules[TRAINING], "train", _train)
        _wrap(sys.modules[TRAINING], "validate_and_save", _validate_and_save)


def _wrap(owner: Any, name: str, function: Callable[..., Any]) -> None:
    original = getattr(owner, name)
    if not hasattr(original, "is_adapted"):

        @functools.wraps(original)
        def adapted(*arguments: Any, **options: Any) -> Any:
            return function(original, *arguments, **options)

        adapted.is_adapted = True  # type: ignore[attr-defined]
        setattr(owner, name, adapted)


def _saver(task: Any) -> Optional[Saver]:
    saver: Optional[Saver] = getattr(task, "saver", None)
    return saver


def _load(original: Callable[..., Any], cfg: Any, trainer: Any, **arguments: Any) -> Any:
    saver = _saver(trainer.task)
    if saver is None:
        return original(cfg, trainer, **arguments)
    saver.begin(trainer.device)
    with saver.stopping.released_after_errors():
        extra, epochs = original(cfg, trainer, **arguments)
        saver.validate_due(trainer, extra)
    return extra, epochs


def _train(original: Callable[..., Any], cfg: Any, trainer: Any, task: Any, epochs: Any) -> Any:
    """Train for an epoch."""
    saver = _saver(task)
    if saver is None:
        return original(cfg, trainer, task, epochs)
    with saver.stopping.released_after_errors():
        return original(cfg, trainer, task, epochs)


def _train_step(
    original: Callable[..., Any], trainer: Any, samples: Any, *arguments: Any, **options: Any
) -> Any:
    saver = _saver(trainer.task)
    if saver is None:
        return original(trainer, samples, *arguments, **options)
    saver.end_if_asked(trainer)
    # fairseq takes a process whose last batch is empty, at the end of an epoch, for one without
    # any: the size of its other batches would not count, and gradients would be too large.
    samples = sorted(samples, key=bool)
    module, watches = sys.modules[type(trainer).__module__], []

    def watch(model: Any) -> NotFinite:
        watches.append(NotFinite(model, trainer.task, samples))
        return watches[-1]

    given, module.NanDetector = module.NanDetector, watch  # type: ignore[attr-defined]
    try:
        return original(trainer, samples, *arguments, **options)
    except FloatingPointError as error:
        found = "; ".join(each.found for each in watches)
        text = f"update {trainer.get_num_updates() + 1}: {found} ({error})"
        raise FloatingPointError(text) from error
    finally:
        module.NanDetector = given  # type: ignore[attr-defined]


def _valid_step(original: Callable[..., Any], trainer: Any, *arguments: Any, **options: Any) -> Any:
    saver = _saver(trainer.task)
    if saver is not None:
        saver.end_if_asked(trainer, validating=True)
    return original(trainer, *arguments, **options)


def _save(
    original: Callable[..., Any], cfg: Any, trainer: Any, epochs: Any, value: Optional[float]
) -> Any:
    saver = _saver(trainer.task)
    if saver is None:
        return original(cfg, trainer, epochs, value)
    if value is not None and math.isnan(value):  # for fairseq it would stay the best value
        logger.warning("%s is not a number: no best checkpoint", cfg.best_checkpoint_metric)
        value = None
    kept = vars(checkpoint_utils.save_checkpoint)
    best = kept.get("best")
    with complete_files():
        path = saver.attempt(lambda: original(cfg, trainer, epochs, value))
    if saver.failure:  # the best checkpoint is still an earlier one
        kept.pop("best", None)
        kept.update({} if best is None else {"best": best})
    else:
        saver.saved(trainer.get_num_updates())
    return path


def _validate_and_save(
    original: Callable[..., Any], cfg: Any, trainer: Any, task: Any, epochs: Any, *rest: Any
) -> Any:
    saver = _saver(task)
    last, end_of_epoch = cfg.optimization.max_epoch or 0, rest[-1]
    if saver is not None:
        saver.reached(epochs, end_of_epoch)
    # A process without a batch repeats the first one of the epoch. A validation leaves one of its
    # own, which may have several windows of a clip.
    first_batch = trainer._dummy_batch
    losses, stops = original(cfg, trainer, task, epochs, *rest)
    trainer.reset_dummy_batch(first_batch)
    is_last = end_of_epoch and (
        0 < last <= epochs.epoch or trainer.get_lr() <= cfg.optimization.stop_min_lr
    )
    if (stops or is_last) and saver is not None:
        saver.stopping.release()
        saver.conclude(trainer.device)
    return losses, stops


def _log_to_tensorboard(original: Callable[..., Any], bar: Any, *arguments: Any) -> None:
    """Leave TensorBoard out until the next epoch if its files cannot be written."""
    if vars(bar).get("is_broken"):
        return
    try:
        original(bar, *arguments)
    except OSError as error:
        bar.is_broken = True
        progress_bar._tensorboard_writers.clear()  # they stay broken
        logger.warning(
            "nothing more is written for TensorBoard in this epoch: %s: %s",
            os.path.abspath(bar.tensorboard_logdir), error.strerror or error,
        )  # fmt: skip
