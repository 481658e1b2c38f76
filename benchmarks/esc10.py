r"""Does pre-training pay? Five folds of ESC-10 (or ESC-50), on a CPU or a GPU.

In each fold a tiny model is pre-trained on the audio of the training folds only, with the packaged
recipe: the numbers of updates are the only settings. It is compared with random weights at the same
number of updates of fine-tuning, and its frozen features with simple statistics (eat probe):

    scratch       the whole model trained from random weights
    fine-tuned    the whole model trained from the pre-trained weights
    probe model   a linear classifier on the frozen pre-trained encoder
    probe log-mel the same on statistics of the mel bins
    probe random  the same on random weights

Accuracies are those after the last update: no checkpoint is chosen on the test fold.

    python -m benchmarks.esc10 --esc /data/ESC-50-master --out runs/esc10
    python -m benchmarks.esc10 --esc /data/ESC-50-master --out runs/dino --seeds 1 2 3 \
        --option model.cls_target=layers --option model.dino_loss=1 --option model.cls_loss=0

An interrupted run resumes. Results: OUT/table.md and OUT/results.json.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from .launching import BIN, ROOT, compare, format_table, make_parser, run, say, write_results


def main() -> int:
    """Run the missing trainings, and print the table."""
    parser = make_parser(__doc__)
    parser.add_argument(
        "--esc", type=Path, required=True, metavar="DIR", help="folder with meta/esc50.csv, audio/"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "esc10", metavar="DIR")
    parser.add_argument("--folds", type=int, nargs="+", default=[1, 2, 3, 4, 5], metavar="N")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], metavar="N")
    parser.add_argument("--pretraining", type=int, default=5000, metavar="UPDATES")
    parser.add_argument("--finetuning", type=int, default=600, metavar="UPDATES")
    parser.add_argument(
        "--option", action="append", default=[], metavar="OPTION=VALUE", help="of pre-training"
    )
    args = parser.parse_args()
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    began, results = time.monotonic(), {}
    for number in args.folds:
        data = prepare(args.esc.resolve(), number, out / f"fold{number}")
        for seed in args.seeds:
            name = f"{number}" if len(args.seeds) == 1 else f"{number}, seed {seed}"
            folder = out / f"fold{number}" / f"seed{seed}"
            options = [*args.option, f"common.seed={seed}"]
            results[name] = compare(data, folder, (args.pretraining, args.finetuning), options)
            say(f"fold {name}: " + ", ".join(f"{k} {v:.1%}" for k, v in results[name].items()))
    write_results(out, format_table(results, "fold"), results, began)
    return 0


def prepare(esc: Path, number: int, fold: Path) -> Path:
    """Make manifests with one fold held out; return their folder."""
    data = fold / "data"
    if not (data / "eval.lbl").is_file():
        command = [BIN / "eat", "manifest", esc, "--layout", "esc50", "--fold", number]
        run([*command, "--out", data], fold / "manifest.log")
    return data


if __name__ == "__main__":
    sys.exit(main())
