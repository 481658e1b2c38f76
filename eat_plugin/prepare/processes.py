"""Work spread over processes, and its progress."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from ..data.clip import ClipError
from ..data.remote import read_ahead

Item = TypeVar("Item")
Result = TypeVar("Result")
Progress = Callable[..., Iterable[Any]]
"""Shows progress: (items, label, unit, total) -> items, as ``cli.progress``."""


@contextmanager
def worker_pool(
    workers: int, setup: Callable[..., None] | None = None, *args: Any
) -> Iterator[ProcessPoolExecutor]:
    """Yield a pool of processes that ignore SIGINT and end when the parent process ends.

    Each calls ``setup(*args)`` first. A worker process that dies raises an OSError.
    """
    pool = ProcessPoolExecutor(workers, initializer=_start_worker, initargs=(setup, args))
    try:
        yield pool
    except BrokenProcessPool as error:
        raise OSError("a worker process died; is there enough memory?") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker(setup: Callable[..., None] | None, args: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if setup is not None:
        setup(*args)


def _end_with_parent() -> None:
    """Exit when the parent is killed; the worker would wait for tasks forever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def in_processes(
    function: Callable[[Item], Result], items: list[Item], workers: int, chunk: int
) -> Iterator[Result]:
    """Apply a picklable function to items in processes, ``chunk`` per task; yield in order.

    Clips in a store are fetched before their turn.
    With one worker everything runs in this process. A worker process that dies raises an OSError.
    """
    workers = min(workers, math.ceil(len(items) / chunk))
    if workers < 2:
        yield from map(function, read_ahead(items))
        return
    chunks = [items[start : start + chunk] for start in range(0, len(items), chunk)]
    with worker_pool(workers) as pool:
        for results in pool.map(partial(_apply, function), chunks):
            yield from results


def _apply(function: Callable[[Item], Result], items: list[Item]) -> list[Result]:
    return list(map(function, read_ahead(items)))


def try_in_processes(
    function: Callable[[Item], Result], items: list[Item], workers: int, chunk: int
) -> Iterator[Result | str]:
    """Do the same, and yield the message of a ClipError in place of a result."""
    return in_processes(partial(try_call, function), items, workers, chunk)


def try_call(function: Callable[[Item], Result], item: Item) -> Result | str:
    """Return a function's result, or the message of its ClipError."""
    try:
        return function(item)
    except ClipError as error:
        return str(error)


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))  # a cluster job may have fewer than the machine
    return os.cpu_count() or 1
