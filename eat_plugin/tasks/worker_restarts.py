"""A data worker that is killed from outside does not end a run; an error ends it in order."""

import logging
import re
from functools import partial
from typing import Any, Callable, Iterator

from fairseq.data.iterators import CountingIterator, EpochBatchIterator

from .stopping import Stopping

logger = logging.getLogger(__name__)

_KILLED = re.compile(r"DataLoader worker \(pid.*", re.S)  # PyTorch's message


def restart_workers(batches: EpochBatchIterator, stopping: Stopping) -> EpochBatchIterator:
    """Make an iterator over epochs start new data workers when one is killed.

    Half as many start, none if there was one, with the first batch that was not delivered. Batches
    are the same as without a kill. After an error of the data the run is asked to end, and empty
    batches follow, which it does not use.
    """
    if "_get_iterator_for_epoch" in vars(batches):  # fairseq may reuse an iterator
        return batches
    make = batches._get_iterator_for_epoch

    def get_iterator(
        epoch: int, shuffle: bool, fix_batches_to_gpus: bool = False, offset: int = 0
    ) -> Any:
        start = partial(make, epoch, shuffle, fix_batches_to_gpus=fix_batches_to_gpus)
        found = start(offset=offset)
        if found is None:
            return found
        survived = _survive(batches, found, lambda number: start(offset=offset + number), stopping)
        return CountingIterator(survived, start=offset, total=found.total)

    batches._get_iterator_for_epoch = get_iterator
    return batches


def _survive(
    batches: Any, items: Any, start_again: Callable[[int], Any], stopping: Stopping
) -> Iterator[Any]:
    """Yield items; ``start_again(n)`` returns those after the first n."""
    delivered = 0
    while True:
        try:
            for item in items:
                delivered += 1
                yield item
            return
        except (RuntimeError, OSError, MemoryError) as error:
            killed = _KILLED.search(str(error))
            if killed is None or batches.num_workers == 0:
                if not stopping.is_active:
                    raise
                stopping.fail(_reason(error))
                break
            before, batches.num_workers = batches.num_workers, batches.num_workers // 2
            logger.warning(
                "%s. Usual causes: memory (each worker needs some; see dataset.num_workers), or a "
                "small /dev/shm (docker run --shm-size). Training continues with %d of %d workers",
                " ".join(killed[0].split()).rstrip("."), batches.num_workers, before,
            )  # fmt: skip
        batches.dataloader = None  # fairseq may reuse it
        batches.persistent_workers = batches.num_workers > 0 and getattr(
            batches, "persistent_workers", False
        )
        items = start_again(delivered)
    while True:
        yield {}


def _reason(error: Exception) -> str:
    """Return the message of an error; PyTorch gives one of a data worker with its traceback."""
    message = str(error).strip()
    if message.startswith("Caught "):
        last = message.splitlines()[-1]
        message = last.partition(": ")[2] or last
    return message or type(error).__name__
