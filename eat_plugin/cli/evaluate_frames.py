"""`eat evaluate` for a model that classifies time steps, by strong labels."""

from __future__ import annotations

import argparse
import json
import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from eat_plugin.cli import Failures, conclude, inputs, progress, say
from eat_plugin.cli.evaluation_report import (
    describe,
    exit_code,
    finite,
    new_results,
    show_clips,
)
from eat_plugin.data.clip import ClipError
from eat_plugin.data.entries import original_name
from eat_plugin.data.events import ENDING, Event, label_frames, read_events
from eat_plugin.data.frames import FRAMES_A_SECOND
from eat_plugin.data.label_set import LabelSet
from eat_plugin.data.manifest import Manifest
from eat_plugin.data.tables import write_csv
from eat_plugin.ranking import RankedScores

if TYPE_CHECKING:
    from eat_plugin.inference import Loaded

# Parameters of DCASE 2021 task 4 for the two scores of Bilen et al. 2020.
PSDS: dict[str, dict[str, float | None]] = {
    "psds1": {
        "dtc_threshold": 0.7, "gtc_threshold": 0.7, "cttc_threshold": None, "alpha_ct": 0.0,
        "alpha_st": 1.0, "max_efpr": 100.0,
    },
    "psds2": {
        "dtc_threshold": 0.1, "gtc_threshold": 0.1, "cttc_threshold": 0.3, "alpha_ct": 0.5,
        "alpha_st": 1.0, "max_efpr": 100.0,
    },
}  # fmt: skip
SEGMENT = 1.0  # seconds
THRESHOLD = 0.5  # of a probability; and of the share of a time step


class Clip(NamedTuple):
    """Scores [columns, C] of a clip, the C classes of its columns, and its length in seconds."""

    scores: np.ndarray
    targets: np.ndarray
    starts: np.ndarray  # of the columns, in seconds
    duration: float
    events: list[Event]


def run(args: argparse.Namespace, loaded: Loaded, label_set: LabelSet) -> int:
    """Evaluate a model; return the exit code."""
    import sed_scores_eval  # noqa: F401, says what is missing before the work

    manifest = inputs.open_split(args.data, args.split, loaded)
    events = read_events(args.data / f"{args.split}.{ENDING}", manifest, label_set)
    failures: Failures = {}
    clips = _score(args, loaded, manifest, events, failures)
    conclude("evaluate", failures, len(manifest))
    found, columns = measure(list(clips.values()), label_set)
    metrics = describe(args, loaded, manifest, sorted(clips), found)
    if args.json:
        say(json.dumps(metrics))
    else:
        on = f" on {metrics['on']}" if metrics["n_missing"] else ""
        for name, value in found.items():
            if value is not None:
                say(f"{name:<12} {value:.4f}{on}")
        show_clips(metrics)
    if args.out is not None:
        rows = zip(label_set.ids, label_set.names, *columns.values())
        cells = ([_cell(value) for value in row] for row in rows)
        with new_results(args.out, metrics, failures):
            write_csv(args.out / "classes.csv", [("label", "name", *columns), *cells])
    return exit_code(args, metrics)


def _score(
    args: argparse.Namespace,
    loaded: Loaded,
    manifest: Manifest,
    events: list[list[Event]],
    failures: Failures,
) -> dict[int, Clip]:
    """Score whole clips; return the usable ones by their number in the manifest."""
    from eat_plugin.inference.batches import group_results, list_jobs
    from eat_plugin.inference.windows import join_columns

    windowing, plans, lengths = loaded.windowing(), [], []
    for number in range(len(manifest)):
        entry = manifest.entry(number)
        try:
            size, rate = loaded.probe(entry)
            size = size if entry.size is None else entry.size
        except ClipError:
            size, rate = 1, 1  # reading the clip gives the error
        plans.append(loaded.plan(windowing, size, rate))
        lengths.append(size / rate)
    jobs = list_jobs(zip((manifest.entry(number) for number in range(len(manifest))), plans))
    results = group_results(loaded.map_windows(jobs, windowing, loaded.predict, args.batch_size))
    clips = {}
    for number, rows in progress(results, "evaluating", "clip", len(manifest)):
        name = original_name(manifest.name(number))
        if isinstance(rows, ClipError):
            failures[name] = str(rows)
            continue
        scores, patch = join_columns(rows, plans[number]), windowing.patch
        late = [event for event in events[number] if event.onset >= lengths[number]]
        if late:
            raise ValueError(
                f"{args.data / args.split}.{ENDING}: an event of {name!r} begins at "
                f"{late[0].onset} s, but the clip ends at {lengths[number]:g} s"
            )
        frames = label_frames(events[number], scores.shape[1], 0.0, len(scores) * patch)
        share = frames.view(len(scores), patch, -1).float().mean(dim=1).numpy()
        starts = np.arange(len(scores)) * windowing.patch / FRAMES_A_SECOND
        clips[number] = Clip(scores, share >= THRESHOLD, starts, lengths[number], events[number])
    return clips


def measure(
    clips: list[Clip], label_set: LabelSet
) -> tuple[dict[str, float | None], dict[str, list[float]]]:
    """Compute the metrics of the classes that occur, together and of each class.

    Returns:
        ``psds1``, ``psds2``, ``segment_f1`` and ``mAP``, None where no class occurs; and of each
        class ``psds1``, ``psds2``, ``segment_f1``, ``AP``, NaN if it does not occur, and the number
        of its ``events``.
    """
    import sed_scores_eval as sed
    from sed_scores_eval.base_modules.scores import create_score_dataframe

    labels = [event.label for clip in clips for event in clip.events]
    counts = np.bincount(labels, minlength=len(label_set))
    used = np.flatnonzero(counts).tolist()
    names = [_key(label) for label in used]
    scores, truth, durations = {}, {}, {}
    for number, clip in enumerate(clips):
        edges = np.append(clip.starts, clip.duration)
        scores[str(number)] = create_score_dataframe(clip.scores[:, used], edges, names)
        truth[str(number)] = _merge(clip)
        durations[str(number)] = clip.duration
    columns = {name: [math.nan] * len(label_set) for name in (*PSDS, "segment_f1")}
    together = dict.fromkeys((*PSDS, "segment_f1", "mAP"), math.nan)
    if used:
        found: dict[str, dict[str, float]] = {}
        for name, options in PSDS.items():
            if len(used) == 1:  # it cannot be taken for another one
                options = {**options, "cttc_threshold": None, "alpha_ct": 0.0}
            together[name], found[name] = sed.intersection_based.psds(
                scores, truth, durations, **options
            )[:2]
        found["segment_f1"] = sed.segment_based.fscore(
            scores, truth, durations, threshold=THRESHOLD, segment_length=SEGMENT
        )[0]
        together["segment_f1"] = found["segment_f1"]["macro_average"]
        for name, values in found.items():
            for label in used:
                columns[name][label] = float(values[_key(label)])
        steps = (np.concatenate(parts) for parts in zip(*(clip[:2] for clip in clips)))
        ranked = RankedScores(*steps)
        together["mAP"] = ranked.mean_average_precision()
        columns["AP"] = ranked.average_precision().tolist()
    return (
        {name: finite(value) for name, value in together.items()},
        {**columns, "events": counts.tolist()},
    )


def _key(label: int) -> str:
    """Return the name of a class for sed_scores_eval, which sorts names."""
    return f"{label:05d}"


def _merge(clip: Clip) -> list[tuple[float, float, str]]:
    """Return the events of a clip within it; those of a class that overlap or touch are one."""
    merged: list[tuple[float, float, str]] = []
    for onset, offset, label in sorted(clip.events, key=lambda event: (event.label, event.onset)):
        name, end = _key(label), min(offset, clip.duration)
        if merged and merged[-1][2] == name and onset <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]), name)
        else:
            merged.append((onset, end, name))
    return merged


def _cell(value: object) -> object:
    return "" if isinstance(value, float) and math.isnan(value) else value
