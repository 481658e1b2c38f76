"""Does pre-training pay? Five folds of ESC-10 (or ESC-50), on a CPU or a GPU.

In each fold a model is pre-trained on the audio of the training folds only. It is compared with
random weights at the same number of updates:

    scratch      the whole model trained from random weights
    fine-tuned   the whole model trained from the pre-trained weights
    probe random a linear classifier on a frozen random encoder
    probe        a linear classifier on the frozen pre-trained encoder

Accuracies are those after the last update: no checkpoint is chosen on the test fold.

    python -m benchmarks.esc10 --esc /data/ESC-50-master --out runs/esc10

An interrupted run resumes. Results: OUT/table.md and OUT/results.json.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

from .launching import (
    ARMS,
    BIN,
    ROOT,
    finetune_arms,
    make_parser,
    pretrain,
    run,
    say,
    write_results,
)

# These settings, and learning rate, loss weights and masks of size=tiny, were chosen on fold 2 with
# training on folds 3 to 5. Pre-training sees windows of 2 s, for speed; fine-tuning sees all 5 s.
PRETRAINING = [
    "size=tiny", "task.target_length=208", "model.modalities.image.patch_size=16",
    "task.norm=whole", "task.norm_mean=-6.627", "task.norm_std=5.359", "task.crop=random",
    "optimization.max_update=1200", "lr_scheduler.warmup_updates=120",
    "checkpoint.save_interval_updates=600",
]  # fmt: skip
FINETUNING = [
    "size=tiny", "benchmark=esc50", "dataset.batch_size=16", "dataset.num_workers=1",
    "optimization.max_update=200", "lr_scheduler.warmup_updates=20", "optimization.lr=[0.001]",
    "model.drop_path_rate=0", "model.mask_ratio=0.2", "dataset.validate_interval=1000",
    "checkpoint.save_interval=1000",
]  # fmt: skip
PROBE = ("model.prediction_mode=MEAN_POOLING", "model.specaug=false")


def main() -> int:
    """Run the missing trainings, and print the table."""
    parser = make_parser(__doc__)
    parser.add_argument(
        "--esc", type=Path, required=True, metavar="DIR", help="folder with meta/esc50.csv, audio/"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "esc10", metavar="DIR")
    parser.add_argument("--folds", type=int, nargs="+", default=[1, 2, 3, 4, 5], metavar="N")
    args = parser.parse_args()
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    began, results = time.monotonic(), {}
    for number in args.folds:
        fold = out / f"fold{number}"
        data = prepare(args.esc.resolve(), number, fold)
        pretrained = pretrain("pretrain", data, fold / "pretraining", PRETRAINING)
        results[number] = finetune_arms("finetune", data, pretrained, fold, FINETUNING, PROBE)
        accuracies = ", ".join(f"{arm} {value:.1%}" for arm, value in results[number].items())
        say(f"fold {number}: {accuracies}")
    write_results(out, format_table(results), results, began)
    return 0


def prepare(esc: Path, number: int, fold: Path) -> Path:
    """Make manifests with one fold held out; return their folder."""
    data = fold / "data"
    if not (data / "eval.lbl").is_file():
        command = [BIN / "eat", "manifest", esc, "--layout", "esc50", "--fold", number]
        run([*command, "--out", data], fold / "manifest.log")
    return data


def format_table(results: dict[int, dict[str, float]]) -> str:
    """Format accuracies in Markdown: a row per fold, then mean and standard deviation."""
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
