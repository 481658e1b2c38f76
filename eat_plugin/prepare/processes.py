"""Work spread over processes, in order."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_processes(
    function: Callable[[Item], Result], items: list[Item], workers: int, chunk: int
) -> Iterator[Result]:
    """Apply a function to many items, in parallel.

    Args:
        function: What to do; it and its results can be pickled.
        items: What to do it with.
        workers: Processes to use at most.
        chunk: Items that a process takes at a time.

    Yields:
        The results, in order.

    Raises:
        OSError: A worker process died.
    """
    workers = min(workers, math.ceil(len(items) / chunk))
    if workers < 2:
        yield from map(function, items)
        return
    pool = ProcessPoolExecutor(workers, initializer=_ignore_interrupts)
    try:
        yield from pool.map(function, items, chunksize=chunk)
    except BrokenProcessPool as error:
        raise OSError("a worker process died; is there enough memory?") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process ends its workers


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))  # of the job, not of the machine
    return os.cpu_count() or 1
