"""Evaluate a fine-tuned model on a split.

Examples:
  eat evaluate --checkpoint checkpoint_best.pt --data data --out evaluation
  eat evaluate --checkpoint checkpoint_best.pt --data data --split eval --json
  eat evaluate --checkpoint C --data data --official eval_segments.csv --out evaluation

Reads DATA/SPLIT.tsv, DATA/SPLIT.lbl and DATA/label_descriptors.csv. The classes must be those of
the checkpoint, in any order. Clips are prepared as in training. For a model trained with
task.length=crop, the score of a clip is the mean over several windows, as in validation.

mAP and mAUC are means over the classes that occur; d_prime is computed from mAUC. The 95 % interval
of the main metric (accuracy for one label per clip, else mAP) comes from resampling the clips.
clips_sha256 is the checksum of the sorted names of all used clips, separated by line feeds: figures
of evaluations with other checksums are of other clips; eat compare finds those that both have.
--official LIST says how much of an official list the used clips cover (an id in each line, or
AudioSet's csv of segments); copies of AudioSet differ.

--json prints one line and nothing else; undefined values (accuracy with several labels per clip, an
infinite d_prime) are null. --out DIR also writes
  metrics.json    the same
  classes.csv     label, name, clips, AP, AUC; for one label per clip also recall and precision
  classes.png     average precision of each class; for one label per clip a confusion matrix
  missing.tsv     the unusable clips and the reasons
  clips.npz       names, labels, scores and targets of the used clips, for eat compare
  record.json     the configuration, the record of the training, and that of this evaluation
  uncovered.txt   with --official: the ids that no used clip has

A model that was fine-tuned with strong labels (benchmark=frames) is evaluated along time, on whole
clips, by DATA/SPLIT.events; this needs the package sed_scores_eval. Metrics, over the classes that
occur: psds1 and psds2, the polyphonic sound detection scores of DCASE 2021 task 4; segment_f1, of
segments of 1 s at the threshold 0.5; mAP of time steps. There are neither interval, picture,
clips.npz nor --official; classes.csv has label, name, psds1, psds2, segment_f1, AP and events.

If clips are missing, each figure says on how many it is, as 'accuracy 0.8125 on 16 of 20 clips'; in
JSON "on" does. The exit code is then 1, unless --max-missing allows that share of the clips. The
clips that eat cache left out count as missing: CACHE/rejected.tsv names them.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eat_plugin.cli import (
    Failures,
    conclude,
    inputs,
    progress,
    say,
)
from eat_plugin.cli.evaluation_record import (
    describe_coverage,
    measure_coverage,
    read_list,
    write_record,
)
from eat_plugin.cli.evaluation_report import (
    FILES,
    check_results,
    describe,
    exit_code,
    finite,
    new_results,
    show_clips,
)
from eat_plugin.data.clip import ClipError
from eat_plugin.data.entries import Entry, original_name
from eat_plugin.data.label_set import LabelSet, read_label_set
from eat_plugin.data.labels import ClipLabels, read_labels
from eat_plugin.data.manifest import Manifest
from eat_plugin.data.tables import write_csv
from eat_plugin.metrics import METRICS, bootstrap_interval, confusion_matrix, summarize
from eat_plugin.prepare.data_folder import DESCRIPTORS
from eat_plugin.ranking import RankedScores
from eat_plugin.report import charts

if TYPE_CHECKING:
    from eat_plugin.inference import Loaded
    from eat_plugin.inference.windows import Window, Windowing

LEVEL = 0.95  # of the interval
SHOWN = 5  # labels in an error message


def add_arguments(parser: argparse.ArgumentParser) -> None:
    inputs.add_model_arguments(parser)
    parser.add_argument(
        "--data", metavar="DATA", type=Path, required=True, help="folder written by eat manifest"
    )
    parser.add_argument(
        "--split", metavar="NAME", default="eval", help="split (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print the metrics as a line of JSON")
    parser.add_argument("--out", metavar="DIR", type=Path, help="folder for tables and a picture")
    parser.add_argument(
        "--official", metavar="LIST", type=Path, help="official list of clips, to say what is used"
    )
    inputs.add_scoring_arguments(parser)


def run(args: argparse.Namespace) -> int:
    from eat_plugin.inference import load_checkpoint
    from eat_plugin.inference.recordings import classifies_frames

    if args.out is not None:
        check_results(args.out, args.data)
    loaded = load_checkpoint(args.checkpoint, args.device)
    label_set = loaded.require_labels()
    if classifies_frames(loaded):
        from eat_plugin.cli import evaluate_frames

        if args.official is not None:
            raise ValueError("--official is for labels of clips; this model classifies time steps")
        return evaluate_frames.run(args, loaded, label_set)
    manifest = inputs.open_split(args.data, args.split, loaded)
    labels = _read_labels(args, loaded, label_set, manifest)
    official = None if args.official is None else read_list(args.official, manifest)
    failures: Failures = {}
    clips, ranked = _score(loaded, args.batch_size, manifest, labels, failures)
    conclude("evaluate", failures, len(manifest))
    metrics = _measure(args, loaded, manifest, clips, ranked)
    names = [original_name(manifest.name(clip)) for clip in clips]
    uncovered: list[str] = []
    if official is not None:
        metrics["official"], uncovered = measure_coverage(official, names)
    _show(metrics, args.json)
    if args.out is not None:
        with new_results(args.out, metrics, failures):
            _write_classes(args.out, loaded, label_set, ranked, metrics)
            write_record(args, loaded, names, ranked, uncovered)
        if not args.json:
            say(f"{args.out}: {', '.join(name for name in FILES if (args.out / name).exists())}")
    return exit_code(args, metrics)


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
        sys.stderr.write(f"{path} has other clip names than the manifest; lines are matched\n")
    return labels


def _score(
    loaded: Loaded,
    batch_size: int,
    manifest: Manifest,
    labels: ClipLabels,
    failures: Failures,
) -> tuple[list[int], RankedScores]:
    """Score all clips as validation does; return the usable ones and their scores."""
    from eat_plugin.inference.batches import group_results, list_jobs

    windowing = loaded.windowing()
    entries = (manifest.entry(clip) for clip in range(len(manifest)))
    jobs = list_jobs((entry, _plan(loaded, windowing, entry)) for entry in entries)
    results = group_results(loaded.map_windows(jobs, windowing, loaded.predict, batch_size))
    clips, scores = [], []
    for clip, found in progress(results, "evaluating", "clip", len(manifest)):
        if isinstance(found, ClipError):
            failures[original_name(manifest.name(clip))] = str(found)
        else:
            clips.append(clip)
            scores.append(np.mean(found, axis=0))
    rows = np.stack(scores) if scores else np.zeros((0, labels.num_classes), dtype=np.float32)
    return clips, RankedScores(rows, labels.multi_hot(np.array(clips, dtype=np.int64)))


def _plan(loaded: Loaded, windowing: Windowing, entry: Entry) -> list[Window]:
    from eat_plugin.inference.windows import Window

    if loaded.eval_windows:
        assert entry.size is not None
        try:
            return loaded.plan_scores(windowing, entry.size, loaded.probe(entry)[1])
        except ClipError:
            pass  # reading the clip gives the error
    return [Window(0, 0, windowing.frames // windowing.patch)]


def _measure(
    args: argparse.Namespace,
    loaded: Loaded,
    manifest: Manifest,
    clips: list[int],
    ranked: RankedScores,
) -> dict[str, Any]:
    """Compute the metrics; undefined ones are None."""
    single = loaded.single_label
    summary = summarize(ranked, single)
    interval = (math.nan, math.nan)
    if args.resamples:
        metric = RankedScores.accuracy if single else RankedScores.mean_average_precision
        interval = bootstrap_interval(ranked, metric, args.resamples, level=LEVEL)
    found = {
        **{name: finite(summary.get(name, math.nan)) for name in METRICS},
        "interval": {
            "metric": "accuracy" if single else "mAP",
            "level": LEVEL,
            "low": finite(interval[0]),
            "high": finite(interval[1]),
        },
    }
    return describe(args, loaded, manifest, clips, found)


def _show(metrics: dict[str, Any], as_json: bool) -> None:
    if as_json:
        say(json.dumps(metrics))
        return
    interval = metrics["interval"]
    on = f" on {metrics['on']}" if metrics["n_missing"] else ""
    for name in METRICS:
        if metrics[name] is None:
            continue
        line = f"{name:<12} {metrics[name]:.4f}{on}"
        if name == interval["metric"] and interval["low"] is not None:
            line += f"  (95 % interval {interval['low']:.4f} to {interval['high']:.4f})"
        say(line)
    show_clips(metrics)
    if "official" in metrics:
        say(f"{'official':<12} {describe_coverage(metrics['official'])}")


def _write_classes(
    out: Path, loaded: Loaded, label_set: LabelSet, ranked: RankedScores, metrics: dict[str, Any]
) -> None:
    """Write table and picture of the classes."""
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
    title = f"{metrics['split']}: {metrics['on']}"
    draw = partial(charts.draw_average_precision, label_set.names, precisions, title)
    if counts is not None:
        title += f", accuracy {metrics['accuracy']:.1%}"
        draw = partial(charts.draw_confusion, label_set.names, counts, title)
    charts.write_picture("evaluate", out / "classes.png", draw)


def _cells(columns: dict[str, Any]) -> Iterator[list[object]]:
    """Yield the rows of a table; undefined cells are empty."""
    for row in zip(*columns.values()):
        yield ["" if isinstance(v, float) and math.isnan(v) else v for v in row]
