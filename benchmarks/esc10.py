"""Does pre-training pay? Five folds of ESC-10 (or ESC-50), on a CPU or a GPU.

In each fold a model is pre-trained on the training folds' audio alone: no test clip is ever seen.
Then it is compared with random weights, at the same budget of updates:

    scratch      the whole model trained from random weights
    fine-tuned   the whole model trained from the pre-trained weights
    probe random a linear classifier on a frozen random encoder
    probe        a linear classifier on the frozen pre-trained encoder

What is reported is the accuracy after the last update: no checkpoint is chosen by the test fold.

    .venv/bin/python benchmarks/esc10.py --esc /data/ESC-50-master --out runs/esc10

An interrupted run goes on where it was. The table is printed and written to OUT/table.md, the
numbers to OUT/results.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
from launching import BIN, ROOT, finetune, pretrain, run, say

# Chosen on fold 2 with folds 3 to 5 for training, before any other fold was looked at; so were the
# learning rate, the weights of the losses and the masks of size=tiny. Pre-training sees windows of
# 2 s, which is quick; fine-tuning sees the whole clips of 5 s.
PRETRAINING = [
    "size=tiny", "task.target_length=208", "task.norm_mean=-6.627", "task.norm_std=5.359",
    "task.crop=random", "optimization.max_update=1200", "lr_scheduler.warmup_updates=120",
    "checkpoint.save_interval_updates=600",
]  # fmt: skip
FINETUNING = [
    "size=tiny", "benchmark=esc50", "dataset.batch_size=16", "dataset.num_workers=1",
    "optimization.max_update=200", "lr_scheduler.warmup_updates=20", "optimization.lr=[0.001]",
    "model.drop_path_rate=0", "model.mask_ratio=0.2", "dataset.validate_interval=1000",
    "checkpoint.save_interval=1000",
]  # fmt: skip
PROBE = [
    "model.linear_probe=true", "model.prediction_mode=MEAN_POOLING", "model.specaug=false",
    "optimization.lr=[0.01]",
]  # fmt: skip
# A layer-wise decay of the learning rate protects what pre-training has learnt; there is nothing to
# protect in random weights.
OF_ARM = {
    "scratch": ["model.model_path=null", "model.layer_decay=1"],
    "fine-tuned": ["model.layer_decay=0.75"],
    "probe random": ["model.model_path=null", *PROBE],
    "probe": PROBE,
}
ARMS = tuple(OF_ARM)


def main() -> int:
    """Run what is not done yet, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--esc", type=Path, required=True, metavar="DIR", help="folder with meta/esc50.csv, audio/"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "esc10", metavar="DIR")
    parser.add_argument("--folds", type=int, nargs="+", default=[1, 2, 3, 4, 5], metavar="N")
    args = parser.parse_args()
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    began, results = time.monotonic(), {}
    for fold in args.folds:
        data = prepare(args.esc.resolve(), fold, out)
        pretrained = pretrain("pretrain", data, out / f"fold{fold}" / "pretraining", PRETRAINING)
        results[fold] = {
            arm: finetune(
                "finetune", data, pretrained, out / f"fold{fold}" / arm.replace(" ", "_"),
                [*FINETUNING, *OF_ARM[arm]],
            )
            for arm in ARMS
        }  # fmt: skip
        say(f"fold {fold}: " + ", ".join(f"{arm} {results[fold][arm]:.1%}" for arm in ARMS))
    table = write_table(results)
    (out / "table.md").write_text(table, encoding="utf-8")
    (out / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    say(f"\n{table}\n{(time.monotonic() - began) / 60:.0f} minutes")
    return 0


def prepare(esc: Path, fold: int, out: Path) -> Path:
    """List the clips with one fold held out; return the folder of the manifests."""
    data = out / f"fold{fold}" / "data"
    if not (data / "eval.lbl").is_file():
        run(
            [BIN / "eat", "manifest", esc, "--layout", "esc50", "--fold", fold, "--out", data],
            out / f"fold{fold}-manifest.log",
        )
    return data


def write_table(results: dict[int, dict[str, float]]) -> str:
    """Lay accuracies out in Markdown: a row a fold, then mean and standard deviation."""
    lines = ["| fold | " + " | ".join(ARMS) + " |", "|---|" + "---|" * len(ARMS)]
    for fold, row in results.items():
        lines.append(f"| {fold} | " + " | ".join(f"{100 * row[arm]:.1f}" for arm in ARMS) + " |")
    values = 100 * np.array([[row[arm] for arm in ARMS] for row in results.values()])
    spread = values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros(len(ARMS))
    cells = (f"{mean:.1f} ± {std:.1f}" for mean, std in zip(values.mean(axis=0), spread))
    lines.append("| mean ± std | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
