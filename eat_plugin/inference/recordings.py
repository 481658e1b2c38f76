"""Scores and features of whole recordings of any length, window by window."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..choices import ALONG_TIME, DEFAULT_BATCH
from ..data.clip import ClipError
from ..data.entries import Entry
from .batches import group_results, list_jobs
from .clips import name_error, naming_clip
from .windows import ClipLayout, Window, Windowing

if TYPE_CHECKING:
    from .loaded import Loaded


class ClipFeatures(NamedTuple):
    """The features of a recording, float32, see ``ClipLayout``.

    The centres of the columns are in seconds, for ``frame`` and ``grid`` of sound; else None.
    """

    x: np.ndarray
    times: np.ndarray | None


def score_recordings(loaded: Loaded, entries: list[Entry]) -> np.ndarray:
    """Score recordings as validation does: [recordings, classes] float32.

    Raises:
        ValueError: a recording cannot be used.
    """
    windowing, num_classes = loaded.windowing(), len(loaded.require_labels())
    plans = []
    for entry in entries:
        with naming_clip(entry):
            plans.append(loaded.plan_scores(windowing, *loaded.probe(entry)))
    jobs = list_jobs(zip(entries, plans))
    results = loaded.map_windows(jobs, windowing, loaded.predict, DEFAULT_BATCH)
    scores = np.zeros((len(entries), num_classes), dtype=np.float32)
    for number, rows in group_results(results):
        if isinstance(rows, ClipError):
            raise name_error(entries[number], rows) from rows
        scores[number] = np.mean(rows, axis=0)
    return scores


def extract_recordings(
    loaded: Loaded,
    entries: list[Entry],
    granularity: str,
    layer: int | str,
    windowing: Windowing,
    batch_size: int,
) -> Iterator[ClipFeatures]:
    """Compute the features of recordings.

    Raises:
        ValueError: a recording cannot be used, or an argument is invalid.
    """
    loaded.check_features(granularity, layer)
    plans: list[list[Window]] = []
    for entry in entries:
        with naming_clip(entry):
            plans.append(loaded.plan(windowing, *loaded.probe(entry)))
    along_time = granularity in ALONG_TIME
    layouts = [ClipLayout(windows, along_time, layer == "all") for windows in plans]
    compute = partial(loaded.features, granularity=granularity, layer=layer)
    jobs = list_jobs(zip(entries, plans))
    for job, row in loaded.map_windows(jobs, windowing, compute, batch_size):
        if isinstance(row, ClipError):
            raise name_error(job.entry, row) from row
        layout = layouts[job.clip]
        if job.number == 0:
            x = np.empty(layout.shape(row.shape), dtype=np.float32)
        layout.put(x, job.number, row)
        if job.is_last:
            yield ClipFeatures(x, loaded.times(windowing, layout.windows) if along_time else None)
