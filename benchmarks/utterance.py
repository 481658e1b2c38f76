r"""Which loss of whole clips pays? ESC-10 (or ESC-50), by a linear probe of frozen features.

A tiny model is pre-trained with the packaged recipe on all clips, without labels, once per loss and
seed. Its last block is probed as by `eat probe`, in five folds: a fold is scored by a classifier
that has seen the other four. So each figure is of all clips, and models differ by their loss alone;
it is not that of clips which pre-training has not seen (`benchmarks.esc10` has that).

    python -m benchmarks.utterance --esc /data/ESC-50-master --out runs/utterance
    python -m benchmarks.utterance --esc /data/ESC-50-master --losses none dino --updates 3000

An interrupted run resumes. Results: OUT/table.md and OUT/results.json.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from eat_plugin.data.label_set import read_label_set
from eat_plugin.data.labels import read_labels
from eat_plugin.data.manifest import read_manifest
from eat_plugin.inference import load_checkpoint
from eat_plugin.inference.clip_vectors import MODEL, VectorReader
from eat_plugin.inference.probing import (
    LINEAR,
    Judge,
    Split,
    mark_chosen,
    probe_vectors,
    stack_vectors,
)

from .esc10 import prepare
from .launching import ROOT, format_means, make_parser, pretrain, say, write_results

FOLDS = range(1, 6)
ALL = 0  # the folder with the clips of all folds
LAYERS = "model.cls_target=layers"
NO_REGRESSION = "model.cls_loss=0"
LOSSES = {
    "none": [NO_REGRESSION],
    "cls, published": [],
    "cls, layers": [LAYERS],
    "dino": [NO_REGRESSION, LAYERS, "model.dino_loss=1"],
}
POOLINGS = ("mean", "cls", "mean+max")


def main() -> int:
    """Run the missing trainings, and print the table."""
    parser = make_parser(__doc__)
    parser.add_argument(
        "--esc", type=Path, required=True, metavar="DIR", help="folder with meta/esc50.csv, audio/"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "utterance", metavar="DIR")
    parser.add_argument("--losses", nargs="+", default=list(LOSSES), choices=LOSSES, metavar="NAME")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], metavar="N")
    parser.add_argument("--updates", type=int, default=1000, metavar="N")
    args = parser.parse_args()
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    esc = args.esc.resolve()
    folds = [prepare(esc, number, out / f"fold{number}") for number in FOLDS]
    clips = list_all(folds[0], out / "all")
    found: dict[str, dict[str, dict[str, float]]] = {loss: {} for loss in args.losses}
    for seed in args.seeds:
        for loss in args.losses:
            folder = out / loss.replace(", ", "_") / f"seed{seed}"
            options = [f"common.seed={seed}", f"optimization.max_update={args.updates}"]
            checkpoint = pretrain("pretrain", clips, folder, ["size=tiny", *options, *LOSSES[loss]])
            scores = probe_folds(folds, checkpoint, folder / "accuracies.json")
            found[loss][f"{seed}"] = scores
            say(f"{loss}, seed {seed}: " + ", ".join(f"{k} {v:.1%}" for k, v in scores.items()))
    write_results(out, format_means(found, "losses"), found, began)
    return 0


def list_all(fold: Path, folder: Path) -> Path:
    """Write the clips of both splits of a fold as the split ``train``, without labels."""
    folder.mkdir(exist_ok=True)
    rows = [(fold / f"{split}.tsv").read_text("utf-8").splitlines() for split in ("train", "eval")]
    assert rows[0][0] == rows[1][0]  # the root
    lines = [rows[0][0], *sorted(rows[0][1:] + rows[1][1:])]
    (folder / "train.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def probe_folds(folds: list[Path], checkpoint: Path, done: Path) -> dict[str, float]:
    """Probe the last block, unless done; return the accuracies over the clips of all folds.

    Args:
        folds: data folders, one fold held out in each.
        checkpoint: the model.
        done: file of the result.

    Returns:
        Accuracy by pooling; and by that which is best in cross-validation on the training folds.
    """
    if done.is_file():
        return json.loads(done.read_text(encoding="utf-8"))  # type: ignore[no-any-return]
    reader = VectorReader(load_checkpoint(checkpoint, "cpu"), -1)
    splits = [read_split(folds[0], split, reader) for split in ("train", "eval")]
    names = np.concatenate([own for own, _ in splits])
    vectors = {
        kind: np.concatenate([split.vectors[kind] for _, split in splits])
        for kind in splits[0][1].vectors
        if kind.source == MODEL
    }
    targets = np.concatenate([split.targets for _, split in splits])
    correct: dict[str, list[np.ndarray]] = {}
    for fold in folds:
        held = np.isin(names, list_names(fold, "eval"))
        train, heldout = (
            Split({kind: x[own] for kind, x in vectors.items()}, targets[own])
            for own in (~held, held)
        )
        judge = Judge.choose(train, heldout, 0, 0)
        rows = list(probe_vectors(train, heldout, reader.layers, judge))
        mark_chosen(rows)
        for row in rows:
            outcome = row.outcomes[LINEAR]
            right = outcome.scores.argmax(axis=1) == heldout.targets.argmax(axis=1)
            for name in [row.kind.pooling] * (row.kind.pooling in POOLINGS) + (
                ["chosen"] * outcome.is_chosen
            ):
                correct.setdefault(name, []).append(right)
    order = ("chosen", *POOLINGS)
    result = {name: float(np.concatenate(correct[name]).mean()) for name in order}
    done.write_text(json.dumps(result), encoding="utf-8")
    return result


def list_names(folder: Path, split: str) -> list[str]:
    """Return the names of the clips of a split."""
    manifest = read_manifest(folder / f"{split}.tsv")
    return [manifest.name(index) for index in range(len(manifest))]


def read_split(folder: Path, split: str, reader: VectorReader) -> tuple[list[str], Split]:
    """Compute the vectors of a split; return the names of its clips too."""
    manifest = read_manifest(folder / f"{split}.tsv")
    label_set = read_label_set(folder / "label_descriptors.csv")
    labels = read_labels(folder / f"{split}.lbl", label_set, manifest, single_label=True)
    found: Any = dict(reader.read([manifest.entry(index) for index in range(len(manifest))]))
    vectors = stack_vectors(found[clip] for clip in range(len(manifest)))
    return list_names(folder, split), Split(vectors, labels.multi_hot(np.arange(len(manifest))))


if __name__ == "__main__":
    sys.exit(main())
