"""Windows of recordings: their positions, and their results in one array.

A frame is a step of 10 ms. A column is a time step of the model, ``patch`` frames.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..data.frames import FRAME_LENGTH, FRAME_SHIFT, FRAMES_A_SECOND

LEAST_HALVES = 2 * math.ceil(FRAME_LENGTH / FRAME_SHIFT)  # half frames; fewer give no frame


class Window(NamedTuple):
    """A window of a recording: its first frame, and the range of its valid columns."""

    start: int
    first: int
    last: int


@dataclass(frozen=True)
class Windowing:
    """How to cut recordings into windows."""

    frames: int  # length of a window, a multiple of ``patch``
    hop: int  # frames from the start of a window to the next start
    patch: int  # frames per column

    @classmethod
    def from_seconds(
        cls, window: float | None, hop: float | None, patch: int, default: int
    ) -> Windowing:
        """Convert lengths in seconds.

        ``window`` or ``default``, in frames, is rounded up to whole columns of ``patch`` frames,
        ``hop`` to frames; None for the window's length.
        """
        for name, value in (("window", window), ("hop", hop)):
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"the {name} is {value} s; it must be more than 0")
        # Rounded first: 0.28 * 100 is a little more than 28.
        frames = default if window is None else math.ceil(round(window * FRAMES_A_SECOND, 6))
        frames = max(1, math.ceil(frames / patch)) * patch
        return cls(frames, frames if hop is None else round(hop * FRAMES_A_SECOND) or 1, patch)

    @property
    def seconds(self) -> float:
        """Length of a window in seconds."""
        return self.frames / FRAMES_A_SECOND

    def plan(self, num_samples: int, sample_rate: int) -> list[Window]:
        """Lay windows over a recording; there is at least one.

        The first window begins at the start. Another one follows while at least half a column
        (and 30 ms) of the recording is not covered. A column is valid if its centre lies within
        the recording, and so do its first 30 ms: a column has a frame. Where windows overlap, it is
        valid in the window with the nearer middle. The very first column is always valid.
        """
        least = max(self.patch, LEAST_HALVES)
        starts = [0]
        # In half frames times samples: integers, so that rounding moves no column.
        while (2 * (starts[-1] + max(self.frames, self.hop)) + least) * sample_rate < (
            2 * FRAMES_A_SECOND * num_samples
        ):
            starts.append(starts[-1] + self.hop)
        overlap = max(self.frames - self.hop, 0)
        centres = self.patch * (2 * np.arange(self.frames // self.patch) + 1)
        windows = []
        for start in starts:
            ends = 2 * start + centres + (least - self.patch)
            valid = ends * sample_rate < 2 * FRAMES_A_SECOND * num_samples
            if start != starts[0]:
                valid &= centres >= overlap
            if start != starts[-1]:
                valid &= centres < 2 * self.frames - overlap
            kept = np.flatnonzero(valid)
            first, last = (int(kept[0]), int(kept[-1]) + 1) if len(kept) else (0, int(start == 0))
            windows.append(Window(start, first, last))
        return windows

    def times(self, windows: list[Window]) -> np.ndarray:
        """Return the centres of all valid columns in seconds, `[columns]` float64."""
        columns = [
            window.start + self.patch * (np.arange(window.first, window.last) + 0.5)
            for window in windows
        ]
        return np.concatenate(columns) / FRAMES_A_SECOND


def join_columns(results: list[np.ndarray], windows: list[Window]) -> np.ndarray:
    """Join the results of a recording's windows, ``[T/p, ...]`` each, to its valid columns."""
    pairs = zip(results, windows)
    return np.concatenate([result[window.first : window.last] for result, window in pairs])


class ClipLayout:
    """Positions of the results of a recording's windows in one array.

    Results along time (``[T/p, ...]`` per window) are joined to one time axis of valid columns.
    Others are stacked to ``[windows, ...]``; the result of a single window stays as it is. If
    ``stacked``, an axis of blocks comes first in the results and in the array.
    """

    def __init__(self, windows: list[Window], along_time: bool, stacked: bool) -> None:
        self.windows = windows
        self.along_time = along_time
        self._lead: tuple[slice | int, ...] = (slice(None),) * int(stacked)
        self._ends = np.cumsum([window.last - window.first for window in windows]).tolist()

    def shape(self, result: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the array from the shape of the first window's result."""
        lead, rest = result[: len(self._lead)], result[len(self._lead) :]
        if self.along_time:
            return (*lead, self._ends[-1], *rest[1:])
        return result if len(self.windows) == 1 else (*lead, len(self.windows), *rest)

    def put(self, array: np.ndarray, number: int, result: np.ndarray) -> None:
        """Put the result of a window into the array."""
        if self.along_time:
            _, first, last = self.windows[number]
            end = self._ends[number]
            valid = result[(*self._lead, slice(first, last))]
            array[(*self._lead, slice(end - (last - first), end))] = valid
        elif len(self.windows) == 1:
            array[...] = result
        else:
            # A last window with its own length has fewer tokens; the rest is not a number.
            shape = (*array.shape[: len(self._lead)], *array.shape[len(self._lead) + 1 :])
            missing = [(0, size - own) for size, own in zip(shape, result.shape)]
            array[(*self._lead, number)] = np.pad(result, missing, constant_values=np.nan)
