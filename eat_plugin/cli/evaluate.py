"""`eat evaluate`: how well a fine-tuned model labels a split, in figures that can be compared."""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from eat_plugin.cli import charts, inputs, progress, say
from eat_plugin.data.clip import ClipError
from eat_plugin.data.containers import check_archives
from eat_plugin.data.entries import original_name
from eat_plugin.data.files import replacing
from eat_plugin.data.label_set import LabelSet, read_label_set
from eat_plugin.data.labels import ClipLabels, read_labels
from eat_plugin.data.manifest import Manifest, read_manifest
from eat_plugin.data.tables import write_csv
from eat_plugin.inference import Loaded
from eat_plugin.inference.windows import Job, Windowing
from eat_plugin.metrics import METRICS, bootstrap_interval, confusion_matrix, summarize
from eat_plugin.ranking import RankedScores

NAME = "evaluate"
HELP = "measure how well a fine-tuned model labels the clips of a split"
EXAMPLE = """
examples:
  eat evaluate --checkpoint checkpoint_best.pt --data data --out evaluation
  eat evaluate --checkpoint checkpoint_best.pt --data data --split eval --json

Reads DATA/SPLIT.tsv, DATA/SPLIT.lbl and DATA/label_descriptors.csv. The classes have to be those
of the checkpoint, in any order. Clips are prepared as in training: the checkpoint says how. Of a
model trained with task.length=crop a clip's score is the mean over several windows, as in its
validation.

mAP and mAUC are means over the classes that occur; d_prime is that of mAUC. The interval covers
the main figure (accuracy where clips have one label, mAP otherwise) with 95 % probability, by
resampling the clips. clips_sha256 is of the sorted names of the clips that were used, joined by
line feeds: two evaluations can be compared if they agree in it.

--json prints one line and nothing else; what is not defined (accuracy with several labels a clip,
an infinite d_prime) is null. --out DIR also writes
  metrics.json    the same
  classes.csv     label, name, clips, AP, AUC; with one label a clip also recall and precision
  classes.png     average precision of the classes; with one label a clip a confusion matrix
  missing.tsv     the clips that could not be used, and why; the exit code is then 1
"""
DESCRIPTORS = "label_descriptors.csv"
LEVEL = 0.95  # of the interval
SHOWN = 5  # labels that an error names


class Scored(NamedTuple):
    """The clips that could be used.

    Attributes:
        clips: their positions in the manifest, [N].
        scores: [N, classes].
        targets: [N, classes], 0 or 1.
    """

    clips: np.ndarray
    scores: np.ndarray
    targets: np.ndarray


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.epilog = EXAMPLE
    inputs.add_model_arguments(parser)
    parser.add_argument(
        "--data", metavar="DATA", type=Path, required=True, help="folder that eat manifest wrote"
    )
    parser.add_argument("--split", metavar="NAME", default="eval", help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="print the figures as a line of JSON")
    parser.add_argument("--out", metavar="DIR", type=Path, help="folder for tables and a picture")
    parser.add_argument(
        "--resamples",
        metavar="N",
        type=int,
        default=1000,
        help="of the clips, for the interval; 0 for no interval (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Evaluate, print the figures, write the tables.

    Returns:
        0, or 1 if some clips could not be used.

    Raises:
        ValueError: An option makes no sense, the checkpoint has no classifier, its classes are
            not those of the data, a file is wrong, or no clip can be used.
        OSError: A file cannot be read or written.
    """
    if args.resamples < 0:
        raise ValueError(f"--resamples is {args.resamples}; it must be 0 or more")
    loaded = inputs.load_model(args)
    label_set = loaded.require_labels()
    manifest = read_manifest(args.data / f"{args.split}.tsv")
    check_archives(args.data / f"{args.split}.archives", manifest.root)
    labels = _read_labels(args, loaded, label_set, manifest)
    failures: inputs.Failures = {}
    scored = _score(loaded, args.batch_size, manifest, labels, failures)
    code = inputs.conclude(NAME, failures, len(manifest))
    ranked = RankedScores(scored.scores, scored.targets)
    figures = _measure(args, loaded, manifest, scored.clips, ranked)
    _show(figures, args.json)
    if args.out is not None:
        _write(args.out, loaded, label_set, ranked, figures, failures)
    return code


def _read_labels(
    args: argparse.Namespace, loaded: Loaded, label_set: LabelSet, manifest: Manifest
) -> ClipLabels:
    """Read the labels of the split, as classes of the checkpoint."""
    path = args.data / DESCRIPTORS
    given, known = set(read_label_set(path).ids), set(label_set.ids)
    if given != known:
        differences = [
            f"{len(extra)} only in {where}: {', '.join(map(repr, sorted(extra)[:SHOWN]))}"
            + (", ..." if len(extra) > SHOWN else "")
            for where, extra in (("the data", given - known), ("the checkpoint", known - given))
            if extra
        ]
        raise ValueError(f"{path} has other classes than {loaded.path}; {'; '.join(differences)}")
    path = args.data / f"{args.split}.lbl"
    labels = read_labels(path, label_set, manifest, loaded.single_label)
    if not labels.names_match:
        sys.stderr.write(f"{path} names its clips otherwise than the manifest; order decides\n")
    return labels


def _score(
    loaded: Loaded,
    batch_size: int,
    manifest: Manifest,
    labels: ClipLabels,
    failures: inputs.Failures,
) -> Scored:
    """Compute the scores of all clips, from what the windows of validation hold of each."""
    windowing = loaded.windowing()
    jobs = _lay_windows(loaded, windowing, manifest)
    results = loaded.map_windows(jobs, windowing, loaded.predict, batch_size)
    by_clip = groupby(results, key=lambda result: result[0].clip)
    clips, scores = [], []
    for clip, windows in progress(by_clip, "evaluating", "clip", len(manifest)):
        name, found = original_name(manifest.name(clip)), []
        for _, row in windows:
            if isinstance(row, ClipError):
                failures[name] = str(row)
            else:
                found.append(row)
        if name not in failures:
            clips.append(clip)
            scores.append(np.mean(found, axis=0))
    used = np.array(clips, dtype=np.int64)
    num_classes = labels.num_classes
    rows = np.stack(scores) if scores else np.zeros((0, num_classes), dtype=np.float32)
    return Scored(used, rows, labels.multi_hot(used))


def _lay_windows(loaded: Loaded, windowing: Windowing, manifest: Manifest) -> Iterator[Job]:
    for clip in range(len(manifest)):
        path, size = manifest.path(clip), int(manifest.sizes[clip])
        starts = [0]
        if loaded.eval_windows:
            try:
                _, rate = loaded.probe(path)
                starts = [window.start for window in loaded.plan_scores(windowing, size, rate)]
            except ClipError:
                pass  # reading it will name what is wrong
        for number, start in enumerate(starts):
            yield Job(clip, number, path, start, size)


def _measure(
    args: argparse.Namespace,
    loaded: Loaded,
    manifest: Manifest,
    clips: np.ndarray,
    ranked: RankedScores,
) -> dict[str, Any]:
    """Compute the figures; None stands for what is not defined."""
    single = loaded.single_label
    summary = summarize(ranked, single)
    main = "accuracy" if single else "mAP"
    interval = (math.nan, math.nan)
    if args.resamples:
        metric = RankedScores.accuracy if single else RankedScores.mean_average_precision
        interval = bootstrap_interval(ranked, metric, args.resamples, level=LEVEL)
    # A cache gives the figures of its data, and their checksum.
    names = sorted(original_name(manifest.name(int(clip))) for clip in clips)
    return {
        **{name: _finite(summary.get(name, math.nan)) for name in METRICS},
        "interval": {
            "metric": main,
            "level": LEVEL,
            "low": _finite(interval[0]),
            "high": _finite(interval[1]),
        },
        "n_clips": len(clips),
        "n_missing": len(manifest) - len(clips),
        "n_classes": ranked.scores.shape[1],
        "clips_sha256": hashlib.sha256("\n".join(names).encode()).hexdigest(),
        "split": args.split,
        "data": str(args.data),
        "checkpoint": loaded.path,
    }


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _show(figures: dict[str, Any], as_json: bool) -> None:
    if as_json:
        say(json.dumps(figures))
        return
    interval = figures["interval"]
    for name in METRICS:
        if figures[name] is None:
            continue
        line = f"{name:<12} {figures[name]:.4f}"
        if name == interval["metric"] and interval["low"] is not None:
            line += f"  (95 % interval {interval['low']:.4f} to {interval['high']:.4f})"
        say(line)
    for name in ("n_clips", "n_missing", "clips_sha256"):
        say(f"{name:<12} {figures[name]}")


def _write(
    out: Path,
    loaded: Loaded,
    label_set: LabelSet,
    ranked: RankedScores,
    figures: dict[str, Any],
    failures: inputs.Failures,
) -> None:
    """Write the figures, the table of the classes, the picture and the list of missing clips."""
    out.mkdir(parents=True, exist_ok=True)
    with replacing(out / "metrics.json") as file:
        file.write(f"{json.dumps(figures, indent=2)}\n".encode())
    with replacing(out / "missing.tsv") as file:
        file.writelines(f"{name}\t{reason}\n".encode() for name, reason in failures.items())
    precisions = ranked.average_precision()
    columns: dict[str, Any] = {
        "label": label_set.ids,
        "name": label_set.names,
        "clips": ranked.targets.sum(axis=0).astype(int).tolist(),
        "AP": precisions.tolist(),
        "AUC": ranked.roc_auc().tolist(),
    }
    counts = None
    if loaded.single_label:
        counts = confusion_matrix(ranked)
        hits = counts.diagonal()
        with np.errstate(invalid="ignore"):
            columns["recall"] = (hits / counts.sum(axis=1)).tolist()
            columns["precision"] = (hits / counts.sum(axis=0)).tolist()
    write_csv(out / "classes.csv", [tuple(columns), *_cells(columns)])
    title = f"{figures['split']}: {figures['n_clips']} clips"
    try:
        if counts is None:
            picture = charts.draw_average_precision(label_set.names, precisions, title)
        else:
            title += f", accuracy {figures['accuracy']:.1%}"
            picture = charts.draw_confusion(label_set.names, counts, title)
    except ValueError as error:
        sys.stderr.write(f"eat evaluate: no picture: {error}\n")
        return
    with replacing(out / "classes.png") as file:
        picture.savefig(file, dpi=120, format="png")


def _cells(columns: dict[str, Any]) -> Iterator[list[object]]:
    """Yield the rows of a table; a cell of what is not defined is empty."""
    for row in zip(*columns.values()):
        yield ["" if isinstance(v, float) and math.isnan(v) else v for v in row]
