"""Scores and features of whole recordings of any length, window by window."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from torch import Tensor

from ..choices import ALONG_TIME, DEFAULT_BATCH
from ..data.clip import ClipError
from ..data.entries import Entry
from .batches import group_results, list_jobs
from .clips import Clip, locate_clips, name_error, naming_clip
from .windows import ClipLayout, Window, Windowing, join_columns

if TYPE_CHECKING:
    from .loaded import Loaded


class ClipFeatures(NamedTuple):
    """The features of a recording, float32, see ``ClipLayout``.

    The centres of the columns are in seconds, for ``frame`` and ``grid`` of sound; else None.
    """

    x: np.ndarray
    times: np.ndarray | None


def classifies_frames(loaded: Loaded) -> bool:
    """Whether a model gives the probabilities of each time step, not of clips."""
    return bool(getattr(loaded.model, "by_frame", False))


def detect(
    loaded: Loaded,
    clips: Clip | list[Clip],
    window: float | None = None,
    hop: float | None = None,
    batch_size: int = DEFAULT_BATCH,
) -> ClipFeatures | list[ClipFeatures]:
    """Compute the probabilities of all classes along time, for whole recordings.

    Args:
        loaded: a model that was fine-tuned with strong labels (``benchmark=frames``).
        clips: a clip, or a list of clips, which gives a list.
        window: see ``Loaded.windowing``.
        hop: see ``Loaded.windowing``.
        batch_size: windows at once.

    Returns:
        ``x``, float32 [columns, classes], in the order of ``loaded.labels``; ``times``.

    Raises:
        ValueError: the model classifies whole clips, or a recording cannot be used.
    """
    require_frames(loaded)
    windowing, entries = loaded.windowing(window, hop), locate_clips(clips)
    joined = _join(loaded, entries, loaded.predict, windowing, batch_size)
    return list(joined) if isinstance(clips, list) else next(joined)


def require_frames(loaded: Loaded) -> None:
    """Raise ValueError if a model does not give the probabilities of each time step."""
    loaded.require_labels()
    if not classifies_frames(loaded):
        raise ValueError(
            f"{loaded.path} classifies whole clips; fine-tune with strong labels "
            "(benchmark=frames) for labels along time"
        )


def score_recordings(loaded: Loaded, entries: list[Entry]) -> np.ndarray:
    """Score recordings as validation does: [recordings, classes] float32.

    The score of a model of time steps is the largest one in the whole recording.

    Raises:
        ValueError: a recording cannot be used.
    """
    windowing, num_classes = loaded.windowing(), len(loaded.require_labels())
    by_frame = classifies_frames(loaded)
    plan = loaded.plan if by_frame else loaded.plan_scores
    plans = []
    for entry in entries:
        with naming_clip(entry):
            plans.append(plan(windowing, *loaded.probe(entry)))
    jobs = list_jobs(zip(entries, plans))
    results = loaded.map_windows(jobs, windowing, loaded.predict, DEFAULT_BATCH)
    scores = np.zeros((len(entries), num_classes), dtype=np.float32)
    for number, rows in group_results(results):
        if isinstance(rows, ClipError):
            raise name_error(entries[number], rows) from rows
        if by_frame:
            scores[number] = join_columns(rows, plans[number]).max(axis=0)
        else:
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
    compute = partial(loaded.features, granularity=granularity, layer=layer)
    along_time, stacked = granularity in ALONG_TIME, layer == "all"
    yield from _join(loaded, entries, compute, windowing, batch_size, along_time, stacked)


def _join(
    loaded: Loaded,
    entries: list[Entry],
    compute: Callable[[Tensor], Tensor],
    windowing: Windowing,
    batch_size: int,
    along_time: bool = True,
    stacked: bool = False,
) -> Iterator[ClipFeatures]:
    """Compute the windows of recordings, and join them as ``ClipLayout`` does."""
    plans: list[list[Window]] = []
    for entry in entries:
        with naming_clip(entry):
            plans.append(loaded.plan(windowing, *loaded.probe(entry)))
    layouts = [ClipLayout(windows, along_time, stacked) for windows in plans]
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
