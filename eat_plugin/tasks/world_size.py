"""The position in an epoch of a run that resumes with other processes or batches.

With another number of processes it sees the same clips in each update.
"""

import logging
from typing import Any, Dict, Optional, Union

from fairseq.data.iterators import EpochBatchIterator

from .resumed import ResumedRun
from .run_config import RunConfig

logger = logging.getLogger(__name__)

LIMITS = ("dataset.batch_size", "dataset.max_tokens")
PROCESSES = "distributed_training.distributed_world_size"


def count_processes(run: Union[RunConfig, ResumedRun]) -> int:
    """Return the number of processes of a run."""
    return int(run.get(PROCESSES) or 1)


def keep_position(
    batches: EpochBatchIterator, run: RunConfig, resumed: Optional[ResumedRun]
) -> EpochBatchIterator:
    """Make an iterator over epochs take the position of a run with other processes or batches.

    fairseq saves the number of batches of one process.
    """
    if resumed is None or "load_state_dict" in vars(batches):  # fairseq may reuse an iterator
        return batches
    before, now = count_processes(resumed), count_processes(run)
    load = batches.load_state_dict

    def load_state_dict(state: Dict[str, Any]) -> None:
        position = state.get("iterations_in_epoch", 0) * before
        if position:
            position = _convert(position, run, resumed, len(batches) * now)
        if position % now:
            logger.warning(
                "the checkpoint is of %d processes, this run has %d: up to %d batches of the epoch "
                "are seen twice", before, now, now - 1,
            )  # fmt: skip
        state["iterations_in_epoch"] = position // now
        load(state)

    batches.load_state_dict = load_state_dict
    return batches


def _convert(position: int, run: RunConfig, resumed: ResumedRun, length: int) -> int:
    """Convert a number of batches to batches of another size, and say so.

    ``length`` is the number of batches of an epoch, of all processes.
    """
    before, now = ([part.get(name) for name in LIMITS] for part in (resumed, run))
    if before == now or not any(before):  # the same, or unknown
        return position
    shown = "; ".join(
        f"{name}={new}, in the checkpoint {old}"
        for name, old, new in zip(LIMITS, before, now) if old != new
    )  # fmt: skip
    has_clips = not (before[1] or now[1])  # else batches have different numbers of clips
    converted = position * int(before[0]) // int(now[0]) if has_clips else length
    if converted >= length:  # also of a larger data set
        logger.warning("%s: the epoch begins again", shown)
        return 0
    logger.warning("%s: of this epoch some clips are seen twice, and others not", shown)
    return converted


def warn_of_other_batches(run: RunConfig, resumed: ResumedRun) -> None:
    """Say how an update keeps its batches with another number of processes."""
    before, now = _batches_per_update(resumed), _batches_per_update(run)
    if before == now or count_processes(resumed) == count_processes(run):
        return
    accumulated, rest = divmod(before, count_processes(run))
    advice = "" if rest else f"; set optimization.update_freq=[{accumulated}] to keep it"
    logger.warning(
        "an update has %d batches over all processes, in the checkpoint %d%s", now, before, advice
    )


def _batches_per_update(run: Union[RunConfig, ResumedRun]) -> int:
    return count_processes(run) * int(list(run.get("optimization.update_freq") or [1])[-1])
