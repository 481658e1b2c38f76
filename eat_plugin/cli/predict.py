"""Predict the labels of audio files.

Examples:
  eat predict --checkpoint checkpoint_best.pt dog.wav --top 3
  eat predict --checkpoint checkpoint_best.pt an_hour.wav --window 10 --hop 5
  eat predict --checkpoint checkpoint_best.pt /my/audio --json > predictions.jsonl

One line per label, the best first: file, label and score, separated by tabs. A score is a
probability; the scores of a model trained with cross-entropy sum to 1 over all labels. --json
writes one object per file and line:
  {"file": "dog.wav", "predictions": [{"label": "dog", "name": "Dog", "score": 0.93}, ...]}

A file longer than the window of training is scored by its start, as in validation. A model trained
with task.length=crop averages the probabilities of several windows. With --window or --hop, the
file is cut into windows, and lines begin with file, start and end in seconds; in JSON:
  {"file": ..., "windows": [{"start": 0.0, "end": 10.24, "predictions": [...]}, ...]}

A model that was fine-tuned with strong labels (benchmark=frames) scores each time step. Without
options, the score of a file is that of its best time step. --granularity frame shows all steps,
with start and end:
  eat predict --checkpoint checkpoint_best.pt scene.wav --granularity frame --top 1

Labels and names are those in the checkpoint; AudioSet's classes have their display names. --labels
FILE replaces them: lines 'index,label,name', as label_descriptors.csv and AudioSet's
class_labels_indices.csv.

A model of images takes images: files, folders or a manifest. They have no windows.

Unusable files are listed at the end; the exit code is then 1 (2 if all are unusable).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import numpy as np

from eat_plugin.cli import at_least, conclude, inputs, progress, say
from eat_plugin.cli.inputs import Recording
from eat_plugin.data.clip import ClipError
from eat_plugin.data.frames import FRAMES_A_SECOND
from eat_plugin.data.label_set import LabelSet, read_label_set
from eat_plugin.prepare.amounts import count

if TYPE_CHECKING:
    from eat_plugin.inference import Loaded
    from eat_plugin.inference.batches import Result
    from eat_plugin.inference.windows import Window, Windowing

Span = Union[tuple[float, float], tuple[()]]
"""Start and end of a window in seconds; empty for a whole file."""
WHOLE: Span = ()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    inputs.add_input_arguments(parser)
    inputs.add_model_arguments(parser)
    parser.add_argument(
        "--top", metavar="K", type=at_least(1), default=5, help="labels to show (default: 5)"
    )
    parser.add_argument(
        "--labels", metavar="FILE", type=Path, help="labels in place of those in the checkpoint"
    )
    parser.add_argument(
        "--granularity",
        choices=("utterance", "frame"),
        default="utterance",
        help="unit of a prediction; frame: each time step (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="write JSON, one object per file")


def run(args: argparse.Namespace) -> int:
    from eat_plugin.inference import load_checkpoint
    from eat_plugin.inference.recordings import classifies_frames
    from eat_plugin.inference.windows import join_columns

    given = None
    if args.labels is not None:
        if not args.labels.is_file():
            raise ValueError(f"--labels: there is no file {args.labels}")
        given = read_label_set(args.labels)
    loaded = load_checkpoint(args.checkpoint, args.device, given)
    images = loaded.images is not None
    clips, failures = inputs.collect(args.inputs, images)
    total = len(clips) + len(failures)
    labels = loaded.require_labels()
    windowing = loaded.windowing(args.window, args.hop)
    detects = classifies_frames(loaded)
    timeline = _choose_timeline(args, loaded)
    recordings = inputs.probe(clips, failures, images)
    plans = [loaded.plan(windowing, recording.samples, recording.rate) for recording in recordings]
    num_long = sum(len(windows) > 1 for windows in plans)
    if not timeline and not detects:
        plans = [loaded.plan_scores(windowing, each.samples, each.rate) for each in recordings]
    if not args.json:
        say("\t".join(["file", *(["start", "end"] if timeline else []), "label", "score"]))
    show = _show_json if args.json else _show_table
    list_spans = _list_columns if detects else _list_windows
    for clip, scores in _predict(loaded, args.batch_size, windowing, recordings, plans):
        recording, spans = recordings[clip], [WHOLE]
        if isinstance(scores, ClipError):
            failures[recording.entry.path] = str(scores)
            continue
        if detects:
            scores = list(join_columns(scores, plans[clip]))
        if timeline:
            spans = list_spans(plans[clip], windowing, recording)
        else:
            scores = [(np.max if detects else np.mean)(scores, axis=0)]
        show(recording.entry.path, spans, scores, labels, args.top)
    if num_long and not (timeline or detects or loaded.eval_windows):
        sys.stderr.write(
            f"eat predict: {count(num_long, 'file')} longer than {windowing.seconds} s, scored by "
            "the start only; --window scores all windows\n"
        )
    return conclude("predict", failures, total)


def _choose_timeline(args: argparse.Namespace, loaded: Loaded) -> bool:
    """Whether results have times; raise ValueError for options that do not fit the model."""
    from eat_plugin.inference.recordings import classifies_frames, require_frames

    by_window = args.window is not None or args.hop is not None
    if args.granularity == "frame":
        require_frames(loaded)
        return True
    if by_window and classifies_frames(loaded):
        raise ValueError(
            f"{loaded.path} classifies time steps; with --window or --hop give --granularity frame"
        )
    return by_window


def _predict(
    loaded: Loaded,
    batch_size: int,
    windowing: Windowing,
    recordings: list[Recording],
    plans: list[list[Window]],
) -> Iterator[tuple[int, list[np.ndarray] | ClipError]]:
    """Yield the scores of the windows of each recording as soon as it is complete."""
    from eat_plugin.inference.batches import group_results, list_jobs

    jobs = list_jobs(zip((recording.entry for recording in recordings), plans))
    results: Iterable[Result]
    results = loaded.map_windows(jobs, windowing, loaded.predict, batch_size)
    if not sys.stdout.isatty():  # a bar would mix with the lines on a terminal
        results = progress(results, "predicting", "window", sum(map(len, plans)))
    return group_results(results)


def _show_table(
    path: str, spans: list[Span], scores: list[np.ndarray], labels: LabelSet, top: int
) -> None:
    for span, row in zip(spans, scores):
        for index in _best(row, top):
            times = [f"{time:.2f}" for time in span]
            say("\t".join([path, *times, labels.names[index], f"{row[index]:.4f}"]))


def _show_json(
    path: str, spans: list[Span], scores: list[np.ndarray], labels: LabelSet, top: int
) -> None:
    windows: list[dict[str, Any]] = []
    for span, row in zip(spans, scores):
        predictions = [
            {"label": labels.ids[i], "name": labels.names[i], "score": round(float(row[i]), 6)}
            for i in _best(row, top)
        ]
        windows.append({**dict(zip(("start", "end"), span)), "predictions": predictions})
    shown = {"windows": windows} if spans[0] else windows[0]
    say(json.dumps({"file": path, **shown}, ensure_ascii=False))


def _best(scores: np.ndarray, top: int) -> list[int]:
    return np.argsort(-scores, kind="stable")[:top].tolist()


def _list_windows(windows: list[Window], windowing: Windowing, recording: Recording) -> list[Span]:
    """Return start and end of windows within their recording, in seconds."""
    starts = [window.start / FRAMES_A_SECOND for window in windows]
    return _cut(starts, windowing.seconds, recording)


def _list_columns(windows: list[Window], windowing: Windowing, recording: Recording) -> list[Span]:
    """Return start and end of the time steps of a recording, in seconds."""
    length = windowing.patch / FRAMES_A_SECOND
    return _cut(
        [round(time - length / 2, 6) for time in windowing.times(windows)], length, recording
    )


def _cut(starts: list[float], length: float, recording: Recording) -> list[Span]:
    duration = round(recording.samples / recording.rate, 3)
    return [(start, min(round(start + length, 6), duration)) for start in starts]
