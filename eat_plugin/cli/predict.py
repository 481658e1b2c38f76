"""`eat predict`: the labels of audio files, by a fine-tuned model."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from eat_plugin.cli import inputs, progress, say
from eat_plugin.cli.inputs import Failures, Recording
from eat_plugin.data.clip import ClipError
from eat_plugin.data.frontend import FRAMES_A_SECOND
from eat_plugin.data.label_set import LabelSet
from eat_plugin.inference import Loaded
from eat_plugin.inference.windows import Job, Window, Windowing

NAME = "predict"
HELP = "name the likeliest labels of audio files"
EXAMPLE = """
examples:
  eat predict --checkpoint checkpoint_best.pt dog.wav --top 3
  eat predict --checkpoint checkpoint_best.pt an_hour.wav --window 10 --hop 5
  eat predict --checkpoint checkpoint_best.pt /my/audio --json > predictions.jsonl

A line for each label, likeliest first, with tabs between file, label and score (a probability; of
a model trained with cross-entropy they sum to 1 over all labels). --json writes an object a file, a
line each:
  {"file": "dog.wav", "predictions": [{"label": "dog", "name": "Dog", "score": 0.93}, ...]}

Of a file longer than the window of training only the beginning counts, as in validation; a model
trained with task.length=crop sees several windows of it, whose probabilities are averaged. With
--window or --hop it is cut into windows, and lines begin with file, start and end in seconds; in
JSON: {"file": ..., "windows": [{"start": 0.0, "end": 10.24, "predictions": [...]}, ...]}.

A model of images takes images: files, folders, or a manifest of them; they have no windows.

Files that cannot be used are named at the end; the exit code is then 1 (2 if none can).
"""


class Outcome(NamedTuple):
    """What a model makes of a recording: its windows, and their probabilities, each [classes]."""

    recording: Recording
    windows: list[Window]
    scores: list[np.ndarray]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.epilog = EXAMPLE
    inputs.add_input_arguments(parser)
    inputs.add_model_arguments(parser)
    parser.add_argument(
        "--top", metavar="K", type=int, default=5, help="labels to show (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="write JSON, an object a file")


def run(args: argparse.Namespace) -> int:
    """Print the labels of all files.

    Returns:
        0, or 1 if some files could not be used.

    Raises:
        ValueError: An option or an input makes no sense, the checkpoint has no classifier, or no
            file can be used.
        OSError: A file cannot be read.
    """
    if args.top < 1:
        raise ValueError(f"--top is {args.top}; it must be 1 or more")
    loaded = inputs.load_model(args)
    images = loaded.images is not None
    clips, failures = inputs.collect(args.inputs, images)
    total = len(clips) + len(failures)
    labels = loaded.require_labels()
    windowing = loaded.windowing(args.window, args.hop)
    timeline = args.window is not None or args.hop is not None
    recordings = inputs.probe(clips, failures, images)
    plans = [loaded.plan(windowing, recording.samples, recording.rate) for recording in recordings]
    num_cut = sum(len(windows) > 1 for windows in plans)
    if not timeline:
        plans = [loaded.plan_scores(windowing, each.samples, each.rate) for each in recordings]
    if not args.json:
        say("\t".join(["file", *(["start", "end"] if timeline else []), "label", "score"]))
    show = _show_json if args.json else _show_table
    for outcome in _predict(loaded, args.batch_size, windowing, recordings, plans, failures):
        if not timeline:
            outcome = outcome._replace(scores=[np.mean(outcome.scores, axis=0)])
        show(outcome, windowing, labels, args.top, timeline)
    if num_cut and not timeline and not loaded.eval_windows:
        sys.stderr.write(
            f"eat predict: of {num_cut} files longer than {windowing.seconds} s only the beginning "
            "counts; --window gives a time line\n"
        )
    return inputs.conclude(NAME, failures, total)


def _predict(
    loaded: Loaded,
    batch_size: int,
    windowing: Windowing,
    recordings: list[Recording],
    plans: list[list[Window]],
    failures: Failures,
) -> Iterator[Outcome]:
    """Yield each recording as soon as all its windows are done."""
    jobs = inputs.lay_windows(recordings, plans, failures)
    results: Iterable[tuple[Job, np.ndarray | ClipError]]
    results = loaded.map_windows(jobs, windowing, loaded.predict, batch_size)
    if not sys.stdout.isatty():  # on one screen, lines and a bar would run into each other
        results = progress(results, "predicting", "window", sum(map(len, plans)))
    scores: list[np.ndarray] = []
    for job, row in results:
        if str(job.path) in failures:
            continue
        if isinstance(row, ClipError):
            failures[str(job.path)] = str(row)
            continue
        scores = [*scores, row] if job.number else [row]
        if len(scores) == len(plans[job.clip]):
            yield Outcome(recordings[job.clip], plans[job.clip], scores)


def _show_table(
    outcome: Outcome, windowing: Windowing, labels: LabelSet, top: int, timeline: bool
) -> None:
    for window, scores in zip(outcome.windows, outcome.scores):
        times = []
        if timeline:
            times = [f"{time:.2f}" for time in _span(window, windowing, outcome.recording)]
        for index in _best(scores, top):
            cells = [str(outcome.recording.path), *times, labels.names[index]]
            say("\t".join([*cells, f"{scores[index]:.4f}"]))


def _show_json(
    outcome: Outcome, windowing: Windowing, labels: LabelSet, top: int, timeline: bool
) -> None:
    windows = []
    for window, scores in zip(outcome.windows, outcome.scores):
        predictions = [
            {"label": labels.ids[i], "name": labels.names[i], "score": round(float(scores[i]), 6)}
            for i in _best(scores, top)
        ]
        start, end = _span(window, windowing, outcome.recording) if timeline else (None, None)
        windows.append({"start": start, "end": end, "predictions": predictions})
    shown: dict[str, Any] = {"file": str(outcome.recording.path)}
    if timeline:
        shown["windows"] = windows
    else:
        shown["predictions"] = windows[0]["predictions"]
    say(json.dumps(shown, ensure_ascii=False))


def _best(scores: np.ndarray, top: int) -> list[int]:
    return np.argsort(-scores, kind="stable")[:top].tolist()


def _span(window: Window, windowing: Windowing, recording: Recording) -> tuple[float, float]:
    """Return where a window starts and ends, or the recording, in seconds."""
    end = (window.start + windowing.frames) / FRAMES_A_SECOND
    duration = round(recording.samples / recording.rate, 3)
    return window.start / FRAMES_A_SECOND, min(end, duration)
