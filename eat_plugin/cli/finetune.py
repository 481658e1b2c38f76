"""Fine-tune a classifier on the labelled clips of a data folder.

Examples:
  eat manifest /my/sounds --layout folders --valid 0.1 --out labelled
  eat stats labelled
  eat finetune --data labelled --checkpoint runs/mine/checkpoints/checkpoint_last.pt
  eat finetune --data esc50/fold1 --checkpoint EAT-base.pt --benchmark esc50
  eat finetune --data labelled --checkpoint none --size tiny      from random weights

Chooses device, precision and data workers for this machine, unless options set them. It
prints the equal fairseq-hydra-train command, for clusters. The same command resumes a stopped run.

RUN has the checkpoints (checkpoint_best.pt: the best on the held-out clips), console.txt (the full
log) and tb (TensorBoard). Then:
  eat evaluate --checkpoint RUN/checkpoints/checkpoint_last.pt --data labelled --out evaluation
"""

from __future__ import annotations

import argparse

from eat_plugin.cli import training
from eat_plugin.configs import list_groups, quote

CONFIG = "finetune"
NONE = "none"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    training.add_arguments(parser, CONFIG)
    parser.add_argument(
        "--checkpoint",
        metavar="C",
        required=True,
        help=f"pre-trained checkpoint, ours or published; {NONE} starts from random weights",
    )
    parser.add_argument(
        "--benchmark",
        metavar="NAME",
        help=f"settings of a benchmark: {', '.join(list_groups()['benchmark'])} (default: custom)",
    )


def run(args: argparse.Namespace) -> int:
    overrides = []
    if args.checkpoint == NONE:
        overrides.append("model.model_path=null")
    else:
        path = training.find_checkpoint(args.checkpoint, f"{NONE} for random weights")
        overrides.append(f"model.model_path={quote(path)}")
    if args.benchmark is not None:
        overrides.append(f"benchmark={args.benchmark}")
    return training.run(args, CONFIG, overrides)
