"""Windows of a recording, and reading them ahead.

Frames are steps of 10 ms; a column is a time step of the model, ``patch`` frames.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np
from torch import Tensor

from ..data.clip import ClipError
from ..data.entries import Entry, locate
from ..data.frontend import FRAME_LENGTH, FRAME_SHIFT, FRAMES_A_SECOND, FrontEnd
from ..data.reader import read_window

READERS = 4  # threads that decode audio and compute spectrograms while a model is at work
LEAST_HALVES = 2 * math.ceil(FRAME_LENGTH / FRAME_SHIFT)  # half frames; less gives no frame


class Window(NamedTuple):
    """A window of a recording.

    Attributes:
        start: its first frame, from the start of the recording.
        first: the first of its columns that counts.
        last: one past the last column that counts.
    """

    start: int
    first: int
    last: int

    @property
    def columns(self) -> slice:
        """The columns that count."""
        return slice(self.first, self.last)


@dataclass(frozen=True)
class Windowing:
    """How recordings are cut into windows.

    Attributes:
        frames: length of a window in frames, a multiple of ``patch``.
        hop: frames from the start of a window to that of the next one.
        patch: frames of a column.
    """

    frames: int
    hop: int
    patch: int

    @classmethod
    def from_seconds(
        cls, window: float | None, hop: float | None, patch: int, default: int
    ) -> Windowing:
        """Make a windowing from lengths in seconds.

        Args:
            window: length of a window, rounded up to whole columns; None for ``default``.
            hop: from window to window, rounded to frames; None for the window's length.
            patch: frames of a column.
            default: frames of a window where none is given, rounded up likewise.

        Raises:
            ValueError: A length is not positive.
        """
        for name, value in (("window", window), ("hop", hop)):
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"the {name} is {value} s; it must be more than 0")
        # What is no multiple of a frame only by rounding (0.28 * 100) is taken for one.
        frames = default if window is None else math.ceil(round(window * FRAMES_A_SECOND, 6))
        frames = math.ceil(frames / patch) * patch
        return cls(frames, frames if hop is None else round(hop * FRAMES_A_SECOND) or 1, patch)

    @property
    def seconds(self) -> float:
        """Length of a window in seconds."""
        return self.frames / FRAMES_A_SECOND

    def plan(self, num_samples: int, sample_rate: int) -> list[Window]:
        """Lay windows over a recording.

        The first begins at its start. Another one follows as long as at least half a column of the
        recording (and 30 ms) is left uncovered. A column counts if its centre lies within the
        recording, and where windows overlap, in the one whose middle is nearer: every moment
        counts once. The very first column always counts.

        Args:
            num_samples: samples of the recording.
            sample_rate: their rate in Hz.

        Returns:
            At least one window.
        """
        least = max(self.patch, LEAST_HALVES)
        starts = [0]
        # In half frames and samples: whole numbers, so that no rounding moves a column.
        while (2 * (starts[-1] + max(self.frames, self.hop)) + least) * sample_rate < (
            2 * FRAMES_A_SECOND * num_samples
        ):
            starts.append(starts[-1] + self.hop)
        overlap = max(self.frames - self.hop, 0)
        centres = self.patch * (2 * np.arange(self.frames // self.patch) + 1)
        windows = []
        for start in starts:
            counts = (2 * start + centres) * sample_rate < 2 * FRAMES_A_SECOND * num_samples
            if start != starts[0]:
                counts &= centres >= overlap
            if start != starts[-1]:
                counts &= centres < 2 * self.frames - overlap
            kept = np.flatnonzero(counts)
            first, last = (int(kept[0]), int(kept[-1]) + 1) if len(kept) else (0, int(start == 0))
            windows.append(Window(start, first, last))
        return windows


class ClipLayout:
    """Where the results of a recording's windows go in one array.

    Results along time (``[T/p, ...]`` of each window) are joined to one time axis, of the columns
    that count. Others are rows, ``[windows, ...]``; of a single window it is the result itself.

    Args:
        windows: of the recording.
        along_time: the results have a time axis.
        stacked: an axis of blocks comes first, ``[depth, ...]``, in the results and in the array.
    """

    def __init__(self, windows: list[Window], along_time: bool, stacked: bool) -> None:
        self.windows = windows
        self.along_time = along_time
        self._lead: tuple[slice | int, ...] = (slice(None),) * int(stacked)
        widths = [window.last - window.first for window in windows]
        self._ends = np.cumsum(widths).tolist()

    def shape(self, result: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the array, given that of one window's result."""
        lead, rest = result[: len(self._lead)], result[len(self._lead) :]
        if self.along_time:
            return (*lead, self._ends[-1], *rest[1:])
        return result if len(self.windows) == 1 else (*lead, len(self.windows), *rest)

    def put(self, array: np.ndarray, number: int, result: np.ndarray) -> None:
        """Put the result of a window into the array."""
        if self.along_time:
            window = self.windows[number]
            start = self._ends[number] - (window.last - window.first)
            place = (*self._lead, slice(start, self._ends[number]))
            array[place] = result[(*self._lead, window.columns)]
        elif len(self.windows) == 1:
            array[...] = result
        else:
            # A last window of its own length has fewer tokens; 0 stands for the others.
            shape = (*array.shape[: len(self._lead)], *array.shape[len(self._lead) + 1 :])
            missing = [(0, size - own) for size, own in zip(shape, result.shape)]
            array[(*self._lead, number)] = np.pad(result, missing)


def column_times(windowing: Windowing, windows: list[Window]) -> np.ndarray:
    """Return the centres of all columns that count, in seconds, `[columns]` float64."""
    columns = [
        window.start + windowing.patch * (np.arange(window.first, window.last) + 0.5)
        for window in windows
    ]
    return np.concatenate(columns) / FRAMES_A_SECOND


class Job(NamedTuple):
    """A window to be read.

    Attributes:
        clip: whose window it is, a number that the caller understands.
        number: which of the recording's windows.
        path: the audio file.
        start: first frame.
        expected_samples: the length that the file's header has to give; None for any.
    """

    clip: int
    number: int
    path: str | os.PathLike[str]
    start: int = 0
    expected_samples: int | None = None

    def entry(self) -> Entry:
        """Return the entry of the recording."""
        return locate(self.path)._replace(size=self.expected_samples)


def read_batches(
    jobs: Iterable[Job], front_end: FrontEnd, batch_size: int
) -> Iterator[list[tuple[Job, Tensor | ClipError]]]:
    """Read windows, a batch ahead of what is asked for: memory does not grow with their number.

    Args:
        jobs: the windows, of any number of recordings.
        front_end: Makes spectrograms of the windows' length.
        batch_size: windows of a batch.

    Yields:
        ``batch_size`` windows, fewer in the last batch, in order: each with its spectrogram
        `[1, T, F]` or with what is wrong.
    """

    def read(job: Job) -> Tensor:
        return read_window(job.entry(), front_end, job.start)

    yield from read_ahead(jobs, read, batch_size)


def read_ahead(
    jobs: Iterable[Job], read: Callable[[Job], Tensor], batch_size: int
) -> Iterator[list[tuple[Job, Tensor | ClipError]]]:
    """Read by a function as ``read_batches`` does; it may raise ClipError."""

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
