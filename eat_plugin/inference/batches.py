"""Batches of windows: read by threads while the model computes the batch before."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import NamedTuple, Union

import numpy as np
import torch
from torch import Tensor

from ..data.clip import ClipError
from ..data.entries import Entry
from .windows import Window

READERS = 4  # threads that decode audio and compute spectrograms


class Job(NamedTuple):
    """A window to compute."""

    clip: int  # number of the recording
    number: int  # of the window within the recording
    entry: Entry  # the recording
    start: int = 0  # first frame
    is_last: bool = True  # of the recording


Result = tuple[Job, Union[np.ndarray, ClipError]]
"""A window and its result, or why its recording cannot be used."""


def list_jobs(clips: Iterable[tuple[Entry, list[Window]]]) -> Iterator[Job]:
    """List all windows of recordings, numbered from 0."""
    for clip, (entry, windows) in enumerate(clips):
        for number, window in enumerate(windows):
            yield Job(clip, number, entry, window.start, number == len(windows) - 1)


def group_results(
    results: Iterable[Result],
) -> Iterator[tuple[int, list[np.ndarray] | ClipError]]:
    """Yield the number of each recording as soon as it is complete, and its results or error."""
    rows: list[np.ndarray] = []
    for job, row in results:
        if isinstance(row, ClipError):
            yield job.clip, row
            continue
        if job.number == 0:
            rows = []
        rows.append(row)
        if job.is_last:
            yield job.clip, rows


def compute_batches(
    jobs: Iterable[Job],
    read: Callable[[Job], Tensor],
    function: Callable[[Tensor], Tensor],
    batch_size: int,
) -> Iterator[Result]:
    """Apply a function to windows, batch by batch; see ``Loaded.map_windows``."""
    failed: set[int] = set()
    remaining = (job for job in jobs if job.clip not in failed)
    for batch in read_ahead(remaining, read, batch_size):
        inputs = [found for _, found in batch if isinstance(found, Tensor)]
        with torch.inference_mode():
            rows = iter(_compute_rows(function, inputs))
        for job, found in batch:
            row = found if isinstance(found, ClipError) else next(rows)
            if job.clip not in failed:
                yield job, row
            if isinstance(row, ClipError):
                failed.add(job.clip)


def _compute_rows(function: Callable[[Tensor], Tensor], inputs: list[Tensor]) -> list[np.ndarray]:
    """Apply a function to a batch, once per shape: clips may keep their own length."""
    numbers_of: dict[torch.Size, list[int]] = {}
    for number, source in enumerate(inputs):
        numbers_of.setdefault(source.shape, []).append(number)
    rows: dict[int, np.ndarray] = {}
    for numbers in numbers_of.values():
        results = function(torch.stack([inputs[number] for number in numbers]))
        rows.update(zip(numbers, results.float().cpu().numpy()))
    return [rows[number] for number in range(len(inputs))]


def read_ahead(
    jobs: Iterable[Job], read: Callable[[Job], Tensor], batch_size: int
) -> Iterator[list[tuple[Job, Tensor | ClipError]]]:
    """Read windows in order, one batch ahead, so that memory does not grow with their number.

    Each comes with its input, or with the ClipError that ``read`` raised.
    """

    def try_to_read(job: Job) -> Tensor | ClipError:
        try:
            return read(job)
        except ClipError as error:
            return error

    jobs = iter(jobs)
    pool = ThreadPoolExecutor(READERS)
    pending: deque[tuple[Job, Future[Tensor | ClipError]]] = deque()
    try:
        while True:
            ahead = 2 * batch_size - len(pending)
            pending.extend((job, pool.submit(try_to_read, job)) for job in islice(jobs, ahead))
            if not pending:
                return
            ready = [pending.popleft() for _ in range(min(batch_size, len(pending)))]
            yield [(job, future.result()) for job, future in ready]
    finally:
        pool.shutdown(cancel_futures=True)
