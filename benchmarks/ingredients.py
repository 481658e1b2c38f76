r"""Which ingredient of BAT pays? EAT's recipe for tiny models, and each ingredient added in turn.

    EAT                packaged recipe, with EAT's front end
    + front end        decibels from 0 to 1 in each clip, waveforms rotated
    + gate, ends       gated attention, targets at the ends of blocks
    + decoder          of transformer blocks, and the learning rate of BAT: with that of EAT's tiny
                       models the encoder collapses
    BAT                its losses and initialisation too: config/bat.yaml
    EAT, time of BAT   as many updates as take the time of BAT, by their logs
    front end by bin   EAT with the front end of BAT, normalised by mel bin
    BAT by bin         BAT with this
    half of it         its decoder predicts half of the hidden patches

Each is pre-trained on the training split with the packaged recipe, and scored on the held-out one:

    fine-tuned   the whole model
    random       the same from random weights, for each front end
    linear, CGP  eat probe on the frozen features of at most 500 training clips: best layer and
                 pooling by cross-validation, and --head cgp

    python -m benchmarks.ingredients --data runs/esc10/fold{1,2,3}/data --out runs/ingredients

A run per data folder; its seed is the folder's place in the list. An interrupted run resumes.
Results: OUT/table.md and OUT/results.json.
"""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

from eat_plugin.choices import CGP

from .launching import (
    ROOT,
    finetune_arms,
    format_means,
    make_parser,
    pretrain,
    probe,
    probe_head,
    say,
    write_results,
)

PROBE = "--max-clips=500"
DECODER = "model.modalities.image.decoder"
KALDI = ["task.frontend=kaldi"]
BY_BIN = ["task.frontend=db", "task.roll=true"]  # task.norm=bins, as size=tiny
FRONT_END = [*BY_BIN, "task.norm=whole"]
GATE = [
    *FRONT_END, "+model.attention_gate=true", "+model.end_of_block_targets=true",
    "+model.target_norm_eps=1e-6",
]  # fmt: skip
EAT, BAT, EQUAL_TIME = "EAT", "BAT", "EAT, time of BAT"
ARMS = {
    EAT: ("pretrain", KALDI),
    "+ front end": ("pretrain", FRONT_END),
    "+ gate, ends": ("pretrain", GATE),
    "+ decoder": ("pretrain", [*GATE, f"+{DECODER}.decoder_kind=vit", "optimization.lr=[0.0005]"]),
    BAT: ("bat", ["task.norm=whole"]),
    EQUAL_TIME: ("pretrain", KALDI),
    "front end by bin": ("pretrain", BY_BIN),
    "BAT by bin": ("bat", []),
    "half of it": ("bat", [f"{DECODER}.hidden_share=0.5"]),
}
RANDOM = {  # options of fine-tuning
    EAT: KALDI,
    "+ front end": ["task.frontend=db", "task.norm=whole"],
    "front end by bin": ["task.frontend=db"],
}


def main() -> int:
    """Run the missing trainings, and print the table."""
    parser = make_parser(__doc__)
    parser.add_argument(
        "--data", type=Path, nargs="+", required=True, metavar="DIR",
        help="data folders with the splits train and eval, of benchmarks.esc10 or words",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "ingredients", metavar="DIR")
    parser.add_argument("--pretraining", type=int, default=1000, metavar="UPDATES")
    parser.add_argument("--finetuning", type=int, default=400, metavar="UPDATES")
    args = parser.parse_args()
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    found: dict[str, dict[str, dict[str, float]]] = {arm: {} for arm in ARMS}
    for seed, data in enumerate((data.resolve() for data in args.data), start=1):
        seconds: dict[str, float] = {}
        for arm, (config, options) in ARMS.items():
            updates = args.pretraining
            if arm == EQUAL_TIME:
                updates = round(updates * seconds[BAT] / seconds[EAT])
            folder = out / f"seed{seed}" / re.sub(r"\W+", "_", arm).strip("_").lower()
            common = ["size=tiny", f"common.seed={seed}"]
            own = [*common, f"optimization.max_update={updates}", *options]
            checkpoint = pretrain(config, data, folder / "pretraining", own)
            seconds[arm] = read_seconds(folder / "pretraining" / "hydra_train.log")
            fine = [*common, f"optimization.max_update={args.finetuning}"]
            arms: dict[str, list[str]] = {"fine-tuned": []}
            if arm in RANDOM:
                arms["random"] = ["model.model_path=null", *RANDOM[arm]]
            scores = finetune_arms("finetune", data, checkpoint, folder, fine, arms)
            probed = probe(data, checkpoint, folder / "linear", PROBE)
            scores["linear"] = probed["probe model"]
            scores[CGP] = probe_head(data, checkpoint, folder / CGP, CGP, PROBE)
            found[arm][f"{seed}"] = scores
            say(f"{arm}, seed {seed}: " + ", ".join(f"{k} {v:.1%}" for k, v in scores.items()))
    write_results(out, format_means(found, "recipe"), found, began)
    return 0


def read_seconds(log: Path) -> float:
    """Return the time of the updates of a run, from the last line of its log that has it."""
    return float(re.findall(r'"train_wall": "([\d.]+)"', log.read_text(encoding="utf-8"))[-1])


if __name__ == "__main__":
    sys.exit(main())
