"""Checkpoints of a run: saved completely or not at all; a failed save does not end training."""

import errno
import functools
import logging
import os
import sys
from contextlib import contextmanager
from typing import Any, Callable, Iterator, Optional, TypeVar

import torch
from fairseq import checkpoint_utils
from fairseq.file_io import PathManager
from fairseq.logging import progress_bar

from ..checkpoint_files import find_damage
from ..data.files import clone, drafted
from .damaged import replace_damaged
from .processes import in_first_process
from .resumed import ResumedRun
from .run_config import RunConfig
from .run_lock import lock

logger = logging.getLogger(__name__)

TRAINING = "fairseq_cli.train"
Result = TypeVar("Result")


class Saver:
    """Saves the checkpoints of one run.

    Attributes:
        failure: why the last save failed; empty if it did not.
    """

    def __init__(self, run: RunConfig, resumed: Optional[ResumedRun]) -> None:
        self._run = run
        self._damaged = None if resumed is None else resumed.damaged
        self.failure = ""

    def begin(self) -> None:
        """Prepare the folder when fairseq's trainer starts, in all processes.

        Raises:
            ValueError: another run writes to the folder, or it cannot be written to.
        """
        in_first_process(self._prepare_folder)

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


def adapt_fairseq() -> None:
    """Make fairseq's functions call the ``saver`` of the task; without one they stay the same."""
    _wrap(checkpoint_utils, "load_checkpoint", _load)
    _wrap(checkpoint_utils, "save_checkpoint", _save)
    _wrap(progress_bar.TensorboardProgressBarWrapper, "_log_to_tensorboard", _log_to_tensorboard)
    if TRAINING in sys.modules:
        _wrap(sys.modules[TRAINING], "validate_and_save", _validate_and_save)


def _wrap(owner: Any, name: str, function: Callable[..., Any]) -> None:
    original = getattr(owner, name)
    if not hasattr(original, "is_adapted"):

        @functools.wraps(original)
        def adapted(*arguments: Any, **options: Any) -> Any:
            return function(original, *arguments, **options)

        adapted.is_adapted = True  # type: ignore[attr-defined]
        setattr(owner, name, adapted)


def _load(original: Callable[..., Any], cfg: Any, trainer: Any, **arguments: Any) -> Any:
    saver = getattr(trainer.task, "saver", None)
    if saver is not None:
        saver.begin()
    return original(cfg, trainer, **arguments)


def _save(original: Callable[..., Any], cfg: Any, trainer: Any, *arguments: Any) -> Any:
    saver = getattr(trainer.task, "saver", None)
    if saver is None:
        return original(cfg, trainer, *arguments)
    kept = vars(checkpoint_utils.save_checkpoint)
    best = kept.get("best")
    with _complete_files():
        path = saver.attempt(lambda: original(cfg, trainer, *arguments))
    if saver.failure:  # the best checkpoint is still an earlier one
        kept.pop("best", None)
        kept.update({} if best is None else {"best": best})
    return path


def _validate_and_save(
    original: Callable[..., Any], cfg: Any, trainer: Any, task: Any, epochs: Any, *rest: Any
) -> Any:
    losses, stops = original(cfg, trainer, task, epochs, *rest)
    last, end_of_epoch = cfg.optimization.max_epoch or 0, rest[-1]
    is_last = end_of_epoch and (
        0 < last <= epochs.epoch or trainer.get_lr() <= cfg.optimization.stop_min_lr
    )
    if (stops or is_last) and getattr(task, "saver", None) is not None:
        task.saver.conclude(trainer.device)
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


@contextmanager
def _complete_files() -> Iterator[None]:
    """Replace fairseq's ways of writing and copying a checkpoint."""
    names = {"torch_persistent_save": write_checkpoint, "PathManager": _Linking}
    given = {name: getattr(checkpoint_utils, name) for name in names}
    try:
        for name, value in names.items():
            setattr(checkpoint_utils, name, value)
        yield
    finally:
        for name, value in given.items():
            setattr(checkpoint_utils, name, value)


class _Linking(PathManager):
    @staticmethod
    def copy(src_path: str, dst_path: str, overwrite: bool = False) -> bool:
        """Give a checkpoint a second name."""
        copy_checkpoint(src_path, dst_path)
        return True


def copy_checkpoint(source: str, target: str) -> None:
    """Give a checkpoint a second name, by a hard link where there are any."""
    with drafted(target, follow_links=False) as draft:
        clone(source, draft)


def write_checkpoint(state: Any, filename: str, async_write: bool = False) -> None:
    """Write a checkpoint under a temporary name, flush it, compare its checksums, rename it.

    Raises:
        OSError: the disk is full or broken; there is no new file.
    """
    try:
        with drafted(filename, follow_links=False) as draft:
            with open(draft, "wb") as file:
                torch.save(state, file)
            damage = find_damage(draft)
            if damage:
                raise OSError(errno.EIO, f"damaged after writing: {damage}", os.fspath(filename))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        counter: Any = _Counter()
        torch.save(state, counter)
        text = f"{error.strerror}, {counter.size / 1e6:.1f} MB needed"
        raise OSError(error.errno, text, filename) from error


class _Counter:
    """A file that counts its bytes."""

    size = 0

    def write(self, data: Any) -> int:
        number = memoryview(data).nbytes
        self.size += number
        return number

    def flush(self) -> None:
        """Do nothing; PyTorch calls it."""
