"""Tell what a checkpoint knows beyond simple statistics of the sound.

Examples:
  eat probe --checkpoint checkpoint_last.pt --data data --out probe
  eat probe --checkpoint checkpoint_last.pt --data data --split valid --layer -1 --json
  eat probe --checkpoint checkpoint_last.pt --data data --head cgp --out probe_cgp

Two simple classifiers learn the labels of DATA/train from vectors of frozen features, one vector
per clip, and are scored on DATA/eval: a linear probe (logistic regression, one-vs-rest for several
labels per clip) and the nearest neighbours by cosine. The metric is accuracy for one label per
clip, else mAP, with the 95 % interval from resampling the held-out clips. Of a fine-tuned
checkpoint, the encoder is probed, without the head.

vectors of a model (L layers, width D), of each layer or of --layer:
  mean         mean over all patches
  cls          the CLS token (if the model has one), mean over windows
  mean+max     mean and maximum over patches
  frames       mean over time alone: all mel bands, concatenated
  time         mean over the patches of each of 8 segments of time, concatenated
Baselines, always shown next to them:
  random       the same model and vectors before any training, from a fixed seed
  log-mel      mean and deviation of each mel bin over time; these with its maximum and its mean
               absolute difference from frame to frame; its mean in each of 8 or 16 segments of time

Clips are cut into adjacent windows of the length of training, as by eat features; all vectors are
of the whole clip, without padding. Of images, rows of pixels stand for frames.

Penalty (C), number of neighbours (k) and layer are chosen by cross-validation on the training split
alone (5 folds, fixed seed); * marks the best of each source in cross-validation. Compare the rows
with *: no other choice is made on the held-out split. Vectors are standardised by the training
split; C is from 0.0001 to 1, k from 1 to 20.

With --head, a head learns from the frozen features of all blocks, by AdamW (1e-3, dropout 0.2):
  cgp          blocks mixed by learnt weights, compared with K prototypes by cosine; of each
               prototype the least and largest over patches, and that of CLS; then a linear layer
  lcgp         CLS of the mixed blocks (without CLS the mean over patches), then a linear layer
  linear       the same of the last block alone
It reports the figure of the head, the weight of each block, and a linear probe of each block; --out
also gets them as a chart, probe.png. The features of cgp are written once to a temporary folder
(TMPDIR), 2 bytes a number; if they would fill more than half of the free disk, they are computed
again in each pass. --features keeps them for other runs.

Time and memory grow with layers, clips, width and classes: --layer and --max-clips bound them.
--out DIR writes probe.json (all rows), probe.md (the table) and missing.tsv (unusable clips, with
the reasons). --json prints probe.json as one line and nothing else; undefined values are null. If
clips are missing, the exit code is 1, unless --max-missing allows that share of each split.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from eat_plugin.choices import HEADS
from eat_plugin.cli import SOME_FAILED, Failures, at_least, conclude, inputs, progress, say
from eat_plugin.cli.outputs import check_folder
from eat_plugin.data.clip import ClipError
from eat_plugin.data.entries import original_name
from eat_plugin.data.label_set import LabelSet, read_label_set
from eat_plugin.data.labels import ClipLabels, read_labels
from eat_plugin.data.manifest import Manifest
from eat_plugin.prepare.data_folder import DESCRIPTORS

if TYPE_CHECKING:
    from eat_plugin.inference import Loaded
    from eat_plugin.inference.clip_vectors import VectorReader, Vectors
    from eat_plugin.inference.probing import Split

SEED = 0  # of clips, folds, random weights and resamples
MOST_CLIPS = 2000


class Clips(NamedTuple):
    """The clips of a split that were asked for."""

    split: str
    manifest: Manifest
    labels: ClipLabels
    numbers: np.ndarray  # in the manifest
    listed: int  # in the split, with those that a cache left out


def add_arguments(parser: argparse.ArgumentParser) -> None:
    inputs.add_model_arguments(parser)
    parser.add_argument(
        "--data", metavar="DATA", type=Path, required=True, help="folder written by eat manifest"
    )
    parser.add_argument(
        "--train-split", metavar="NAME", default="train", help="to learn from (default: train)"
    )
    parser.add_argument(
        "--split", metavar="NAME", default="eval", help="held-out split (default: %(default)s)"
    )
    inputs.add_layer(parser, "all")
    parser.add_argument(
        "--max-clips",
        metavar="N",
        type=at_least(1),
        default=MOST_CLIPS,
        help="most clips of each split, drawn by a fixed seed (default: %(default)s)",
    )
    parser.add_argument("--head", choices=HEADS, help="train a head on all blocks instead")
    parser.add_argument(
        "--prototypes", metavar="K", type=at_least(1),
        help="cgp: number of prototypes (default: half the training clips, 20 to 10,000)",
    )  # fmt: skip
    parser.add_argument(
        "--updates", metavar="N", type=at_least(1),
        help="head: updates of 48 clips (default: as many as training clips, 1,000 to 20,000)",
    )  # fmt: skip
    parser.add_argument(
        "--features", metavar="DIR", type=Path,
        help="cgp: keep the features here, and use those that are there (default: a temporary "
        "folder)",
    )  # fmt: skip
    parser.add_argument(
        "--seed", metavar="N", type=at_least(0),
        help=f"head: seed of weights, order and dropout (default: {SEED})",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the results as a line of JSON")
    parser.add_argument("--out", metavar="DIR", type=Path, help="folder for the results")
    inputs.add_scoring_arguments(parser)


def run(args: argparse.Namespace) -> int:
    if args.head is not None:
        from eat_plugin.cli.probe_head import run_head

        return run_head(args)
    for name in ("prototypes", "updates", "features", "seed"):
        if getattr(args, name) is not None:
            raise ValueError(f"--{name} needs --head")
    return _run_vectors(args)


def open_data(args: argparse.Namespace) -> tuple[Loaded, LabelSet, tuple[str, str]]:
    """Check the options; return the model, the classes, and the names of both splits."""
    from eat_plugin.inference import load_checkpoint

    if args.out is not None:
        check_folder(args.out)
    if args.train_split == args.split:
        raise ValueError(f"--train-split and --split are both {args.split!r}; hold one out")
    loaded = load_checkpoint(args.checkpoint, args.device)
    return loaded, read_label_set(args.data / DESCRIPTORS), (args.train_split, args.split)


def _run_vectors(args: argparse.Namespace) -> int:
    from eat_plugin.cli import probe_report
    from eat_plugin.inference.clip_vectors import VectorReader
    from eat_plugin.inference.probing import Judge, check_targets, mark_chosen, probe_vectors

    began = time.monotonic()
    _require_scikit_learn()
    loaded, label_set, names = open_data(args)
    reader = VectorReader(loaded, args.layer, SEED)
    splits = [choose_clips(args, name, label_set, loaded) for name in names]
    check_targets(splits[0].labels.multi_hot(splits[0].numbers))  # before work that takes long
    read = [_read_vectors(reader, clips, args.batch_size) for clips in splits]
    failures = [unusable for _, unusable in read]
    conclude_splits(splits, failures)
    train, heldout = (split for split, _ in read)
    judge = Judge.choose(train, heldout, args.resamples, SEED)
    found = probe_vectors(train, heldout, reader.layers, judge)
    total = sum(x.shape[1] for x in train.vectors.values())
    rows = list(progress(found, "probing", "row", total))
    summary = {
        **describe_run(args, loaded, (train, heldout), splits, failures),
        **probe_report.summarize(rows, mark_chosen(rows), judge, heldout.targets),
        "seconds": round(time.monotonic() - began, 1),
    }
    return deliver(args, summary, list(probe_report.format_report(summary)), failures)


def _require_scikit_learn() -> None:
    """Raise ModuleNotFoundError before any work."""
    if find_spec("sklearn") is None:
        raise ModuleNotFoundError(name="sklearn")


def choose_clips(
    args: argparse.Namespace, split: str, label_set: LabelSet, loaded: Loaded
) -> Clips:
    """List the clips of a split; draw some if there are too many."""
    from eat_plugin.prepare.cache_folder import count_listed

    manifest = inputs.open_split(args.data, split, loaded)
    path = args.data / f"{split}.lbl"
    labels = read_labels(path, label_set, manifest, single_label=False)
    if not labels.names_match:
        sys.stderr.write(f"{path} has other clip names than the manifest; lines are matched\n")
    numbers = np.arange(len(manifest))
    if len(numbers) > args.max_clips:
        drawn = np.random.default_rng(SEED).choice(len(numbers), args.max_clips, replace=False)
        numbers = np.sort(drawn)
    return Clips(split, manifest, labels, numbers, count_listed(args.data, split, manifest))


def _read_vectors(reader: VectorReader, clips: Clips, batch_size: int) -> tuple[Split, Failures]:
    """Compute the vectors of clips; return them in order, and the unusable clips."""
    from eat_plugin.inference.probing import Split, stack_vectors

    vectors: dict[int, Vectors] = {}
    failures: Failures = {}
    entries = [clips.manifest.entry(int(number)) for number in clips.numbers]
    found = reader.read(entries, batch_size)
    for clip, result in progress(found, f"reading {clips.split}", "clip", len(entries)):
        if isinstance(result, ClipError):
            failures[original_name(clips.manifest.name(int(clips.numbers[clip])))] = str(result)
        else:
            vectors[clip] = result
    usable = list(vectors)
    targets = clips.labels.multi_hot(clips.numbers[usable])
    return Split(stack_vectors(vectors.pop(clip) for clip in usable), targets), failures


def conclude_splits(splits: list[Clips], failures: list[Failures]) -> None:
    """List the unusable clips; raise ValueError if a split has no other."""
    for clips, unusable in zip(splits, failures):
        conclude("probe", unusable, len(clips.numbers))


def describe_run(
    args: argparse.Namespace, loaded: Loaded, sides: tuple[Split, Split], splits: list[Clips],
    failures: list[Failures],
) -> dict[str, Any]:  # fmt: skip
    """Return what was probed, on which clips, as data."""
    train, heldout = (side.targets for side in sides)
    return {
        "checkpoint": loaded.path,
        "kind": "pre-trained" if loaded.labels is None else "fine-tuned",
        "data": str(args.data),
        "classes": train.shape[1],
        "unseen_classes": int((heldout.any(0) & ~train.any(0)).sum()),
        "train": _describe_clips(splits[0], failures[0]),
        "heldout": _describe_clips(splits[1], failures[1]),
    }


def deliver(
    args: argparse.Namespace, summary: dict[str, Any], lines: list[str], failures: list[Failures]
) -> int:
    """Print the results and write their files; return the exit code."""
    from eat_plugin.cli import probe_report

    if args.json:
        say(json.dumps(summary))
    else:
        for line in lines:
            say(line)
    if args.out is not None:
        probe_report.write(args.out, summary, lines, (args.train_split, args.split), failures)
    return _exit_code(summary, args.max_missing)


def _describe_clips(clips: Clips, failures: Failures) -> dict[str, Any]:
    """Return the counts of a split as data."""
    left_out = clips.listed - len(clips.manifest)  # by the cache
    return {
        "split": clips.split,
        "n_clips": len(clips.numbers) - len(failures),
        "n_drawn": len(clips.numbers) + left_out,
        "n_missing": len(failures) + left_out,
        "n_listed": clips.listed,
    }


def _exit_code(summary: dict[str, Any], allowed: float) -> int:
    """Return 1 if a larger share of the clips of a split is missing than is allowed."""
    parts = (summary["train"], summary["heldout"])
    missing = max(part["n_missing"] / part["n_drawn"] for part in parts)
    return SOME_FAILED if missing > allowed else 0
