"""Pre-train a model on the clips of a data folder.

Examples:
  eat manifest /my/audio --out data
  eat stats data
  eat pretrain --data data --size tiny
  eat pretrain --data data --out runs/mine dataset.batch_size=24 optimization.lr=0.0004
  eat pretrain --config-name sslam --data data --checkpoint runs/mine/checkpoints/checkpoint_last.pt

--checkpoint starts from weights and teacher of another run: sslam, the second stage for sounds that
overlap, continues a first one.
Chooses device, precision and data workers for this machine, unless options set them. It
prints the equal fairseq-hydra-train command, for clusters. The same command resumes a stopped run.

RUN has the checkpoints, console.txt (the full log) and tb (TensorBoard). See a run with:
  eat plot --run RUN --out losses.png
"""

from __future__ import annotations

import argparse

from eat_plugin.cli import training
from eat_plugin.configs import quote

CONFIG = "pretrain"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    training.add_arguments(parser, CONFIG)
    parser.add_argument(
        "--checkpoint",
        metavar="C",
        help="pre-trained checkpoint to start from, ours or published (default: random weights)",
    )


def run(args: argparse.Namespace) -> int:
    overrides = []
    if args.checkpoint is not None:
        path = training.find_checkpoint(args.checkpoint, "leave it out for random weights")
        overrides.append(f"checkpoint.finetune_from_model={quote(path)}")
    return training.run(args, CONFIG, overrides)
